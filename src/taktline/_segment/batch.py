"""What a segment is given and gives back: consecutive values, where each came from, and the failures between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from taktline._segment.values import Encoded, records_of, without
from taktline.abc import Unread
from taktline.errors import ResultsTooLarge

READING_STEP = "(reading)"  # in the place of a step's name, where the source could not make the record

Mark = Callable[[int, int, float], None]  # position of a value in its batch, step, seconds it may take (0: no limit)


Begun = Callable[[int, int], None]  # position of a value, and step that begins with it, in a batch that goes carefully
Came = Callable[[int, "Batch"], None]  # position of such a value, and what came of it


def no_mark(position: int, step: int, seconds: float) -> None:
    """Nobody watches."""


def nobody(*_: Any) -> None:
    """Nobody asks."""


@dataclass(slots=True)
class Failure:
    """A record that failed. `place`: how many values of its batch stand before it."""

    place: int
    origin: int  # its record's position in the batch as it was read
    step: str
    error: BaseException
    traceback: str = ""  # of the step's own code, as text
    record: Any = None  # which of those sent along it is, in a worker
    given: str = ""  # an excerpt of what the step was given, where that is known
    begins_key: bool = False  # none of the values has its key: all of that has failed, or what is behind it


@dataclass(slots=True)
class Batch:
    """Values in order. `origins[n]`: the position, in the batch as it was read, of the record that value n came from,
    never falling; None: value n came from record n."""

    values: Any  # a list, or what stands for one on the way (values.py)
    origins: list[int] | None = None
    failures: list[Failure] = field(default_factory=list)
    first: int = 0  # index of its first record, where a seed is set

    @classmethod
    def read(cls, records: Any, unread: list[Unread] | None, first: int) -> Batch:
        """A batch as it was read. What is in `unread` has failed: in `records` its text takes its place."""
        if not unread:
            return cls(records, first=first)
        batch = cls([], [], first=first)
        assert batch.origins is not None
        for origin, record in enumerate(records):
            if type(record) is Unread:
                records[origin] = record.text
                batch.keep(Failure(0, origin, READING_STEP, record.error))
            else:
                batch.values.append(record)
                batch.origins.append(origin)
        unread.clear()
        return batch

    def only(self, origin: int) -> Batch:
        """What there is of the record at this position alone: its value, or its failure."""
        index = self.first + origin
        failures = [replace(each, place=0, origin=0) for each in self.failures if each.origin == origin]
        at = origin if self.origins is None else bisect_left(self.origins, origin)
        values = self.values[at:at] if failures else self.values[at : at + 1]
        return Batch(values, [] if failures else None, failures, index)

    def origin(self, position: int) -> int:
        """The position, in the batch as it was read, of the record behind the value at `position`."""
        return position if self.origins is None else self.origins[position]

    def lost(self, origin: int) -> bool:
        """Whether the record at `origin`, the newest in this batch, has failed: what else it gives goes with it."""
        return bool(self.failures) and self.failures[-1].origin == origin

    def before(self, origin: int) -> int:
        """How many values come of the records before the one at `origin`."""
        return min(origin, len(self.values)) if self.origins is None else bisect_left(self.origins, origin)

    @property
    def size(self) -> int:
        """Bytes that its values take, as far as that is known."""
        return 0 if type(self.values) is list else self.values.size

    def tail(self) -> tuple[int, int]:
        """The origin of the newest value, and how many values come of it."""
        if type(self.values) is Encoded:
            return self.values.tail
        if not self.origins:
            return 0, 0
        return self.origins[-1], len(self.origins) - bisect_left(self.origins, self.origins[-1])

    def is_over(self, *, goes_on: bool) -> bool:
        """Whether a failure ends the run here."""
        return bool(self.failures) and (not goes_on or isinstance(self.failures[-1].error, ResultsTooLarge))

    def copy(self) -> Batch:
        """A batch of the same values, which keeps them whatever fails of them here."""
        origins = self.origins if self.origins is None else [*self.origins]
        return Batch(self.values, origins, [replace(each) for each in self.failures], self.first)

    def taken(self) -> Batch:
        """All of it, which is taken out."""
        all_of_it = Batch(self.values, self.origins, self.failures, self.first)
        self.values, self.origins, self.failures = [], [], []
        return all_of_it

    def take_back(self, origin: int) -> None:
        """The record at `origin`, the newest in this batch, has failed: take out what it gave before."""
        while self.origins and self.origins[-1] == origin:
            del self.origins[-1], self.values[-1]

    def spans(self) -> Iterator[tuple[int, int, Failure | None]]:
        """Where values stand without a failure between them, from and up to, and the failure behind them."""
        start = 0
        for failure in self.failures:
            end = failure.place
            yield start, end, failure
            start = end
        yield start, len(self.values), None

    def leave_out(self, origins: Container[int], *, goes_on: bool) -> None:
        """Take out what came of the records at these places, and their failures but for one that ends the run.

        >>> batch = Batch(["of 0", "of 2", "of 2", "of 4"], [0, 2, 2, 4], [Failure(1, 1, "score", ValueError())])
        >>> batch.leave_out({0, 4}, goes_on=True)
        >>> batch.values, batch.origins, batch.failures[0].place
        (['of 2', 'of 2'], [2, 2], 0)
        """
        values = records_of(self.values)
        kept = [at for at in range(len(values)) if self.origin(at) not in origins]
        failures = []
        for failure in self.failures:
            ends = not goes_on or isinstance(failure.error, ResultsTooLarge)
            if ends or failure.origin not in origins:
                failures.append(replace(failure, place=bisect_left(kept, failure.place)))
        self.origins = [self.origin(at) for at in kept]
        self.values, self.failures = [values[at] for at in kept], failures

    def keep(self, failure: Failure) -> None:
        """Add a failure that came in with the values, behind what came of those before it."""
        failure.place = len(self.values)
        self.failures.append(failure)

    def append(self, one: Batch, *, goes_on: bool) -> None:
        """Add what came of the next values, both with origins; of a record that has failed already it is dropped.

        >>> whole = Batch([], [], [Failure(0, 7, "score", ValueError())])
        >>> whole.append(Batch(["of 7", "of 8"], [7, 8]), goes_on=True)
        >>> whole.values, whole.origins
        (['of 8'], [8])
        """
        assert self.origins is not None
        assert one.origins is not None
        if self.failures:
            lost = self.failures[-1].origin
            gone = bisect_right(one.origins, lost)
            del one.values[:gone], one.origins[:gone]
            one.failures = [failure for failure in one.failures if failure.origin != lost]
            for failure in one.failures:
                failure.place -= gone
        for failure in one.failures:
            if goes_on:
                self.take_back(failure.origin)
            failure.place += len(self.values)
            self.failures.append(failure)
        self.origins += one.origins
        self.values += one.values

    def fail(
        self, position: int, step: str, error: BaseException, *, goes_on: bool, traceback: str = "", begins_key: bool = False
    ) -> None:  # fmt: skip
        """The value at `position` failed: take out all that its record gave, or all from here on where the run ends."""
        failure = Failure(position, self.origin(position), step, error, traceback, begins_key=begins_key)
        if goes_on:
            self.origins = self.origins if self.origins is not None else list(range(len(self.values)))
            start = bisect_left(self.origins, failure.origin)
            end = bisect_right(self.origins, failure.origin)
            self.values = without(self.values, start, end)
            del self.origins[start:end]
            failure.place = start
            for other in self.failures:
                if other.place >= end:
                    other.place -= end - start
        else:
            self.values = without(self.values, position, len(self.values))
            if self.origins is not None:
                del self.origins[position:]
            self.failures = [other for other in self.failures if other.place < position]
        self.failures.append(failure)
        self.failures.sort(key=lambda each: (each.place, each.origin))

    def fail_each(self, bad: Iterable[tuple[int, BaseException]], step: str, *, goes_on: bool) -> None:
        """The values at these rising positions failed; of a record that gave several of them the first one counts."""
        first: dict[int, tuple[int, BaseException]] = {}
        for position, error in bad:
            first.setdefault(self.origin(position), (position, error))
        for position, error in reversed(first.values()):
            self.fail(position, step, error, goes_on=goes_on)
