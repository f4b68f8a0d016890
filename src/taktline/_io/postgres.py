"""PostgreSQL, by way of psycopg 3: a server-side cursor to read with, COPY to write with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from taktline._io.database import (
    Database,
    RowRefused,
    Unreachable,
    Values,
    kind_of,
    over_the_same,
    quoted,
    without_twins,
)
from taktline._io.plain import as_json, plain

FETCH = 1000  # rows at once
PATIENCE = 30  # seconds that a server may take to answer at all, where the URL has no connect_timeout
STAGE = "taktline_stage"  # a temporary table of the connection: rows on their way over others
PLACE = "taktline_place"  # its column with the order of the rows
VIEW = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
IMPATIENT = ("idle_in_transaction_session_timeout", "transaction_timeout")  # the second one from PostgreSQL 17 on
KINDS: dict[type, str] = {  # in this order: a bool is an int, and a datetime a date
    bool: "boolean", int: "bigint", float: "double precision", str: "text", bytes: "bytea", datetime: "timestamptz",
    date: "date", time: "time", timedelta: "interval", Decimal: "numeric", UUID: "uuid", dict: "jsonb",
}  # fmt: skip
JSON, JSON_LISTS = (114, 3802), (199, 3807)  # types by their fixed numbers: json and jsonb, and arrays of those
COPY_LINE = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)


class Postgres(Database):
    """A connection to a server."""

    placeholder = "%s"

    def __init__(self, url: str, writing: bool) -> None:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
        from psycopg.types.json import Jsonb, JsonbDumper

        self.errors = (psycopg.Error, ValueError)
        self._staged = False
        try:
            patience = {"connect_timeout": PATIENCE} | conninfo_to_dict(url)
            self._connection = psycopg.connect(autocommit=not writing, **patience)
            if not writing:
                # A pooler may give the next transaction another of the server's connections, and this one to somebody
                # else: so nothing is set, and no statement prepared, that would outlast a transaction.
                self._connection.read_only = True
                self._connection.prepare_threshold = None
        except psycopg.Error as error:
            raise Unreachable(str(error)) from error
        self._connection.adapters.register_dumper(dict, JsonbDumper)
        self._as_jsonb = partial(Jsonb, dumps=partial(json.dumps, default=as_json))

    def stream(self, query: str) -> Generator[dict[str, Any], None, None]:
        with self._connection.transaction(), self._connection.cursor(name="taktline") as cursor:
            cursor.itersize = FETCH
            cursor.execute(query)
            names = _names(cursor)
            for row in cursor:
                yield dict(zip(names, row, strict=True))

    def fetch(self, query: str, values: Values = ()) -> list[dict[str, Any]]:
        with self._transaction():
            cursor = self._connection.execute(query, tuple(values) or None)
            names = _names(cursor)
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _transaction(self) -> AbstractContextManager[Any]:
        """One around what is asked for, where none is under way: without one nothing would be read-only."""
        from psycopg.pq import TransactionStatus

        none = self._connection.info.transaction_status == TransactionStatus.IDLE
        return self._connection.transaction() if none else nullcontext()

    def snapshot(self) -> str:
        self._connection.execute(VIEW)
        # The run may take its time between two parts, and be suspected of having forgotten the transaction.
        self._connection.execute(f"SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN {IMPATIENT}")
        (name,) = self._connection.execute("SELECT pg_export_snapshot()").fetchone()
        return str(name)

    def fetch_in(self, snapshot: str, query: str, values: Values) -> list[dict[str, Any]]:
        self._connection.execute(VIEW)
        try:
            self._connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            return self.fetch(query, values)
        finally:
            if not self._connection.closed:
                self._connection.execute("ROLLBACK")

    def has(self, table: str) -> bool:
        (there,) = self._connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
        return there is not None

    def kind(self, values: Sequence[Any]) -> str:
        if found := [value for value in values if type(value) is list]:
            inner = [each for value in found for each in value]
            if len(found) < len([value for value in values if value is not None]) or any(
                type(v) is list for v in inner
            ):
                raise ValueError("there is no type of a column for lists of this kind; make the table before")
            return self.kind(inner) + "[]"
        if any(type(value) is int and not -(2**63) <= value < 2**63 for value in values):
            return "numeric"
        if {type(value) for value in values} >= {int, Decimal}:
            return "numeric"
        moments = {value.tzinfo is None for value in values if isinstance(value, datetime)}
        if moments:
            if len(moments) > 1:
                raise ValueError("some of its times have a zone, and some none")
            return kind_of(values, KINDS | {datetime: "timestamp" if moments.pop() else "timestamptz"}, "text")
        return kind_of(values, KINDS, "text")

    def columns(self, table: str) -> list[str]:
        return list(_names(self._connection.execute(f"SELECT * FROM {table} LIMIT 0")))

    def execute(self, statement: str, values: Values = ()) -> int:
        return int(self._connection.execute(statement, tuple(values) or None).rowcount)

    def insert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Values]) -> None:
        try:
            if key:
                self._upsert(table, columns, key, rows)
            else:
                self._copy(table, columns, rows)
        except self.errors as error:
            if self._connection.closed:
                raise
            line = COPY_LINE.search(getattr(getattr(error, "diag", None), "context", None) or "")
            raise RowRefused(int(line[1]) - 1 if line else None, self.why(error)) from error

    def _upsert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Values]) -> None:
        names = quoted(*columns)
        if not self._staged:
            self.execute(
                f"CREATE TEMPORARY TABLE {STAGE} ON COMMIT DELETE ROWS AS SELECT {names} FROM {table} WITH NO DATA"
            )
            self.execute(f"ALTER TABLE {STAGE} ADD COLUMN {PLACE} bigint GENERATED ALWAYS AS IDENTITY")
            self._staged = True
        self._copy(STAGE, columns, rows)
        last = f"SELECT DISTINCT ON ({quoted(*key)}) {names} FROM {STAGE} ORDER BY {quoted(*key)}, {PLACE} DESC"
        self.execute(f"INSERT INTO {table} ({names}) {last}{over_the_same(key, columns)}")
        self.execute(f"TRUNCATE {STAGE}")

    def _copy(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        refused: tuple[type[Exception], ...] = (*self.errors, TypeError)
        with self._connection.cursor().copy(f"COPY {table} ({quoted(*columns)}) FROM STDIN") as copy:
            for at, row in enumerate(rows):
                try:
                    copy.write_row(row)
                except refused as error:
                    if self._connection.closed:
                        raise
                    raise RowRefused(at, str(error)) from error

    def value(self, value: Any) -> Any:
        if type(value) is list:
            return [self.value(each) for each in value]
        return self._as_jsonb(value) if isinstance(value, dict) else plain(value)

    def by_type(self, table: str) -> Mapping[str, Callable[[Any], Any]]:
        columns = self._connection.execute(f"SELECT * FROM {table} LIMIT 0").description or ()
        made = dict.fromkeys([each.name for each in columns if each.type_code in JSON], self._document)
        return made | dict.fromkeys([each.name for each in columns if each.type_code in JSON_LISTS], self._documents)

    def _document(self, value: Any) -> Any:
        """A value as JSON, whatever it is: without its type a list would be told as an array, and a text as what it says."""
        value = plain(value)
        return None if value is None else self._as_jsonb(value)

    def _documents(self, value: Any) -> Any:
        return [self._document(each) for each in value] if type(value) is list else self.value(value)

    def literal(self, query: str) -> str:
        return query.replace("%", "%%")

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()  # the server rolls back


def _names(cursor: Any) -> Sequence[str]:
    return without_twins([each.name for each in cursor.description or ()])
