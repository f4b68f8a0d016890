"""A page of memory that one worker writes and the hub reads: which value it is at. It outlives the worker.

Places, each (batch, position in it, step): the *mark* is set before a value that may kill or hang its worker, and
taken off after it; *seen* is where the worker was when it was last asked. Behind the page the worker's stack is
appended as text when the hub asks for it, by a C function that needs neither the interpreter nor its lock.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from typing import NamedTuple

from taktline._wire.arena import unnamed_file

PAGE = mmap.PAGESIZE
ANY_POSITION = (1 << 63) - 1  # position: one of the batch's values, and nobody knows which
PLACE = struct.Struct("<QQQQQ")  # version, batch + 1 (0: none), position, step, deadline in monotonic ns (0: none)
TEXT = 1 << 16  # bytes of the newest stack that are read at most


class BoardPlace(NamedTuple):
    """A value on its way through a segment: `position` in its batch as the worker got it."""

    seq: int
    position: int
    step: int
    deadline_ns: int = 0


class Board:
    """Both ends of it.

    >>> board = Board()
    >>> board.mark.set(7, 3, 1), board.mark.get()
    (None, BoardPlace(seq=7, position=3, step=1, deadline_ns=0))
    >>> board.mark.clear(), board.mark.get()
    (None, None)
    >>> board.close()
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._file = unnamed_file() if descriptor is None else io.FileIO(descriptor, "r+b")
        try:
            if descriptor is None:
                os.ftruncate(self.descriptor, PAGE)
            self._map = mmap.mmap(self.descriptor, PAGE)
        except BaseException:
            self._file.close()
            raise
        self.mark = Slot(self._map, 0)
        self.seen = Slot(self._map, PLACE.size)
        self.taken = Slot(self._map, 2 * PLACE.size)  # used once a step has taken the signal that asks for itself

    @property
    def descriptor(self) -> int:
        """Of the file that it is."""
        return self._file.fileno()

    def stack(self) -> str:
        """The newest stack that the worker left, as text; empty where there is none."""
        size = os.fstat(self.descriptor).st_size - PAGE
        if size <= 0:
            return ""
        text = os.pread(self.descriptor, TEXT, PAGE + max(0, size - TEXT)).decode("utf-8", "replace")
        return text[max(0, text.rfind("Current thread"), text.rfind("\nStack (most recent call first)")) :].strip()

    def close(self) -> None:
        """Let go of it. May be called again."""
        self.mark.close()
        self.seen.close()
        self.taken.close()
        self._map.close()
        self._file.close()


class Slot:
    """One place on the board. Its version is odd while it is written, so that a worker killed meanwhile left nothing."""

    def __init__(self, page: mmap.mmap, offset: int) -> None:
        self._view = memoryview(page)[offset : offset + PLACE.size]
        self._version = 0

    def set(self, seq: int, position: int, step: int, deadline_ns: int = 0) -> None:
        """The worker is at this value now. Some 250 ns."""
        self._version = version = self._version + 2
        view, pack = self._view, PLACE.pack_into
        pack(view, 0, version - 1, seq + 1, position, step, deadline_ns)
        pack(view, 0, version, seq + 1, position, step, deadline_ns)

    def clear(self) -> None:
        """The worker is at no value."""
        self.set(-1, 0, 0)

    @property
    def used(self) -> bool:
        """Whether the worker has ever written here."""
        return bool(PLACE.unpack_from(self._view)[0])

    def get(self) -> BoardPlace | None:
        """Where the worker is, or was when it ended."""
        before = PLACE.unpack_from(self._view)
        after = PLACE.unpack_from(self._view)
        if before != after or before[0] % 2 or before[1] == 0:
            return None
        return BoardPlace(before[1] - 1, *before[2:])

    def close(self) -> None:
        """Let go of the page."""
        self._view.release()
