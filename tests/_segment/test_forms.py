"""The forms: no conversion changes a value, and what cannot stand in a form is refused or handed over in parts."""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model import any_values, zones

from taktline import (
    BatchLengthError,
    FormError,
    FormsDiffer,
    LineError,
    StepError,
    batch,
    expand,
    line,
    per_worker,
    step,
)
from taktline._recipe.steps import as_step, flatten
from taktline._segment.batch import Batch
from taktline._segment.equality import kept
from taktline._segment.forms import Unfit, form_of
from taktline._segment.segment import Segment
from taktline._segment.values import Table

FORMS = ["numpy", "pandas", "arrow", "polars"]
kinds = [
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=4), st.booleans(), st.dates(), st.datetimes(),
    st.datetimes(timezones=zones), st.decimals(allow_nan=False, places=3, min_value=-9, max_value=9), st.timedeltas(),
]  # fmt: skip
alike = st.sampled_from(kinds).flatmap(lambda kind: st.lists(st.one_of(st.none(), kind, kind), min_size=1, max_size=6))
many = st.one_of(alike, any_values)


def there_and_back(form, values):
    """The values through the form as a line would do it; None for what the form refuses."""
    try:
        result, count = form.checked(form.take(values), len(values))
    except Unfit:
        if len(values) == 1:
            return [None]
        half = len(values) // 2
        return there_and_back(form, values[:half]) + there_and_back(form, values[half:])
    assert count == len(values)
    return [(value,) for value in form.give(result).records()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=150, deadline=None)
@given(values=many)
@example(values=["a\0", "b"])
@example(values=[datetime(2024, 10, 27, 2, 30, fold=1), datetime(2024, 10, 27, 2, 30)])
@example(values=[2**63, -1, True, 1.0])
@example(values=["long" * 1_000_000, *["short"] * 20])
def test_what_a_form_takes_it_gives_back(name, values):
    for value, back in zip(values, there_and_back(form_of(name), values), strict=True):
        assert back is None or kept(value, back[0]), (value, back)
        if name in ("numpy", "pandas") and value not in ({}, ()):
            assert back is not None, "these two hold anything as an object"


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=60, deadline=None)
@given(values=many)
def test_a_batch_is_of_the_type_of_each_of_its_records(name, values):
    form = form_of(name)
    try:
        whole = form.take(values)
    except Unfit:
        return
    for value in values:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
        if any(each is None or isinstance(each, (list, dict)) for each in inner):
            continue  # a column without any value, or of empty lists, has no type of its own
        assert types(name, form.take([value])) == types(name, whole, loose=True)


def types(name, taken, loose=False):
    """The types of the columns, those of nullable columns as if nothing were missing."""
    if name == "numpy":
        columns = taken.values() if isinstance(taken, dict) else taken if isinstance(taken, tuple) else [taken]
        return [column.dtype.kind for column in columns]
    if name == "pandas":
        found = [taken.dtype] if taken.ndim == 1 else list(taken.dtypes)
        return [str(dtype).lower().replace("boolean", "bool") for dtype in found]
    if name == "arrow":
        found = taken.schema.types if hasattr(taken, "schema") else [taken.type]
        return ["decimal" if str(kind).startswith("decimal") else kind for kind in found]
    return taken.dtypes if hasattr(taken, "dtypes") else [taken.dtype]


def ran(steps, values, goes_on=False, **how):
    """A segment of these steps over one batch."""
    segment = Segment(flatten(steps), goes_on=goes_on)
    segment.make()
    return segment.run(Batch(values), **how)


def failures(batch):
    return [(failure.origin, failure.step, failure.error) for failure in batch.failures]


@pytest.mark.parametrize(
    ("form", "values", "says"),
    [
        ("arrow", [1, 2**64], "mixes|too large|does not fit"),
        ("arrow", [{"a": 1}, {"a": (1,)}], "column 'a': it would be changed from"),
        ("arrow", [{"a": 1}, {1: 1}], "a column's name is not a str"),
        ("polars", [1, {}], "a row has no columns"),
        ("polars", [1, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))], "it would be changed from"),
        ("polars", [1, "\udc80"], "surrogates not allowed"),
        ("pandas", [{"a": 1}, {}], "a row has no columns"),
        ("numpy", [(1,), ()], "a row has no columns"),
    ],
)
def test_a_record_that_cannot_stand_in_the_form_is_named(form, values, says):
    with pytest.raises(FormError, match=says) as caught:
        list(line(batch(lambda taken: taken, form=form, size=10))(values, how="loop"))
    assert vars(caught.value)["__taktline__"].index == 1
    assert caught.value.form == form
    assert 'form="list" takes anything' in str(caught.value)
    assert [index for index, _, _ in failures(ran([batch(lambda taken: taken, form=form)], values, goes_on=True))] == [
        1
    ]


@pytest.mark.parametrize("form", FORMS)
def test_ints_beside_a_missing_one_stay_ints(form):
    rows = [{"n": 2**53 + 1}, {"n": None}, {"n": -(2**63)}]
    assert list(line(batch(lambda taken: taken, form=form))(rows)) == rows


def test_ints_beside_floats_are_handed_over_apart():
    seen = []

    def note(array):
        seen.append(array.tolist())
        return array

    assert ran([batch(note, form="numpy")], [1, 2, 2.5, 3.5]).values == [1, 2, 2.5, 3.5]
    assert [[type(value) for value in batch] for batch in seen] == [[int, int], [float, float]]


@pytest.mark.parametrize("form", ["pandas", "arrow", "polars"])
def test_time_zones_and_decimals_are_kept(form):
    rows = [
        {"at": datetime(2024, 10, 27, 12, tzinfo=ZoneInfo("Europe/Berlin")), "price": Decimal("1.10")},
        {"at": None, "price": Decimal("2.50")},
    ]
    back = list(line(batch(lambda taken: taken, form=form))(rows))
    assert kept(back, rows)


def test_nanoseconds_are_refused_and_not_cut_off():
    def at(step):
        return batch(lambda xs: xs.astype("M8[ns]") + np.timedelta64(step, "ns"), form="numpy")

    moments = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    assert ran([at(2000)], moments).values == [moment + timedelta(microseconds=2) for moment in moments]
    with pytest.raises(FormError, match="whole microseconds"):
        list(line(at(1))(moments))


def test_what_comes_out_are_plain_records():
    rows = [{"n": 1, "word": "a"}, {"n": 2, "word": "b"}]
    import pandas as pd

    assert type(ran([batch(lambda ns: ns / 2, form="numpy")], [1, 3]).values[0]) is float
    assert ran([batch(lambda table: table["n"].to_numpy(), form="pandas")], rows).values == [1, 2]
    assert ran([batch(lambda c: (c["n"], c["word"]), form="numpy")], rows).values == [(1, "a"), (2, "b")]
    assert ran([batch(lambda pair: pair[0] + pair[1], form="numpy")], [(1, 2.5), (2, 3.5)]).values == [3.5, 5.5]
    assert ran([batch(lambda t: t.assign(day=pd.Timestamp("2024-01-01")), form="pandas")], rows).values[0] == {
        **rows[0], "day": datetime(2024, 1, 1),
    }  # fmt: skip
    vectors = ran([batch(lambda ns: np.stack([ns, ns * 2], axis=1), form="numpy")], [1, 2]).values
    assert [vector.tolist() for vector in vectors] == [[1, 2], [2, 4]]
    assert ran([batch(lambda v: v.sum(axis=1), form="numpy")], vectors).values == [3, 6]


@pytest.mark.parametrize("form", FORMS)
def test_between_steps_of_one_form_nothing_is_converted(form, monkeypatch):
    taken, handed = [], []
    one = form_of(form)
    take = type(one).take
    monkeypatch.setattr(type(one), "take", lambda self, values: taken.append(len(values)) or take(self, values))

    def first(values):
        handed.append(values)
        return values

    def second(values):
        assert values is handed[-1]
        return values

    steps = [batch(first, form=form, size=4), batch(second, form=form, size=6), batch(second, form=form)]
    assert ran(steps, list(range(10))).values == list(range(10))
    assert taken == [4, 4, 2]


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
def test_a_type_that_python_has_not_stays_between_steps_under_every_technique(how):
    flow = line(
        abs, batch(lambda xs: xs.astype("float32") / 3, form="numpy"), batch(lambda xs: xs * xs, form="numpy"), str
    )
    wanted = [str(float(np.square(np.float32(n) / np.float32(3)))) for n in range(40)]
    assert list(flow(range(40), how=how, workers=2)) == wanted


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_number_of_results_is_told_with_both(form):
    with pytest.raises(BatchLengthError, match="was given 1 record and returned 0 results"):
        list(line(batch(lambda taken: taken[:0], form=form))(range(5), how="line", workers=1))
    errors = [error for _, _, error in failures(ran([batch(lambda taken: taken[:3], form=form)], list(range(5))))]
    assert [(error.given, error.returned) for error in errors] == [(5, 3)]


def test_columns_of_other_lengths_are_a_wrong_number_too():
    failed = ran([batch(lambda c: {"a": c["a"], "b": c["a"][1:]}, form="numpy")], [{"a": 1}, {"a": 2}], goes_on=True)
    assert [(origin, error.given, error.returned) for origin, _, error in failures(failed)] == [(0, 2, 1), (1, 2, 1)]


@pytest.mark.parametrize(
    ("form", "fn", "says"),
    [
        ("numpy", lambda xs: xs.tolist(), "returned list, not NumPy arrays"),
        ("numpy", lambda xs: xs[0], "returned int64, not NumPy arrays"),
        ("pandas", lambda xs: xs.tolist(), "returned list, not a DataFrame"),
        ("pandas", lambda xs: xs.iloc[::-1], "in the order in which they were given"),
        ("arrow", lambda xs: xs.to_pylist(), "returned list, not a pyarrow Table"),
        ("polars", lambda xs: xs.to_list(), "returned list, not a Polars DataFrame"),
    ],
)
def test_a_result_that_is_not_of_the_form_is_told(form, fn, says):
    (failure,) = failures(ran([batch(fn, form=form)], [3, 4]))
    assert failure[0] == 0
    assert isinstance(failure[2], FormError)
    assert says in str(failure[2])


def test_one_bad_row_does_not_cost_its_batch():
    def double(xs):
        if (xs == 5).any():
            raise ValueError("five")
        return xs * 2

    def one(x):
        if x == 5:
            raise KeyError(x)
        return x * 2

    whole = ran([batch(double, form="numpy", like=one)], list(range(10)), goes_on=True)
    assert whole.values == [n * 2 for n in range(10) if n != 5]
    assert [(origin, type(error)) for origin, _, error in failures(whole)] == [(5, KeyError)]
    alone = ran([batch(double, form="numpy")], list(range(10)), goes_on=True)
    assert alone.values == whole.values
    assert [(origin, type(error)) for origin, _, error in failures(alone)] == [(5, ValueError)]


def test_a_step_that_changes_its_batch_before_it_fails_sees_unchanged_records_again():
    def double(xs):
        xs *= 2
        if (xs == 10).any():
            raise ValueError("ten")
        return xs

    steps = [batch(lambda xs: xs, form="numpy"), batch(double, form="numpy")]
    assert ran(steps, list(range(10)), goes_on=True).values == [n * 2 for n in range(10) if n != 5]


def test_what_an_expanded_record_gave_before_it_failed_is_taken_back():
    def fussy(xs):
        if (xs == 21).any():
            raise ValueError
        return xs

    flow = line(expand(lambda n: [n, n + 1, n + 2]), batch(fussy, form="numpy", size=2))
    assert list(flow([10, 20, 30], how="line", workers=1, on_error="skip")) == [10, 11, 12, 30, 31, 32]


def test_the_first_failure_is_that_of_the_first_record():
    """Record 7 fails in the second step, record 3 in the third: the loop never gets to record 7."""

    def fails_at(n, name):
        def check(xs):
            if (xs == n).any():
                raise ValueError(name)
            return xs

        return batch(check, form="numpy", name=name)

    failed = ran([fails_at(-1, "one"), fails_at(7, "two"), fails_at(3, "three")], list(range(10)))
    assert failed.values == [0, 1, 2]
    assert [(origin, step, error.args) for origin, step, error in failures(failed)] == [(3, "three", ("three",))]


def test_careful_mode_names_the_step_within_a_run_of_one_form():
    marks = []
    segment = Segment(
        flatten([abs, batch(lambda xs: xs, form="numpy", name="one"), batch(lambda xs: -xs, form="numpy", name="two")]),
        goes_on=False,
    )
    segment.make()
    segment.mark = lambda at, step, seconds: marks.append((at, step))
    assert segment.run(Batch([-1, 2]), careful=True).values == [-1, -2]
    assert marks == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_results_travel_as_columns():
    sent = ran([as_step(abs), batch(lambda xs: xs / 2, form="numpy", size=2)], [1, 2, 3], formed=True).values
    assert isinstance(sent, Table)
    assert [piece.columns[0].dtype for piece in sent.pieces] == ["float64", "float64"]
    assert (len(sent), sent.records()) == (3, [0.5, 1.0, 1.5])


def test_a_result_in_a_column_that_cannot_be_sent_is_named():
    def make(numbers):
        made = numbers.astype(object)
        made[numbers == 70] = lambda: 0
        return made

    flow = line(batch(make, form="numpy"), name="made")
    run = flow(range(100), how="line", workers=1, on_error="keep")
    results = list(run)
    assert results[:70] + results[71:] == [n for n in range(100) if n != 70]
    assert (results[70].index, type(results[70].error)) == (70, StepError)


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_verify_tells_the_first_rows_that_differ(how):
    flow = line(
        batch(lambda xs: np.where(xs > 5, xs, xs * 2), form="numpy", name="twice", like=lambda x: x * 2, verify=True)
    )
    with pytest.raises(FormsDiffer, match="'twice' and its like= differ") as caught:
        list(flow(range(10), how=how, workers=1, batch_size=10))
    assert vars(caught.value)["__taktline__"].index == 6
    assert caught.value.rows[0] == ("6", "6", "12")


@pytest.mark.parametrize("form", ["list", "numpy"])
def test_records_that_differ_fail_and_the_others_go_on(form):
    steps = [
        batch(lambda xs: type(xs)([x + (x == 3) for x in xs]), like=lambda x: x, verify=True)
        if form == "list"
        else batch(lambda xs: xs + (xs == 3), form=form, like=lambda x: x, verify=True),
        batch(lambda xs: [-x for x in xs] if form == "list" else -xs, form=form),
    ]
    whole = ran(steps, list(range(6)), goes_on=True)
    assert whole.values == [0, -1, -2, -4, -5]
    assert [(origin, type(error)) for origin, _, error in failures(whole)] == [(3, FormsDiffer)]


def test_verify_takes_a_tolerance():
    def third(verify):
        return batch(lambda xs: xs * (1 / 3), form="numpy", like=lambda x: x / 3, verify=verify)

    assert len(ran([third(1e-12)], list(range(100))).values) == 100
    assert ran([third(True)], list(range(100))).failures


class Scale:
    """Built once a worker, and closed at its end."""

    def __init__(self, path):
        self.path = path / f"{id(self)}"
        self.path.write_text("open")

    def __call__(self, xs):
        return xs * 10

    def close(self):
        self.path.write_text("closed")


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_what_is_built_for_a_worker_serves_batches_and_is_closed(tmp_path, how):
    flow = line(batch(per_worker(Scale, tmp_path), form="numpy"))
    assert list(flow(range(50), how=how, workers=1)) == [n * 10 for n in range(50)]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["closed"]


def test_what_was_built_is_closed_when_a_later_one_cannot_be(tmp_path):
    def broken():
        raise OSError("no model here")

    with pytest.raises(OSError, match="no model here") as caught:
        list(line(per_worker(Scale, tmp_path), per_worker(broken))([1], how="line", workers=1))
    assert any("built for this worker" in note for note in caught.value.__notes__)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["closed"]


def test_a_form_whose_package_is_missing_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("taktline._recipe.steps.find_spec", lambda name: None)
    with pytest.raises(LineError, match=r"needs the package pyarrow: pip install \"taktline\[arrow\]\""):
        batch(list, form="arrow")
    assert batch(list).form == "list"


def test_dates_are_days():
    assert ran([batch(lambda days: days + np.timedelta64(1, "D"), form="numpy")], [date(2024, 2, 28)]).values == [
        date(2024, 2, 29)
    ]


class Named(Scale):
    """Fails at one record, whatever way of ending that asks for."""

    def __call__(self, n):
        if n == 30:
            raise ValueError(n)
        return n


def leave(run):
    for _ in run:
        break
    run.close()


def read_all(run):
    with pytest.raises(ValueError):
        list(run)


def abandon(run):
    next(run)
    del run


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
@pytest.mark.parametrize(("end", "options"), [(leave, {}), (read_all, {}), (abandon, {}), (list, {"on_error": "skip"})])
def test_what_is_built_is_closed_however_a_run_ends(tmp_path, how, end, options):
    end(line(per_worker(Named, tmp_path), abs)(range(200), how=how, workers=2, **options))
    states = [path.read_text() for path in tmp_path.iterdir()]
    assert states
    assert {*states} == {"closed"}


class Owner:
    """Notes the process in which it was built."""

    def __init__(self, folder):
        (folder / str(os.getpid())).touch()

    def __call__(self, n):
        return n, os.getpid()


@pytest.mark.parametrize("how", ["pool", "queues", "line", "auto"])
def test_a_step_has_no_more_copies_than_it_may_and_the_others_as_many_as_can_be(tmp_path, how):
    flow = line(step(per_worker(Owner, tmp_path), workers=1), lambda pair: (*pair, os.getpid()))
    results = list(flow(range(300), how=how, workers=2, batch_size=3 if how == "line" else None))
    assert [n for n, _, _ in results] == list(range(300))
    assert [path.name for path in tmp_path.iterdir()] == [str(results[0][1])]
    assert results[0][1] != os.getpid()
    if how != "queues":
        assert len({pid for _, _, pid in results}) == 2
