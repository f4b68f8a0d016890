"""Files of Parquet, Arrow and ORC, read a row group at a time, by way of pyarrow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from operator import length_hint
from threading import local
from typing import Any

from taktline._arrow import records_of, row_as_text, rows_at
from taktline._excerpts import KEPT_CHARACTERS
from taktline._io import opening, place, remote
from taktline._io.changing import KnownFile, Unchanged, replaced
from taktline._io.delimited import check_drift
from taktline._io.fetched import CutHere, Fetched
from taktline._io.filters import Filters, columns_of, left, mask, may_match
from taktline._io.filters import check as check_filters
from taktline._io.ipc_files import IpcFile
from taktline._io.orc_files import OrcFile
from taktline._io.path_columns import Added, known
from taktline._io.remote import StoredObject
from taktline._io.splitting import ASK_TABLE, Cut, Cuts
from taktline._signals import pass_on
from taktline.abc import Part, Source, Splitter, Unread
from taktline.errors import LineError, SourceError, TaktlineError

BATCH = 4096  # rows that are decoded at once
LOOKED_AT = 32  # files that are looked at before the first record
TOGETHER = (
    65_536,
    8 << 20,
)  # rows and bytes, before they were packed, up to which small row groups are read as one table
# Bytes of a row group from which it is cut into several: its end is decoded by more than one worker then. Of many columns
# there are more, up to so many, so that each has at least `COLUMN` of them: what it costs by itself is little beside that.
APART, MOST_APART, COLUMN = 16 << 20, 64 << 20, 32 << 10

Columns = tuple[str, ...] | None
How = tuple[str, Columns, Added | None, Filters | None]  # the format; what is read of a file, and what is added to it
# What a file is known by, and when it was changed last; or the size of an object, and its tag.
State = tuple[KnownFile, int] | tuple[int, str]


class TableFiles(Source):
    """Files of one of these formats, one after the other, as one stream of dicts."""

    columns = True

    def __init__(
        self, name: str, patterns: Sequence[str], paths: list[str], columns: Columns, added: Mapping[str, Added],
        filters: Filters | None = None, format: str = "parquet",
    ) -> None:  # fmt: skip
        checked_pyarrow(called(format))
        self._format = format
        for path in paths:
            if path == opening.STANDARD_STREAM:
                raise LineError(f"{called(format)} is read from its end, which standard input cannot do; name a file")
            check_path(path, called(format))
        self._name = name
        self._paths = paths
        self._inputs = [place.Inputs(each, paths) for each in patterns]
        self._columns = columns
        self._added = added  # to the records of each file, by the name that is shown of it
        self._filters = filters
        self._read = [(path, *self._of(path)) for path in paths]

    def _of(self, path: str) -> tuple[Added | None, Filters | None]:
        """What is added to the records of a file, and which of its rows are read. Raises LineError."""
        more = self._added.get(remote.shown(path))
        return more, self._filters and left(self._filters, more.place if more is not None else {})

    @property
    def weight(self) -> int:
        """Bytes of the files."""
        return sum(map(opening.size, self._paths))

    def describe(self) -> str:
        return self._name

    def reads(self, path: str) -> bool:
        return any(each.has(path) for each in self._inputs)

    def fingerprint(self) -> Any:
        how = [self._columns, *([repr(self._filters)] if self._filters else [])]
        return [self._format, *how, opening.marks(self._paths), *known(self._added)]

    def untold(self) -> str:
        return opening.untold(self._paths)

    def look(self) -> Callable[[], bool] | None:
        return opening.looks_elsewhere(self._paths)

    def places(self) -> Splitter | None:
        return self.split()

    def __len__(self) -> int:
        if self._filters:
            raise TypeError("how many rows are wanted is known only when they are read")
        if any(remote.is_url(path) for path in self._paths):
            raise TypeError("to count the rows, every file would have to be asked for")
        total = 0
        for path in self._paths:
            with _opened(path, self._format) as (file, _):
                total += file.metadata.num_rows
        return total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._each(None)

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        return self._each(unread)

    def _each(self, unread: list[Unread] | None) -> Iterator[Any]:
        self._check_all()
        check = self._checking()
        for path, more, filters in self._read:
            if filters == ():
                continue
            with _opened(path, self._format) as (file, unchanged):
                name = remote.shown(path)
                check(name, file, filters)
                reading = Reading(file, name, self._columns, more, filters, unchanged)
                yield from reading.records(0, reading.rows, unread)

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return Cut(self._cuts(exact, unread)) if all(map(_is_for_workers, self._paths)) else None

    def split_columns(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return self.split(exact=exact, unread=unread) or CutHere(self._read_here(exact, unread))

    def _read_here(self, exact: bool, unread: list[Unread] | None) -> Cuts:
        """Of what workers cannot open, such as pages of the web: their rows in tables."""
        wanted = yield None
        check = self._checking()
        for path, more, filters in self._read:
            if filters == ():
                continue
            with _opened(path, self._format) as (file, unchanged):
                name, how = remote.shown(path), (self._format, self._columns, more, filters)
                check(name, file, filters)
                reading = Reading(file, name, self._columns, more, filters, unchanged)
                row = refused = 0  # up to there no table could be read
                while (row := reading.following(row)) < reading.rows:
                    if not wanted or row < refused:
                        wanted = yield reading.records(row, reading.rows, unread)
                        row = reading.row
                        continue
                    end = reading.border(row, wanted, exact=exact) if wanted != ASK_TABLE else reading.together(row)
                    table = reading.table_or_none(row, end)
                    if table is None:
                        refused = end
                        continue
                    wanted = yield RowsHere(path, row, end, how, table)
                    row = end

    def _cuts(self, exact: bool, unread: list[Unread] | None) -> Cuts:
        wanted = yield None
        self._check_all()
        check = self._checking()
        whole: frozenset[str] | None = None
        for path, more, filters in self._read:
            if filters == ():
                continue
            file, unchanged = _kept_open(path, self._format)
            name = remote.shown(path)
            check(name, file, filters)
            state = unchanged.known()
            reading, row = Reading(file, name, self._columns, more, filters, unchanged), 0
            while (row := reading.following(row)) < reading.rows:
                if wanted:
                    whole = self._whole() if whole is None else whole
                    end = reading.border(row, wanted, exact=exact) if wanted != ASK_TABLE else reading.together(row)
                    count = reading.count(row, end)
                    size = max(1, int(reading.weight(row) * count))
                    how = (self._format, self._columns, more, filters)
                    wanted = yield Rows(path, state, row, end, count, size, how, whole, reading)
                    row = end
                else:
                    wanted = yield reading.records(row, reading.rows, unread)
                    row = reading.row

    def _whole(self) -> frozenset[str]:
        """The columns without a null, as the files say; of objects it would take a request for each to ask them all."""
        if any(map(remote.is_url, self._paths)):
            return frozenset()
        kept: set[str] | None = None
        for path in self._paths:
            try:
                about = _opened_here(path, self._format)[0]
            except SourceError:  # told when it is its turn
                return frozenset()
            if _has_nothing(about):
                continue
            mine = _without_null(about.metadata, about.schema_arrow)
            kept = mine if kept is None else kept & mine
        constant = {
            name for name in self._names() if all(each.values[name] is not None for each in self._added.values())
        }
        return frozenset((kept or set()) | constant)

    def _check_all(self) -> None:
        """See before the first record that the first files, if they are here, have the same columns: others are told when
        it is their turn, as to look takes 2 ms a file. Raises SourceError."""
        if len(self._paths) < 2:
            return
        check = self._checking()
        for path, _, filters in self._read[:LOOKED_AT]:
            if filters == () or not opening.is_plain(path):
                continue
            try:
                file = _opened_here(path, self._format)[0]
            except SourceError:  # told when it is its turn
                continue
            check(path, file, filters)

    def _names(self) -> list[str]:
        """The columns that are added."""
        return [name for each in self._added.values() for name in each.values]

    def _checking(self) -> Any:
        """For one pass: what sees that each file has the columns that are to be read, of the kinds that the first one with
        values has. Raises SourceError."""
        first: list[tuple[str, list[str]]] = []
        kinds: dict[str, tuple[str, str, Any]] = {}  # of each column: its kind, and the file and type that say so

        def check(name: str, file: Any, filters: Filters | None) -> None:
            if _has_nothing(file):
                return
            header = file.schema_arrow.names
            first.append((name, header))
            read = header if self._columns is None else [each for each in header if each in self._columns]
            if twice := next((each for each in read if read.count(each) > 1), None):
                raise SourceError(
                    f"{name!r} has two columns named {twice!r}, and a record would hold one of them: name those to read by "
                    "columns=, or write the file with other names", path=name,
                )  # fmt: skip
            if (more := self._added.get(name)) is not None:
                more.check(header, name)
            if filters:
                check_filters(filters, file.schema_arrow, name)
            if self._columns is None:
                check_drift(*first[0], name, header)
            elif file.num_row_groups and (missing := [each for each in self._columns if each not in header]):
                raise SourceError(f"{name!r} has no column {missing[0]!r}; it has {', '.join(header)}", path=name)
            for field in file.schema_arrow:
                if (kind := _kind(field.type)) and (self._columns is None or field.name in self._columns):
                    known, where, there = kinds.setdefault(field.name, (kind, name, field.type))
                    if known != kind:
                        raise SourceError(
                            f"{name!r} has {field.name!r} as {field.type}, and {where!r} as {there}; name those to read by "
                            "columns=, or read the files apart", path=name,
                        )  # fmt: skip

        return check


class Rows(Part):
    """Consecutive rows of one file, or those of them that are wanted."""

    __slots__ = ("_count", "_end", "_first", "_how", "_path", "_reading", "_state", "size", "whole")

    def __init__(
        self, path: str, state: State, first: int, end: int, count: int, size: int, how: How, whole: frozenset[str],
        reading: Reading | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._state = state  # of the file
        self._first = first
        self._end = end
        self._count = count  # of the wanted ones among these
        self.size = size
        self._how = how
        self.whole = whole
        self._reading = reading  # where it was cut

    def __reduce__(self) -> Any:
        where = (self._path, self._state, self._first, self._end, self._count, self.size, self._how, self.whole)
        return Rows, where

    def __len__(self) -> int:
        return self._count

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        return self._on().records(self._first, self._end, unread)

    def table(self) -> Any:
        return self._on().table(self._first, self._end)

    def where(self, n: int) -> str:
        name, every = remote.shown(self._path), self._count == self._end - self._first
        return f"{name}, row {self._first + n:,}" if every else name

    def _on(self) -> Reading:
        return self._reading or _reading_on(self._path, self._state, self._how)


class RowsHere(Fetched):
    """Consecutive rows of an object of a store, or the wanted ones of them, which were read here."""

    __slots__ = ("_end", "_first", "_how", "_path")

    def __init__(self, path: str, first: int, end: int, how: How, table: Any) -> None:
        super().__init__(table)
        self._path = path
        self._first = first
        self._end = end
        self._how = how

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        format, columns, more, filters = self._how
        with _opened(self._path, format) as (file, unchanged):
            reading = Reading(file, remote.shown(self._path), columns, more, filters, unchanged)
            yield from reading.records(self._first, self._end, unread)

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, int):
            return super().__getitem__(at)
        (row,) = self._table.slice(range(len(self))[at], 1).to_batches()
        made = next(_made(row, None))
        return made.text if isinstance(made, _NoRecord) else made[0]

    def where(self, n: int) -> str:
        name = remote.shown(self._path)
        return f"{name}, row {self._first + n:,}" if len(self) == self._end - self._first else name


_newest = local()  # of a worker, which may be a thread: the file that it had a part of last, as far as it has read that


def _reading_on(path: str, state: State, how: How) -> Reading:
    """The file in a worker. Raises SourceError where it is another one."""
    format, columns, more, filters = how
    known = (path, state, columns, repr(filters))
    if getattr(_newest, "known", None) != known:
        file, unchanged = _kept_open(path, format)
        if not unchanged.is_what(state):
            raise replaced(remote.shown(path))
        _newest.reading = Reading(file, remote.shown(path), columns, more, filters, unchanged)
        _newest.known = known
    return _newest.reading  # type: ignore[no-any-return]


class Reading:
    """An open file that is read forward, one pass at a time. Rows that are passed over are decoded, for pyarrow cannot
    leave them out, but become no records; while rows are asked for in rising order, none is decoded twice."""

    def __init__(
        self, file: Any, name: str, columns: Columns, more: Added | None = None, filters: Filters | None = None,
        unchanged: Unchanged | StoredObject | None = None,
    ) -> None:  # fmt: skip
        self._file = file
        self._unchanged = unchanged  # None: of the web
        self._name = name
        self._columns = columns
        self._more = more
        self._filters = filters
        asked = columns_of(filters or ())
        self._decoded = None if columns is None else list(dict.fromkeys((*columns, *asked)))
        many = file.metadata.num_columns if self._decoded is None else len(self._decoded)
        self._apart = min(MOST_APART, max(APART, many * COLUMN))
        self._selected: tuple[int, Any] = (-1, None)  # a row group, and for each of its rows whether it is wanted
        counts = (file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))
        self._ends = list(accumulate(counts))  # of the row groups, as rows of the file
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None  # the newest one, of the rows
        self._start = self._next = 0  # from here to there
        self._weight = (-1, 0.0)
        self._given: Iterator[Any] = iter(())
        self._behind = 0
        self._places: list[int] | None = None  # of the records that are given, where others lie between them

    @property
    def rows(self) -> int:
        """How many the file has."""
        return self._ends[-1] if self._ends else 0

    @property
    def row(self) -> int:
        """The one behind the last record that was given."""
        waiting = length_hint(self._given)
        return self._places[-waiting] if self._places and waiting else self._behind - waiting

    def following(self, row: int) -> int:
        """The first row from here on that is wanted; the end where there is none."""
        while self._filters and row < self.rows:
            group, at = self._at(row)
            place = self._picked(group).slice(at).index(True).as_py()
            if place >= 0:
                return row + int(place)
            row = self._ends[group]
        return row

    def count(self, first: int, end: int) -> int:
        """How many of these rows are wanted."""
        if not self._filters:
            return end - first
        count = 0
        while first < end:
            group, at = self._at(first)
            stop = min(end, self._ends[group])
            count += self._picked(group).slice(at, stop - first).true_count
            first = stop
        return count

    def _at(self, row: int) -> tuple[int, int]:
        """The row group that has it, and its place in there."""
        group = bisect_right(self._ends, row)
        return group, row - self._starts(group)

    def _picked(self, group: int) -> Any:
        """For each row of a row group whether it is wanted: by its statistics, or by the columns that are asked."""
        if group != self._selected[0]:
            import pyarrow as pa

            assert self._filters
            if self._may_have(group):
                asked = self._file.read_row_group(group, columns=columns_of(self._filters), use_threads=False)
                self._check()
                self._selected = (group, mask(asked, self._filters))
            else:
                self._selected = (group, pa.repeat(pa.scalar(False), self._ends[group] - self._starts(group)))
        return self._selected[1]

    def border(self, row: int, wanted: int, *, exact: bool) -> int:
        """Where a part ends that begins here: with a row group where it may, so that few are decoded by two workers."""
        if self._filters:
            return self._border_among(row, wanted, exact=exact)
        end = min(row + wanted, self.rows)
        below = bisect_right(self._ends, end)
        last = self._ends[below - 1] if below else 0
        return last if last > row and not exact else end

    def _border_among(self, row: int, wanted: int, *, exact: bool) -> int:
        from pyarrow import compute

        while row < self.rows:
            group, at = self._at(row)
            places = compute.indices_nonzero(self._picked(group).slice(at))
            if len(places) >= wanted:
                return row + int(places[wanted - 1].as_py()) + 1
            wanted -= len(places)
            row = self._ends[group]
            if not exact:
                break
        return row

    def together(self, row: int) -> int:
        """Where a table ends that begins here: several small row groups, one, or a part of a large one."""
        group = bisect_right(self._ends, row)
        start, end = self._starts(group), int(self._ends[group])
        size = self.weight(row) * (end - start)
        if size > self._apart:
            each = -(-(end - start) // -(-int(size) // self._apart))
            return min(end, row + each)
        rows, most = TOGETHER
        while end - row < rows and size < most and end < self.rows:
            following = int(self._ends[bisect_right(self._ends, end)])
            size += self.weight(end) * (following - end)
            if size > self._apart:
                break
            end = following
        return end

    def _starts(self, group: int) -> int:
        return int(self._ends[group - 1]) if group else 0

    def weight(self, row: int) -> float:
        """Bytes of a row of the row group that has this one, before they were packed."""
        group = bisect_right(self._ends, row)
        if group != self._weight[0]:
            about = self._file.metadata.row_group(group)
            chunks = [about.column(n) for n in range(about.num_columns)]
            size = sum(each.total_uncompressed_size for each in chunks if self._reads(each.path_in_schema))
            self._weight = (group, size / about.num_rows)
        return self._weight[1]

    def _reads(self, path: str) -> bool:
        return self._decoded is None or any(f"{path}.".startswith(f"{each}.") for each in self._decoded)

    def table(self, first: int, end: int) -> Any:
        """The rows `first` to `end` as a Table of Arrow. Raises what reading them does."""
        import pyarrow as pa
        from pyarrow import compute

        pieces = []
        while first < end:
            group = bisect_right(self._ends, first)
            stop = min(end, self._ends[group])
            if not self._may_have(group):
                first = stop
                continue
            if first == self._starts(group) and stop == self._ends[group]:
                pieces.append(self._file.read_row_group(group, columns=self._decoded, use_threads=False))
                self._check()
                first = stop
                continue
            while first < stop:
                self._reach(group, first)
                upto = min(stop, self._next)
                pieces.append(pa.Table.from_batches([self._batch.slice(first - self._start, upto - first)]))
                first = upto
        table = pa.concat_tables(pieces)
        table = rows_at(table, compute.indices_nonzero(mask(table, self._filters))) if self._filters else table
        table = table if self._columns is None else table.select(list(self._columns))
        return table if self._more is None else self._more.onto(table)

    def table_or_none(self, first: int, end: int) -> Any:
        """The rows `first` to `end` as a Table of Arrow; None where they cannot be read so: one by one it is told why."""
        from pyarrow import ArrowException

        try:
            return self.table(first, end)
        except (ArrowException, ValueError, OverflowError, OSError, SourceError) as error:
            pass_on(error)
            self._group = -1
            return None

    def records(self, first: int, end: int, unread: list[Unread] | None = None) -> Iterator[Any]:
        """Those of the rows `first` to `end`. Raises SourceError with the row group, behind the records before it; with
        `unread`, a row that can be no record is an Unread in its place."""
        self._given, self._behind, self._places = iter(()), first, None
        return self._records(first, end, unread)

    def _records(self, first: int, end: int, unread: list[Unread] | None) -> Iterator[Any]:
        from pyarrow import ArrowException

        group = 0
        try:
            while first < end:
                group = bisect_right(self._ends, first)
                if not self._may_have(group):
                    first = self._ends[group]
                    continue
                self._reach(group, first)
                batch = self._batch.slice(first - self._start, min(end, self._next) - first)
                behind, places = first + batch.num_rows, None
                if self._filters:
                    batch, places = self._wanted(batch, first)
                for records in _made(batch, self._columns):
                    if isinstance(records, _NoRecord):
                        at = first if places is None else places[0]
                        records = [self._unread(records, group, at, unread)]
                    elif self._more is not None:
                        for record in records:
                            record.update(self._more.values)
                    if places is None:
                        first += len(records)
                    else:
                        self._places, places = places[: len(records)], places[len(records) :]
                        first = self._places[-1] + 1 if self._places else first
                    self._given, self._behind = iter(records), first
                    yield from self._given
                first = behind
        except TaktlineError:
            raise
        except (ArrowException, ValueError, OverflowError, OSError) as error:
            self._group = -1
            self._check()
            raise self._failed(group, min(first, self._next), error) from error

    def _may_have(self, group: int) -> bool:
        """Whether a row group may have a row that is wanted."""
        about = self._file.metadata.row_group(group)
        return not self._filters or may_match(self._filters, about, self._file.schema_arrow)

    def _wanted(self, batch: Any, first: int) -> tuple[Any, list[int]]:
        """The rows of a batch that are wanted, and where they are in the file."""
        from pyarrow import compute

        assert self._filters
        wanted = compute.indices_nonzero(mask(batch, self._filters))
        return rows_at(batch, wanted), [first + at for at in wanted.to_pylist()]

    def _unread(self, row: _NoRecord, group: int, place: int, unread: list[Unread] | None) -> Unread:
        if unread is None:
            raise row.error
        error = self._failed(group, place, row.error)
        error.__cause__ = row.error.with_traceback(None)
        unread.append(made := Unread(row.text, error))
        return made

    def _failed(self, group: int, row: int, error: Exception) -> SourceError:
        done = row - self._starts(group)
        what = getattr(self._file, "group_name", "row group")
        return SourceError(
            f"{self._name!r}, {what} {group}, cannot be read after its row {done:,}: {error}",
            path=self._name, group=group,
        )  # fmt: skip

    def _reach(self, group: int, row: int) -> None:
        """Have the batch with this row; each row group is decoded from its start."""
        if group != self._group or row < self._start:
            self._group = group
            self._start = self._next = self._starts(group)
            # One thread: beside it all cores are busy with steps.
            self._batches = self._file.iter_batches(BATCH, row_groups=[group], columns=self._decoded, use_threads=False)
        while row >= self._next:
            batch = next(self._batches, None)
            self._check()
            if batch is None:
                raise ValueError("there are no more, though the file says so")
            self._batch, self._start = batch, self._next
            self._next += batch.num_rows

    def _check(self) -> None:
        if self._unchanged is not None:
            self._unchanged.check(self._name)


def _kind(type: Any) -> str:
    """What the values of a column are, whatever their widths; empty where it has none."""
    from pyarrow import types

    type = type.value_type if types.is_dictionary(type) else type
    if types.is_null(type):
        return ""
    if types.is_integer(type) or types.is_floating(type) or types.is_decimal(type):
        return "number"
    name = str(type).partition("[")[0].partition("<")[0].removeprefix("large_").removeprefix("fixed_size_")
    return name.removesuffix("_view").rstrip("0123456789")


def _has_nothing(file: Any) -> bool:
    """Whether it has neither columns nor rows: what a run has written that had no results."""
    return not len(file.schema_arrow) and not file.metadata.num_rows


def _without_null(about: Any, schema: Any) -> set[str]:
    """Names of a file's columns that have no null, as its end says."""
    found = {field.name for field in schema if not field.nullable}
    open_to_question = set(schema.names) - found
    has: set[str] = set()
    for group in range(about.num_row_groups):
        for n in range(about.num_columns):
            chunk = about.row_group(group).column(n)
            counts = chunk.statistics
            if counts is None or not counts.has_null_count or counts.null_count:
                has.add(chunk.path_in_schema)
    return found | {name for name in open_to_question if not any(f"{path}.".startswith(f"{name}.") for path in has)}


class _NoRecord:
    """A row that can be no record."""

    def __init__(self, row: Any, error: Exception) -> None:
        self.error = error
        self.text = row_as_text(row, KEPT_CHARACTERS)


def _made(batch: Any, columns: Columns) -> Iterator[list[Any] | _NoRecord]:
    """Rows as records, some at once; each row that cannot be one by itself."""
    from pyarrow import ArrowException

    try:
        records = records_of(batch)
    except (ArrowException, ValueError, OverflowError) as error:
        if batch.num_rows < 2:
            yield _NoRecord(batch, error)
            return
        half = batch.num_rows // 2
        yield from _made(batch.slice(0, half), columns)
        yield from _made(batch.slice(half), columns)
        return
    yield records if columns is None else [{key: each[key] for key in columns} for each in records]


@contextmanager
def _opened(path: str, format: str) -> Iterator[tuple[Any, Unchanged | None]]:
    """pyarrow's ParquetFile of a path or URL, or what stands for one. Raises SourceError where it is none."""
    if not remote.is_url(path):
        yield _opened_here(path, format)
        return
    with remote.opened(path) as place, _file(place, path, format) as file:
        yield file, None


def _is_for_workers(path: str) -> bool:
    """Whether workers can open it too."""
    return remote.is_for_all(path) if remote.is_url(path) else opening.is_plain(path)


def _kept_open(path: str, format: str) -> tuple[Any, Any]:
    """What workers can open too, open for as long as somebody has it, and what it is known by there."""
    if not remote.is_url(path):
        return _opened_here(path, format)
    stored = StoredObject(path)
    return _file(stored.stream, path, format), stored


def _opened_here(path: str, format: str) -> tuple[Any, Unchanged]:
    """A file of this format at a path, closed when nobody has it any more."""
    from pyarrow import OSFile

    try:
        place = OSFile(path)
    except OSError as error:
        raise _not_readable(path, format, error) from error
    unchanged = Unchanged(place)
    return _file(place, path, format), unchanged


def _file(place: Any, path: str, format: str) -> Any:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        # Reading ahead has threads of its own, beside which no worker can be forked: only where there is something to gain.
        if format == "parquet":
            return ParquetFile(place, pre_buffer=remote.is_url(path))
        return OrcFile(place) if format == "orc" else IpcFile(place)
    except (ArrowException, OSError, ValueError) as error:
        raise _not_readable(path, format, error) from error


def _not_readable(path: str, format: str, error: Exception) -> SourceError:
    name = remote.shown(path)
    return SourceError(f"{name!r} cannot be read as {called(format)}: {error}", path=name)


def called(format: str) -> str:
    """A format of columns, as people write it."""
    return "ORC" if format == "orc" else format.capitalize()


def check_path(path: str, format: str = "Parquet") -> None:
    if opening.packing_of(path):
        raise LineError(
            f"{remote.shown(path)!r}: {format} packs its own columns; write and read it without a second suffix"
        )


def checked_pyarrow(format: str = "Parquet") -> Any:
    try:
        import pyarrow
    except ImportError:
        raise LineError(f"{format} needs the package pyarrow: pip install 'taktline[parquet]'") from None
    return pyarrow
