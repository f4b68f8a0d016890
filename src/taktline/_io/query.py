"""The rows of a query: as a whole, by pages of a key, or by ranges of the key that workers read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import chain, islice
from time import monotonic
from typing import Any, NamedTuple

from taktline._excerpts import excerpt
from taktline._io import as_table
from taktline._io.connecting import connected
from taktline._io.database import (
    POSTGRES,
    Database,
    Unreachable,
    database_file,
    derived_table,
    known_as,
    quoted,
    shown_url,
)
from taktline._io.fetched import CutHere, Fetched
from taktline._io.place import same
from taktline._io.splitting import ASK_TABLE, Cut, Cuts
from taktline.abc import Part, Sink, Source, Splitter, Unread
from taktline.errors import LineError, SourceError

PAGE = 10_000  # rows that are read by key at once, and of a table
FEW = 32  # rows of a part, below which it takes longer to look for its end than to read it
SECTION = 10  # pages that are read through one snapshot at most: the server must keep old rows for it
SECONDS = 60.0  # after which it ends with the page
ROW = 256  # bytes of one, as long as none is known
SAMPLE = 100  # rows whose size is taken for that of all
COUNT = "count(*) AS n"

Key = tuple[Any, ...]  # values of the key's columns; empty: before the first row, or behind the last


class Query(Source):
    """As `read_sql` has it."""

    shared = True

    @property
    def columns(self) -> bool:  # type: ignore[override]
        return as_table.is_there()

    def __init__(self, url: str, query: str, key: Sequence[str], after: Key, *, aside: bool = False) -> None:
        self._url = url
        self._query = query
        self._key = key
        self._after = after
        self._aside = aside  # the rows are put aside before the first one is given: no lock is held then
        self._process = os.getpid()  # the caller's, in its workers too

    def beside(self, sink: Sink, *, journal: bool) -> Source:
        file = database_file(self._url)
        if file is None or not any(same(file, each) for each in sink.writes()):
            return self
        table = getattr(sink, "table", None)
        if journal and table is not None and self._reads_table(table):
            raise LineError(
                f"this run writes to the table that it reads, {table!r}, so one that goes on from its journal would read its "
                "own results; write to another table, or leave the journal out"
            )
        return Query(self._url, self._query, self._key, self._after, aside=True)

    def _reads_table(self, table: str) -> bool:
        with closing(self._connect()) as database:
            try:
                return table.rpartition(".")[2].lower() in database.reads(self._query)
            except database.errors:  # whoever reads says what is wrong with it
                return False

    def reads(self, path: str) -> bool:
        file = database_file(self._url)
        return file is not None and same(file, path)

    def describe(self) -> str:
        return f"{shown_url(self._url)}: {excerpt(self._query)}"

    def fingerprint(self) -> Any:
        # Rows that are read by key may get more behind them. Without one, any change may move all of them.
        count = None if self._key else self._count()
        return [known_as(self._url), self._query, list(self._key), list(self._after), count]

    def untold(self) -> str:
        return f"whether rows of {shown_url(self._url)!r} have other values"

    def _count(self) -> int:
        with closing(self._connect()) as database:
            try:
                count: int = database.fetch(f"SELECT count(*) AS n FROM {derived_table(self._query)}")[0]["n"]
            except database.errors as error:
                raise self._failed(database.why(error), 0) from error
            return count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with closing(self._connect()) as database:
            yield from self._rows(database, _PassPlace(self._key, self._after))

    def _rows(self, database: Database, place: _PassPlace) -> Iterator[dict[str, Any]]:
        """All rows from a place on; it moves with them."""
        if self._aside:
            rows = self._put_aside(database, place.last)
        else:
            rows = self._paged(database, place) if self._key else database.stream(self._query)
        with closing(rows):
            try:
                for row in rows:
                    place.row = row
                    place.count += 1
                    yield row
            except database.errors as error:
                raise self._failed(database.why(error), place.count) from error
        place.over = True

    def _connect(self) -> Database:
        try:
            return connected(self._url, writing=False)
        except Unreachable as error:
            raise self._out_of_reach(error) from error

    def _out_of_reach(self, error: Unreachable) -> SourceError:
        return SourceError(f"{shown_url(self._url)!r} cannot be reached: {error}")

    def _failed(self, why: str, count: int) -> SourceError:
        return SourceError(
            f"{shown_url(self._url)!r}: the query failed after {count:,} rows: {why}\n  query   {excerpt(self._query)}",
            index=count,
        )

    def _put_aside(self, database: Database, after: Key) -> Generator[dict[str, Any], None, None]:
        if not self._key:
            return database.aside(self._query, ())
        self._refuse_nulls(database)
        return self._without_twins(database.aside(self._select(database, "*", after, ()), after))

    def _without_twins(self, rows: Iterator[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
        last: Key = ()
        for row in rows:
            following = self._key_in(row)
            self._refuse_twins(last, following)
            yield row
            last = following

    # --- by pages ---

    def _paged(self, database: Database, place: _PassPlace) -> Generator[dict[str, Any], None, None]:
        self._refuse_nulls(database)
        yield from place.page
        while True:
            self._begin_page(place)
            query = self._select(database, "*", place.last, (), f"LIMIT {PAGE + 1}")
            rows = database.fetch(query, place.last)
            self._key_of(rows[:1])  # SQLite takes the name of a column that is not there for a text
            place.page, place.following = iter(rows[:PAGE]), self._key_of(rows[PAGE:])
            yield from place.page
            if not place.following:
                return

    def _key_of(self, rows: Sequence[dict[str, Any]]) -> Key:
        return self._key_in(rows[0]) if rows else ()

    def _key_in(self, row: dict[str, Any]) -> Key:
        try:
            return tuple(row[name] for name in self._key)
        except KeyError as error:
            raise SourceError(
                f"{shown_url(self._url)!r}: key={error.args[0]!r} is not among the columns of the query: {', '.join(row)}"
            ) from None

    def _end_page(self, database: Database, place: _PassPlace) -> None:
        """Have the rest of a page that was begun, in the view of this connection."""
        if place.count % PAGE:
            self._have_page(database, place)

    def _have_page(self, database: Database, place: _PassPlace) -> bool:
        """Have the rows up to the end of a page, in the view of this connection; whether there are any."""
        left = PAGE - place.count % PAGE
        try:
            query = self._select(database, "*", place.last, (), f"LIMIT {left + 1}")
            rows = database.fetch(query, place.last)
        except database.errors as error:
            raise self._failed(database.why(error), place.count) from error
        place.page, place.following = iter(rows[:left]), self._key_of(rows[left:])
        return bool(rows)

    def _begin_page(self, place: _PassPlace) -> None:
        if place.following:
            self._refuse_twins(place.last, place.following)
        place.following = ()

    def _select(self, database: Database, what: str, after: Key, upto: Key, limit: str = "") -> str:
        query, key, where = self._query, quoted(*self._key), ""
        if after or upto:
            query, key = database.literal(query), database.literal(key)
            places = ", ".join([database.placeholder] * len(self._key))
            bounds = [f"({key}) > ({places})"] * bool(after) + [f"({key}) <= ({places})"] * bool(upto)
            where = f" WHERE {' AND '.join(bounds)}"
        order = f" ORDER BY {key} {limit}" if what != COUNT else ""
        return f"SELECT {what} FROM {derived_table(query)}{where}{order}"

    def _refuse_twins(self, last: Key, following: Key) -> None:
        if last == following:  # the rest of them would be lost between two pages
            raise SourceError(
                f"{shown_url(self._url)!r}: several rows have the key {excerpt(last)}; give columns that are unique"
            )

    def _refuse_nulls(self, database: Database) -> None:
        # Nothing is greater than a null, so the rows that have one would never come.
        empty = " OR ".join(f"{quoted(name)} IS NULL" for name in self._key)
        if rows := database.fetch(f"SELECT * FROM {derived_table(self._query)} WHERE {empty} LIMIT 1"):
            raise SourceError(
                f"{shown_url(self._url)!r}: the key is null in {excerpt(rows[0])}; "
                "leave such rows out by a condition in the query"
            )

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        # SQLite's connections cannot share a view. A server's can, and there the caller would wait for every page.
        return Cut(self._ranges(tables=False)) if self._in_ranges else None

    def split_columns(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return Cut(self._ranges(tables=True)) if self._in_ranges else CutHere(self._tables())

    @property
    def _in_ranges(self) -> bool:
        return bool(self._key) and self._url.startswith(POSTGRES)

    # --- as tables that are made here ---

    def _tables(self) -> Cuts:
        wanted = yield None
        with closing(self._connect()) as database:
            yield from self._alone(database, _PassPlace(self._key, self._after), wanted, tables=True)

    def _alone(
        self, database: Database, place: _PassPlace, wanted: int, *, tables: bool
    ) -> Generator[Part | Iterator[Any], int, None]:
        """All that is left, to be read by the caller; `tables`: whose rows workers get in columns."""
        rows = self._rows(database, place)
        while not place.over:
            if not (tables and wanted):
                wanted = yield chain(
                    rows
                )  # one that is left closes nothing: a page is not asked for again for each batch
                continue
            some, error = list[dict[str, Any]](), None
            try:
                some.extend(islice(rows, PAGE if wanted == ASK_TABLE else wanted))
            except SourceError as failed:  # behind those that came
                error = failed
            if some:
                wanted = yield _fetched(some)
            if error is not None:
                raise error

    # --- by ranges of the key ---

    def _ranges(self, *, tables: bool) -> Cuts:
        wanted = yield None
        place, section = _PassPlace(self._key, self._after), None
        with closing(self._connect()) as database:
            try:
                while not place.over:
                    if not wanted:
                        if section is not None:
                            self._end_page(section.database, place)
                        wanted, section = (yield self._rows(database, place)), None
                        continue
                    wanted = PAGE if wanted == ASK_TABLE else wanted
                    if rest := list(islice(place.page, wanted)):  # of a page that was begun: it is of one view
                        place.took(rest)
                        wanted = yield _fetched(rest) if tables else _Rest(rest, place.row_size)
                        continue
                    self._begin_page(place)
                    if section is None or section.left(place.count) <= 0:
                        section = self._section(place)
                    if section is None:
                        yield from self._alone(database, place, wanted, tables=tables)
                        return
                    if tables and wanted < FEW:
                        if not self._have_page(section.database, place):
                            return
                        continue
                    bounds = self._range(section.database, place, min(wanted, section.left(place.count)))
                    if not bounds.rows:
                        return
                    before = place.count
                    place.passed(bounds)
                    wanted = yield KeyRange(self, bounds, before, section)
            finally:
                section = None  # though a traceback may keep this frame

    def _section(self, place: _PassPlace) -> _Section | None:
        """None where no other connection can have its view, or there is none to be had: a pooler may stand before the
        server, or before several. What ails the server itself is found by who reads on alone."""
        try:
            database = connected(self._url, writing=False)
        except Unreachable:
            return None
        refused: tuple[type[Exception], ...] = (Unreachable, *database.errors)
        try:
            section = _Section(database, place.count)
            if not place.row_size:
                with closing(connected(self._url, writing=False)) as other:
                    other.fetch_in(section.snapshot, "SELECT 1 AS one", ())
        except refused:
            database.close()
            return None
        if not place.row_size:
            self._sample(database, place)
        return section

    def _sample(self, database: Database, place: _PassPlace) -> None:
        """Find the size of a row."""
        try:
            self._refuse_nulls(database)
            rows = database.fetch(self._select(database, "*", place.last, (), f"LIMIT {SAMPLE}"), place.last)
            place.row_size = 1 + len(pickle.dumps(rows)) // max(1, len(rows))
        except BaseException as error:
            database.close()
            if isinstance(error, database.errors):
                raise self._failed(database.why(error), place.count) from error
            raise

    def _range(self, database: Database, place: _PassPlace, rows: int) -> KeyBounds:
        """So many rows, or all that are left."""
        after = place.last
        try:
            query = self._select(database, quoted(*self._key), after, (), f"LIMIT 2 OFFSET {rows - 1}")
            found = [tuple(row.values()) for row in database.fetch(query, after)]
            if not found:
                query = self._select(database, COUNT, after, ())
                rows = database.fetch(query, after)[0]["n"]
        except database.errors as error:
            raise self._failed(database.why(error), place.count) from error
        if len(found) > 1:
            self._refuse_twins(*found)
        return KeyBounds(after, found[0] if found else (), rows, rows * place.row_size)

    def within(self, bounds: KeyBounds, before: int, snapshot: str, cut_by: Database | None) -> list[dict[str, Any]]:
        """The rows of a range, as they are in a snapshot: read by the connection that has it, or by one of this process's
        own, which a worker keeps for its next ranges. Raises SourceError, which tells of the rows `before`."""
        database = cut_by or self._own()
        query, values = self._select(database, "*", bounds.after, bounds.upto), bounds.after + bounds.upto
        try:
            rows = database.fetch(query, values) if cut_by else database.fetch_in(snapshot, query, values)
        except database.errors as error:
            if cut_by is None:
                self._let_go(database)
            raise self._failed(database.why(error), before) from error
        if cut_by is None and self._is_callers:
            self._let_go(database)
        if len(rows) != bounds.rows:
            why = f"{len(rows):,} rows where {bounds.rows:,} were counted: it gives others each time"
            raise self._failed(why, before)
        return rows

    @property
    def _is_callers(self) -> bool:
        """Whether this is the caller's process, which may go on long after the run."""
        return os.getpid() == self._process

    def _own(self) -> Database:
        try:
            return _workers_own(self._url, os.getpid()) if not self._is_callers else connected(self._url, writing=False)
        except Unreachable as error:
            raise self._out_of_reach(error) from error

    def _let_go(self, database: Database) -> None:
        database.close()
        _workers_own.cache_clear()


class KeyBounds(NamedTuple):
    """Rows behind one key, up to and with another one, and their size in bytes."""

    after: Key
    upto: Key
    rows: int
    size: int


class _PassPlace:
    """How far a pass has come."""

    def __init__(self, key: Sequence[str], after: Key) -> None:
        self._key = key
        self._last = after
        self.row: dict[str, Any] | None = None  # the last one, where it is not told by its key
        self.page: Iterator[dict[str, Any]] = iter(())  # rows that were read, and not given yet
        self.following: Key = ()  # of the row behind them
        self.count = 0
        self.row_size = 0  # bytes of the pickle of one; 0: not known yet
        self.over = False

    @property
    def last(self) -> Key:
        return self._last if self.row is None else tuple(self.row[name] for name in self._key)

    def took(self, rows: Sequence[dict[str, Any]]) -> None:
        self.row = rows[-1]
        self.count += len(rows)

    def passed(self, bounds: KeyBounds) -> None:
        self._last, self.row = bounds.upto, None
        self.count += bounds.rows
        self.over = not bounds.upto


class _Section:
    """A connection with a snapshot that others read through, for as long as there are parts of it. It ends with a page,
    counted from the first row of the pass, whatever size the parts have: so each page is of one view, whoever reads."""

    def __init__(self, database: Database, count: int) -> None:
        self.database = database
        self._least, self._most = ((count // PAGE + pages) * PAGE for pages in (1, SECTION))  # rows
        self._began = monotonic()
        self._process = os.getpid()
        self.snapshot = database.snapshot()

    def left(self, count: int) -> int:
        """How many rows may come from it behind so many."""
        late = monotonic() - self._began > SECONDS
        return (max(-(-count // PAGE) * PAGE, self._least) if late else self._most) - count

    def __del__(self) -> None:
        if os.getpid() == self._process:  # else it is another's connection
            self.database.close()


class _Rest(Part):
    """Rows that are here already."""

    __slots__ = ("_rows", "size")

    def __init__(self, rows: list[dict[str, Any]], row_size: int) -> None:
        self._rows = rows
        self.size = len(rows) * (row_size or ROW)

    def __reduce__(self) -> Any:
        return _Rest, (self._rows, self.size // len(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, unread: list[Unread] | None = None) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def table(self) -> Any:
        return as_table.of_rows(self._rows)


def _fetched(rows: list[dict[str, Any]]) -> Part:
    """Rows that are here, in columns where these hold them exactly."""
    try:
        return Fetched(as_table.of_rows(rows))
    except as_table.refused():
        return _Rest(rows, 0)


class KeyRange(Part):
    """The rows of a range of keys. A pickle of it tells the range, and the snapshot to read it in."""

    __slots__ = ("_before", "_bounds", "_got", "_query", "_section", "_snapshot", "size")

    def __init__(self, query: Query, bounds: KeyBounds, before: int, section: _Section | str) -> None:
        self._query = query
        self._bounds = bounds
        self._before = before  # rows
        self._section = section if isinstance(section, _Section) else None  # where it was cut
        self._snapshot = section.snapshot if isinstance(section, _Section) else section
        self._got: list[dict[str, Any]] | None = None  # rows that have no columns
        self.size = bounds.size

    def __reduce__(self) -> Any:
        return KeyRange, (self._query, self._bounds, self._before, self._snapshot)

    def __len__(self) -> int:
        return self._bounds.rows

    def read(self, unread: list[Unread] | None = None) -> Iterator[dict[str, Any]]:
        rows, self._got = self._got, None
        yield from self._rows() if rows is None else rows

    def table(self) -> Any:
        rows = self._rows()
        try:
            return as_table.of_rows(rows)
        except as_table.refused():
            self._got = rows
            raise

    def _rows(self) -> list[dict[str, Any]]:
        database = self._section.database if self._section is not None else None
        try:
            return self._query.within(self._bounds, self._before, self._snapshot, database)
        except SourceError:
            self._section = None  # though the traceback may keep this part
            raise


@cache
def _workers_own(url: str, process: int) -> Database:
    """The connection of a worker, for the ranges that it reads: it ends with the worker."""
    return connected(url, writing=False)
