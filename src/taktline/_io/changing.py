"""Local files that others may change while they are read. One of lines is read as far as it went when it was opened: it
may grow, and must not be cut short. One of Parquet must stay as it is."""

from __future__ import annotations

import io
import os
from typing import Any

from taktline.errors import SourceError

UNKNOWN = 1 << 62  # the end of a file that tells none, such as a pipe or one of the kernel's own
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
        self.state = self._now()

    def _now(self) -> tuple[int, int, int, int]:
        now = os.fstat(self._file.fileno())
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns

    def check(self, path: str) -> None:
        """Raises SourceError where it is not what it was when it was opened."""
        if self._now() != self.state:
            raise changed(path, "what is read now does not belong to what was read before")


def identity(descriptor: int) -> tuple[int, int]:
    """What an open file is known by, whatever becomes of its name: device and inode."""
    known = os.fstat(descriptor)
    return known.st_dev, known.st_ino


def replaced(path: str) -> SourceError:
    """What a worker says that does not find the file which was cut."""
    return SourceError(f"{path!r} was replaced while it was read", path=path)


def cut_short(path: str, at: int, end: int) -> SourceError:
    """What to raise where a file that went to `end` has nothing behind `at` any more."""
    return changed(path, f"it had {end:,} bytes, and none is left behind byte {at:,}", "cut short", byte=at)


def changed(path: str, why: str, how: str = "changed", **facts: Any) -> SourceError:
    """What to raise where a file is not what it was when reading it began."""
    return SourceError(f"{path!r} was {how} while it was read: {why}. {ADVICE}", path=path, **facts)
