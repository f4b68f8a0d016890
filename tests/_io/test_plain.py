"""What is no plain Python value is written as the one it stands for, by every sink alike, or refused with its result."""

from __future__ import annotations

import array
import datetime as dt
import decimal
import enum
import json
import pathlib
import sqlite3
import uuid
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from taktline import SinkError, line, read, read_sql, write, write_sql
from taktline.abc import Sink

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning")


class Colour(enum.Enum):
    RED = "red"


class Text(str, enum.Enum):  # noqa: UP042  (another kind than StrEnum: its format is its name)
    RED = "red"


class Number(enum.IntEnum):
    THREE = 3


class Share(float, enum.Enum):
    HALF = 0.5


NO = object()  # refused
NOON = dt.datetime(2020, 1, 1, 12)
DAY = dt.date(2020, 1, 1)
# The value; what is read back from JSON lines, CSV, Parquet, SQLite.
VALUES = {
    "int64": (np.int64(3), 3, "3", 3, 3),
    "uint8": (np.uint8(3), 3, "3", 3, 3),
    "float32": (
        np.float32(0.1),
        float(np.float32(0.1)),
        "0.10000000149011612",
        float(np.float32(0.1)),
        float(np.float32(0.1)),
    ),
    "float64": (np.float64(0.1), 0.1, "0.1", 0.1, 0.1),
    "float16": (np.float16(0.5), 0.5, "0.5", 0.5, 0.5),
    "longdouble": (np.longdouble("0.1"), NO, NO, NO, NO),
    "bool": (np.bool_(True), True, "True", True, 1),
    "0-d": (np.array(3), 3, "3", 3, 3),
    "1-d": (np.array([1.5, 2.0]), NO, NO, [1.5, 2.0], NO),
    "str_": (np.str_("a"), "a", "a", "a", "a"),
    "bytes_": (np.bytes_(b"a"), NO, NO, b"a", b"a"),
    "datetime64[us]": (np.datetime64(NOON), NO, "2020-01-01 12:00:00", NOON, "2020-01-01 12:00:00"),
    "datetime64[ns]": (np.datetime64(NOON, "ns"), NO, "2020-01-01 12:00:00", NOON, "2020-01-01 12:00:00"),
    "datetime64[ns], lossy": (np.datetime64(NOON, "ns") + np.timedelta64(1, "ns"), NO, NO, NO, NO),
    "datetime64[D]": (np.datetime64(DAY), NO, "2020-01-01", DAY, "2020-01-01"),
    "datetime64 NaT": (np.datetime64("NaT"), None, "", None, None),
    "void": (np.zeros(1, dtype=[("a", "i4")])[0], NO, NO, NO, NO),
    "complex": (np.complex128(1j), NO, "1j", NO, NO),
    "Timestamp": (pd.Timestamp(NOON), NO, "2020-01-01 12:00:00", NOON, "2020-01-01 12:00:00"),
    "Timestamp, lossy": (pd.Timestamp("2020-01-01 00:00:00.000000001"), NO, NO, NO, NO),
    "NA": (pd.NA, None, "", None, None),
    "NaT": (pd.NaT, None, "", None, None),
    "Series": (pd.Series([1]), NO, NO, NO, NO),
    "Decimal": (decimal.Decimal("1.10"), NO, "1.10", decimal.Decimal("1.10"), NO),
    "datetime": (NOON, NO, "2020-01-01 12:00:00", NOON, "2020-01-01 12:00:00"),
    "date": (DAY, NO, "2020-01-01", DAY, "2020-01-01"),
    "UUID": (uuid.UUID(int=5), NO, str(uuid.UUID(int=5)), uuid.UUID(int=5), NO),
    "bytes": (b"ab", NO, NO, b"ab", b"ab"),
    "memoryview": (memoryview(b"ab"), NO, NO, NO, NO),
    "array": (array.array("d", [1.5]), NO, NO, NO, NO),
    "Enum": (Colour.RED, NO, NO, NO, NO),
    "str Enum": (Text.RED, "red", "red", "red", "red"),
    "IntEnum": (Number.THREE, 3, "3", 3, 3),
    "float Enum": (Share.HALF, 0.5, "0.5", 0.5, 0.5),
    "Path": (pathlib.PurePosixPath("/a"), NO, "/a", NO, NO),
    "nested": ([np.int64(1), {"a": np.float32(0.5)}, pd.NA], [1, {"a": 0.5}, None], NO, NO, NO),
    "numbers": ([np.int64(1), 2], [1, 2], NO, [1, 2], NO),
    "tuple": ((1, 2), [1, 2], NO, [1, 2], NO),
    "half": ("a\ud800", "a\ud800", NO, NO, NO),
    "half, alone": ("\udc00x", "\udc00x", NO, NO, NO),
    "two halves": ("\ud83d\ude00", NO, NO, NO, NO),
}


def run_into(sink, value, how="loop"):
    return line(lambda record: record).run([{"v": 1, "w": 1}, {"v": value, "w": 2}][-1:], sink, how=how, workers=1)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize(("at", "name"), [(1, "o.jsonl"), (2, "o.csv"), (3, "o.parquet"), (4, "o.db")])
def test_a_value_comes_back_as_the_plain_one_or_is_refused(tmp_path, kind, at, name):
    value, wanted = VALUES[kind][0], VALUES[kind][at]
    path = tmp_path / name
    sink: Sink
    if name == "o.db":
        with closing(sqlite3.connect(path)) as base:
            base.execute("CREATE TABLE t (v, w)")
        sink, got = write_sql(f"sqlite:///{path}", "t"), lambda: read_sql(f"sqlite:///{path}", "SELECT * FROM t")
    else:
        sink, got = write(path), lambda: read(path)
    if wanted is NO:
        with pytest.raises(SinkError, match=r"result 0 cannot be written as .*\n|'v' does not fit"):
            run_into(sink, value)
        return
    run_into(sink, value)
    ((row),) = got()
    assert (row["v"], type(row["v"])) == (wanted, type(wanted))


def test_workers_write_the_same_and_refuse_the_same(tmp_path):
    for kind, (value, wanted, *_) in VALUES.items():
        if kind in ("void", "memoryview"):  # neither goes to a worker
            continue
        if wanted is NO:
            with pytest.raises(SinkError, match="result 0 cannot be written as JSON"):
                run_into(write(tmp_path / "o.jsonl"), value, how="line")
        elif kind in ("int64", "NA", "half", "str Enum", "nested"):
            run_into(write(tmp_path / "o.jsonl"), value, how="line")
            assert [row["v"] for row in read(tmp_path / "o.jsonl")] == [wanted]


@pytest.mark.parametrize("fast", [True, False])
def test_half_a_surrogate_pair_is_read_back_by_either_parser(tmp_path, monkeypatch, fast):
    from taktline._io import decode

    if not fast:
        monkeypatch.setattr(decode, "json_loads", lambda: json.loads)
    records = [{"\ud800": "x"}, ["\udfff\ud800", "é", "😀"], "\udc80", {"n": np.int64(1), "s": "\ud800\\ud800"}]
    line(lambda record: record).run(records, write(tmp_path / "o.jsonl"), how="loop")
    assert list(read(tmp_path / "o.jsonl")) == [*records[:3], {"n": 1, "s": "\ud800\\ud800"}]


@pytest.mark.parametrize(
    ("name", "bad"), [("o.csv", {"v": "\ud800"}), ("o.txt", "a\ud800"), ("h.csv", {"v\udc00": "a"})]
)
def test_half_a_surrogate_pair_is_refused_with_its_result(tmp_path, name, bad):
    good = "fine" if name == "o.txt" else {"v": "fine"}
    records = [bad] if name == "h.csv" else [good, good, bad, good]
    with pytest.raises(SinkError, match=rf"result {0 if name == 'h.csv' else 2} cannot be .* half of a surrogate pair"):
        line(lambda record: record).run(records, write(tmp_path / name), how="loop")
    assert list(tmp_path.iterdir()) == []


def test_text_is_what_a_kind_of_str_holds_and_not_its_name(tmp_path):
    line(lambda text: text).run([Text.RED, np.str_("a")], write(tmp_path / "o.txt"), how="loop")
    assert (tmp_path / "o.txt").read_text() == "red\na\n"


def test_postgres_gets_plain_values(postgres_server):
    import psycopg

    with psycopg.connect(postgres_server.url, autocommit=True) as base:
        base.execute("CREATE TABLE plain (n bigint, x float8, b bool, t timestamp, j jsonb, a bigint[], s text)")
    row = {
        "n": np.int32(3), "x": np.float32(0.5), "b": np.bool_(True), "t": np.datetime64(NOON), "j": {"k": np.int64(1)},
        "a": [np.int64(1), 2], "s": Text.RED,
    }  # fmt: skip
    line(lambda record: record).run(
        [row, dict.fromkeys(row, pd.NA)], write_sql(postgres_server.url, "plain"), how="loop"
    )
    first, second = read_sql(postgres_server.url, "SELECT * FROM plain")
    assert first == {"n": 3, "x": 0.5, "b": True, "t": NOON, "j": {"k": 1}, "a": [1, 2], "s": "red"}
    assert set(second.values()) == {None}
    with pytest.raises(SinkError, match="is an Enum; give its value or its name"):
        line(lambda record: record).run([row | {"s": Colour.RED}], write_sql(postgres_server.url, "plain"), how="loop")
