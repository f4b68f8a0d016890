"""Tables in one Parquet file: what workers made of them is joined, and nobody who reads it can tell."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pieces import write_pieces

from taktline import LineError, SinkError, read, write
from taktline._io import row_groups, settling
from taktline._io.column_types import normal
from taktline._io.footers import Footer

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")

ROWS = [
    {
        "n": n if n % 7 else None, "x": n / 3 if n % 5 else float("nan"), "s": f"row {n % 11}" if n % 3 else None,
        "category": f"kind {n % 4}", "at": datetime(2024, 1, 1, 0, n % 60, tzinfo=UTC), "day": date(2024, 1, 1 + n % 28),
        "price": Decimal(n) / 4, "l": [n] * (n % 3) if n % 4 else None, "r": {"a": n, "b": [{"c": str(n)}]},
        "b": bytes([n % 256]),
    }
    for n in range(60)
]  # fmt: skip
SCHEMA = pa.schema(
    [
        pa.field("n", pa.int32(), metadata={"unit": "pieces"}), ("x", pa.float64()), ("s", pa.string()),
        ("category", pa.dictionary(pa.int32(), pa.string())),
        ("at", pa.timestamp("ns", "Europe/Berlin")), ("day", pa.date32()),
        ("price", pa.decimal128(12, 3)), ("l", pa.list_(pa.int64())),
        ("r", pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.string())])))])), ("b", pa.binary()),
    ],
    metadata={"made by": "a test"},
)  # fmt: skip
WHOLE = pa.Table.from_pylist(ROWS, SCHEMA)


@pytest.fixture
def all_large(monkeypatch):
    """No table is small enough to be gathered with others."""
    monkeypatch.setattr(settling, "FEW", 0)


def written(path, pieces, **options):
    write_pieces(write(path, **options), pieces)
    return path


def groups_of(path):
    about = pq.read_metadata(path)
    return [about.row_group(n).num_rows for n in range(about.num_row_groups)]


def same_values(one, other):
    """Equal, NaN too."""
    return repr(one.to_pylist()) == repr(other.to_pylist())


@settings(suppress_health_check=list(HealthCheck), max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), ways=st.lists(st.sampled_from("TEr"), min_size=6, max_size=6))
def test_whoever_reads_it_finds_what_was_written(tmp_path, all_large, cuts, ways):
    """Tables, encoded ones and results in any turn, of any length."""
    borders = [0, *sorted(cuts), 60]
    pieces = []
    for start, end, way in zip(borders, borders[1:], ways, strict=False):
        table = WHOLE.slice(start, end - start)
        rows = [{**row, "price": round(row["price"], 3)} for row in ROWS[start:end]]
        pieces.append({"T": table, "E": (table,), "r": rows}[way])
    path = written(tmp_path / "a.parquet", pieces, schema=SCHEMA)
    found = pq.read_table(path)
    assert found.schema.equals(SCHEMA, check_metadata=False)
    assert found.schema.metadata == SCHEMA.metadata
    assert found.schema.field("n").metadata[b"unit"] == b"pieces"
    assert same_values(found, WHOLE)
    assert same_values(
        polars.read_parquet(path).select("n", "x", "s", "l", "r", "b").to_arrow(),
        WHOLE.select(["n", "x", "s", "l", "r", "b"]),
    )
    assert same_values(
        duckdb.read_parquet(str(path)).to_arrow_table().select(["n", "s", "l", "r"]), WHOLE.select(["n", "s", "l", "r"])
    )
    assert [row["n"] for row in read(path)] == [row["n"] for row in ROWS]


def test_statistics_and_groups_are_those_of_one_writer(tmp_path, all_large):
    pieces = [WHOLE.slice(start, 15) for start in range(0, 60, 15)]
    path = written(tmp_path / "a.parquet", [(piece,) for piece in pieces])
    with pq.ParquetWriter(tmp_path / "b.parquet", SCHEMA) as writer:
        for piece in pieces:
            writer.write_table(piece)
    ours, theirs = pq.read_metadata(path), pq.read_metadata(tmp_path / "b.parquet")
    assert ours.num_row_groups == theirs.num_row_groups == 4
    for group in range(4):
        one, other = ours.row_group(group).to_dict(), theirs.row_group(group).to_dict()
        for column, same in zip(one["columns"], other["columns"], strict=True):
            assert column["statistics"] == same["statistics"]
            assert column["encodings"] == same["encodings"]
            assert column["data_page_offset"] == same["data_page_offset"]
            assert column["file_offset"] == same["file_offset"]
    assert duckdb.sql(f"select count(*), max(n) from '{path}' where n > 30").fetchall() == [(25, 59)]


def test_bytes_do_not_depend_on_who_made_the_row_groups(tmp_path, all_large):
    tables = [WHOLE.slice(start, 20) for start in range(0, 60, 20)]
    one = written(tmp_path / "1.parquet", tables)
    two = written(tmp_path / "2.parquet", [(tables[0],), tables[1], (tables[2],)])
    assert one.read_bytes() == two.read_bytes()
    assert groups_of(one) == [20, 20, 20]


def test_a_footer_comes_back_byte_by_byte(tmp_path):
    """Also with what pyarrow writes when asked: page indexes, and more than 14 columns."""
    wide = pa.table({f"c{n}": [n, None, n + 1] for n in range(40)})
    pq.write_table(wide, tmp_path / "a.parquet", write_page_index=True, row_group_size=1, compression="none")
    data = (tmp_path / "a.parquet").read_bytes()
    footer = Footer(data)
    assert b"PAR1" + footer.body + footer.end(footer.groups(4, 0), footer.rows) == data


def test_page_indexes_move_with_their_pages(tmp_path):
    files = []
    for start in (0, 30):
        pq.write_table(WHOLE.slice(start, 30), tmp_path / f"{start}.parquet", write_page_index=True)
        files.append(Footer((tmp_path / f"{start}.parquet").read_bytes()))
    at, groups, body = 4, [], b"PAR1"
    for file in files:
        groups += file.groups(at, len(groups))
        body += file.body
        at += len(file.body)
    (tmp_path / "a.parquet").write_bytes(body + files[0].end(groups, 60))
    assert same_values(pq.read_table(tmp_path / "a.parquet"), WHOLE)
    assert polars.scan_parquet(tmp_path / "a.parquet").filter(polars.col("n") == 47).select("n").collect().rows() == [
        (47,)
    ]


def test_a_column_of_nulls_fits_whatever_its_type(tmp_path, all_large):
    tables = [pa.table({"v": [True]}), pa.table({"v": pa.nulls(2, pa.string())})]
    assert pq.read_table(written(tmp_path / "a.parquet", tables))["v"].to_pylist() == [True, None, None]


def test_small_tables_are_gathered_and_borders_follow_from_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "FEW", 10)
    monkeypatch.setattr(settling, "GROUP", 20)
    small = [WHOLE.slice(start, 6) for start in range(0, 36, 6)]
    path = written(
        tmp_path / "a.parquet", [*small, WHOLE.slice(36, 20), ROWS[56:58], WHOLE.slice(58, 2)], schema=SCHEMA
    )
    assert groups_of(path) == [20, 16, 20, 4]
    assert same_values(pq.read_table(path), WHOLE)
    with pytest.raises(ValueError, match="small"):
        write(path).table_encoder(small[0])


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("size", [6, 15])
@pytest.mark.parametrize("left_out", [(), ("category",)])  # values of a dictionary are listed as they come first
def test_a_table_that_comes_as_its_rows_changes_nothing_in_the_file(tmp_path, monkeypatch, left_out, size, given):
    """As one does whose worker died, which is run again record by record: when that happens, nobody knows."""
    monkeypatch.setattr(settling, "FEW", 10)
    monkeypatch.setattr(settling, "GROUP", 20)
    rows = WHOLE.drop_columns(list(left_out))
    tables = [rows.slice(start, size) for start in range(0, 60, size)]
    schema = rows.schema if given else None
    whole = written(tmp_path / "whole.parquet", tables, schema=schema)
    for at in range(len(tables)):
        some = [*tables[:at], tables[at].to_pylist(), *tables[at + 1 :]]
        path = written(tmp_path / f"{at}.parquet", some, schema=schema)
        assert groups_of(path) == groups_of(whole), at
        assert pq.read_schema(path).equals(pq.read_schema(whole), check_metadata=True), at
        assert same_values(pq.read_table(path), rows), at
        assert not left_out or path.read_bytes() == whole.read_bytes(), at


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("folder", ["", "/"])
@pytest.mark.parametrize("kind", [pa.decimal128(5, -2), pa.month_day_nano_interval()], ids=str)
def test_a_column_that_parquet_has_no_form_for_is_named(tmp_path, monkeypatch, large, folder, kind):
    monkeypatch.setattr(settling, "FEW", 0 if large else 100)
    value = Decimal("1E+3") if pa.types.is_decimal(kind) else (1, 2, 3)
    table = pa.table({"n": range(9), "x": pa.array([value] * 9, kind)})
    path, options = (f"{tmp_path}/a/", {"format": "parquet"}) if folder else (f"{tmp_path}/a.parquet", {})
    with pytest.raises(SinkError, match=r"result 0 cannot .* its 'x' is .*, for which Parquet has no form") as caught:
        written(path, [table], **options)
    assert "'n': 0" in str(caught.value)
    schema = pa.schema([("n", pa.int64()), ("x", kind)])
    with pytest.raises(SinkError, match=r"its 'x' is .*, for which Parquet has no form"):
        written(path, [], schema=schema, **options)


def test_a_table_is_cut_where_row_group_says(tmp_path, all_large):
    for piece in (WHOLE, (WHOLE,)):
        assert groups_of(written(tmp_path / "a.parquet", [piece], row_group=25)) == [25, 25, 10]
    assert groups_of(written(tmp_path / "b.parquet", [[{"n": n} for n in range(60)]], row_group=25)) == [25, 25, 10]


DRIFTS = [
    (pa.array([None, None]), pa.array(["a", "b"]), pa.string()),
    (pa.array([None, None]), pa.array([{"a": None}, {"a": [1]}]), pa.struct([("a", pa.list_(pa.int64()))])),
    (pa.array([[], [None]]), pa.array([["a"], None]), pa.list_(pa.string())),
    (pa.array([1, 2], pa.int64()), pa.array([3, None], pa.int8()), pa.int64()),
    (pa.array([1, 2], pa.int8()), pa.array([3, None], pa.int64()), pa.int8()),
    (pa.array([1.5, None]), pa.array([3, 4]), pa.float64()),
    (pa.array([1.5, None]), pa.array([0.5, float("nan")], pa.float32()), pa.float64()),
    (pa.array([1.5, None], pa.float32()), pa.array([0.5, float("nan")]), pa.float32()),
    (pa.array(["a", "b"]), pa.array(["c", "d"], pa.large_string()), pa.string()),
    (pa.array(["a", "b"]), pa.array(["c", "d"]).dictionary_encode(), pa.string()),
    (pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "d"]), pa.dictionary(pa.int32(), pa.string())),
    (
        pa.array(["a", "b"]).cast(pa.dictionary(pa.int8(), pa.string())),
        pa.array(["c", "b"]).cast(pa.dictionary(pa.int16(), pa.string())),
        pa.dictionary(pa.int32(), pa.string()),
    ),
    (pa.array([1, 2], pa.timestamp("ns")), pa.array([5, 6], pa.timestamp("s")), pa.timestamp("ns")),
    (pa.array([True, False]), pa.array([None, None]), pa.bool_()),
]


@pytest.mark.parametrize(
    "made", [lambda t: t, lambda t: (t,), lambda t: t.to_pylist()], ids=["tables", "encoded", "rows"]
)
@pytest.mark.parametrize(("one", "other", "kind"), DRIFTS, ids=lambda each: str(getattr(each, "type", each)))
def test_batches_that_drift_are_one_column_where_nothing_is_lost(tmp_path, all_large, one, other, kind, made):
    first, second = pa.table({"n": [1, 2], "v": one}), pa.table({"n": [3, 4], "v": other})
    path = written(tmp_path / "a.parquet", [(first,), made(second)])
    found = pq.read_table(path)
    assert found.schema.field("v").type == kind
    assert repr(found["v"].to_pylist()) == repr([*_as(one, kind), *_as(other, kind)])


def _as(column, kind):
    """Values of a column as those of another one; text and categories are the same ones."""
    return column.cast(kind).to_pylist() if pa.types.is_primitive(kind) else column.to_pylist()


@pytest.mark.parametrize(("one", "other", "kind"), DRIFTS, ids=lambda each: str(getattr(each, "type", each)))
def test_small_tables_that_drift_are_what_holds_all_of_them(tmp_path, one, other, kind):
    path = written(tmp_path / "a.parquet", [pa.table({"v": one}), pa.table({"v": other})])
    found = pq.read_table(path)["v"]
    assert groups_of(path) == [4]
    assert repr(found.to_pylist()) == repr([*_as(one, found.type), *_as(other, found.type)])


CONFLICTS = [
    (pa.array([1, 2]), pa.array(["a", "b"]), 2, r"its 'v' is string, and the column is int64"),
    (pa.array([1, 2], pa.int8()), pa.array([3, 300]), 3, r"its 'v' does not fit: .*the column is int8"),
    (pa.array([1, 2]), pa.array([3, 3.5]), 3, r"its 'v' does not fit: .*the column is int64"),
    (pa.array([1, 2], pa.float32()), pa.array([0.5, 0.1]), 3, r"its 'v' does not fit: .*the column is float"),
    (pa.array([1.0, 2]), pa.array([3, 2**60 + 1]), 3, r"its 'v' does not fit: .*the column is double"),
    (pa.array(["a", "b"]), pa.array([b"a", b"b"]), 2, r"its 'v' is binary"),
    (pa.array([1, 2], pa.timestamp("us", "UTC")), pa.array([1, 2], pa.timestamp("us", "Europe/Berlin")), 2, "Berlin"),
    (pa.array([1, 2], pa.duration("s")), pa.array([1, 2]), 2, r"its 'v' is int64"),
]


@pytest.mark.parametrize("encoded", [False, True], ids=["tables", "encoded"])
@pytest.mark.parametrize(("one", "other", "result", "says"), CONFLICTS, ids=lambda each: str(getattr(each, "type", "")))
def test_what_cannot_be_one_column_is_named_by_its_result(tmp_path, all_large, one, other, result, says, encoded):
    tables = [pa.table({"v": one}), pa.table({"v": other})]
    with pytest.raises(SinkError, match=says) as caught:
        written(tmp_path / "a.parquet", [(each,) for each in tables] if encoded else tables)
    assert caught.value.result == result
    assert list(tmp_path.iterdir()) == []


def test_a_given_schema_settles_what_columns_are(tmp_path, all_large):
    schema = pa.schema([pa.field("n", pa.float32()), ("s", pa.string())])
    tables = [pa.table({"n": [0.1]}), pa.table({"s": ["a"], "n": [2]})]
    for pieces in (tables, [(each,) for each in tables]):
        path = written(tmp_path / "a.parquet", pieces, schema=schema)
        assert pq.read_table(path).equals(pa.table({"n": pa.array([0.1, 2], pa.float32()), "s": [None, "a"]}))
    never = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    with pytest.raises(SinkError, match="'n' is missing or None") as caught:
        written(tmp_path / "b.parquet", [pa.table({"n": [1]}), pa.table({"n": [1, None]})], schema=never)
    assert caught.value.result == 2


def test_columns_are_told_by_name(tmp_path, all_large):
    path = written(
        tmp_path / "a.parquet",
        [pa.table({"a": [1], "b": [2]}), (pa.table({"b": [4], "a": [3]}),), pa.table({"a": [5]})],
    )
    assert pq.read_table(path).to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": None}]
    with pytest.raises(SinkError, match="'c' is not among the columns: a, b") as caught:
        written(path, [pa.table({"a": [1], "b": [2]}), pa.table({"c": [4]})])
    assert caught.value.result == 1
    with pytest.raises(SinkError, match="two columns 'a'"):
        written(path, [pa.table([[1], [2]], ["a", "a"])])
    with pytest.raises(SinkError, match="no columns"):
        written(path, [pa.table({"a": [1]}).select([])])
    with pytest.raises(SinkError, match=r"result 0 .*month_day_nano"):
        written(path, [pa.table({"a": pa.array([None], pa.month_day_nano_interval())})])


def test_tables_without_rows_tell_what_the_columns_are_where_no_others_come(tmp_path, all_large):
    none = WHOLE.slice(0, 0)
    path = written(tmp_path / "a.parquet", [none, none])
    assert pq.read_table(path).schema.equals(SCHEMA)
    assert groups_of(path) == []
    odd = pa.table({"s": pa.array([], pa.null())})
    path = written(tmp_path / "a.parquet", [odd, pa.table({"n": [1]}), odd])
    assert pq.read_table(path).to_pylist() == [{"n": 1}]


def test_columns_of_nothing_but_nulls_stay_such_in_the_end_or_when_too_much_waits(tmp_path, all_large, monkeypatch):
    nothing, text = pa.table({"v": pa.nulls(2)}), pa.table({"v": ["a"]})
    assert (
        pq.read_table(written(tmp_path / "a.parquet", [(nothing,), nothing, [{"v": None}]])).to_pylist()
        == [{"v": None}] * 5
    )
    monkeypatch.setattr(settling, "HELD", 0)
    with pytest.raises(SinkError, match="its 'v' is string, and the column is null; schema= says") as caught:
        written(tmp_path / "b.parquet", [(nothing,), text])
    assert caught.value.result == 2


def test_how_columns_are_packed_is_said_and_checked(tmp_path, all_large):
    for codec in row_groups.CODECS:
        path = written(tmp_path / "a.parquet", [(WHOLE,), WHOLE, ROWS], schema=SCHEMA, codec=codec)
        about = pq.read_metadata(path).row_group(2).column(0)
        assert about.compression == ("UNCOMPRESSED" if codec == "none" else codec.upper())
    one, two = (
        written(tmp_path / f"{n}.parquet", [pa.table({"n": range(10_000)})], codec="zstd", level=n) for n in (1, 19)
    )
    assert one.read_bytes() != two.read_bytes()
    with pytest.raises(LineError, match="codec='zip' is none of Parquet's: give one of snappy, zstd"):
        write(tmp_path / "a.parquet", codec="zip")
    with pytest.raises(LineError, match="codec='zstd' has no level=99"):
        write(tmp_path / "a.parquet", codec="zstd", level=99)
    with pytest.raises(LineError, match="row_group=0 must be a whole number of rows, 1 or more"):
        write(tmp_path / "a.parquet", row_group=0)
    with pytest.raises(LineError, match="codec= is for Parquet and Arrow"):
        write(tmp_path / "a.jsonl", codec="zstd")


def test_a_table_that_is_as_files_have_it_is_not_made_anew():
    table = pa.table({"n": [1], "kind": pa.array(["a"]).dictionary_encode()})
    assert normal(table, 0) is table
