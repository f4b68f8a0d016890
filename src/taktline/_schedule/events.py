"""The whole protocol between the brain and the hands: what happened (events), what to do (actions).

A batch is known by `seq`, its place among the batches; a lane is the schedule's view of a segment, by its number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# --- events: what happened ---


class Begin(NamedTuple):
    """The run starts."""


class WorkerReady(NamedTuple):
    """This worker has its steps and waits for records."""

    worker: int


class Read(NamedTuple):
    """A batch was read from the source; it gets the next `seq`."""

    records: int
    size: int  # bytes it holds while it waits


class Exhausted(NamedTuple):
    """The source has no more records."""


class PartDone(NamedTuple):
    """Some of what comes of the batch went through the lane it is in, before the rest of it."""

    seq: int
    worker: int | None  # None: the caller's process
    size: int  # bytes of these results


class Work(NamedTuple):
    """What a batch was, for those who listen; the schedule has no use for it."""

    seconds: float  # in the steps
    first: int  # index of its first record
    records: int
    steps: tuple[tuple[str, float], ...]  # their names, and about which share of the time each took


class Done(NamedTuple):
    """The batch went through the lane it was in."""

    seq: int
    worker: int | None  # None: the caller's process
    size: int  # bytes of its results
    failed: bool  # it ends in a failure that ends the run
    work: Work | None = None  # where somebody listens


class BatchSpoiled(NamedTuple):
    """The batch came through the lane, but its bytes could not be read back as a whole."""

    seq: int
    worker: int
    unread: bool = (
        False  # it was a part of the source that could not be read there, and is read now: no value is suspect
    )


class Died(NamedTuple):
    """This worker has ended. `mark`: the batch and the record in it that it had begun, where it was told to say so."""

    worker: int
    mark: tuple[int, int] | None
    empty: bool = False  # its oldest batch has no record, or none any more
    cause: Any = None  # how it ended, as far as anybody needs it who condemns a record or gives up


class Overran(NamedTuple):
    """This worker was ended since the value at `mark` took longer than it may."""

    worker: int
    mark: tuple[int, int]  # the batch, and the value in it
    exact: bool  # it is known to be this value; else one of its batch
    tries: int  # how often a value may be tried
    cause: Any = None


class WorkerLost(NamedTuple):
    """This worker was given up, and may still be at work: what it had goes out again, and no record is to blame."""

    worker: int


class WorkerUnplaced(NamedTuple):
    """There is no place for this worker, or none any more: what it had goes out again, it gets nothing and nobody waits for
    it, until it is ready."""

    worker: int


class Worn(NamedTuple):
    """This worker has done enough: it gets no more, and is replaced once it is done with what it has."""

    worker: int


class Took(NamedTuple):
    """The consumer has taken all results of this batch and asks for more."""

    seq: int


class Moved(NamedTuple):
    """The run goes on in another way: for those who listen, not for the schedule."""

    how: str  # "workers" or "loop"
    why: str


# --- actions: what to do ---


class Start(NamedTuple):
    """Start this worker, for this lane."""

    worker: int
    lane: int


class Retire(NamedTuple):
    """End this worker, which has nothing to do; another one takes its place."""

    worker: int
    lane: int


class Send(NamedTuple):
    """Give the batch to the worker; `careful`: record by record, with a mark before each."""

    seq: int
    lane: int
    worker: int
    careful: bool


class RunHere(NamedTuple):
    """Run the batch through the lane in the caller's process."""

    seq: int
    lane: int


class Split(NamedTuple):
    """What came of the batch just now is a batch of its own, with no records of the source, before the rest of it."""

    seq: int
    part: int


class More(NamedTuple):
    """There is room for one more part of the batch."""

    seq: int
    lane: int
    worker: int | None  # None: the caller's process, which is to go on with it


class Stop(NamedTuple):
    """End this worker: it waits with a part for which there is no room before a batch that waits for this worker."""

    worker: int


class Condemn(NamedTuple):
    """This record of the batch is at fault: mark it as failed before the batch goes out again."""

    seq: int
    position: int
    cause: Any = None  # of the death that this is for


class Emit(NamedTuple):
    """Hand the results of the batch to the consumer."""

    seq: int


class Drop(NamedTuple):
    """The batch comes after the failure that ends the run: forget it."""

    seq: int


class GiveUp(NamedTuple):
    """Workers die again and again without any work done: end the run."""

    worker: int
    cause: Any = None  # of the last death


Event = (
    Begin | WorkerReady | Read | Exhausted | PartDone | Done | BatchSpoiled | Died | Overran | WorkerLost | WorkerUnplaced
    | Worn | Took
)  # fmt: skip
Action = Start | Retire | Send | RunHere | Split | More | Stop | Condemn | Emit | Drop | GiveUp
