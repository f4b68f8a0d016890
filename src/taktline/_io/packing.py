"""Text packed block by block, so that a file can go on from any of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial

from taktline._io import zstd
from taktline.errors import LineError

BLOCK_BYTES = 1 << 16  # bytes of text compressed at once, as in BGZF, the blocked gzip of bgzip: any gunzip reads it


def _gzipped(text: bytes, level: int = 6) -> bytes:
    """A gzip member without a time in it."""
    return gzip.compress(text, compresslevel=level, mtime=0)


def _bzipped(text: bytes, level: int = 9) -> bytes:
    import bz2

    return bz2.compress(text, level)


def _xzipped(text: bytes, level: int = 6) -> bytes:
    import lzma

    # A window of the block's own size: the one of the preset costs 94 MB of memory, set up anew for each block.
    window = {"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": BLOCK_BYTES}
    return lzma.compress(text, filters=[window])


# Blocks of a file must be fit to be joined.
_PACK: dict[str, Callable[..., bytes]] = {
    "gzip": _gzipped,
    "zstd": zstd.packed,
    "bzip2": _bzipped,
    "xz": _xzipped,
}
LEVELS = {"gzip": range(10), "zstd": range(1, 23), "bzip2": range(1, 10), "xz": range(10)}


def packer(kind: str, level: int | None) -> Callable[[bytes], bytes] | None:
    """What packs a block of text; None where it stays as it is. Raises LineError for a level that there is not."""
    if level is None:
        return _PACK.get(kind)
    if kind not in LEVELS:
        raise LineError("level= is for what is packed: name a file with .gz, .zst, .bz2 or .xz")
    if not isinstance(level, int) or level not in LEVELS[kind]:
        raise LineError(f"{kind} has no level={level!r}: {LEVELS[kind][0]} to {LEVELS[kind][-1]}")
    return partial(_PACK[kind], level=level)
