"""A batch while the hub has it: its records, what travels of it, and the failures in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from taktline._crew import words
from taktline._recipe.ports import Part, Unread
from taktline._run.as_read import AsRead
from taktline._run.lot import EncodedLot
from taktline._run.reader import as_source_error
from taktline._segment.batch import Batch, Failure
from taktline._segment.forms import records_of
from taktline._signals import pass_on
from taktline._wire import carry

Encode = Callable[[list[Any]], bytes]


class Held:
    """One batch on its way. Its values are here as objects (`batch.values`) or as bytes (`parts`)."""

    __slots__ = (
        "batch",
        "before",
        "each",
        "encoded",
        "error",
        "first",
        "goes_on",
        "here",
        "kin",
        "newest",
        "parts",
        "passed",
        "records",
        "tail",
    )

    def __init__(
        self, first: int, records: list[Any] | Part, *, goes_on: bool, unread: list[Unread] | None = None
    ) -> None:
        self.first = first  # index of its first record
        self.records = records
        self.error: BaseException | None = None  # of the source, behind the records
        self.encoded: EncodedLot | None = None  # its results, where the sink gets them as bytes
        self.goes_on = goes_on
        self.before: AsRead | None = None  # the records, where steps have run over them here
        self.batch = Batch.read(records, unread, first)
        self.parts: list[carry.Bytes] | None = None
        self.each = False  # every value is in a part of its own
        self.here = True  # the values are here as objects
        self.passed = (0, 0)  # results and failures that have left it in parts, in the lane it is in
        self.newest: bytes | None = None  # the last of these results, packed, where that is known
        self.tail: tuple[int, int] | None = None  # of encoded results, as Batch.tail
        self.kin = [1]  # of a batch and its parts: how many are not delivered

    @property
    def size(self) -> int:
        """Bytes it holds as far as they are known."""
        if self.unread:
            return self.records.size  # type: ignore[union-attr]
        return sum(map(len, self.parts)) if self.parts is not None else 0

    @property
    def unread(self) -> bool:
        """Whether its values are a part of the source that was not decoded here."""
        return isinstance(self.records, Part) and self.batch.values is self.records

    @property
    def count(self) -> int:
        """How many values it has now; as far as that is known, where they came back packed together."""
        return len(self.batch.values) if self.here else len(self.parts or ())

    @property
    def failed(self) -> bool:
        """Whether it ends in a failure that ends the run."""
        return self.batch.is_over(goes_on=self.goes_on) or self.error is not None

    def part(self) -> Held:
        """A batch for some of its results: of the same records, which are delivered with the last of them."""
        part = Held(self.first, self.records, goes_on=self.goes_on)
        part.batch, part.before, part.kin = self.batch, self.before, self.kin
        self.kin[0] += 1
        return part

    def has_passed(self, part: Held) -> None:
        """These results have left it, and must not come again where it is run again."""
        count = part.encoded.__len__() if part.encoded is not None else part.count
        self.passed = self.passed[0] + count, self.passed[1] + len(part.batch.failures)
        if count:
            self.newest = part.newest

    def as_read(self) -> Sequence[Any]:
        """The records as the source gave them."""
        return self.before.records() if self.before is not None else self.records

    def decode(self) -> None:
        """Have the records here where they are still a part of the source: whatever goes wrong is found out on them."""
        if not self.unread:
            return
        records: list[Any] = []
        unread: list[Unread] | None = [] if self.goes_on else None
        try:
            records.extend(self.records.read(unread))  # type: ignore[union-attr]
        except Exception as error:
            pass_on(error)
            self.error = as_source_error(error, self.first + len(records))
        self.records, self.batch = records, Batch.read(records, unread, self.first)
        self.parts, self.each, self.here = None, False, True

    def pack(self, step: str) -> None:
        """Turn the values into bytes; what cannot be pickled fails, in the name of `step`."""
        while self.parts is None:
            try:
                self.parts, self.each = carry.pack(self.batch.values), False
            except carry.NotCarried as error:
                self._own_values()
                what = carry.failed_to_go(step, error.error, "its record cannot be sent to a worker")
                self.batch.fail(error.position, step, what, goes_on=self.goes_on)

    def orders(self, step: str, *, careful: bool, seeded: bool = False, encode: Encode | None = None) -> bytes:
        """Make ready to be sent: the note that goes with `parts`. Where it is `careful` the records are here."""
        if careful:
            self.split(step)
        else:
            self.pack(step)
        batch = self.batch
        failures = [(failure.place, failure.origin, key) for key, failure in enumerate(batch.failures)]
        return words.pack_note(
            words.Orders(
                careful,
                self.each,
                batch.origins,
                failures,
                self.first if seeded else 0,
                encode,
                self.passed,
                self.newest,
            ),
            words.PLAIN_ORDERS,
        )

    def condemn(self, position: int, step: str, error: BaseException, stack: str) -> None:
        """The value at `position` has cost its worker's life: it fails. `stack`: where that was, if it is known. Each value
        is in a part of its own."""
        # Batch.fail keeps values, origins and failures in step; the parts stand for the values here.
        stand_in = Batch(list(self.parts or ()), self.batch.origins, self.batch.failures)
        stand_in.fail(position, step, error, goes_on=self.goes_on, traceback=stack)
        self.parts, self.here = stand_in.values, False
        self.batch = Batch([], stand_in.origins, stand_in.failures)

    def split(self, step: str) -> None:
        """Put each value into a part of its own; what cannot be pickled fails, in the name of `step`."""
        self.pack(step)
        if self.each or self.parts is None:
            return
        try:
            values = self.batch.values if self.here else records_of(carry.unpack(self.parts))
            self.parts, self.each = carry.pack_each(values), True
        except carry.RAISED as error:  # it cannot be told which value is at fault: all records that are left in it fail
            pass_on(error)
            why = error.error if isinstance(error, carry.NotCarried) else error
            what = carry.failed_to_go(step, why, "what it was given cannot be read back")
            known = {failure.origin for failure in self.batch.failures}
            lost = [origin for origin in range(len(self.records)) if origin not in known]
            failures = self.batch.failures + [Failure(0, origin, step, what) for origin in lost]
            self.batch = Batch([], [], sorted(failures, key=lambda each: each.origin)[: None if self.goes_on else 1])
            for failure in self.batch.failures:
                failure.place = 0
            self.parts, self.each, self.here = [], True, False

    def came_back(
        self, outcome: words.Outcome, parts: Sequence[carry.Bytes], buffers: Sequence[Any], last_step: str, *, decode: bool
    ) -> None:  # fmt: skip
        """Take over what a worker answered. With `decode` the results become objects, over these large buffers; raises
        what unpickling raises where they came as a whole, and is as before then."""
        self.newest = outcome.newest
        if outcome.encoded is not None:
            self.encoded = EncodedLot(bytes(parts[0]), outcome.encoded, self.first, len(self.records))
            self.tail = outcome.tail
            return
        values: list[Any] = []
        bad: list[carry.NotCarried] = []
        if decode and outcome.each:
            for position, part in enumerate(parts):
                try:
                    values.append(carry.unpack_one(position, part))
                except carry.NotCarried as error:
                    values.append(None)
                    bad.append(error)
        elif decode:
            values = records_of(carry.unpack(parts, buffers))
        self.batch = Batch(values, outcome.origins, [self._told(told) for told in outcome.failures], self.first)
        self.here = decode
        self.parts = None if decode else [bytes(part) for part in parts]
        self.each = outcome.each and not decode
        why = "its result cannot be read back from a worker"
        lost = [(each.position, carry.failed_to_go(last_step, each.error, why)) for each in bad]
        self.batch.fail_each(lost, last_step, goes_on=self.goes_on)

    def _told(self, told: tuple[int, int, int] | words.NewFailure) -> Failure:
        if isinstance(told, words.NewFailure):
            carried = carry.CarriedError(*told.error)
            error = carry.unpack_error(carried, step=told.step, trace=told.traceback)
            return Failure(told.place, told.origin, told.step, error, told.traceback)
        place, _, key = told
        failure = self.batch.failures[key]
        failure.place = place
        return failure

    def _own_values(self) -> None:
        if self.batch.values is self.records:
            self.batch.values = list(self.records)
