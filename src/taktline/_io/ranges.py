"""Files of lines cut into ranges of bytes that workers read. Here the lines are only counted, never decoded."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from io import BytesIO
from typing import IO, Any

from taktline._io import opening, remote
from taktline._io.decode import BOM
from taktline._recipe.ports import Part
from taktline.errors import SourceError

QUOTE = b'"'
LONGEST = 1 << 20  # bytes in which a quoted field must end; else its file is not split there
PIECE = 1 << 20  # bytes in which line ends are counted at once

Decode = Callable[[Iterable[bytes], str, int], Iterator[Any]]  # lines, name of the file, number of the first line
Count = Callable[[bytes], int | None]  # records in some lines, None where that is not certain

_blank_line, _blank_row = re.compile(rb"\n\s").search, re.compile(rb"\n[\r\n]").search


class Range(Part):
    """Whole lines of one file. Where they were cut their bytes are kept, so that nothing that happens to the file
    later matters there."""

    __slots__ = ("_count", "_data", "_decode", "_file", "_line", "_path", "_start", "size")

    def __init__(
        self, path: str, file: tuple[int, int], start: int, size: int, count: int, line: int, decode: Decode,
        data: bytes | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._file = file  # device and inode
        self._start = start
        self.size = size
        self._count = count
        self._line = line  # number of the first one
        self._decode = decode
        self._data = data

    def __reduce__(self) -> Any:
        where = (self._path, self._file, self._start, self.size, self._count, self._line, self._decode)
        return Range, where

    def __len__(self) -> int:
        return self._count

    def decoded(self) -> Iterator[Any]:
        data = self._data if self._data is not None else self._read()
        return self._decode(BytesIO(data), self._path, self._line)

    def _read(self) -> bytes:
        with open(self._path, "rb", buffering=0) as file:
            if _identity(file) != self._file:
                raise SourceError(f"{self._path!r} was replaced while it was read", path=self._path)
            return os.pread(file.fileno(), self.size, self._start)


def ranges(
    path: str, size: int, begin: Callable[[IO[bytes], str], Decode | None], count: Count, *, quoted: bool = False
) -> Generator[Part | Iterator[Any] | None, int, int]:
    """The parts of one file, as Splittable has them; returns the size that was sent last.

    `begin(stream, name)` reads what is before the first record, and says how to decode; None: there is no record.
    `quoted`: a line end between double quotes ends no record."""
    name = remote.shown(path)
    with opening.reading(path) as stream:
        decode = begin(stream, name)
        if decode is None:
            return size
        file, start = _identity(stream), stream.tell()
        line = 1 + _line_ends(stream, 0, start)
        while _more(stream):
            lines = _lines(stream, size, quoted=quoted)
            records = count(lines) if lines else None
            if records is not None:
                size = yield Range(path, file, start, len(lines), records, line, decode, lines)
                start, line = start + len(lines), line + lines.count(b"\n")
                continue
            stream.seek(start)
            size = yield decode(stream, name, line)
            if _more(stream):
                at, start = start, stream.tell()
                line += _line_ends(stream, at, start)
    return size


def travels(decode: Any) -> bool:
    """Whether a worker can have this."""
    try:
        pickle.dumps(decode)
    except Exception:  # what users give as types= may refuse in any way
        return False
    return True


def can_be_cut(path: str) -> bool:
    """Whether the bytes of a file are its lines, and others can open it too."""
    return (
        path != opening.STANDARD and not remote.is_url(path) and not opening.packing_of(path) and os.path.isfile(path)
    )


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


def _lines(stream: Any, size: int, *, quoted: bool) -> bytes:
    """Whole lines of about this size; none where size is 0, or a quoted field does not end."""
    data: bytes = stream.read(size)
    if data and not data.endswith(b"\n"):
        data += stream.readline()
    if quoted and data.count(QUOTE) % 2:
        more, length = [data], 0
        while length < LONGEST and (line := stream.readline()):
            more.append(line)
            length += len(line)
            if line.count(QUOTE) % 2:
                return b"".join(more)
        return b""
    return data


def _more(stream: Any) -> bool:
    return bool(stream.peek(1))


def _line_ends(stream: IO[bytes], start: int, end: int) -> int:
    """Line ends between two places; the stream stands at `end` then."""
    stream.seek(start)
    count = 0
    while start < end:
        piece = stream.read(min(PIECE, end - start))
        count += piece.count(b"\n")
        start += len(piece)
    return count


def _identity(file: Any) -> tuple[int, int]:
    known = os.fstat(file.fileno())
    return known.st_dev, known.st_ino
