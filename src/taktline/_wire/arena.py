"""Shared memory of one direction of one channel: the sender writes payloads into it, the receiver reads them there.

It is an unnamed file, reached by its descriptor alone: it cannot leak, whoever is killed, and needs no /dev/shm.
Space is used as a ring. Positions count on for ever; a position's place in the file is `(position - base) % size`.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from taktline._signals import pass_on

LEAST = 1 << 20  # bytes of the first arena
ROOM = 8  # an arena holds so many of the largest payloads seen: two waiting, some not yet freed, and the ring's cut
ALIGN = 64  # bytes: a cache line, and what NumPy likes


class Arena:
    """The sender's end.

    >>> arena = Arena(1 << 16)
    >>> position = arena.put([b"abc", b"de"], 5)
    >>> reader = ArenaReader(arena.descriptor, arena.size, arena.base)
    >>> bytes(reader.at(position, 5))
    b'abcde'
    >>> arena.close(), reader.close()
    (None, None)
    """

    def __init__(self, size: int, base: int = 0) -> None:
        """Raises OSError where the system gives no such file, or not that much."""
        self._file = unnamed_file()
        try:
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        except BaseException:
            self._file.close()
            raise
        self._view = memoryview(self._map)
        self.size = size
        self.base = base  # the position at the file's start
        self.head = base  # positions below are taken
        self._freed = base  # positions below are free again

    @property
    def descriptor(self) -> int:
        """Of the file that it is, until that is handed over."""
        return self._file.fileno()

    def put(self, parts: Sequence[bytes | memoryview], total: int) -> int | None:
        """Write the parts one after the other; their position, or None where there is no room."""
        start = self.head
        offset = (start - self.base) % self.size
        if offset + total > self.size:  # a payload is never cut at the ring's end
            start += self.size - offset
            offset = 0
        end = start + _aligned(total)
        if end - self._freed > self.size:
            return None
        view = self._view
        for part in parts:
            size = len(part)
            view[offset : offset + size] = part
            offset += size
        self.head = end
        return start

    def free(self, position: int) -> None:
        """The receiver needs nothing before `position` any more."""
        self._freed = max(self._freed, position)

    def hand_over(self) -> io.FileIO:
        """The file, for the receiver; whoever takes it closes it."""
        return self._file

    def close(self) -> None:
        """Unmap and close. The receiver's end lives on."""
        self._view.release()
        self._map.close()
        self._file.close()


class ArenaReader:
    """The receiver's end."""

    def __init__(self, descriptor: int, size: int, base: int) -> None:
        self.size = size
        self.base = base
        self._file: io.FileIO | None = None
        self._view = memoryview(b"")
        try:
            self._map = mmap.mmap(descriptor, size)
            self._view = memoryview(self._map)
        except OSError as error:  # no address space left: then each payload is read as from a file
            pass_on(error)
            self._file = io.FileIO(os.dup(descriptor), "r+b")

    def at(self, position: int, total: int) -> memoryview:
        """What lies at a position. It stays as it is until the sender is told that it is free."""
        offset = (position - self.base) % self.size
        if self._file is not None:
            return memoryview(os.pread(self._file.fileno(), total, offset))
        return self._view[offset : offset + total]

    def export(self, position: int, skip: int, size: int) -> Any:
        """The bytes from `skip` on of what lies at a position, as a buffer that lives as long as anything made of it.

        A memoryview would not tell when the last array over it is gone; a ctypes array is what they all refer to.
        """
        from ctypes import c_ubyte  # some milliseconds, and only for large buffers

        return (c_ubyte * size).from_buffer(self._map, (position - self.base) % self.size + skip)

    def after(self, position: int, total: int) -> int:
        """The first position behind a payload."""
        return position + _aligned(total)

    def close(self) -> None:
        """Unmap, or leave that to the last payload that is still looked at."""
        if self._file is not None:
            self._file.close()
            return
        try:
            self._view.release()
            self._map.close()
        except BufferError as error:  # a payload is still referred to; the mapping goes with it
            pass_on(error)


def wanted(total: int) -> int:
    """The size of an arena for payloads of `total` bytes."""
    size = LEAST
    while size < total * ROOM:
        size *= 2
    return size


def _aligned(total: int) -> int:
    return (total + ALIGN - 1) // ALIGN * ALIGN


# A descriptor that is a plain number is lost where a signal's handler raises between the call that gives it and the line
# that keeps it. So each has an object of C code around it, which closes it when it is dropped.
class _Descriptor(Protocol):
    def fileno(self) -> int: ...
    def close(self) -> None: ...


Owner = TypeVar("Owner", bound=_Descriptor)


def unnamed_file() -> io.FileIO:
    """A file in memory, or in the temporary folder, that has no name and so cannot be left behind."""
    if hasattr(os, "memfd_create"):
        try:
            return kept_above(io.FileIO("taktline", "r+b", opener=_in_memory), _as_file)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
                raise
            # a sandbox or an old kernel has none
    import tempfile

    # Unlinked from the start.
    return kept_above(tempfile.TemporaryFile(buffering=0), _as_file)


def _in_memory(name: str, flags: int) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


def _as_file(descriptor: int) -> io.FileIO:
    return io.FileIO(descriptor, "r+b")


def pipe() -> tuple[io.FileIO, io.FileIO]:
    """The ends of a pipe: to read, and to write."""
    reads, writes = map(io.FileIO, os.pipe(), ("rb", "wb"))
    return kept_above(reads, io.FileIO), kept_above(writes, lambda descriptor: io.FileIO(descriptor, "wb"))


def socket_pair() -> tuple[Any, Any]:
    """Two connected sockets: the system's own, whatever a library such as eventlet has put in their place."""
    import _socket

    here, there = _socket.socketpair()
    return kept_above(here, _of_number), kept_above(there, _of_number)


def _of_number(descriptor: int) -> Any:
    import _socket

    return _socket.socket(fileno=descriptor)


def kept_above(owner: Owner, make: Callable[[int], Owner]) -> Owner:
    """`owner`, or what `make` makes of another descriptor for the same file where the caller has closed standard input,
    output or error and the system has given us that place: what a library prints there must not end up in our file."""
    if owner.fileno() > 2:
        return owner
    moved = make(fcntl.fcntl(owner.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
    owner.close()
    return moved


def above_standard(descriptor: int) -> int:
    """`descriptor`, or another one for the same file where it has the place of standard input, output or error."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
