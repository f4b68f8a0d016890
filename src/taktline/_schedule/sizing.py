"""The batch controller: how many records the next batch has, from what the last ones cost."""

from __future__ import annotations

AIM = 0.010  # seconds of work a batch: 200 round trips of 50 µs, and the first result still comes early
LEAST = 0.0005  # seconds of work: below some 10 round trips a smaller batch costs more than the balance it brings
GROWTH = 4  # at most so many times the last size: the next records may cost more than the last
SMOOTH = 0.5  # weight of the newest batch's cost: follows a change within a few batches, rides out one odd batch
FADE = 0.9  # what is left, a batch later, of the most bytes that a record was seen to hold
MOST = 1 << 14  # records; past that a batch saves nothing, and takes memory out of the processor's caches


class Sizing:
    """Starts at 1 and grows until a batch is worth `AIM` seconds, of work or of reading, whichever is more.

    >>> sizing = Sizing()
    >>> sizes = []
    >>> for _ in range(8):
    ...     sizes.append(sizing.next())
    ...     sizing.learn(sizes[-1], seconds=sizes[-1] * 0.0001, size=0)
    >>> sizes
    [1, 4, 16, 64, 100, 100, 100, 100]
    """

    def __init__(
        self, fixed: int | None = None, *, unit: int = 1, least: int = 1, most_bytes: int = 1 << 62
    ) -> None:  # fmt: skip
        self._fixed = fixed
        self._unit = unit  # batches are made of whole lots of so many records, once they are that large
        # A call of a step that waits takes as long for one record as for many: with fewer they would seem dear for ever.
        self._least = least
        self._most_bytes = most_bytes
        self._size = 1
        self._cost: float | None = None  # seconds a record
        self._weight = [0.0, 0.0]  # bytes a record, as it is read and of its results

    def next(self, remaining: int | None = None, workers: int = 1) -> int:
        """Records for the next batch. `remaining` records, where known, are left over for all workers to share."""
        if self._fixed is not None:
            return self._fixed
        size = max(self._size, min(self._least, self._fits()))
        if size > self._unit > 1:
            size -= size % self._unit
        if remaining is not None:
            # The last batches shrink, each to its share of half of what is left, so that no worker runs alone for long
            # (guided self-scheduling, Polychronopoulos and Kuck 1987).
            share = -(-remaining // (2 * max(1, workers)))
            size = min(size, max(1, share, int(LEAST / self._cost) if self._cost else 1))
        return max(size, min(self._least, self._fits()))

    def learn(self, count: int, seconds: float, size: int) -> None:
        """A batch of `count` records took `seconds` of work (or of reading) and held `size` bytes."""
        if count == 0:
            return
        cost = max(seconds / count, 1e-9)
        self._cost = cost if self._cost is None else self._cost + SMOOTH * (cost - self._cost)
        self._note(1, size / count)
        # Only a batch about as large as the last size may make it grow: many small batches in flight say the same.
        grown = count * GROWTH if count * GROWTH > self._size else self._size
        self._size = max(1, min(grown, int(AIM / self._cost + 0.5), self._fits()))

    def weigh(self, count: int, size: int) -> None:
        """A batch of `count` records that was read holds `size` bytes: the next has no more records than memory allows."""
        self._note(0, size / max(1, count))
        self._size = max(1, min(self._size, self._fits()))

    def _note(self, which: int, weight: float) -> None:
        self._weight[which] = max(weight, self._weight[which] * FADE)

    def _fits(self) -> int:
        weight = max(self._weight)
        return min(MOST, int(self._most_bytes / weight) if weight else MOST)
