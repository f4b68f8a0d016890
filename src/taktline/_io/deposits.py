"""Bytes for a sink that workers on other machines leave in files beside it, of which the caller is told name and size.

Each file has a name that no other attempt has, in a folder that only this run knows: what a worker leaves there that was
given up is never asked for, and goes with the folder. Who puts the bytes in their place has the system copy them from file to
file: they do not pass through the caller's program, and where the file system copies by itself, not through its machine.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

from taktline._signals import pass_on
from taktline.errors import SinkError

LEAST = 1 << 16  # bytes: to make, open and take away a file costs more than to send fewer
# What is told begins with one of these: the bytes follow; a name; the bytes, as there is no such folder.
HERE, LEFT, UNSEEN = b"\0", b"\1", b"\2"
BLOCK = 1 << 24  # bytes that are copied at once
REFUSED = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # the system cannot copy between these two


def leaving(encode: Callable[[Any], bytes | memoryview] | None, folder: str) -> Callable[[Any], bytes] | None:
    """What makes the same bytes in a worker and leaves them in this folder, where its machine has it."""
    return partial(_left, encode=encode, folder=folder) if encode is not None else None


def _left(values: Any, encode: Callable[[Any], bytes | memoryview], folder: str) -> bytes:
    data = encode(values)
    if len(data) < LEAST:
        return HERE + data
    name = secrets.token_hex(16)
    try:
        with open(os.path.join(folder, name), "xb") as file:
            file.write(data)
    except OSError as error:
        pass_on(error)  # it has another folder of that name, or none, or may not write there: or this run has ended
        return UNSEEN + data
    return LEFT + len(data).to_bytes(8, "little") + name.encode()


class Deposit:
    """A piece of the bytes that were left in a file."""

    def __init__(self, path: str, start: int, end: int) -> None:
        self.path = path
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._end - self._start

    def piece(self, start: int, end: int) -> Deposit:
        """Those from `start` to `end`."""
        return Deposit(self.path, self._start + start, self._start + end)

    def read(self) -> bytes:
        """The bytes. Raises OSError."""
        with open(self.path, "rb") as file:
            file.seek(self._start)
            return file.read(len(self))

    def append_to(self, file: IO[bytes]) -> None:
        """Put them behind what was written to a file. Raises OSError."""
        if not hasattr(os, "copy_file_range"):  # Linux has it
            file.write(self.read())
            return
        file.flush()
        source = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        at = self._start
        try:
            while at < self._end:
                copied = os.copy_file_range(source, file.fileno(), min(BLOCK, self._end - at), at)
                if not copied:
                    raise OSError(errno.EIO, f"{self.path} is shorter than it was")
                at += copied
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            file.write(self.piece(at - self._start, len(self)).read())
        finally:
            os.close(source)


class Deposits:
    """The folder of one run, as the sink has it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.unseen = False  # some worker has no such folder

    def told(self, data: bytes | memoryview) -> bytes | memoryview | Deposit:
        """What a worker has told: the bytes, or where they are. Raises SinkError where they are not as they were left."""
        kind, rest = data[:1], data[1:]
        if kind != LEFT:
            self.unseen = self.unseen or kind == UNSEEN
            return rest
        size, path = int.from_bytes(rest[:8], "little"), os.path.join(self.folder, bytes(rest[8:]).decode())
        try:
            there = os.stat(path).st_size
        except OSError as error:
            raise SinkError(f"what a worker has left in {path!r} cannot be had: {error.strerror}", path=path) from error
        if there != size:
            raise SinkError(f"what a worker has left in {path!r} has {there:,} bytes, and had {size:,}", path=path)
        return Deposit(path, 0, size)

    def done_with(self, data: bytes | memoryview | Deposit) -> None:
        """What a worker has left has been put in its place, so its file goes."""
        if isinstance(data, Deposit):
            with suppress(FileNotFoundError):
                os.unlink(data.path)
