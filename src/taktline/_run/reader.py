"""Reads the source in lots, keeping what was read before it failed, and guarding against a source that reuses its record."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from taktline._recipe.ports import Live, Part, Splittable
from taktline.errors import LineError, ResumeError, SourceError, TaktlineError

PLAIN = (str, bytes, int, float, complex, bool, type(None), frozenset, range)  # cannot change under our hands
TABLES = {
    "itertuples": 'to_dict("records")',
    "to_dicts": "to_dicts()",
    "to_pylist": "to_pylist()",
}  # pandas, Polars, Arrow
SKIP = 4096  # records passed over at once, before it is seen whether the run is to stop


class Reader:
    """The source of one run. `split`: workers may be given parts of it to read; `exact`: of the records asked for.

    >>> reader = Reader("abc")
    >>> reader.read(5), reader.read(5), reader.read(5), reader.ended, reader.index
    (['a'], ['b'], ['c'], True, 3)
    """

    def __init__(self, source: Iterable[Any], *, split: bool = False, exact: bool = False) -> None:
        self._source = source
        self._parts: Generator[Part | Iterator[Any] | None, int, None] | None = None
        if split and isinstance(source, Splittable) and (parts := source.parts(exact=exact)) is not None:
            next(parts)
            self._parts = parts
        self.live = isinstance(source, Live)  # records come when they come
        self._records: Iterator[Any] | None = None
        self._last: Any = None
        # records still to be read one at a time, to see whether the source reuses its record
        self._probes = 0 if self.live or self._parts is not None else 2
        self._reuses = False
        self.index = 0  # of the next record
        self.ended = False
        self.stopped = False  # before the source was at its end
        self.note: Callable[[int, Any], None] | None = None  # told the index after each read, and the last record
        self.error: BaseException | None = None  # why it ended early
        self.total = _length(source)
        self._counted = self._weighed = 0  # records of all parts so far, and their bytes
        self._behind: tuple[int, int] | None = None  # index of the record behind the newest part, bytes from there on

    @property
    def splits(self) -> bool:
        """Whether workers may be given parts of the source."""
        return self._parts is not None

    @property
    def remaining(self) -> int | None:
        """How many records are left, where the source tells."""
        return None if self.total is None else max(0, self.total - self.index)

    @property
    def about_left(self) -> int | None:
        """The same; where the source does not tell, reckoned from the bytes that are left, by those of its parts."""
        if self.total is not None or self._behind is None:
            return self.remaining
        if self.ended:
            return 0
        index, left = self._behind
        return max(0, round(left * self._counted / self._weighed) - (self.index - index))

    def iterator(self) -> Iterator[Any]:
        """The iterator itself, for who reads on alone. Raises SourceError where the source gives none."""
        if self._records is None:
            try:
                self._records = iter(self._source) if self._parts is None else self._whole(self._parts)
            except Exception as error:
                raise failure_of_source(error, 0) from error
        return self._records

    def read(self, most: int, seconds: float = 0.0) -> list[Any]:
        """The next records, at most so many; fewer, or none, at the end. An error of the source is kept in `error`.

        A live source is waited for `seconds` at most; it may give fewer before its end."""
        records: list[Any] = []
        if self.ended:
            return records
        if (self._probes or self._reuses) and not self.live:
            most = 1
        try:
            if isinstance(self._source, Live):
                return self._taken(self._source.take(most, seconds))
            # extend keeps what came before an exception; list() would lose it
            records.extend(islice(self.iterator(), most))
        except Exception as error:
            self.error = as_source_error(error, self.index + len(records))
        self.ended = self.ended or len(records) < most
        self.index += len(records)
        if self.note is not None and records:
            self.note(self.index, records[-1])
        if (self._probes or self._reuses) and records:
            records = self._guarded(records)
        return records

    def read_part(self, most: int, seconds: float = 0.0) -> list[Any] | Part:
        """As `read`; but where the source can be split there, a Part of at most so many, which nobody has read."""
        if self._parts is None or self.ended or self.note is not None:  # who is told of records must have them
            return self.read(most, seconds)
        try:
            part = self._parts.send(most)
        except StopIteration:
            self.ended = True
            return []
        except Exception as error:
            self.ended, self.error = True, as_source_error(error, self.index)
            return []
        if isinstance(part, Part):
            self._records = None  # an iterator from before it
            self.index += len(part)
            self._counted += len(part)
            self._weighed += part.size
            self._behind = None if part.behind is None else (self.index, part.behind)
            return part
        self._records = self._whole(self._parts, part)
        return self.read(most, seconds)

    def _whole(
        self, parts: Generator[Part | Iterator[Any] | None, int, None], records: Iterable[Any] | None = None
    ) -> Iterator[Any]:
        """All records that are left, beginning with these."""
        try:
            while True:
                yield from records if records is not None else ()
                records = parts.send(0)
        except StopIteration:
            return

    def _taken(self, records: list[Any] | None) -> list[Any]:
        self.ended = self.ended or records is None
        self.index += len(records or ())
        return records or []

    def stop(self) -> None:
        """Read no more. May be called at any moment, also by a signal's handler in the middle of `read`."""
        if not self.ended:
            self.ended = self.stopped = True

    def close(self) -> None:
        """Let go of what cuts the source into parts, though an error's traceback may keep this reader."""
        if self._parts is not None:
            self._parts.close()

    def skip(self, records: int) -> Any:
        """Pass over so many records, which were delivered earlier; the last one. Raises ResumeError where there are not
        as many, and what the source raises."""
        last: Any = None
        try:
            while self.index < records and not self.ended:
                most = min(SKIP, records - self.index)
                passed = deque(enumerate(islice(self.iterator(), most), 1), maxlen=1)
                count, last = passed[0] if passed else (0, None)
                self.index += count
                if count < most:
                    raise _too_few(self.index, records)
        except Exception as error:
            raise error if isinstance(error, TaktlineError) else failure_of_source(error, self.index) from error
        return last

    def _guarded(self, records: list[Any]) -> list[Any]:
        record = records[0]
        if self._probes:
            self._probes -= 1
            self._reuses = self._reuses or (record is self._last and not isinstance(record, PLAIN))
            self._last = record if self._probes else None
        if not self._reuses:
            return records
        # A cursor that hands out the same row object again and again: each record is carried over as it is now.
        try:
            return [pickle.loads(pickle.dumps(record, pickle.HIGHEST_PROTOCOL))]
        except Exception:  # then it cannot be sent to a worker either, and who sends it says so
            return records


def _too_few(there: int, records: int) -> ResumeError:
    return ResumeError(
        f"the source has {there:,} records, but the results of {records:,} were delivered already: it is another source. "
        "Run with the one it was to go on, or delete the journal to run from the start"
    )


def as_source_error(error: Exception, index: int) -> BaseException:
    """`error` where it tells of the source by itself, or else what stands for it."""
    return error if isinstance(error, TaktlineError) else failure_of_source(error, index)


def failure_of_source(error: BaseException, index: int) -> SourceError:
    """What to raise where the source raised `error` instead of giving the record `index`."""
    made = SourceError(
        f"the source failed before record {index:,}: {type(error).__name__}: {error}. "
        "All records before it have been delivered.",
        index=index,
    )
    made.__cause__ = error
    return made


def check_source(source: Any) -> None:
    """Raises LineError where `source` cannot be iterated over, or what that gives would hardly be the records."""
    if hint := _another_source(source):
        raise LineError(f"the source must be an iterable of records, not {type(source).__name__}; {hint}")
    if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        hint = "; use flow.stream() for an async source" if hasattr(source, "__aiter__") else ""
        raise LineError(f"the source must be an iterable of records, not {type(source).__name__}{hint}")


def _another_source(source: Any) -> str:
    """What was meant where the source is a name, a mapping or a table; empty where it is none."""
    if isinstance(source, (str, os.PathLike)):
        return f"did you mean taktline.read({os.fspath(source)[:200]!r})? A text alone is a record: [text]"
    if isinstance(source, (bytes, bytearray)):
        return "did you mean taktline.read(path)? Bytes alone are a record: [data]"
    if isinstance(source, Mapping):
        return "did you mean its items(), its values(), or [record] for one record?"
    for has, rows in TABLES.items():
        if hasattr(source, has):
            return f"a table is no source yet: give its rows, {rows}; of a file, did you mean taktline.read(path)?"
    return ""


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except Exception:  # no length, or one that cannot be had: both mean that it is not known
        return None
