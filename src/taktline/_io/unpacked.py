"""The bytes of packed files: gzip with all its members, Zstandard with all its frames."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import IO, Any

from taktline._io import zstd
from taktline.errors import SourceError

PIECE = 1 << 14  # packed bytes at once: a block of 128 KiB can be 4 bytes of zstd, so this bounds what they unpack to
GZIP = 16 + zlib.MAX_WBITS  # with the header and the checksum of gzip
BUFFER = 1 << 20  # bytes of text


def gunzipped(packed: IO[bytes], name: str) -> io.BufferedReader:
    """The text in a gzip file. Raises SourceError, when it is read, where the file is damaged or ends too early."""
    return io.BufferedReader(_Unpacked(packed, name, "gzip", lambda: zlib.decompressobj(GZIP), pad=b"\0"), BUFFER)


def unzstd(packed: IO[bytes], name: str) -> io.BufferedReader:
    """The text in a Zstandard file. Raises SourceError, when it is read, where it is damaged or ends too early."""
    return io.BufferedReader(_Unpacked(packed, name, "zstd", zstd.decompressor, pad=b""), BUFFER)


class _Unpacked(io.RawIOBase):
    """What is in a file of any number of members, each with an end of its own; `pad` may stand behind them."""

    # zstandard's own reader ends without an error where the file is cut off inside a frame: records would be lost.

    def __init__(self, packed: IO[bytes], name: str, kind: str, begin: Callable[[], Any], pad: bytes) -> None:
        self._packed = packed
        self._name = name
        self._kind = kind
        self._begin = begin
        self._pad = pad
        self._any = False  # member before
        self._member: Any = None  # open, None between two
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._packed.read(PIECE)
                if not self._input:
                    if self._member is not None:
                        raise self._damaged("it ends too early")
                    return 0
            self._unpack()
        count = min(len(buffer), len(self._output))
        buffer[:count], self._output = self._output[:count], self._output[count:]
        return count

    def _unpack(self) -> None:
        if self._member is None:
            if self._any and self._pad:
                self._input = self._input.lstrip(self._pad)
                if not self._input:
                    return
            self._member = self._begin()
        member, packed, self._input = self._member, self._input, b""
        try:
            self._output = memoryview(member.decompress(packed))
        except Exception as error:  # each package has an error class of its own
            raise self._damaged(str(error)) from error
        if member.eof:
            self._member, self._any, self._input = None, True, member.unused_data

    def _damaged(self, why: str) -> SourceError:
        return SourceError(
            f"{self._name!r} is a damaged or truncated {self._kind} file: {why}. "
            "What came before the damage has been read.",
            path=self._name,
        )
