"""The batch controller: how many records the next batch has, from what the last ones cost."""

from __future__ import annotations

BATCH_AIM = 0.010  # seconds of work a batch: 200 round trips of 50 µs, and the first result still comes early
TABLE_BATCH_AIM = 0.05  # the same of a slice of a table: to cut and convert one takes a millisecond, long or short
FAR_BATCH_AIM = 0.15  # the same for a worker on another machine, at least
FAR_BATCH_SECONDS = (
    0.0005  # seconds that one process, which passes all batches on, takes for one to another machine and back
)
LEAST = 0.0005  # seconds of work: below some 10 round trips a smaller batch costs more than the balance it brings
GROWTH = 4  # at most so many times the last size: the next records may cost more than the last
SMOOTH = 0.5  # weight of the newest batch's cost: follows a change within a few batches, rides out one odd batch
FADE = 0.9  # what is left, a batch later, of the most bytes that a record was seen to hold
SHARE = 4  # times what its calls cost, at least, a batch should be worth of work in its records
UNLIKE = 0.2  # of their mean: batches whose sizes differ less do not tell what a call costs
AGAIN = 8  # one batch in so many has another size, so that costs which have changed are told apart anew
MAX_BATCH_RECORDS = 1 << 14  # records; past that a batch saves nothing, and takes memory out of the processor's caches


def far_aim(workers: int) -> float:
    """Seconds of work a batch for so many workers on other machines: with more of them longer ones, so that the one process
    which passes all on is at work for half of its time at most.

    >>> far_aim(8), far_aim(2048)
    (0.15, 2.048)
    """
    return max(FAR_BATCH_AIM, 2 * workers * FAR_BATCH_SECONDS)


class Calls:
    """What a call of a batch step costs whatever it is given, and what each record costs: learnt from batches of several
    sizes. A step that takes 8 ms for one record and 8 ms for a hundred is not dear a record.

    >>> calls, sizes = Calls(), []
    >>> for _ in range(7):
    ...     sizes.append(calls.wanted)
    ...     calls.learn(calls.wanted, seconds=0.008 + calls.wanted * 0.0001)
    >>> sizes
    [1, 2, 8, 32, 128, 320, 320]
    """

    def __init__(self) -> None:
        self.wanted = 1  # records of a batch whose calls take the smaller part of its time
        self.even = 1  # records that cost as much as their call
        self._sums = [0.0] * 5  # of the line through all batches, by weight: weights, records, seconds, their products
        self._call: float | None = None  # seconds; None: no batches of different sizes were seen
        self._largest = self._learnt = 0

    def learn(self, count: int, seconds: float) -> None:
        """A batch of so many records took so long."""
        newest = [1 / count, 1.0, seconds / count, float(count), seconds]  # or a large batch would weigh for ever
        self._sums = [value * SMOOTH + new for value, new in zip(self._sums, newest, strict=True)]
        self._largest = max(self._largest, count)
        weight, records, spent, squares, products = self._sums
        mean, took = records / weight, spent / weight
        spread = squares / weight - mean * mean
        each = took / mean
        if spread > (UNLIKE * mean) ** 2:
            slope = (products / weight - mean * took) / spread
            # More records in less time: the older batch was an odd one, and tells nothing.
            self._call = min(took, max(0.0, took - slope * mean)) if slope > 0 else None
            self._sums = self._sums if slope > 0 else newest
        if self._call is None:
            self.wanted = min(MAX_BATCH_RECORDS, 2 * count)  # of another size, to tell the two apart
            return
        each = max(1e-9, (took - self._call) / mean)
        self.even = max(1, min(MAX_BATCH_RECORDS, int(self._call / each + 0.5)))
        self.wanted = max(1, min(MAX_BATCH_RECORDS, self._largest * GROWTH, int(SHARE * self._call / each + 0.5)))
        self._learnt += 1
        if self._learnt % AGAIN == 0:
            self.wanted = max(1, self.wanted // 2)


class Sizing:
    """Starts at 1 and grows until a batch is worth `aim` seconds, of work or of reading, whichever is more.

    >>> sizing = Sizing()
    >>> sizes = []
    >>> for _ in range(8):
    ...     sizes.append(sizing.next())
    ...     sizing.learn(sizes[-1], seconds=sizes[-1] * 0.0001, size=0)
    >>> sizes
    [1, 4, 16, 64, 100, 100, 100, 100]
    """

    def __init__(
        self,
        fixed: int | None = None,
        *,
        unit: int = 1,
        least: int = 1,
        most_bytes: int = 1 << 62,
        aim: float = BATCH_AIM,
    ) -> None:
        self._fixed = fixed
        self._aim = aim
        self._shortest = LEAST * aim / BATCH_AIM
        self._unit = unit  # batches are made of whole lots of so many records, once they are that large
        # The size that a batch step asks for: a call may take as long for one record as for so many, and with fewer the
        # records would seem dear for ever.
        self._least = least
        self._calls: dict[int, Calls] = {}  # by lane, of batch steps that ask for no size
        self._wanted = self._even = 1  # as the calls say that ask for most
        self._most_bytes = most_bytes
        self._size = 1
        self._cost: float | None = None  # seconds a record
        self._weight = [0.0, 0.0]  # bytes a record, as it is read and of its results
        self._fits = MAX_BATCH_RECORDS  # records of which a batch stays below the most bytes

    def next(self, remaining: int | None = None, workers: int = 1) -> int:
        """Records for the next batch. `remaining` records, where known, are left over for all workers to share."""
        if self._fixed is not None:
            return self._fixed
        size = max(self._size, min(max(self._least, self._wanted), self._fits))
        if size > self._unit > 1:
            size -= size % self._unit
        if remaining is not None:
            # The last batches shrink, each to its share of half of what is left, so that no worker runs alone for long
            # (guided self-scheduling, Polychronopoulos and Kuck 1987).
            share = -(-remaining // (2 * max(1, workers)))
            share = max(share, min(self._even, -(-remaining // max(1, workers))))
            size = min(size, max(1, share, int(self._shortest / self._cost) if self._cost else 1))
        return max(size, min(self._least, self._fits))

    def learn(self, count: int, seconds: float, size: int) -> None:
        """A batch of `count` records took `seconds` of work (or of reading) and held `size` bytes."""
        if count == 0 or self._fixed is not None:
            return
        cost = max(seconds / count, 1e-9)
        self._cost = cost if self._cost is None else self._cost + SMOOTH * (cost - self._cost)
        self._note(1, size / count)
        # Only a batch about as large as the last size may make it grow: many small batches in flight say the same.
        grown = count * GROWTH if count * GROWTH > self._size else self._size
        self._size = max(1, min(grown, int(self._aim / self._cost + 0.5), self._fits))

    def learn_calls(self, lane: int, count: int, seconds: float) -> None:
        """A batch took so long in a lane whose batch steps take as many records at once as there are."""
        self._calls.setdefault(lane, Calls()).learn(count, seconds)
        self._wanted = max(calls.wanted for calls in self._calls.values())
        self._even = max(calls.even for calls in self._calls.values())

    def weigh(self, count: int, size: int) -> None:
        """A batch of `count` records that was read holds `size` bytes: the next has no more records than memory allows."""
        if self._fixed is not None:
            return
        self._note(0, size / max(1, count))
        self._size = max(1, min(self._size, self._fits))

    def _note(self, which: int, weight: float) -> None:
        self._weight[which] = max(weight, self._weight[which] * FADE)
        heaviest = max(self._weight)
        self._fits = min(MAX_BATCH_RECORDS, int(self._most_bytes / heaviest)) if heaviest else MAX_BATCH_RECORDS
