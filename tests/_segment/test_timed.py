"""Which records are timed: some of all, wherever they stand."""

from __future__ import annotations

import sys

from taktline._recipe.steps import as_step
from taktline._segment.batch import Batch
from taktline._segment.segment import TIMED_EVERY, TIMED_RECORDS, Segment


def test_every_place_in_a_batch_is_timed_now_and_then():
    """Costs may have the rhythm of the batches: the first records alone would tell of them, and not of the others."""
    timed: list[int] = []

    def place(n):
        if sys._getframe(1).f_code.co_filename == "<taktline timed>":
            timed.append(n)
        return n

    segment = Segment([as_step(place)], goes_on=False)
    segment.make()
    for _ in range(TIMED_EVERY * 100):
        assert segment.run(Batch(list(range(100)))).values == list(range(100))
    assert set(timed) == set(range(100))
    assert segment.timed_records == [len(timed)] == [(100 + TIMED_EVERY - 1) * TIMED_RECORDS]
