"""Results and tables as lines of a file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any, Protocol

from taktline._excerpts import excerpt
from taktline._io import encode, plain, plugins
from taktline._io.column_types import results_of
from taktline._io.output import IntoOutput, Output
from taktline.abc import Resumable
from taktline.errors import unwritable

HEAD = 4  # bytes that tell how long a head is
Encoder = Callable[[list[Any]], bytes] | None
TableEncoder = Callable[[Any], bytes] | None


class LineForm(Protocol):
    """Makes the lines of one run; `first` is the number of the first result, for the errors."""

    header: list[str] | None
    """The columns, once the first result has told them; None before, and of lines that have none."""

    encoder: Encoder
    """What makes them of results in a worker,"""

    table_encoder: TableEncoder
    """and of a table; None where no table is taken. What either makes is given to `taken`."""

    as_made: bool
    """Whether `taken` gives that back as it is."""

    def head(self) -> bytes:
        """What each file begins with, where it has results."""

    def rows(self, results: Sequence[Any], first: int) -> bytes:
        """Those of some results, at least one."""

    def table(self, table: Any, first: int) -> bytes:
        """Those of a table with rows: the bytes that `rows` makes of them as dicts. Raises NotExact where only that can tell
        them."""

    def taken(self, data: bytes, first: int) -> bytes:
        """Those that a worker has made."""

    def cut(self, data: bytes, lines: int) -> int | None:
        """Bytes of the first so many of them; None where only who reads them can tell: they may be written again."""

    def read(self, data: bytes) -> list[Any]:
        """The results of lines that were made of a table."""


class JsonLines:
    header: list[str] | None = None
    as_made = True

    def __init__(self) -> None:
        from taktline._io.texts import json_table

        self.encoder: Encoder = partial(encode.json_lines, first=0)
        self.table_encoder: TableEncoder = json_table
        self._table = json_table

    def head(self) -> bytes:
        return b""

    def rows(self, results: Sequence[Any], first: int) -> bytes:
        return encode.json_lines(results, first)

    def table(self, table: Any, first: int) -> bytes:
        return self._table(table)

    def taken(self, data: bytes, first: int) -> bytes:
        return data

    def cut(self, data: bytes, lines: int) -> int | None:
        return _behind(data, lines)

    def read(self, data: bytes) -> list[Any]:
        raise NotImplementedError


class PlainLines:
    """Of each result by itself."""

    header: list[str] | None = None
    as_made = True
    table_encoder: TableEncoder = None

    def __init__(self, encode: Callable[..., bytes], *, one_each: bool) -> None:
        self._encode = encode
        self._one_each = one_each  # a line a result
        self.encoder: Encoder = partial(encode, first=0)

    def head(self) -> bytes:
        return b""

    def rows(self, results: Sequence[Any], first: int) -> bytes:
        return self._encode(results, first)

    def table(self, table: Any, first: int) -> bytes:
        raise NotImplementedError

    def taken(self, data: bytes, first: int) -> bytes:
        return data

    def cut(self, data: bytes, lines: int) -> int | None:
        return _behind(data, lines) if self._one_each else None

    def read(self, data: bytes) -> list[Any]:
        raise NotImplementedError


class Delimited:
    """Rows of delimited text; the first row's keys are the header."""

    encoder: Encoder = None  # it must know what came before
    as_made = False

    def __init__(self, delimiter: str, *, quoting: bool = True) -> None:
        self._delimiter = delimiter
        self._quoting = quoting
        self.table_encoder: TableEncoder = partial(_with_head, delimiter=delimiter, quoting=quoting)
        self.header: list[str] | None = None
        self._head = b""

    def head(self) -> bytes:
        return self._head or self._line_of_names(0, None)

    def rows(self, results: Sequence[Any], first: int) -> bytes:
        if self.header is None:
            self._begin(results[0], first)
        lines: list[str] = []
        try:
            self._write(lines.append, results, first)
        except _CannotStand as error:
            raise unwritable(first + len(lines), results[len(lines)], str(error), "a row of TSV") from None
        return encode.encoded(lines, results, first, "a row of CSV")

    def table(self, table: Any, first: int) -> bytes:
        from taktline._io.texts import NotExact, delimited_table

        if self.header is None:
            self._begin(dict.fromkeys(table.schema.names), first)
        elif not {*table.schema.names} <= {*self.header}:
            raise NotExact("it has other columns than the first row")
        assert self.header is not None
        return delimited_table(table, self.header, self._delimiter, quoting=self._quoting)

    def taken(self, data: bytes, first: int) -> bytes:
        size = int.from_bytes(data[:HEAD], "little") + HEAD
        head, body = data[HEAD:size], data[size:]
        if self.header is None:
            (self.header,), self._head = self._read(head), head
        if head == self.head():
            return body
        (names,) = self._read(head)
        return self.rows([dict(zip(names, row, strict=True)) for row in self._read(body)], first)

    def read(self, data: bytes) -> list[Any]:
        return [dict(zip(self.header or [], row, strict=True)) for row in self._read(data)]

    def _read(self, data: bytes) -> list[list[str]]:
        """The cells of lines that were made here."""
        if not self._quoting:
            return [line.split(self._delimiter) for line in data.decode().split("\n")[:-1]]
        return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=self._delimiter))

    def cut(self, data: bytes, lines: int) -> int | None:
        return None if self._quoting and b'"' in data else _behind(data, lines)

    def _begin(self, result: Any, first: int) -> None:
        if not isinstance(result, dict):
            raise unwritable(first, result, f"it is {type(result).__name__}, not dict", "a row of CSV")
        self.header = list(result)
        try:
            self._head = self._line_of_names(first, result)
        except BaseException:
            self.header = None
            raise

    def _line_of_names(self, first: int, result: Any) -> bytes:
        lines: list[str] = []
        try:
            self._writer(lines.append)(self.header or [])
        except _CannotStand as error:
            raise unwritable(first, result, str(error), "a row of TSV") from None
        return encode.encoded(lines, [result], first, "a row of CSV")

    def _write(self, add: Callable[[str], None], results: Sequence[Any], first: int) -> None:
        header = self.header or []
        known = set(header)
        write = self._writer(add)
        for at, result in enumerate(results):
            if not isinstance(result, dict):
                raise unwritable(first + at, result, f"it is {type(result).__name__}, not dict", "a row of CSV")
            if not result.keys() <= known:
                unknown = next(key for key in result if key not in known)
                why = f"its key {unknown!r} is not among the first row's: {', '.join(map(str, header))}"
                raise unwritable(first + at, result, why, "a row of CSV")
            cells = [result.get(key, "") for key in header]
            if not _CELLS.issuperset(map(type, cells)):
                cells = self._exact(header, first + at, result)
            write(cells)

    def _writer(self, add: Callable[[str], None]) -> Callable[[Sequence[Any]], Any]:
        if not self._quoting:
            return lambda cells: add(_without_quotes(cells, self._delimiter))
        # Its own line end makes the writer quote cells with "\r" in them too; before Python 3.13 nothing else does.
        return csv.writer(_Written(add), delimiter=self._delimiter, lineterminator="\r\n").writerow

    def _exact(self, header: list[str], number: int, result: dict[Any, Any]) -> list[Any]:
        cells = []
        for key in header:
            try:
                cells.append(plain.as_cell(result.get(key, "")))
            except ValueError as error:
                raise unwritable(number, result, f"its {key!r}: {error}", "a row of CSV") from error
        return cells


def _with_head(table: Any, delimiter: str, *, quoting: bool) -> bytes:
    """In a worker, which does not know the first row: what a table would begin a file with, and its lines."""
    own = Delimited(delimiter, quoting=quoting)
    body = own.table(table, 0)
    head = own.head()
    return len(head).to_bytes(HEAD, "little") + head + body


def _behind(data: bytes, lines: int) -> int:
    """Where the first so many lines end."""
    end = 0
    for _ in range(lines):
        end = data.index(b"\n", end) + 1
    return end


_CELLS = plain.PLAIN_TYPES - {bytes}
_ENDS = re.compile(r"[\t\r\n]").search


class _CannotStand(Exception):
    """Cells that cannot be a row."""


def _without_quotes(cells: Sequence[Any], delimiter: str) -> str:
    """A row in which quotes are characters as others. Raises _CannotStand where it would be read back as another one."""
    texts = ["" if cell is None else str(cell) for cell in cells]
    for text in texts:
        if _ENDS(text):
            raise _CannotStand(f"{excerpt(text)} has a tab or a line end in it, for which TSV has no form; write CSV")
    if texts == [""]:
        raise _CannotStand("its only cell is empty, and a blank line is no record; write CSV")
    return delimiter.join(texts) + "\n"


class _Written:
    """What the csv module writes its rows into, one at a time; each gets a plain line end."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self._add = add

    def write(self, row: str) -> None:
        self._add(row[:-2] + "\n")


def lines_of(format: str) -> LineForm:
    """Raises LineError for a format that nobody brings, or that is only read."""
    if format == "csv":
        return Delimited(",")
    if format == "tsv":
        return Delimited("\t", quoting=False)
    if format == "jsonl":
        return JsonLines()
    if format == "text":
        return PlainLines(encode.text_lines, one_each=True)
    return PlainLines(plugins.encoder(format), one_each=False)


class LinesFile(IntoOutput, Resumable):
    """Results as lines of a file."""

    def __init__(self, target: str | IO[bytes], format: str, level: int | None = None) -> None:
        self._output = Output(target, level)
        self._format = format
        self._lines = lines_of(format)
        self.takes_failed = format not in ("csv", "tsv", "text")
        self._count = 0
        self.encoder, self.table_encoder = self._lines.encoder, self._lines.table_encoder
        self.tables = self.table_encoder is not None

    def _begin(self) -> None:
        self._count = 0
        self._lines.header = None

    def write(self, results: Sequence[Any]) -> None:
        if results:
            self._put(self._lines.rows(results, self._count), len(results))

    def write_table(self, table: Any) -> None:
        from taktline._io.texts import NotExact

        if not table.num_rows:
            return
        try:
            data = self._lines.table(table, self._count)
        except NotExact:
            self.write(results_of(table, self._count))
        else:
            self._put(data, table.num_rows)

    def write_encoded(self, data: bytes, count: int) -> None:
        self._put(self._lines.taken(data, self._count), count)

    def _put(self, data: bytes, count: int) -> None:
        if not self._count and count:
            self._output.write(self._lines.head())
        self._output.write(data)
        self._count += count

    def commit(self) -> None:
        self._output.commit()

    def fingerprint(self) -> Any:
        return [self._output.known_as(), self._format]

    def beside(self, journal: str) -> None:
        self._output.beside(journal)

    def forget(self, run: str, position: Any) -> None:
        self._output.forget(position)

    def is_gone(self, run: str, position: Any) -> str:
        return self._output.is_gone(position)

    def begin(self, run: str) -> None:
        self._begin()
        self._output.begin()

    def save(self, mark: str) -> Any:
        return {"results": self._count, "header": self._lines.header, **self._output.position()}

    def resume(self, run: str, position: Any) -> None:
        self._count = position["results"]
        self._lines.header = position["header"] if position["results"] else None
        self._output.resume(position)

    def suspend(self) -> None:
        self._output.suspend()

    def noted(self) -> None:
        self._output.noted()

    def finished(self, run: str, position: Any) -> bool:
        return self._output.finished(position)
