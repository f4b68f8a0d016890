"""Zstandard streams: of the standard library from Python 3.14 on, of the package zstandard before."""

from __future__ import annotations

import io
from functools import cache, partial
from typing import IO, Any

from taktline.errors import LineError

LEVEL = 3  # zstd's own
PIECE = 1 << 14  # packed bytes at once: a block of 128 KiB can be 4 bytes, so this bounds what they unpack to


class ZstdDamaged(Exception):
    """What comes here is no Zstandard, or ends in the middle of a frame."""


def check() -> None:
    """Raises LineError where nothing on this machine can read and write Zstandard."""
    try:
        _decompressor()
    except ImportError:
        raise LineError(
            "files with .zst need Python 3.14 or the package zstandard: pip install 'taktline[zstd]'"
        ) from None


class Unpacked(io.RawIOBase):
    """The bytes of a file of any number of frames. Raises ZstdDamaged when it is read."""

    # zstandard's own reader ends without an error where the file is cut off inside a frame: records would be lost.

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame: Any = None  # open, None between two
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._packed.read(PIECE)
                if not self._input:
                    if self._frame is not None:
                        raise ZstdDamaged("it ends inside a frame")
                    return 0
            self._unpack()
        count = min(len(buffer), len(self._output))
        buffer[:count], self._output = self._output[:count], self._output[count:]
        return count

    def _unpack(self) -> None:
        if self._frame is None:
            self._frame = _decompressor()
        frame, packed, self._input = self._frame, self._input, b""
        try:
            self._output = memoryview(frame.decompress(packed))
        except Exception as error:  # each package has an error class of its own
            raise ZstdDamaged(str(error)) from error
        if frame.eof:
            self._frame, self._input = None, frame.unused_data


def packed(text: bytes) -> bytes:
    """A frame with a checksum."""
    compressed: bytes = _compress()(text)
    return compressed


def _decompressor() -> Any:
    try:
        from compression import zstd
    except ImportError:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()
    return zstd.ZstdDecompressor()


@cache
def _compress() -> Any:
    try:
        from compression import zstd
    except ImportError:
        import zstandard

        return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress
    options = {zstd.CompressionParameter.compression_level: LEVEL, zstd.CompressionParameter.checksum_flag: 1}
    return partial(zstd.compress, options=options)
