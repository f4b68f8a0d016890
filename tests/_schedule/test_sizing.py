"""The batch controller alone and on a simulated line: to its target soon, after changes too, within its limits always."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from taktline._schedule.sizing import AGAIN, BATCH_AIM, GROWTH, LEAST, MAX_BATCH_RECORDS, Calls, Sizing

COSTS = st.floats(1e-7, 1.0)  # seconds a record


def batches(sizing: Sizing, cost: float, count: int, *, flight: int = 1) -> list[int]:
    """The sizes of the next `count` batches where `flight` of them are always under way."""
    sizes: list[int] = []
    for at in range(count + flight):
        sizes.append(sizing.next())
        if at >= flight - 1:
            done = sizes[at - flight + 1]
            sizing.learn(done, done * cost, 0)
    return sizes[:count]


def target(cost: float) -> int:
    return max(1, min(MAX_BATCH_RECORDS, round(BATCH_AIM / cost)))


@given(COSTS, st.integers(1, 4))
def test_from_one_record_to_its_target_within_some_twenty_batches(cost, flight):
    sizes = batches(Sizing(), cost, 45, flight=flight)
    assert sizes[0] == 1  # so that the first result comes early
    # With several batches under way each size is sent so often before the first of them is back.
    soon = flight * (1 + math.ceil(math.log(target(cost), GROWTH)))
    assert soon <= 24 or target(cost) > 1_000
    assert all(abs(size - target(cost)) <= max(1, 0.02 * target(cost)) for size in sizes[soon:])


@given(COSTS, st.sampled_from([100.0, 0.01]), st.integers(1, 4))
def test_a_cost_that_changes_a_hundredfold_is_followed_within_some_twenty_batches(cost, times, flight):
    sizing = Sizing()
    batches(sizing, cost, 60, flight=flight)
    sizes = batches(sizing, cost * times, 20 + 10 * flight, flight=flight)
    assert target(cost * times) * 0.9 - 1 <= sizes[-1] <= target(cost * times) * 1.1 + 1


@given(st.lists(COSTS, min_size=1, max_size=60))
def test_no_batch_is_many_times_larger_than_the_one_before(costs):
    sizing, last = Sizing(), 1
    for cost in costs:
        size = sizing.next()
        assert size <= max(1, last * GROWTH)
        sizing.learn(size, size * cost, 0)
        last = size


@given(COSTS, st.integers(1, 100_000), st.integers(1, 10_000_000))
def test_a_batch_never_holds_more_than_it_may(cost, weight, most):
    """Bytes are known when a batch was read; so only the first batch, of one record, may be larger."""
    sizing = Sizing(most_bytes=most)
    for _ in range(30):
        size = sizing.next()
        assert size == 1 or size * weight <= most
        sizing.weigh(size, size * weight)
        sizing.learn(size, size * cost, 0)


@given(COSTS, st.integers(1, 3_000), st.integers(1, 16))
def test_the_last_batches_shrink_so_that_no_worker_runs_alone_for_long(cost, length, workers):
    sizing = Sizing()
    batches(sizing, cost, 50)
    remaining = length
    while remaining:
        size = min(remaining, sizing.next(remaining, workers))
        assert 1 <= size <= max(1, LEAST / cost, math.ceil(remaining / (2 * workers)))
        remaining -= size


@given(st.integers(1, 1_000), st.lists(COSTS, max_size=20))
def test_a_size_that_was_asked_for_is_kept(fixed, costs):
    sizing = Sizing(fixed)
    for cost in costs:
        sizing.learn(fixed, fixed * cost, 10)
    assert sizing.next(5, 2) == fixed


def test_batches_are_made_of_whole_lots_of_a_batch_step():
    sizing = Sizing(unit=64)
    sizes = batches(sizing, 1e-5, 20)
    assert sizes[-1] == 960
    assert sizing.next() % 64 == 0


def test_what_a_call_costs_and_what_a_record_costs_are_told_apart():
    """A call of 8 ms and 10 µs a record: so many records at once that the call is a small share of them."""
    sizing = Sizing()
    for _ in range(30):
        size = sizing.next()
        sizing.learn(size, 0.008 + size * 1e-5, 0)
        sizing.learn_calls(0, size, 0.008 + size * 1e-5)
    assert sizing.next() >= 0.008 / 1e-5


def test_batches_of_one_size_are_doubled_until_both_can_be_told():
    calls = Calls()
    calls.learn(100, 0.01)
    assert calls.wanted == 200
    calls.learn(100, 0.01)
    assert calls.wanted == 200
    for _ in range(AGAIN):  # now and then they are half as many, in case something has changed
        calls.learn(200, 0.011)
        calls.learn(400, 0.013)
    assert calls.wanted == 800
    calls.learn(200, 0.011)
    calls.learn(400, 0.013)
    assert calls.even == 900, "a call costs 9 ms, as much as 900 records of 10 µs"
