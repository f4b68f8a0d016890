"""Lines of bytes to records. Each function takes any stretch of whole lines, of a whole file or of a part of one, with
the name and the number of its first line for the errors; so whoever has the bytes can decode them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Any

from taktline._excerpts import excerpt
from taktline.errors import LineError, SourceError

BOM = b"\xef\xbb\xbf"
FIELD = 1 << 30  # characters of a CSV field; the csv module's own limit is 131,072

Types = Mapping[str, Callable[[str], Any]]
Numbered = Iterator[tuple[int, list[str]]]  # rows of a table, each with the number of its last line


@cache
def json_loads() -> Callable[[bytes], Any]:
    """`json.loads`, or where orjson is installed something three times as fast that gives the same.

    orjson refuses NaN, Infinity, 1e999, half surrogate pairs and odd encodings: those lines go to `json`. It reads an
    integer of more than 64 bits as a float without a word: so lines with 19 digits in a row go to `json` at once.
    Three digits among every sixth byte are necessary for that, and looking at those is five times as fast.
    """
    try:
        from orjson import loads as fast
    except ImportError:
        return json.loads
    maybe, surely = re.compile(rb"[0-9]{3}").search, re.compile(rb"[0-9]{19}").search

    def loads(line: bytes) -> Any:
        if maybe(line[::6]) and surely(line):
            return json.loads(line)
        try:
            return fast(line)
        except ValueError:
            return json.loads(line)

    return loads


def json_records(
    lines: Iterable[bytes], name: str, first: int = 1, columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """A record a line, blank lines left out; with `columns` only those keys. Raises SourceError with the line."""
    loads = json_loads()
    for number, line in enumerate(lines, first):
        try:
            record = loads(line)
        except ValueError as error:
            if number == 1 and line.startswith(BOM):
                line = line[len(BOM) :]
            if not line.strip():
                continue
            try:
                record = loads(line)
            except ValueError:
                whole = line.endswith(b"\n")
                what = "is no JSON" if whole else "the last one, is no JSON (was the file cut off?)"
                raise _bad_line(name, number, line, error, what) from error
        except RecursionError as error:
            raise _bad_line(name, number, line, error, "is nested too deeply") from error
        if columns is not None:
            record = _only(record, columns, name, number)
        yield record


def text_records(lines: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Each line as text, without its end. Raises SourceError with the line where that is not UTF-8."""
    for number, line in enumerate(lines, first):
        if number == 1 and line.startswith(BOM):
            line = line[len(BOM) :]
            if not line:
                continue  # nothing but the mark: an empty file
        if line.endswith(b"\n"):
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise _bad_line(name, number, line, error, "is not UTF-8") from error


def table_rows(lines: Iterable[bytes], name: str, delimiter: str, first: int = 1) -> Numbered:
    """The rows of CSV text, the header among them, blank lines left out. Raises SourceError with the line."""
    rows = csv.reader(_decoded(lines, name, first), delimiter=delimiter, strict=True)
    while True:
        # The limit is the csv module's own, for the whole process: so it is lifted for this one call only.
        before = csv.field_size_limit(FIELD)
        try:
            row = next(rows, None)
        except csv.Error as error:
            number = first - 1 + rows.line_num
            raise SourceError(f"{name!r}, line {number:,}, is no CSV: {error}", path=name, line=number) from error
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row:
            yield first - 1 + rows.line_num, row


def table_header(rows: Numbered, name: str, columns: Sequence[str] | None, types: Types | None) -> list[str] | None:
    """The first row, as the names of the columns; None where there is none. Raises SourceError where it cannot serve."""
    number, header = next(rows, (0, None))
    if header is None:
        return None
    if len(set(header)) < len(header):
        raise SourceError(f"{name!r} has two columns of the same name: {', '.join(header)}", path=name, line=number)
    if missing := [each for each in (*(columns or ()), *(types or ())) if each not in header]:
        raise SourceError(
            f"{name!r} has no column {missing[0]!r}; it has {', '.join(header)}", path=name, line=number
        )  # fmt: skip
    return header


def table_records(
    rows: Numbered, name: str, header: Sequence[str], columns: Sequence[str] | None = None, types: Types | None = None
) -> Iterator[dict[str, Any]]:
    """Rows as dicts by the names of `header`, those of `types` made values. Raises SourceError with the line."""
    made = [(key, _converter(kind)) for key, kind in (types or {}).items()]
    for number, row in rows:
        if len(row) != len(header):
            raise SourceError(
                f"{name!r}, line {number:,}: {len(row)} fields where the header has {len(header)}: "
                f"{excerpt(row)}. Mend the line, or read it as format=\"text\"",
                path=name, line=number,
            )  # fmt: skip
        record: dict[str, Any] = dict(zip(header, row, strict=True))
        if columns is not None:
            record = {key: record[key] for key in columns}
        for key, convert in made:
            try:
                record[key] = convert(record[key])
            except Exception as error:  # the user's own converter may raise anything
                shown = excerpt({key: record[key]})
                raise SourceError(
                    f"{name!r}, line {number:,}: {shown} cannot be made {_called(types, key)}: {error}. "
                    "Mend the line, or leave the column out of types= and convert it in a step, where on_error= applies",
                    path=name, line=number,
                ) from error  # fmt: skip
        yield record


def table_part(
    lines: Iterable[bytes], name: str, first: int, delimiter: str, header: Sequence[str], columns: Sequence[str] | None,
    types: Types | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The records of a stretch of CSV text that has no header of its own. Raises SourceError with the line."""
    return table_records(table_rows(lines, name, delimiter, first), name, header, columns, types)


def check_drift(first: str, header: Sequence[str], name: str, other: Sequence[str]) -> None:
    """Raises SourceError where two tables that are read as one do not have the same columns, in whatever order."""
    for more, less, where, there in ((other, header, name, first), (header, other, first, name)):
        if missing := [each for each in more if each not in less]:
            raise SourceError(
                f"{where!r} has a column {missing[0]!r} that {there!r} lacks; name those to read by columns=, "
                "or read the files apart",
                path=name,
            )


def checked_types(types: Types | None, columns: Sequence[str] | None) -> Types | None:
    """Raises LineError where `types` cannot be used."""
    if types is None:
        return None
    if not isinstance(types, Mapping):
        raise LineError(f"types= maps columns to types, such as {{'n': int}}; it is {type(types).__name__}")
    for key, kind in types.items():
        if not callable(kind):
            raise LineError(f"types= must give a type or another callable of text for {key!r}, not {kind!r}")
        if columns is not None and key not in columns:
            raise LineError(f"types= names {key!r}, which columns= leaves out")
    return dict(types)


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


def _decoded(lines: Iterable[bytes], name: str, first: int) -> Iterator[str]:
    for number, line in enumerate(lines, first):
        if number == 1 and line.startswith(BOM):
            line = line[len(BOM) :]
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise _bad_line(name, number, line, error, "is not UTF-8") from error


def _only(record: Any, columns: Sequence[str], name: str, number: int) -> dict[str, Any]:
    try:
        return {key: record[key] for key in columns}
    except (KeyError, TypeError, IndexError) as error:
        raise SourceError(
            f"{name!r}, line {number:,}: no {error} in {excerpt(record)}", path=name, line=number
        ) from error


def _bad_line(name: str, number: int, line: bytes, error: BaseException, what: str) -> SourceError:
    where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    shown = excerpt(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
    return SourceError(
        f"{name!r}, line {number:,}, {what}{where}: {error}\n  line    {shown}\n"
        '  next    mend the line, or read the file as format="text" and parse it in a step, where on_error= applies',
        path=name, line=number,
    )  # fmt: skip
