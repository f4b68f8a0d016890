"""Files that only one run may have, that nobody else may read or have made, and that a power cut must not undo; names beside
others."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from time import monotonic, sleep

from taktline import _urls
from taktline._signals import pass_on
from taktline.errors import LineError, SinkError

PATIENCE = 3.0  # seconds for another run to let go of a file: the workers of a caller that was just killed may have it
CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR}


WRONG_PLACES = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES,
    errno.EPERM, errno.EROFS, errno.ENXIO, errno.EBADF,
}  # fmt: skip


def refusal(error: OSError, what: str, path: str, then: str = "") -> LineError | SinkError:
    """What to raise where a file that is written to cannot be had: LineError where another place must be named, and SinkError
    where the same may be had later, as on a disk that is full, or away."""
    text = f"{what}: {error.strerror or error}{then}"
    return LineError(text) if error.errno in WRONG_PLACES else SinkError(text, path=path)


def private(path: str, *, make: bool = True) -> int:
    """Open a file that holds records, to read and write; where there is none, and it is to be made, make it for this user's
    eyes alone. Raises PermissionError where it is somebody else's, OSError where it is a link or no plain file."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    while True:
        try:
            file = os.open(path, flags)
            break
        except FileNotFoundError:
            if not make:
                raise
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue  # somebody has made it just now: look at whose it is
    try:
        known = os.fstat(file)
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", path)
        if known.st_uid != os.geteuid():
            why = f"it belongs to the user {known.st_uid}, and this is {os.geteuid()}: chown it to go on with what is in it"
            raise PermissionError(errno.EPERM, why, path)
    except BaseException:
        os.close(file)
        raise
    return file


def umask() -> int:
    """Return the bits that new files do not get, without changing them, since another thread may make a file meanwhile."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError as error:
        pass_on(error)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
    except FileNotFoundError as error:
        pass_on(error)
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
    except PermissionError as error:  # a folder that may be written and not read
        pass_on(error)
        os.sync()
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(folder)


def write_whole(path: str, data: bytes) -> None:
    """A small file that is there as a whole or as it was before, also after a power cut. Raises OSError."""
    part = f"{path}.new"
    made = private(part)
    try:
        with os.fdopen(made, "wb") as file:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def check_at(place: str) -> str | None:
    """The path of what `write_at` would write; None of a URL. Raises LineError where that cannot be written to."""
    path = _urls.local(place)
    if path is None:
        _urls.check_target(place)
    return path


def write_at(place: str, data: bytes) -> None:
    """`write_whole` at a path, or the like at a URL. Raises OSError, and of a URL LineError or SinkError."""
    path = _urls.local(place)
    if path is None:
        _urls.put(place, data)
    else:
        write_whole(path, data)


def read_at(place: str) -> bytes | None:
    """The bytes of a small file or object; None where there is none. Raises OSError, and of a URL LineError, SourceError."""
    path = _urls.local(place)
    try:
        if path is None:
            return _urls.get(place)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        pass_on(error)
        return None


def take_away_at(place: str) -> None:
    """A file or object, where it is there. Raises OSError, and of a URL LineError or SinkError."""
    path = _urls.local(place)
    if path is None:
        _urls.take_away(place)
        return
    with suppress(FileNotFoundError):
        os.unlink(path)


def is_there(place: str) -> bool:
    """Whether there is a file or an object. Of a URL raises LineError, SinkError."""
    path = _urls.local(place)
    return _urls.is_there(place) if path is None else os.path.exists(path)


def beside(path: str) -> str:
    """A name for a file that goes with another one.

    >>> beside("out/scored.jsonl.gz"), beside("failed.sqlite"), beside("out/")
    ('out/scored.again.jsonl.gz', 'failed.again.jsonl', 'out.again.jsonl')
    """
    folder, name = os.path.split(path.rstrip(os.sep))
    stem, _, suffix = name.partition(".")
    return os.path.join(folder, f"{stem}.again.{suffix if suffix and suffix != 'sqlite' else 'jsonl'}")
