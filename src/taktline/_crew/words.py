"""What the hub and a worker say to each other: kinds of messages, and their notes."""

from __future__ import annotations

import pickle
import signal
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

# hub to worker
SETUP = 1  # part 0: a pickled Setup; part 1: Surroundings, packed as functions; note: the worker's number
LOAD = 2  # a batch: note is a pickled Orders
GIVE = 3  # part 0: what NEED or WANT asked for; no part: there is no such thing
STOP = 4  # finish and end
MORE = 5  # one more part of this batch may come

# worker to hub
READY = 10
DONE = 11  # a batch came through: note is Figures and a pickled Outcome
PART = 22  # some of what comes of a batch, before the rest: the same
SPOILED = 12  # the batch's bytes cannot be read back as a whole
NEED = 14  # note: pickled (module, name) that a pickle refers to and that cannot be imported here
SAID = 15  # note: "1" or "2" and bytes for standard output or standard error
BROKEN = 16  # the worker cannot work: note is a pickled Broken
LOGGED = 17  # note: a log record (surroundings.py)
WARNED = 18  # note: a warning (surroundings.py)
WANT = 20  # note: pickled (module, name, by value): what the caller's module has there
DIFFERS = 21  # note: pickled (module, name, what): of the caller's modules what cannot be had here
BEGAN = 19  # note: a position and a step, which begins with this value of a batch that goes carefully

ASK = signal.SIGUSR2  # to a worker: write on the board where you are


class Setup(NamedTuple):
    """What a worker needs before its first batch."""

    path: list[str]
    argv: list[str]
    stand_ins: tuple[str, ...]  # modules whose contents are asked for by NEED
    segment: bytes  # the steps and what is to be called before the first record, packed as functions
    goes_on: bool
    most: int  # bytes of an arena
    seed: tuple[int, int, int] | None  # what Plan.seeds says of the segment


class Orders(NamedTuple):
    """How to run a batch. `failures` are (place, origin, key) of records that failed before; the hub knows the rest.
    `each`: every value is in a part of its own. `first`: index of its first record, where a seed is set. `encode`: makes
    the bytes that a sink wants of the results. `passed`: so many results and failures have come in parts already, and
    `newest` is the last of these results, packed, where it is known."""

    careful: bool
    each: bool
    origins: list[int] | None
    failures: list[tuple[int, int, int]]
    first: int = 0
    encode: Callable[[list[Any]], bytes] | None = None
    passed: tuple[int, int] = (0, 0)
    newest: bytes | None = None


class NewFailure(NamedTuple):
    """A record that failed in a worker."""

    place: int
    origin: int
    step: str
    error: Any  # a CarriedError
    traceback: str


class Outcome(NamedTuple):
    """What is not the results themselves. `each`: every result is in a part of its own. `encoded`: so many results are
    one part, as the bytes for the sink; `tail`, as Batch.tail, where it is a part. `newest`: of a part, its last result,
    packed."""

    each: bool
    origins: list[int] | None
    failures: list[tuple[int, int, int] | NewFailure]
    encoded: int | None = None
    tail: tuple[int, int] | None = None
    newest: bytes | None = None


PLAIN_ORDERS = Orders(False, False, None, [])
PLAIN_OUTCOME = Outcome(False, None, [])


class Broken(NamedTuple):
    """Why a worker cannot work. `built`: its steps arrived and one of them could not be built."""

    built: bool
    error: Any  # a CarriedError
    traceback: str


class Figures(NamedTuple):
    """A worker's counters since it started. Times in nanoseconds."""

    busy: int
    waiting: int
    blocked: int
    cpu: int
    retried: int
    records: list[int]  # a step each
    timed_records: list[int]
    timed_ns: list[int]

    def pack(self) -> bytes:
        """As fixed-size numbers: this goes with every batch."""
        n = len(self.records)
        return struct.pack(
            f"<I{5 + 3 * n}Q", n, self.busy, self.waiting, self.blocked, self.cpu, self.retried,
            *self.records, *self.timed_records, *self.timed_ns,
        )  # fmt: skip


POSITION = struct.Struct("<QQ")


def unpack_figures(note: bytes) -> tuple[Figures, bytes]:
    """The figures at the start of a note, and the rest of it."""
    (n,) = struct.unpack_from("<I", note)
    form = struct.Struct(f"<I{5 + 3 * n}Q")
    _, busy, waiting, blocked, cpu, retried, *lists = form.unpack_from(note)
    figures = Figures(busy, waiting, blocked, cpu, retried, lists[:n], lists[n : 2 * n], lists[2 * n :])
    return figures, note[form.size :]


def pack_note(note: Any, plain: Any = None) -> bytes:
    """A note as bytes; nothing at all where it is the usual one."""
    return b"" if note == plain else pickle.dumps(tuple(note))
