"""Reads the source in lots, keeping what was read before it failed. A record that is read ahead is the run's own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from operator import length_hint
from time import monotonic, perf_counter, thread_time
from types import GeneratorType
from typing import Any

from taktline._run import ownership
from taktline._run.in_memory import Tables, table_source
from taktline._run.patience import Patience
from taktline._signals import came_from_outside, pass_on
from taktline.abc import Live, Part, Sink, Source, Splitter, Unread
from taktline.errors import LineError, ResumeError, SourceError, TaktlineError, raised_by_source

TABLES = {
    "itertuples": 'to_dict("records")',
    "to_dicts": "to_dicts()",
    "to_pylist": "to_pylist()",
}  # pandas, Polars, Arrow
TURN = 0.25  # seconds that a live source is asked to wait at once
LOOKED_AT = 1 << 26  # bytes that one may take ahead, where its first records are looked at
SKIP = 4096  # records passed over at once, before it is seen whether the run is to stop


LIST_ITERATOR: type = type(iter(list[Any]()))


class Reader:
    """The source of one run. `split`: workers may be given parts of it to read; `exact`: of the records asked for.
    `tables`: the first step takes tables, and the source has columns.
    `delivers`: when it fails, the results of all records before that have been delivered. `goes_on`: an Unread stands in
    the place of a record that alone cannot be read; it is in `unread` too.

    >>> reader = Reader("abc")
    >>> reader.read(2), reader.read(2), reader.read(2), reader.ended, reader.index
    (['a', 'b'], ['c'], [], True, 3)
    """

    def __init__(
        self, source: Iterable[Any], *, split: bool = False, exact: bool = False, delivers: bool = True,
        goes_on: bool = False, block: int = 1, tables: bool = False,
    ) -> None:  # fmt: skip
        self._source: Iterable[Any] = source
        self._delivers = delivers
        self._exact = exact
        own = isinstance(source, Source) and not getattr(source, "of_the_caller", False)
        self._library = own and type(source).__module__.partition(".")[0] == "taktline"
        self.unread: list[Unread] | None = [] if goes_on else None
        self._splitter: Splitter | None = None
        if split and isinstance(source, Source):
            cut = source.split_columns if tables else source.split
            self._splitter = cut(exact=exact, unread=self.unread)
        self.tables = tables and self._splitter is not None  # the first step takes columns, which the source has
        # Parts of it are slices of tables.
        self.slices = self._splitter is not None and getattr(source, "columns", False)
        self.in_memory = self.tables and isinstance(source, Tables)
        self.live = isinstance(source, Live)  # records come when they come
        # Whether records may be read ahead without the caller's own code being run for it.
        self.runs_no_code = self._library or ownership.runs_no_code(source)
        self._patience = Patience()
        self._copies = ownership.Copies()
        self._records: Iterator[Any] | None = None
        self.index = 0  # of the next record
        self.block = block  # what is read at once ends at a multiple of so many records, or the end
        self.ended = False
        self.stopped = False  # before the source was at its end
        self.note: Callable[[int, Any], None] | None = None  # told the index after each read, and the last record
        self.error: BaseException | None = None  # why it ended early
        self.broken_off = 0.0  # seconds of a read out of which an interrupt came, which whoever asked cannot count
        self.total = _length(source)
        self._counted = self._weighed = 0  # records of all parts so far, and their bytes
        self._behind: tuple[int, int] | None = None  # index of the record behind the newest part, bytes from there on

    @property
    def splits(self) -> bool:
        """Whether workers may be given parts of the source to read."""
        return self._splitter is not None and not self._splitter.here

    def look(self) -> Callable[[], bool] | None:
        """What tells on another machine whether it has what parts of the source name; None where nothing does."""
        return self._source.look() if self.splits and isinstance(self._source, Source) else None

    @property
    def weight(self) -> int:
        """Bytes of the files that are read, about, as they are there; 0 where that is not known."""
        return getattr(self._source, "weight", 0)

    @property
    def is_text(self) -> bool:
        """Whether these are files of lines."""
        return getattr(self._source, "is_text", False)

    @property
    def copying_ns(self) -> int:
        """Nanoseconds that copies of what the source may still change took so far; the loop makes none."""
        return self._copies.ns

    @property
    def remaining(self) -> int | None:
        """How many records are left, where the source tells."""
        return None if self.total is None else max(0, self.total - self.index)

    @property
    def about_left(self) -> int | None:
        """About how many records are left: where the source does not tell, by the bytes that are left and those of parts."""
        if self.total is not None or self._behind is None:
            return self.remaining
        if self.ended:
            return 0
        index, left = self._behind
        return max(0, round(left * self._counted / self._weighed) - (self.index - index))

    def iterator(self) -> Iterator[Any]:
        """The iterator itself, for who reads on alone. Raises what the source does where it gives none."""
        if self._records is None:
            try:
                self._records = self._once_ended() if self._splitter is None else iter(self._splitter)
            except BaseException as error:
                raise self.explained(error, 0)  # noqa: B904  mostly itself, whose cause is its own
        return self._records

    def beside(self, sink: Sink, *, journal: bool) -> None:
        """Before anything is read: the results go there. Raises LineError where that cannot be."""
        if isinstance(self._source, Source):
            self._source = self._source.beside(sink, journal=journal)

    def _each(self) -> Iterator[Any]:
        source = self._source
        return iter(source) if self.unread is None or not isinstance(source, Source) else source.read(self.unread)

    def _once_ended(self) -> Iterator[Any]:
        """The iterator, which is never asked again once it has ended, as a `for` loop asks no more: one that takes from a
        queue until there is a None in it would wait for ever."""
        records = self._each()
        return records if self._library or ownership.stays_ended(records) else chain(records)

    def read(self, most: int, seconds: float | None = None, *, here: bool = False) -> list[Any]:
        """The next records, at most so many; fewer, or none, at the end. An error of the source is kept in `error`.

        They are the run's own: what the source may still change is a copy. `here`: they all go through in this process
        before the next one is read, so the last one may be the source's. A live source is waited for `seconds` at most;
        it may give fewer before its end. With 0 results are under way: a source that blocks may give none then."""
        records: list[Any] = []
        if self.ended:
            return records
        if self._records is None and type(self._source) in (list, LIST_ITERATOR):
            self.iterator()
        most += -(self.index + most) % self.block
        if type(self._records) is LIST_ITERATOR:
            # Its end is asked for alone: whoever gets the results of what is under way may make the list longer yet.
            left = length_hint(self._records)
            if not left and seconds == 0.0:
                return records
            most = min(most, left) or most
        if not (self.runs_no_code or self.live or seconds is None):
            began = monotonic()
            if seconds == 0.0 and self._patience.waits(began):
                return records
            self._patience.asked(began)
            if self._patience.is_left and not self._exact and self.block == 1:
                most = 1  # the next one may be long in coming
            computed = thread_time()
            try:
                return self._read(most, records, 0.0, here=here)
            finally:
                self._patience.blocked(monotonic() - began - (thread_time() - computed))
        return self._read(most, records, seconds or 0.0, here=here)

    def _read(self, most: int, records: list[Any], seconds: float, *, here: bool) -> list[Any]:
        began = perf_counter()
        try:
            if self.live:
                return self._taken(self._source.take(most, seconds), here=here)  # type: ignore[attr-defined]
            if self.runs_no_code or (here and most == 1):
                # extend keeps what came before an exception; list() would lose it
                records.extend(islice(self.iterator(), most))
                self.ended = self.ended or len(records) < most
            else:
                self._take(most, records, here=here)
        except BaseException as error:
            if not isinstance(error, Exception) and came_from_outside(error):
                self.broken_off += perf_counter() - began
                raise
            self.ended, self.error = True, self.explained(error, self.index + len(records))
        self.index += len(records)
        if self.note is not None and records:
            self.note(self.index, _as_kept(records[-1]))
        return records

    def read_within(self, most: int, seconds: float) -> list[Any]:
        """As `read`; a live source is waited for so long, for its first ones, at most."""
        until = monotonic() + seconds
        while True:
            records = self.read(most, TURN)
            if records or self.ended or not self.live or monotonic() > until:
                return records

    def _take(self, most: int, records: list[Any], *, here: bool) -> None:
        """Read records of a source that runs the caller's code, each of which may be changed by that."""
        while (left := most - len(records)) > 0:
            before = len(records)
            whose = ownership.take(islice(self.iterator(), left), records)
            if whose == ownership.OWN:
                self.ended = self.ended or len(records) - before < left
                return
            if whose == ownership.FLEETING:
                self._end_before_fleeting(records, here=here)
                return
            records[-1], could = self._copies.of(records[-1])
            if not could:  # it goes on its way before the next one is asked for
                return

    def _end_before_fleeting(self, records: list[Any], *, here: bool) -> None:
        """The last record lives only until the next one is asked for: it may go through in this process, alone."""
        if here:
            return
        self.ended, self.error = True, _fleeting(records.pop(), self.index + len(records))

    def read_part(self, most: int, seconds: float | None = None, *, whole: bool = False) -> list[Any] | Part:
        """As `read`; but where the source can be split there, a Part of at most so many, which nobody has read. `whole`: of
        as many as the source keeps together itself."""
        splitter = self._splitter
        # Who is told of records must have them.
        if splitter is None or self.ended or (self.note is not None and not splitter.here):
            return self.read(most, seconds)
        try:
            self._records = None  # an iterator from before this
            part = splitter.part(most) if not whole else splitter.table()
        except Exception as error:
            self.ended, self.error = True, self.explained(error, self.index)
            return []
        if part is None:
            return self.read(most, seconds)
        self.index += len(part)
        self._counted += len(part)
        self._weighed += part.size
        self._behind = None if (left := splitter.left) is None else (self.index, left)
        if self.note is not None:
            self.note(self.index, part[-1])
        return part

    def _taken(self, records: list[Any] | None, *, here: bool) -> list[Any]:
        self.ended = self.ended or records is None
        if records and not self._library and ownership.look(records[-1], alone=True) == ownership.FLEETING:
            self._end_before_fleeting(records, here=here)
        if records and any(type(record) is Unread for record in records):
            records = self._without_unread(records)
        self.index += len(records or ())
        return records or []

    def _without_unread(self, records: list[Any]) -> list[Any]:
        """What goes on where some of these are not to be given to steps: all, and they fail; or those before them."""
        unread = [(at, record) for at, record in enumerate(records) if type(record) is Unread]
        if self.unread is not None:
            self.unread += [record for _, record in unread]
            return records
        at, first = unread[0]
        self.ended, self.error = True, self.explained(first.error, self.index + at)
        return records[:at]

    def stop(self) -> None:
        """Read no more. May be called at any moment, also by a signal's handler in the middle of `read`."""
        if not self.ended:
            self.ended = self.stopped = True

    def drain(self) -> None:
        """Read no more: what a live source has given is all there is. May be called as `stop` may."""
        self.ended = True

    def leave(self) -> None:
        """Read no more, and end in an error: somebody else has closed the run. May be called as `stop` may."""
        self.stop()
        self.error = self.error or LineError("this run was closed from elsewhere while it was at work")

    def close(self) -> None:
        """Let go of the source, though an error's traceback or the caller may keep this reader."""
        splitter, self._splitter = self._splitter, None
        self._source, self._records = (), None
        self.ended = True
        if splitter is not None:
            splitter.close()

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
            if self.unread:
                self.unread.clear()
        except ResumeError:
            raise
        except Exception as error:
            raise self.explained(error, self.index)  # noqa: B904  as above
        return _as_kept(last)

    def explained(self, error: BaseException, index: int) -> BaseException:
        """What to raise where the source raised `error` in the place of record `index`: itself, with a note; of a reader
        of this library, a SourceError."""
        if self._library:
            return as_source_error(error, index) if isinstance(error, Exception) else error
        return raised_by_source(error, index=index, delivered=self._delivers)


def _as_kept(record: Any) -> Any:
    return record.text if type(record) is Unread else record


def _too_few(there: int, records: int) -> ResumeError:
    return ResumeError(
        f"the source has {there:,} records, but the results of {records:,} were delivered already: it is another source. "
        "Run with the one it was to go on, or delete the journal to run from the start"
    )


def _fleeting(record: Any, index: int) -> LineError:
    return LineError(
        f"record {index:,} of the source is, or has in it, what lives only until the next record is asked for (such as a "
        f"group, an open file, a generator): {type(record).__name__}. It cannot go to a worker, or wait for others in a "
        'batch. Have the source make a value of it first, such as (key, list(group)) or file.read(); or run with how="loop"',
        index=index,
    )


def as_source_error(error: Exception, index: int) -> BaseException:
    """`error` where it tells of the source by itself, or else what stands for it."""
    if isinstance(error, TaktlineError):
        return error
    made = SourceError(
        f"the source failed before record {index:,}: {type(error).__name__}: {error}. "
        "All records before it have been delivered.",
        index=index,
    )
    made.__cause__ = error
    return made


@contextmanager
def lent(source: Any) -> Iterator[None]:
    """While the first records of a source are looked at: what a live one gives for that goes back."""
    if not isinstance(source, Live):
        yield
        return
    source.open(None, LOOKED_AT)
    try:
        yield
    finally:
        source.close()


def as_source(source: Any) -> Any:
    """The source itself, or of a table in memory one of its rows. Raises LineError where it cannot be iterated over, or
    what that gives would hardly be the records."""
    if type(source) in (list, range, tuple, GeneratorType) or isinstance(source, Source):
        return source
    if (made := table_source(source)) is not None:
        return made
    if hint := _another_source(source):
        raise LineError(f"the source must be an iterable of records, not {type(source).__name__}; {hint}")
    if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        what = "None" if source is None else type(source).__name__
        raise LineError(f"the source must be an iterable of records, not {what}{_instead(source)}")
    return source


def _instead(source: Any) -> str:
    """What may be meant by a source that cannot be iterated over, as the end of a sentence; empty where nothing is."""
    if hasattr(source, "__aiter__"):
        return "; use flow.stream() for an async source"
    if isinstance(source, int):
        return f"; did you mean range({source}), or [{source}] for one record?"
    if callable(source) and (name := getattr(source, "__name__", "")).isidentifier():
        return f"; did you mean what it gives: {name}()?"
    return ""


def looked_at(source: Any) -> Any:
    """As `as_source`, for who only looks at the first records. Raises LineError too where that would use a table up."""
    source = as_source(source)
    if isinstance(source, Tables) and source.once:
        raise LineError(
            f"to look at this {source.describe()} would use up its rows, since it can be read once: give a Table, such as "
            "reader.read_all(), or what it is read from"
        )
    return source


def _another_source(source: Any) -> str:
    """What was meant where the source is a name, a mapping or another table; empty where it is none."""
    if isinstance(source, (str, os.PathLike)):
        return f"did you mean taktline.read({os.fspath(source)[:200]!r})? A text alone is a record: [text]"
    if isinstance(source, (bytes, bytearray)):
        return "did you mean taktline.read(path)? Bytes alone are a record: [data]"
    if isinstance(source, Mapping):
        return "did you mean its items(), its values(), or [record] for one record?"
    for has, rows in TABLES.items():
        if hasattr(source, has):
            return f"give its rows, {rows}; of a file, did you mean taktline.read(path)?"
    return ""


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except Exception as error:  # no length, or one that cannot be had: both mean that it is not known
        pass_on(error)
        return None
