"""Folders of parts: each of the size that was said, in order, there as a whole, and gone on with exactly."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pickle
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taktline import LineError, OutputLost, SinkError, batch, line, read, write
from taktline._io import settling
from taktline.testing import check_sink

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
duckdb = pytest.importorskip("duckdb")

ROWS = [{"n": n, "s": f'row "{n}"\n' if n % 7 == 0 else f"row {n}"} for n in range(50)]
TABLE = pa.Table.from_pylist(ROWS)
FORMATS = ["parquet", "arrow", "jsonl", "csv"]


@pytest.fixture(autouse=True)
def all_large(monkeypatch):
    """No table is small enough to be gathered with others."""
    monkeypatch.setattr(settling, "FEW", 0)


def into(sink, pieces):
    """Each piece a table, or results, or what a worker makes of either: (piece,)."""
    encoders = pickle.loads(pickle.dumps((sink.encoder, sink.table_encoder)))
    for piece in pieces:
        if isinstance(piece, tuple):
            (piece,) = piece
            encode = encoders[isinstance(piece, pa.Table)]
            try:
                data = encode(piece) if encode is not None else None
            except ValueError:
                data = None
            if data is not None:
                sink.write_encoded(data, len(piece))
                continue
        if isinstance(piece, pa.Table):
            sink.write_table(piece)
        else:
            sink.write(piece)


def written(path, pieces, format, **options):
    sink = write(f"{path}/", format, **options)
    sink.open()
    try:
        into(sink, pieces)
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    return path


def parts(path):
    return sorted(os.path.relpath(os.path.join(at, name), path) for at, _, names in os.walk(path) for name in names)


def rows_in(path):
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path).read_all()["n"].to_pylist()
    found = list(read(path, types={"n": int})) if path.suffix == ".csv" else list(read(path))
    return [row["n"] for row in found]


@settings(suppress_health_check=list(HealthCheck), max_examples=60, deadline=None)
@given(
    format=st.sampled_from(FORMATS), cuts=st.lists(st.integers(0, 50), max_size=6),
    ways=st.lists(st.sampled_from(["rows", "table", "encoded"]), min_size=7, max_size=7), most=st.integers(1, 60),
)  # fmt: skip
def test_parts_have_all_rows_in_order_and_never_more_than_was_said(tmp_path_factory, format, cuts, ways, most):
    path = tmp_path_factory.mktemp("x") / "out"
    borders = [0, *sorted(cuts), 50]
    pieces = []
    for start, end, way in zip(borders, borders[1:], ways, strict=False):
        table = TABLE.slice(start, end - start)
        pieces.append({"rows": ROWS[start:end], "table": table, "encoded": (table,)}[way])
    written(path, pieces, format, rows=most)
    names = parts(path)
    assert names == [f"part-{n:05}.{format}" for n in range(len(names))]
    counts = [len(rows_in(path / name)) for name in names]
    assert max(counts) <= most
    assert [n for name in names for n in rows_in(path / name)] == list(range(50))
    if format not in ("parquet", "arrow"):
        assert set(counts[:-1]) <= {most}


@pytest.mark.parametrize("format", [*FORMATS, "text"])
def test_borders_do_not_depend_on_how_results_came(tmp_path, format):
    rows = [f"line {n}" for n in range(50)] if format == "text" else ROWS
    outcomes = []
    for size in (1, 7, 50):
        path = tmp_path / str(size)
        pieces = [rows[at : at + size] for at in range(0, 50, size)]
        written(path, pieces, format, rows=20)
        outcomes.append([(path / name).read_bytes() for name in parts(path)])
        if format in ("jsonl", "text"):
            written(path, [(piece,) for piece in pieces], format, rows=20, mode="replace")
            outcomes.append([(path / name).read_bytes() for name in parts(path)])
    assert all(each == outcomes[0] for each in outcomes)
    assert len(outcomes[0]) == 3


@settings(suppress_health_check=list(HealthCheck), max_examples=60, deadline=None)
@given(
    format=st.sampled_from([*FORMATS, "text"]), cuts=st.lists(st.integers(0, 50), max_size=6),
    ways=st.lists(st.sampled_from(["rows", "table", "encoded"]), min_size=7, max_size=7),
    most=st.sampled_from([1, 30, 100, 400, 10_000]), rows=st.sampled_from([None, 3, 20]),
)  # fmt: skip
def test_parts_have_no_more_bytes_than_was_said(tmp_path_factory, format, cuts, ways, most, rows):
    path = tmp_path_factory.mktemp("x") / "out"
    all_rows = [f"line {n * 'x'}" for n in range(50)] if format == "text" else ROWS
    borders = [0, *sorted(cuts), 50]
    pieces = []
    for start, end, way in zip(borders, borders[1:], ways, strict=False):
        table, some = TABLE.slice(start, end - start), all_rows[start:end]
        pieces.append({"rows": some, "table": table, "encoded": (table,)}[way] if format != "text" else some)
    written(path, pieces, format, size=most, rows=rows)
    texts = [(path / name).read_bytes() for name in parts(path)]
    if format in ("parquet", "arrow"):
        assert [n for name in parts(path) for n in rows_in(path / name)] == list(range(50))
        return
    other = written(path.parent / "other", [all_rows], format, size=most, rows=rows)
    assert texts == [(other / name).read_bytes() for name in parts(other)]
    whole = written(path.parent / "whole", [all_rows], format)
    (text,) = [(whole / name).read_bytes() for name in parts(whole)]
    head = text[: text.index(b"\n") + 1] if format == "csv" else b""
    assert b"".join(each.removeprefix(head) for each in texts) == text.removeprefix(head)
    for each in texts:
        body = each.removeprefix(head)
        assert len(each) <= most or body.count(b"\n") <= 1 + (b'"' in body)


def test_parts_of_parquet_end_before_the_row_group_that_is_too_much(tmp_path):
    tables = [TABLE.slice(at, 10) for at in range(0, 50, 10)]
    counts = [len(parts(written(tmp_path / str(n), tables, "parquet", size=n))) for n in (1, 600, "1MB")]
    assert counts[0] == 5
    assert counts[0] >= counts[1] >= counts[2] == 1


@pytest.mark.parametrize("size", [0, -1, "much", "25%", 1.5, True])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(LineError, match="size="):
        write(f"{tmp_path}/out/", "jsonl", size=size)


def test_no_results_make_one_part_without_any(tmp_path):
    for format in FORMATS:
        assert len(parts(written(tmp_path / format, [], format))) == 1
    assert list(read(tmp_path / "parquet")) == []
    assert pq.read_schema(written(tmp_path / "a", [TABLE.slice(0, 0)], "parquet") / "part-00000.parquet").names == [
        "n",
        "s",
    ]


def test_parts_are_packed_as_said(tmp_path):
    path = written(tmp_path / "a", [ROWS, TABLE], "jsonl", rows=80, codec="gzip", level=1)
    assert parts(path) == ["part-00000.jsonl.gz", "part-00001.jsonl.gz"]
    assert len(gzip.decompress((path / "part-00000.jsonl.gz").read_bytes()).splitlines()) == 80
    path = written(tmp_path / "b", [(TABLE,)], "parquet", codec="zstd", level=3)
    assert pq.read_metadata(path / "part-00000.parquet").row_group(0).column(0).compression == "ZSTD"
    assert duckdb.read_parquet(f"{path}/*.parquet").fetchall() == [(row["n"], row["s"]) for row in ROWS]


def test_all_parts_of_parquet_have_one_schema(tmp_path):
    tables = [pa.table({"n": pa.array([n], kind)}) for n, kind in ((1, pa.int64()), (2, pa.int8()), (3, pa.int32()))]
    path = written(tmp_path / "a", tables, "parquet", rows=1)
    assert {str(pq.read_schema(path / name)) for name in parts(path)} == {"n: int64"}


def test_a_folder_that_is_there_is_refused_replaced_or_added_to(tmp_path):
    path = written(tmp_path / "a", [ROWS], "jsonl", rows=30)
    with pytest.raises(LineError, match=r'is there already: mode="replace" puts .* mode="append" adds'):
        written(path, [ROWS], "jsonl")
    written(path, [ROWS[:5]], "jsonl", mode="append", rows=3)
    assert parts(path) == [f"part-{n:05}.jsonl" for n in range(4)]
    assert rows_in(path) == [*range(50), *range(5)]
    with pytest.raises(LineError, match=r'mode="append" would put \.csv beside .*part-00000\.jsonl'):
        written(path, [ROWS], "csv", mode="append")
    os.chmod(path, 0o750)
    written(path, [ROWS[:4]], "jsonl", mode="replace")
    assert rows_in(path) == [0, 1, 2, 3]
    assert os.stat(path).st_mode & 0o777 == 0o750
    (path / "notes.txt").write_text("mine")
    with pytest.raises(LineError, match=r"would take away '.*notes\.txt', which no run has written"):
        written(path, [ROWS], "jsonl", mode="replace")
    for mode in ("replace", "append"):
        assert rows_in(written(tmp_path / mode, [ROWS], "jsonl", mode=mode)) == list(range(50))
    (tmp_path / "empty").mkdir()
    assert rows_in(written(tmp_path / "empty", [ROWS], "jsonl")) == list(range(50))
    assert sorted(os.listdir(tmp_path)) == ["a", "append", "empty", "replace"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("partition_by", [None, ["k"]])
def test_runs_without_results_add_no_part_and_spoil_no_folder(tmp_path, format, partition_by):
    rows = [{"k": "x", "n": n} for n in range(4)]
    runs = [[], [rows[:3]], [], [pa.Table.from_pylist(rows[3:])], []]
    for pieces in runs:
        path = written(tmp_path / "a", pieces, format, mode="append", partition_by=partition_by)
    assert len(parts(path)) == 2 + (partition_by is None)  # the first run's, which tells that it was there
    assert [int(row["n"]) for row in read(path)] == [0, 1, 2, 3]
    if format == "parquet":  # no part says that there may be nulls
        assert line(batch(lambda frame: frame, form="pandas"))(read(path)).to_pandas()["n"].dtype == "int64"


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_file_without_columns_and_rows_is_passed_over(tmp_path, format, order):
    for n, at in enumerate(order):
        written(tmp_path / f"{n}", [ROWS] if at else [], format)
    folder = tmp_path / "all"
    folder.mkdir()
    for n in range(2):
        os.rename(tmp_path / f"{n}" / f"part-00000.{format}", folder / f"part-{n:05}.{format}")
    assert len(list(read(folder))) == len(ROWS)


def test_nothing_is_seen_before_the_end_and_nothing_stays_of_a_broken_run(tmp_path):
    sink: Any = write(tmp_path / "a", "parquet", rows=10)
    sink.open()
    sink.write(ROWS)
    assert os.listdir(tmp_path) == [os.path.basename(sink._building.folder)]
    sink.abort()
    sink.abort()
    assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"n": 1 // (50 - n)}).run(range(100), write(f"{tmp_path}/b/", "csv", rows=10))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_has_left_is_taken_away_by_the_next(tmp_path):
    left, used = tmp_path / ".a.taktline-00000001.parts", tmp_path / ".a.taktline-00000002.parts"
    for folder in (left, used):
        folder.mkdir()
        (folder / "part-00000.jsonl").write_text("{}\n")
    busy = os.open(used, os.O_RDONLY)
    fcntl.flock(busy, fcntl.LOCK_EX)
    written(tmp_path / "a", [ROWS], "jsonl")
    assert sorted(os.listdir(tmp_path)) == [".a.taktline-00000002.parts", "a"]
    os.close(busy)


def test_what_cannot_be_a_folder_of_parts_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    for path, options, says in [
        ("file", {"format": "csv", "rows": 5}, "is there and is no folder"),
        ("no/such", {"format": "csv", "rows": 5}, "there is no folder .*no'"),
        ("a/", {}, 'say what its parts are to be, such as format="parquet"'),
        ("there", {}, "is a folder: say what"),
        ("a", {"format": "csv", "rows": 0}, "rows=0 must be"),
        ("a", {"format": "csv", "mode": "over"}, 'give "replace" or "append"'),
        ("a/", {"format": "csv", "codec": "snappy"}, "packs no lines: give one of gzip, zstd"),
        ("a/", {"format": "csv", "level": 3}, "level= is for what is packed"),
        ("a/", {"format": "csv", "codec": "gzip", "level": 12}, "gzip has no level=12: 0 to 9"),
        ("a/", {"format": "parquet", "codec": "bzip2"}, "none of Parquet's"),
        ("a/", {"format": "jsonl", "schema": TABLE.schema}, "schema= is for Parquet and Arrow"),
        ("a/", {"format": "jsonl", "partition_by": ["a", "a"]}, "each once"),
    ]:
        with pytest.raises(LineError, match=says):
            write(f"{tmp_path}/{path}", **options)
    assert sorted(os.listdir(tmp_path)) == ["file", "there"]


# --- partitions ---

SALES = [
    {
        "year": 2023 + n % 2,
        "shop": ["a/b", None, "c d"][n % 3],
        "day": date(2024, 1, 1 + n % 2),
        "n": n,
        "price": Decimal(n + 100),
    }
    for n in range(24)
]


@pytest.mark.parametrize("made", [lambda rows: rows, pa.Table.from_pylist], ids=["rows", "tables"])
def test_partitions_are_folders_that_others_read(tmp_path, made):
    path = written(
        tmp_path / "a", [made(SALES[:10]), made(SALES[10:])], "parquet", partition_by=["year", "shop"], rows=3
    )
    names = parts(path)
    assert "year=2023/shop=a%2Fb/part-00000.parquet" in names
    assert "year=2024/shop=__HIVE_DEFAULT_PARTITION__/part-00001.parquet" in names
    query = f"select n, year, shop from read_parquet('{path}/*/*/*.parquet', hive_partitioning=true) order by n"
    assert duckdb.sql(query).fetchall() == [(row["n"], row["year"], row["shop"]) for row in SALES]
    path = written(tmp_path / "b", [made(SALES)], "csv", partition_by="day")
    assert parts(path) == ["day=2024-01-01/part-00000.csv", "day=2024-01-02/part-00000.csv"]
    assert (path / parts(path)[0]).read_text().startswith("year,shop,n,price\n2023,a/b,0,100\n2023,c d,2,102\n")


@pytest.mark.parametrize("made", [lambda rows: rows, pa.Table.from_pylist], ids=["rows", "tables"])
def test_what_belongs_into_no_partition_is_named(tmp_path, made):
    with pytest.raises(SinkError, match="'year'"):
        written(tmp_path / "a", [made([{"n": 1}])], "csv", partition_by="year")
    with pytest.raises(SinkError, match=r"result 2 .*'x' is float, which names no folder") as caught:
        written(tmp_path / "a", [made([{"x": None, "n": 1}] * 2 + [{"x": 0.5, "n": 2}])], "csv", partition_by="x")
    assert caught.value.result == 2
    with pytest.raises(SinkError, match="would begin the partition 'n=500' beside 500 others"):
        written(tmp_path / "a", [made([{"n": n, "m": 1} for n in range(501)])], "jsonl", partition_by="n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("made", [list, pa.Table.from_pylist], ids=["rows", "table"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1], "'k' is list"), ({"a": 1}, "'k' is dict"), (b"a", "'k' is bytes"), (1.5, "'k' is float"),
        ("__HIVE_DEFAULT_PARTITION__", "'k' is the text that the folder of None is called by"),
        ("x" * 254, "'k' makes the name of a folder 256 bytes long"), ("ä" * 50, "'k' makes the name .* 302 bytes"),
    ],
    ids=str,
)  # fmt: skip
def test_what_names_no_folder_of_its_own_is_named_with_its_result(tmp_path, made, value, why):
    rows = [{"k": None, "n": 0}, {"k": value, "n": 1}, {"k": value, "n": 2}]
    with pytest.raises(SinkError, match=f"result 1 cannot be written .*{why}") as caught:
        written(tmp_path / "a", [made(rows)], "parquet", partition_by=["k"])
    assert caught.value.result == 1
    assert os.listdir(tmp_path) == []


def test_columns_that_arrow_cannot_number_name_folders_too(tmp_path):
    texts = ["a", "b", None, "a", "None"]
    columns = {
        "view": pa.array(texts, pa.string_view()), "nothing": pa.array([None] * 5, pa.list_(pa.int8())),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['"a"', '"b"', None, '"a"', '"None"'])),
    }  # fmt: skip
    for name, column in columns.items():
        table = pa.table({name: column, "n": range(5)})
        path = written(tmp_path / name, [table], "parquet", partition_by=[name])
        found = [(row[name], row["n"]) for row in sorted(read(f"{path}/"), key=lambda row: row["n"])]
        assert found == list(zip(column.to_pylist(), range(5), strict=True))


# --- with a journal ---


@pytest.mark.parametrize("options", [{}, {"partition_by": "s"}, {"codec": "gzip"}], ids=str)
@pytest.mark.parametrize("format", FORMATS)
@settings(suppress_health_check=list(HealthCheck), max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=8), seen=st.integers(0, 7), more=st.integers(0, 20),
    tables=st.lists(st.booleans(), min_size=9, max_size=9), few=st.sampled_from([0, 100]),
)  # fmt: skip
def test_what_goes_on_behind_a_mark_is_byte_by_byte_what_went_through(
    tmp_path_factory, format, options, sizes, seen, more, tables, few
):
    """Whatever was written behind the mark: whole parts too."""
    settling.FEW = few
    if format in ("parquet", "arrow") and "codec" in options:
        options = {"codec": "zstd"}
    folder = tmp_path_factory.mktemp("x")
    rows = [{"n": n, "s": f"{n % 2}", "x": None if n < 15 else n} for n in range(sum(sizes))]
    pieces, at = [], 0
    for size, table in zip(sizes, tables, strict=False):
        pieces.append(pa.Table.from_pylist(rows[at : at + size]) if table else rows[at : at + size])
        at += size
    written(folder / "whole", pieces, format, rows=5, **options)

    def resumable():
        sink: Any = write(f"{folder}/out/", format, rows=5, **options)
        sink.beside(f"{folder}/journal")
        return sink

    first = resumable()
    first.begin("run")
    into(first, pieces[:seen])
    first.save("an earlier mark")
    position = json.loads(json.dumps(first.save("mark")))
    into(first, pieces[seen:][:more])
    first.suspend()
    second = resumable()
    assert not second.finished("run", position)
    second.resume("run", position)
    into(second, pieces[seen:])
    position = second.save("the end")
    second.commit()
    assert resumable().finished("run", position)
    second.noted()
    assert parts(folder / "out") == parts(folder / "whole")
    for name in parts(folder / "whole"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert sorted(os.listdir(folder)) == ["out", "whole"]


@pytest.mark.parametrize(
    "options", [{"rows": 20}, {"rows": 20, "row_group": 6}, {"size": 1000, "row_group": 10}], ids=str
)
@pytest.mark.parametrize("format", ["parquet", "arrow"])
@settings(suppress_health_check=list(HealthCheck), max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 50), max_size=6), stops=st.lists(st.booleans(), min_size=7, max_size=7),
    ways=st.lists(st.sampled_from(["rows", "table", "encoded"]), min_size=7, max_size=7),
)  # fmt: skip
def test_small_tables_end_parts_where_results_do_whoever_goes_on(tmp_path_factory, format, options, cuts, stops, ways):
    """One technique gives records, another one tables: of sizes that follow from where it has begun."""
    settling.FEW = 100
    folder = tmp_path_factory.mktemp("x")
    written(folder / "whole", [ROWS], format, **options)
    borders = [0, *sorted(cuts), 50]
    position = None

    def opened():
        sink: Any = write(f"{folder}/out/", format, **options)
        sink.beside(f"{folder}/journal")
        sink.begin("run") if position is None else sink.resume("run", position)
        return sink

    sink = opened()
    for start, end, way, stop in zip(borders, borders[1:], ways, stops, strict=False):
        table = TABLE.slice(start, end - start)
        into(sink, [{"rows": ROWS[start:end], "table": table, "encoded": (table,)}[way]])
        position = sink.save("mark")
        if stop:
            sink.suspend()
            sink = opened()
    sink.commit()
    assert parts(folder / "out") == parts(folder / "whole")
    for name in parts(folder / "whole"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_parts_that_are_gone_are_told(tmp_path):
    sink: Any = write(f"{tmp_path}/out/", "jsonl", rows=5)
    sink.beside(f"{tmp_path}/journal")
    sink.begin("run")
    sink.write(ROWS)
    position = sink.save("mark")
    sink.suspend()
    other: Any = write(f"{tmp_path}/out/", "jsonl", rows=5)
    other.beside(f"{tmp_path}/other")
    (tmp_path / "journal").write_text("")
    with pytest.raises(LineError, match=r"an unfinished run with the journal .* is writing"):
        other.begin("other run")
    os.unlink(tmp_path / ".out.parts" / ".part-00009.jsonl.part")
    with pytest.raises(OutputLost):
        sink.resume("run", position)
    sink.forget("run", position)
    assert sorted(os.listdir(tmp_path)) == ["journal"]
    with pytest.raises(OutputLost, match="are not there any more"):
        sink.resume("run", position)


def test_adding_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    """In the midst of giving parts their names."""
    written(tmp_path / "out", [ROWS[:10]], "jsonl", rows=10)
    sink: Any = write(f"{tmp_path}/out/", "jsonl", rows=10, mode="append")
    sink.beside(f"{tmp_path}/journal")
    sink.begin("run")
    sink.write(ROWS[10:])
    position = sink.save("mark")
    rename, left = os.rename, iter(range(2))

    def killed(old, new):
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        sink.commit()
    monkeypatch.undo()
    sink.suspend()
    again: Any = write(f"{tmp_path}/out/", "jsonl", rows=10, mode="append")
    again.beside(f"{tmp_path}/journal")
    assert not again.finished("run", position)
    again.resume("run", position)
    again.commit()
    assert again.finished("run", position)
    assert rows_in(tmp_path / "out") == list(range(50))


@pytest.mark.parametrize("format", FORMATS)
def test_folders_of_parts_as_sinks(format, tmp_path):
    def there(name):
        if format == "arrow":
            files = sorted((tmp_path / name).glob("*"))
            return [row for file in files for row in pa.ipc.open_file(file).read_all().to_pylist()]
        return list(read(tmp_path / name)) if (tmp_path / name).exists() else []

    rows = [{"n": str(n), "text": f"row {n}"} for n in range(100)]
    check_sink(lambda name: write(f"{tmp_path / name}/", format, rows=40), there, rows)
