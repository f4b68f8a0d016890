"""Tables in memory: their rows are the records, and results become tables again."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from present import present

from taktline import LineError, ResumeError, SourceError, batch, expand, keep, line, serial
from taktline._planner.choose import Choice
from taktline._run.as_tables import whole
from taktline._run.auto import Auto
from taktline._run.in_memory import table_source
from taktline._run.output import OutputBatch
from taktline._run.reader import Reader
from taktline._segment.tables import ArrowRows

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


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_that_a_step_gets_one_by_one_are_cut_out_of_the_table_too(kind):
    assert Reader(present(table_source(SOURCES[kind]())), split=True).slices
    assert not Reader(ROWS, split=True).slices


COLUMNS = [
    pa.array([1], "uint8"), pa.array([-1]), pa.array([2**60 + 1]), pa.array([2.5]), pa.array([0.1], "float32"),
    pa.array([Decimal("1.5")]), pa.array([Decimal("123.25")]), pa.array([True]), pa.array(["x"]), pa.array([b"x"]),
    pa.array(["y"]).dictionary_encode(), pa.nulls(1), pa.array([date(2024, 1, 1)]), pa.array([datetime(2024, 1, 1, 12)]),
    pa.array([1], pa.timestamp("s")), pa.array([1], pa.timestamp("us", "UTC")), pa.array([1], pa.timestamp("us", "+02:00")),
    pa.array([1500], pa.timestamp("ns")), pa.array([1], pa.duration("s")), pa.array([1], pa.duration("us")),
    pa.array([1], pa.time32("s")), pa.array([1], pa.time64("us")), pa.array([[1]]), pa.array([[2.5]]), pa.array([{"x": 1}]),
    pa.array([{"x": 2.5}]), pa.array([{"y": 1}]),
]  # fmt: skip


@pytest.mark.parametrize("form", ["arrow", "polars", "pandas"])
@pytest.mark.parametrize("one", range(len(COLUMNS)))
def test_what_is_of_another_type_in_a_later_table_stays_as_it_is_or_is_refused(one, form):
    for other in range(len(COLUMNS)):
        pieces = [pa.table({"n": COLUMNS[each]}) for each in (one, other)]
        got = refusal = None
        try:
            got = whole([OutputBatch(ArrowRows(piece)) for piece in pieces], form)
        except LineError as error:
            refusal = str(error)
        assert refusal is None or "take them as records" in refusal
        if (
            got is not None and form == "arrow"
        ):  # what others have for these values is of classes of their own: that it came is enough
            wanted = [piece["n"][0].as_py() for piece in pieces]
            assert [*map(_plain, got["n"].to_pylist())] == [*map(_plain, wanted)]


def _plain(value):
    """Equal values as one of them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    return datetime.combine(value, time()) if type(value) is date else value


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
        (
            pd.DataFrame({"a": [1, "x"]}),
            "column 'a' of the DataFrame holds values of several types, which no column of Arrow can",
        ),
        (pd.DataFrame(index=[1, 2]), "no columns"),
        ({"a": np.arange(2), "b": np.arange(3)}, "one length: 'a' has 2, 'b' has 3"),
        ({"a": [1]}, r"items\(\)"),
        ({"a": np.arange(2), "b": np.zeros((2, 2))}, "column 'b' of the dict of arrays is an array of 2 dimensions"),
        ({"a": np.arange(2), "b": [1, 2]}, "column 'b' of the dict of arrays is a list"),
        ({"a": np.arange(2), "b": np.array(1)}, "column 'b' of the dict of arrays is an array of 0 dimensions"),
        ({"a": np.arange(2), "b": np.ma.array([1, 2])}, "column 'b' of the dict of arrays is a masked array"),
        ({"a": np.arange(2), "b": np.array([1, 2j])}, "column 'b' of the dict of arrays is an array of complex128"),
        ({"a": np.arange(2), "b": np.array([1, "x"], object)}, "column 'b' .* an array of several types"),
        ({"a": np.arange(2), "b": 3}, r"items\(\)"),
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


# --- a large frame ---


def large():
    """Of which some slices are made."""
    return pd.DataFrame({"a": np.arange(1_000_000.0), "b": np.arange(1_000_000), "word": "x"})


def summed(frame):
    frame["c"] = frame["a"] + frame["b"]
    return frame


@pytest.fixture
def cheap(monkeypatch):
    """Steps are cheap, whatever they take."""
    monkeypatch.setattr(Auto, "_is_copying", lambda self, sample: True)
    monkeypatch.setattr(Auto, "_for_processes", lambda self, lane: Choice(False, True, "stay with the loop"))


def test_columns_that_a_cheap_step_does_not_touch_are_not_copied(cheap):
    frame = large()
    run = line(batch(summed, form="pandas"))(frame)
    result = run.to_pandas()
    pd.testing.assert_frame_equal(result, summed(frame.copy()))
    for name in ("a", "b"):
        assert np.shares_memory(result[name].array, frame[name].array)
    assert run.report.records_in == run.report.records_out == len(frame)
    assert [each.records for each in run.report.steps] == [len(frame)]


def test_what_moving_costs_counts_the_rows_of_a_frame(monkeypatch):
    seen = []
    decide = Auto.decide
    monkeypatch.setattr(Auto, "decide", lambda self, lane: seen.append(self._sample(lane)) or decide(self, lane))
    line(batch(summed, form="pandas"))(large()).to_pandas()
    assert seen
    assert all(each.pack_in > 0 for each in seen)


def test_what_is_shared_is_copied_by_who_writes_into_it(cheap):
    frame = large()
    result = line(batch(summed, form="pandas"))(frame).to_pandas()
    result.loc[3, "a"] = result.loc[3, "c"] = -1.0
    assert (frame.loc[3, "a"], result.loc[3, "a"], result.loc[3, "c"]) == (3.0, -1.0, -1.0)
    frame.loc[4, "b"] = -1
    assert result.loc[4, "b"] == 4
    del frame
    result["b"] += 1
    assert result.loc[5, "b"] == 6


def test_what_a_step_hands_out_twice_is_no_others(cheap):
    def twice(frame):
        frame["again"] = frame["a"]
        return frame

    frame = large()
    result = line(batch(twice, form="pandas"))(frame).to_pandas()
    result.loc[0, "again"] = -1.0
    assert (frame.loc[0, "a"], result.loc[0, "a"], result.loc[0, "again"]) == (0.0, 0.0, -1.0)


def test_each_row_goes_through_a_step_once_whatever_the_step_does_with_it(cheap, tmp_path):
    def told(frame):
        with open(tmp_path / "rows", "a") as file:
            print(len(frame), file=file)
        return frame

    frame = large()
    assert len(line(batch(told, form="pandas"))(frame).to_pandas()) == len(frame)
    sizes = [int(text) for text in (tmp_path / "rows").read_text().split()]
    assert sum(sizes) == len(frame)
    assert len(sizes) > 2, "a slice at a time"


def test_a_row_that_fails_in_a_large_frame_is_found(cheap):
    def fussy(frame):
        if (frame["b"] == 777_777).any():
            raise ValueError("that row")
        return frame

    with pytest.raises(ValueError, match="that row") as caught:
        line(batch(fussy, form="pandas"))(large()).to_pandas()
    assert "record 777,777" in caught.value.__notes__[0]


def now_and_then(frame):
    """Its results are in other memory and of other types from slice to slice, and the same values."""
    late = frame.index[0] > 0
    frame["a"] = frame["a"] + 0 if late else frame["a"]
    frame["mixed"] = frame["b"].astype("Int64") if late else frame["b"]
    frame["gaps"] = frame["b"].astype("Int64").where(frame["b"] < 700_000)
    frame["small"] = (frame["b"] % 100).astype("int8")
    frame["odd"] = frame["b"] % 2 == 1
    return frame


@pytest.mark.parametrize("options", [{}, {"how": "line", "workers": 2}, {"batch_size": 300_000}])
def test_results_that_differ_from_slice_to_slice_come_whole(options):
    frame = large()
    result = line(batch(now_and_then, form="pandas"))(frame, **options).to_pandas()
    pd.testing.assert_frame_equal(result[["a", "b", "word"]], frame, check_dtype=False)
    assert (result["mixed"] == frame["b"]).all()
    assert result["gaps"].isna().sum() == 300_000
    assert (result["gaps"].dropna() == frame["b"][:700_000]).all()
    assert (result["small"].dtype, result["odd"].dtype) == ("int8", "bool")
    assert (result["small"] == frame["b"] % 100).all()
    assert (result["odd"] == (frame["b"] % 2 == 1)).all()


def test_what_steps_have_made_is_in_one_piece_of_memory_that_is_the_callers(cheap):
    result = line(batch(summed, form="pandas"))(large()).to_pandas()
    assert result["c"].to_numpy().flags.c_contiguous
    result.loc[7, "c"] = -1.0
    assert result["c"].tolist()[6:9] == [12.0, -1.0, 16.0]


def test_polars_gets_its_own_columns_back_and_those_of_steps_in_one_piece(cheap):
    frame = pl.DataFrame({"a": np.arange(1_000_000.0), "b": np.arange(1_000_000)})
    flow = line(batch(lambda given: given.with_columns(c=pl.col("a") + pl.col("b")), form="polars"))
    result = flow(frame).to_polars()
    assert result.equals(frame.with_columns(c=pl.col("a") + pl.col("b")))
    assert result.n_chunks("all") == [1, 1, 1]
    assert np.shares_memory(result["a"].to_numpy(), frame["a"].to_numpy())


def test_a_row_that_fails_is_left_out_of_what_is_gathered():
    def fussy(frame):
        if (frame["b"] == 777_777).any():
            raise ValueError("that row")
        return summed(frame)

    result = line(batch(fussy, form="pandas"))(large(), on_error="skip", workers=2).to_pandas()
    assert len(result) == 999_999
    assert (result["c"] == result["a"] + result["b"]).all()


NOT_OF_ARROW = {
    "periods": lambda: pd.period_range("2024-01", periods=3, freq="M").array,
    "intervals": lambda: pd.interval_range(0, 3).array,
    "complex numbers": lambda: np.array([1j, 2, 3]),
}


@pytest.mark.parametrize("kind", NOT_OF_ARROW)
def test_what_only_pandas_has_is_refused_as_a_source_and_stays_itself_as_a_result(kind):
    values = NOT_OF_ARROW[kind]()
    with pytest.raises(LineError, match="column 'odd' of the DataFrame holds values of dtype "):
        line(batch(lambda frame: frame, form="pandas"))(pd.DataFrame({"odd": values}))

    def with_it(frame):
        return frame.assign(odd=values[frame["n"].to_numpy()])

    run = line(batch(with_it, form="pandas"))(pd.DataFrame({"n": [0, 1, 2]}))
    assert [row["odd"] for row in run] == list(values)


@pytest.mark.parametrize("how", ["loop", "line"])
def test_numbers_that_pandas_stores_otherwise_are_numbers(how):
    def stored_otherwise(frame):
        numbers = frame["n"].to_numpy()
        return frame.assign(sparse=pd.arrays.SparseArray(numbers), swapped=numbers.astype(">i4"))

    source = stored_otherwise(pd.DataFrame({"n": [0, 0, 7]}))
    flow = line(batch(stored_otherwise, form="pandas"))
    assert flow(source, how=how).to_list() == [{"n": n, "sparse": n, "swapped": n} for n in (0, 0, 7)]


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "numpy"])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_column_of_nothing_but_what_is_missing_goes_through_each_form(form, how):
    frame = pd.DataFrame({"none": pd.Series([None] * 3, dtype=object), "nan": pd.Series([np.nan] * 3, dtype=object)})
    assert line(batch(lambda table: table, form=form))(frame, how=how).to_list() == [{"none": None, "nan": None}] * 3


@pytest.mark.parametrize("how", ["auto", "loop", "pool", "line"])
def test_a_text_that_pandas_has_no_value_for_is_none_in_one_row_as_in_many(how):
    words = expand(lambda frame: frame.assign(tags=frame["tags"].str.split()).explode("tags"), form="pandas")
    run = line(words)(pd.DataFrame({"tags": ["a b", "", "c"]}), how=how)
    assert [row["tags"] for row in run] == ["a", "b", None, "c"]


@pytest.mark.parametrize("how", ["auto", "loop", "line"])
def test_a_row_has_no_column_that_only_later_calls_of_its_table_add(how, tmp_path):
    def more_from_100(frame):
        return frame.assign(more=1) if frame["n"].iloc[0] >= 100 else frame

    run = line(batch(more_from_100, form="pandas", size=100))(pd.DataFrame({"n": range(200)}), how=how)
    assert run.to_list() == [{"n": n} | ({"more": 1} if n >= 100 else {}) for n in range(200)]


@pytest.mark.parametrize("how", ["auto", "line"])
def test_no_call_gets_more_rows_than_a_batch_has(how):
    def told(frame):
        return frame.assign(rows=len(frame))

    run = line(batch(told, form="pandas"))(pd.DataFrame({"n": range(5000)}), how=how, batch_size=100)
    assert 1 < max(row["rows"] for row in run) <= 100


class Orders(pd.DataFrame):
    """A frame of a class of its user's own."""


def test_a_frame_of_a_class_of_the_users_own_has_its_own_types():
    made = line(batch(lambda frame: frame, form="pandas"))(Orders({"n": [1, 2]})).to_pandas()
    assert made["n"].dtype == "int64"
