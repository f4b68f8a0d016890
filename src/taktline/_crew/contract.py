"""What the hub knows of those who run its batches. A crew is told by its methods, none of which waits for a worker, and
is heard by `wait`.

Worker and batch numbers recur, so each answer carries the attempt that it belongs to, and whoever hears a late one drops
it. `README.md` beside this file walks through a batch, a death and an end, and says whose memory is whose until when.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from taktline._crew.protocol import PLAIN_ORDERS as PLAIN_ORDERS
from taktline._crew.protocol import Figures as Figures
from taktline._crew.protocol import Orders as Orders
from taktline._segment.batch import Batch as Batch
from taktline._segment.batch import Failure as Failure
from taktline._segment.values import Encode as Encode


class WorkerPlace(NamedTuple):
    """A value on its way through a segment: `position` in its batch as the worker got it, None where it may be any."""

    seq: int
    position: int | None
    step: int
    deadline_ns: int = 0  # on the worker's clock; 0: none


# --- what is heard ---


def closes_too_long(seconds: float, then: str) -> TimeoutError:
    """What is told where `close()` of what was built for a worker does not come to its end; `then`: what became of it."""
    return TimeoutError(
        f"close() of what per_worker() has built took longer than {seconds:g} s, and its {then}; allow more time by stall="
    )


NOBODY = -1  # in the place of a worker that was told to end: another one may have its number by now


class Ready(NamedTuple):
    """This worker has its steps and waits for batches."""

    worker: int


class StartFailed(NamedTuple):
    """This worker cannot be started: an OSError where the system gives no more, or what else ends the run."""

    worker: int
    error: Exception


class Broken(NamedTuple):
    """This worker has started and cannot work: no other would, either."""

    worker: int
    error: BaseException


class Came(NamedTuple):
    """What came of a batch; with `last` all of it, else some of it before the rest. The batch is the hearer's own, whatever
    becomes of the worker. `newest`: of a part, the last result, packed, where it is known."""

    worker: int
    seq: int
    attempt: int
    batch: Batch
    size: int  # bytes that it took on the way
    figures: Figures
    last: bool = True
    newest: bytes | None = None


class Spoiled(NamedTuple):
    """A batch could not be read back as a whole; it may be run again, carefully. `there`: the worker could not, and not this
    process what came of it."""

    worker: int
    seq: int
    attempt: int
    there: bool = False


class Ended(NamedTuple):
    """This worker is no more, whatever it had. `place`: the value it was at, where that is known. `overdue`: it was ended
    since a value took longer than it may, and `exact`, that is the one it was at to the end."""

    worker: int
    code: int | None
    place: WorkerPlace | None = None
    overdue: bool = False
    exact: bool = False
    stack: str = ""  # where it crashed


class Lost(NamedTuple):
    """This worker was given up, such as with its machine: it may still be at work, and nothing more is heard of it. What
    it had goes to others, and no record is to blame."""

    worker: int
    why: str = ""


class Withdrawn(NamedTuple):
    """There is no place for this worker now, such as where its machine had nothing to do and was let go: what it may have
    goes to others. The crew starts it by itself once there is one; `Ready` follows then."""

    worker: int


class Blind(NamedTuple):
    """A machine, in the words of `where`, does not have what parts of the source name. Its `worker` is NOBODY."""

    worker: int
    where: str


Heard = Ready | StartFailed | Broken | Came | Spoiled | Ended | Lost | Withdrawn | Blind


# --- who is told ---


class WorkerState(NamedTuple):
    """What is to be told of a worker that seems to hang."""

    pid: int
    state: str  # what the system says of it, where that is worth telling
    stack: str


class Crew(ABC):
    """Workers, each with the steps of one lane, that are reached by their numbers.

    A worker may end at any moment. What it is told then is lost, until its `Ended` is heard; so nobody need ask first."""

    batch_seconds = 0.0  # of work a batch, at least, where the way to a worker is dear; 0: it costs next to nothing
    isolates = (
        True  # each worker has a process of its own: it can be ended at any moment, and shares nothing that it has
    )
    forks = False  # workers are copies of this process
    why = ""  # they are started in this way, where that was left open
    doubts = ""  # why the way that was asked for may not work
    closing = 1.0  # seconds that workers which are to end may take to close what was built for them; the hub sets it
    seconds = 0.0  # that it has spent on batches in the caller's process, so far

    @abstractmethod
    def start(self, worker: int, lane: int) -> None:
        """Start a worker; `Ready`, `StartFailed` or `Broken` follows, unless it ends before or is `Lost`. Where there is no
        place for it `Withdrawn` comes first."""

    @abstractmethod
    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        """Have a batch as it will be sent to this lane: its size is known then, and nothing that happens in the caller's
        process changes it any more. What cannot be sent fails. `apart`: each value by itself, so that one can be taken
        out without the others being looked at."""

    @abstractmethod
    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        """Give a batch to a worker; it is sent with the next `wait` at the latest. `Came` or `Spoiled` follows, unless the
        worker ends before."""

    @abstractmethod
    def more(self, worker: int, seq: int) -> None:
        """One more part of this batch may come: a worker is two ahead at most."""

    @abstractmethod
    def end(self, worker: int) -> None:
        """Let a worker that has nothing to do end in its own time. Its number is free at once; nothing is heard of it any
        more, but what `wait` has told already."""

    @abstractmethod
    def kill(self, worker: int) -> None:
        """End a worker now; `Ended` follows."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Heard]:
        """Wait for something to happen, at most so long, and tell all of it in its order. What a worker has said before it
        gave a batch back has been passed on to the caller's own streams, loggers and warnings by then."""

    @abstractmethod
    def look(self) -> Mapping[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        """Where each worker is: the value it has marked, and the one it was at when it was asked last."""

    def look_first(self, has: Callable[[], bool]) -> None:  # noqa: B027  who is on this machine sees what it sees
        """Before the first `start`: what tells on another machine whether it has what parts of the source name. `Blind`
        comes of one that has not, before its workers are `Ready`."""

    def launch_because(self, why: str) -> None:  # noqa: B027  who forks nothing need not know
        """No process may be forked from now on, for this reason."""

    def ask(self, workers: Iterable[int]) -> None:  # noqa: B027  who cannot be asked tells nothing
        """Have workers tell where they are, for `look` and `describe`. Does not wait for it."""

    def describe(self, worker: int) -> WorkerState:
        """What the system knows of a worker, and its stack when it was asked last."""
        return WorkerState(0, "", "")

    def holds(self, worker: int) -> int:
        """Bytes of memory that a worker has; 0 where nobody can tell."""
        return 0

    def where(self, worker: int) -> str:
        """The machine that a worker is on, in words, where that is another one; else empty."""
        return ""

    def pids(self) -> list[int]:
        """The processes of the workers that live."""
        return []

    def tasks(self) -> list[int]:
        """What the system gives cores to for them, by number."""
        return self.pids()

    def unclosed(self) -> Sequence[BaseException]:
        """What went wrong while workers closed what was built for them, once `close` is through."""
        return ()

    @abstractmethod
    def close(self, *, gently: bool) -> None:
        """End all workers. `gently`: let them close what was built for them. May be called again, where a signal's handler
        has raised in it."""
