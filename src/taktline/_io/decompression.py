"""The bytes of packed files: gzip, bzip2, xz and Zstandard, with all members, streams and frames."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from typing import IO, Any

from taktline._io import zstd
from taktline.errors import SourceError

PIECE = 1 << 14  # packed bytes at once: a block of 128 KiB can be 4 bytes of zstd, so this bounds what they unpack to
GZIP = 16 + zlib.MAX_WBITS  # with the header and the checksum of gzip
BUFFER = 1 << 20  # bytes of text
HEAD_BYTES = 10  # bytes by which a packed file is known
BEGINNINGS = {  # what begins with less of it may still become it
    "gzip": (rb"\x1f\x8b\x08", b"\x1f\x8b\x08"),
    "zstd": (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", b"\x28\xb5\x2f\xfd"),
    "bzip2": (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", b"BZh"),
    "xz": (rb"\xfd7zXZ\x00", b"\xfd7zXZ\x00"),
}


def kind_of(head: bytes) -> str:
    """How a file with these first bytes is packed; empty where it is not.

    >>> kind_of(b"\\x1f\\x8b\\x08 and so on"), kind_of(b'{"n": 1}'), kind_of(b"BZhang, 3")
    ('gzip', '', '')
    """
    return next((kind for kind, (whole, _) in BEGINNINGS.items() if re.match(whole, head)), "")


def is_plain(head: bytes) -> bool:
    r"""Whether these first bytes are text, as of a packed file that a browser has unpacked on the way; not of few bytes, to
    which a packed file may have been cut.

    >>> is_plain(b'{"n": 125}'), is_plain(b"\x1f\x8b\x08 and so on"), is_plain(b"(")
    (True, False, False)
    """
    return len(head) >= HEAD_BYTES and all(31 < byte < 127 or byte in b"\t\r\n" for byte in head)


def may_become(head: bytes) -> bool:
    """Whether so few first bytes do not tell yet."""
    few = len(head) < HEAD_BYTES
    return few and bool(head) and any(head.startswith(b[: len(head)]) for _, b in BEGINNINGS.values())


def opened(packed: IO[bytes], name: str, kind: str) -> io.BufferedReader:
    """The text in a packed file. Raises SourceError, when it is read, where the file is damaged or ends too early."""
    begin, pad = {
        "gzip": (lambda: zlib.decompressobj(GZIP), b"\0"), "zstd": (zstd.decompressor, b""),
        "bzip2": (_bzip2, b""), "xz": (_xz, b"\0"),
    }[kind]  # fmt: skip
    return io.BufferedReader(_Unpacked(packed, name, kind, begin, pad=pad), BUFFER)


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ)


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
            if not self._input and getattr(self._member, "needs_input", True):
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
            # Some bytes of bzip2 or xz may hold gigabytes: those two give them piece by piece.
            bounded = hasattr(member, "needs_input") and self._kind != "zstd"
            self._output = memoryview(member.decompress(packed, BUFFER) if bounded else member.decompress(packed))
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
