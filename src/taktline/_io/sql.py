"""Rows of databases, written into a table; the door to reading them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from taktline._arrow import in_microseconds
from taktline._io.column_types import results_of
from taktline._io.connecting import connected
from taktline._io.database import (
    POSTGRES,
    SQLITE,
    Database,
    RowRefused,
    Unreachable,
    database_file,
    known_as,
    over_the_same,
    quoted,
    quoted_table,
    shown_url,
)
from taktline._io.plain import PLAIN_TYPES, plain
from taktline._io.query import Query
from taktline._public import named
from taktline.abc import Resumable, Source
from taktline.errors import LineError, OutputLost, ResumeError, SinkError, SourceNotFound, did_you_mean, unwritable

LOT = 5_000  # results that go to the database at once
MARKS = "taktline_marks"  # the table of how far each run with a journal has come


def read_sql(url: str, query: str, key: str | Sequence[str] | None = None, after: Any = None) -> Source:
    """The rows of a query as dicts by column, from `sqlite:///path.db` or `postgresql://user@host/database`.

    Without `key` it is one query and one snapshot, fetched some rows at a time. With `key`, one or several columns that
    are unique and never null, the rows come in its order and by pages of 10,000, each a short query of its own: no lock
    is held meanwhile, and a run can go on `after` a key that is done. An index on the key makes pages cheap. PostgreSQL's
    are read by workers, where there are some, on connections of their own; by the caller where the server, or a pooler
    before it, shares no snapshot or has no connections for them.

    What others change meanwhile: the rows of each page, counted from the first row, are as they were at one moment, those of
    a later page as at the same or a later one, whatever technique reads them; a row that keeps its key comes once. A
    snapshot lasts for ten pages at most, and after a minute to the end of its page.

    A run may write to the file of SQLite that it reads: its rows are put aside in a temporary file at the beginning, so it
    reads what was there then, whatever it writes, to the same table too. With a journal it must be another table.

    Raises LineError for a URL that cannot be read, SourceNotFound for a missing file, and SourceError while iterating.

    >>> import sqlite3, tempfile
    >>> path = tempfile.mkdtemp() + "/shop.db"
    >>> with sqlite3.connect(path) as shop:
    ...     _ = shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount INT)")
    ...     _ = shop.execute("INSERT INTO orders VALUES (1, 30), (2, 50)")
    >>> list(read_sql(f"sqlite:///{path}", "SELECT * FROM orders WHERE amount > 40", key="id"))
    [{'id': 2, 'amount': 50}]
    """
    _check(url, SourceNotFound)
    if not isinstance(query, str) or not query.strip():
        raise LineError("read_sql() takes a URL and a query, such as 'SELECT * FROM orders'")
    keys = _names(key)
    values = () if after is None else tuple(after) if isinstance(after, (tuple, list)) else (after,)
    if values and len(values) != len(keys):
        raise LineError(f"after= takes a value for each column of key=: {len(keys)}, not {len(values)}")
    return Query(url, query.strip().rstrip(";"), keys, values)


def write_sql(url: str, table: str, key: str | Sequence[str] | None = None) -> Resumable:
    """A sink that puts results, dicts by column, into a table of SQLite or PostgreSQL.

    A table that is not there is made of the first results, up to 5,000: their keys are its columns, their values say of
    which type, and `key` is its primary key. So is the file of SQLite. A run that fails leaves neither.
    With `key`, the columns of a unique index, a result takes the place of the row with the same key; without, rows are
    added. Scalars of NumPy go in as the Python values they are, NA and NaT as NULL; SQLite gets dates as ISO text, and
    keeps NaN as NULL. What goes into a column of PostgreSQL's json or jsonb is written as JSON: a list, a text, a number too.
    Everything becomes visible at once, when the run has ended well; with a journal in steps, as the run is marked: each mark
    is kept in the table `taktline_marks`, in the same transaction as its rows.

    Raises LineError for a URL that cannot be written, and SinkError while running.

    >>> import sqlite3, tempfile
    >>> from taktline import line
    >>> path = tempfile.mkdtemp() + "/shop.db"
    >>> with sqlite3.connect(path) as shop:
    ...     _ = shop.execute("CREATE TABLE squares (n INTEGER PRIMARY KEY, square INT)")
    >>> report = line(lambda n: {"n": n, "square": n * n}).run([1, 2, 2], write_sql(f"sqlite:///{path}", "squares", "n"))
    >>> list(read_sql(f"sqlite:///{path}", "SELECT * FROM squares"))
    [{'n': 1, 'square': 1}, {'n': 2, 'square': 4}]
    """
    _check(url, LineError)
    if not isinstance(table, str):
        raise LineError(f"write_sql() takes a URL and the name of a table, not {type(table).__name__}")
    return _Table(url, table, _names(key))


class _Table(Resumable):
    visible = True
    shared = True
    takes_failed = False
    tables = True

    def __init__(self, url: str, table: str, key: Sequence[str]) -> None:
        self._url = url
        self._name = self.table = table
        self._table = quoted_table(table)
        self._key = key
        self.keyed = bool(key)
        self._database: Database | None = None
        self._run: str | None = None
        self._forget()

    def _forget(self) -> None:
        self._columns: tuple[str, ...] = ()
        self._key_at: list[int] = []  # among them
        self._by_type: Mapping[str, Callable[[Any], Any]] = {}  # how values of some of the table's columns are given
        self._waiting: list[Any] = []
        self._count = 0  # results that were given to the database,
        self._saved = 0  # and of those that the newest mark tells of

    def describe(self) -> str:
        return f"{shown_url(self._url)}: {self._name}"

    def writes(self) -> list[str]:
        file = database_file(self._url)
        return [file] if file is not None else []

    def open(self) -> None:
        self._run = None
        self._connect()

    def write(self, results: Sequence[Any]) -> None:
        self._waiting.extend(results)
        if len(self._waiting) >= LOT:
            self._flush()

    def write_table(self, table: Any) -> None:
        """The rows by way of their columns: no dict is made of a row, but of those that tell what the database's table is,
        and where something is to be told of one."""
        for at in range(0, table.num_rows, LOT):
            some = table.slice(at, LOT)
            cells = self._cells(some) if self._columns and not self._makes else None
            if cells is None:
                self.write(results_of(some, self._count + len(self._waiting), self._form))
                self._flush()
                continue
            self._flush()
            with self._told() as database:
                try:
                    database.insert(self._table, self._columns, self._key, list(zip(*cells, strict=True)))
                except RowRefused as refused:
                    raise self._refused(results_of(some, self._count, self._form), refused) from refused
            self._count += some.num_rows

    def _cells(self, table: Any) -> list[list[Any]] | None:
        """The values of each column; None where a row cannot be written."""
        assert self._database is not None
        if sorted(table.schema.names) != sorted(self._columns):
            return None
        if any(table.column(self._columns[at]).null_count for at in self._key_at):
            return None
        made = []
        try:
            for name in self._columns:
                values = in_microseconds(table.select([name])).column(0).to_pylist()
                if name in self._by_type or not PLAIN_TYPES.issuperset(map(type, values)):
                    given = self._by_type.get(name, self._database.value)
                    values = [given(value) for value in values]
                made.append(values)
        except (ValueError, OverflowError):  # told by its row
            return None
        return made

    def commit(self) -> None:
        self._flush()
        with self._told("They were not confirmed: look whether they are there") as database:
            if self._run is not None:
                self._mark(database, "results = {0}, finished = 1", self._count)
            database.commit()
        self._close()

    def abort(self) -> None:
        self._close()

    def begin(self, run: str) -> None:
        self._connect()
        self._run = run
        with self._told() as database:
            _make_marks(database)
            rows = self._marked(database)
            if rows and rows[0]["results"]:
                raise ResumeError(f"{self.describe()} already has results of the run {run!r}")
            if not rows:
                places = ", ".join([database.placeholder] * 4)
                database.execute(f"INSERT INTO {MARKS} VALUES ({places})", (run, None, 0, 0))
            database.commit()

    def save(self, mark: str) -> Any:
        self._flush()
        with self._told() as database:
            self._mark(database, "results = {0}, mark = {0}", self._count, mark)
            database.commit()
        return {"results": self._count}

    def resume(self, run: str, position: Any) -> str | None:
        self._connect()
        self._run = run
        with self._told() as database:
            _make_marks(database)
            rows = self._marked(database)
        saved = (position or {}).get("results", 0)
        if not rows or rows[0]["results"] < saved:
            there = f"{rows[0]['results']:,}" if rows else "none"
            self._close()
            raise OutputLost(
                path=self.describe(),
                why=f"{self.describe()} was given {saved:,} results of this run and has {there}: it is another database, or "
                "an older copy of it",
            )
        self._count = self._saved = rows[0]["results"]
        mark: str | None = rows[0]["mark"]
        return mark

    def suspend(self) -> None:
        self._close()

    def fingerprint(self) -> Any:
        return [known_as(self._url), self._name, list(self._key)]

    def finished(self, run: str, position: Any) -> bool:
        self._connect()
        self._run = run
        with self._told() as database:
            _make_marks(database)
            rows = self._marked(database)
        self._close()
        return bool(rows and rows[0]["finished"])

    def is_gone(self, run: str, position: Any) -> str:
        if self.finished(run, position):
            return ""
        return f"{self.describe()} was given the results of this run, and does not know of it any more"

    def _marked(self, database: Database) -> list[dict[str, Any]]:
        return database.fetch(f"SELECT * FROM {MARKS} WHERE run = {database.placeholder}", (self._run,))

    def _mark(self, database: Database, what: str, *values: Any) -> None:
        """Raises SinkError where it is not this process any more that goes on with the run: what it has written since its
        last mark is in the same transaction, and goes with it."""
        place = database.placeholder
        mine = f"run = {place} AND results = {place}"
        if not database.execute(
            f"UPDATE {MARKS} SET {what.format(place)} WHERE {mine}", (*values, self._run, self._saved)
        ):
            raise SinkError(
                f"{self.describe()}: another attempt has gone on with this run behind {self._saved:,} results. None of those "
                "that this one has written since is in the table."
            )
        self._saved = self._count

    def _connect(self) -> None:
        self._forget()
        try:
            self._database = connected(self._url, writing=True)
        except Unreachable as error:
            raise SinkError(f"{shown_url(self._url)!r} cannot be reached: {error}") from error
        try:
            self._makes = not self._database.has(self._table)  # the table, of the first results
            self._known = [] if self._makes else self._database.columns(self._table)
            self._by_type = {} if self._makes else self._database.by_type(self._table)
            if (
                self._key and not self._makes
            ):  # a key without a unique index is refused here, and not after hours of work
                key, over = quoted(*self._key), over_the_same(self._key, self._key)
                none = f"SELECT {key} FROM {self._table} WHERE 1 = 0"
                self._database.execute(f"EXPLAIN INSERT INTO {self._table} ({key}) {none}{over}")
        except self._database.errors as error:
            why = self._database.why(error)
            self._close()
            raise SinkError(f"{self.describe()} cannot be written: {why}") from error

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        values = [self._values(self._count + at, row) for at, row in enumerate(rows)]
        with self._told() as database:
            if self._makes:
                self._make_table(database, rows)
            try:
                database.insert(self._table, self._columns, self._key, values)
            except RowRefused as refused:
                raise self._refused(rows, refused) from refused
        self._count += len(rows)

    def _make_table(self, database: Database, rows: Sequence[dict[str, Any]]) -> None:
        """Of the first results. Raises SinkError with the first one that has another type of value than those before it."""
        columns = []
        for name in self._columns:
            cells = [plain(row[name]) for row in rows]
            try:
                kind = database.kind(cells)
            except ValueError as error:
                at = next(n for n in range(len(cells)) if not _is_of_a_kind(database, cells[: n + 1]))
                why = f"no table can be made of the results up to it, for its {name!r}: {error}"
                raise self._unwritable(self._count + at, rows[at], why) from error
            columns.append(f"{quoted(name)} {kind}".rstrip())
        if self._key:
            columns.append(f"PRIMARY KEY ({quoted(*self._key)})")
        database.execute(f"CREATE TABLE {self._table} ({', '.join(columns)})")
        self._makes = False
        self._by_type = database.by_type(self._table)

    def _values(self, number: int, row: Any) -> tuple[Any, ...]:
        if not isinstance(row, dict):
            raise self._unwritable(number, row, f"it is {type(row).__name__}, not dict")
        if not self._columns:
            self._choose_columns(number, row)
        if more := [name for name in row if name not in self._columns]:
            raise self._unwritable(number, row, f"its key {more[0]!r} is not among those of the first result")
        try:
            values = tuple([row[name] for name in self._columns])
        except KeyError as error:
            raise self._unwritable(number, row, f"it lacks {error}, which the first result has") from error
        if self._by_type or not PLAIN_TYPES.issuperset(map(type, values)):
            values = self._plain(number, row, values)
        if empty := [self._columns[at] for at in self._key_at if values[at] is None]:
            raise self._unwritable(number, row, f"its key {empty[0]!r} is None, and equal to no other")
        return values

    def _plain(self, number: int, row: dict[Any, Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self._database is not None
        made = []
        for name, value in zip(self._columns, values, strict=True):
            try:
                made.append(self._by_type.get(name, self._database.value)(value))
            except ValueError as error:
                raise self._unwritable(number, row, f"its {name!r}: {error}") from error
        return tuple(made)

    def _choose_columns(self, number: int, row: dict[Any, Any]) -> None:
        if self._makes:
            self._known = list(row)
            if not row or not all(isinstance(name, str) and name for name in row):
                raise self._unwritable(number, row, "no table can be made of it: its keys are no names of columns")
        if unknown := [name for name in row if name not in self._known]:
            there = f"{', '.join(self._known)}{did_you_mean(unknown[0], self._known)}"
            raise self._unwritable(number, row, f"the table has no column {unknown[0]!r}, but {there}")
        if missing := [name for name in self._key if name not in row]:
            raise self._unwritable(number, row, f"it lacks {missing[0]!r}, which is of the key")
        self._columns = tuple(row)
        self._key_at = [self._columns.index(name) for name in self._key]

    def _unwritable(self, number: int, row: Any, why: str) -> SinkError:
        return unwritable(number, row, why, self._form)

    @property
    def _form(self) -> str:
        return f"a row of {self._name!r}"

    def _refused(self, rows: Sequence[Any], refused: RowRefused) -> SinkError:
        if refused.at is not None:
            return self._unwritable(self._count + refused.at, rows[refused.at], str(refused))
        last = self._count + len(rows) - 1
        return SinkError(f"one of the results {self._count:,} to {last:,} was refused by {self._name!r}: {refused}")

    @contextmanager
    def _told(self, outcome: str = "") -> Iterator[Database]:
        database = self._database
        assert database is not None
        try:
            yield database
        except database.errors as error:
            back = "None of them is" if self._run is None else "Those up to the last mark are"
            outcome = outcome or f"{back} in the table"
            why = database.why(error)
            raise SinkError(f"{self.describe()} failed after {self._count:,} results: {why}. {outcome}.") from error

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _is_of_a_kind(database: Database, cells: Sequence[Any]) -> bool:
    try:
        database.kind(cells)
    except ValueError:
        return False
    return True


def _make_marks(database: Database) -> None:
    database.execute(
        f"CREATE TABLE IF NOT EXISTS {MARKS} "
        "(run varchar(255) PRIMARY KEY, mark text, results bigint NOT NULL, finished smallint NOT NULL)"
    )


def _check(url: str, found: type[Exception]) -> None:
    """Raises LineError for a URL of another kind or without its package, `found` where there is no such file."""
    if not isinstance(url, str) or not url.startswith((SQLITE, *POSTGRES)):
        given = shown_url(url) if isinstance(url, str) else type(url).__name__
        raise LineError(f"a database is named by sqlite:///path or postgresql://user@host/database, not {given!r}")
    if url.startswith(SQLITE):
        path = str(database_file(url))
        if not os.path.isfile(path) and (found is SourceNotFound or os.path.exists(path)):
            raise found(f"there is no database {path!r}")
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise found(f"there is no folder for the database {path!r}; make it first")
        return
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise LineError(f"PostgreSQL needs the package psycopg: pip install 'taktline[postgres]' ({error})") from error


def _names(key: str | Sequence[str] | None) -> tuple[str, ...]:
    names = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    if not all(isinstance(name, str) and name for name in names):
        raise LineError(f"key= names one or several columns, not {key!r}")
    return names


named(globals())
