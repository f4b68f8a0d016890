"""What the hub and a worker say to each other: kinds of messages, and their notes."""

from __future__ import annotations

import signal
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from taktline._segment.values import Encode

# hub to worker
SETUP = 1  # part 0: a pickled Setup; part 1: Surroundings, packed as functions; note: the worker's number
LOAD = 2  # a batch (envelope.py)
GIVE = 3  # part 0: what NEED or WANT asked for; no part: there is no such thing
STOP = 4  # finish and end
MORE = 5  # one more part of this batch may come

# worker to hub
READY = 10  # note: b"closes" where it has built what it may have to close
DONE = 11  # a batch came through (envelope.py)
PART = 22  # some of what comes of a batch, before the rest: the same
SPOILED = 12  # the batch's bytes cannot be read back as a whole
NEED = 14  # note: pickled (module, name) that a pickle refers to and that cannot be imported here
SAID = 15  # note: "1" or "2" and bytes for standard output or standard error
BROKEN = 16  # the worker cannot work: note is a pickled Broken
LOGGED = 17  # note: a log record (surroundings.py)
WARNED = 18  # note: a warning (surroundings.py)
WANT = 20  # note: pickled (module, name, by value): what the caller's module has there
MODULE = (
    23  # note: name of a module of the user's own that is not on this machine; what GIVE brings is its pickled source
)
DIFFERS = 21  # note: pickled (module, name, what): of the caller's modules what cannot be had here
BEGAN = 19  # note: a position and a step, which begins with this value of a batch that goes carefully

ASK_SIGNAL: Any = getattr(signal, "SIGUSR2", None)  # to a worker: write on the board where you are


class Setup(NamedTuple):
    """What a worker needs before its first batch."""

    path: list[str]
    argv: list[str]
    stand_ins: tuple[str, ...]  # modules whose contents are asked for by NEED
    segment: bytes  # the steps and what is to be called before the first record, packed as functions
    goes_on: bool
    most: int  # bytes of an arena
    seed: tuple[int, int, int] | None  # what Plan.seeds says of the segment
    elsewhere: bool = False  # on a machine that may not have the user's modules


class Orders(NamedTuple):
    """How to run a batch. `careful`: record by record, with a mark before each. `first`: index of its first record, where
    a seed is set. `encode`: makes the bytes that a sink wants of the results. `passed`: so many results and failures have
    come in parts already, and `newest` is the last of these results, packed, where it is known."""

    careful: bool = False
    first: int = 0
    encode: Encode | None = None
    passed: tuple[int, int] = (0, 0)
    newest: bytes | None = None


PLAIN_ORDERS = Orders()


class Figures(NamedTuple):
    """A worker's counters since it started. Times in nanoseconds."""

    busy: int
    waiting: int
    blocked: int
    cpu: int
    retried: int
    records: Sequence[int]  # a step each
    timed_records: Sequence[int]
    timed_ns: Sequence[int]


IN_CLOSE = "in close() of what per_worker() has built, after all records"


class CannotWork(NamedTuple):
    """Why a worker cannot work. `built`: its steps arrived and one of them could not be built."""

    built: bool
    error: Any  # a SerializedError
    traceback: str


POSITION = struct.Struct("<QQ")
