"""Paths to byte streams and back: globs, gzip by suffix, standard input and output, and files that appear only whole."""

from __future__ import annotations

import difflib
import glob
import gzip
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from taktline.errors import LineError, SinkError, SourceError, SourceNotFound

STANDARD = "-"
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".log": "text",
    ".text": "text",
}
BUFFER = 1 << 20  # bytes read or written at once


def files(path: str) -> list[str]:
    """The files behind a path or a glob, sorted. Raises SourceNotFound or SourceError where there is none to read."""
    if path == STANDARD:
        return [path]
    if any(mark in path for mark in "*?[") and not os.path.exists(path):
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise SourceNotFound(f"no file matches {path!r}", path=path)
        return found
    if os.path.isdir(path):
        raise SourceError(f"{path!r} is a folder; name a file, or a pattern such as {os.path.join(path, '*.jsonl')!r}")
    if not os.path.exists(path):
        folder, name = os.path.split(path)
        try:
            near = difflib.get_close_matches(name, os.listdir(folder or "."), n=1)
        except OSError:
            near = []
        hint = f"; did you mean {os.path.join(folder, near[0])!r}?" if near else ""
        raise SourceNotFound(f"there is no file {path!r}{hint}", path=path)
    return [path]


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
    stem = path[:-3] if path.endswith(".gz") else path
    suffix = os.path.splitext(stem)[1].lower()
    if suffix not in FORMATS:
        raise LineError(
            f"the format of {path!r} cannot be told from its suffix; give format= one of {', '.join(known)}"
        )
    return FORMATS[suffix]


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked. Raises SourceError where they cannot be had."""
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb", buffering=BUFFER) as raw:
            if path.endswith(".gz"):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"{path!r} is a damaged or truncated gzip file: {error}. What came before the damage has been read.",
            path=path,
        ) from error
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}", path=path) from error


class Output:
    """Bytes on their way into a file that appears under its name only at `commit`, or into standard output."""

    def __init__(self, target: str | IO[bytes]) -> None:
        self.name = target if isinstance(target, str) else getattr(target, "name", "a stream")
        self._target = target
        self._part: str | None = None
        self._opened_in = 0  # process
        self._file: Any = None
        if isinstance(target, str) and target != STANDARD:
            self._check(target)

    def _check(self, path: str) -> None:
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise LineError(f"{path!r} is a folder; name a file to write")
        if not os.path.isdir(folder):
            raise LineError(f"there is no folder {folder!r} to write {os.path.basename(path)!r} into; make it first")
        if not os.access(folder, os.W_OK):
            raise LineError(f"the folder {folder!r} cannot be written to")

    def open(self) -> None:
        """Raises SinkError where the file cannot be made."""
        if not isinstance(self._target, str):
            self._file = self._target
        elif self._target == STANDARD:
            self._file = sys.stdout.buffer
        else:
            folder, name = os.path.split(os.path.abspath(self._target))
            try:
                descriptor, self._part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
                self._opened_in = os.getpid()
                os.chmod(descriptor, 0o666 & ~_umask())
                self._file = os.fdopen(descriptor, "wb", buffering=BUFFER)
            except OSError as error:
                self.abort()
                raise self._failed(error) from error
            if self._target.endswith(".gz"):
                self._file = _Gzip(self._file)

    def write(self, data: bytes) -> None:
        """Raises SinkError where the bytes cannot be written."""
        try:
            self._file.write(data)
            if self._part is None:
                self._file.flush()  # somebody may be reading along
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        """All is written: give the file its name. Raises SinkError where the last bytes cannot be written."""
        if self._part is None:
            return
        try:
            self._file.finish() if isinstance(self._file, _Gzip) else self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self._target)  # type: ignore[arg-type]
        except OSError as error:
            self.abort()
            raise self._failed(error) from error
        self._part = None

    def abort(self) -> None:
        """Leave nothing behind. May be called again."""
        part, self._part = self._part, None
        if part is None:
            return
        if (
            os.getpid() != self._opened_in
        ):  # a fork of the process that writes: what it holds in its buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            return
        try:
            if self._file is not None:
                self._file.close()
        except OSError:  # what could not be written is not wanted any more
            pass
        finally:
            os.unlink(part)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(
            f"{self.name!r} cannot be written: {error.strerror or error}. No half file was left behind.", path=self.name
        )


class _Gzip:
    """A gzip stream over a file, without a time in it, so that equal results make equal files."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0)

    def write(self, data: bytes) -> None:
        self._packed.write(data)

    def finish(self) -> None:
        self._packed.close()
        self._raw.flush()

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
