"""How much memory a run holds, looked at now and then."""

from __future__ import annotations

import os
from collections.abc import Iterable
from time import perf_counter

from taktline._observe import memory

LOOK = 1.0  # seconds between two looks
RARELY = 50  # at least so many times as long between them as one takes: a millisecond a process, 10 a gigabyte


class MemoryWatch:
    """Looks at memory as often as takes no more than its share of the run."""

    def __init__(self, began: float) -> None:
        self.held = self.peak = 0  # bytes
        self.next_look = began + LOOK  # by `perf_counter`
        self.affordable = 0.0  # from when on a look takes no more than that share

    def look(self, pids: Iterable[int]) -> None:
        """Note how much this process and those of the workers hold."""
        began, workers = perf_counter(), list(pids)
        self.held = memory.held([*workers, os.getpid()]) if workers else memory.held_here()
        self.peak = max(self.peak, self.held)
        ended = perf_counter()
        self.affordable = ended + RARELY * (ended - began)
        self.next_look = max(ended + LOOK, self.affordable)
