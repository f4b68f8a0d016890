"""Reads a source so that what is read at once never ends within a key, for batch steps with `by=`.

What belongs to the newest key is held back until a record of another one has come, or the source has ended. Where that
breaks off, by an error or because the run is stopped, the key has not come whole, and what is held is not given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taktline._excerpts import excerpt
from taktline._observe import measures
from taktline._recipe.steps import Step
from taktline._run.reader import Reader, as_source_error
from taktline._segment import keys
from taktline._segment.memory_size import amount
from taktline._segment.tables import ArrowRows, Slice, put_together, rows_of
from taktline._signals import pass_on
from taktline.abc import Part, Source, Unread
from taktline.errors import LineError

Some = list[Any] | ArrowRows


class KeyedReader(Reader):
    """The source of one run whose batch step `step` has a key. At most so many bytes, or records of a `window`, of one
    key are held."""

    def __init__(self, source: Iterable[Any], *, step: Step, size: int, window: int | None, **options: Any) -> None:
        super().__init__(source, **options)
        assert step.by is not None
        self._by = step.by
        self._step = step.name
        self._size = size
        self._window = window
        self._what = source.describe() if isinstance(source, Source) else type(source).__name__
        self._held: Some = []  # of one key, which may go on
        self._unreadable = False  # some of it cannot be read
        self._in_tables = self.tables
        self._broken_off = False

    def drain(self) -> None:
        self._broken_off = True
        super().drain()

    def close(self) -> None:
        self._held = []
        super().close()

    def read(self, most: int, seconds: float | None = None, *, here: bool = False) -> list[Any]:
        first, records = self._go_on()
        assert isinstance(records, list)
        border = 0  # where the newest key begins
        while not self.ended:
            before = len(records)
            records += super().read(most - before if most > before else most, seconds)
            border = self._border(records, before, first)
            if border or len(records) <= before or self._is_too_large(records, first):
                break
        given = self._given(first, records, border)
        assert isinstance(given, list)
        return given

    def read_part(self, most: int, seconds: float | None = None, *, whole: bool = False) -> list[Any] | Part:
        if not self._in_tables:
            return self.read(most, seconds)
        first, held = self._go_on()
        rows = held if isinstance(held, ArrowRows) else None
        border = 0
        while not self.ended:
            part = super().read_part(most, seconds, whole=whole)
            if not isinstance(part, Part):
                if len(part):  # read as it should be, but for what is held of a table
                    self._in_tables = False
                    return [*self._read_here(rows, first), *part]
                break
            more = rows_of(part)
            joined = more if rows is None or more is None else put_together([rows, more])
            if joined is None:  # no table, or one of other types: on with records
                self._in_tables = False
                records = [*self._read_here(rows, first), *self._read_here(part, self.index - len(part))]
                only = self._given(first, records, self._border(records, 0, first))
                assert isinstance(only, list)
                return only
            rows = joined
            border = self._border(rows, 0, first)
            if border or self._is_too_large(rows, first):
                break
        if rows is None:
            return []
        given = self._given(first, rows, border)
        return Slice(given, first, self._what) if isinstance(given, ArrowRows) and len(given) else []

    def _go_on(self) -> tuple[int, Some]:
        """The index of the first record that is held, and what is held. From here on the index is that of the source."""
        first, held = self.index, self._held
        self._held = []
        self.index += len(held)
        return first, held

    def _given(self, first: int, some: Some, border: int) -> Some:
        """What of this may go; the rest is held, or, where the reading was broken off, left out."""
        broken_off = self.error is not None or self.stopped or self._broken_off
        if self.ended and not broken_off:
            border = len(some)
        self.index = first + border
        given, rest = some[:border], some[border:]
        self._held = rest if not self.ended else []
        if self.unread is not None and isinstance(some, list) and (self.unread or self._unreadable):
            self.unread[:] = [each for each in some[:border] if type(each) is Unread]
            self._unreadable = any(type(each) is Unread for each in some[border:])
        return given

    def _read_here(self, some: Part | ArrowRows | None, first: int) -> list[Any]:
        """The records of a part, or of rows of a table. Why they cannot be read is kept."""
        if some is None:
            return []
        part = Slice(some, first, self._what) if isinstance(some, ArrowRows) else some
        records: list[Any] = []
        try:
            records.extend(part.read(self.unread))
        except Exception as error:
            pass_on(error)
            self.ended, self.error = True, as_source_error(error, first + len(records))
        return records

    def _border(self, some: Some, before: int, first: int) -> int:
        """Where the newest key begins; the first `before` of these are of one. What looking a key up raises is kept, and what
        is behind left out."""
        if isinstance(some, ArrowRows):
            if not isinstance(self._by, str) or self._by not in some.table.schema.names:
                self._ends(self._not_there(first, f"which has {', '.join(some.table.schema.names)}"))
                return 0
            return ([0, *keys.starts(some, self._by)])[-1]
        at = max(0, before - 1)
        while at and type(some[at]) is Unread:
            at -= 1
        try:
            newest = ([0, *keys.starts(some[at:], self._by)])[-1]
            return at + newest if newest else 0
        except Exception as error:
            pass_on(error)
            wrong = self._wrong(some, before)
            self._ends(self._explained(error, first + wrong, some[wrong]))
            del some[wrong:]
        return self._border(some, before, first) if before < len(some) else 0

    def _wrong(self, records: list[Any], at: int) -> int:
        """The first record from here on that has no key, or one that cannot be held against the one before it."""
        for place in range(max(at, 1), len(records)):
            try:
                keys.starts(records[place - 1 : place + 1], self._by)
            except Exception as error:  # told by who asks
                pass_on(error)
                break
        else:
            return 0
        try:
            keys.starts(records[place - 1 : place], self._by)
        except Exception as error:
            pass_on(error)
            return place - 1
        return place

    def _ends(self, error: BaseException) -> None:
        self.ended, self.error = True, self.error or error

    def _explained(self, error: Exception, index: int, record: Any) -> BaseException:
        if isinstance(self._by, str) and isinstance(error, (KeyError, AttributeError)):
            return self._not_there(index, f"such as record {index:,}, {excerpt(record)}")
        error.add_note(f"raised by by= of step {self._step!r} for record {index:,}\n  record  {excerpt(record)}")
        return error

    def _not_there(self, index: int, what: str) -> LineError:
        return LineError(
            f"step {self._step!r} takes its batches by {self._by!r}, which is looked up in the records as the source gives "
            f"them, {what}: name what they have, or give a function of such a record, by=lambda record: …",
            index=index,
        )

    def _is_too_large(self, some: Some, first: int) -> bool:
        """Whether a key has more than may be held. That ends the run."""
        size = some.size if isinstance(some, ArrowRows) else amount(some[-1]) * len(some) if some else 0
        # A live source gives no more than its window before something is safe.
        most_records = (1 << 62) if self._window is None else self._window - self.live
        if size <= self._size and len(some) <= most_records:
            return False
        key = some[:1].records()[0][self._by] if isinstance(some, ArrowRows) else keys.key_of(self._by)(some[-1])
        most = f"memory= allows for, {measures.size(size)}" if size > self._size else f"window={self._window}"
        self._ends(
            LineError(
                f"key {excerpt(key)}, by which step {self._step!r} takes its batches, has more records, from {first:,} on, "
                f"than {most}: a key is held as a whole. Give more, or take the records by a finer key",
                index=first,
            )
        )
        return True
