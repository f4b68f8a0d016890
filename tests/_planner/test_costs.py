"""What was measured, and what of it is the caller's under a plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taktline import serial, step
from taktline._planner.costs import Costs, Move, StepCost
from taktline._recipe import plan as plans
from taktline._recipe.steps import as_step


def costs(*lots: tuple[int, float], **more: object) -> Costs:
    """One step, over lots of so many records that took so many nanoseconds each."""
    found = StepCost("s0", tuple(float(count * each) for count, each in lots))
    return Costs(tuple(count for count, _ in lots), 100.0, (found,), (Move(1, 2, 3), Move(4, 5, 6)), 0.0)._replace(
        **more
    )


def test_the_mean_is_that_of_records_and_the_spread_that_of_lots():
    even, uneven = costs((1, 100), (3, 100)), costs((2, 50), (2, 150))
    assert (even.records, even.mean_ns(0), even.spread(0)) == (4, 100.0, 0.0)
    assert (uneven.mean_ns(0), uneven.spread(0)) == (100.0, pytest.approx(0.5))


@pytest.mark.parametrize("found", [costs(), costs((5, 100)), costs((1, 0), (1, 0))])
def test_one_lot_or_none_and_steps_that_cost_nothing_have_no_spread(found):
    assert found.spread(0) == 0.0


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1e6)), min_size=1))
def test_the_mean_lies_between_the_cheapest_and_the_dearest_lot(lots):
    each = [ns for _, ns in lots]
    assert min(each) * 0.999 <= costs(*lots).mean_ns(0) <= max(each) * 1.001


def test_a_step_waits_where_most_of_its_time_is_not_the_processors():
    assert StepCost("s0", (1.0,), computing=0.49).waits
    assert not StepCost("s0", (1.0,), computing=0.5).waits


CUT, ENCODE = Move(7, 8, 9), Move(10, 11, 12)
KNOWN = costs((1, 100), cut=CUT, encode=ENCODE)


def test_what_workers_read_and_encode_is_not_the_callers():
    under = KNOWN.under(plans.line([as_step(abs)], 2))
    assert under.read_ns == CUT.pack_ns
    assert under.moves == (Move(0.0, KNOWN.read_ns, CUT.size), ENCODE)
    assert under.encode is None


@pytest.mark.parametrize(
    ("plan", "window", "read", "encoded"),
    [
        (plans.here([as_step(abs)]), None, False, False),
        (plans.pool([as_step(abs)], 2), None, False, True),  # batches of one record are read here
        (plans.line([as_step(abs)], 2), 10, False, True),  # and so are small ones
        (plans.line([as_step(abs), serial(abs)], 2), None, True, False),  # the last step is the caller's
        (plans.line([step(abs, tasks=8)], 2), None, True, False),  # who waits for many has no hand free
    ],
)
def test_the_rest_stays_with_the_caller(plan, window, read, encoded):
    under = KNOWN.under(plan, window)
    assert (under.read_ns != KNOWN.read_ns, under.encode is None) == (read, encoded)
    assert costs((1, 100)).under(plan, window) == costs((1, 100))
