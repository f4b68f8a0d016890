"""Sequence numbers, order, credits: what may be read, what may be delivered."""

from __future__ import annotations

import heapq
from typing import NamedTuple

PARTS_AHEAD = 2  # parts of a batch that may come before the consumer takes them, however little room there is
REST = 1 << 62  # behind all parts of a batch
ENDLESS_CREDITS = 1 << 62  # credits where records are not limited


class Limits(NamedTuple):
    """How far the reading may be ahead of the delivery; whichever is reached first counts."""

    records: int | None
    batches: int
    size: int  # bytes
    enough: int = ENDLESS_CREDITS  # records from which no further batch is read, whatever their number then


class Window:
    """Counts what was read and not yet taken, and gives finished batches back in their order.

    >>> window = Window(Limits(records=10, batches=8, size=1000), ordered=True)
    >>> window.read(3, 30), window.read(3, 30), window.room()
    (0, 1, 4)
    >>> window.finish(1, 30), window.finish(0, 30)
    ([], [0, 1])
    >>> window.take(0), window.room()
    (None, 7)

    What comes of a batch may come in parts: each has its place just before the rest.

    >>> window = Window(Limits(records=None, batches=8, size=1000), ordered=True)
    >>> window.read(3, 30), window.read(3, 30), window.split(0, 10), window.split(0, 10)
    (0, 1, 2, 3)
    >>> [window.finish(seq, 10) for seq in (1, 3, 2, 0)]
    [[], [], [2, 3], [0, 1]]
    """

    def __init__(self, limits: Limits, ordered: bool) -> None:
        self.limits = limits
        self.ordered = ordered
        self._credits = ENDLESS_CREDITS if limits.records is None else limits.records  # records that may be read now
        self._lot = self._credits // 4  # credits become free so many at once
        self._taken = 0  # records that are taken and whose credits are not free yet
        self.last: int | None = None  # the batch that ends the run: nothing after it is delivered
        self.ended = False  # nothing more is delivered
        self._held_bytes = self._held_records = 0
        self.next_seq = 0
        self._open: dict[int, tuple[int, int]] = {}  # seq: records, bytes
        self._places: dict[int, tuple[int, ...]] = {}  # seq: its place in the order, as long as it is open
        self._order: list[tuple[tuple[int, ...], int]] = []  # heap of places and batches that are not delivered
        self._parts: dict[int, int] = {}  # seq: how many parts it has had
        self._last_place: tuple[int, ...] = ()
        self._early: set[int] = set()

    @property
    def empty(self) -> bool:
        """Whether all that was read has been taken."""
        return not self._open

    def room(self) -> int:
        """How many records may be read now."""
        limits = self.limits
        if len(self._open) >= limits.batches or self._held_records >= limits.enough:
            return 0
        if self._open and self._held_bytes >= limits.size:
            return 0
        return self._credits

    def read(self, count: int, size: int) -> int:
        """Note a batch that was read; its sequence number."""
        self._credits -= count
        self._held_records += count
        return self._enter((self.next_seq, REST), count, size)

    def split(self, seq: int, size: int) -> int:
        """Note some results of a batch that is still under way, as a batch of their own; its sequence number."""
        part = self._parts[seq] = self._parts.get(seq, -1) + 1
        return self._enter((*self._places[seq][:-1], part, REST), 0, size)

    def _enter(self, place: tuple[int, ...], count: int, size: int) -> int:
        seq = self.next_seq
        self.next_seq += 1
        self._open[seq] = (count, size)
        self._places[seq] = place
        self._held_bytes += size
        if self.ordered:
            heapq.heappush(self._order, (place, seq))
        return seq

    def place(self, seq: int) -> tuple[int, ...]:
        """Where an open batch stands in the order."""
        return self._places[seq]

    def may_split(self, seq: int, *, ahead: bool = True) -> bool:
        """Whether one more part of this batch may come. `ahead`: while there is room, also before its turn."""
        limits, stem = self.limits, self._places[seq][:-1]
        if ahead and len(self._open) < limits.batches and self._held_bytes < limits.size // 2:
            return True
        own = sum(1 for place in self._places.values() if place[: len(stem)] == stem) - 1
        return own < PARTS_AHEAD and (not ahead or not self.ordered or self._leads(stem))

    def _leads(self, stem: tuple[int, ...]) -> bool:
        """Whether no open batch stands before those with this place's beginning."""
        return all(place > stem or place[: len(stem)] == stem for place in self._places.values())

    def finish(self, seq: int, size: int) -> list[int]:
        """Note that a batch has come through; the batches to deliver now, in order."""
        count, before = self._open[seq]
        self._open[seq] = (count, size)
        self._held_bytes += size - before
        if not self.ordered:
            self.ended = self.ended or seq == self.last
            return [seq]
        self._early.add(seq)
        out: list[int] = []
        while self._order and not self.ended:
            first = self._order[0][1]
            if first in self._early:
                self._early.remove(first)
                out.append(first)
                self.ended = first == self.last
            elif first in self._open:
                break
            heapq.heappop(self._order)
        return out

    def end_at(self, seq: int) -> list[int]:
        """The run ends with this batch; the read batches that come after it."""
        place = self._places[seq]
        if self.last is not None and self._last_place <= place:
            return []
        self.last, self._last_place = seq, place
        return [other for other in self._open if self._places[other] > place] if self.ordered else []

    def beyond(self, seq: int) -> bool:
        """Whether an open batch comes after the one that ends the run."""
        return self.ordered and self.last is not None and self._places[seq] > self._last_place

    def take(self, seq: int) -> None:
        """The consumer has this batch: its credits are free. A batch not in the window is no matter."""
        count, size = self._open.pop(seq, (0, 0))
        self._places.pop(seq, None)
        if self._parts:
            self._parts.pop(seq, None)
        self._held_records -= count
        self._taken += count
        # Credits become free in lots of a quarter window: fewer, larger reads, and a consumer that stops after a few
        # results has not set off further reading.
        if self._taken >= self._lot:
            self._credits += self._taken
            self._taken = 0
        self._held_bytes -= size
        self._early.discard(seq)
