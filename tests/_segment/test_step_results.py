"""What a batch step returns: a table's rows are the results, and what is neither list nor table is refused by name."""

from __future__ import annotations

from collections import UserDict, deque
from itertools import islice

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from taktline import BatchLengthError, FormError, batch, line

EVERY = ["loop", "pool", "queues", "line", "auto"]
ROWS = [{"n": n, "name": f"no. {n}"} for n in range(7)]
N, NAME = [row["n"] for row in ROWS], [row["name"] for row in ROWS]


class Theirs:
    """A table of a library that nobody here knows."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, schema=None):
        return self._table.__arrow_c_stream__(schema)


class Lazy:
    """A table that cannot be told row by row, as those of dask or Spark."""

    columns = ["n", "name"]

    def __iter__(self):
        return iter(self.columns)

    def __len__(self):
        return 7


class Odd(list):
    """A list that says another length than it has."""

    def __len__(self):
        return 7


TABLES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": lambda rows: pa.Table.from_pylist(rows),
    "arrow batch": lambda rows: pa.RecordBatch.from_pylist(rows),
    "arrow reader": lambda rows: pa.Table.from_pylist(rows).to_reader(),
    "another library's": lambda rows: Theirs(pa.Table.from_pylist(rows)),
    "dict of lists": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "dict of tuples": lambda rows: {name: tuple(row[name] for row in rows) for name in rows[0]},
    "dict of arrays": lambda rows: {name: np.array([row[name] for row in rows]) for name in rows[0]},
    "dict of series": lambda rows: UserDict({name: pd.Series([row[name] for row in rows]) for name in rows[0]}),
    "dict of polars": lambda rows: {name: pl.Series([row[name] for row in rows]) for name in rows[0]},
    "dict of arrow": lambda rows: {name: pa.array([row[name] for row in rows]) for name in rows[0]},
    "structured": lambda rows: np.array([(row["n"], row["name"]) for row in rows], [("n", "i8"), ("name", "U9")]),
}


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("kind", TABLES)
def test_the_rows_of_a_table_are_the_results_whatever_the_steps_form(kind, how):
    table = TABLES[kind]
    flow = line(batch(table, size=3))
    assert list(flow(ROWS, how=how, workers=1, batch_size=None if how == "loop" else 7)) == ROWS
    for form in ["numpy", "pandas", "arrow", "polars"]:
        left = iter(ROWS)
        back = batch(lambda given, left=left: table(list(islice(left, length(given)))), form=form)
        again = batch(lambda given: given, form=form)
        assert list(line(back, again)(ROWS, how="loop")) == ROWS


def length(given):
    return len(next(iter(given.values()))) if isinstance(given, dict) else len(given)


@pytest.mark.parametrize("how", EVERY)
def test_a_table_is_never_its_columns_names_under_any_technique(how):
    flow = line(batch(pd.DataFrame, size=2), lambda row: row["n"])  # as many columns as rows
    assert list(flow(ROWS, how=how, workers=2)) == N


LISTS = [list, tuple, deque, np.array, pd.Series, pd.Index, pl.Series, pd.array, iter,
         lambda rows: (row for row in rows), lambda rows: dict(enumerate(rows)).values(), pa.array,
         lambda rows: dict.fromkeys(rows).keys()]  # fmt: skip


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("kind", range(len(LISTS)))
def test_what_holds_one_value_a_record_gives_them(kind, how):
    assert list(line(batch(LISTS[kind]))(N, how=how, workers=1)) == N


def test_the_rows_of_an_array_are_results():
    assert [row.tolist() for row in line(batch(lambda xs: np.outer(xs, [1, 2])))([1, 2, 3])] == [[1, 2], [2, 4], [3, 6]]


NEITHER = {
    "dict by record": (lambda rows: {row["n"]: row for row in rows}, "dict"),
    "dict by name": (lambda rows: {row["name"]: row["n"] for row in rows}, "dict"),
    "empty dict": (lambda rows: {}, "dict"),
    "str": (lambda rows: "x" * len(rows), "str"),
    "bytes": (lambda rows: b"x" * len(rows), "bytes"),
    "set": (lambda rows: {row["n"] for row in rows}, "set"),
    "frozenset": (lambda rows: frozenset(row["n"] for row in rows), "frozenset"),
    "None": (lambda rows: None, "NoneType"),
    "number": (lambda rows: 7, "int"),
    "scalar": (lambda rows: np.float64(7), "float64"),
    "array of none": (lambda rows: np.array(7), "ndarray"),
    "groups": (lambda rows: pd.DataFrame(rows).groupby("n"), "DataFrameGroupBy"),
    "lazy": (lambda rows: pl.DataFrame(rows).lazy(), "LazyFrame"),
    "lazy of another": (lambda rows: Lazy(), "Lazy"),
    "no columns": (lambda rows: pd.DataFrame(index=range(len(rows))), "DataFrame"),
    "other order": (lambda rows: pd.DataFrame(rows + rows).iloc[: len(rows)].set_index(np.arange(len(rows))[::-1]),
                    "DataFrame"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NEITHER)
def test_what_is_neither_list_nor_table_is_refused_with_record_and_step(kind):
    fn, name = NEITHER[kind]
    for how in ["loop", "line"] if kind != "other order" else ["line"]:
        done = []
        odd = batch(lambda rows: fn(rows) if rows[0]["n"] >= 2 else rows, size=2)
        with pytest.raises(FormError, match=f"it returned {name}, not") as caught:
            done.extend(line(odd)(ROWS, how=how, workers=1, batch_size=2))
        assert caught.value.step.startswith("lambda")
        assert "at record 2 in step" in caught.value.__notes__[0]


def test_length_and_iteration_that_disagree_are_an_error():
    with pytest.raises(BatchLengthError):
        list(line(batch(lambda rows: Odd(rows[:-1])))(ROWS, how="line", workers=1, batch_size=7))
    with pytest.raises(FormError, match=r"a length of 7 and gives [13]"):
        list(line(batch(Odd))(ROWS, how="line", workers=1, batch_size=3))
    with pytest.raises(FormError, match="a length of 7 and gives 1"):
        list(line(batch(Odd))(ROWS, how="loop"))


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_table_of_another_length_is_told_with_both(how):
    for table in (lambda rows: pd.DataFrame(rows * 2), lambda rows: {"a": [1] * len(rows), "b": [1] * len(rows) * 2}):
        with pytest.raises(BatchLengthError, match="was given 1 record and returned 2 results"):
            list(line(batch(table))(ROWS, how=how, workers=1, batch_size=1))


def test_a_failing_reader_of_a_table_is_the_steps_failure():
    def rows_until(at):
        yield pa.RecordBatch.from_pylist(ROWS[:at])
        raise ValueError("the connection is gone")

    schema = pa.Table.from_pylist(ROWS).schema
    with pytest.raises(ValueError, match="connection is gone"):
        list(line(batch(lambda rows: pa.RecordBatchReader.from_batches(schema, rows_until(1))))(ROWS, how="line"))
