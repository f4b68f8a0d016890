"""Sequence numbers, order, credits: what may be read, what may be delivered."""

from __future__ import annotations

from typing import NamedTuple

ENDLESS = 1 << 62  # credits where records are not limited


class Limits(NamedTuple):
    """How far the reading may be ahead of the delivery; whichever is reached first counts."""

    records: int | None
    batches: int
    size: int  # bytes
    enough: int = ENDLESS  # records from which no further batch is read, whatever their number then


class Window:
    """Counts what was read and not yet taken, and gives finished batches back in their order.

    >>> window = Window(Limits(records=10, batches=8, size=1000), ordered=True)
    >>> window.read(3, 30), window.read(3, 30), window.room()
    (0, 1, 4)
    >>> window.finish(1, 30), window.finish(0, 30)
    ([], [0, 1])
    >>> window.take(0), window.room()
    (None, 7)
    """

    def __init__(self, limits: Limits, ordered: bool) -> None:
        self.limits = limits
        self.ordered = ordered
        self._credits = ENDLESS if limits.records is None else limits.records  # records that may be read now
        self._lot = self._credits // 4  # credits become free so many at once
        self._taken = 0  # records that are taken and whose credits are not free yet
        self.last: int | None = None  # the batch that ends the run: nothing after it is delivered
        self.ended = False  # nothing more is delivered
        self._held_bytes = self._held_records = 0
        self._next_read = 0
        self._next_out = 0
        self._open: dict[int, tuple[int, int]] = {}  # seq: records, bytes
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
        seq = self._next_read
        self._next_read += 1
        self._open[seq] = (count, size)
        self._credits -= count
        self._held_records += count
        self._held_bytes += size
        return seq

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
        while self._next_out in self._early and not self.ended:
            self._early.remove(self._next_out)
            out.append(self._next_out)
            self.ended = self._next_out == self.last
            self._next_out += 1
        return out

    def end_at(self, seq: int) -> list[int]:
        """The run ends with this batch; the read batches that come after it."""
        if self.last is not None and self.last <= seq:
            return []
        self.last = seq
        return [other for other in self._open if other > seq] if self.ordered else []

    def take(self, seq: int) -> None:
        """The consumer has this batch: its credits are free. A batch not in the window is no matter."""
        count, size = self._open.pop(seq, (0, 0))
        self._held_records -= count
        self._taken += count
        # Credits become free in lots of a quarter window: fewer, larger reads, and a consumer that stops after a few
        # results has not set off further reading.
        if self._taken >= self._lot:
            self._credits += self._taken
            self._taken = 0
        self._held_bytes -= size
        self._early.discard(seq)
