"""auto moves to workers and comes back, as often as it decides so, and the results do not show where they were made."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from itertools import chain, repeat

import pytest
from hanging import cancelled_once_hanging

import taktline
from taktline import batch, expand, keep, line, per_worker, serial
from taktline._planner import choose
from taktline._run import auto, hub, loop, returning
from taktline._run import overlap as overlapping

SOURCES = {"with a length": range, "without one": lambda count: (n for n in range(count))}
FLOWS = {
    "one to one": line(lambda n: n * 2, str),
    "with steps that drop and multiply": line(keep(lambda n: n % 7), expand(lambda n: [n, -n]), str),
}


@pytest.fixture
def decisions(monkeypatch):
    """Scripted decisions: whether to move, in turn, and how many looks later to come back."""

    def script(moves, back_after):
        moves = chain(moves, repeat(False))

        def decide(sample, **how):
            move = next(moves)
            return choose.Choice(move, True, "as the script says")

        def pays(self, meter):
            self.looks = getattr(self, "looks", 0) + 1
            return self.looks == back_after

        monkeypatch.setattr(loop.choose, "choose", decide)
        monkeypatch.setattr(auto.Auto, "_forks", lambda self: True)  # one decision each time
        monkeypatch.setattr(returning.Returning, "pays", pays)
        monkeypatch.setattr(hub.Hub, "ready", ready_at_once)

    ready = hub.Hub.ready

    def ready_at_once(self):
        while not ready(self):  # else all is done in the loop before they are
            pass
        return True

    return script


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_there_and_back_again_gives_the_loops_results(decisions, flow, source):
    decisions([True, False], back_after=3)
    run = flow(source(60_000), workers=2, window=200)
    assert list(run) == list(flow(range(60_000), how="loop"))
    report = run.report
    assert (report.how, report.workers) == ("loop", 0)
    assert any("back to the loop" in each for each in report.reasons)
    assert (report.records_in, report.steps[0].records) == (60_000, 60_000)
    assert report.complete


def test_after_coming_back_it_may_move_again(decisions):
    decisions([True, True, False], back_after=2)
    run = line(str)(range(60_000), workers=2, window=200)
    assert list(run) == list(map(str, range(60_000)))
    assert sum("back to the loop" in each for each in run.report.reasons) == 2


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_work_that_gets_dearer_is_thought_over_in_the_loop(monkeypatch, source):
    """The lots that are timed say that a record costs a hundred times as much as when it was decided."""
    monkeypatch.setattr(loop, "LOOK", 0.0)
    decided = []

    def decide(sample, **how):
        decided.append(sample.work)
        return choose.Choice(False, True, "stay")

    monkeypatch.setattr(loop.choose, "choose", decide)

    def work(n):
        for _ in range(1 if n < 50_000 else 3_000):
            pass
        return n

    assert list(line(work)(source(70_000), workers=2)) == list(range(70_000))
    assert decided[-1] > 3 * decided[0]


def test_an_error_after_coming_back_names_its_record(decisions):
    decisions([True, False], back_after=2)

    def check(n):
        if n == 59_000:
            raise ValueError(n)
        return n

    run = line(check)(range(60_000), workers=2, window=200)
    results = []
    with pytest.raises(ValueError) as caught:
        for result in run:
            results.append(result)
    assert results == list(range(59_000))
    assert "at record 59,000" in caught.value.__notes__[0]


class Unsendable:
    """What works here and cannot be pickled."""

    def __init__(self, n):
        self.n = n

    def __reduce__(self):
        raise TypeError(f"{self.n} stays where it is")


def number_of(record):
    return record.n if isinstance(record, Unsendable) else record


ODD = (300, 301, 5_000, 59_999)


@pytest.mark.parametrize(
    "steps", [(number_of,), (batch(lambda ns: [number_of(n) for n in ns], 7), str)], ids=["map", "batch"]
)
@pytest.mark.parametrize("source", ["list", "generator"])
def test_a_record_that_cannot_be_sent_to_a_worker_is_worked_on_here(decisions, source, steps):
    decisions([True] * 10, back_after=None)
    records = [Unsendable(n) if n in ODD else n for n in range(60_000)]
    flow = line(*steps)
    run = flow(records if source == "list" else (each for each in records), workers=2)
    assert list(run) == list(flow(records, how="loop"))
    assert not run.report.failures
    back = [reason for reason in run.report.reasons if "back to the loop at record" in reason]
    assert back
    assert all("cannot be sent to a worker" in reason and "stays where it is" in reason for reason in back)


def test_where_the_hub_cannot_be_loaded_all_is_done_in_the_loop(decisions, monkeypatch):
    """As where no file descriptor is left."""
    decisions([True], back_after=None)
    monkeypatch.setitem(sys.modules, "taktline._run.hub", None)
    run = line(str)(range(60_000), workers=2)
    assert list(run) == list(map(str, range(60_000)))
    assert "stay with the loop: import of taktline._run.hub" in run.report.reasons[0]


def test_a_stream_that_has_moved_is_left_without_waiting_for_a_step(decisions, tmp_path):
    decisions([True], back_after=None)
    caller = os.getpid()

    def hang(n):
        if os.getpid() != caller:
            (tmp_path / str(os.getpid())).touch()
            time.sleep(600)
        return n

    async def main():
        async def all_results():
            async for _ in line(hang).stream(range(60_000), workers=2):
                pass

        await cancelled_once_hanging(all_results(), tmp_path)

    asyncio.run(main())
    assert not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(tmp_path))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_leaving_early_in_the_loop_counts_what_was_read(source):
    run = line(abs)(source(1_000_000), workers=2)
    for n in run:
        if n == 300_000:
            break
    run.close()
    assert 300_001 <= run.report.records_in <= 310_000


class Counters:
    """A meter whose counters are as they would be after so many seconds."""

    def __init__(self, records, elapsed, busy_ns, timed_ns, consuming=0.0):
        self.records_in, self.elapsed, self.consuming, self.reading = records, elapsed, consuming, 0.0
        numbers = (busy_ns, 0, 0, busy_ns, 0, [records], [records // 10], [timed_ns * records // 10])
        self.lanes = [type("Lane", (), {"totals": staticmethod(lambda: numbers)})]


@pytest.mark.parametrize(
    ("timed_ns", "consuming", "pays"),
    [(200, 0.0, True), (2_000_000, 0.0, False), (200, 0.99, False)],
    ids=["cheap steps", "dear steps", "the consumer has all the time"],
)
def test_coming_back_pays_where_steps_cost_less_than_the_way(timed_ns, consuming, pays):
    """A record took 5 µs of the run; what it takes in the loop differs."""
    look = returning.Returning()
    found = [look.pays(Counters(200_000 * n, 1.0 * n, 10**9 * n, timed_ns, consuming * n)) for n in range(1, 5)]
    assert found[-1] is pays


def test_coming_back_is_not_thought_of_before_each_step_was_timed():
    """A batch step is timed at each call, the dear step beside it at few batches."""

    class Beside(Counters):
        def __init__(self, records, elapsed, timed):
            super().__init__(records, elapsed, 10**9, 200)
            numbers = (10**9, 0, 0, 10**9, 0, [records] * 2, [timed, records], [50_000 * timed, 200 * records])
            self.lanes = [type("Lane", (), {"totals": staticmethod(lambda: numbers)})]

    look = returning.Returning()
    assert not any(look.pays(Beside(200_000 * n, 1.0 * n, 100 if n < 5 else 200)) for n in range(1, 9))


class Counted:
    """How many records there were, built in the run; closed once."""

    closed = 0

    def __init__(self):
        self.count = 0

    def __call__(self, n):
        self.count += 1
        return self.count, n

    def close(self):
        Counted.closed += 1


def test_the_state_of_a_serial_step_moves_with_the_run():
    Counted.closed = 0
    flow = line(serial(per_worker(Counted)), lambda both: (both[0], sum(range(20_000)) and both[1]))
    run = flow(range(8_000), workers=2)
    assert list(run) == [(n + 1, n) for n in range(8_000)]
    assert run.report.how == "line"
    assert Counted.closed == 1


def test_steps_of_the_loop_are_not_said_to_be_busy_longer_than_the_run():
    """The few records that are timed there are the first ones, and those are slow."""
    run = line(abs)(range(300_000), how="loop")
    assert sum(1 for _ in run) == 300_000
    assert sum(each.busy for each in run.report.steps) < run.report.seconds


# --- threads ---


def costs_something(n):
    return sum(range(n % 7 + 2_000)) * 0 + n


@pytest.fixture
def overlap(monkeypatch):
    """Scripted: how far two threads overlap; and each run is long enough to see it. Gives how often that was asked for."""
    asked = []

    def script(times):
        def of(self, sample):
            asked.append(self.records)
            return times

        monkeypatch.setattr(overlapping.Overlap, "of", of)
        return asked

    monkeypatch.setattr(choose, "TRY", 0.0)
    monkeypatch.setattr(choose, "CALL_NS", 0)
    return script


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("start", ["auto", "threads"])
def test_threads_are_taken_where_two_of_them_overlap(overlap, source, start):
    overlap(1.9)
    run = line(costs_something)(source(6_000), workers=2, start=start)
    assert list(run) == list(range(6_000))
    assert (
        run.report.reasons[-1]
        == "move to 2 threads: two of them are 1.9 times as fast as the loop, and nothing is packed"
    )
    assert (run.report.workers, run.report.records_in, run.report.steps[0].records) == (2, 6_000, 6_000)


def test_what_was_tried_in_threads_counts_and_the_loop_goes_on_where_they_do_not_overlap(overlap):
    asked = overlap(1.0)
    run = line(costs_something)(range(6_000), workers=2, start="threads")
    assert list(run) == list(range(6_000))
    assert len(asked) == 1
    assert "two threads are 1.0 times as fast" in run.report.reasons[-1]
    assert run.report.workers == 0
    assert run.report.steps[0].records == 6_000


def test_a_record_that_fails_while_threads_are_tried_is_the_loops(overlap, monkeypatch):
    overlap(1.9)
    once = iter([choose.Sample(8, 0, 1e3, 1.0, 0, 0, 0, 0, 0)])
    monkeypatch.setattr(auto.Auto, "tries_threads", lambda self, lane: next(once, None))

    def inverse(n):
        return 1 / (300 - n)

    run, got = line(inverse)(range(6_000), workers=2), []
    with pytest.raises(ZeroDivisionError) as caught:
        got.extend(run)
    assert got == [1 / (300 - n) for n in range(300)]
    assert "at record 300" in caught.value.__notes__[0]


def test_a_step_that_cannot_be_built_in_a_thread_stays_in_the_loop(overlap):
    overlap(0.0)

    class Here:
        def __init__(self):
            assert threading.current_thread() is threading.main_thread()

        def __call__(self, n):
            return costs_something(n)

    run = line(per_worker(Here))(range(3_000), workers=2, start="threads")
    assert list(run) == list(range(3_000))
    assert run.report.workers == 0


TOTAL = []
LOCAL = threading.local()


def changes_a_global(n):
    TOTAL.append(n)
    return costs_something(n)


def has_its_own(n):
    LOCAL.n = n
    return costs_something(n)


def changes_a_default(n, seen=[]):  # noqa: B006
    seen.append(n)
    return costs_something(n)


class Counting:
    def __init__(self):
        self.count = 0

    def __call__(self, n):
        self.count += 1
        return costs_something(n)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (changes_a_global, {}), (has_its_own, {}), (changes_a_default, {}), (Counting(), {}), (serial(costs_something), {}),
        (taktline.step(costs_something, timeout=60), {}), (taktline.step(costs_something, tasks=2), {}),
        (costs_something, {"seed": 1}), (costs_something, {"on_error": "skip"}), (costs_something, {"recycle": 9_000}),
        (costs_something, {"window": 1}),
    ],
)  # fmt: skip
def test_auto_takes_no_threads_where_something_else_is_promised(overlap, step, options):
    asked = overlap(1.9)
    assert list(line(step)(range(4_000), workers=2, **options)) == list(range(4_000))
    assert asked == []


def test_auto_takes_no_threads_with_a_journal_or_dead_letters(overlap, tmp_path):
    asked = overlap(1.9)
    for option, name in (("journal", "a.journal"), ("dead_letters", "letters.jsonl")):
        assert list(line(costs_something)(range(2_000), workers=2, **{option: tmp_path / name})) == list(range(2_000))
    assert asked == []
