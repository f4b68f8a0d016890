"""What is said between the caller, its helper and the agents: kinds of messages, and their notes.

The caller's process knows one helper, which reaches the agents; an agent has the workers of one machine. Both ends of each
way have a Channel. On the way between caller and helper each note begins with the number of its agent.

A worker is known here by a number that none has had before: what is heard late of an earlier one is told by that.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from taktline._wire.channel import Bytes

# caller to helper
SITE = 40  # note: a pickled Site
LEAVE = 41  # end all agents, and yourself; note: SECONDS that workers may take to close what was built, or empty: none
WANT = 42  # note: pickled (whether any lane has no needs, Wants as tuples): once, before any agent comes
LET_GO = 43  # note: agent, and SECONDS as above; it is not started again until told so
BRING = 44  # note: LANES; one more of those that were let go

# helper to caller
JOINED = 50  # note: agent, and a pickled HasJoined
LEFT = 51  # note: agent, and why, as text
PLACES = 53  # note: how many workers there will be places for, on each machine, pickled
GRANTED = 54  # what is wanted can be had
FAILED = 52  # note: a pickled (LineError or another error's name, what it says): nothing will come of this

# caller to agent, by way of the helper
EQUIP = 1  # note: a pickled Equip; parts: the caller's surroundings, then a setup for each lane
START = 2  # seq: worker; note: LANE of it, and the number that it is called by
LOAD = 3  # seq: batch; note: WORKER_ATTEMPT, then the worker's own note; parts: the batch
MORE = 4  # seq: batch; note: WORKER_ATTEMPT
END = 5  # seq: worker
KILL = 6  # seq: worker
GIVE = 7  # seq: worker; parts: what it asked for
ASK = 8  # note: pickled workers
CLOSE = 9  # note: SECONDS as above, or empty

# agent to caller
ANSWER = 20  # seq: batch; note: CAME, then the worker's own note; parts: its results
HEARD = 21  # note: pickled events of the contract, as tuples with their class's name before them
SAID = 22  # seq: worker; note: the kind, a byte, and the worker's own note
BLIND = 24  # this machine does not have what parts of the source name
STATES = 23  # note: pickled {worker: (mark, seen, Worker)}

AGENT = struct.Struct("<I")
LANES = struct.Struct("<i")  # whom an agent serves: a lane with needs of its own, or ANY_LANE
LANE = struct.Struct("<II")
SECONDS = struct.Struct("<d")
WORKER_ATTEMPT = struct.Struct("<QQ")  # worker, attempt
CAME = struct.Struct("<QQQB")  # worker, attempt, bytes of memory that it has, kind

ANY_LANE = -1  # all lanes without needs of their own
BEATS_TILL_LOST = 10  # in the time after which the other end is given up


class Site(NamedTuple):
    """Where the agents are to be. `maker`: "module:function", called with `of` in the helper for a Placement."""

    maker: str
    of: dict[str, Any]
    lost_after: float  # seconds
    path: list[str]


class Want(NamedTuple):
    """What each of a lane's workers has to itself, of what not every machine has, and how many of them there are."""

    lane: int
    step: str
    needs: dict[str, float]
    workers: int

    def __str__(self) -> str:
        each = f"{self.workers} workers" if self.workers > 1 else "a worker"
        return f"step {self.step!r} wants {each} with {in_words(self.needs)}"


def in_words(needs: Mapping[str, float]) -> str:
    """
    >>> in_words({"GPU": 1, "disk": 0.5})
    '1 GPU, 0.5 disk'
    """
    return ", ".join(f"{amount:g} {name}" for name, amount in needs.items())


def fits(has: Mapping[str, float], taken: Iterable[Mapping[str, float]], needs: Mapping[str, float]) -> int:
    """How many workers with these needs a machine has room for, beside what is taken of it.

    >>> fits({"GPU": 4, "CPU": 8}, [{"GPU": 1}], {"GPU": 1.5})
    2
    """
    taken = [*taken]
    left = {name: has.get(name, 0) - sum(each.get(name, 0) for each in taken) for name in needs}
    return max(0, min(int(left[name] / amount + 1e-9) for name, amount in needs.items()))


class HasJoined(NamedTuple):
    """An agent that has come. `where`: its machine, in words. `serves`: a lane with needs of its own, or ANY_LANE."""

    slots: int
    where: str
    serves: int


class Equip(NamedTuple):
    """What an agent needs before its first worker."""

    limited: bool  # steps have a time limit
    most: int  # bytes of an arena
    closing: float  # seconds that a worker which is replaced may take to close what was built for it
    has: bytes  # pickled: tells whether this machine has what parts of the source name; empty: nobody asks


class Parcel(NamedTuple):
    """One message on its way. Its payload stays as it is for as long as anything refers to it."""

    kind: int
    seq: int
    note: bytes
    parts: Sequence[Bytes]

    def out_of_band(self) -> tuple[int, int, bytes, list[bytes | pickle.PickleBuffer]]:
        """Itself for pickle: parts that lie in somebody else's memory go beside its stream, and are not copied into it."""
        return (
            self.kind,
            self.seq,
            self.note,
            [pickle.PickleBuffer(p) if type(p) is memoryview else p for p in self.parts],
        )
