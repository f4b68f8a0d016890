"""Tables as text: byte by byte what their rows give as records."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pieces import write_pieces

from taktline import SinkError, write
from taktline._io.texts import NotExact, json_table

pa = pytest.importorskip("pyarrow")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text('",\\\n\r\t \x00\x1f\x7fé', max_size=4)
whole = st.integers(-(2**63), 2**63 - 1)
floats = st.floats() | st.integers(-(10**17), 10**17).map(float) | st.floats(1e-5, 1e-3) | st.floats(1e8, 1e11)
small = st.floats(width=32)
PLAIN = {
    "null": (st.none(), pa.null()), "bool": (st.booleans(), pa.bool_()), "whole": (whole, pa.int64()),
    "byte": (st.integers(0, 255), pa.uint8()), "float": (floats, pa.float64()), "single": (small, pa.float32()),
    "text": (text, pa.string()), "large": (text, pa.large_string()),
    "category": (text, pa.dictionary(pa.int8(), pa.string())),
    "kind": (whole, pa.dictionary(pa.int32(), pa.int64())),
}  # fmt: skip
NESTED = {
    "list": (st.lists(floats | st.none(), max_size=3), pa.list_(pa.float64())),
    "lists": (st.lists(st.lists(text, max_size=2) | st.none(), max_size=3), pa.large_list(pa.list_(pa.string()))),
    "struct": (
        st.fixed_dictionaries({"a": text | st.none(), 'b"': st.lists(st.booleans(), max_size=2)}),
        pa.struct([("a", pa.string()), ('b"', pa.list_(pa.bool_()))]),
    ),
    "structs": (
        st.lists(st.fixed_dictionaries({"n": whole | st.none()}), max_size=2), pa.list_(pa.struct([("n", pa.int64())])),
    ),
}  # fmt: skip
TEMPORAL = {
    "day": (st.dates(), pa.date32()), "at": (st.datetimes(), pa.timestamp("us")), "clock": (st.times(), pa.time64("us")),
    "utc": (st.datetimes(timezones=st.just(UTC)), pa.timestamp("us", "UTC")),
    "price": (st.decimals(-999, 999, places=2), pa.decimal128(9, 2)),
    "span": (st.timedeltas(timedelta(days=-1000), timedelta(days=1000)), pa.duration("us")),
}  # fmt: skip


@st.composite
def tables(draw, *kinds, least=1):
    """A table of some columns, cut out of a longer one in several chunks."""
    known = {name: kind for some in kinds for name, kind in some.items()}
    names = draw(st.lists(st.sampled_from(sorted(known)), min_size=least, max_size=5, unique=True))
    count = draw(st.integers(1, 8))
    columns = []
    for name in names:
        values, kind = known[name]
        column = draw(st.lists(values | st.none(), min_size=count, max_size=count))
        columns.append(pa.array(column, kind))
    table = pa.table(columns, names=[draw(st.sampled_from([name, name + '"é'])) for name in names])
    table = pa.concat_tables([table.slice(draw(st.integers(0, count - 1))), table])
    return table.slice(0, draw(st.integers(1, table.num_rows)))


def written(sink, *pieces):
    """What stands in the sink's stream then."""
    stream = io.BytesIO()
    write_pieces(write(stream, sink), pieces)
    return stream.getvalue()


deep = settings(suppress_health_check=list(HealthCheck), max_examples=300, deadline=None)


@deep
@given(tables(PLAIN, NESTED))
def test_json_lines_of_a_table_are_those_of_its_rows(table):
    rows = written("jsonl", table.to_pylist())
    assert json_table(table) == rows
    assert written("jsonl", table) == written("jsonl", (table,)) == rows


@deep
@given(tables(PLAIN, TEMPORAL, least=2))
def test_csv_of_a_table_is_that_of_its_rows(table):
    assert written("csv", table) == written("csv", table.to_pylist())
    assert written("csv", table.slice(0, 1), table.to_pylist()) == written(
        "csv", table.to_pylist()[:1] + table.to_pylist()
    )


@deep
@given(tables(PLAIN, least=1))
def test_tsv_of_a_table_is_that_of_its_rows_or_refused_as_they_are(table):
    def outcome(piece):
        try:
            return written("tsv", piece)
        except SinkError as error:
            return str(error)

    assert outcome(table) == outcome(table.to_pylist())


@settings(max_examples=1000, deadline=None)
@given(st.lists(floats, min_size=1, max_size=30))
def test_floats_are_written_as_python_writes_them(values):
    lines = json_table(pa.table({"x": values}))
    assert lines == b"".join(f'{{"x": {json.dumps(value)}}}\n'.encode() for value in values)


@pytest.mark.parametrize(
    "value", [date(2024, 1, 1), datetime(2024, 1, 1), time(1), Decimal("1.5"), b"bytes", timedelta(1)], ids=str
)
def test_what_json_has_no_form_for_is_refused_by_its_result(value):
    table = pa.table({"n": [1, 2], "v": [None, value]})
    with pytest.raises(NotExact):
        json_table(table)
    with pytest.raises(SinkError) as caught:
        written("jsonl", [{"n": 0}], table)
    assert caught.value.result == 2


def test_what_csv_has_no_form_for_is_refused_by_its_result():
    with pytest.raises(SinkError, match="'l': list has no exact form") as caught:
        written(
            "csv", pa.table({"n": [0], "l": pa.array([None], pa.list_(pa.int8()))}), pa.table({"n": [1], "l": [[1]]})
        )
    assert caught.value.result == 1


def test_bytes_that_are_no_text_are_never_written():
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    for format in ("jsonl", "csv"):
        with pytest.raises(SinkError, match="result 0 cannot be written as a record: 'utf-8' codec can't decode"):
            written(format, pa.table({"n": [1], "s": column}))


def test_tables_of_other_columns_go_by_the_header():
    one, two = pa.table({"a": [1], "b": ["x"]}), pa.table({"b": ["y"]})
    assert written("csv", one, two, pa.table({"b": [None], "a": [3]})) == b"a,b\n1,x\n,y\n3,\n"
    with pytest.raises(SinkError, match="its key 'c' is not among the first row's: a, b") as caught:
        written("csv", one, pa.table({"c": [1]}))
    assert caught.value.result == 1
    assert written("csv", pa.table({"a": ["", None]})) == b'a\n""\n""\n'
    assert list(csv.DictReader(io.StringIO(written("csv", one, two).decode())))[1] == {"a": "", "b": "y"}


def test_empty_tables_and_those_without_columns():
    none = pa.table({"a": pa.array([], pa.int8())})
    assert written("csv", none, [{"b": 1}], none) == b"b\n1\n"
    assert written("jsonl", none, pa.table({"a": [1, 2]}).select([])) == b"{}\n{}\n"
    at = pa.table({"at": pa.array([1000], pa.timestamp("ns")), "n": [1]})
    assert written("csv", at) == b"at,n\n1970-01-01 00:00:00.000001,1\n"


@deep
@given(tables(PLAIN, TEMPORAL, least=2), st.sampled_from(["csv", "tsv"]), st.booleans())
def test_lines_that_a_worker_made_stand_under_the_first_rows_names(table, format, turned):
    first = dict.fromkeys(table.schema.names[::-1] if turned else table.schema.names, "x")
    with_rows = [[first], table.to_pylist(), table.to_pylist()]
    try:
        wanted = written(format, *with_rows)
    except SinkError:
        return
    assert written(format, [first], (table,), (table,)) == wanted
    assert written(format, (table,)) == written(format, table.to_pylist())
