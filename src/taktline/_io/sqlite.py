"""SQLite, by way of the standard library."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any
from urllib.parse import quote

from taktline._io.database import (
    Database,
    RowRefused,
    Unreachable,
    Values,
    derived_table,
    kind_of,
    over_the_same,
    quoted,
    without_twins,
)
from taktline._io.plain import PLAIN_TYPES, plain

FETCH = 1000  # rows at once
PATIENCE = 30.0  # seconds that another program's lock is waited for
KINDS = {bool: "INTEGER", int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB", date: "TEXT"}


class Sqlite(Database):
    """A connection to a file."""

    errors = (sqlite3.Error, ValueError, OverflowError)
    placeholder = "?"

    def __init__(self, path: str, writing: bool) -> None:
        # Reading never makes a new file. The thread may change: an asynchronous caller reads from several.
        self._writing = writing
        file = f"file:{quote(os.path.abspath(path))}?mode={'rwc' if writing else 'ro'}"
        self._made = path if writing and not os.path.exists(path) else None  # the file, by this connection
        try:
            self._connection = sqlite3.connect(
                file, uri=True, isolation_level=None, check_same_thread=False, timeout=PATIENCE
            )
            if writing:  # by itself SQLite leaves it to the disk when the end of its own journal is safe
                self._connection.execute("PRAGMA synchronous = EXTRA")
        except sqlite3.Error as error:
            raise Unreachable(str(error)) from error

    def stream(self, query: str) -> Generator[dict[str, Any], None, None]:
        cursor = self._connection.execute(query)
        names = _names(cursor)
        while rows := cursor.fetchmany(FETCH):
            for row in rows:
                yield dict(zip(names, row, strict=True))

    def aside(self, query: str, values: Values) -> Generator[dict[str, Any], None, None]:
        # Of a temporary table, whose columns have no type that could change a value. Its own names stand in no query.
        names = _names(self._connection.execute(f"SELECT * FROM {derived_table(query)} LIMIT 0", tuple(values)))
        cells = ", ".join(f"c{n}" for n in range(len(names)))
        self._connection.execute("PRAGMA temp_store = FILE")
        self._connection.execute(f"CREATE TEMP TABLE taktline_aside ({cells})")
        self._connection.execute(f"INSERT INTO temp.taktline_aside {query}", tuple(values))
        cursor = self._connection.execute(f"SELECT {cells} FROM temp.taktline_aside ORDER BY rowid")
        while rows := cursor.fetchmany(FETCH):
            for row in rows:
                yield dict(zip(names, row, strict=True))

    def reads(self, query: str) -> set[str]:
        found = set()

        def seen(action: int, table: str | None, *_: Any) -> int:
            if action == sqlite3.SQLITE_READ and table:
                found.add(table.lower())
            return sqlite3.SQLITE_OK

        self._connection.set_authorizer(seen)
        try:
            self._connection.execute(f"EXPLAIN {query}").close()
        finally:
            self._connection.set_authorizer(None)
        return found

    def has(self, table: str) -> bool:
        try:
            self.columns(table)
        except sqlite3.OperationalError as error:
            if str(error).startswith("no such table"):
                return False
            raise
        return True

    def kind(self, values: Sequence[Any]) -> str:
        return kind_of(values, KINDS, "")

    def fetch(self, query: str, values: Values = ()) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query, tuple(values))
        names = _names(cursor)
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def columns(self, table: str) -> list[str]:
        return list(_names(self._connection.execute(f"SELECT * FROM {table} LIMIT 0")))

    def execute(self, statement: str, values: Values = ()) -> int:
        self._begin()
        return self._connection.execute(statement, tuple(values)).rowcount

    def insert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Values]) -> None:
        at = -1

        def counted() -> Iterator[Values]:
            nonlocal at
            for row in rows:
                at += 1
                yield row

        places = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({quoted(*columns)}) VALUES ({places}){over_the_same(key, columns)}"
        self._begin()
        try:
            self._connection.executemany(statement, counted())
        except self.errors as error:
            raise RowRefused(at if at >= 0 else None, str(error)) from error

    def value(self, value: Any) -> Any:
        made = plain(value)
        if type(made) in PLAIN_TYPES or isinstance(made, (str, int, float)):
            return made
        if isinstance(made, datetime):
            return made.isoformat(" ")
        if isinstance(made, date):
            return made.isoformat()
        if isinstance(made, (bytes, bytearray)):
            return bytes(made)
        if hasattr(made, "__conform__") or (type(made), sqlite3.PrepareProtocol) in sqlite3.adapters:
            return made  # the user has told the driver
        # The driver takes the bytes of whatever has some, such as an array, as a BLOB.
        raise ValueError(f"{type(value).__name__} is no value of SQLite; make it a number, text or bytes in a step")

    def literal(self, query: str) -> str:
        return query

    def commit(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def _begin(self) -> None:
        if self._writing and not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        self._connection.close()  # which rolls back
        if self._made is not None:
            with suppress(OSError):
                if os.path.getsize(self._made) == 0:
                    os.unlink(self._made)
            self._made = None


def _names(cursor: sqlite3.Cursor) -> Sequence[str]:
    return without_twins([each[0] for each in cursor.description or ()])
