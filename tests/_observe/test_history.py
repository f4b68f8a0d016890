"""What is kept of a run over time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taktline._observe.history import CELLS, IDLE, MARKS, SAMPLES, History


def test_a_batch_that_was_longer_at_work_than_the_run_lasts_begins_with_it():
    """Steps that wait have many records at once, and their times are added up."""
    history = History()
    history.worked(0, -40.0, 0.5, 0)
    ((worker, cells),) = history.rows(1.0, [[1.0]])
    busy = [cell != IDLE for cell in cells]
    assert worker == 0
    assert busy == sorted(busy, reverse=True)
    assert (busy[0], busy[-1]) == (True, False)


def test_who_had_work_is_shown_however_short_it_was():
    history = History()
    history.worked(0, 0.0100301, 0.0100302, 0)  # between the middles of two cells
    history.worked(1, 0.0199998, 0.0199999, 0)  # at the very end
    assert [(worker, cells.count(0)) for worker, cells in history.rows(0.02, [[1.0]])] == [(0, 1), (1, 1)]


def test_the_history_of_a_long_run_is_bounded():
    history = History()
    for n in range(40_000):
        history.point(n * 0.25, n, n, 2, 10, 1_000, 0)
        history.worked(n % 3, n * 0.25, n * 0.25 + 0.2, 0)
        history.mark(n * 0.25, "died", "of it")
    told = history.to_dict(10_000.0, [[3.0, 1.0]])
    assert SAMPLES / 2 <= len(told["points"]) <= SAMPLES + 1
    assert len(told["marks"]) == MARKS
    assert told["more_marks"] == 40_000 - MARKS
    assert [worker for worker, _ in told["rows"]] == [0, 1, 2]
    for _, runs in told["rows"]:
        assert CELLS / 2 <= sum(count for _, count in runs) <= CELLS


def test_a_cell_tells_which_step_was_at_work_in_its_middle():
    history = History()
    history.worked(None, 0.0, 0.1, 0)  # three quarters of it in the first of two steps
    history.worked(0, 0.05, 0.1, 1)
    (_, here), (_, worker) = history.rows(0.1, [[3.0, 1.0], [1.0]])
    assert here == [0] * 75 + [1] * 25
    assert worker == [-1] * 50 + [2] * 50


def test_the_last_figures_are_kept_however_soon_they_come():
    history = History()
    history.point(0.0, 1)
    history.point(0.1, 2)  # too soon after the one before
    history.last(0.1, 3)
    history.last(0.1, 4)  # the end comes once
    assert history.to_dict(0.1, [])["points"] == [[0.0, 1], [0.1, 3]]


def test_a_worker_of_steps_that_the_run_has_left_has_a_row_without_them():
    history = History()
    history.worked(0, 0.0, 0.01, 3)
    assert history.rows(0.01, [[1.0]]) == [(0, [IDLE] * 10)]


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30), st.floats(0.001, 1e3))
def test_a_batch_is_at_its_steps_in_their_order_each_for_its_share(shares, seconds):
    history = History()
    history.worked(None, 0.0, seconds, 0)
    ((_, cells),) = history.rows(seconds, [shares])
    work = [cell for cell in cells if cell != IDLE]
    assert work == sorted(work)
    assert len(cells) - len(work) <= 1  # the last one, whose middle lies behind the end
    whole = sum(shares) or len(shares)
    for n, share in enumerate(shares if any(shares) else [1.0] * len(shares)):
        assert abs(work.count(n) - len(work) * share / whole) <= 2
