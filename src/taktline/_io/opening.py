"""Paths and URLs to byte streams: globs and folders, formats and packing by suffix, standard input."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any

from taktline._io import decompression, place, plugins, remote, zstd
from taktline._io.changing import Lasting, are_here, known
from taktline._signals import pass_on
from taktline.errors import LineError, SourceError, SourceNotFound, TaktlineError, did_you_mean

STANDARD_STREAM = place.STANDARD_STREAM
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".log": "text",
    ".text": "text",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".orc": "orc",
}
OF_COLUMNS = {"parquet", "arrow", "orc"}  # whose bytes nobody takes for lines
READ_ONLY = {"orc"}
BUILT_IN = sorted(set(FORMATS.values()))
PACKINGS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}
# What a name promises that nothing here makes: it is never plain text instead.
OTHER_PACKINGS = (
    ".7z", ".br", ".lz", ".lz4", ".lzma", ".lzo", ".rar", ".snappy", ".sz", ".tar", ".tbz", ".tbz2", ".tgz", ".txz", ".z",
    ".zip", ".zlib",
)  # fmt: skip
OTHER_FORMATS = (
    ".avro", ".db", ".docx", ".h5", ".hdf5", ".npy", ".npz", ".ods", ".pdf", ".pickle",
    ".pkl", ".sqlite", ".sqlite3", ".xls", ".xlsx",
)  # fmt: skip
WHOLE = 1 << 26  # bytes of files that are compared whole to tell whether they have changed, some 60 ms; more by samples
SAMPLES, EDGE = 64, 1 << 16  # of a large file, and bytes of each
BUFFER_BYTES = 1 << 20  # bytes read or written at once
LOOKED_FOR = 4  # files that another machine looks for before it is given parts of any
BEGINNING = 1 << 18  # bytes of text by which the length of a file is reckoned
kept_input: IO[bytes] | None = None  # standard input, where the command keeps it from the steps


def files(path: str) -> list[str]:
    """The files behind a path, a glob, a folder or a URL, sorted, whatever folder a step changes to. Raises SourceNotFound
    or SourceError where there is none to read."""
    return [each if each == STANDARD_STREAM or remote.is_url(each) else place.absolute(each) for each in _found(path)]


def _found(path: str) -> list[str]:
    if path == STANDARD_STREAM:
        return [path]
    if remote.is_url(path):
        return remote.find(path)
    if any(mark in path for mark in "*?[") and not os.path.exists(path):
        found = sorted(each for each in glob.glob(path, recursive=True) if not os.path.isdir(each))
        _check_seen(path)
        if not found:
            raise SourceNotFound(f"no file matches {path!r}", path=path)
        return _read_to_an_end(found)
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        try:
            os.stat(path)
        except PermissionError as error:  # it may be there
            raise _shut(folder, error) from error
        except OSError as error:
            pass_on(error)
        try:
            there = os.listdir(folder or ".")
        except OSError as error:
            pass_on(error)
            there = []
        hint = did_you_mean(name, _alike(name, there), lambda near: repr(os.path.join(folder, near)))
        raise SourceNotFound(f"there is no file {path!r}{hint}", path=path)
    return [path]


def _alike(name: str, names: list[str]) -> list[str]:
    """Those of the names that begin like this one: in most folders what stands behind the dot is in all of them."""
    import difflib

    begins = name.partition(".")[0]
    return [each for each in names if difflib.get_close_matches(begins, [each.partition(".")[0]], cutoff=0.5)]


def _check_seen(pattern: str) -> None:
    """Raises SourceError where a folder that the pattern goes through cannot be looked into: glob passes over it."""
    parts = pattern.split(os.sep)
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    for at in range(first, len(parts)):
        above = os.sep.join([*parts[: at + (parts[at] == "**")], ""])
        for folder in sorted(glob.glob(above, recursive=True)) if above else ["."]:
            _entries(folder) if glob.has_magic(parts[at]) else _reach(folder)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name. Raises SourceError where that cannot be seen."""
    _reach(folder)
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda each: each.name)
    except OSError as error:
        raise _shut(folder, error) from error


def _reach(folder: str) -> None:
    """Raises SourceError where the files of a folder cannot be reached, whose names may be read all the same."""
    try:
        os.stat(os.path.join(folder, os.curdir))
    except OSError as error:
        raise _shut(folder, error) from error


def _shut(folder: str, error: OSError) -> SourceError:
    folder = folder.rstrip(os.sep) or os.sep
    return SourceError(
        f"the folder {folder!r} cannot be read: {error.strerror}. Make it readable, or name what to read without it",
        path=folder,
    )


def _in_folder(path: str) -> list[str]:
    # Those with a dot or an underscore in front are notes of the programs that wrote the others, such as _SUCCESS.
    found = [entry for entry in _entries(path) if entry.name[0] not in "._"]
    folders = [entry.name for entry in found if entry.is_dir()]
    if folders and len(folders) == len(found) and all(map(remote.names_a_column, folders)):
        return [each for folder in folders for each in _in_folder(os.path.join(path, folder))]
    if folders:
        raise SourceError(
            f"{path!r} has folders inside, such as {folders[0]!r}; say what to read by a pattern such as "
            f"{os.path.join(path, '**', '*.jsonl')!r}",
            path=path,
        )
    if not found:
        raise SourceNotFound(f"there is no file in the folder {path!r}", path=path)
    return _read_to_an_end([entry.path for entry in found])


def _read_to_an_end(found: list[str]) -> list[str]:
    """Raises SourceError where one of the files that nobody named is a pipe, a device or the like: who opens one may wait
    for ever."""
    for path in found:
        with suppress(OSError):  # who opens it says so
            mode = os.stat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise SourceError(
                    f"{path!r} is no file but a {_kind(mode)}, which may never end; read it by its name, or the others by a "
                    "pattern that leaves it out",
                    path=path,
                )
    return found


def _kind(mode: int) -> str:
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def format_of_all(paths: list[str], given: str | None) -> str:
    """The one format of these files. Raises LineError where it cannot be told, or they have several."""
    first = format_of(paths[0], given)
    for path in paths:
        if (other := format_of(path, given)) != first:
            raise LineError(
                f"{remote.shown(paths[0])!r} is {first} and {remote.shown(path)!r} is {other}; "
                "read them apart, or give format="
            )
    return first


def format_of(path: str, given: str | None, *, to_write: bool = False) -> str:
    """The format of a file that is to be read, or written: as given, or by its suffix. Raises LineError where neither
    tells."""
    if given is not None:
        if given not in BUILT_IN and given not in (known := _known(to_write)):
            hint = did_you_mean(given, known)
            raise LineError(f"there is no format {given!r}; choose one of {', '.join(known)}{hint}")
        return given
    if path == STANDARD_STREAM:
        return "jsonl"
    packing_of(path)
    suffix, path = _suffix(path), remote.shown(path)
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix[1:] in (known := _known(to_write)):
        return suffix[1:]
    do = "write" if to_write else "read"
    raise LineError(
        f"the format of {path!r} cannot be told from its suffix; say how to {do} it: format= one of {', '.join(known)}"
    )


def _known(to_write: bool) -> list[str]:
    """All formats that are read, or written, those of other packages too: to ask for them takes some milliseconds."""
    return sorted({*BUILT_IN, *plugins.names(plugins.FORMATS)} - (READ_ONLY if to_write else set()))


def _suffix(path: str) -> str:
    """The suffix that names the format, in small letters, before that of a packing."""
    stem, suffix = os.path.splitext(remote.shown(path).lower())
    return os.path.splitext(stem)[1] if suffix in PACKINGS else suffix


def check_promise(path: str, format: str) -> None:
    """Raises LineError where a file's name promises another format than it is to be written in."""
    promised = _suffix(path)
    other = promised in OTHER_FORMATS and promised[1:] != format
    known = FORMATS.get(promised, format)
    if other or (known != format and {known, format} & OF_COLUMNS):
        raise LineError(
            f"{remote.shown(path)!r} would hold {format}, and its suffix promises another format; name it anew"
        )


def packing_of(path: str) -> str:
    """How a file is packed, as its suffix says it; empty where it is not. Raises LineError where nothing here can do it."""
    suffix = os.path.splitext(remote.shown(path).lower())[1]
    if suffix in OTHER_PACKINGS:
        known = ", ".join(PACKINGS)
        raise LineError(f"{remote.shown(path)!r} is packed in a way that is not known here; known are {known}")
    kind = PACKINGS.get(suffix, "")
    if kind == "zstd":
        zstd.check()
    return kind


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked; a local one's as far as it goes now. Raises SourceError where they cannot be had."""
    name, packing = remote.shown(path), packing_of(path)
    try:
        if path == STANDARD_STREAM:
            with _text(_standard_input(), "standard input", packing) as text:
                yield text
            return
        opened = remote.opened(path) if remote.is_url(path) else io.BufferedReader(Lasting(path), BUFFER_BYTES)
        with opened as raw, _text(raw, name, packing) as text:
            yield text
    except OSError as error:
        raise SourceError(f"{name!r} cannot be read: {error.strerror or error}", path=name) from error


def _standard_input() -> IO[bytes]:
    if kept_input is not None:
        return kept_input
    if sys.stdin is None:
        raise SourceError("standard input is closed: there is nothing to read")
    return sys.stdin.buffer


@contextmanager
def _text(raw: Any, name: str, packing: str) -> Iterator[IO[bytes]]:
    """A stream unpacked, as its first bytes say it; where they say nothing, as its suffix does."""
    head = raw.peek(decompression.HEAD_BYTES)[: decompression.HEAD_BYTES] if hasattr(raw, "peek") else b""
    if decompression.may_become(head):
        head = raw.read(decompression.HEAD_BYTES)
        raw = io.BufferedReader(_Behind(head, raw), BUFFER_BYTES)
    if not head and packing and hasattr(raw, "peek"):
        raise SourceError(
            f"{name!r} has no bytes, and what {packing} has packed has some even where nothing is in it: it was cut off, "
            "or is not written yet. Write it again, or leave it out",
            path=name,
        )
    kind = decompression.kind_of(head)
    if not kind and packing and decompression.is_plain(head):
        raise SourceError(
            f"{name!r} is no {packing} file, though its name says so: it begins as text does, with {head.decode()!r}. "
            "Give it a name without that ending",
            path=name,
        )
    kind = kind or packing
    if not kind:
        yield raw
        return
    if kind == "zstd":
        zstd.check()
    with decompression.opened(raw, name, kind) as text:
        yield text


class _Behind(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            self._head = self._stream.read1(len(buffer))  # type: ignore[attr-defined]
        count = min(len(buffer), len(self._head))
        buffer[:count], self._head = self._head[:count], self._head[count:]
        return count


def is_plain(path: str, stream: Any = None) -> bool:
    """Whether a file's bytes are what is read of it, and other processes can open it too. `stream`: what `reading` gave."""
    if stream is not None and not isinstance(getattr(stream, "raw", None), Lasting):
        return False  # it is packed, whatever its name
    if path == STANDARD_STREAM or remote.is_url(path) or packing_of(path) or not os.path.isfile(path):
        return False
    return place.descriptor(place.behind_links(path)) is None  # another process has something else under that name


def looks_elsewhere(paths: list[str]) -> Callable[[], bool] | None:
    """What tells on another machine whether it has the first of these files; None where workers open none, or not alone."""
    known_here = []
    for path in paths[:LOOKED_FOR]:
        if not is_plain(path):
            return None
        try:
            with Lasting(path) as file:
                known_here.append((path, known(file.fileno(), file.end)))
        except OSError as error:  # who reads it says so
            pass_on(error)
            return None
    return partial(are_here, known_here)


def is_once(path: str) -> bool:
    """Whether what is read of it is gone then, as of standard input, a pipe, a terminal."""
    if path == STANDARD_STREAM:
        return True
    if remote.is_url(path):
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # who opens it says so
        pass_on(error)
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISBLK(mode))


def size(path: str) -> int:
    """Bytes of a local file; 0 where it is gone."""
    try:
        return os.path.getsize(path)
    except OSError as error:  # who opens it says so
        pass_on(error)
        return 0


def beginning(path: str) -> tuple[bytes, int]:
    """Whole lines from the start of a local file, unpacked, and how many of its own bytes hold them; none where it cannot
    be looked at."""
    try:
        with io.BufferedReader(Lasting(path), BUFFER_BYTES) as raw, _text(raw, path, packing_of(path)) as text:
            lines = text.read(BEGINNING)
            whole = lines[: lines.rfind(b"\n") + 1]
            return whole, len(whole) if text is raw else raw.tell()
    except (OSError, TaktlineError) as error:  # who reads it says so
        pass_on(error)
        return b"", 0


def marks(paths: list[str]) -> list[Any] | None:
    """Values that change when the files do, as far as `untold` does not say else; None for what cannot be read twice.
    Raises SourceError where they cannot be read."""
    if STANDARD_STREAM in paths:
        return None
    if any(not remote.is_url(path) and os.path.exists(path) and not os.path.isfile(path) for path in paths):
        return None  # a pipe, a device
    whole = _compared_whole(paths)
    return [[remote.shown(path), remote.mark(path)] if remote.is_url(path) else _mark(path, whole) for path in paths]


def untold(paths: list[str]) -> str:
    """What `marks` cannot see; empty where it sees any change."""
    silent = [remote.shown(path) for path in paths if remote.is_url(path) and remote.mark(path) is None]
    if silent:
        return f"whether {silent[0]!r} has changed, of which the store tells no mark"
    if _compared_whole(paths) or all(map(remote.is_url, paths)):
        return ""
    what = repr(paths[0]) if len(paths) == 1 else f"{len(paths):,} files"
    return f"what is between the samples that were taken of {what}; their times of change are the same"


def _compared_whole(paths: list[str]) -> bool:
    return sum(size(path) for path in paths if not remote.is_url(path)) <= WHOLE


def _mark(path: str, whole: bool) -> list[Any]:
    """Of a large file samples and its time of change; of small ones all bytes, so that a copy is the same file."""
    try:
        with open(path, "rb", buffering=0) as file:
            known = os.fstat(file.fileno())
            end, seen = known.st_size, hashlib.blake2b(digest_size=12)
            step = EDGE if whole else max(EDGE, (end - EDGE) // SAMPLES)
            for at in range(0, end, step):
                seen.update(os.pread(file.fileno(), EDGE, at))
            seen.update(os.pread(file.fileno(), EDGE, max(0, end - EDGE)))
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}", path=path) from error
    return [os.path.abspath(path), end, seen.hexdigest(), None if whole else known.st_mtime_ns]
