"""What a plan says of machines elsewhere, by costs that are made up."""

from __future__ import annotations

import pytest

from taktline import step
from taktline._planner import advise as advise_module
from taktline._planner.advise import Failures, Plan, Tried, advise
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._planner.machines import on_machines
from taktline._recipe.steps import as_step


@pytest.fixture(autouse=True)
def few_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a line would do here on 64 cores takes long to be simulated, and is no matter."""
    monkeypatch.setattr(advise_module, "CORES", (1, 2))


def works(n: int) -> int:
    return n


def planned(ns: float, sizes: list[int], *steps: object, records: int = 100_000, workers: int | None = None) -> Plan:
    """For steps that take so long a record."""
    made = tuple(map(as_step, steps or (works,)))
    costs = Costs(
        (1,), 0, tuple(StepCost(each.name, (ns,)) for each in made), tuple(Move(500, 500, 10) for _ in range(len(made) + 1)),
        ns * len(made), Ways(),
    )  # fmt: skip
    tried = Tried("test", made, costs, records, 1, 1, False, Failures(), "")
    here = advise(tried, cores=2, workers=2, window=None, memory=1 << 30)
    return on_machines(
        here, tried, sizes, says="ray(head:6379)", workers=workers, how="auto", batch_size=None, window=None, memory=1 << 30
    )  # fmt: skip


def test_it_tells_the_time_there_and_on_more_such_nodes_until_the_hub_is_next():
    plan = planned(1e5, [4] * 4, records=10_000_000)
    assert (plan.how, plan.workers) == ("line", 16)
    assert [each.machines for each in plan.machines] == [4, 8, 16, 32]
    assert plan.machines[1].seconds < plan.seconds == plan.machines[0].seconds < 1_000 / 8
    assert plan.machines[-1].bottleneck == "hub"
    assert "nodes    4 nodes of 4 cores: about" in str(plan)
    assert "then the hub" in str(plan)


def test_where_one_machine_is_as_fast_it_says_so():
    assert any("one machine is enough" in reason for reason in planned(1e3, [4] * 4, workers=16).reasons)
    assert not any("one machine is enough" in reason for reason in planned(1e7, [4] * 4, workers=16).reasons)


def test_workers_that_were_asked_for_are_planned_for():
    plan = planned(1e6, [4] * 4, workers=4)
    assert [each.workers for each in plan.machines] == [4]
    assert plan.seconds > 100 / 4


def test_batches_are_longer_for_more_workers_than_one_process_could_pass_short_ones_on_to():
    short, long = (planned(1e6, [16] * nodes, records=1_000_000, workers=16 * nodes).batch_size for nodes in (1, 40))
    assert (short, long) == (pytest.approx(150, abs=1), pytest.approx(640, abs=1))  # of records that take a millisecond


@pytest.mark.parametrize(
    ("workers", "says"), [(1, "has 1 worker with 1 GPU: batches"), (2, "has 2 workers with 1 GPU each: ")]
)
def test_a_step_where_its_resource_is_is_shown_with_its_way(workers, says):
    plan = planned(1e6, [8, 8], works, step(abs, workers=workers, resources={"GPU": 1}), records=500)
    assert plan.segments == (("works",), ("abs",))
    assert any(says in reason and "2.0 µs/rec" in reason for reason in plan.reasons)


def test_without_a_record_that_came_through_nothing_is_said_of_machines():
    made = (as_step(works),)
    costs = Costs((), 0, (StepCost("works", ()),), (Move(), Move()), 0, Ways())
    tried = Tried("test", made, costs, 0, 0, 0, False, Failures(), "")
    here = advise(tried, cores=2, workers=2, window=None, memory=1 << 30)
    plan = on_machines(
        here, tried, [1], says="there", workers=None, how="auto", batch_size=None, window=None, memory=1 << 30
    )
    assert not plan.machines
