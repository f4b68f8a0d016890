"""The choice of a technique, on numbers alone: workers where they are faster and there is time for them, else the loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taktline._planner.choose import (
    LAUNCHED,
    OVERLAP,
    OWN,
    WORTHWHILE_GAIN,
    Choice,
    Sample,
    choose,
    is_long,
    may_overlap,
    of_threads,
    reason_to_return,
    saved,
    start_up,
    without_the_hub,
)

NS = st.floats(1, 1e9)
SAMPLES = st.builds(
    Sample, records=st.integers(1, 10_000), read=NS, work=NS, computing=st.floats(0, 1), here=st.just(0.0), pack_in=NS,
    unpack_in=NS, pack_out=NS, unpack_out=NS,
)  # fmt: skip
DEAR = Sample(8, 50, 800_000, 1.0, 0, 500, 500, 500, 500)


@given(SAMPLES, st.integers(2, 64), st.integers(1, 64), st.none() | st.integers(0, 10**9), st.floats(0, 1e4))
def test_workers_are_started_only_where_they_save_time(sample, workers, cores, remaining, elapsed):
    choice = choose(sample, workers=workers, cores=cores, remaining=remaining, elapsed=elapsed)
    if choice.move:
        assert choice.gain >= WORTHWHILE_GAIN
        assert saved(sample, workers=workers, cores=cores, records=1_000) > 0
    else:
        assert choice.gain == 1.0
        assert choice.reason.startswith("stay with the loop: ")


def test_what_workers_save_is_what_the_loop_would_take_longer():
    """800 µs of work a record in two workers, 0.4 ms and what packing costs them, against 0.8 ms and reading."""
    assert saved(DEAR, workers=2, cores=2, records=10_000) == pytest.approx(10_000 * (800_050 - 401_065) / 1e9)
    assert saved(DEAR._replace(work=100.0), workers=2, cores=2, records=10_000) == 0.0
    choice = choose(DEAR, workers=2, cores=2, remaining=10**6, elapsed=0.0)
    assert (choice.move, round(choice.gain, 2)) == (True, 1.99)


@given(SAMPLES, st.integers(0, 10**9))
def test_who_came_back_from_workers_moves_less_easily(sample, remaining):
    given = {"workers": 2, "cores": 2, "remaining": remaining, "elapsed": 0.0}
    assert choose(sample, **given).move or not choose(sample, returns=3, **given).move


def test_what_speaks_against_workers_is_said():
    there = {"workers": 2, "cores": 2, "remaining": 10**6, "elapsed": 1.0}
    assert choose(DEAR, **there).move
    kept = choose(DEAR._replace(obstacle="a record cannot be sent"), **there)
    assert kept == Choice(False, True, "stay with the loop: a record cannot be sent")
    assert "one core" in choose(DEAR, **there | {"workers": 1}).reason
    assert choose(DEAR._replace(computing=0.0), **there | {"workers": 1}).reason.startswith(
        "stay with the loop: moving"
    )
    short = choose(DEAR, **there | {"remaining": 10}, what="table")
    assert (short.move, short.final, short.reason) == (
        False, True, "stay with the loop: 10 tables are done before workers have started",
    )  # fmt: skip


def test_as_long_as_nobody_knows_how_much_is_left_the_run_waits_as_long_as_a_start_takes():
    unknown = {"workers": 2, "cores": 2, "remaining": None}
    early = choose(DEAR, elapsed=LAUNCHED / 2, **unknown)
    assert (early.move, early.final) == (False, False)
    assert choose(DEAR, elapsed=LAUNCHED, **unknown).move
    assert choose(DEAR, elapsed=0.02, start_up=start_up(forks=True, modules=5_000), **unknown).move
    assert start_up(forks=False, modules=OWN + 400) > start_up(forks=False, modules=0) == LAUNCHED


def test_reading_and_writing_in_workers_costs_the_hub_nothing():
    sample = DEAR._replace(read=1_000.0)
    assert without_the_hub(sample, records=False, results=False) == sample
    read = without_the_hub(sample, records=True, results=False)
    assert (read.read, read.work, read.pack_in, read.unpack_in) == (0, 801_000, 0, 0)
    written = without_the_hub(sample, records=False, results=True)
    assert (written.pack_out, written.unpack_out, written.pack_in) == (0, 0, 500)
    assert sample.of_many(10).work == 10 * sample.work


@given(st.floats(0.1, 2.0), st.integers(2, 8), st.integers(1, 8))
def test_threads_are_taken_where_they_overlap_enough(overlap, workers, cores):
    choice = of_threads(overlap, Choice(False, True, "stay"), workers=workers, cores=cores)
    assert choice.threads == choice.move
    assert choice.move or overlap < OVERLAP or cores == 1
    assert not (choice.move and overlap < OVERLAP)


def test_threads_are_tried_in_runs_that_are_long_enough_for_it():
    assert is_long(DEAR, remaining=1_000, elapsed=0)
    assert not is_long(DEAR, remaining=10, elapsed=100)
    assert is_long(DEAR, remaining=None, elapsed=100)
    assert may_overlap(DEAR, call=1, workers=2, cores=2)
    assert not may_overlap(DEAR._replace(work=100.0), call=1, workers=2, cores=2)


def test_a_return_says_what_both_ways_cost():
    assert reason_to_return(1e6, 3e9) == "a record would cost 1 ms here, with workers it costs 3e+03 ms"
