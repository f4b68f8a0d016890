"""The verdict on figures whose bottleneck is known, and on a few real runs where it is off by an order of magnitude."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taktline import line, serial
from taktline._observe.snapshot import StepCount
from taktline._observe.verdict import Group, Spent, judge, what_if
from taktline.abc import Live

NAMES = ("parse", "enrich", "score", "store")


def steps(*busy: float, waiting=0.0, blocked=0.0, records=10_000) -> list[StepCount]:
    return [
        StepCount(name, records, each, waiting / len(busy), blocked / len(busy), each * 1e9 / records)
        for name, each in zip(NAMES, busy, strict=False)
    ]


def spent(*busy: float, seconds=10.0, workers=2, cores=2, groups=None, waiting=0.0, **more) -> Spent:
    return Spent(
        more.pop("how", "line"), cores, seconds, 10_000, steps(*busy, waiting=waiting),
        groups or [Group(len(busy), workers)], workers_cpu=more.pop("workers_cpu", sum(busy)),
        batches=more.pop("batches", 1_000), **more,
    )  # fmt: skip


@pytest.mark.parametrize("at", range(4))
def test_each_step_in_turn_is_named(at):
    busy = [1.0] * 4
    busy[at] = 16.0
    verdict = judge(spent(*busy))
    assert verdict.bottleneck == NAMES[at]
    assert f"{NAMES[at]!r} takes 84% of the busy time" in verdict.evidence
    assert verdict.gain == pytest.approx(2, rel=0.1)


def test_a_run_that_ended_with_its_first_records_under_way_had_something_to_do():
    assert judge(spent(0.0, 0.0, complete=False)).evidence == "It ended before a record was done."
    assert judge(spent(0.0, 0.0)).evidence == "There was nothing to do."


def test_more_workers_are_advised_where_cores_are_free():
    verdict = judge(spent(19.0, cores=8, reading=0.5, handling=1.0))
    assert "workers=8" in verdict.action
    assert verdict.gain == pytest.approx(10 / (0.5 + 19 / 8), rel=0.1)
    assert verdict.next == "hub"


def test_more_cores_are_advised_where_none_is_free():
    verdict = judge(spent(9.0, 9.0, reading=0.2, handling=0.8))
    assert "4 cores take about 5" in verdict.action
    assert verdict.gain == pytest.approx(1.9, abs=0.15)


def test_pythons_lock_where_threads_take_turns():
    verdict = judge(spent(19.0, within=True, workers_cpu=9.5))
    assert verdict.bottleneck == "Python's lock"
    assert 'start="launch"' in verdict.action
    assert verdict.gain == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    "figures", [{"within": True, "workers_cpu": 18.5}, {"within": True, "workers_cpu": 1.0}, {"workers_cpu": 9.5}]
)
def test_threads_that_overlap_or_wait_and_processes_have_no_lock(figures):
    assert judge(spent(19.0, **figures)).bottleneck != "Python's lock"


def test_the_source():
    verdict = judge(spent(2.0, reading=9.5, handling=0.2, waiting=17.0))
    assert verdict.bottleneck == "source"
    assert "wait 85%" in verdict.evidence
    assert verdict.gain == pytest.approx(10 / 1.3, rel=0.1)
    assert judge(spent(2.0, workers=0, reading=7.5)).bottleneck == "source"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_live_source_that_gives_no_more_is_nobodys_fault(workers):
    verdict = judge(spent(0.5, workers=workers, reading=9.0, live=True))
    assert verdict.bottleneck == "source"
    assert "nothing to do" in verdict.evidence
    assert "faster" not in str(verdict)
    assert "nothing to do" not in judge(spent(16.0, workers=workers, reading=9.0, live=True)).evidence
    assert "nothing to do" not in judge(spent(0.5, workers=workers, reading=9.0)).evidence


def test_the_sink():
    verdict = judge(spent(4.0, consuming=9.0, handling=0.3))
    assert verdict.bottleneck == "sink"
    assert verdict.gain == pytest.approx(10 / 2.7, rel=0.1)
    assert judge(spent(1.0, workers=0, how="loop")).bottleneck == "sink"


def test_the_hub_and_that_the_loop_would_be_faster():
    verdict = judge(spent(4.0, handling=9.0))
    assert verdict.bottleneck == "hub"
    assert 'how="loop"' in verdict.action
    assert verdict.gain == pytest.approx(2.5, rel=0.001)
    assert "Move less" in judge(spent(16.0, cores=8, workers=8, handling=9.0)).action


def test_a_step_in_the_callers_process():
    verdict = judge(spent(5.0, 9.0, groups=[Group(1, 2), Group(1, 0)], handling=9.3, workers_cpu=5.0))
    assert verdict.bottleneck == "enrich"
    assert "caller's process" in verdict.evidence
    assert verdict.gain == pytest.approx(10 / 5.6, rel=0.1)


def test_one_giant_record():
    verdict = judge(spent(9.0, longest=(6.0, 4711, 1), batches=200))
    assert verdict.bottleneck == "one giant record"
    assert "Record 4,711" in verdict.evidence
    assert verdict.gain == pytest.approx(10 / 4.5)


def test_the_start_up():
    verdict = judge(spent(0.05, seconds=0.2, start_up=0.15))
    assert verdict.bottleneck == "start-up"
    assert 'how="loop"' in verdict.action
    assert verdict.gain == pytest.approx(4)


def test_too_small_batches():
    verdict = judge(spent(4.0, handling=8.0, batches=100_000, batch_size=1))
    assert verdict.bottleneck == "too small batches"
    assert "batch_size" in verdict.action
    assert verdict.gain > 2
    assert 'how="line"' in judge(spent(4.0, handling=8.0, batches=100_000, how="pool")).action


def test_too_large_batches():
    verdict = judge(spent(10.0, batches=4, batch_size=2_500, longest=(2.6, 0, 2_500)))
    assert verdict.bottleneck == "too large batches"


def test_steps_that_start_threads_of_their_own():
    verdict = judge(spent(18.0, workers_cpu=36.0, cores=4))
    assert verdict.bottleneck == "threads in the steps"
    assert "OMP_NUM_THREADS" in verdict.action


def test_a_step_that_waits_should_have_many_records_under_way():
    verdict = judge(spent(19.0, workers_cpu=0.4))
    assert "tasks=64" in verdict.action
    assert verdict.gain > 10


def test_other_programs_that_have_the_cores_are_not_taken_for_waiting():
    verdict = judge(spent(19.0, workers_cpu=8.0, queued=11.0))
    assert verdict.bottleneck == "cores"
    assert "other programs" in verdict.evidence
    assert "too many for 2 cores" in judge(spent(19.0, workers=4, workers_cpu=9.0, queued=18.0, cores=2)).evidence


def test_a_line_of_two_groups_is_judged_by_each_groups_own_workers():
    verdict = judge(spent(9.0, 9.5, groups=[Group(1, 3), Group(1, 1)], cores=8))
    assert verdict.bottleneck == "enrich"


def test_balanced_is_a_verdict_too_and_so_is_nothing():
    assert judge(spent(12.0, handling=1.0)).bottleneck == "balance"
    assert judge(spent(seconds=0.0)).bottleneck == "nothing"


def test_the_loop_is_told_when_workers_pay_and_when_not():
    dear = judge(spent(10.0, workers=0, how="loop", cores=4))
    assert 'how="line"' in dear.action
    assert dear.gain == pytest.approx(10 / 2.7, rel=0.1)
    assert "Stay with the loop" in judge(spent(0.05, seconds=0.05, workers=0, how="loop")).action


def test_an_unfinished_run_predicts_nothing():
    assert judge(spent(19.0, complete=False)).gain is None


def test_in_one_process_a_cheaper_step_helps_where_there_is_one_core_or_the_planner_has_looked():
    for more in ({"how": "loop", "cores": 1}, {"how": "auto", "cores": 8}):
        verdict = judge(spent(8.0, 1.0, workers=0, **more))
        assert (verdict.bottleneck, verdict.next, verdict.gain) == ("parse", "enrich", None)
        assert verdict.action == "A cheaper 'parse' is what helps."


def test_a_giant_batch_is_named_by_its_records():
    verdict = judge(spent(9.0, longest=(6.0, 4_000, 100), batches=200))
    assert verdict.evidence.startswith("The batch of records 4,000 to 4,099 takes 6.00 s of the 10.0 s")


def test_nobody_is_sent_to_the_loop_with_tables_of_which_it_makes_one_a_row():
    verdict = judge(spent(0.05, seconds=0.2, start_up=0.15, tables=True))
    assert verdict.action.startswith('For so few records start no processes: start="threads" takes about')


@pytest.mark.parametrize(("forked", "says"), [(False, "Let workers be forked"), (True, "More records a run: ")])
def test_a_start_that_the_loop_would_not_save_is_advised_to_be_shorter_or_to_weigh_less(forked, says):
    verdict = judge(spent(12.0, start_up=6.0, forked=forked))
    assert (verdict.bottleneck, verdict.next) == ("start-up", "parse")
    assert verdict.action.startswith(says)
    assert verdict.gain == pytest.approx(10 / 4)


def test_a_start_in_a_run_that_is_balanced_otherwise_weighs_less_in_a_longer_one():
    verdict = judge(spent(8.0, start_up=2.0))
    assert verdict.bottleneck == "start-up"
    assert verdict.action == "Balanced otherwise: it weighs less in a longer run."


SMALL = {"handling": 8.0, "batches": 100_000, "together": 1.5}


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (SMALL | {"window": 4}, "Leave window= out"),
        (SMALL, "Give more memory="),
        (SMALL | {"batch_size": 2}, "Leave batch_size out"),
        (SMALL | {"how": "queues"}, 'Take how="line"'),
    ],
)
def test_batches_that_are_too_small_are_told_what_made_them_so(figures, says):
    verdict = judge(spent(1.0, **figures))
    assert verdict.bottleneck == "too small batches"
    assert verdict.action.startswith(f"{says}, so that their size is set while running")


@pytest.mark.parametrize(
    "figures",
    [
        SMALL | {"reading": 9.0},  # the source is slow
        SMALL | {"batches": 1_000},  # there is work enough in each
        SMALL | {"batches": 10_000},  # what they cost does not show
        SMALL | {"handling": 2.0},  # the caller's process has time enough for them
        SMALL | {"together": 0.0},  # how large they were is not known
    ],
)
def test_batches_that_are_small_for_a_good_reason_are_no_fault(figures):
    assert judge(spent(1.0, **figures)).bottleneck != "too small batches"


def calls(*busy: float, size: int = 1_000, records: tuple[int, ...] = (10_000,), **more) -> Spent:
    """A step that takes so many records a call."""
    groups = [Group(len(busy), 2, sizes=(size,) * len(busy))]
    found = spent(*busy, groups=groups, **{"together": 10.0} | more)
    counted = [replace(step, records=count) for step, count in zip(found.steps, records, strict=False)]
    return found._replace(steps=[*counted, *found.steps[len(counted) :]])


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        (calls(9.0, how="pool"), 'how="line" fills its calls.'),
        (calls(9.0, batch_size=100), "Leave batch_size out: its calls are full then, of 1,000."),
        (calls(9.0, window=1_500), "A larger window fills its calls: window=4000."),
        (calls(9.0, together=1_000.0, records=(100,)), "Few records reach it: batch_size=100,000 fills its calls."),
        (calls(9.0), "So few came together: a source that waits for more, or a larger memory=, fills its calls."),
    ],
)
def test_calls_that_get_few_of_the_records_that_they_take_are_told_how_they_are_filled(figures, says):
    verdict = judge(figures)
    assert (verdict.bottleneck, verdict.next, verdict.gain) == ("too small batches", "parse", None)
    assert verdict.action == says
    assert (
        "'parse' takes 100% of the busy time, and got 10 records a call, of the 1,000 that it takes" in verdict.evidence
    )


@pytest.mark.parametrize(
    "figures",
    [
        calls(9.0, together=600.0),  # more than half full
        calls(9.0, size=6_000),  # of a source that has not as many
        calls(5.0, 5.0, 5.0, records=(10_000,) * 3),  # no step of them takes much of the time
        calls(9.0, size=0),
    ],
)
def test_calls_that_are_full_enough_or_matter_little_are_no_fault(figures):
    assert judge(figures).bottleneck != "too small batches"


def test_where_nothing_is_full_and_workers_had_no_core_that_is_why():
    verdict = judge(spent(10.0, queued=6.0))
    assert verdict.bottleneck == "cores"
    assert verdict.evidence.startswith("Nothing is busy all the time: the workers 50%")


@pytest.mark.parametrize(
    "figures",
    [
        {"seconds": 0.2},  # too short
        {"workers": 0, "how": "loop"},
        {"groups": [Group(1, 2, tasks=64)]},  # what waits is not faster on more cores
    ],
)
def test_of_other_machines_nothing_is_said_where_the_floors_do_not_tell(figures):
    assert what_if(spent(19.0, **figures)) == ()
    assert what_if(spent(0.0)) == ()


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=4), st.floats(0, 50), st.floats(0, 50), st.integers(1, 70)
)  # fmt: skip
def test_more_cores_never_take_longer_and_this_runs_own_take_what_it_took(busy, reading, handling, cores):
    seconds = max(1.0, sum(busy) / min(cores, 2) + reading + handling)
    found = what_if(spent(*busy, seconds=seconds, reading=reading, handling=handling, cores=cores))
    assert [each["cores"] for each in found] == sorted({1, 2, 4, 8, 16, 32, 64, cores})
    times = [each["seconds"] for each in found]
    assert times == sorted(times, reverse=True)
    (here,) = (each for each in found if each["here"])
    assert (here["cores"], here["seconds"]) == (cores, pytest.approx(seconds))


# --- real runs ---


@pytest.fixture
def alone(monkeypatch):
    """Other programs on this machine are no matter here."""
    monkeypatch.setattr("taktline._observe.cores.queued", lambda pids: 0.0)


def spin(n):
    for _ in range(n):
        pass
    return n


def bottleneck(flow, source, consume=None, **options) -> str:
    run = flow(source, **{"workers": 2, "how": "line", "start": "fork"} | options)
    if consume is None:
        deque(run, maxlen=0)
    else:
        for result in run:
            consume(result)
    return run.report.verdict.bottleneck


def slowly(records):
    for record in records:
        time.sleep(0.005)
        yield record


@pytest.mark.process
def test_a_real_slow_source(alone):
    assert bottleneck(line(abs), slowly(range(400))) == "source"


class Rare(Live):
    """A record a hundredth of a second, fifty times."""

    def __init__(self):
        self.left = 50

    def take(self, most, seconds):
        if not self.left:
            return None
        self.left -= 1
        time.sleep(0.01)
        return [self.left]

    def close(self):
        pass


@pytest.mark.process
@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_real_live_source(how):
    assert "the source gave no more" in line(abs).run(Rare(), how=how).verdict.evidence


@pytest.mark.process
def test_a_real_slow_sink(alone):
    assert bottleneck(line(abs), range(400), lambda _: time.sleep(0.005)) == "sink"


@pytest.mark.process
def test_a_real_step_in_the_callers_process(alone):
    def store(n):
        time.sleep(0.005)

    assert bottleneck(line(abs, serial(store)), range(400)) == "store"


@pytest.mark.process
def test_a_real_start_up(alone):
    assert bottleneck(line(abs), range(10), start="launch") == "start-up"


@pytest.mark.process
def test_a_real_step_that_waits(alone):
    def fetch(n):
        time.sleep(0.005)
        return n

    run = line(abs, fetch)(range(600), workers=2, how="line", start="fork")
    deque(run, maxlen=0)
    verdict = run.report.verdict
    assert verdict.bottleneck == "fetch"
    assert "tasks=64" in verdict.action


@pytest.mark.process
def test_a_real_giant_record(alone):
    assert bottleneck(line(spin), [100] * 50 + [40_000_000] + [100] * 50) == "one giant record"


def test_a_step_that_waits_is_not_told_to_wait_for_many_at_once_again():
    step = StepCount("fetch", 1_000, busy=9.8, waiting=0.1, blocked=0.0, ns_per_record=9.8e6)
    verdict = judge(Spent("line", 2, 10.0, 1_000, [step], [Group(1, 1, tasks=64)], workers_cpu=0.5))
    assert (verdict.bottleneck, "tasks=128" in verdict.action) == ("fetch", True)


def test_a_rate_that_holds_a_step_back_is_the_bottleneck():
    step = StepCount("fetch", 1_000, busy=9.8, waiting=0.1, blocked=0.0, ns_per_record=9.8e6)
    verdict = judge(Spent("line", 2, 10.0, 1_000, [step], [Group(1, 1, tasks=64, rate=100.0)], workers_cpu=0.5))
    assert "100 records a second" in verdict.evidence
    assert verdict.action == "A higher rate= is what would help."
