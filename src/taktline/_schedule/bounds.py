"""How much may be under way in a run: batches in flight and at a worker, and what a batch may hold."""

from __future__ import annotations

from typing import NamedTuple

from taktline._schedule.machine import AHEAD
from taktline._schedule.window import Limits

BATCHES = 16  # batches in flight a worker at most: enough that one batch 10 times dearer than the rest stalls nobody
SMALL = 8  # records: batches below that may be quicker than the round trip to the hub
SINGLES = 8  # times as many such batches are under way, so that many cross in one system call


class Bounds(NamedTuple):
    """`ahead`: batches a worker holds. `most_bytes`: of one batch."""

    limits: Limits
    ahead: int
    most_bytes: int


def bounds(workers: int, *, batch_size: int | None, window: int | None, memory: int) -> Bounds:
    """The bounds of a run with so many workers; `memory` bytes may be in flight.

    >>> bounds(2, batch_size=None, window=None, memory=640_000)
    Bounds(limits=Limits(records=None, batches=32, size=640000), ahead=2, most_bytes=10000)
    """
    times = SINGLES if batch_size is not None and batch_size < SMALL else 1
    batches = BATCHES * workers * times
    return Bounds(Limits(window, batches, memory), AHEAD * times, max(1, memory // (batches * 2)))


def batch_records(room: int, wanted: int, *, window: int | None, workers: int) -> int:
    """Records to read for the next batch: what the controller wants, so that a window feeds all workers.

    >>> batch_records(100, 64, window=100, workers=2), batch_records(10, 64, window=None, workers=2)
    (25, 10)
    """
    size = min(room, wanted)
    return size if window is None else min(size, max(1, window // (2 * workers)))
