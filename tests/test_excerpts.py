"""What is shown of a record is short, soon there, without secrets and without what steers a terminal."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taktline
from taktline import Failed, line
from taktline._excerpts import EXCERPT_CHARACTERS, excerpt, harmless, masked

SECRET = "hunter2xyz"
KEYS = (
    "password", "api-key", "x-api-key", "X_API_KEY", "private_key", "pwd", "PGPASSWORD", "cookie", "Set-Cookie",
    "Authorization", "jwt", "dsn", "clientSecret", "refresh-token", "aws_secret_access_key", "user-pass", "client_auth",
)  # fmt: skip


@dataclasses.dataclass
class Login:
    name: str
    pwd: str


class Keyed(typing.NamedTuple):
    number: int
    api_key: str


class Shown:
    def __init__(self) -> None:
        self.token = SECRET

    def __repr__(self) -> str:
        return f"Shown(token={self.token!r})"


class Slotted:
    __slots__ = ("secret",)

    def __init__(self) -> None:
        self.secret = SECRET

    def __repr__(self) -> str:
        return f"Slotted(secret={self.secret})"


def deep(value: object, levels: int) -> object:
    for n in range(levels):
        value = {"in": value} if n % 2 else [value]
    return value


SHAPES = {
    "dict": lambda key: {key: SECRET},
    "bytes key": lambda key: {key.encode(): SECRET},
    "deep": lambda key: deep({key: SECRET}, 6),
    "pair": lambda key: (key, SECRET),
    "list of pairs": lambda key: [[key, SECRET]],
    "name and value": lambda key: {"name": key, "value": SECRET},
    "JSON": lambda key: json.dumps({"n": 1, key: SECRET, "m": 2}),
    "JSON as bytes": lambda key: json.dumps({key: SECRET}).encode(),
    "JSON in JSON": lambda key: json.dumps({"inner": json.dumps({key: SECRET})}),
    "JSON with a list": lambda key: json.dumps({key: [1, {"x": SECRET}], "m": SECRET}),
    "repr": lambda key: repr({key: SECRET}),
    "cut off": lambda key: repr({key: SECRET})[:-2],
    "query": lambda key: f"https://example.org/a?n=1&{key}={SECRET}&m=2",
    "assignment": lambda key: f"host=db {key}={SECRET} user=me",
    "header": lambda key: f"{key}: Bearer {SECRET}",
    "XML": lambda key: f"<login><{key}>{SECRET}</{key}></login>",
    "exception": lambda key: ValueError({key: SECRET}),
    "ordered": lambda key: collections.OrderedDict({key: SECRET}),
    "key of a key": lambda key: {(key, SECRET): 1},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("key", KEYS)
def test_the_value_of_a_secret_key_is_not_shown(shape: str, key: str) -> None:
    for each in {key, key.upper()}:
        shown = excerpt(SHAPES[shape](each))
        assert SECRET not in shown
        assert len(shown) <= EXCERPT_CHARACTERS


@pytest.mark.parametrize(
    "record",
    [
        Login("me", SECRET), Keyed(1, SECRET), Shown(), Slotted(), [Login("me", SECRET)],
        f"postgresql://me:{SECRET}@db/shop", f"HTTPS://ME:{SECRET}@EXAMPLE.ORG/A", f"redis://:{SECRET}@db",
        f"Cookie: a=1; session={SECRET}", f"Authorization: Basic {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}", f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.abc", f"Server=db;Pwd={SECRET};",
    ],
    ids=str,
)  # fmt: skip
def test_a_secret_is_not_shown_whatever_holds_it(record: object) -> None:
    assert SECRET not in excerpt(record)
    assert SECRET not in repr(Failed(3, record, "parse", ValueError(str(record) if isinstance(record, str) else "")))


@pytest.mark.parametrize(
    "text", ["author: me", "2024-01-01T10:00:00 key: value", "a=1&b=2", "http://db:80/x", "spin=1"]
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == text
    assert excerpt(text) == repr(text)


def doubled() -> object:
    value: object = [1]
    for _ in range(40):
        value = [value, value]
    return value


class Holding:
    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Holding({self.value!r})"


@pytest.mark.parametrize("hold", [list, Holding, lambda v: Login(v, v), lambda v: {"a": v}, lambda v: [Holding(v)]])
def test_a_record_whose_repr_would_not_end_is_shown_at_once(hold: typing.Callable[[object], object]) -> None:
    assert len(excerpt(hold([doubled()]))) <= EXCERPT_CHARACTERS


def test_a_record_that_holds_itself_is_shown() -> None:
    value: list[object] = []
    value.append(value)
    assert excerpt(value)
    assert excerpt(Holding(Holding(value)))


@pytest.mark.process
@pytest.mark.parametrize(
    "options", [{"dead_letters": "failed.jsonl"}, {"dead_letters": "failed.sqlite"}, {"journal": "run"}]
)
@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_record_whose_text_would_not_end_is_kept_and_told_apart(
    tmp_path: Path, options: dict[str, str], how: str
) -> None:
    options = {name: str(tmp_path / file) for name, file in options.items()}
    flow = line(len, lambda n: 1 // (n - 2))
    records = iter([[1], doubled(), [1]])
    assert list(flow(records, how=how, workers=1, on_error="skip", **options)) == [-1, -1]
    if "dead_letters" in options:
        (letter,) = taktline.read_dead_letters(options["dead_letters"])
        assert len(letter.record) == 2


@pytest.mark.process
def test_a_failed_record_that_would_not_end_reaches_the_caller() -> None:
    def fails(value: object) -> None:
        raise ValueError("no")

    for how in ("loop", "line"):
        (failed,) = line(fails)([[doubled()]] if how == "loop" else [Holding([1])], how=how, workers=1, on_error="keep")
        assert repr(failed)


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    assert harmless(text).isprintable()
    assert excerpt(Holding(text)).isprintable()


@given(st.recursive(st.text() | st.binary() | st.integers() | st.floats(), lambda inner: st.lists(inner) | st.tuples(inner)
                    | st.dictionaries(st.text() | st.binary(), inner), max_leaves=20))  # fmt: skip
def test_an_excerpt_of_anything_is_short_and_printable(record: object) -> None:
    shown = excerpt(record)
    assert len(shown) <= EXCERPT_CHARACTERS
    assert shown.isprintable()


@pytest.mark.process
def test_the_command_writes_no_control_character_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("def fails(text):\n    raise ValueError(text)\n")
    (tmp_path / "in.txt").write_text("\x1b]0;mine\x07\x1b[2J\u202e\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "taktline", "run", "steps.py:fails", "--in", "in.txt", "--out", "-"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "\\x1b" in done.stderr
    assert all(c.isprintable() or c == "\n" for c in done.stderr)
