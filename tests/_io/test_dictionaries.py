"""Parquet's columns have a dictionary where it makes the file smaller, and none where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import write_pieces

from taktline import write
from taktline._io.dictionaries import LEAST, columns_with_dictionary

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = 40_000
MUCH = 1.15  # what may be left of a file beside the smaller one: savings that are not worth their time, and an estimate


def drawn(rows, different, order, kind):
    """A column of so many rows that has about so many different values."""
    random = np.random.default_rng(7)
    numbers = {
        "mixed": lambda: random.integers(0, different, rows), "again and again": lambda: np.arange(rows) % different,
        "sorted": lambda: np.sort(random.integers(0, different, rows)),
        "mostly one": lambda: np.where(random.random(rows) < 0.9, 0, random.integers(0, different, rows)),
    }[order]()  # fmt: skip
    if kind == "texts":
        return pa.array([f"the value {n}" for n in numbers])
    return pa.array(numbers * 1.1 if kind == "floats" else numbers.astype(kind))


def size(table, dictionary):
    out = pa.BufferOutputStream()
    pq.write_table(table, out, use_dictionary=dictionary, compression="none")
    return out.tell()


@given(
    rows=st.sampled_from([LEAST, ROWS, 300_000]), share=st.sampled_from([1.0, 0.7, 0.4, 0.2, 0.1, 0.01, 0.0001]),
    order=st.sampled_from(["mixed", "again and again", "sorted", "mostly one"]),
    kind=st.sampled_from(["floats", "int64", "int32", "texts"]), nulls=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_file_is_about_as_small_as_the_better_of_two(rows, share, order, kind, nulls):
    column = drawn(rows, max(1, int(rows * share)), order, kind)
    if nulls:
        column = pa.array(column.to_pylist(), column.type, mask=np.random.default_rng(1).random(rows) < 0.3)
    table = pa.table({"c": column})
    assert size(table, columns_with_dictionary(table)) <= MUCH * min(size(table, True), size(table, False))


def test_a_table_in_pieces_is_written_as_the_whole_is():
    table = pa.table({"a": np.arange(ROWS), "b": np.arange(ROWS) % 9, "c": drawn(ROWS, 100, "mixed", "texts")})
    pieces = pa.concat_tables([table.slice(0, 10), table.slice(10, 20_000), table.slice(20_010)])
    assert columns_with_dictionary(table) == columns_with_dictionary(pieces) == ["b", "c"]


def test_columns_in_columns_and_names_with_dots(tmp_path):
    """What lies in a column of lists or of structs keeps its dictionary beside a column that has none."""
    few = np.arange(ROWS) % 9
    table = pa.table(
        {
            "alone": np.arange(ROWS), "a.b": few, "l": pa.array([[int(n)] for n in few]),
            "s": pa.array([{"x": int(n), "y": {"z": str(n)}} for n in few]),
            "m": pa.array([[("k", int(n))] for n in few], pa.map_(pa.string(), pa.int64())),
            "d": pa.array([str(n) for n in few]).dictionary_encode(), "none": pa.nulls(ROWS), "yes": few > 4,
        }
    )  # fmt: skip
    path = tmp_path / "out.parquet"
    write_pieces(write(str(path)), [table])
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    without = {each.path_in_schema for each in columns if not each.has_dictionary_page}
    assert without - {"none", "yes"} == {"alone"}  # there is no dictionary of nothing, nor of booleans
    assert pq.read_table(path).equals(table)


def test_a_type_that_cannot_be_looked_at_has_one():
    strange = pa.array([(1, n, 3) for n in range(LEAST)], pa.month_day_nano_interval())
    assert columns_with_dictionary(pa.table({"c": strange, "n": np.arange(LEAST)})) == ["c"]
