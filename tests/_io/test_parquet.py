"""Parquet: what is written comes back, or is refused by its number; never changed without a word."""

from __future__ import annotations

import io
import os
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taktline import LineError, SinkError, SourceError, batch, line, read, write
from taktline._io import parquet, settling

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
whole = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes() | st.none()
COLUMNS = {
    "n": whole | st.none(), "x": st.floats(allow_nan=False), "s": text, "b": st.binary(max_size=5), "t": st.booleans(),
    "d": st.dates(), "at": moments, "utc": st.datetimes(timezones=st.just(UTC)), "l": st.lists(whole, max_size=3),
    "r": st.fixed_dictionaries({"n": whole, "s": text}), "price": st.decimals(-999, 999, places=2), "clock": st.times(),
    "span": st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8)),
}  # fmt: skip
rows = st.lists(st.fixed_dictionaries(COLUMNS), min_size=1, max_size=12)


def written(path, results, size=3, **options):
    sink = write(path, **options)
    sink.open()
    try:
        for start in range(0, len(results), size):
            sink.write(results[start : start + size])
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    return path


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(settling, "GROUP", 4)


@settings(suppress_health_check=list(HealthCheck), max_examples=60)
@given(rows=rows)
def test_rows_come_back_as_they_were(tmp_path, rows):
    assert list(read(written(tmp_path / "a.parquet", rows))) == rows


def test_row_groups_and_bytes_do_not_depend_on_how_results_came(tmp_path, small_groups):
    rows = [{"n": n, "s": str(n)} for n in range(10)]
    one, two = written(tmp_path / "1.parquet", rows, size=1), written(tmp_path / "2.parquet", rows, size=7)
    assert one.read_bytes() == two.read_bytes()
    with pq.ParquetFile(one) as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 2]
        assert list(parquet.Reading(file, "1.parquet", ("n",)).records(3, 8)) == [{"n": n} for n in range(3, 8)]
    assert len(read(one)) == 10


def test_no_results_make_a_file_without_rows(tmp_path):
    assert list(read(written(tmp_path / "a.parquet", []))) == []
    assert list(read(tmp_path / "a.parquet", columns=["n"])) == []
    schema = pa.schema([("n", pa.int64())])
    assert pq.read_schema(written(tmp_path / "b.parquet", [], schema=schema)).names == ["n"]


def test_a_missing_key_is_a_null(tmp_path):
    assert list(read(written(tmp_path / "a.parquet", [{"a": 1}, {"b": 2}]))) == [
        {"a": 1, "b": None},
        {"a": None, "b": 2},
    ]


AWARE = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))
EARLIER = [{"v": None}] * 2


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        (1, "a", "does not fit"),
        (1, 2.5, "does not fit|would come back"),
        (1, True, "does not fit"),
        (2.5, True, "would come back"),
        (1, 2**64, "does not fit"),
        (date(2024, 1, 1), datetime(2024, 1, 1, 5), "would come back"),
        (datetime(2024, 1, 1), AWARE, "would come back"),
        (AWARE, datetime(2024, 1, 1), "would come back"),
        ("a", b"b", "would come back|does not fit"),
        ({"a": 1}, {"a": 1, "b": 2}, "would come back"),
        ([1], [2.5], "would come back|does not fit"),
        (Decimal("1.5"), Decimal("123456.789"), "does not fit"),
        (time(1), time(1, tzinfo=UTC), "would come back"),
        ([1], {1}, "would come back"),
        ("a", "\ud800", "does not fit"),
    ],
)
def test_a_later_result_that_does_not_fit_is_named(tmp_path, small_groups, good, bad, says):
    """In a later row group by the schema of the first, and nothing is left behind."""
    with pytest.raises(SinkError, match=says) as caught:
        written(tmp_path / "a.parquet", [{"v": good}] * 6 + [{"v": bad}, {"v": good}])
    assert caught.value.result == 6
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (1, "a"),
        (True, 1),
        (date(2024, 1, 1), datetime(2024, 1, 1, 5)),
        (datetime(2024, 1, 1), AWARE),
        ("a", b"b"),
        (2**53 + 1, 0.5),
    ],
)
def test_results_that_cannot_be_one_column_are_refused(tmp_path, good, bad):
    with pytest.raises(SinkError, match=r"result [01] "):
        written(tmp_path / "a.parquet", [{"v": good}, {"v": bad}])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([1], "it is list, not dict"),
        ({"v": 1, "w": 2}, "'w' is not among the columns: v"),
        ({1: 2}, "1 is not among"),
        ({}, None),
    ],
)
def test_results_that_are_no_such_rows_are_refused(tmp_path, small_groups, bad, says):
    rows = [{"v": 1}] * 5 + [bad]
    if says is None:
        assert list(read(written(tmp_path / "a.parquet", rows)))[-1] == {"v": None}
        return
    with pytest.raises(SinkError, match=says) as caught:
        written(tmp_path / "a.parquet", rows)
    assert caught.value.result == 5


def test_rows_without_keys_are_refused(tmp_path):
    with pytest.raises(SinkError, match="no columns"):
        written(tmp_path / "a.parquet", [{}])


def test_a_given_schema_holds(tmp_path):
    schema = pa.schema([pa.field("n", pa.uint64(), nullable=False), ("x", pa.float32())])
    path = written(tmp_path / "a.parquet", [{"n": 2**63, "x": 0.1}, {"n": 1}], schema=schema)
    assert pq.read_schema(path).equals(schema)
    with pytest.raises(SinkError, match="'n' is missing or None") as caught:
        written(tmp_path / "b.parquet", [{"n": 1}, {"x": 1.0}], schema=schema)
    assert caught.value.result == 1
    with pytest.raises(LineError, match=r"pyarrow\.Schema"):
        write(tmp_path / "a.parquet", schema={"n": "int64"})
    with pytest.raises(LineError, match="schema= is for Parquet and Arrow"):
        write(tmp_path / "a.csv", schema=schema)


def test_nanoseconds_are_datetimes_or_an_error_never_cut(tmp_path):
    for name, value in (("good", 1_000_000), ("bad", 1_000_001)):
        columns = [
            pa.array([value], pa.timestamp("ns")),
            pa.array([value], pa.duration("ns")),
            pa.array([value], pa.time64("ns")),
        ]
        pq.write_table(pa.table(columns, ["at", "span", "clock"]), tmp_path / f"{name}.parquet")
    (record,) = read(tmp_path / "good.parquet")
    assert record == {
        "at": datetime(1970, 1, 1, 0, 0, 0, 1000),
        "span": timedelta(milliseconds=1),
        "clock": time(0, 0, 0, 1000),
    }
    assert type(record["at"]) is datetime
    with pytest.raises(SourceError, match=r"row group 0, .*'at' has nanoseconds"):
        list(read(tmp_path / "bad.parquet"))


def test_columns_are_chosen_in_their_order(tmp_path):
    path = written(tmp_path / "a.parquet", [{"a": 1, "b": 2, "c": 3}])
    assert [list(record.items()) for record in read(path, columns=["c", "a"])] == [[("c", 3), ("a", 1)]]
    with pytest.raises(SourceError, match="no column 'd'; it has a, b, c"):
        list(read(path, columns=["d"]))


def test_files_that_drift_apart_are_an_error_unless_columns_choose(tmp_path):
    written(tmp_path / "1.parquet", [{"a": 1, "b": 2}])
    written(tmp_path / "2.parquet", [{"a": 3}])
    with pytest.raises(SourceError, match=r"1\.parquet' has a column 'b' that .*2\.parquet' lacks"):
        next(iter(read(tmp_path)))  # before the first record
    for how in ("loop", "line"):
        results = []
        with pytest.raises(SourceError, match="lacks"):
            results.extend(line(dict)(read(tmp_path), how=how, workers=1, start="threads" if how == "line" else "auto"))
        assert results == []
    assert list(read(tmp_path, columns=["a"])) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("keep", [0, 10, -10])
def test_a_damaged_file_is_an_error(tmp_path, keep):
    path = written(tmp_path / "a.parquet", [{"a": n} for n in range(100)])
    path.write_bytes(path.read_bytes()[:keep] if keep >= 0 else b"x" * 50 + path.read_bytes()[50:])
    with pytest.raises(SourceError, match=r"a\.parquet"):
        list(read(path))


def test_what_is_not_utf_8_is_an_error(tmp_path):
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"s": column}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"row group 0, .*utf-8"):
        list(read(tmp_path / "a.parquet"))


def test_a_line_runs_from_parquet_to_parquet_with_workers(tmp_path):
    rows = [{"n": n} for n in range(500)]
    source = read(written(tmp_path / "in.parquet", rows, size=500))
    flow = line(lambda row: row | {"square": row["n"] ** 2})
    flow.run(source, write(tmp_path / "out.parquet"), how="line", workers=2)
    assert list(read(tmp_path / "out.parquet")) == [{"n": n, "square": n * n} for n in range(500)]


def test_a_broken_run_leaves_nothing(tmp_path, small_groups):
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"n": 1 // (50 - n)}).run(range(100), write(tmp_path / "out.parquet"))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_clear_error():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(SinkError, match="No space left"):
        line(lambda n: {"n": n}).run(range(10), write(full, "parquet"))


def test_a_stream_of_a_broken_run_does_not_look_whole(small_groups):
    stream = io.BytesIO()
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"n": 1 // (900 - n)}).run(range(1000), write(stream, "parquet"), how="loop")
    assert len(stream.getvalue()) > 1000
    with pytest.raises(pa.ArrowInvalid):
        pq.ParquetFile(io.BytesIO(stream.getvalue()))


def test_what_parquet_cannot_do_is_refused_at_once(tmp_path, monkeypatch):
    with pytest.raises(LineError, match="packs its own columns"):
        write(tmp_path / "a.parquet.gz")
    with pytest.raises(LineError, match="standard input"):
        read("-", "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(LineError, match=r"taktline\[parquet\]"):
        write(tmp_path / "a.parquet")


def test_a_journal_is_refused_with_the_reason(tmp_path):
    with pytest.raises(LineError, match=r"cannot go on from a journal: .*row groups.*\. Write a folder of parts"):
        line(dict).run([{"n": 1}], write(tmp_path / "a.parquet"), journal=tmp_path / "journal", how="loop")
    assert os.listdir(tmp_path) == []


def test_files_whose_columns_are_of_other_kinds_are_not_read_as_one(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def put(name, *columns):
        pq.write_table(pa.table(list(columns), ["n", "s"]), tmp_path / name)
        return tmp_path / name

    first = put("1.parquet", pa.array([1], pa.int32()), pa.array(["a"]))
    alike = put("2.parquet", pa.array([2.5]), pa.array(["b"], pa.large_string()).dictionary_encode())
    empty = put("0.parquet", pa.nulls(1), pa.nulls(1))
    other = put("3.parquet", pa.array(["x"]), pa.array(["c"]))
    assert [row["n"] for row in read([empty, first, alike])] == [None, 1, 2.5]
    for how in ("loop", "line"):
        results = line(dict)(read([empty, first, other]), how=how, workers=2)
        with pytest.raises(
            SourceError, match=r"3\.parquet' has 'n' as string, and '.*1\.parquet' as int32; name those"
        ):
            list(results)
    assert list(read([first, other], columns=["s"])) == [{"s": "a"}, {"s": "c"}]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_two_columns_of_one_name_are_refused_and_others_of_the_file_read(suffix, how, tmp_path):
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4]), pa.array([5, 6])], names=["a", "a", "b"])
    path = tmp_path / f"twice.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    for flow in (line(dict), line(batch(lambda columns: columns, form="arrow"))):
        with pytest.raises(SourceError, match=r"has two columns named 'a', and a record would hold one"):
            list(flow(read(path), how=how, workers=1))
        assert list(flow(read(path, columns=["b"]), how=how, workers=1)) == [{"b": 5}, {"b": 6}]
