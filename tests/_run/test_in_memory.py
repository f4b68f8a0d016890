"""Tables in memory: their rows are the records, and results become tables again."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from taktline import LineError, ResumeError, SourceError, batch, expand, keep, line, serial

ROWS = [{"n": n, "half": n / 2, "word": f"w{n}"} for n in range(50)]
ARROW = pa.Table.from_pylist(ROWS)
SOURCES = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "Polars": lambda: pl.DataFrame(ROWS),
    "LazyFrame": lambda: pl.DataFrame(ROWS).lazy(),
    "Table": lambda: ARROW,
    "RecordBatch": lambda: ARROW.to_batches()[0],
    "reader": lambda: ARROW.to_reader(max_chunksize=7),
    "stream": lambda: Streamed(ARROW),
    "dict": lambda: {"n": np.arange(50), "half": np.arange(50) / 2, "word": np.array([f"w{n}" for n in range(50)])},
    "structured": lambda: np.array(
        [tuple(row.values()) for row in ROWS], [("n", "i8"), ("half", "f8"), ("word", "U3")]
    ),
}


class Streamed:
    """Of a library that nobody here knows."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def plus(row):
    return {**row, "n": row["n"] + 1}


def plus_all(frame):
    frame["n"] += 1
    return frame


@pytest.mark.parametrize("how", ["loop", "auto", "line", "pool"])
@pytest.mark.parametrize("kind", SOURCES)
def test_rows_are_the_records(kind, how):
    assert line(plus)(SOURCES[kind](), how=how, workers=2).to_list() == [plus(row) for row in ROWS]
    assert line(batch(plus_all, form="pandas"))(SOURCES[kind](), how=how, workers=2).to_list() == [
        plus(row) for row in ROWS
    ]


def test_all_doors_take_them():
    flow, frame = line(plus), pd.DataFrame(ROWS)
    results = []
    flow.run(frame, results.append)
    assert results == [plus(row) for row in ROWS]
    assert flow.plan(frame).how == "loop"
    assert flow.check(frame).records == 50
    assert flow.compare(frame, rounds=1, predictions=False).records == 50


def test_the_frame_of_the_caller_stays_as_it_was():
    frame = pd.DataFrame(ROWS)
    line(batch(plus_all, form="pandas"))(frame).to_pandas()
    assert frame["n"].tolist() == list(range(50))


def test_the_index_of_the_caller_comes_back():
    frame = pd.DataFrame(ROWS, index=[f"row {n}" for n in range(50)])
    assert line(plus)(frame).to_pandas().index.equals(frame.index)
    assert line(batch(plus_all, form="pandas"))(frame).to_pandas().equals(plus_all(frame.copy()))
    assert line(keep(lambda row: True))(frame).to_pandas().index.tolist() == list(range(50))


def test_types_stay_those_of_the_source():
    frame = pd.DataFrame(
        {
            "small": pd.array([1, 2], "int8"), "some": pd.array([1, None], "Int16"), "kind": pd.Categorical(["a", "b"]),
            "at": pd.to_datetime(["2020-01-01", None]), "x": [1.5, float("nan")],
            "zone": pd.date_range("2020", periods=2, tz="UTC"),
        }
    )  # fmt: skip
    back = line(batch(lambda given: given, form="pandas"))(frame, how="line", workers=2).to_pandas()
    pd.testing.assert_frame_equal(back, frame)


def test_what_can_be_read_once_says_so():
    reader = ARROW.to_reader()
    assert len(line(plus)(reader).to_list()) == 50
    run = line(plus)(reader)
    assert run.to_list() == []  # as with an iterator that is used up


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame([[1, 2]]), "names that are text, not such as 0, int"),
        (pd.DataFrame({("a", "b"): [1]}), "a MultiIndex"),
        (pd.DataFrame({"a": [1, "x"]}), "column 'a' of the DataFrame holds what no column of Arrow can"),
        (pd.DataFrame(index=[1, 2]), "no columns"),
        ({"a": np.arange(2), "b": np.arange(3)}, "one length: 'a' has 2, 'b' has 3"),
        ({"a": [1]}, r"items\(\)"),
    ],
)
def test_what_is_no_source_is_refused(source, says):
    with pytest.raises(LineError, match=says):
        line(plus)(source)


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_row_that_can_be_no_record_is_named(how):
    frame = pd.DataFrame({"at": pd.to_datetime([0, 1, 1_000], unit="ns")})
    results = []
    with pytest.raises(SourceError, match="row 1 of the DataFrame"):
        results.extend(line(dict)(frame, how=how, workers=2))
    assert [row["at"] for row in line(dict)(frame, how=how, workers=2, on_error="skip")] == [
        datetime(1970, 1, 1), datetime(1970, 1, 1, microsecond=1)
    ]  # fmt: skip


def test_results_become_tables():
    run = line(plus, expand(lambda row: [row, row]))
    assert run(ROWS).to_arrow().to_pylist() == [plus(row) for row in ROWS for _ in range(2)]
    assert run(ROWS).to_polars().rows(named=True) == run(ROWS).to_list()
    assert pd.concat(run(ROWS).tables("pandas"))["n"].tolist() == [row["n"] for row in run(ROWS)]
    assert line(abs)([1, 2]).to_pandas().tolist() == [1, 2]
    assert line(abs)([]).to_arrow().num_rows == 0
    assert line(abs)([]).to_pandas().empty


@pytest.mark.parametrize("call", ["to_pandas", "to_polars", "to_arrow"])
def test_results_that_are_no_table_are_told(call):
    with pytest.raises(LineError, match="cannot stand in one table"):
        getattr(line(dict)([{"a": 1}, {"b": 2}]), call)()


def test_an_unknown_form_is_refused():
    with pytest.raises(LineError, match="'numpy'; choose one of 'pandas', 'arrow', 'polars'"):
        line(abs)([1]).tables("numpy")


def test_a_journal_knows_a_table_by_some_of_its_rows(tmp_path):
    frame = pd.DataFrame({"n": range(5000), "word": ["w"] * 5000})

    def begun(frame):
        return line(batch(plus_all, form="pandas"), serial(Counting()))(frame, journal=tmp_path / "j", how="loop")

    run = begun(frame)
    first = [next(run) for _ in range(1234)]
    run.close()
    with pytest.raises(ResumeError, match="the source"):
        list(begun(frame.assign(n=frame["n"] + 1)))
    # The last one is delivered when the next one is asked for.
    assert first[:-1] + list(begun(frame)) == [(n, {"n": n + 1, "word": "w"}) for n in range(5000)]


class Counting:
    """Numbers what it gets."""

    count = 0

    def __call__(self, row):
        self.count += 1
        return self.count - 1, row

    def save(self):
        return self.count

    def load(self, state):
        self.count = state
