"""Zstandard streams: of the standard library from Python 3.14 on, of the package zstandard before."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from taktline.errors import LineError

LEVEL = 3  # zstd's own


def check() -> None:
    """Raises LineError where nothing on this machine can read and write Zstandard."""
    try:
        decompressor()
    except ImportError:
        raise LineError(
            "files with .zst need Python 3.14 or the package zstandard: pip install 'taktline[zstd]'"
        ) from None


def packed(text: bytes, level: int = LEVEL) -> bytes:
    """A frame with a checksum."""
    compressed: bytes = _compress(level)(text)
    return compressed


def decompressor() -> Any:
    """For one frame."""
    try:
        from compression import zstd
    except ImportError:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj()
    return zstd.ZstdDecompressor()


@cache
def _compress(level: int) -> Any:
    try:
        from compression import zstd
    except ImportError:
        import zstandard

        return zstandard.ZstdCompressor(level=level, write_checksum=True).compress
    options = {zstd.CompressionParameter.compression_level: level, zstd.CompressionParameter.checksum_flag: 1}
    return partial(zstd.compress, options=options)
