"""What a trial of the first records says they cost."""

from __future__ import annotations

import numpy as np

from taktline._recipe.options import Options
from taktline._recipe.steps import as_step
from taktline._run.trial import try_out


class Kept:
    """A source that holds what it gives, so that what goes to workers is copied first."""

    def __init__(self) -> None:
        self.some = [np.full(1 << 17, n) for n in range(5)]

    def __iter__(self):
        for n in range(40):
            yield self.some[n % 5]


def test_copies_for_workers_are_no_cost_of_reading_but_of_moving():
    costs = try_out((as_step(len),), "len", Kept(), 1, options=Options(progress=False)).costs
    assert 4 * costs.read_ns < costs.moves[0].pack_ns
