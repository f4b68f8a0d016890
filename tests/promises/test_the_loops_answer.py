"""Promise: every technique gives the loop's results, in the loop's order, and the loop's first exception."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import Boom, any_line, any_plan, any_values, as_line, fails_at, how_many, loop, outcome

from taktline import Failed, SinkError, batch, expand, keep, line, serial
from taktline._segment.equality import kept
from taktline.abc import Sink


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(built=any_line, count=how_many, plan=any_plan)
def test_every_technique_gives_the_loops_answer(built, count, plan):
    # One record a task over thousands of records says nothing more and takes long.
    records = range(min(count, 600) if plan["how"] in ("pool", "queues") else count)
    assert outcome(lambda: as_line(built)(records, **plan)) == outcome(lambda: loop(built, records))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=any_values,
    form=st.sampled_from(["numpy", "pandas", "arrow", "polars"]),
    how=st.sampled_from(["line", "auto"]),
)
def test_records_of_any_type_come_out_of_a_form_as_from_the_loop(values, form, how):
    flow = line(batch(lambda taken: taken, form=form, size=4))
    records = values * 5
    wanted, *failed = outcome(lambda: flow(records, how="loop"))
    got, *as_well = outcome(lambda: flow(records, how=how, workers=1, batch_size=7 if how == "line" else None))
    assert kept(wanted, got)
    assert as_well == failed


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(built=any_line, count=how_many, plan=any_plan)
def test_every_technique_skips_the_same_records(built, count, plan):
    records = range(min(count, 400))

    def loop_that_skips():
        for record in records:
            try:
                yield from list(loop(built, [record]))
            except (Boom, ValueError):
                pass

    run = as_line(built)(records, on_error="skip", **plan)
    results = list(run)
    assert results == list(loop_that_skips())
    assert run.report.records_in == len(records)


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
def test_a_record_that_fails_after_part_of_it_came_out_is_left_out_whole(how):
    def fussy(x):
        if x == 11:
            raise Boom(x)
        return x

    flow = line(expand(lambda x: [x, x + 1, x + 2]), fussy, keep(lambda x: x != 31))
    assert list(flow([10, 20, 30], how=how, workers=2, on_error="skip")) == [20, 21, 22, 30, 32]


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
@pytest.mark.parametrize("bad", [(20,), (21,), (22,), (20, 22)])
def test_all_that_a_failed_record_gave_is_left_out(how, bad):
    def fussy(numbers):
        if not {*numbers}.isdisjoint(bad):
            raise Boom
        return numbers

    flow = line(expand(lambda x: [x, x + 1, x + 2]), batch(fussy, size=2), abs)
    run = flow([10, 20, 30], how=how, workers=2, on_error="skip")
    assert list(run) == [10, 11, 12, 30, 31, 32]
    assert run.report.failed == 1


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
def test_a_failed_record_keeps_its_place(how):
    results = list(line(abs, fails_at(3)[1])(range(8), how=how, workers=2, on_error="keep"))
    marks = [result for result in results if isinstance(result, Failed)]
    assert [result for result in results if not isinstance(result, Failed)] == [0, 1, 2, 4, 5, 6, 7]
    assert results.index(marks[0]) == 3
    assert (marks[0].index, marks[0].record, marks[0].step) == (3, 3, "check")
    assert isinstance(marks[0].error, Boom)


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
def test_the_exception_says_record_and_step(how):
    with pytest.raises(Boom) as caught:
        list(line(abs, fails_at(5)[1])(range(100), how=how, workers=2))
    place = vars(caught.value)["__taktline__"]
    assert (place.index, place.step) == (5, "check")
    assert "record 5" in caught.value.__notes__[0]


def test_a_shared_state_step_sees_input_order_in_one_place():
    seen = []
    flow = line(abs, serial(lambda x: seen.append(x) or x), abs)
    assert list(flow(range(500), how="line", workers=3, batch_size=7)) == list(range(500))
    assert seen == list(range(500))


def test_without_order_nothing_is_lost():
    results = list(line(abs)(range(2_000), how="line", workers=3, batch_size=9, ordered=False))
    assert sorted(results) == list(range(2_000))


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
def test_steps_in_the_callers_process_beside_each_other(how):
    flow = line(serial(lambda x: x - 1), serial(lambda x: x * 2), abs, serial(lambda x: x + 5), serial(str))
    assert list(flow(range(20), how=how, workers=2)) == [str(abs((x - 1) * 2) + 5) for x in range(20)]


class Shown(Sink):
    """A sink whose results are seen as they are written."""

    def __init__(self, refuses=None):
        self.shown, self.refuses = [], refuses

    def open(self):
        pass

    def write(self, results):
        self.shown += results

    def commit(self):
        if self.refuses is not None:
            raise SinkError("not today")

    def abort(self):
        pass


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
@pytest.mark.parametrize("bad", [0, 1, 300, 700])
def test_a_sink_has_all_results_before_an_exception(how, bad):
    sink = Shown()
    with pytest.raises(ZeroDivisionError):
        line(lambda n: n // (n != bad)).run(range(1_000), sink, how=how, workers=2)
    assert sink.shown == list(range(bad))


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_run_whose_sink_fails_at_its_end_is_not_complete(how):
    run = line(abs)(range(10), how=how, workers=2)
    with pytest.raises(SinkError):
        run.drain(Shown(refuses=True))
    assert not run.report.complete
