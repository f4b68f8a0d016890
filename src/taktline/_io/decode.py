"""Lines of bytes to records. Each function takes any stretch of whole lines, of a whole file or of a part of one, with
the name and the number of its first line for the errors; so whoever has the bytes can decode them. With `unread` a line
that is no record does not end it: an Unread takes its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from taktline._excerpts import KEPT_CHARACTERS, excerpt
from taktline.abc import Unread
from taktline.errors import SourceError

if TYPE_CHECKING:
    from taktline._io.path_columns import Added

BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what a text in UTF-16 begins with
UTF_8 = "utf-8"
MEND_THE_LINE = 'mend the line, or have such lines left out: on_error="skip", or dead_letters="failed.jsonl"'


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
    lines: Iterable[bytes], name: str, first: int = 1, columns: Sequence[str] | None = None,
    unread: list[Unread] | None = None, more: Added | None = None,
) -> Iterator[Any]:  # fmt: skip
    """A record a line, blank lines left out; with `columns` only those keys, and then `more`. Raises
    SourceError with the line."""
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
                yield unreadable(bad_line(name, number, line, error, _no_json(number, line)), line, unread)
                continue
        except RecursionError as error:
            yield unreadable(bad_line(name, number, line, error, "is nested too deeply"), line, unread)
            continue
        if more is not None and (type(record) is not dict or not record.keys().isdisjoint(more.values)):
            yield unreadable(_no_place(more, name, number, record), line, unread)
            continue
        if columns is not None:
            try:
                record = {key: record[key] for key in columns}
            except (KeyError, TypeError, IndexError) as error:
                why = SourceError(f"{name!r}, line {number:,}: no {error} in {excerpt(record)}", path=name, line=number)
                yield unreadable(caused(why, error), line, unread)
                continue
        if more is not None:
            record.update(more.values)
        yield record


def _no_json(number: int, line: bytes) -> str:
    """What is wrong with a line that is no JSON, where that can be guessed."""
    if b"\0" in line:
        return "is no JSON in UTF-8 (is it UTF-16? iconv -f UTF-16LE -t UTF-8 makes it what JSON lines are)"
    if number == 1 and line.strip() in (b"[", b"{"):
        return "is no JSON by itself (of one array or object over several lines, jq -c '.[]' makes JSON lines)"
    return "is no JSON" if line.endswith(b"\n") else "the last one, is no JSON (was the file cut off?)"


def _no_place(more: Added, name: str, number: int, record: Any) -> SourceError:
    own = [key for key in record if key in more.values] if type(record) is dict else []
    why = more.why_not(name, own[0]) if own else f"no column can be beside {excerpt(record)}: it is no object"
    return SourceError(f"{name!r}, line {number:,}: {why}", path=name, line=number)


def text_records(
    lines: Iterable[bytes], name: str, first: int = 1, *, encoding: str = UTF_8, unread: list[Unread] | None = None
) -> Iterator[str]:
    """Each line as text, without its end. Raises SourceError with the line where that is not in this encoding."""
    for number, line in enumerate(lines, first):
        if number == 1 and line.startswith(BOM) and encoding == UTF_8:
            line = line[len(BOM) :]
            if not line:  # a mark is no line
                continue
        if line.endswith(b"\n"):
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            yield unreadable(undecodable(name, number, line, error, encoding), line, unread, encoding)  # type: ignore[misc]
            continue
        yield text


def unreadable(error: SourceError, line: bytes, unread: list[Unread] | None, encoding: str = UTF_8) -> Unread:
    """What stands in the place of a line that is no record. Raises `error` where nobody takes such."""
    if unread is None:
        raise error
    if error.__cause__ is not None:
        error.__cause__.__traceback__ = None  # whoever keeps the error must not keep the file open
    made = Unread(text_of(line, encoding), error)
    unread.append(made)
    return made


def text_of(line: bytes, encoding: str = UTF_8) -> str:
    """A line as far as it is kept, without its end."""
    text = line[: 4 * KEPT_CHARACTERS].decode(encoding, "backslashreplace").rstrip("\r\n")
    return text if len(text) <= KEPT_CHARACTERS else text[:KEPT_CHARACTERS] + "…"


def bad_line(
    name: str, number: int, line: bytes, error: BaseException, what: str, encoding: str = UTF_8
) -> SourceError:
    """What to say of a line that is no record."""
    where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    shown = excerpt(text_of(line, encoding))
    told = f"{error.msg} at column {error.colno:,}" if isinstance(error, json.JSONDecodeError) else error
    made = SourceError(
        f"{name!r}, line {number:,}, {what}{where}: {told}\n  line    {shown}\n  next    {MEND_THE_LINE}",
        path=name,
        line=number,
    )
    return caused(made, error)


def undecodable(name: str, number: int, line: bytes, error: UnicodeDecodeError, encoding: str) -> SourceError:
    """What to say of a line whose bytes are no text."""
    what = "is not UTF-8" if encoding == UTF_8 else f"is not {encoding}"
    if number == 1 and line.startswith(UTF_16):
        what = 'is not UTF-8, and begins as UTF-16 does: read it with encoding="utf-16". It fails'
    return bad_line(name, number, line, error, what, encoding)


def caused(error: SourceError, cause: BaseException) -> SourceError:
    """`error` with its cause, as `raise … from` makes it."""
    error.__cause__ = cause
    return error
