"""Paths and URLs to byte streams and back: globs and folders, packing by suffix, standard input and output, and files
that appear only whole."""

from __future__ import annotations

import base64
import difflib
import fcntl
import glob
import gzip
import hashlib
import io
import os
import re
import secrets
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any

from taktline._files import is_still, lock, private, put, sync_folder, umask, write_whole
from taktline._io import brought, place, remote, unpacked, zstd
from taktline._io.changing import Lasting
from taktline._io.claims import Claim
from taktline.abc import Sink
from taktline.errors import LineError, OutputLost, SinkError, SourceError, SourceNotFound, TaktlineError

STANDARD = place.STANDARD
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
}
OF_COLUMNS = {"parquet", "arrow"}  # whose bytes nobody takes for lines
BUILT_IN = sorted(set(FORMATS.values()))
PACKINGS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".xz": "xz"}
# What a name promises that nothing here makes: it is never plain text instead.
OTHER_PACKINGS = (
    ".7z", ".br", ".lz", ".lz4", ".lzma", ".lzo", ".rar", ".snappy", ".sz", ".tar", ".tbz", ".tbz2", ".tgz", ".txz", ".z",
    ".zip", ".zlib",
)  # fmt: skip
OTHER_FORMATS = (
    ".avro", ".db", ".docx", ".h5", ".hdf5", ".npy", ".npz", ".ods", ".orc", ".pdf", ".pickle",
    ".pkl", ".sqlite", ".sqlite3", ".xls", ".xlsx",
)  # fmt: skip
WHOLE = 1 << 26  # bytes of files that are compared whole to tell whether they have changed, some 60 ms; more by samples
SAMPLES, EDGE = 64, 1 << 16  # of a large file, and bytes of each
LONG_NAME = 220  # bytes; a part file's name is somewhat longer, and 255 are allowed
BUFFER = 1 << 20  # bytes read or written at once
BEGINNING = 1 << 18  # bytes of text by which the length of a file is reckoned
kept_input: IO[bytes] | None = None  # standard input, where the command keeps it from the steps
BLOCK = 1 << 16  # bytes of text compressed at once, as in BGZF, the blocked gzip of bgzip: any gunzip reads it


def files(path: str) -> list[str]:
    """The files behind a path, a glob, a folder or a URL, sorted, whatever folder a step changes to. Raises SourceNotFound
    or SourceError where there is none to read."""
    return [each if each == STANDARD or remote.is_url(each) else place.absolute(each) for each in _found(path)]


def _found(path: str) -> list[str]:
    if path == STANDARD:
        return [path]
    if remote.is_url(path):
        return remote.find(path)
    if any(mark in path for mark in "*?[") and not os.path.exists(path):
        found = sorted(each for each in glob.glob(path, recursive=True) if not os.path.isdir(each))
        _check_seen(path)
        if not found:
            raise SourceNotFound(f"no file matches {path!r}", path=path)
        return found
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        try:
            near = difflib.get_close_matches(name, os.listdir(folder or "."), n=1)
        except OSError:
            near = []
        hint = f"; did you mean {os.path.join(folder, near[0])!r}?" if near else ""
        raise SourceNotFound(f"there is no file {path!r}{hint}", path=path)
    return [path]


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
    return [entry.path for entry in found]


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


def format_of(path: str, given: str | None) -> str:
    """The format of a file: as given, or by its suffix. Raises LineError where neither tells."""
    if given is not None:
        if given not in BUILT_IN and given not in (known := _known()):
            near = difflib.get_close_matches(given, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LineError(f"there is no format {given!r}; choose one of {', '.join(known)}{hint}")
        return given
    if path == STANDARD:
        return "jsonl"
    packing_of(path)
    suffix, path = _suffix(path), remote.shown(path)
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix[1:] in (known := _known()):
        return suffix[1:]
    raise LineError(f"the format of {path!r} cannot be told from its suffix; give format= one of {', '.join(known)}")


def _known() -> list[str]:
    """All formats, those of other packages too: to ask for them takes some milliseconds."""
    return sorted({*BUILT_IN, *brought.names(brought.FORMATS)})


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
        if path == STANDARD:
            with _text(_standard_input(), "standard input", packing) as text:
                yield text
            return
        opened = remote.opened(path) if remote.is_url(path) else io.BufferedReader(Lasting(path), BUFFER)
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
    head = raw.peek(unpacked.HEAD)[: unpacked.HEAD] if hasattr(raw, "peek") else b""
    if unpacked.may_become(head):
        head = raw.read(unpacked.HEAD)
        raw = io.BufferedReader(_Behind(head, raw), BUFFER)
    kind = unpacked.kind_of(head) or packing
    if not kind:
        yield raw
        return
    if kind == "zstd":
        zstd.check()
    with unpacked.opened(raw, name, kind) as text:
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
    if path == STANDARD or remote.is_url(path) or packing_of(path) or not os.path.isfile(path):
        return False
    return place.descriptor(place.behind_links(path)) is None  # another process has something else under that name


def is_once(path: str) -> bool:
    """Whether what is read of it is gone then, as of standard input, a pipe, a terminal."""
    if path == STANDARD:
        return True
    if remote.is_url(path):
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError:  # who opens it says so
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISBLK(mode))


def size(path: str) -> int:
    """Bytes of a local file; 0 where it is gone."""
    try:
        return os.path.getsize(path)
    except OSError:  # who opens it says so
        return 0


def beginning(path: str) -> tuple[bytes, int]:
    """Whole lines from the start of a local file, unpacked, and how many of its own bytes hold them; none where it cannot
    be looked at."""
    try:
        with io.BufferedReader(Lasting(path), BUFFER) as raw, _text(raw, path, packing_of(path)) as text:
            lines = text.read(BEGINNING)
            whole = lines[: lines.rfind(b"\n") + 1]
            return whole, len(whole) if text is raw else raw.tell()
    except (OSError, TaktlineError):  # who reads it says so
        return b"", 0


def marks(paths: list[str]) -> list[Any] | None:
    """Values that change when the files do, as far as `untold` does not say else; None for what cannot be read twice.
    Raises SourceError where they cannot be read."""
    if STANDARD in paths:
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


class Output:
    """Bytes on their way to where they are to be: into a file that appears under its name only at `commit`, or into what
    takes them at once (a device, a pipe, standard output).

    A run without a journal writes into a part file with a name of its own, after `open`. One with a journal calls
    `begin` or `resume` in place of it: its part file stands beside the target under a name that a later process finds.
    What goes to a URL waits as such a file among the temporary ones until it is whole: a store never sees half of it.
    """

    def __init__(self, target: str | IO[bytes], level: int | None = None) -> None:
        self._target = place.named(target, 1) if isinstance(target, str) else target
        self.name = remote.shown(target) if isinstance(target, str) else getattr(target, "name", "a stream")
        self._place: place.Target | None = None  # of a local path
        self._part: str | None = None
        self._opened_in = 0  # process
        self._stays = False  # the part file, after this process
        self._journal: str | None = None  # that tells of the part file
        self._claim_to_url: Claim | None = None  # against other journals
        self._file: Any = None
        self._owned = False  # the stream was opened here
        self._pack: Callable[[bytes], bytes] | None = None
        self._rest = bytearray()  # of a compressed file: the text of the block that is not full yet
        self._packed = 0  # bytes of the blocks before it
        if isinstance(self._target, str) and self._target != STANDARD:
            self._pack = packer(packing_of(self._target), level)
            if remote.is_url(self._target):
                remote.check_target(self._target)
            else:
                self._target = place.absolute(self._target)
                self._place = place.target(self._target)

    @property
    def is_file(self) -> bool:
        """Whether it appears as a whole."""
        return isinstance(self._target, str) and self._target != STANDARD and not (self._place and self._place.stream)

    def paths(self) -> list[str]:
        """The path or URL that is written, for who must know that nothing else uses it."""
        named = isinstance(self._target, str) and self._target != STANDARD
        return [str(self._target)] if named and not (self._place and self._place.descriptor is not None) else []

    def known_as(self) -> str:
        """Where the bytes go, whatever the folder is that the process is in."""
        return self._place.path if self._place is not None else str(self.name)

    def open(self) -> None:
        """Raises SinkError where the file cannot be made, LineError where it must not be."""
        self._start(stays=False)
        try:
            if not isinstance(self._target, str):
                self._file = self._target
            elif self._target == STANDARD:
                if sys.stdout is None:
                    raise LineError("standard output is closed: there is nowhere to write to; name a file")
                self._file = sys.stdout.buffer
            elif self.is_file:
                self._new_part()
            else:
                self._file, self._owned = self._stream(), True
        except OSError as error:
            self.abort()
            raise self._failed(error) from error

    def _start(self, *, stays: bool) -> None:
        self._rest, self._packed, self._stays, self._opened_in = bytearray(), 0, stays, os.getpid()
        if self._place is not None:  # it may have become something else since it was named
            self._place = place.target(str(self._target))

    def _stream(self) -> Any:
        assert self._place is not None
        number = self._place.descriptor
        opened = os.dup(number) if number is not None else os.open(self._place.path, os.O_WRONLY | os.O_NOCTTY)
        return os.fdopen(opened, "wb", buffering=BUFFER)

    def _new_part(self) -> None:
        folder, name = self._part_place()
        stem = f"{name.removesuffix('part')}taktline-"
        _sweep(folder, stem)
        while self._part is None:
            part = os.path.join(folder, f"{stem}{secrets.token_hex(4)}.part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with suppress(FileExistsError):
                self._file = os.fdopen(os.open(part, flags, 0o600), "wb", buffering=BUFFER)
                self._part = part
                with suppress(OSError):  # a file system without locks: no other run can take it away either
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(self._file.fileno()).st_nlink:  # swept before it was locked
                    self._part = None
        if self._place is not None:
            place.check_owner(self._place.path)

    def _take_over(self) -> None:
        """Let the file be seen by whom its name lets see it: until it has that, it is this user's alone."""
        if self._place is not None:
            os.fchmod(self._file.fileno(), 0o666 & ~umask())
            place.take_over(self._file.fileno(), self._place.path)

    def write(self, data: bytes | memoryview) -> None:
        """Raises SinkError where the bytes cannot be written."""
        try:
            if self._pack is not None:
                self._write_packed(data)
            else:
                self._file.write(data)
            if self._part is None:
                self._file.flush()  # somebody may be reading along
        except BrokenPipeError as error:
            if self._owned:
                raise self._failed(error) from error
            raise
        except OSError as error:
            raise self._failed(error) from error

    def _write_packed(self, data: bytes | memoryview) -> None:
        # Blocks end after so many bytes of text, whatever the batches were, and each is packed in one go: equal results
        # make equal files, however often the run was stopped in between.
        assert self._pack is not None
        rest = self._rest
        rest += data
        if len(rest) < BLOCK:
            return
        with memoryview(rest) as text:
            for at in range(0, len(text) - BLOCK + 1, BLOCK):
                block = self._pack(bytes(text[at : at + BLOCK]))
                self._file.write(block)
                self._packed += len(block)
        del rest[: len(rest) - len(rest) % BLOCK]

    def commit(self) -> None:
        """All is written: give the file its name. Raises SinkError where the last bytes cannot be written."""
        try:
            if self._pack is not None and (self._rest or not self._packed):
                self._file.write(self._pack(bytes(self._rest)))
            if self._part is not None:
                self._file.flush()
                self._take_over()
                os.fsync(self._file.fileno())
                self._publish(self._part, str(self._target))
                self._file.close()  # only now, since it holds the lock that keeps other runs away from the part file
            elif self._owned:
                self._owned = False
                self._file.close()
        except OSError as error:
            self.abort()
            raise self._failed(error) from error

    def _publish(self, part: str, target: str) -> None:
        if not is_still(self._file.fileno(), part):
            raise SinkError(
                f"what was written for {self.name!r} was taken away or replaced by another program while the run was at work",
                path=str(self.name),
            )
        if self._place is not None:
            put(part, self._place.path)
        else:
            if not self._stays:
                self._part = None  # it is whole now: where the store is away, it is kept for another try
            remote.upload(part, target)
            if not self._stays:
                os.unlink(part)
        self._part = None

    def abort(self) -> None:
        """Leave nothing behind. May be called again."""
        part = self._part
        self.suspend()
        if part is not None and os.getpid() == self._opened_in:
            _take_away(part)  # or it has its name already, and the folder could not be synced

    def _failed(self, error: OSError) -> SinkError:
        if not self.is_file:
            then = "What was written before is there"
        elif self._stays:
            then = "The journal can still go on from the part of it"
        else:
            then = "No half file was left behind"
        return SinkError(f"{self.name!r} cannot be written: {error.strerror or error}. {then}.", path=self.name)

    # --- with a journal ---

    def begin(self) -> None:
        """`open`, with a part file that stays until `commit`. Raises SinkError."""
        if self.is_file:
            self._take(fresh=True)
        else:
            self.open()

    def position(self) -> dict[str, Any]:
        """How far it is written, all of that safe against a power cut. Raises SinkError."""
        inode, end = 0, self._packed
        if self._part is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
                known = os.fstat(self._file.fileno())
            except OSError as error:
                raise self._failed(error) from error
            inode, end = known.st_ino, self._packed if self._pack is not None else known.st_size
        rest = base64.b64encode(zlib.compress(self._rest, 1)).decode() if self._rest else ""
        return {"bytes": end, "inode": inode, "rest": rest, "part": self._part}

    def resume(self, position: dict[str, Any]) -> None:
        """Go on behind `position`. Raises OutputLost where the part file is not there any more, or shorter."""
        end = position.get("bytes", 0)
        if not self.is_file:
            self.open()
        else:
            self._take(fresh=False)
            if os.fstat(self._file.fileno()).st_size < end:
                self.suspend()
                raise self._gone("is shorter than the journal says")
            self._file.truncate(end)
            self._file.seek(end)
        self._packed = end
        rest = position.get("rest")
        self._rest = bytearray(zlib.decompress(base64.b64decode(rest)) if rest else b"")

    @property
    def part(self) -> str:
        """The part file."""
        assert self._part is not None
        return self._part

    def take_back(self) -> None:
        """What `commit` has made visible, if it came to that, is the part file again."""
        if self._place is not None:
            with suppress(FileNotFoundError):
                os.replace(self._place.path, self._part_name())

    def finished(self, position: dict[str, Any]) -> bool:
        """Whether `commit` was done behind `position`: the file is the part file under its new name."""
        # An object tells nothing of the part file that it was. So that stays until the journal says that it is done, and a
        # run that was killed before puts it there once more.
        if not self.is_file or self._place is None or os.path.exists(self._part_name()):
            return False
        try:
            there = os.stat(self._place.path)
        except FileNotFoundError:
            return False
        return bool(there.st_ino == position["inode"] and there.st_size >= position["bytes"])

    def is_gone(self, position: dict[str, Any]) -> str:
        """Why what `commit` has made visible is not there any more; empty where it is."""
        if not self.is_file or "bytes" not in position:
            return ""
        if self._place is None:
            gone = not remote.may_be_there(str(self._target))
        else:
            gone = not os.path.exists(self._place.path)
            if not gone and position["bytes"] and not os.path.getsize(self._place.path):
                return f"{self.name!r} was written whole, and is empty now"
        return f"{self.name!r} was written whole, and is not there any more" if gone else ""

    def noted(self) -> None:
        """The journal has noted that `commit` was done."""
        if not self.is_file:
            return
        if self._place is None:
            _take_away(self._part_name())
            self._let_go(done=True)
        elif self._owner(self._part_name()) == self._journal:
            _take_away(_owners(self._part_name()))

    def forget(self, position: dict[str, Any]) -> None:
        """Another run begins in the place of one that has come to `position`: take away its part file, where it is that
        run's."""
        part = str(position.get("part") or "")
        if not part.endswith(".part") or self._owner(part) not in (self._journal, None):
            return
        _take_away(part)
        _take_away(_owners(part))

    def suspend(self) -> None:
        """Let go of the part file and leave it there. May be called again."""
        part, self._part = self._part, None
        owned, self._owned = self._owned, False
        self._let_go()
        if (part is None and not owned) or self._file is None:
            return
        if os.getpid() != self._opened_in:
            # A fork of the process that writes: what it holds in its buffer goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            return
        try:
            self._file.close()
        except OSError:  # what could not be written comes after the last position: it is made again
            pass

    def _let_go(self, *, done: bool = False) -> None:
        if self._claim_to_url is not None and os.getpid() == self._opened_in:
            self._claim_to_url.release(done=done)

    def beside(self, journal: str) -> None:
        """The journal that is to know of the part file."""
        self._journal = os.path.abspath(journal)

    def _part_name(self) -> str:
        return os.path.join(*self._part_place())

    def _part_place(self) -> tuple[str, str]:
        """Folder and name of the part file that a later process finds."""
        if self._place is not None:
            folder, name = os.path.split(self._place.path)
            if len(os.fsencode(name)) > LONG_NAME:
                name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
            return folder, f".{name}.part"
        if self._journal is not None:  # wherever the journal goes, what it tells of goes with it
            return os.path.split(_part_beside(self._journal))
        known = hashlib.sha256(str(self._target).encode()).hexdigest()[:12]  # two shops may have an orders.jsonl each
        return tempfile.gettempdir(), f".{os.path.basename(self.name)}.{known}.part"

    def _take(self, *, fresh: bool) -> None:
        self._start(stays=True)
        try:
            self._open_part(fresh)
        except BaseException:
            self._let_go()
            raise

    def _open_part(self, fresh: bool) -> None:
        part = self._part_name()
        try:
            if self._place is None and self._journal is not None:
                self._claim_to_url = Claim(str(self.name), self._journal, _part_beside)
                self._claim_to_url.take()
            descriptor = self._locked(part, fresh)
        except FileNotFoundError as error:
            raise self._failed(error) if fresh else self._gone("is not there any more") from error
        except BlockingIOError:
            raise SinkError(f"another run is writing {self.name!r}", path=self.name) from None
        except OSError as error:
            raise self._failed(error) from error
        self._file = os.fdopen(descriptor, "r+b", buffering=BUFFER)
        try:
            self._claim(part, descriptor)
            if self._place is not None:
                place.check_owner(self._place.path)
            if fresh:
                self._file.truncate(0)
                sync_folder(part)
        except OSError as error:
            self._file.close()
            raise self._failed(error) from error
        except BaseException:
            self._file.close()
            raise
        self._part = part

    def _locked(self, part: str, fresh: bool) -> int:
        """The part file, and this run the only one that has it. Raises OSError."""
        while True:
            descriptor = private(part, make=fresh)
            try:
                try:
                    lock(descriptor)
                except BlockingIOError:
                    if not self._is_own(part):
                        raise
                    # The journal is this run's alone: whoever has the part is an attempt that it was taken from, and must
                    # not write into what this one goes on with.
                    return _copied(descriptor, part)
                if is_still(descriptor, part):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the run that had it has given it its name, and this one must not write into that

    def _is_own(self, part: str) -> bool:
        """Whether this run's journal is the one that tells of a part file."""
        return self._journal is not None and (self._place is None or self._owner(part) == self._journal)

    def _claim(self, part: str, descriptor: int) -> None:
        """Note beside a part file which journal tells of it. Raises LineError where that is another one, which can still
        go on with it."""
        if self._journal is None or self._place is None:  # that one's is beside its own journal
            return
        owner = self._owner(part)
        if owner == self._journal:
            return
        if owner is not None and os.fstat(descriptor).st_size and os.path.exists(owner):
            raise LineError(
                f"an unfinished run with the journal {owner!r} is writing {self.name!r}, and can go on: end it first, or "
                f"delete {part!r}, what it has written so far, to give it up"
            )
        write_whole(_owners(part), f"{self._journal}\n".encode("utf-8", "surrogateescape"))

    def _owner(self, part: str) -> str | None:
        """The journal that tells of a part file; None where none is known."""
        try:
            with open(_owners(part), encoding="utf-8", errors="surrogateescape") as file:
                return file.read().rstrip("\n")
        except FileNotFoundError:
            return None

    def _gone(self, why: str) -> OutputLost:
        return OutputLost(
            path=str(self.name), why=f"the part of {self.name!r} that was written, {self._part_name()!r}, {why}"
        )


def _sweep(folder: str, stem: str) -> None:
    """Take away the part files that killed runs of the same output have left: only such as are this user's own, and that
    nobody is writing."""
    ours = re.compile(re.escape(stem) + r"[0-9a-f]{8}\.part")
    for name in filter(ours.fullmatch, os.listdir(folder)):
        with suppress(OSError):  # it is gone, or somebody else's, or locked: it stays
            path = os.path.join(folder, name)
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                known = os.fstat(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(known.st_mode) and known.st_uid == os.geteuid() and known.st_nlink == 1:
                    os.unlink(path)
            finally:
                os.close(file)


def _copied(file: int, part: str) -> int:
    """A locked copy of a part file in its place, whose descriptor is closed. Raises OSError."""
    name = f"{part}.new"
    copy = private(name)
    try:
        lock(copy)
        os.ftruncate(copy, 0)
        at = 0
        while sent := os.sendfile(copy, file, at, 1 << 30):
            at += sent
        os.fsync(copy)
        put(name, part)
    except BaseException:
        os.close(copy)
        raise
    os.close(file)
    return copy


def _owners(part: str) -> str:
    """The file beside a part file that names its journal."""
    return f"{part}.journal"


def _part_beside(journal: str) -> str:
    """Where what goes to a URL waits, of a run with this journal."""
    folder, name = os.path.split(journal)
    return os.path.join(folder, f".{name}.part")


def _take_away(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _gzipped(text: bytes, level: int = 6) -> bytes:
    """A gzip member without a time in it."""
    return gzip.compress(text, compresslevel=level, mtime=0)


def _bzipped(text: bytes, level: int = 9) -> bytes:
    import bz2

    return bz2.compress(text, level)


def _xzipped(text: bytes, level: int = 6) -> bytes:
    import lzma

    # A window of the block's own size: the one of the preset costs 94 MB of memory, set up anew for each block.
    window = {"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": BLOCK}
    return lzma.compress(text, filters=[window])


# Blocks of a file must be fit to be joined.
_PACK: dict[str, Callable[..., bytes]] = {
    "gzip": _gzipped,
    "zstd": zstd.packed,
    "bzip2": _bzipped,
    "xz": _xzipped,
}
LEVELS = {"gzip": range(10), "zstd": range(1, 23), "bzip2": range(1, 10), "xz": range(10)}


def packer(kind: str, level: int | None) -> Callable[[bytes], bytes] | None:
    """What packs a block of text; None where it stays as it is. Raises LineError for a level that there is not."""
    if level is None:
        return _PACK.get(kind)
    if kind not in LEVELS:
        raise LineError("level= is for what is packed: name a file with .gz, .zst, .bz2 or .xz")
    if not isinstance(level, int) or level not in LEVELS[kind]:
        raise LineError(f"{kind} has no level={level!r}: {LEVELS[kind][0]} to {LEVELS[kind][-1]}")
    return partial(_PACK[kind], level=level)


class IntoOutput(Sink):
    """What sinks of one file have in common: the results are bytes on their way into `_output`."""

    _output: Output

    def _begin(self) -> None:
        """Be as it was before the first result."""
        raise NotImplementedError

    def describe(self) -> str:
        return str(self._output.name)

    def writes(self) -> list[str]:
        return self._output.paths()

    def open(self) -> None:
        self._begin()
        self._output.open()

    def abort(self) -> None:
        self._output.abort()
