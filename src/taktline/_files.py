"""What only one run may have, and what a power cut must not undo: locks on files, and folders made safe."""

from __future__ import annotations

import errno
import fcntl
import os
from time import monotonic, sleep

PATIENCE = 3.0  # seconds for another run to let go of a file: the workers of a caller that was just killed may have it
CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR}


def lock(file: int) -> None:
    """Keep other runs away from a file. Raises BlockingIOError where one has it, and does not let go in some seconds."""
    until = monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise
            sleep(0.02)


def is_still(file: int, path: str) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def put(part: str, target: str) -> None:
    """Give a file, whose bytes are synced, the name `target`, in a way that survives a power cut. Raises OSError."""
    os.replace(part, target)
    sync_folder(target)
    if os.path.dirname(os.path.abspath(part)) != os.path.dirname(os.path.abspath(target)):
        sync_folder(part)


def sync_folder(path: str) -> None:
    """Make the name `path`, given, new or taken away, survive a power cut. Raises OSError where the disk fails; where a
    file system cannot sync a folder at all, it does what it does by itself."""
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not read
        os.sync()
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
    finally:
        os.close(folder)


def write_whole(path: str, data: bytes) -> None:
    """A small file that is there as a whole or as it was before, also after a power cut. Raises OSError."""
    part = f"{path}.new"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
