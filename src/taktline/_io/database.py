"""What the readers and writers of SQL need of a database; each kind has a file of its own."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from taktline._excerpts import is_secret
from taktline._io.plain import plain
from taktline._io.remote import shown
from taktline.errors import LineError

Values = Sequence[Any]

SQLITE, POSTGRES = "sqlite:///", ("postgresql://", "postgres://")


class Unreachable(Exception):
    """There is no connection to be had."""


class RowRefused(Exception):
    """The database refused a row: `at` is its place among those given, None where only all of them can be named."""

    def __init__(self, at: int | None, why: str) -> None:
        super().__init__(why)
        self.at = at


class Database(ABC):
    """One connection; making it raises Unreachable. What it raises of its own are `errors`. Writing is in a transaction
    from the first statement on."""

    errors: tuple[type[Exception], ...]
    placeholder: str

    @abstractmethod
    def stream(self, query: str) -> Generator[dict[str, Any], None, None]:
        """The rows of a query as dicts, fetched some at a time."""

    @abstractmethod
    def fetch(self, query: str, values: Values = ()) -> list[dict[str, Any]]:
        """All rows of a small query, its placeholders filled with `values`."""

    def aside(self, query: str, values: Values) -> Generator[dict[str, Any], None, None]:
        """The rows of a query, put aside on the disk before the first one is given: nothing is locked from then on."""
        raise NotImplementedError

    def reads(self, query: str) -> set[str]:
        """The tables that a query reads, in small letters."""
        raise NotImplementedError

    def has(self, table: str) -> bool:
        """Whether there is a table, or a view, of this name (a quoted one)."""
        raise NotImplementedError

    def kind(self, values: Sequence[Any]) -> str:
        """The type of a column for these values. Raises ValueError where there is none for all of them."""
        raise NotImplementedError

    def snapshot(self) -> str:
        """Begin a transaction whose view other connections can have too, while it lasts; the name of the view."""
        raise NotImplementedError

    def fetch_in(self, snapshot: str, query: str, values: Values) -> list[dict[str, Any]]:
        """As `fetch`, in the view of that name."""
        raise NotImplementedError

    @abstractmethod
    def columns(self, table: str) -> list[str]:
        """The names of the columns of a table (a quoted name)."""

    @abstractmethod
    def execute(self, statement: str, values: Values = ()) -> int:
        """A statement without rows; how many rows of a table it has changed."""

    @abstractmethod
    def insert(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Values]) -> None:
        """Rows into a table (a quoted name), over those of the same `key` where there is one; of several rows with the
        same key the last one stays. Raises RowRefused."""

    def value(self, value: Any) -> Any:
        """What the driver is given for a value that is not plain. Raises ValueError where there is none."""
        return plain(value)

    def by_type(self, table: str) -> Mapping[str, Callable[[Any], Any]]:
        """In place of `value`, for columns of a table (a quoted name) of whose type a plain value does not tell enough, by
        their names. They raise ValueError where there is none."""
        return {}

    @abstractmethod
    def literal(self, query: str) -> str:
        """A user's query as it stands between placeholders."""

    def why(self, error: Exception) -> str:
        """What the database says of one of its errors, in one sentence."""
        return str(error).strip().partition("\n")[0]

    @abstractmethod
    def commit(self) -> None:
        """End the transaction; the next statement begins another."""

    @abstractmethod
    def close(self) -> None:
        """Roll back what is not committed, and end. Never raises; may be called again."""


def quoted(*names: str) -> str:
    """Names as SQL, with a comma between.

    >>> quoted("id", 'the "best"')
    '"id", "the ""best\"""'
    """
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)


def derived_table(query: str) -> str:
    """A query's rows as a table to select from. The line's end is that of a comment, where the query ends with one.

    >>> derived_table("SELECT id FROM orders -- all of them")
    '(SELECT id FROM orders -- all of them\\n) AS found'
    """
    return f"({query}\n) AS found"


def quoted_table(table: str) -> str:
    """A table's name as SQL; a dot stands between schema and table.

    >>> quoted_table("shop.orders")
    '"shop"."orders"'
    """
    parts = table.split(".")
    if not all(parts):
        raise LineError(f"{table!r} is no name of a table")
    return ".".join(map(quoted, parts))


def kind_of(values: Sequence[Any], kinds: dict[type, str], none: str) -> str:
    """The type of a column for plain values: that of all of them, `none` where there are none. Raises ValueError."""
    found = {type(value) for value in values if value is not None}
    if found == {int, float}:
        found = {float}
    named = {next((name for kind, name in kinds.items() if issubclass(each, kind)), "") for each in found}
    if len(named) > 1 or named == {""}:
        there = ", ".join(sorted(each.__name__ for each in found))
        raise ValueError(
            f"there is no type of a column for {there}; make the table before, or values of one kind in a step"
        )
    return named.pop() if named else none


def over_the_same(key: Sequence[str], columns: Sequence[str]) -> str:
    """The end of an INSERT: what becomes of a row whose key is there already."""
    if not key:
        return ""
    rest = [f"{quoted(name)} = excluded.{quoted(name)}" for name in columns if name not in key]
    return f" ON CONFLICT ({quoted(*key)}) DO " + (f"UPDATE SET {', '.join(rest)}" if rest else "NOTHING")


def without_twins(names: Sequence[str]) -> Sequence[str]:
    """The names of a query's columns. Raises ValueError where two are the same: a dict would lose one."""
    for at, name in enumerate(names):
        if name in names[:at]:
            raise ValueError(f"the query gives two columns called {name!r}; name one of them anew with AS")
    return names


def shown_url(url: str) -> str:
    """The URL without passwords; its other options may say where the server is."""
    options = [(key, value) for key, value in parse_qsl(urlsplit(url).query) if not is_secret(key)]
    return shown(url) + ("?" + urlencode(options, safe="/") if options else "")


def database_file(url: str) -> str | None:
    """The path of a database that is a file; None for a server's."""
    return url.removeprefix(SQLITE) if url.startswith(SQLITE) else None


def known_as(url: str) -> str:
    """Which database it is, whatever the folder is that the process is in."""
    return f"{SQLITE}{os.path.abspath(url.removeprefix(SQLITE))}" if url.startswith(SQLITE) else shown_url(url)
