"""filters= gives the rows of Parquet that Python would keep, whatever the row groups say of themselves."""

import math
import operator
import os
from datetime import date, datetime
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taktline
from taktline import LineError, SourceError, line
from taktline._io import parquet
from taktline._segment.equality import same
from taktline.cli import flags
from taktline.testing import check_source

DAYS = [date(2024, 1, n) for n in range(1, 9)]
KINDS = {
    "i": (pa.int64(), st.integers(-3, 3)),
    "f": (pa.float64(), st.sampled_from([-1.5, -0.0, 0.0, 1.0, math.inf, -math.inf, math.nan])),
    "s": (pa.string(), st.text("ab", max_size=2)),
    "d": (pa.date32(), st.sampled_from(DAYS)),
    "t": (pa.timestamp("ns"), st.sampled_from([datetime(2024, 1, 1, 0, 0, 0, n) for n in range(5)])),
    "b": (pa.bool_(), st.booleans()),
    "k": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y", "z"])),
}
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def holds(value, sign, other):
    if other is None:
        return (value is None) == (sign == "=")
    if value is None:
        return False
    if sign in ("in", "not in"):
        return any(value == each for each in other) == (sign == "in")
    return SIGNS[sign](value, other)


def kept(record, filters):
    return any(all(holds(record[name], sign, value) for name, sign, value in branch) for branch in filters)


@st.composite
def terms(draw):
    name = draw(st.sampled_from(list(KINDS)))
    signs = [*SIGNS, "in", "not in"] if name not in "bk" else ["=", "!=", "in", "not in"]
    sign = draw(st.sampled_from(signs))
    values = KINDS[name][1]
    if sign in ("in", "not in"):
        return name, sign, draw(st.lists(values, min_size=1, max_size=3))
    return name, sign, draw(st.one_of(values, st.none()) if sign in ("=", "!=") else values)


@st.composite
def files(draw):
    rows, sort = draw(st.integers(0, 30)), draw(st.sampled_from([None, *KINDS]))
    columns = {}
    for name, (_, values) in KINDS.items():
        cell = st.one_of(values, values, st.none()) if draw(st.booleans()) else values
        columns[name] = draw(st.lists(cell, min_size=rows, max_size=rows))
    if sort is not None:  # so that row groups are told apart by what they say
        order = sorted(range(rows), key=lambda at: (columns[sort][at] is not None, str(columns[sort][at])))
        columns = {name: [values[at] for at in order] for name, values in columns.items()}
    table = pa.table({name: pa.array(values, KINDS[name][0]) for name, values in columns.items()})
    return table, draw(st.integers(1, 9)), draw(st.booleans())


def by_tables(source):
    splitter = source.split()
    while (part := splitter.table()) is not None:
        table = part.table()
        assert len(part) == table.num_rows > 0
        yield from taktline._arrow.records_of(table)


@settings(max_examples=int(os.environ.get("TAKTLINE_EXAMPLES", 150)), deadline=None)
@given(
    files(), st.lists(st.lists(terms(), min_size=1, max_size=2), min_size=1, max_size=2), st.integers(1, 9), st.booleans(),
    st.integers(0, 5), st.sampled_from([None, ["s", "i"]]),
)  # fmt: skip
def test_filters_keep_the_rows_that_python_keeps(tmp_path_factory, file, filters, size, exact, left, columns):
    table, group, counted = file
    path = tmp_path_factory.getbasetemp() / "t.parquet"
    pq.write_table(table, path, row_group_size=group, write_statistics=counted)
    wanted = [record for record in parquet.records_of(table) if kept(record, filters)]
    wanted = [{name: record[name] for name in columns or KINDS} for record in wanted]
    source = taktline.read(path, columns=columns, filters=filters)
    assert same(list(source), wanted)
    assert same(list(by_tables(source)), wanted)
    splitter, got = source.split(exact=exact), []
    while True:
        part = splitter.part(size)
        if part is None and len(got) == len(wanted):
            break
        there = list(part)
        assert len(there) == len(part) <= size
        if exact and len(got) + len(there) < len(wanted):
            assert len(part) == size
        got += there + list(islice(splitter, left))
    assert same(got, wanted)


def test_a_filtered_file_is_a_source_as_any_other(tmp_path):
    rows = [{"n": n, "s": f"text {n % 7}", "d": date(2024, 1, 1 + n % 28)} for n in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=50)
    filters = [("n", ">=", 120), ("s", "in", ["text 1", "text 4"]), ("d", ">", "2024-01-03")]
    wanted = [row for row in rows if row["n"] >= 120 and row["s"] in filters[1][2] and row["d"] > date(2024, 1, 3)]
    source = taktline.read(tmp_path / "a.parquet", filters=filters)
    check_source(source, wanted)
    assert flags._filters(('n>=120', 'd > 2024-01-03', 's = "text 1"', 'k!=null')) == [
        ("n", ">=", 120), ("d", ">", "2024-01-03"), ("s", "=", "text 1"), ("k", "!=", None),
    ]  # fmt: skip
    with pytest.raises(TypeError):
        len(source)
    assert source.fingerprint() != taktline.read(tmp_path / "a.parquet").fingerprint()


def test_row_groups_and_files_without_such_a_row_are_not_decoded(tmp_path):
    for year in (2023, 2024, 2025):
        (tmp_path / f"year={year}").mkdir()
        table = pa.table({"n": list(range(100))})
        path = tmp_path / f"year={year}" / "a.parquet"
        pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
        chunk = pq.read_metadata(path).row_group(3).column(0)
        data = bytearray(path.read_bytes())
        data[chunk.data_page_offset + 20 : chunk.data_page_offset + chunk.total_compressed_size] = b"\xff" * (
            chunk.total_compressed_size - 20
        )
        path.write_bytes(bytes(data))
    (tmp_path / "year=2023" / "a.parquet").write_bytes(b"none")
    source = taktline.read(tmp_path, filters=[("n", "<", 25), ("year", ">", 2023)])
    assert list(source) == [{"n": n, "year": year} for year in (2024, 2025) for n in range(25)]
    assert list(line(dict)(source, how="line", workers=2)) == list(source)
    assert list(by_tables(source)) == list(source)
    assert list(taktline.read(tmp_path, columns=["n"], filters=[("year", "=", 2025), ("n", "=", 7)])) == [{"n": 7}]
    assert list(taktline.read(tmp_path, filters=[("year", "in", [1, 2])])) == []
    with pytest.raises(SourceError, match="row group 3"):
        list(taktline.read(tmp_path / "year=2024", filters=[("n", "<", 35)]))


@pytest.mark.parametrize(
    ("filters", "what"),
    [
        ("n > 1", "is a list of"), ([], "is a list of"), ({"n": 1}, "is a list of"), ([("n", ">")], "has \\('n', '>'\\)"),
        ([("n", "~", 1)], "operators are ==, !="), ([("n", "in", "ab")], "takes a list"),
        ([("n", "<", None)], "None is asked"),
        ([("n", "in", [None])], "takes a list of values"), ([[("n", "=", 1)], ("n", "=", 2)], "a list of such lists"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_at_once(tmp_path, filters, what):
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(LineError, match=what):
        taktline.read(tmp_path / "a.parquet", filters=filters)


def test_columns_that_are_not_there_or_of_another_type_are_told(tmp_path):
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"filters= names 'm'; '.*a.parquet' has n"):
        list(taktline.read(tmp_path / "a.parquet", filters=[("m", "=", 1)]))
    with pytest.raises(SourceError, match=r"filters= compares 'n' of .*, which is int64, with 'x'"):
        list(taktline.read(tmp_path / "a.parquet", filters=[("n", "=", "x")]))
    (tmp_path / "k=1").mkdir()
    os.rename(tmp_path / "a.parquet", tmp_path / "k=1" / "a.parquet")
    with pytest.raises(LineError, match="filters= compares 'k' with '1': what folders say of it is int, such as 1"):
        taktline.read(tmp_path, filters=[("k", "=", "1")])
    (tmp_path / "a.csv").write_text("n\n1\n")
    with pytest.raises(LineError, match="filters= is for Parquet"):
        taktline.read(tmp_path / "a.csv", filters=[("n", "=", "1")])
