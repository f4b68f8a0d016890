"""Local files that others may change while they are read. One of lines is read as far as it went when it was opened: it
may grow, and must not be cut short. One of Parquet must stay as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from platform import node
from typing import Any, NamedTuple
from zlib import crc32

from taktline._signals import pass_on
from taktline.errors import SourceError

UNKNOWN = 1 << 62  # the end of a file that tells none, such as a pipe or one of the kernel's own
LOOKED_AT = 1 << 12  # bytes at the beginning and at the end, by which another machine knows a file again
ADVICE = "Read a copy of it, or have what writes it make a new file and rename that"


class Lasting(io.FileIO):
    """A file to be read up to `end`, where it ended when it was opened. Reading raises SourceError where that is gone:
    a line that was cut through never comes."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.end = os.fstat(self.fileno()).st_size or UNKNOWN

    def readinto(self, buffer: Any) -> int | None:
        if self.end == UNKNOWN:
            return super().readinto(buffer)
        at = self.tell()
        with memoryview(buffer) as view:
            count = super().readinto(view[: self.end - at])
        if not count and at < self.end:
            raise cut_short(str(self.name), at, self.end)
        return count


class Unchanged:
    """An open file that must stay as it is. It keeps its identity where another one gets its name."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._state = self._now()

    def known(self) -> tuple[KnownFile, int]:
        """What it is known by, and when it was changed last."""
        return known(self._file.fileno(), self._state[2]), self._state[3]

    def is_what(self, was: tuple[KnownFile, int]) -> bool:
        """Whether this is the file that was known by that, and has not changed since."""
        file, changed_ns = was
        size, here = self._state[2], file.machine == machine()
        return size == file.end and file.is_at(self._file.fileno()) and (not here or changed_ns == self._state[3])

    def _now(self) -> tuple[int, int, int, int]:
        now = os.fstat(self._file.fileno())
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns

    def check(self, path: str) -> None:
        """Raises SourceError where it is not what it was when it was opened."""
        if self._now() != self._state:
            raise changed(path, "what is read now does not belong to what was read before")


class KnownFile(NamedTuple):
    """What an open file is known by, whatever becomes of its name: here by device and inode. Each machine has others, so
    another one knows it by a check sum over some of its first `end` bytes; times of change differ there, too."""

    machine: str
    device: int
    inode: int
    end: int
    check: int

    def is_at(self, descriptor: int) -> bool:
        """Whether it is the file that is open here."""
        now = os.fstat(descriptor)
        if self.machine == machine():
            return (now.st_dev, now.st_ino) == (self.device, self.inode)
        return self.end != UNKNOWN and now.st_size >= self.end and check_sum(descriptor, self.end) == self.check


def known(descriptor: int, end: int) -> KnownFile:
    """What an open file is known by that is read up to `end`."""
    now = os.fstat(descriptor)
    return KnownFile(machine(), now.st_dev, now.st_ino, end, 0 if end == UNKNOWN else check_sum(descriptor, end))


def are_here(files: Sequence[tuple[str, KnownFile]]) -> bool:
    """Whether any of these is on this machine, under the path that it has where it is known from."""
    for path, file in files:
        try:
            with open(path, "rb", buffering=0) as there:
                if file.is_at(there.fileno()):
                    return True
        except OSError as error:
            pass_on(error)
    return False


def check_sum(descriptor: int, end: int) -> int:
    """Of the first and the last bytes of a file that ends there."""
    first = os.pread(descriptor, min(end, LOOKED_AT), 0)
    return crc32(os.pread(descriptor, min(end, LOOKED_AT), max(0, end - LOOKED_AT)), crc32(first))


@cache
def machine() -> str:
    """What tells this machine, as it has been started, from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:  # not on this system
        pass_on(error)
        return node()


def replaced(path: str) -> SourceError:
    """What a worker says that does not find the file which was cut."""
    return SourceError(f"{path!r} was replaced while it was read", path=path)


def cut_short(path: str, at: int, end: int) -> SourceError:
    """What to raise where a file that went to `end` has nothing behind `at` any more."""
    return changed(path, f"it had {end:,} bytes, and none is left behind byte {at:,}", "cut short", byte=at)


def changed(path: str, why: str, how: str = "changed", **facts: Any) -> SourceError:
    """What to raise where a file is not what it was when reading it began."""
    return SourceError(f"{path!r} was {how} while it was read: {why}. {ADVICE}", path=path, **facts)
