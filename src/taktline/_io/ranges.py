"""Files of lines cut into ranges of bytes that workers read. Here the lines are only counted, never decoded."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from io import BytesIO
from typing import IO, Any

from taktline._io.decode import BOM
from taktline._recipe.ports import Part
from taktline.errors import SourceError

QUOTE = b'"'
LONGEST = 1 << 26  # bytes in which there must be a border; else the file is not split there
PIECE = 1 << 20  # bytes in which line ends are counted at once

Decode = Callable[[Iterable[bytes], str, int], Iterator[Any]]  # lines, name of the file, number of the first line
Count = Callable[[bytes], int | None]  # records in some lines, None where that is not certain

_blank_line, _blank_row = re.compile(rb"\n\s").search, re.compile(rb"\n[\r\n]").search


class _Opened:
    """A file as long as somebody may read it again, whatever becomes of its name."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.descriptor = os.dup(stream.fileno())
        self.identity = _identity(self.descriptor)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Range(Part):
    """Whole lines of one file."""

    __slots__ = ("_count", "_decode", "_identity", "_line", "_opened", "_path", "_start", "size")

    def __init__(
        self, path: str, identity: tuple[int, int], start: int, size: int, count: int, line: int, decode: Decode,
        opened: _Opened | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._identity = identity  # device and inode
        self._start = start
        self.size = size
        self._count = count
        self._line = line  # number of the first one
        self._decode = decode
        self._opened = opened  # where it was cut

    def __reduce__(self) -> Any:
        where = (self._path, self._identity, self._start, self.size, self._count, self._line, self._decode)
        return Range, where

    def __len__(self) -> int:
        return self._count

    def decoded(self) -> Iterator[Any]:
        return self._decode(BytesIO(self._read()), self._path, self._line)

    def _read(self) -> bytes:
        if self._opened is not None:
            return os.pread(self._opened.descriptor, self.size, self._start)
        with open(self._path, "rb", buffering=0) as file:
            if _identity(file.fileno()) != self._identity:
                raise SourceError(f"{self._path!r} was replaced while it was read", path=self._path)
            return os.pread(file.fileno(), self.size, self._start)


def ranges(
    stream: Any, path: str, size: int, begin: Callable[[IO[bytes], str], Decode | None], count: Count, *,
    quoted: bool = False,
) -> Generator[Part | Iterator[Any] | None, int, int]:  # fmt: skip
    """The parts of one open file, as Splittable has them; returns the size that was sent last.

    `begin(stream, path)` reads what is before the first record, and says how to decode; None: there is no record.
    `quoted`: a line end between double quotes ends no record."""
    decode = begin(stream, path)
    if decode is None:
        return size
    opened, start = _Opened(stream), stream.tell()
    line = 1 + _line_ends(stream, 0, start)
    while os.pread(opened.descriptor, 1, start):
        lines = _lines(opened.descriptor, start, size, quoted=quoted)
        records = count(lines) if lines else None
        if records is not None:
            ends = records if not quoted else lines.count(b"\n")
            size = yield Range(path, opened.identity, start, len(lines), records, line, decode, opened)
            start, line = start + len(lines), line + ends
            continue
        stream.seek(start)
        size = yield decode(stream, path, line)
        at, start = start, stream.tell()
        if stream.peek(1):  # left before its end
            line += _line_ends(stream, at, start)
    return size


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


def text_lines(data: bytes) -> int:
    """The lines, the last one with or without an end."""
    return data.count(b"\n") + (not data.endswith(b"\n"))


def table_lines(data: bytes, delimiter: bytes) -> int | None:
    """The rows in lines of CSV; None where one may be blank, or a quote stands inside a field without quotes.

    >>> table_lines(b'1,"a\\nb"\\n2,c\\n', b","), table_lines(b'1,5" wide\\n2,6" wide\\n', b",")
    (2, None)
    """
    if QUOTE in data:
        outside = data.split(QUOTE)[::2]
        opened = all(not text or text[-1:] in (delimiter, b"\n") for text in outside[:-1])
        closed = all(not text or text[:1] in (delimiter, b"\r", b"\n") for text in outside[1:])
        if not (opened and closed):
            return None
        data = QUOTE.join(outside)
    return None if _blank_row(data) or data[:1] in (b"\r", b"\n") else text_lines(data)


def _lines(descriptor: int, start: int, size: int, *, quoted: bool) -> bytes:
    """Whole lines of about this size; none where size is 0, or no border is found."""
    size = min(size, LONGEST)
    while 0 < size <= LONGEST:
        data = os.pread(descriptor, size, start)
        end = len(data)
        if end == size or os.pread(descriptor, 1, start + end):
            end = data.rfind(b"\n") + 1
        if quoted and QUOTE in data:
            end = _outside_quotes(data, end)
        if end:
            return data[:end]
        size *= 2
    return b""


def _outside_quotes(data: bytes, end: int) -> int:
    """The last line end, `end` or before it, that does not stand between two quotes; 0 where there is none."""
    quotes = data.count(QUOTE, 0, end)
    while quotes % 2:
        before = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(QUOTE, before, end)
        end = before
    return end


def _line_ends(stream: IO[bytes], start: int, end: int) -> int:
    """Line ends between two places; the stream stands at `end` then."""
    stream.seek(start)
    count = 0
    while start < end:
        piece = stream.read(min(PIECE, end - start))
        count += piece.count(b"\n")
        start += len(piece)
    return count


def _identity(descriptor: int) -> tuple[int, int]:
    known = os.fstat(descriptor)
    return known.st_dev, known.st_ino
