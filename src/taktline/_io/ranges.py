"""Files of lines cut into ranges of bytes that workers read. Here the lines are only counted, never decoded."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from itertools import islice
from typing import IO, Any

from taktline._io.changing import KnownFile, Lasting, changed, cut_short, known, replaced
from taktline._io.decode import BOM
from taktline._io.line_numbers import line_in, numbers
from taktline._io.path_columns import Added
from taktline._io.pushback import Taken
from taktline._io.splitting import ASK_TABLE
from taktline.abc import Part, Unread

QUOTE = b'"'
LINE = 128.0  # bytes of a record, as long as none is known
SPARE = 1.125  # times the bytes that are likely enough, where the records must be so many: most parts have them at once
LONGEST_RECORD = 1 << 26  # bytes in which there must be a border; else the file is not split there
PIECE = 1 << 20  # bytes in which line ends are counted at once
BLOCK = 1 << 23  # bytes of a file: a table ends with the last whole line before a multiple of it

Count = Callable[[bytes], int | None]  # records in some lines, None where that is not certain

_blank_line, _blank_row = re.compile(rb"\n\s").search, re.compile(rb"\n[\r\n]").search
_blank_rows = re.compile(rb"(?:^|\n)(?=\r?\n)").finditer


@dataclass(frozen=True, slots=True)
class Decode:
    """What makes something of whole lines. It travels with them."""

    records: Callable[..., Iterator[Any]]  # of lines, the file's name, the number of the first line; and unread=
    table: Callable[[Any, int], Any] | None = None  # of bytes, the number of the first line; raises where it is none
    learn: Callable[[bytes], None] | None = None  # is shown the lines of each table before they travel
    more: Added | None = None  # what is added to each record

    def table_of(self, data: Any, number: int, count: int) -> Any:
        """A table of so many rows. Raises where the lines are none."""
        if self.table is None:
            raise ValueError("these lines are no table")
        table = self.table(data, number)
        if table.num_rows != count:
            raise ValueError(f"{table.num_rows:,} rows where {count:,} were counted")
        return table if self.more is None else self.more.onto(table)


class _Opened:
    """A file as long as somebody may read it again, whatever becomes of its name."""

    def __init__(self, file: Lasting) -> None:
        self.descriptor = os.dup(file.fileno())
        self.end = file.end
        self.known = known(self.descriptor, self.end)

    def read(self, size: int, start: int) -> bytes:
        """So many bytes, or those up to the end; fewer where the file was cut short."""
        return os.pread(self.descriptor, min(size, self.end - start), start)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Range(Part):
    """Whole lines of one file."""

    __slots__ = ("_count", "_decode", "_known", "_line", "_numbers", "_opened", "_path", "_start", "size")

    def __init__(
        self, path: str, known: KnownFile, start: int, size: int, count: int, line: int, decode: Decode,
        opened: _Opened | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._known = known
        self._start = start
        self.size = size
        self._count = count
        self._line = line  # number of the first one
        self._decode = decode
        self._opened = opened  # where it was cut
        self._numbers: Sequence[int] | None = None  # of the lines in which its records begin, once they were asked for

    def __reduce__(self) -> Any:
        where = (self._path, self._known, self._start, self.size, self._count, self._line, self._decode)
        return Range, where

    def __len__(self) -> int:
        return self._count

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        records = self._decode.records(self._lines(), self._path, self._line, unread=unread)
        return records if self._opened is None else self._counted(records)

    def table(self) -> Any:
        if len(data := self._read()) < self.size:
            raise cut_short(self._path, self._start + len(data), self._start + self.size)
        return self._decode.table_of(data, self._line, self._count)

    def where(self, n: int) -> str:
        if self._numbers is None:
            self._numbers = numbers(self._read(), self._count, self._line, self._path, self._decode.records)
        return line_in(self._path, self._numbers, n)

    def _lines(self) -> Iterable[bytes]:
        data = self._read()
        return BytesIO(data) if len(data) == self.size else self._left(data)

    def _left(self, data: bytes) -> Iterator[bytes]:
        """Whole lines of what is left where the file was cut short. Raises SourceError behind them."""
        yield from BytesIO(data[: data.rfind(b"\n") + 1])
        end = self._start + self.size if self._opened is None else self._opened.end
        raise cut_short(self._path, self._start + len(data), end)

    def _read(self) -> bytes:
        if self._opened is not None:
            return self._opened.read(self.size, self._start)
        with open(self._path, "rb", buffering=0) as file:
            if not self._known.is_at(file.fileno()):
                raise replaced(self._path)
            return os.pread(file.fileno(), self.size, self._start)

    def _counted(self, records: Iterator[Any]) -> Iterator[Any]:
        """Where it was cut. A worker counts the records itself, and where they are others than these they are read here."""
        count = 0
        for record in islice(records, self._count):
            count += 1
            yield record
        if count < self._count or next(records, self) is not self:
            why = f"from line {self._line:,} on, records have come or gone since they were counted"
            raise changed(self._path, why, line=self._line)


class Cutting:
    """One pass over some files. Lines stay about as long as they were in the file before, so it remembers that.

    `begin(lines, path)` reads what is before the first record, and says how to decode; None: there is no record.
    `rows`: as `count`, of lines that are to be a table. `quoted`: a line end between double quotes ends no record. `exact`:
    a part has the records that are wanted, unless its file ends. `bytes_left`: in all files. `unread`: takes lines that are
    no records, where they do not end the pass. `numbered`: `where` is told."""

    def __init__(
        self, begin: Callable[[Taken, str], Decode | None], count: Count, rows: Count, *, quoted: bool, exact: bool,
        bytes_left: int, unread: list[Unread] | None = None, numbered: bool = False,
    ) -> None:  # fmt: skip
        self._begin = begin
        self._decode: Decode | None = None  # of this file
        self._count = count
        self._rows = rows
        self.quoted = quoted
        self._exact = exact
        self._weight = LINE  # bytes a record
        self._uncertain = 0  # up to there no table can be cut
        self._end = 0  # bytes of this file and of those before it
        self._bytes_left = bytes_left
        self.left: int | None = None  # bytes behind the newest part
        self.unread = unread
        self._numbered = numbered
        self.where: Callable[[], str] = (
            str  # the place of the newest record beside the parts, in a pass that is `numbered`
        )

    def parts(self, stream: Any, path: str, wanted: int) -> Generator[Part | Iterator[Any] | None, int, int]:
        """The parts of one open file, as `Cut` has them; returns the number that was sent last."""
        size = os.fstat(stream.fileno()).st_size
        self._bytes_left -= size
        taken = Taken(stream)
        decode = self.begun(taken, path)
        if decode is None:
            return wanted
        opened, start = _Opened(stream.raw), stream.tell() - taken.ahead
        line = 1 + _line_ends(stream, 0, start)
        while start < opened.end:
            lines, records = self.cut(partial(_lines, opened, start, self.quoted), wanted, start)
            if records:
                ends = records if wanted != ASK_TABLE and not self.quoted else lines.count(b"\n")
                self.left = max(0, size - start - len(lines)) + max(0, self._bytes_left)
                wanted = yield Range(path, opened.known, start, len(lines), records, line, decode, opened)
                start, line = start + len(lines), line + ends
                continue
            stream.seek(start)
            taken = Taken(stream)
            self.stands(path, line, taken)
            wanted = yield decode.records(self.lines(taken, stream), path, line, unread=self.unread)
            at, start = start, stream.tell() - taken.ahead
            stream.seek(start)
            if not stream.peek(1):
                break
            line += _line_ends(stream, at, start)  # it was left before its end
        return wanted

    def begun(self, taken: Taken, path: str) -> Decode | None:
        """A file begins."""
        self._uncertain = 0
        self._decode = self._begin(taken, path)
        return self._decode

    def lines(self, taken: Taken, lines: Iterable[bytes]) -> Iterable[bytes]:
        """What is to be decoded: lines that may be given back where rows may turn out to be none, or are to be counted; the
        lines alone else."""
        return taken if self._numbered or (self.quoted and self.unread is not None) else lines

    def stands(self, path: str, line: int, taken: Taken) -> None:
        """What is decoded next are these lines of a file, of which the first one has this number."""
        self.where = lambda: f"{path}:{line - 1 + taken.count}"

    def cut(self, look: Callable[[int], tuple[bytes, bool]], wanted: int, at: int) -> tuple[bytes, int]:
        """Whole lines of at most so many records, and how many; none where none is wanted or where that is not certain.
        `look(size)` shows whole lines of about so many bytes, and tells whether they are all there are; they begin `at`
        so many bytes of what is read."""
        if wanted == ASK_TABLE:
            return self._block(look, at)
        size = min(LONGEST_RECORD, 1 + int(wanted * self._weight * (SPARE if self._exact else 1.0))) if wanted else 0
        while 0 < size <= LONGEST_RECORD:
            lines, whole = look(size)
            records = self._count(lines) if lines else None
            if not records:
                break
            self._weight = len(lines) / records
            if records > wanted:
                end = _last_lines(lines, records - wanted, quoted=self.quoted)
                return lines[:end], wanted
            if whole or records == wanted or not self._exact:
                return lines, records
            size = 2 * max(size, len(lines))
        return b"", 0

    def _block(self, look: Callable[[int], tuple[bytes, bool]], at: int) -> tuple[bytes, int]:
        """Whole lines up to a border that does not depend on where they begin; none where their number is not certain."""
        if at < self._uncertain:
            return b"", 0
        size = BLOCK - at % BLOCK
        if size < BLOCK // 2:  # the last table has ended just before it
            size += BLOCK
        lines, _ = look(size)
        records = self._rows(lines) if lines else None
        if records and self._decode is not None and self._decode.learn is not None:
            self._decode.learn(lines)
        self._uncertain = 0 if records else at + size
        return (lines, records) if records else (b"", 0)


def travels(decode: Any) -> bool:
    """Whether a worker can have this."""
    try:
        pickle.dumps(decode)
    except Exception:  # what users give as types= may refuse in any way
        return False
    return True


def json_lines(data: bytes) -> int | None:
    """The records in JSON lines; None where one may be blank."""
    start = data[: len(BOM) + 1].removeprefix(BOM)
    if not start or start[:1].isspace() or _blank_line(data):
        return None
    return text_lines(data)


def text_lines(data: bytes) -> int | None:
    """The lines, the last one with or without an end; None for a byte-order mark, which may be all that there is."""
    if data == BOM:
        return None
    return data.count(b"\n") + (not data.endswith(b"\n"))


def rows_without_quotes(data: bytes) -> int | None:
    """The rows in lines of which each is one; None where one may be blank."""
    return None if _blank_row(data) or data[:1] in (b"\r", b"\n") else text_lines(data)


def rows_without_blanks(data: bytes) -> int | None:
    """The rows in lines of which each is one, or blank."""
    lines = text_lines(data)
    blank = sum(1 for _ in _blank_rows(data)) if lines is not None and (_blank_row(data) or data[:1] in b"\r\n") else 0
    return None if lines is None else lines - blank


@cache
def _odd_quote(delimiter: bytes) -> Callable[[bytes], Any]:
    """Finds one that has something else than a border of a field, or another one, before or behind it."""
    sign = re.escape(delimiter)
    return re.compile(rb'"(?:(?<=[^' + sign + rb'\n"]")|(?=[^' + sign + rb'\r\n"]))').search


def table_lines(data: bytes, delimiter: bytes, rows: Count = rows_without_quotes) -> int | None:
    """The rows in lines of CSV; None where one may be blank, or a quote stands inside a field without quotes. `rows`: of
    those without quotes.

    >>> table_lines(b'1,"a\\nb"\\n2,c\\n', b","), table_lines(b'1,5" wide\\n2,6" wide\\n', b",")
    (2, None)
    """
    if QUOTE in data:
        data = QUOTE.join(data.split(QUOTE)[::2])  # each stands for what is quoted there
        if _odd_quote(delimiter)(data):
            return None
    return rows(data)


def _lines(opened: _Opened, start: int, quoted: bool, size: int) -> tuple[bytes, bool]:
    """Whole lines of about this size, none where no border is found; and whether they are all there are."""
    while size <= LONGEST_RECORD:
        data = opened.read(size, start)
        end, whole = len(data), start + len(data) == opened.end
        if not whole:
            end = data.rfind(b"\n") + 1
        if quoted and QUOTE in data:
            end = outside_quotes(data, end)
        if end:
            return data[:end], whole and end == len(data)
        size *= 2
    return b"", False


def outside_quotes(data: bytes | bytearray, end: int) -> int:
    """The last line end, `end` or before it, that does not stand between two quotes; 0 where there is none."""
    quotes = data.count(QUOTE, 0, end)
    while quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(QUOTE, before, end)
        end = before
    return end


def _last_lines(lines: bytes, records: int, *, quoted: bool) -> int:
    """Where the last `records` of these records begin."""
    end, inside = len(lines), False
    while records:
        before = lines.rfind(b"\n", 0, end - 1) + 1
        if quoted and lines.count(QUOTE, before, end) % 2:
            inside = not inside
        end = before
        records -= not inside
    return end


def _line_ends(stream: IO[bytes], start: int, end: int) -> int:
    """Line ends between two places; the stream stands at `end` then."""
    stream.seek(start)
    count = 0
    while piece := stream.read(min(PIECE, end - start)):
        count += piece.count(b"\n")
        start += len(piece)
    return count
