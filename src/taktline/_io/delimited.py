"""CSV, TSV and other delimited text to records: how it is to be read, its rows, its header, and what types make of cells."""

from __future__ import annotations

import codecs
import csv
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from taktline._excerpts import excerpt
from taktline._io import as_table
from taktline._io.decode import BOM, MEND_THE_LINE, UTF_8, caused, undecodable, unreadable
from taktline._io.inference import INFERENCE_ROWS, types_of
from taktline._io.pushback import Taken
from taktline._io.ranges import table_lines
from taktline.abc import Unread
from taktline.errors import LineError, SourceError

if TYPE_CHECKING:
    from taktline._io.path_columns import Added

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")  # no name of a column has such a character
FIELD = 1 << 30  # characters of a CSV field; the csv module's own limit is 131,072
INFER_TYPES = "infer"
SEPARATORS = (";", "\t", "|", ",")  # that a header of one column is looked at for

Types = Mapping[str, Callable[[str], Any]]
Numbered = Iterator[tuple[int, list[str]]]  # rows of a table, each with the number of its last line


@dataclass(frozen=True, slots=True)
class Dialect:
    """How delimited text is to be read."""

    delimiter: str = ","
    quoting: bool = True  # cells may stand between double quotes, with delimiters and line ends in them
    encoding: str = UTF_8  # one that leaves ASCII as it is
    header: bool | tuple[str, ...] = True  # the first row; False: none; or the names of the columns
    sure: bool = False  # of the delimiter
    columns: tuple[str, ...] | None = None
    types: Types | None = None
    infer: bool = False  # types from the first rows of the first file; then `types` are those

    @property
    def is_typed(self) -> bool:
        """Whether Arrow has a type for each column."""
        return all(kind in as_table.CELL_TYPES for kind in (self.types or {}).values())

    def inferred(self, taken: Taken, name: str, header: Sequence[str]) -> Dialect:
        """How to read it with the types that its next rows have; they are given back."""
        lines: list[bytes] = []

        def each() -> Iterator[bytes]:
            for line in taken:
                lines.append(line)
                yield line

        rows = _kept_rows(_NewestRow(Taken(each())), name, self, 1 + taken.count)
        types = types_of((row for _, row in islice(rows, INFERENCE_ROWS)), header)
        taken.give_back(lines)
        chosen = header if self.columns is None else self.columns
        return replace(self, types={key: kind for key, kind in types.items() if key in chosen})

    def as_table(self, data: Any, number: int, *, header: Sequence[str], names: Sequence[str]) -> Any:
        """Whole lines as a table of Arrow. Raises where it would be another one than their records are."""
        return as_table.csv_table(
            data, number, header=header, names=names, types=self.types or {}, delimiter=self.delimiter,
            quoting=self.quoting, encoding=self.encoding,
        )  # fmt: skip

    def header_of(self, taken: Taken, name: str) -> list[str] | None:
        """The names of the columns of a file whose lines begin here; None where it has no record. Raises SourceError where
        they cannot serve."""
        header, number = self._names(taken, name)
        if header is None:
            return None
        if CONTROL.search(text := "".join(header)):
            raise _no_text(name, text, number)
        if not self.sure and len(header) == 1 and (there := [each for each in SEPARATORS if each in header[0]]):
            raise SourceError(
                f"{name!r} has one column, {header[0]!r}: it is not separated by {self.delimiter!r}. Read it with "
                f"delimiter={there[0]!r}, or with delimiter={self.delimiter!r} where that is its name",
                path=name, line=number,
            )  # fmt: skip
        if len(set(header)) < len(header):
            raise SourceError(
                f"{name!r} has two columns of the same name: {', '.join(header)}. Give one of them another name in the "
                "file; or all of them with header=, where its first line is no row of names", path=name, line=number,
            )  # fmt: skip
        if missing := [each for each in (*(self.columns or ()), *(self.types or ())) if each not in header]:
            raise SourceError(
                f"{name!r} has no column {missing[0]!r}; it has {', '.join(header)}", path=name, line=number
            )
        return header

    def _names(self, taken: Taken, name: str) -> tuple[list[str] | None, int]:
        if isinstance(self.header, tuple):
            return list(self.header), 1
        kept = _NewestRow(taken)
        first = next(_kept_rows(kept, name, self, 1), None)
        if first is None:
            return None, 0
        number, row = first
        if kept.error is not None:
            raise kept.error
        if self.header:
            return row, number
        taken.give_back(kept.lines)
        return [f"column{n}" for n in range(1, len(row) + 1)], number


def table_records(
    lines: Iterable[bytes], name: str, first: int, table: Dialect, header: Sequence[str],
    unread: list[Unread] | None = None, more: Added | None = None,
) -> Iterator[Any]:  # fmt: skip
    """Lines of delimited text, behind its header, as dicts by those names, and of `more`; cells of `types` are made values,
    blank lines left out. Raises SourceError with the line."""
    kept = None if unread is None else _NewestRow(lines if isinstance(lines, Taken) else Taken(lines))
    rows = _rows(lines, name, table, first) if kept is None else _kept_rows(kept, name, table, first)
    made = [(key, _converter(kind)) for key, kind in (table.types or {}).items()]
    columns = table.columns

    def bad(error: SourceError) -> Unread:
        return unreadable(error, b"" if kept is None else b"".join(kept.lines), unread, table.encoding)

    for number, row in rows:
        if len(row) != len(header):
            yield bad((kept.error if kept is not None else None) or _other_width(name, number, row, header))
            continue
        record: dict[str, Any] = dict(zip(header, row, strict=True))
        if columns is not None:
            record = {key: record[key] for key in columns}
        for key, convert in made:
            try:
                record[key] = convert(record[key])
            except Exception as error:  # the user's own converter may raise anything
                shown = excerpt({key: record[key]})
                kind = _called(table.types, key)
                told = (
                    f"  types   told from the first {INFERENCE_ROWS:,} rows; types={{{key!r}: str}} reads it as text\n"
                    * table.infer
                )
                why = SourceError(
                    f"{name!r}, line {number:,}: {shown} cannot be made {kind}: {error}\n{told}  next    {MEND_THE_LINE}",
                    path=name, line=number,
                )  # fmt: skip
                yield bad(caused(why, error))
                break
        else:
            if more is not None:
                record.update(more.values)
            yield record


def _other_width(name: str, number: int, row: Sequence[str], header: Sequence[str]) -> SourceError:
    return SourceError(
        f"{name!r}, line {number:,}: {len(row)} fields where the header has {len(header)}: {excerpt(row)}\n"
        f"  next    {MEND_THE_LINE}", path=name, line=number,
    )  # fmt: skip


def _rows(lines: Iterable[bytes], name: str, table: Dialect, first: int) -> Numbered:
    """The rows, blank lines left out. Raises SourceError with the line."""
    texts = _decoded(lines, name, table.encoding, first)
    if not table.quoting:
        for number, text in enumerate(texts, first):
            if cells := _cells(text, table.delimiter):
                yield number, cells
        return
    rows = csv.reader(texts, delimiter=table.delimiter, strict=True)
    while True:
        # The limit is the csv module's own, for the whole process: so it is lifted for this one call only.
        before = csv.field_size_limit(FIELD)
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise _no_csv(name, first - 1 + rows.line_num, error) from error
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row:
            yield first - 1 + rows.line_num, row


class _NewestRow:
    """The lines of the newest row, and why it is none. One with an error is empty."""

    def __init__(self, taken: Taken) -> None:
        self.taken = taken
        self.lines: list[bytes] = []
        self.error: SourceError | None = None

    def texts(self, name: str, encoding: str, done: int) -> Iterator[str]:
        """The lines that follow so many, as text."""
        for number, line in enumerate(self.taken, done + 1):
            self.lines.append(line)
            if number == 1 and line.startswith(BOM) and encoding == UTF_8:
                line = line[len(BOM) :]
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                self.error = self.error or undecodable(name, number, line, error, encoding)
                text = line.decode(encoding, "backslashreplace")  # its quotes are where they were
            yield text

    def settle(self, delimiter: str) -> None:
        """The newest row is none: where its quotes fit together it is so as a whole; else its first line is, and what
        follows is read anew, as rows of their own."""
        quotes = sum(line.count(b'"') for line in self.lines)
        for line in self.taken if quotes % 2 else ():
            self.lines.append(line)
            quotes += line.count(b'"')
            if not quotes % 2:
                break
        if quotes % 2 or table_lines(b"".join(self.lines), delimiter.encode()) != 1:
            self.taken.give_back(self.lines[1:])
            del self.lines[1:]


def _kept_rows(kept: _NewestRow, name: str, table: Dialect, first: int) -> Numbered:
    """As `_rows`, but a row that is none is empty, and `kept` tells of it."""
    number, fresh = first - 1, True
    rows: Any = None
    while True:
        kept.lines, kept.error = [], None
        if fresh:
            texts = kept.texts(name, table.encoding, number)
            plain = ((_cells(text, table.delimiter)) for text in texts)
            rows = csv.reader(texts, delimiter=table.delimiter, strict=True) if table.quoting else plain
            fresh = False
        before = csv.field_size_limit(FIELD)
        try:
            row = next(rows, None)
        except csv.Error as error:
            kept.settle(table.delimiter)
            kept.error, row, fresh = kept.error or _no_csv(name, number + 1, error), [], True
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        number += len(kept.lines)
        if kept.error is not None:
            yield number, []
        elif row:
            yield number, row


def _cells(text: str, delimiter: str) -> list[str]:
    text = text.removesuffix("\n").removesuffix("\r")
    return text.split(delimiter) if text else []


def _no_text(name: str, text: str, number: int) -> SourceError:
    """What to say of a row of names with characters that no text has."""
    if text.count("\0") >= len(text) // 2:
        what = f'{name!r} seems to be UTF-16 without a mark at its begin: read it with encoding="utf-16-le"'
    else:
        what = f"{name!r} is no text: its first line has control characters. Is it packed, or a spreadsheet's own file?"
    return SourceError(what, path=name, line=number)


def _no_csv(name: str, number: int, error: csv.Error) -> SourceError:
    if "new-line character" in str(error):
        return SourceError(
            f"{name!r}, line {number:,}, has a carriage return that ends no line: a cell with one must stand in double "
            "quotes\n  next    where all lines end so, as in some old exports, make them line feeds: "
            f"tr '\\r' '\\n' < {shlex.quote(name)} > lines.csv",
            path=name, line=number,
        )  # fmt: skip
    why = SourceError(
        f"{name!r}, line {number:,}, is no CSV: {error}\n  next    {MEND_THE_LINE}; or read it with quoting=False, where "
        "double quotes are characters as others", path=name, line=number,
    )  # fmt: skip
    return caused(why, error)


def _decoded(lines: Iterable[bytes], name: str, encoding: str, first: int) -> Iterator[str]:
    for number, line in enumerate(lines, first):
        if number == 1 and line.startswith(BOM) and encoding == UTF_8:
            line = line[len(BOM) :]
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise undecodable(name, number, line, error, encoding) from error
        yield text


def check_drift(first: str, header: Sequence[str], name: str, other: Sequence[str]) -> None:
    """Raises SourceError where two tables that are read as one do not have the same columns, in whatever order."""
    for more, less, where, there in ((other, header, name, first), (header, other, first, name)):
        if missing := [each for each in more if each not in less]:
            raise SourceError(
                f"{where!r} has a column {missing[0]!r} that {there!r} lacks; name those to read by columns=, "
                "or read the files apart",
                path=name,
            )


def checked_types(types: Types | str | None, columns: Sequence[str] | None) -> Types | None:
    """Raises LineError where `types` cannot be used."""
    if types is None or types == INFER_TYPES:
        return None
    if not isinstance(types, Mapping):
        what = repr(types) if isinstance(types, str) else type(types).__name__
        raise LineError(f"types= maps columns to types, such as {{'n': int}}, or is \"infer\"; it is {what}")
    for key, kind in types.items():
        if not callable(kind):
            raise LineError(f"types= must give a type or another callable of text for {key!r}, not {kind!r}")
        if columns is not None and key not in columns:
            raise LineError(f"types= names {key!r}, which columns= leaves out")
    return dict(types)


def checked_delimiter(delimiter: str | None) -> None:
    """Raises LineError where this cannot separate cells."""
    if delimiter is None:
        return
    if not isinstance(delimiter, str) or len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise LineError(
            f"delimiter= is one character of ASCII, such as ';' or '\\t', and no quote or line end; it is {delimiter!r}"
        )


def checked_header(header: Any) -> bool | tuple[str, ...]:
    """Raises LineError where these cannot be the names of columns."""
    if isinstance(header, bool):
        return header
    if isinstance(header, (str, bytes)) or not isinstance(header, Sequence) or not header:
        raise LineError(f"header= is True, False, or a list of the columns' names; it is {header!r}")
    names = tuple(header)
    if odd := [each for each in names if not isinstance(each, str)]:
        raise LineError(f"header= must give each name as text, not {odd[0]!r}")
    if twice := [each for n, each in enumerate(names) if each in names[:n]]:
        raise LineError(f"header= has the name {twice[0]!r} twice")
    return names


def checked_encoding(encoding: Any) -> str:
    """The name of an encoding of text, in one spelling. Raises LineError where there is none."""
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # there are codecs between bytes, too
    except (LookupError, TypeError, ValueError) as error:
        raise LineError(
            f"there is no encoding {encoding!r} of text; such as 'latin-1', 'cp1252' or 'utf-16'"
        ) from error
    return UTF_8 if found.name == "utf-8-sig" else found.name


def leaves_ascii(encoding: str) -> bool:
    """Whether each byte below 128 is the character of ASCII, wherever it stands: then lines and cells can be found in bytes.

    >>> leaves_ascii("cp1252"), leaves_ascii("utf-16"), leaves_ascii("gb18030"), leaves_ascii("cp037")
    (True, False, False, False)
    """
    if encoding in (UTF_8, "ascii"):
        return True
    half, all_bytes = bytes(range(128)), bytes(range(256))
    single = len(all_bytes.decode(encoding, "replace")) == 256
    if not all_bytes[128:].decode(encoding, "ignore"):  # what is beyond ASCII is told by sequences of it
        return False
    return single and half.decode(encoding, "replace").encode("ascii", "replace") == half


def _converter(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    parse = _PARSERS.get(kind)
    return kind if parse is None else lambda text: None if text == "" else parse(text)


def _truth(text: str) -> bool:
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        raise ValueError("a bool is one of true, false, 1, 0") from None


_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
_PARSERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: _truth,  # bool("false") is true
    Decimal: Decimal,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    time: time.fromisoformat,
}


def _called(types: Types | None, key: str) -> str:
    kind = (types or {})[key]
    return getattr(kind, "__name__", None) or repr(kind)
