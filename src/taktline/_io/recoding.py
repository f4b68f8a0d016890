"""Text in an encoding whose lines cannot be found in its bytes (UTF-16 and the like), read as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

from taktline.errors import SourceError

PIECE = 1 << 16  # bytes decoded at once
BUFFER = 1 << 20  # bytes of text


def recoded(stream: IO[bytes], name: str, encoding: str) -> io.BufferedReader:
    """The text of a stream as UTF-8. Raises SourceError, when it is read, where the bytes are none: what follows
    them is not known to be text either."""
    return io.BufferedReader(_Recoded(stream, name, encoding), BUFFER)


class _Recoded(io.RawIOBase):
    def __init__(self, stream: Any, name: str, encoding: str) -> None:
        self._stream = stream
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._read = 0  # bytes before those that are decoded now
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            piece = self._stream.read1(PIECE)
            self._ended = not piece
            try:
                text = self._decoder.decode(piece, final=self._ended)
            except UnicodeError as error:
                raise SourceError(
                    f"{self._name!r} is not {self._encoding}, in the {len(piece) or PIECE:,} bytes from byte {self._read:,} "
                    f"on: {error}",
                    path=self._name,
                ) from error
            self._read += len(piece)
            self._ready = text.encode("utf-8", "backslashreplace")
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count
