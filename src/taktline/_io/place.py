"""What a path names: a name is not the thing. It may be a device, a pipe, a link, the input, somebody else's file. So it is
looked at before anything is opened; only plain files are replaced, and what else is there is written into."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from taktline._files import refusal
from taktline._io import remote
from taktline._posix import fcntl
from taktline._signals import pass_on
from taktline._urls import local
from taktline._working_folder import working_folder
from taktline.errors import LineError

STANDARD_STREAM = "-"
DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd|/dev/fd")
NO_STREAM = -1
LINKS = 40  # behind each other, as in the kernel
ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "http": "https"}
ATTRIBUTES = ("user.", "system.posix_acl_access")  # extended ones that a file keeps; others are the system's own


def named(path: str, standard: int) -> str:
    """A path as it is used from here on: "-" for every name of the standard stream with this descriptor, a path for a
    `file://` URL, an absolute one for one that hangs on the folder. Patterns and other URLs stay as they are."""
    here = local(path)
    if path == STANDARD_STREAM or here is None:
        return path
    path = here
    with suppress(OSError):  # a loop of links: who opens it says so
        if descriptor(behind_links(path)) == standard:
            return STANDARD_STREAM
    return path


def absolute(path: str) -> str:
    """A path that does not hang on the folder, which a step may change. Links in it stay: "a/../b" may not be "b"."""
    return path if os.path.isabs(path) else os.path.join(_folder(path), path)


def _folder(path: str) -> str:
    """The folder that this process is in. Raises LineError where it is gone, as `path` hangs on it."""
    if not (folder := working_folder()):
        raise LineError(
            f"{path!r} is a path from the working folder, which is gone: change to one that is there, or give a whole path"
        )
    return folder


def from_here(path: str) -> str:
    """A path in one spelling that does not hang on the folder; a URL as it is."""
    return path if remote.is_url(path) else os.path.abspath(path)


def behind_links(path: str) -> str:
    """Where a path leads, whether there is something or not. Raises OSError for a loop of links."""
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), name)
        # What the kernel shows as links to what is open are none: there is no other name behind them.
        if descriptor(path) is not None or not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def descriptor(path: str) -> int | None:
    """The number behind a name such as /dev/fd/3 of what this process has open; None for other names."""
    folder, name = os.path.split(path)
    found = DESCRIPTORS.fullmatch(folder) if name.isdecimal() else None
    return int(name) if found and found[1] in (None, str(os.getpid())) else None


@dataclass(frozen=True, slots=True)
class Target:
    """Where results are to go."""

    path: str  # behind all links
    replaced: bool = False  # a plain file is there
    stream: bool = False  # a device or a pipe, which is written into
    descriptor: int | None = None  # or what this process has open under this number


def target(path: str) -> Target:
    """What is there to be written to. Raises LineError where nothing can be, or it would take away more than its bytes."""
    try:
        path = behind_links(path)
        number = descriptor(path)
        known = os.fstat(number) if number is not None else os.stat(path)
    except FileNotFoundError as error:
        pass_on(error)
        _check_folder(path)
        return Target(path)
    except OSError as error:
        raise refusal(error, f"{path!r} cannot be written", path) from error
    if number is not None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise LineError(f"{path!r} is open for reading only")
        return Target(path, stream=True, descriptor=number)
    if stat.S_ISDIR(known.st_mode):
        raise LineError(f"{path!r} is a folder; name a file to write")
    if stat.S_ISSOCK(known.st_mode):
        raise LineError(
            f"{path!r} is a socket, which cannot be opened by its name; connect it, and give write() its file"
        )
    if not _may(path, os.W_OK):
        raise LineError(f"{path!r} cannot be written to: it is there, and you may not")
    if not stat.S_ISREG(known.st_mode):
        return Target(path, stream=True)
    _check_replaceable(path, known)
    return Target(path, replaced=True)


def _check_folder(path: str) -> None:
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise LineError(f"there is no folder {folder!r} to write {name!r} into; make it first")
    if not name:
        raise LineError(f"{path!r} names a folder; name a file to write")
    if not _may(folder, os.W_OK | os.X_OK):
        raise LineError(f"the folder {folder!r} cannot be written to")


def _check_replaceable(path: str, known: os.stat_result) -> None:
    """A new file takes the place of the old one: whatever holds on to the old one must not lose it."""
    _check_folder(path)
    if known.st_nlink > 1:
        raise LineError(
            f"{path!r} has {known.st_nlink - 1} more name(s), hard links, which would keep the old content; delete it "
            "first, or name another file"
        )
    user = os.geteuid()
    if user != 0 and (known.st_uid != user or known.st_gid not in (os.getegid(), *os.getgroups())):
        raise LineError(
            f"{path!r} belongs to another user or group, and a file in its place would be yours; name another file"
        )
    if path in _mounts():
        raise LineError(f"{path!r} is a mount of its own, which cannot be replaced; mount its folder, and write there")


def _may(path: str, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def _mounts() -> set[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return {re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in file}
    except OSError as error:  # no Linux
        pass_on(error)
        return set()


def check_owner(path: str) -> None:
    """Raise OSError where `take_over` could not give a file of this user's to the owner of the one that is there."""
    try:
        known = os.lstat(path)
    except FileNotFoundError as error:
        pass_on(error)
        return
    user = os.geteuid()
    if user and (known.st_uid != user or known.st_gid not in (os.getegid(), *os.getgroups())):
        raise PermissionError(
            errno.EPERM, "it belongs to another user or group, and could not be given back to them", path
        )


def take_over(file: int, path: str) -> None:
    """Give an open file the owner, mode, access list and user attributes of the one whose place it takes, if there is one.
    Raises OSError where that cannot be; also where what is there now is no plain file."""
    try:
        known, own = os.lstat(path), os.fstat(file)
    except FileNotFoundError as error:
        pass_on(error)
        return
    if not stat.S_ISREG(known.st_mode):
        raise OSError(errno.EEXIST, "something that is no plain file has come into its place", path)
    if (known.st_uid, known.st_gid) != (own.st_uid, own.st_gid):
        os.fchown(file, known.st_uid, known.st_gid)
    os.fchmod(file, stat.S_IMODE(known.st_mode))
    if hasattr(os, "listxattr"):
        there: list[str] = []
        with suppress(OSError):  # a file system without any
            there = os.listxattr(path)
        for name in there:
            if name.startswith(ATTRIBUTES):
                os.setxattr(file, name, os.getxattr(path, name))


def shown(path: str) -> str:
    """A path or URL for messages, without what may be a secret in it."""
    return remote.shown(path)


def same(one: str, other: str) -> bool:
    """Whether two paths or URLs name one thing, whether it is there or not."""
    one, other = (named(each, NO_STREAM) for each in (one, other))
    if remote.is_url(one) or remote.is_url(other):
        return _plain_url(one) == _plain_url(other)
    try:
        one, other = behind_links(one), behind_links(other)
        if one == other:
            return True
        return os.path.samefile(one, other)
    except OSError as error:  # one is not there: then only their names can tell
        pass_on(error)
        return one.casefold() == other.casefold() and _ignores_case(os.path.dirname(one))


def _ignores_case(folder: str) -> bool:
    """Whether names in this folder differ by more than case; judged by the folder's own name."""
    turned = os.path.join(os.path.dirname(folder), os.path.basename(folder).swapcase())
    return turned != folder and os.path.exists(turned) and os.path.samefile(turned, folder)


def _plain_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{ALIASES.get(scheme.lower(), scheme.lower())}://{re.sub('/+', '/', rest.partition('?')[0]).lstrip('/')}"


class Inputs:
    """What a reader was told to read, to know later whether a file is, or would be, among it."""

    def __init__(self, name: str, found: Sequence[str]) -> None:
        self._name = name
        self._found = found
        whole = name == STANDARD_STREAM or os.path.isabs(name) or remote.is_url(name)
        self._folder = os.sep if whole else _folder(name)

    def has(self, path: str) -> bool:
        """Whether a file of this path would be read, if it were there, now or by the next run. With a slash at its end it is
        a folder: whether anything in it is read now."""
        if path.endswith("/"):
            return any(_is_below(each, path) for each in self._found if each != STANDARD_STREAM)
        if any(same(path, each) for each in self._found if each != STANDARD_STREAM):
            return True
        name = self._name
        if remote.is_url(path) or remote.is_url(name):
            return remote.is_url(path) and remote.is_url(name) and self._has_url(path)
        return any(self._would_find(*os.path.split(each)) for each in (absolute(path), behind_links(path)))

    def _would_find(self, there: str, file: str) -> bool:
        whole = os.path.join(self._folder, self._name)
        if self._name == STANDARD_STREAM or not glob.has_magic(self._name) or os.path.exists(whole):
            if not os.path.isdir(whole) or file[0] in "._":
                return False
            inside = os.path.relpath(there, whole).split(os.sep)
            return _one_of([whole], there) or all(map(remote.names_a_column, inside))
        folder, pattern = os.path.split(self._name)
        if pattern == "**":
            folder, pattern = self._name, "*"
        if not fnmatchcase(file, pattern) or (file[0] == "." and pattern[0] != "."):
            return False
        folders = glob.glob(os.path.join(folder, ""), root_dir=self._folder, recursive=True) if folder else []
        if folder.partition(os.sep)[0] in ("", "**") and not os.path.isabs(folder):
            folders.append(".")  # which a leading "**" matches too, without glob naming it
        if not os.path.isdir(there):  # it is to be made: no look at the disk can tell
            return _matches(os.path.abspath(whole), os.path.join(there, file))
        return _one_of([os.path.join(self._folder, each) for each in folders], there)

    def _has_url(self, path: str) -> bool:
        name, path = _plain_url(self._name), _plain_url(path)
        if not glob.has_magic(name):
            return self._name not in self._found and os.path.dirname(path) == name.rstrip("/")
        return _matches(name, path)


def _matches(pattern: str, path: str) -> bool:
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    kinds = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(kinds.get(each) or re.escape(each) for each in parts), path) is not None


def _is_below(path: str, folder: str) -> bool:
    if remote.is_url(path) or remote.is_url(folder):
        return _plain_url(path).startswith(_plain_url(folder))
    return behind_links(absolute(path)).startswith(behind_links(absolute(folder.rstrip("/"))) + "/")


def _one_of(folders: Sequence[str], there: str) -> bool:
    return os.path.isdir(there) and any(os.path.samefile(each, there) for each in folders)
