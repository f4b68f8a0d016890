"""The schedule alone: random lives of it, and the single decisions that they rest on."""

from __future__ import annotations

import random
import sys

import pytest

from faults.simulation import simulate
from taktline._schedule import events
from taktline._schedule.machine import BLAME, VAIN, Lane, Machine
from taktline._schedule.stall import LOOKS, Stall
from taktline._schedule.window import Limits, Window


# Other lives each time; `python3 dev.py simulate` does a million
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runs", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_random_event_orders_end_in_complete_ordered_output_or_the_defined_error(runs):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    totals = simulate(runs, seed)
    assert totals.deaths > runs / 2, "too few deaths to say anything"
    assert min(totals.overran, totals.stopped, totals.stalled) > runs / 100
    assert min(totals.losses, totals.withdrawn) > runs / 10
    assert totals.parts > runs / 10
    assert totals.stops, "no worker had to be stopped with a part: too few to say anything"
    assert totals.gave_up < runs / 100, "most runs must get to their end"


def test_a_record_that_kills_is_condemned_after_careful_deaths_only():
    machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    assert machine.on(events.Read(10, 10)) == [events.Send(0, 0, 0, False)]
    assert machine.on(events.Died(0, None)) == [events.Start(0, 0)]
    for death in range(BLAME):
        assert machine.on(events.WorkerReady(0)) == [events.Send(0, 0, 0, True)]
        actions = machine.on(events.Died(0, (0, 4)))
        assert (events.Condemn(0, 4) in actions) == (death == BLAME - 1)


def calls_a_batch(workers: int) -> float:
    """With all workers at work, and the one that comes back first the last one that was given something."""
    machine = Machine((Lane(workers),), Limits(None, 8 * workers, 1 << 40))
    machine.on(events.Begin())
    for worker in range(workers):
        machine.on(events.WorkerReady(worker))
    sent = [action for _ in range(2 * workers) for action in machine.on(events.Read(1, 1))]
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(400):
            send = sent.pop()
            for action in [*machine.on(events.Done(send.seq, send.worker, 1, False)), *machine.on(events.Read(1, 1))]:
                if isinstance(action, events.Emit):
                    machine.on(events.Took(action.seq))
                else:
                    sent.append(action)
    finally:
        sys.setprofile(None)
    return calls / 400


def test_a_batch_costs_as_much_with_two_thousand_workers_as_with_eight():
    few, many = calls_a_batch(8), calls_a_batch(2_048)
    assert many < 1.2 * few


def test_losses_blame_no_record_however_many_there_are():
    machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    machine.on(events.Read(10, 10))
    for _ in range(3):
        assert machine.on(events.WorkerLost(0)) == [events.Start(0, 0)]
        assert machine.on(events.WorkerReady(0)) == [events.Send(0, 0, 0, False)]
    machine.on(events.Died(0, None))
    machine.on(events.WorkerReady(0))
    machine.on(events.Died(0, (0, 4)))
    for _ in range(3):  # a careful batch stays careful, and no death is added
        assert machine.on(events.WorkerReady(0)) == [events.Send(0, 0, 0, True)]
        assert machine.on(events.WorkerLost(0)) == [events.Start(0, 0)]


def test_what_a_lost_worker_had_goes_to_another_one_at_once():
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    machine.on(events.WorkerReady(1))
    (sent,) = machine.on(events.Read(10, 10))
    assert machine.on(events.WorkerLost(sent.worker)) == [
        events.Start(sent.worker, 0),
        events.Send(0, 0, 1 - sent.worker, False),
    ]


def test_nobody_waits_for_a_worker_without_a_place():
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    assert machine.at_work
    assert machine.on(events.WorkerUnplaced(1)) == []
    assert not machine.at_work
    machine.on(events.WorkerReady(1))
    machine.on(events.WorkerLost(1))
    assert machine.at_work, "it is to be started again"


def test_a_record_over_its_time_is_condemned_at_once_where_it_is_known():
    for exact, condemned_at in ((True, 0), (False, 1)):
        machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
        machine.on(events.Begin())
        machine.on(events.WorkerReady(0))
        machine.on(events.Read(10, 10))
        for time in range(2):
            actions = machine.on(events.Overran(0, (0, 4), exact, 1))
            assert (events.Condemn(0, 4) in actions) == (time >= condemned_at)
            machine.on(events.WorkerReady(0))


def test_in_the_callers_process_nothing_is_run_behind_what_may_end_the_run():
    machine = Machine((Lane(1, 4), Lane(0)), Limits(None, 100, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    for _ in range(4):
        machine.on(events.Read(10, 10))
    for seq in (3, 2, 1):
        assert machine.on(events.Done(seq, 0, 10, False)) == []
    assert machine.on(events.Done(0, 0, 10, False)) == [events.RunHere(0, 1)]
    assert machine.on(events.Done(0, None, 0, False)) == [events.Emit(0), events.RunHere(1, 1)]
    assert machine.on(events.Done(1, None, 0, True)) == [events.Drop(2), events.Drop(3), events.Emit(1)]


def test_a_worker_that_has_done_enough_gets_no_more_and_is_replaced_once_it_has_nothing_left():
    machine = Machine((Lane(1),), Limits(None, 30, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    machine.on(events.Read(10, 10))
    assert machine.on(events.Worn(0)) == []
    assert machine.on(events.Read(10, 10)) == []
    assert machine.on(events.Done(0, 0, 1, False)) == [events.Emit(0), events.Retire(0, 0)]
    assert machine.on(events.WorkerReady(0)) == [events.Send(1, 0, 0, False)]
    machine.on(events.Exhausted())
    machine.on(events.Worn(0))
    assert machine.on(events.Done(1, 0, 1, False)) == [events.Emit(1)], "nothing is left to do for another one"


def test_workers_that_never_get_ready_end_the_run():
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    for _ in range(100):
        if events.GiveUp(0) in machine.on(events.Died(0, None)):
            return
    pytest.fail("respawned for ever")


@pytest.mark.parametrize("mark", [None, (0, 0)])
def test_workers_that_die_at_every_batch_without_a_record_end_the_run(mark):
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    actions = [*machine.on(events.Read(10, 10)), *machine.on(events.WorkerReady(0))]
    for _ in range(100):
        assert [type(action) for action in actions][-1] is events.Send
        actions = machine.on(events.Died(actions[-1].worker, mark, empty=True))
        if events.GiveUp(0) in actions:
            return
        actions += machine.on(events.WorkerReady(0))
    pytest.fail("sent for ever")


def test_records_that_kill_one_after_the_other_do_not_end_the_run():
    machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    actions = machine.on(events.Read(10, 10))
    for left in range(10, 0, -1):
        while events.Condemn(0, left - 1) not in actions:
            assert events.Send(0, 0, 0, actions[-1].careful) == actions[-1]
            actions = machine.on(events.Died(0, (0, left - 1)))
            actions += machine.on(events.WorkerReady(0))
    for _ in range(VAIN):  # what was found counts as done: now a worker may die in vain again
        assert actions[-1] == events.Send(0, 0, 0, True)
        actions = [*machine.on(events.Died(0, None, empty=True)), *machine.on(events.WorkerReady(0))]
    assert machine.on(events.Done(0, 0, 0, False)) == [events.Emit(0)]


def test_no_more_is_read_than_the_window_allows():
    machine = Machine((Lane(4),), Limits(10, 100, 1 << 40))
    machine.on(events.Begin())
    for worker in range(4):
        machine.on(events.WorkerReady(worker))
    read = 0
    while room := machine.room():
        machine.on(events.Read(min(room, 3), 3))
        read += min(room, 3)
    assert read <= 10


def test_behind_a_record_that_does_not_come_back_no_more_is_read_once_it_is_enough():
    machine = Machine((Lane(2),), Limits(None, 100, 1 << 40, enough=50))
    machine.on(events.Begin())
    for worker in range(2):
        machine.on(events.WorkerReady(worker))
    read = 0
    while machine.room():
        for action in machine.on(events.Read(7, 7)):
            if isinstance(action, events.Send) and action.seq:  # the first batch stays where it is
                machine.on(events.Done(action.seq, action.worker, 7, False))
        read += 7
    assert 50 <= read < 57


def test_a_worker_that_moves_is_never_stuck_however_slow_it_is():
    stall = Stall(80.0)
    for look in range(10 * LOOKS):
        assert not stall.stuck({0: "stays", 1: f"moved {look // (LOOKS - 1)} times"})


def test_a_clock_that_jumps_is_one_look_at_most():
    stall = Stall(80.0)
    assert stall.waited(1e9)
    assert not stall.waited(1.0)
    assert not Stall(None).waited(1e9)


def test_what_comes_back_begins_the_looks_anew():
    stall = Stall(80.0)
    for _ in range(LOOKS):
        assert not stall.stuck({0: "stays"})
    stall.done()
    for _ in range(LOOKS):
        assert not stall.stuck({0: "stays"})
    assert stall.stuck({0: "stays"})


def test_a_batch_that_was_given_up_holds_nobody_up():
    window = Window(Limits(10, 8, 1000), ordered=True)
    first, second = window.read(3, 30), window.read(3, 30)
    assert window.finish(second, 30) == []
    window.take(first)
    third = window.read(3, 30)
    assert window.finish(third, 30) == [second, third]


def test_the_number_of_the_next_batch_is_known_before_it_is_read():
    machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    assert machine.next_seq == 0
    assert machine.on(events.Read(10, 10)) == [events.Send(0, 0, 0, False)]
    assert machine.next_seq == 1


def test_what_is_behind_the_end_of_the_run_is_not_tried_again_where_it_cannot_be_read():
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.WorkerReady(0))
    machine.on(events.WorkerReady(1))
    (first,), (second,) = machine.on(events.Read(10, 10)), machine.on(events.Read(10, 10))
    assert machine.on(events.Done(first.seq, first.worker, 10, True)) == [events.Emit(0)]
    assert machine.on(events.BatchSpoiled(second.seq, second.worker)) == [events.Drop(1)]
