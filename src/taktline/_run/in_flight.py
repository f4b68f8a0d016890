"""A batch on its way, as the caller's side has it: the records it was read with, and what has become of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline._run.originals import Originals
from taktline._run.reader import as_source_error
from taktline._segment.batch import Batch
from taktline._segment.memory_size import amount
from taktline._segment.tables import rows_of
from taktline._signals import pass_on
from taktline.abc import Part, Unread


class InFlight:
    """One batch. A part of what comes of it is one of its own, of the same records."""

    __slots__ = ("attempt", "batch", "before", "error", "first", "goes_on", "kin", "newest", "passed", "records")

    def __init__(
        self, first: int, records: list[Any] | Part, batch: Batch, *, goes_on: bool, kin: list[int] | None = None
    ) -> None:
        self.first = first  # index of its first record
        self.records = records
        self.batch = batch
        self.goes_on = goes_on
        self.attempt = 0  # to run it, the newest: what is heard of an earlier one is too late
        self.error: BaseException | None = None  # of the source, behind the records
        self.before: Originals | None = None  # the records, where steps have run over them here
        self.passed = (0, 0)  # results and failures that have left it in parts, in the lane it is in
        self.newest: bytes | None = None  # the last of these results, packed, where that is known
        self.kin = kin or [1]  # of a batch and its parts: how many are not delivered

    @property
    def failed(self) -> bool:
        """Whether it ends in a failure that ends the run."""
        return self.error is not None or (bool(self.batch.failures) and self.batch.is_over(goes_on=self.goes_on))

    @property
    def weight(self) -> int:
        """Bytes it takes: as objects about, which may be many times what they are as bytes."""
        values = self.batch.values
        if type(values) is list:
            return amount(values[-1]) * len(values) if values else 0
        return values.size  # type: ignore[no-any-return]

    def part(self, batch: Batch) -> InFlight:
        """Some of what comes of it: its records are delivered with the last of its parts."""
        part = InFlight(self.first, self.records, batch, goes_on=self.goes_on, kin=self.kin)
        part.before = self.before
        self.kin[0] += 1
        return part

    def has_passed(self, part: Batch, newest: bytes | None) -> None:
        """These results have left it, and must not come again where it is run again."""
        self.passed = self.passed[0] + len(part.values), self.passed[1] + len(part.failures)
        if len(part.values):
            self.newest = newest

    def as_read(self) -> Sequence[Any]:
        """The records as the source gave them."""
        return self.before.records() if self.before is not None else self.records

    def read_table(self) -> None:
        """Have the records here as rows of a table where they are still a part of the source with columns."""
        part = self.batch.values
        if isinstance(part, Part) and (rows := rows_of(part)) is not None:
            self.batch = Batch(rows, first=self.first)
        else:
            self.read()

    def read(self) -> None:
        """Have the records here where they are still a part of the source: whatever goes wrong is found out on them."""
        part = self.batch.values
        if not isinstance(part, Part):
            return
        records: list[Any] = []
        unread: list[Unread] | None = [] if self.goes_on else None
        try:
            records.extend(part.read(unread))
        except Exception as error:
            pass_on(error)
            self.error = as_source_error(error, self.first + len(records))
        self.records, self.batch = records, Batch.read(records, unread, self.first)
