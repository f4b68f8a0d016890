"""What other packages bring by entry points is read and written as taktline's own, and what is wrong with it is told."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packages import Packages

import taktline
from taktline import LineError, SinkError, SourceError, line, read, write
from taktline.cli.commands import run_main

ROOT = Path(__file__).parents[2]

PAIRS = """
def decode(stream):
    for line in stream:
        key, _, value = line.decode().rstrip().partition("=")
        yield {key: int(value)}

def encode(results):
    return "".join(f"{key}={value}\\n" for result in results for key, value in result.items()).encode()
"""

SHELF = """
from taktline.abc import Resumable, Sink, Source

shelves = {}

class Shelf(Source):
    def __init__(self, url):
        self._url = url
    def __iter__(self):
        return iter(shelves[self._url])
    def describe(self):
        return self._url

class Onto(Sink):
    def __init__(self, url):
        self._url = url
    def open(self):
        self._results = []
    def write(self, results):
        self._results += results
    def commit(self):
        shelves[self._url] = self._results
    def abort(self):
        self._results = []

def read(url, columns=None):
    return Shelf(url)

def write(url):
    return Onto(url)
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Packages(folder)
    for name in [
        name for name, module in sys.modules.items() if str(folder) in (getattr(module, "__file__", "") or "")
    ]:
        del sys.modules[name]


def test_a_format_is_known_by_its_suffix_packed_too_and_by_name(packages, tmp_path):
    packages.install("pairs-format", PAIRS, "taktline.formats", pairs="pairs_format")
    rows = [{"a": n} for n in range(1000)]
    for name in ("out.pairs", "out.pairs.gz"):
        line(lambda row: row).run(rows, write(tmp_path / name))
        assert list(read(tmp_path / name)) == rows
        again = line(lambda row: row)(read(tmp_path / name), how="line", workers=2, start="launch")
        assert list(again) == rows
    assert (tmp_path / "out.pairs").read_text().startswith("a=0\na=1\n")
    line(dict).run(rows, write(tmp_path / "out.dat", "pairs"), how="line", workers=2)
    assert list(read(tmp_path / "out.dat", "pairs")) == rows


def test_a_format_that_a_journal_stops_in_goes_on(packages, tmp_path):
    packages.install("pairs-format", PAIRS, "taktline.formats", pairs="pairs_format")
    out, journal = tmp_path / "out.pairs", tmp_path / "j"
    first = line(dict)([{"a": n} for n in range(50)], journal=journal)
    next(first)
    first.close()
    report = line(dict).run([{"a": n} for n in range(50)], write(out), journal=tmp_path / "k")
    assert (report.records_out, len(list(read(out)))) == (50, 50)


def test_what_a_format_cannot_read_or_write_is_named(packages, tmp_path):
    packages.install("pairs-format", PAIRS, "taktline.formats", pairs="pairs_format")
    (tmp_path / "a.pairs").write_text("a=1\nb=x\n")
    with pytest.raises(SourceError, match=r"a\.pairs' cannot be read as pairs behind its 1 first records: ValueError"):
        list(read(tmp_path / "a.pairs"))
    with pytest.raises(SinkError, match="result 1 cannot be written as pairs: AttributeError"):
        line(lambda row: row).run([{"a": 1}, 7], write(tmp_path / "b.pairs"))
    for wrong in ({"columns": ["a"]}, {"delimiter": ";"}, {"types": {"a": int}}, {"encoding": "latin-1"}):
        with pytest.raises(LineError):
            read(tmp_path / "a.pairs", **wrong)
    with pytest.raises(LineError, match=r"there is no format 'pears'; choose one of .*pairs.*did you mean 'pairs'"):
        read(tmp_path / "a.pairs", "pears")
    with pytest.raises(LineError, match=r"cannot be told from its suffix; .*pairs"):
        write(tmp_path / "a.unknown")


def test_a_format_that_is_only_read_is_not_written(packages, tmp_path):
    packages.install(
        "half-format", "def decode(stream):\n    return iter(stream)\n", "taktline.formats", half="half_format"
    )
    (tmp_path / "a.half").write_text("1\n")
    assert list(read(tmp_path / "a.half")) == [b"1\n"]
    with pytest.raises(LineError, match=r"'half' cannot be written: the package that brings it has no encode\(\)"):
        write(tmp_path / "b.half")


def test_a_scheme_is_read_and_written_by_the_functions_and_by_the_command(packages, tmp_path, capsys):
    packages.install("shelf-ends", SHELF, "taktline.schemes", shelf="shelf_ends")
    line(abs).run([-1, -2, 3], write("shelf://a"))
    assert list(read("shelf://a")) == [1, 2, 3]
    steps = tmp_path / "steps.py"
    steps.write_text("def double(n):\n    return 2 * n\n")
    assert run_main(["run", f"{steps}:double", "--in", "shelf://a", "--out", "shelf://b", "--quiet"]) == 0
    assert list(read("shelf://b")) == [2, 4, 6]
    assert (
        run_main(["run", f"{steps}:double", "--in", "shelf://a", "--out", "shelf://c", "--quiet", "--limit", "2"]) == 0
    )
    assert list(read("shelf://c")) == [2, 4]
    assert list(read("shelf://a", columns=["a"])) == [1, 2, 3]
    for wrong in ({"delimiter": ";"}, {"header": False}, {"encoding": "latin-1"}):
        with pytest.raises(LineError, match="has no meaning for shelf://"):
            read("shelf://a", **wrong)
    with pytest.raises(LineError, match="'shelf://a' can be read alone, not among others"):
        read(["shelf://a", "shelf://b"])


def test_a_package_that_cannot_be_loaded_is_named(packages, tmp_path):
    packages.install("broken-ends", "import nothing_of_this_name\n", "taktline.schemes", broken="broken_ends")
    packages.install("other-ends", "def write(url):\n    return []\n", "taktline.schemes", other="other_ends")
    with pytest.raises(LineError, match=r"broken:// is brought by the package broken-ends 1\.2, which cannot be loaded: "
                       "ModuleNotFoundError: No module named 'nothing_of_this_name'"):  # fmt: skip
        read("broken://a")
    with pytest.raises(LineError, match="'other://a' cannot be read: other:// is for the other end"):
        read("other://a")
    with pytest.raises(LineError, match=r"what other:// makes of 'other://a' is no taktline\.abc\.Sink: list"):
        write("other://a")
    packages.install("third-ends", SHELF, "taktline.schemes", other="third_ends")
    with pytest.raises(
        LineError, match=r"other:// is brought by several packages, other-ends 1\.2 and third-ends 1\.2"
    ):
        read("other://a")


def test_a_scheme_that_nobody_knows(packages, tmp_path, capsys):
    packages.install("shelf-ends", SHELF, "taktline.schemes", shelf="shelf_ends")
    for url, hint in (("shlef://a", "; did you mean shelf://?"), ("qqqq://a", ".")):
        for opens in (read, write):
            with pytest.raises(LineError) as told:
                opens(url)
            assert f"knows the scheme {url.removesuffix('a')}{hint} There are " in str(told.value)
            assert {"file", "https", "s3", "shelf", "sqlite"} <= set(
                str(told.value).rpartition("There are ")[2].split(", ")
            )
    with pytest.raises(LineError, match=r"is a database.* In Python:\n  read    taktline\.read_sql\("):
        read("sqlite:///a.db")
    steps = tmp_path / "steps.py"
    steps.write_text("def double(n):\n    return 2 * n\n")
    assert run_main(["run", f"{steps}:double", "--in", "shlef://a", "--out", "-"]) == 2
    assert "did you mean shelf://?" in capsys.readouterr().err


def test_our_own_schemes_are_declared_as_any_others(packages, monkeypatch, tmp_path, capsys):
    pytest.importorskip("google.pubsub_v1")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["taktline.schemes"]
    packages.install("taktline", "", "taktline.schemes", **declared)  # whatever is installed by now
    monkeypatch.setitem(sys.modules, "taktline", taktline)
    source: Any = read("pubsub://projects/p/subscriptions/orders?idle=5&limit=7")
    assert (source.describe(), source.ends) == ("projects/p/subscriptions/orders", True)
    assert write("pubsub://projects/p/topics/scored").describe() == "projects/p/topics/scored"
    for wrong, said in (
        ("?idel=5", "there is no option 'idel'; did you mean 'idle'"), ("?limit=x", "limit='x' is not a whole number"),
    ):  # fmt: skip
        with pytest.raises(LineError, match=said):
            read(f"pubsub://projects/p/subscriptions/orders{wrong}")
    with pytest.raises(LineError, match="is no subscription"):
        read("pubsub://orders")
    steps = tmp_path / "steps.py"
    steps.write_text("def double(n):\n    return 2 * n\n")
    ends = ["--in", "pubsub://projects/p/subscriptions/orders", "--out", "-", "--limit", "3"]
    assert run_main(["run", f"{steps}:double", *ends]) == 2
    assert "limit it in its URL" in capsys.readouterr().err
