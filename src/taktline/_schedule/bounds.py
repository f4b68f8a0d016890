"""How much may be under way in a run: batches in flight and at a worker, and what a batch may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from taktline._schedule.machine import WORKER_BATCHES, Lane
from taktline._schedule.sizing import MAX_BATCH_RECORDS
from taktline._schedule.window import ENDLESS_CREDITS, Limits

if TYPE_CHECKING:
    from taktline._recipe.plan import RunPlan

BATCHES = 16  # batches in flight a worker at most: enough that one batch 10 times dearer than the rest stalls nobody
RECORDS = 4 * MAX_BATCH_RECORDS  # in flight a worker, where neither the window nor the size of batches was asked for
SMALL = 8  # records: batches below that may be quicker than the round trip to the hub
BATCH = 4 << 20  # bytes of a batch: larger ones save nothing more, and make the memory that they go through grow
# The same on the way to other machines, where each batch costs calls of the cluster: with half of it arrays of 1 MB took
# twice the processor time and twice as long; twice of it, a store of 80 MB could not hold what two nodes have under way.
FAR_BATCH = 8 << 20
PART = 32  # records: to say where fewer lie in a source, and to read them there, costs as much as sending them
SINGLES = 8  # times as many such batches are under way, so that many cross in one system call


class Bounds(NamedTuple):
    """`most_bytes`: of one batch."""

    limits: Limits
    lanes: tuple[Lane, ...]
    most_bytes: int


def bounds(
    segments: Sequence[tuple[int, int]], *, batch_size: int | None, window: int | None, memory: int, tables: bool = False,
    far: bool = False,
) -> Bounds:  # fmt: skip
    """The bounds of a run; `memory` bytes may be in flight. `segments`: for each its workers, and the records that each
    of them must have at once, also while batches are small. `tables`: batches are what the source keeps together, whatever
    their records: bytes are what counts. `far`: the way to workers is dear.

    >>> limits, lanes, most_bytes = bounds([(2, 0)], batch_size=None, window=None, memory=640_000)
    >>> limits, most_bytes
    (Limits(records=None, batches=32, size=640000, enough=131072), 10000)
    >>> lanes
    (Lane(workers=2, ahead=2),)
    """
    times = SINGLES if batch_size is not None and batch_size < SMALL else 1
    lanes = tuple(Lane(workers, max(WORKER_BATCHES * times, WORKER_BATCHES * records)) for workers, records in segments)
    batches = sum(workers * (BATCHES * times + WORKER_BATCHES * records) for workers, records in segments)
    enough = ENDLESS_CREDITS if batch_size or window or tables else RECORDS * sum(workers for workers, _ in segments)
    most_bytes = max(1, min(FAR_BATCH if far else BATCH, memory // (batches * 2)))
    return Bounds(Limits(window, batches, memory, enough), lanes, most_bytes)


def batch_records(room: int, wanted: int, *, window: int | None, workers: int) -> int:
    """Records to read for the next batch: what the controller wants, so that a window feeds all workers.

    >>> batch_records(100, 64, window=100, workers=2), batch_records(10, 64, window=None, workers=2)
    (25, 10)
    """
    size = min(room, wanted)
    return size if window is None else min(size, max(1, window // (2 * workers)))


def worth_splitting(plan: RunPlan, window: int | None) -> bool:
    """Whether workers come first, and batches can be so large that it saves something when they read the source.

    >>> from taktline._recipe import plan, steps
    >>> line = plan.line([steps.as_step(abs)], 2)
    >>> worth_splitting(line, None), worth_splitting(line, 100)
    (True, False)
    """
    if not plan.segments[0].workers:
        return False
    return batch_records(PART, plan.batch_size or PART, window=window, workers=plan.workers) == PART
