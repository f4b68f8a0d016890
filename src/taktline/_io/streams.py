"""Lines that can be read only once and in order (of packed files, URLs, standard input) cut into parts: read here, where
their ends are counted, and decoded by workers."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import IO, Any

from taktline._io.line_numbers import line_in, numbers
from taktline._io.pushback import Taken
from taktline._io.ranges import LONGEST_RECORD, Cutting, Decode, outside_quotes
from taktline._io.splitting import ASK_TABLE
from taktline.abc import Part, Unread

PIECE = 1 << 16  # bytes asked for at once


class Stretch(Part):
    """Whole lines of a stream. Its pickle has their bytes, out of band where there are many."""

    __slots__ = ("_count", "_data", "_decode", "_line", "_numbers", "_path", "size")

    def __init__(self, path: str, data: Any, count: int, line: int, decode: Decode) -> None:
        self._path = path
        self._data = data
        self.size = len(data)
        self._count = count
        self._line = line  # number of the first one
        self._decode = decode
        self._numbers: Sequence[int] | None = None  # of the lines in which its records begin, once they were asked for

    def __reduce_ex__(self, protocol: Any) -> Any:
        data = pickle.PickleBuffer(self._data) if protocol >= 5 else bytes(self._data)
        return Stretch, (self._path, data, self._count, self._line, self._decode)

    def __len__(self) -> int:
        return self._count

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        return self._decode.records(BytesIO(self._data), self._path, self._line, unread=unread)

    def table(self) -> Any:
        return self._decode.table_of(self._data, self._line, self._count)

    def where(self, n: int) -> str:
        if self._numbers is None:
            self._numbers = numbers(self._data, self._count, self._line, self._path, self._decode.records)
        return line_in(self._path, self._numbers, n)


def stretches(
    cutting: Cutting, stream: IO[bytes], path: str, wanted: int
) -> Generator[Part | Iterator[Any] | None, int, int]:
    """The parts of one open stream, as `Cutting.parts` has those of a file."""
    lines = _StreamLines(stream)
    taken = Taken(lines.each())
    decode = cutting.begun(taken, path)
    lines.give_back(taken)
    if decode is None:
        return wanted
    while lines.any():
        number = lines.number
        enough = LONGEST_RECORD if wanted == ASK_TABLE else wanted
        data, records = cutting.cut(partial(lines.look, enough, cutting.quoted), wanted, lines.at)
        if records:
            cutting.left = None
            lines.take(data, records if wanted != ASK_TABLE and not cutting.quoted else data.count(b"\n"))
            wanted = yield Stretch(path, data, records, number, decode)
        else:
            each = lines.each()
            taken = Taken(each)
            cutting.stands(path, number, taken)
            wanted = yield decode.records(cutting.lines(taken, each), path, number, unread=cutting.unread)
            lines.give_back(taken)
    return wanted


class _StreamLines:
    """The lines of a stream, to be had one by one, or to be looked at and taken many at once."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._ahead = bytearray()  # read, and not taken
        self._error: Exception | None = None  # of the stream, behind what is ahead
        self._ended = False
        self._seen = 0  # bytes ahead that were looked at, and did not do
        self.number = 1  # of the next one
        self._came = 0  # bytes

    @property
    def at(self) -> int:
        """Bytes before the next one."""
        return self._came - len(self._ahead)

    def any(self) -> bool:
        """Whether more is there. Raises what the stream raises."""
        self._read(1)
        if self._error is not None and not self._ahead:
            raise self._error
        return bool(self._ahead)

    def each(self) -> Iterator[bytes]:
        """Line by line. It may be left anywhere; what is taken next goes on behind it. Raises what the stream raises."""
        ahead, self._seen = self._ahead, 0
        while end := ahead.find(b"\n") + 1:
            line = bytes(ahead[:end])
            del ahead[:end]
            self.number += 1
            yield line
        if self._error is not None:
            raise self._error
        begun = bytes(ahead)
        ahead.clear()
        if not self._ended:
            rest = self._stream.readline()
            self._came += len(rest)
            begun += rest
        if begun:
            self.number += 1
            yield begun
        if self._ended:
            return
        for line in self._stream:
            self.number += 1
            self._came += len(line)
            yield line
        self._ended = True

    def give_back(self, taken: Taken) -> None:
        """What was taken too many is ahead again."""
        if taken.waiting:
            self._ahead[:0] = b"".join(reversed(taken.waiting))
            self.number -= len(taken.waiting)
            self._seen = 0

    def look(self, most: int, quoted: bool, size: int) -> tuple[bytes, bool]:
        """Whole lines of about this size, none where no border is found, and whether they are all there are. So many of
        them are enough: more may not come for a while."""
        ahead, end = self._ahead, 0
        self._read(size, self._seen, most)
        while size <= LONGEST_RECORD and not (end := self._border(size, quoted=quoted)) and not self._whole(size):
            looked, size = size, 2 * size
            self._read(size, looked, 1)
        self._seen = end
        with memoryview(ahead) as view:
            return bytes(view[:end]), self._ended and self._error is None and end == len(ahead)

    def take(self, data: bytes, lines: int) -> None:
        """What was looked at, or the beginning of that."""
        del self._ahead[: len(data)]
        self._seen = 0
        self.number += lines

    def _border(self, size: int, *, quoted: bool) -> int:
        ahead = self._ahead
        end = len(ahead) if self._whole(size) and self._error is None else ahead.rfind(b"\n", 0, size) + 1
        return outside_quotes(ahead, end) if quoted and end else end

    def _whole(self, size: int) -> bool:
        return self._ended and size >= len(self._ahead)

    def _read(self, size: int, behind: int = 0, enough: int = 1) -> None:
        """Have so many bytes ahead, or enough line ends behind a place; or what a read that fails gave before it."""
        ahead = self._ahead
        there = ahead.count(b"\n", behind)
        while len(ahead) < size and there < enough and not self._ended:
            try:
                piece = self._stream.read1(PIECE)
            except Exception as error:
                self._error, self._ended = error, True
                return
            ahead += piece
            self._came += len(piece)
            there += piece.count(b"\n")
            self._ended = not piece
