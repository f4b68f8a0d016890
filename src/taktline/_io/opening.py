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
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import IO, Any

from taktline._io import remote, zstd
from taktline._io.changing import Lasting
from taktline._io.unpacked import gunzipped, unzstd
from taktline.errors import LineError, ResumeError, SinkError, SourceError, SourceNotFound

STANDARD = "-"
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
}
GZIP, ZSTD = (".gz",), (".zst", ".zstd")
EDGE = 1 << 16  # bytes at either end of a file that are compared to tell whether it has changed
PATIENCE = 3.0  # seconds for another run to let go of a part file
BUFFER = 1 << 20  # bytes read or written at once
BLOCK = 1 << 16  # bytes of text compressed at once, as in BGZF, the blocked gzip of bgzip: any gunzip reads it


def files(path: str) -> list[str]:
    """The files behind a path, a glob, a folder or a URL, sorted. Raises SourceNotFound or SourceError where there is
    none to read."""
    if path == STANDARD:
        return [path]
    if remote.is_url(path):
        return remote.find(path)
    if any(mark in path for mark in "*?[") and not os.path.exists(path):
        found = sorted(glob.glob(path, recursive=True))
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


def _in_folder(path: str) -> list[str]:
    # Those with a dot or an underscore in front are notes of the programs that wrote the others, such as _SUCCESS.
    found = [entry for entry in sorted(os.scandir(path), key=lambda each: each.name) if entry.name[0] not in "._"]
    if folders := [entry.name for entry in found if entry.is_dir()]:
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
    known = sorted(set(FORMATS.values()))
    if given is not None:
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LineError(f"there is no format {given!r}; choose one of {', '.join(known)}{hint}")
        return given
    if path == STANDARD:
        return "jsonl"
    path = remote.shown(path)
    stem, suffix = os.path.splitext(path)
    if suffix in (*GZIP, *ZSTD):
        suffix = os.path.splitext(stem)[1]
    suffix = suffix.lower()
    if suffix not in FORMATS:
        raise LineError(
            f"the format of {path!r} cannot be told from its suffix; give format= one of {', '.join(known)}"
        )
    return FORMATS[suffix]


def packing_of(path: str) -> str:
    """The suffix that says how a file is packed; empty where it is not. Raises LineError where nothing here can do it."""
    suffix = os.path.splitext(remote.shown(path))[1]
    if suffix in ZSTD:
        zstd.check()
    return suffix if suffix in (*GZIP, *ZSTD) else ""


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked; a local one's as far as it goes now. Raises SourceError where they cannot be had."""
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    name, packing = remote.shown(path), packing_of(path)
    try:
        with remote.opened(path) if remote.is_url(path) else io.BufferedReader(Lasting(path), BUFFER) as raw:
            if not packing:
                yield raw
                return
            unpack = gunzipped if packing in GZIP else unzstd
            with unpack(raw, name) as text:
                yield text
    except OSError as error:
        raise SourceError(f"{name!r} cannot be read: {error.strerror or error}", path=name) from error


def is_plain(path: str) -> bool:
    """Whether a file's bytes are what is read of it, and other processes can open it too."""
    return path != STANDARD and not remote.is_url(path) and not packing_of(path) and os.path.isfile(path)


def size(path: str) -> int:
    """Bytes of a local file; 0 where it is gone."""
    try:
        return os.path.getsize(path)
    except OSError:  # who opens it says so
        return 0


def mark(path: str) -> list[Any] | None:
    """A JSON value that changes when the file does; None for what cannot be read twice."""
    if path == STANDARD:
        return None
    if remote.is_url(path):
        return [remote.shown(path), remote.mark(path)]
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            edges = hashlib.sha256(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            edges.update(file.read(EDGE))
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}", path=path) from error
    return [os.path.abspath(path), size, edges.hexdigest()]


class Output:
    """Bytes on their way into a file that appears under its name only at `commit`, or into standard output.

    A run without a journal writes into a part file with a name of its own, after `open`. One with a journal calls
    `begin` or `resume` in place of it: its part file stands beside the target under a name that a later process finds.
    What goes to a URL waits as such a file among the temporary ones until it is whole: a store never sees half of it.
    """

    def __init__(self, target: str | IO[bytes]) -> None:
        self.name = remote.shown(target) if isinstance(target, str) else getattr(target, "name", "a stream")
        self._target = target
        self._part: str | None = None
        self._opened_in = 0  # process
        self._stays = False  # the part file, after this process
        self._file: Any = None
        self._pack: Callable[[bytes], bytes] | None = None
        self._rest = bytearray()  # of a compressed file: the text of the block that is not full yet
        self._packed = 0  # bytes of the blocks before it
        self.is_file = isinstance(target, str) and target != STANDARD
        if self.is_file:
            self._check(str(target))
            self._pack = _PACK.get(packing_of(str(target)))

    def _check(self, path: str) -> None:
        packing_of(path)
        if remote.is_url(path):
            remote.check_target(path)
            return
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise LineError(f"{path!r} is a folder; name a file to write")
        if not os.path.isdir(folder):
            raise LineError(f"there is no folder {folder!r} to write {os.path.basename(path)!r} into; make it first")
        if not os.access(folder, os.W_OK):
            raise LineError(f"the folder {folder!r} cannot be written to")

    def open(self) -> None:
        """Raises SinkError where the file cannot be made."""
        self._rest, self._packed, self._stays, self._opened_in = bytearray(), 0, False, os.getpid()
        if not isinstance(self._target, str):
            self._file = self._target
        elif self._target == STANDARD:
            self._file = sys.stdout.buffer
        else:
            folder, name = self._place(self._target)
            try:
                descriptor, self._part = tempfile.mkstemp(prefix=name.removesuffix("part"), suffix=".part", dir=folder)
                os.chmod(descriptor, 0o666 & ~_umask())
                self._file = os.fdopen(descriptor, "wb", buffering=BUFFER)
            except OSError as error:
                self.abort()
                raise self._failed(error) from error

    def write(self, data: bytes) -> None:
        """Raises SinkError where the bytes cannot be written."""
        try:
            if self._pack is not None:
                self._write_packed(data)
                return
            self._file.write(data)
            if self._part is None:
                self._file.flush()  # somebody may be reading along
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def _write_packed(self, data: bytes) -> None:
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
        if self._part is None:
            return
        try:
            if self._pack is not None and (self._rest or not self._packed):
                self._file.write(self._pack(bytes(self._rest)))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._publish(self._part, str(self._target))
            self._file.close()  # only now, since it holds the lock that keeps other runs away from the part file
        except OSError as error:
            self.abort()
            raise self._failed(error) from error

    def _publish(self, part: str, target: str) -> None:
        if not remote.is_url(target):
            os.replace(part, target)
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
        if part is None:
            return
        self.suspend()
        if os.getpid() == self._opened_in:
            os.unlink(part)

    def _failed(self, error: OSError) -> SinkError:
        then = "The journal can still go on from the part of it" if self._stays else "No half file was left behind"
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
        if self._part is None:
            return {}
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            known = os.fstat(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        rest = base64.b64encode(zlib.compress(self._rest, 1)).decode() if self._rest else ""
        return {"bytes": self._packed if self._pack is not None else known.st_size, "inode": known.st_ino, "rest": rest}

    def resume(self, position: dict[str, Any]) -> None:
        """Go on behind `position`. Raises ResumeError where the part file is not there any more, or shorter."""
        if not self.is_file:
            self.open()
            return
        end = position["bytes"]
        if not os.path.exists(self._part_name()):
            raise self._gone("is not there any more")
        self._take(fresh=False)
        if os.fstat(self._file.fileno()).st_size < end:
            self.suspend()
            raise self._gone("is shorter than the journal says")
        self._file.truncate(end)
        self._file.seek(end)
        self._packed = end
        self._rest = bytearray(zlib.decompress(base64.b64decode(position["rest"])) if position["rest"] else b"")

    def finished(self, position: dict[str, Any]) -> bool:
        """Whether `commit` was done behind `position`: the file is the part file under its new name."""
        # An object tells nothing of the part file that it was. So that stays until the journal says that it is done, and a
        # run that was killed before puts it there once more.
        if not self.is_file or remote.is_url(str(self._target)) or os.path.exists(self._part_name()):
            return False
        try:
            return bool(os.stat(str(self._target)).st_ino == position["inode"])
        except FileNotFoundError:
            return False

    def noted(self) -> None:
        """The journal has noted that `commit` was done."""
        if self.is_file and remote.is_url(str(self._target)):
            with suppress(FileNotFoundError):
                os.unlink(self._part_name())

    def suspend(self) -> None:
        """Let go of the part file and leave it there. May be called again."""
        part, self._part = self._part, None
        if part is None or self._file is None:
            return
        if os.getpid() != self._opened_in:
            # A fork of the process that writes: what it holds in its buffer goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            return
        try:
            self._file.close()
        except OSError:  # what could not be written comes after the last position: it is made again
            pass

    def _part_name(self) -> str:
        return os.path.join(*self._place(str(self._target)))

    def _place(self, target: str) -> tuple[str, str]:
        """Folder and name of the part file that a later process finds."""
        if remote.is_url(target):
            known = hashlib.sha256(target.encode()).hexdigest()[:12]  # two shops may have an orders.jsonl each
            return tempfile.gettempdir(), f".{os.path.basename(self.name)}.{known}.part"
        folder, name = os.path.split(os.path.abspath(target))
        return folder, f".{name}.part"

    def _take(self, *, fresh: bool) -> None:
        self._rest, self._packed, self._stays, self._opened_in = bytearray(), 0, True, os.getpid()
        part = self._part_name()
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            self._file = os.fdopen(descriptor, "r+b", buffering=BUFFER)
            _lock(descriptor)
            if fresh:
                self._file.truncate(0)
        except BlockingIOError:
            raise SinkError(f"another run is writing {self.name!r}", path=self.name) from None
        except OSError as error:
            raise self._failed(error) from error
        self._part = part

    def _gone(self, why: str) -> ResumeError:
        return ResumeError(
            f"the part of {self.name!r} that was written, {self._part_name()!r}, {why}. "
            "Delete the journal to run from the start",
            path=self.name,
        )


def _gzipped(text: bytes) -> bytes:
    """A gzip member without a time in it."""
    return gzip.compress(text, compresslevel=6, mtime=0)


_PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": _gzipped,
    **dict.fromkeys(ZSTD, zstd.packed),
}  # by suffix; blocks of a file must be fit to be joined


def _lock(descriptor: int) -> None:
    """Keep other runs away from a file. Raises BlockingIOError where one has it, also after some seconds: the workers of
    a caller that was just killed may have it for a moment."""
    until = monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise
            sleep(0.02)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
