"""The what-if: never better than what cannot be beaten, right where the answer can be reckoned by hand, soon done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline import batch, serial
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._planner.whatif import predict
from taktline._recipe import plan as plans
from taktline._recipe.steps import as_step

FREE = Ways(start_up=0, ending=0, hub_batch_ns=0, hub_record_ns=0, worker_batch_ns=0, worker_memory=1e6)


def costs_of(*steps: float, read=0.0, move=0.0, computing=1.0, ways=FREE, lots=(1,) * 16) -> Costs:
    return Costs(
        lots, read, tuple(StepCost(f"s{n}", tuple(ns * c for c in lots), computing) for n, ns in enumerate(steps)),
        tuple(Move(move, move, 100) for _ in range(len(steps) + 1)), read + sum(steps), ways,
    )  # fmt: skip


def line_of(count: int, workers: int, how="line", **own):
    return getattr(plans, how)([as_step(abs)] * count, workers, **own)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("how", ["pool", "queues", "line"])
def test_no_prediction_beats_the_cores(how, cores):
    plan = line_of(2, cores, how)
    found = predict(costs_of(200_000, 800_000), plan, records=100_000, cores=cores)
    assert found.seconds >= 100 / cores * 0.999
    assert 0 < found.cpu_utilisation <= 1


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 64])
def test_a_million_dear_records_scale_with_the_cores(cores):
    found = predict(costs_of(1_000_000), line_of(1, cores), records=1_000_000, cores=cores)
    assert found.seconds == pytest.approx(1000 / cores, rel=0.02)
    assert found.bottleneck == "s0"


def test_a_long_run_takes_as_much_longer_as_it_has_more_records():
    """A run of 20,000 records is simulated whole, one of a million is mostly leapt over."""
    costs = costs_of(30_000, 20_000, read=200, move=500, ways=FREE._replace(hub_batch_ns=30_000))
    short, long = (predict(costs, line_of(2, 4), records=n, cores=4).seconds for n in (20_000, 1_000_000))
    assert long == pytest.approx(50 * short, rel=0.05)


@pytest.mark.parametrize(
    ("costs", "plan", "bottleneck"),
    [
        (costs_of(5_000, read=200_000), line_of(1, 2), "source"),
        (costs_of(5_000, move=100_000), line_of(1, 8), "hub"),
        (costs_of(1_000, 900_000, 1_000), line_of(3, 2), "s1"),
        (costs_of(900_000, 1_000), line_of(2, 2, "queues"), "s0"),
        (costs_of(1_000, ways=FREE._replace(start_up=60.0)), line_of(1, 2), "start-up"),
        (costs_of(1_000, 400_000), plans.line([as_step(abs), serial(abs)], 2), "s1"),
    ],
)
def test_the_bottleneck_is_the_one_that_was_built_in(costs, plan, bottleneck):
    assert predict(costs, plan, records=20_000, cores=8).bottleneck == bottleneck


def test_waiting_needs_no_core():
    waits = costs_of(1_000_000, computing=0.01)
    found = predict(waits, line_of(1, 8), records=10_000, cores=1)
    assert found.seconds < 10_000 * 0.001 / 7
    assert found.cpu_utilisation < 0.2


def test_processes_share_the_cores():
    alone, shared = (predict(costs_of(1_000_000), line_of(1, 8), records=8_000, cores=n).seconds for n in (8, 2))
    assert shared == pytest.approx(4 * alone, rel=0.05)


def test_the_tail_is_balanced():
    """The last batch of 10 ms must not keep seven workers waiting: half of that a worker is the most that is lost."""
    found = predict(costs_of(100_000), line_of(1, 8), records=5_000, cores=8)
    assert found.seconds - 5_000 * 0.0001 / 8 < 0.006


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize(("early", "late"), [(10_000, 1_000_000), (1_000_000, 10_000)])
def test_costs_that_change_a_hundredfold_half_way_are_followed(workers, early, late):
    half = 5_000
    costs = Costs(
        (1,) * (2 * half), 0.0, (StepCost("s0", (float(early),) * half + (float(late),) * half),), (Move(), Move()),
        (early + late) / 2, FREE,
    )  # fmt: skip
    floor = half * (early + late) / 1e9 / workers
    found = predict(costs, line_of(1, workers), records=2 * half, cores=workers)
    # The batches under way at the change were made for the old cost: each of the dear ones takes a second then.
    under_way = 1_000 * late / 1e9 if late > early else 0.01
    assert found.seconds <= floor * 1.02 + under_way * 2


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_the_first_result_comes_early(workers):
    assert predict(costs_of(100_000), line_of(1, workers), records=100_000, cores=workers).first_result < 0.001


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("memory", [1_000_000, 50_000_000])
def test_no_more_bytes_are_under_way_than_allowed(size, memory):
    costs = costs_of(1_000)._replace(moves=(Move(0, 0, size), Move(0, 0, size)), memory=0.0)
    found = predict(costs, line_of(1, 4), records=50_000, cores=4, memory=memory)
    held = (found.memory - 4 * FREE.worker_memory) / 2
    assert held <= memory + size * found.batch_size


def test_a_source_that_workers_read_costs_the_hub_only_where_its_records_lie():
    read = costs_of(5_000, read=200_000, move=20_000)
    cut = read._replace(cut=Move(1_000, 0, 100))
    here, there = (predict(costs, line_of(1, 8), records=20_000, cores=8) for costs in (read, cut))
    assert here.seconds == pytest.approx(20_000 * 240e-6, rel=0.02)  # to read, to pack, to unpack a result
    assert there.seconds == pytest.approx(20_000 * (225e-6 + 21e-6) / 8, rel=0.02)  # nine processes on eight cores
    assert (here.bottleneck, there.bottleneck) == ("source", "s0")


@pytest.mark.parametrize(
    ("plan", "more"),
    [
        (line_of(1, 8, "pool"), {}),
        (line_of(1, 8, "queues"), {}),
        (line_of(1, 8, batch_size=31), {}),
        (line_of(1, 8), {"window": 500}),
        (plans.line([serial(abs), as_step(abs)], 8), {}),
    ],
)
def test_what_no_run_lets_workers_read_is_read_by_the_hub(plan, more):
    steps = (5_000,) * sum(len(segment.steps) for segment in plan.segments)
    costs = costs_of(*steps, read=200_000)
    cut = costs._replace(cut=Move(1_000, 0, 100))
    assert predict(cut, plan, records=5_000, cores=8, **more) == predict(costs, plan, records=5_000, cores=8, **more)


def test_results_that_workers_encode_cost_the_hub_nothing():
    costs = costs_of(5_000, move=1_000)._replace(encode=Move(100_000, 0, 100))
    found = [predict(costs, line_of(1, n), records=20_000, cores=n).seconds for n in (1, 8)]
    assert found[1] == pytest.approx(20_000 * 106e-6 / 8, rel=0.02)
    loop = predict(costs, plans.here([as_step(abs)]), records=20_000, cores=8).seconds
    assert loop == pytest.approx(20_000 * 105e-6)
    here = predict(
        costs_of(5_000, 0, move=1_000)._replace(encode=Move(100_000, 0, 100)), plans.line([as_step(abs), serial(abs)], 8),
        records=20_000, cores=8,
    )  # fmt: skip
    assert here.seconds == pytest.approx(20_000 * 102e-6, rel=0.02)  # packed, unpacked, encoded


def test_uneven_records_take_the_time_of_their_mean():
    lots = (1,) * 50
    uneven = Costs(
        lots, 0.0, (StepCost("s0", tuple(1e6 if n == 0 else 1e4 for n in range(50))),), (Move(), Move()), 29_800, FREE
    )
    found = predict(uneven, line_of(1, 2), records=100_000, cores=2)
    assert found.seconds == pytest.approx(100_000 * 29.8e-6 / 2, rel=0.03)


def test_batches_have_the_size_that_the_controller_gives_them():
    assert 85 <= predict(costs_of(100_000), line_of(1, 2), records=100_000, cores=2).batch_size <= 100
    assert predict(costs_of(100_000), line_of(1, 2, "pool"), records=1_000, cores=2).batch_size == 1


def test_a_batch_step_pays_for_its_calls():
    step = StepCost("s0", (1000.0 * 100,), call_ns=1e6, alone_ns=1_001_000, size=100)
    costs = Costs((100,), 0.0, (step,), (Move(), Move()), 1_001_000, FREE)
    line = predict(costs, line_of(1, 1), records=100_000, cores=2)
    pool = predict(costs, line_of(1, 1, "pool"), records=100_000, cores=2)
    assert pool.seconds == pytest.approx(100.1, rel=0.02)
    assert line.seconds < pool.seconds / 20


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(10, 1e6), min_size=1, max_size=4), st.floats(0, 1e5), st.floats(0, 1e5),
    st.sampled_from(["pool", "queues", "line"]), st.integers(1, 16), st.integers(1, 16),
    st.one_of(st.none(), st.integers(1, 500)), st.integers(0, 10_000), st.floats(0.1, 1),
)  # fmt: skip
def test_every_prediction_ends_and_keeps_the_floors(steps, read, move, how, workers, cores, window, records, computing):
    costs = costs_of(*steps, read=read, move=move, computing=computing)
    found = predict(costs, line_of(len(steps), workers, how), records=records, cores=cores, window=window)
    hub = records * (read + 2 * move) / 1e9
    work = records * sum(steps) * computing / 1e9
    assert found.seconds >= max(hub, (hub + work) / cores) * 0.97
    assert found.memory >= costs.memory


@pytest.mark.parametrize("how", ["pool", "queues", "line"])
def test_records_that_come_in_tables_go_as_tables_whatever_the_technique(how):
    found = predict(costs_of(1_000)._replace(table=500), line_of(1, 2, how), records=20_000, cores=2)
    assert found.batch_size >= 500 if how == "line" else found.batch_size == 500


def test_a_batch_step_of_any_number_is_given_what_makes_its_calls_cheap():
    """A call of 10 ms, and a microsecond a record: with 10 ms of work a batch half of the time would be calls."""
    step = StepCost("s0", (1_000.0,) * 16, call_ns=1e7)
    costs = Costs((1,) * 16, 0.0, (step,), (Move(), Move()), 1e7, FREE)
    found = predict(costs, plans.line([batch(list)], 1), records=200_000, cores=2)
    assert found.batch_size > 9_000
    assert found.seconds < 1.0


def test_nothing_to_do_has_no_bottleneck():
    found = predict(costs_of(1_000), line_of(1, 2), records=0, cores=2)
    assert (found.seconds, found.cpu_utilisation, found.bottleneck) == (0.0, 0.0, "nothing")


def test_too_few_records_for_all_workers_leave_them_waiting():
    assert predict(costs_of(1e9), line_of(1, 8), records=9, cores=8).bottleneck == "waiting"
