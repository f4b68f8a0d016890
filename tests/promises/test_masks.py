"""`keep` and `expand` over columns: the results of the same step for one record, in each form and technique."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

import taktline
from taktline import BatchLengthError, FormError, LineError, batch, expand, keep, line

ROWS = [{"n": n, "word": f"w{n}"} for n in range(60)]
TECHNIQUES = ("loop", "auto", "pool", "queues", "line")
FEW = ("loop", "line")  # where each form is tried: workers have three libraries to import


def even_list(rows):
    return [row["n"] % 2 == 0 for row in rows]


def even_numpy(columns):
    return columns["n"] % 2 == 0


def even_pandas(frame):
    return frame["n"] % 2 == 0


def even_arrow(table):
    return pc.equal(pc.bit_wise_and(table["n"], 1), 0)


def even_polars(frame):
    return frame["n"] % 2 == 0


EVEN = {"list": even_list, "numpy": even_numpy, "pandas": even_pandas, "arrow": even_arrow, "polars": even_polars}


def twice_list(rows):
    return [row for row in rows for _ in range(2)]


def twice_numpy(columns):
    return {name: np.repeat(column, 2) for name, column in columns.items()}


def twice_pandas(frame):
    return frame.loc[frame.index.repeat(2)]


def twice_arrow(table):
    return table.take(pa.array([n // 2 for n in range(2 * table.num_rows)]))


def twice_polars(frame):
    return frame[[n // 2 for n in range(2 * len(frame))]]


TWICE = {"list": twice_list, "numpy": twice_numpy, "pandas": twice_pandas, "arrow": twice_arrow, "polars": twice_polars}


def plus(row):
    return {**row, "n": row["n"] + 1}


def bad_word(row):
    if row["word"] in ("w7", "w20"):
        raise ValueError(f"no {row['word']}")
    return row


def bad_frame(frame):
    if frame["word"].isin(["w7", "w20"]).any():
        raise ValueError("no such word")
    return frame


@pytest.fixture(params=["records", "a file"])
def source(request, tmp_path):
    """The rows as they may come."""
    if request.param == "a file":
        parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet", row_group_size=25)
        return taktline.read(str(tmp_path / "in.parquet"))
    return ROWS


@pytest.mark.parametrize("how", FEW)
@pytest.mark.parametrize("form", EVEN)
def test_results_are_those_of_the_same_steps_for_one_record(form, how, source):
    flow = line(keep(EVEN[form], form=form, size=17), expand(TWICE[form], form=form), plus)
    wanted = [plus(row) for row in ROWS if row["n"] % 2 == 0 for _ in range(2)]
    assert flow(source, how=how, workers=2).to_list() == wanted


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_chain_of_one_form_has_all_of_them(how, source):
    flow = line(
        expand(twice_pandas, form="pandas"), keep(even_pandas, form="pandas"), batch(bad_frame, form="pandas"),
        expand(twice_pandas, form="pandas"), batch(lambda frame: frame.assign(n=frame["n"] + 1), form="pandas"),
    )  # fmt: skip
    wanted = [plus(row) for row in ROWS if row["n"] % 2 == 0 and row["n"] != 20 for _ in range(4)]
    run = flow(source, how=how, workers=2, on_error="skip")
    assert run.to_list() == wanted
    assert run.report.skipped == 1


@pytest.mark.parametrize("how", FEW)
@pytest.mark.parametrize("form", TWICE)
def test_what_fails_behind_them_is_its_own_record(form, how, source, tmp_path):
    flow = line(expand(TWICE[form], form=form), keep(EVEN[form], form=form), bad_word)
    letters = tmp_path / "dead.jsonl"
    wanted = [row for row in ROWS if row["n"] % 2 == 0 and row["n"] != 20 for _ in range(2)]
    assert flow(source, how=how, workers=2, dead_letters=letters).to_list() == wanted
    (letter,) = taktline.read(str(letters))
    assert (letter["index"], letter["record"]) == (20, ROWS[20])


def no_seven(frame):
    if (frame["n"] == 7).any():
        raise ValueError("seven")
    return frame["n"] > 3


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_mask_that_fails_fails_its_record(how, source):
    results = []
    with pytest.raises(ValueError, match="seven") as caught:
        for row in line(keep(no_seven, form="pandas"))(source, how=how, workers=2):
            results.append(row["n"])
    assert results == [4, 5, 6]
    assert any("record 7" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_mask_may_drop_all(how, source):
    flow = line(keep(lambda frame: frame["n"] < 0, form="pandas"), batch(bad_frame, form="pandas"))
    assert flow(source, how=how, workers=2).to_list() == []


@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        (lambda frame: frame["n"], FormError, "a mask"),
        (lambda frame: None, FormError, "a mask"),
        (lambda frame: "x" * len(frame), FormError, "a mask"),
        (lambda frame: [True], BatchLengthError, "returned 1"),
        (lambda frame: frame[["n"]] > 3, FormError, "a mask"),
    ],
)
def test_what_is_no_mask_is_refused(mask, error, says):
    with pytest.raises(error, match=says):
        line(keep(mask, form="pandas"))(ROWS, how="line", workers=2, batch_size=30).to_list()


@pytest.mark.parametrize(
    "mask",
    [
        lambda frame: [None if n == 1 else n < 3 for n in frame["n"]],
        lambda frame: pd.array([None if n == 1 else n < 3 for n in frame["n"]], "boolean"),
        lambda frame: pa.array([None if n == 1 else n < 3 for n in frame["n"]]),
        lambda frame: pa.chunked_array([pa.array([None if n == 1 else n < 3 for n in frame["n"]])]),
        lambda frame: pl.Series([None if n == 1 else n < 3 for n in frame["n"]]),
        lambda frame: np.ma.array([n < 3 for n in frame["n"]], mask=[n == 1 for n in frame["n"]]),
        lambda frame: [np.bool_(n < 3 and n != 1) for n in frame["n"]],
        lambda frame: frame["n"].map({0: True, 1: None, 2: True}).where(frame["n"] < 3, False),
    ],
)
@pytest.mark.parametrize("size", [None, 1, 2])  # alone, what is missing has no type
def test_any_library_gives_a_mask_and_what_is_missing_is_false(mask, size):
    assert line(keep(mask, form="pandas", size=size))(ROWS).to_list() == [ROWS[0], ROWS[2]]


def even_in_another_order(frame):
    return frame.sort_values("n", ascending=False)["n"] % 2 == 0


def even_of_list(rows):
    return even_in_another_order(pd.DataFrame(rows))


BY_LABEL = {"pandas": even_in_another_order, "list": even_of_list}


@pytest.mark.parametrize("how", TECHNIQUES)
@pytest.mark.parametrize("form", BY_LABEL)
def test_a_mask_of_pandas_has_its_rows_by_label(how, form, source):
    flow = line(batch(as_it_is, form=form), keep(BY_LABEL[form], form=form))
    assert flow(source, how=how, workers=2).to_list() == ROWS[::2]


def as_it_is(some):
    return some


@pytest.mark.parametrize(
    "mask",
    [
        lambda frame: pd.concat([frame["n"].iloc[:-1], frame["n"].iloc[:1]]) >= 0,
        lambda frame: frame.set_index("word")["n"] > 3,
        lambda frame: pd.Series(True, index=frame.index + 1),
    ],
)
def test_a_mask_of_other_labels_is_refused(mask):
    with pytest.raises(FormError, match="whose index has the labels"):
        line(keep(mask, form="pandas"))(pd.DataFrame(ROWS), how="line", workers=1, batch_size=30).to_list()


def test_a_mask_that_numbers_its_rows_is_in_their_order():
    flow = line(keep(lambda frame: pd.Series(frame["n"].to_numpy() % 2 == 0), form="pandas"))
    assert flow(pd.DataFrame(ROWS), how="line", workers=1, batch_size=25).to_list() == ROWS[::2]


VIEWS = {
    "text": pa.array([*"abcde", None], pa.string_view()),
    "bytes": pa.array([b"a", None, b"c", b"d", b"e", b"f" * 20], pa.binary_view()),
    "inside": pa.array([[{"a": "x" * n}] for n in range(6)], pa.list_(pa.struct([("a", pa.string_view())]))),
    "runs": pc.run_end_encode(pa.array([1, 1, 1, 2, None, 2])),
}


@pytest.mark.parametrize("options", [{"how": "loop"}, {"how": "line", "workers": 1}, {}], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_columns_that_pyarrow_cannot_filter_stay_what_they_are(name, options, capfd):
    table = pa.table({"n": range(6), "a": pa.chunked_array([VIEWS[name][:3], VIEWS[name][3:]])})
    for kept in ({0, 2, 3}, {0}, {2, 3, 4, 5}):
        flow = line(keep(lambda some: pc.is_in(some["n"], pa.array(sorted(kept))), form="arrow"))  # noqa: B023
        made = flow(table, **options).to_arrow()
        assert made["a"].type == VIEWS[name].type
        assert made.to_pylist() == [row for row in table.to_pylist() if row["n"] in kept]
    assert capfd.readouterr().err == ""


def test_they_are_parted_and_filtered_in_files_too(tmp_path):
    table = pa.table({"n": range(6), "k": pa.array(list("xyxyxy"), pa.string_view()), "a": VIEWS["text"]})
    line(batch(as_it_is, form="arrow")).run(table, taktline.write(f"{tmp_path}/parts/", "arrow", partition_by=["k"]))
    made = sorted(taktline.read(f"{tmp_path}/parts/"), key=lambda row: row["n"])
    assert made == [{"n": row["n"], "a": row["a"], "k": row["k"]} for row in table.to_pylist()]
    parquet.write_table(table, f"{tmp_path}/in.parquet")
    source = taktline.read(f"{tmp_path}/in.parquet", filters=[("n", ">", 2)])
    assert line(batch(as_it_is, form="arrow"))(source).to_list() == list(source) == table.to_pylist()[3:]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: keep(even_list, size=3), r"keep\(size=\)"),
        (lambda: keep(even_list, form="excel"), r"keep\(form='excel'\)"),
        (lambda: expand(even_list, form="list", size=0), r"expand\(size=0\)"),
    ],
)
def test_wrong_use_is_refused(build, says):
    with pytest.raises(LineError, match=says):
        build()


def test_before_a_run_they_are_known():
    flow = line(keep(even_pandas, form="pandas"), expand(twice_pandas, form="pandas"), plus)
    assert not [each for each in flow.check(ROWS).findings if not each.advice]
    table = flow.compare(ROWS, rounds=1, predictions=False)
    assert not [row.problem for row in table.rows if row.problem], str(table)
    assert flow.plan(ROWS).how == "loop"
