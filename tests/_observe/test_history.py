"""What is kept of a run over time."""

from __future__ import annotations

from taktline._observe.history import IDLE, History


def test_a_batch_that_was_longer_at_work_than_the_run_lasts_begins_with_it():
    """Steps that wait have many records at once, and their times are added up."""
    history = History()
    history.worked(0, -40.0, 0.5, 0)
    ((worker, cells),) = history.rows(1.0, [[1.0]])
    busy = [cell != IDLE for cell in cells]
    assert worker == 0
    assert busy == sorted(busy, reverse=True)
    assert (busy[0], busy[-1]) == (True, False)
