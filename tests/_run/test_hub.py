"""The hub over workers that are no processes: order, deaths, late answers, time. No test here waits for anything."""

from __future__ import annotations

import random

import pytest
from crews import Clock, CrewHere, Dies
from hypothesis import given
from hypothesis import strategies as st

from taktline import Stalled, StepTimeout, WorkerDied, WorkersCannotStart, expand, keep, per_worker, serial
from taktline._crew.contract import Came, Figures, Ready, Spoiled, StartFailed, Withdrawn, WorkerPlace
from taktline._recipe import plan as plans
from taktline._recipe.options import Options
from taktline._recipe.steps import as_step
from taktline._run.hub import Hub
from taktline._run.meter import Meter
from taktline._run.reader import Reader
from taktline._segment.batch import Batch


def hub_over(source, *steps, crew=None, pick=min, plan=plans.line, **options):
    """A hub, and its crew."""
    chosen = Options(**{"how": "line", "workers": 2, "progress": False, **options})
    sized = [chosen.batch_size] if plan is plans.line else []
    plan = plan([as_step(step) for step in steps], chosen.workers, *sized)
    lanes = [segment.steps if segment.workers else None for segment in plan.segments]
    crew = crew or CrewHere(lanes, goes_on=chosen.goes_on, pick=pick)
    meter = Meter("test", plan, chosen, None)
    return Hub(plan, chosen, Reader(source, goes_on=chosen.goes_on), meter, crew, clock=crew.clock), crew


def results(hub):
    """All that is delivered, and the error behind it."""
    got = []
    try:
        for output in hub.outputs(lambda complete: hub.close()):
            got += output
    except Exception as error:
        return got, error
    return got, None


def ten_times(n):
    return n * 10


def dies_at_7(n):
    if n == 7:
        raise Dies
    return n


@given(st.integers(), st.integers(1, 5), st.sampled_from([plans.line, plans.queues, plans.pool]))
def test_results_are_in_order_whichever_worker_is_faster(seed, workers, plan):
    chance = random.Random(seed)
    steps = ten_times, keep(lambda n: n % 3), serial(abs), expand(lambda n: [n] * (n % 4))
    hub, _ = hub_over(range(60), *steps, pick=chance.choice, workers=workers, plan=plan)
    wanted = [n * 10 for n in range(60) if n * 10 % 3 for _ in range(n * 10 % 4)]
    assert results(hub) == (wanted, None)


def test_a_record_that_kills_its_worker_twice_carefully_is_condemned():
    hub, crew = hub_over(range(20), dies_at_7, workers=1, batch_size=5)
    got, error = results(hub)
    assert got == list(range(7))
    assert isinstance(error, WorkerDied)
    assert (error.index, error.step, error.exit_code) == (7, "dies_at_7", -9)
    assert crew.starts == 1 + 3  # in company, and twice alone


def test_a_run_that_goes_on_loses_that_record_alone():
    hub, _ = hub_over(range(20), dies_at_7, on_error="skip", batch_size=5)
    assert results(hub) == ([n for n in range(20) if n != 7], None)


def test_a_worker_that_dies_once_costs_nothing():
    hub, crew = hub_over(range(20), ten_times, batch_size=5)
    outputs = hub.outputs(lambda complete: hub.close())
    got = [*next(outputs)]
    crew.die(1)
    crew.die(0)
    assert got + [each for output in outputs for each in output] == [n * 10 for n in range(20)]


def test_an_answer_of_an_earlier_attempt_is_dropped():
    hub, crew = hub_over(range(20), ten_times, batch_size=5)
    outputs = hub.outputs(lambda complete: hub.close())
    got = [*next(outputs)]
    worker, seq, attempt = crew.sent[-1]
    crew.die(worker)
    crew.told.append(Came(worker, seq, attempt, Batch(["late"] * 5), 0, Figures(1, 0, 0, 0, 0, [5], [0], [0])))
    assert got + [each for output in outputs for each in output] == [n * 10 for n in range(20)]
    assert max(each[2] for each in crew.sent if each[1] == seq) > attempt


def test_workers_that_are_lost_again_and_again_cost_no_record_and_their_late_answers_are_dropped():
    hub, crew = hub_over(range(20), ten_times, batch_size=5, workers=1)
    outputs = hub.outputs(lambda complete: hub.close())
    got = [*next(outputs)]
    for _ in range(4):
        worker, seq, attempt = crew.sent[-1]
        crew.lose(worker)
        crew.told.append(Came(worker, seq, attempt, Batch(["late"] * 5), 0, Figures(1, 0, 0, 0, 0, [5], [0], [0])))
        while crew.sent[-1][1:] == (seq, attempt):
            hub._listen(1)
    assert got + [each for output in outputs for each in output] == [n * 10 for n in range(20)]
    assert not crew.careful


class OnePlace(CrewHere):
    """There is room for one worker; the second gets a place once it is given one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.waiting = None

    def start(self, worker, lane):
        if self.workers:
            self.waiting = worker, lane
            self.told.append(Withdrawn(worker))
        else:
            super().start(worker, lane)

    def give_a_place(self):
        super().start(*self.waiting)


def test_a_worker_without_a_place_does_not_stall_the_run_and_works_once_it_has_one():
    crew = OnePlace([(as_step(ten_times),)])
    hub, _ = hub_over(range(100), ten_times, crew=crew, batch_size=5, stall=8.0)
    outputs = hub.outputs(lambda complete: hub.close())
    got = [*next(outputs), *next(outputs)]
    assert {worker for worker, _, _ in crew.sent} == {0}
    assert hub.ready()
    crew.give_a_place()
    got += [each for output in outputs for each in output]
    assert got == [n * 10 for n in range(100)]
    assert {worker for worker, _, _ in crew.sent} == {0, 1}


def test_a_value_that_takes_too_long_is_named_where_its_worker_was_at_it_to_the_end():
    hub, crew = hub_over(range(20), ten_times, batch_size=5)
    hub.start()
    outputs = hub.deliveries()
    next(outputs)
    worker, seq, _ = crew.sent[-1]
    crew.die(worker, WorkerPlace(seq, 2, 0), overdue=True)
    with pytest.raises(StepTimeout) as caught:
        for _ in outputs:
            pass
    assert caught.value.index == seq * 5 + 2
    hub.close()


def test_workers_that_do_not_move_for_as_long_as_is_allowed_are_stalled():
    hub, crew = hub_over(range(20), ten_times, batch_size=5, stall=8.0)
    outputs = hub.outputs(lambda complete: hub.close())
    next(outputs)
    for worker in crew.workers.values():
        worker.hangs = True
    began = crew.clock.now
    with pytest.raises(Stalled):
        for _ in outputs:
            pass
    assert 8 <= crew.clock.now - began < 12


class DiesWithItsAnswer(CrewHere):
    """Each worker ends in the same wait in which it gives back its first batch."""

    def wait(self, seconds):
        told = super().wait(seconds)
        for each in told:
            if type(each) is Came:
                self.die(each.worker)
        return [*told, *(super().wait(0) if self.told else ())]


def test_a_worker_that_is_replaced_and_has_ended_as_well_is_replaced_once():
    crew = DiesWithItsAnswer([(as_step(ten_times),)])
    hub, _ = hub_over(range(4), ten_times, crew=crew, workers=1, batch_size=1, recycle=1)
    assert results(hub) == ([n * 10 for n in range(4)], None)
    assert crew.starts <= 5


class SpoilsOnce(CrewHere):
    """The first answer cannot be read back."""

    def wait(self, seconds):
        told = super().wait(seconds)
        for n, each in enumerate(told):
            if type(each) is Came and each.attempt == 1 and each.seq == 0:
                told[n] = Spoiled(each.worker, each.seq, each.attempt)
        return told


def test_a_batch_that_is_spoiled_goes_again_carefully():
    crew = SpoilsOnce([(as_step(ten_times),)])
    hub, _ = hub_over(range(20), ten_times, crew=crew, batch_size=5)
    assert results(hub) == ([n * 10 for n in range(20)], None)
    assert crew.careful == [(0, 2)]


def test_an_answer_of_a_worker_that_is_no_more_spoils_nothing():
    hub, crew = hub_over(range(20), ten_times, batch_size=5)
    outputs = hub.outputs(lambda complete: hub.close())
    got = [*next(outputs)]
    worker, seq, attempt = crew.sent[-1]
    crew.die(worker)
    crew.told.append(Spoiled(worker, seq, attempt))
    assert got + [each for output in outputs for each in output] == [n * 10 for n in range(20)]


class Refuses:
    def __init__(self):
        raise LookupError("no such table")


def test_steps_that_cannot_be_built_end_the_run_with_their_own_error():
    hub, crew = hub_over(range(20), per_worker(Refuses))
    got, error = results(hub)
    assert (got, type(error), str(error)) == ([], LookupError, "no such table")
    assert crew.closed


class NoRoom(CrewHere):
    """The system gives no more than so many workers."""

    room = 1

    def start(self, worker, lane):
        if len(self.workers) < self.room:
            super().start(worker, lane)
        else:
            self.told.append(StartFailed(worker, OSError("no memory")))


def test_fewer_workers_than_asked_for_do_the_work():
    hub, _ = hub_over(range(20), ten_times, crew=NoRoom([(as_step(ten_times),)]), workers=3)
    assert results(hub) == ([n * 10 for n in range(20)], None)
    assert hub._meter.reasons[-1].startswith("fewer workers than asked for")


def test_a_run_that_gets_no_worker_says_so():
    crew = NoRoom([(as_step(ten_times),)])
    crew.room = 0
    hub, _ = hub_over(range(20), ten_times, crew=crew)
    got, error = results(hub)
    assert (got, type(error)) == ([], WorkersCannotStart)
    assert "no memory" in str(error)


class DiesAtOnce(CrewHere):
    def wait(self, seconds):
        told = super().wait(seconds)
        for each in told:
            if type(each) is Ready:
                self.die(each.worker)
        return told


def test_workers_that_die_before_they_take_a_record_end_the_run():
    hub, _ = hub_over(iter(()), ten_times, crew=DiesAtOnce([(as_step(ten_times),)]))
    hub._reader.read = hub._reader.read_part = lambda *_, **__: []  # a source that has nothing yet
    got, error = results(hub)
    assert (got, type(error)) == ([], WorkersCannotStart)


@given(st.integers(1, 50), st.integers(1, 40))
def test_never_more_records_are_under_way_than_the_window_allows(window, records):
    taken, most = 0, 0

    def source():
        nonlocal most
        for n in range(records):
            most = max(most, n + 1 - taken)
            yield n

    hub, _ = hub_over(source(), ten_times, window=window)
    for output in hub.outputs(lambda complete: hub.close()):
        taken += len(output)
    assert taken == records
    assert most <= window + 1


def test_a_hub_that_is_left_ends_with_what_is_under_way():
    hub, crew = hub_over(range(10_000), ten_times, batch_size=5)
    got = []
    for output in hub.outputs(lambda complete: hub.close()):
        got += output
        hub.leave()
    assert got == [n * 10 for n in range(len(got))]
    assert len(got) < 10_000
    assert crew.closed


def test_a_clock_that_stands_still_does_not_matter_where_all_goes_well():
    hub, crew = hub_over(range(100), ten_times, crew=CrewHere([(as_step(ten_times),)], clock=Clock()))
    assert results(hub) == ([n * 10 for n in range(100)], None)
    assert crew.clock.now == 0
