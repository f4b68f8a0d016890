"""Dead letters: records that failed, kept aside with their reason, as JSON lines or in an SQLite database.

Each is written when its turn comes in the order of the records, and is there after a SIGKILL from then on.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sqlite3
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from taktline._durable.journal import lock
from taktline._excerpts import excerpt
from taktline._recipe.options import LETTERS_SQLITE
from taktline.errors import LineError, ResumeError, SinkError, SourceError, SourceNotFound

DEEP = 60  # levels of a record that are tried as JSON
MANY_BITS = 4096  # of a whole number; longer ones are refused by many readers of JSON
COLUMNS = ("index", "step", "error", "message", "traceback", "record", "encoding", "run", "time")
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_INSERT = f"INSERT INTO dead_letters ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"
_CREATE = f"CREATE TABLE IF NOT EXISTS dead_letters (id INTEGER PRIMARY KEY AUTOINCREMENT, {_NAMES})"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that failed, and why. `record` is what the source gave, or where that could not be kept an `Unkept`."""

    index: int
    step: str
    error: str  # the exception's type
    message: str
    traceback: str
    record: Any
    run: str
    time: str  # ISO 8601, with the zone


@dataclass(frozen=True, slots=True)
class Unkept:
    """Stands for a record that can be neither JSON nor pickled; `text` is what it looked like."""

    text: str


def read_dead_letters(path: str | os.PathLike[str]) -> list[DeadLetter]:
    """The dead letters in a file that a run with `dead_letters=` has written, in the order of their failing.

    Records that are no JSON are unpickled: read only files that you trust. What a killed run has left of a last line
    is passed over. Raises SourceNotFound where there is no such file, SourceError where it holds something else.

    >>> import tempfile, os
    >>> from taktline import line
    >>> path = os.path.join(tempfile.mkdtemp(), "failed.jsonl")
    >>> list(line(int)(["1", "two", "3"], dead_letters=path))
    [1, 3]
    >>> [(letter.index, letter.record, letter.error) for letter in read_dead_letters(path)]
    [(1, 'two', 'ValueError')]
    """
    name = os.fspath(path)
    return [letter_from(name, row) for row in rows_of(name)]


def row_of(index: int, step: str, error: BaseException, trace: str, record: Any, run: str) -> dict[str, Any]:
    """A row that says all about a record that failed. Never raises for what the record is."""
    if not trace:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    encoding, kept = _kept(record)
    return {
        "index": index, "step": step, "error": type(error).__qualname__, "message": _text(error),
        "traceback": trace.encode("utf-8", "backslashreplace").decode(), "record": kept, "encoding": encoding, "run": run,
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }  # fmt: skip


class DeadLetters(ABC):
    """A file of dead letters, open at its end, for one run."""

    def __init__(self, path: str, run: str) -> None:
        self.path = path
        self.run = run

    @abstractmethod
    def write(self, letters: Sequence[dict[str, Any]]) -> None:
        """Add these. Raises SinkError, with none of the failed one left, where they cannot be written."""

    @abstractmethod
    def position(self) -> Any:
        """Where it ends, as a JSON value."""

    @abstractmethod
    def cut(self, position: Any) -> None:
        """Drop what was written after `position`. Raises ResumeError where it ends before."""

    @abstractmethod
    def sync(self) -> None:
        """Make all that was written survive a power cut."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; one that is empty is taken away. May be called again."""

    def _failed(self, error: Exception) -> SinkError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return SinkError(f"the dead letters {self.path!r} cannot be written: {why}", path=self.path)


def open_dead_letters(path: str, run: str) -> DeadLetters:
    """The file at `path` for this run, made where there is none; letters are added to those in it. Raises LineError
    where it cannot be written, or another run writes it."""
    try:
        return _Database(path, run) if path.endswith(LETTERS_SQLITE) else _Lines(path, run)
    except BlockingIOError:
        raise LineError(f"another run writes the dead letters {path!r}") from None
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LineError(f"the dead letters {path!r} cannot be written: {why}") from error


class _Lines(DeadLetters):
    """A letter a line, each written by one call."""

    def __init__(self, path: str, run: str) -> None:
        super().__init__(path, run)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock(self._file)
            self._end = _whole_lines(self._file)
            os.ftruncate(self._file, self._end)  # a killed run may have left half a line
        except BaseException:
            os.close(self._file)
            raise

    def write(self, letters: Sequence[dict[str, Any]]) -> None:
        for letter in letters:
            line = _json(letter).encode() + b"\n"
            try:
                written = os.pwrite(self._file, line, self._end)
                while written < len(line):  # a disk that is getting full takes a part first
                    written += os.pwrite(self._file, line[written:], self._end + written)
            except OSError as error:
                os.ftruncate(self._file, self._end)
                raise self._failed(error) from error
            self._end += len(line)

    def position(self) -> Any:
        return self._end

    def cut(self, position: Any) -> None:
        if position > os.fstat(self._file).st_size:
            raise _shorter(self.path)
        os.ftruncate(self._file, position)
        self._end = position

    def sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        file, self._file = self._file, -1
        if file < 0:
            return
        if self._end == 0:
            os.unlink(self.path)
        os.close(file)


class _Database(DeadLetters):
    """A table of letters; those of a batch are one transaction."""

    def __init__(self, path: str, run: str) -> None:
        super().__init__(path, run)
        self._new = not os.path.exists(path) or os.path.getsize(path) == 0
        # No check of the thread: a run is driven by one thread at a time, which need not be the one that began it.
        self._base = sqlite3.connect(path, check_same_thread=False)
        try:
            self._base.execute(_CREATE)
        except BaseException:
            self._base.close()
            raise

    def write(self, letters: Sequence[dict[str, Any]]) -> None:
        try:
            with self._base:
                self._base.executemany(_INSERT, map(_as_tuple, letters))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def position(self) -> Any:
        of_run = "SELECT coalesce(max(id), 0) FROM dead_letters WHERE run = ?"
        return self._base.execute(of_run, (self.run,)).fetchone()[0]

    def cut(self, position: Any) -> None:
        if position > self.position():
            raise _shorter(self.path)
        with self._base:
            self._base.execute("DELETE FROM dead_letters WHERE id > ? AND run = ?", (position, self.run))

    def sync(self) -> None:
        pass  # each transaction is synced by SQLite itself

    def close(self) -> None:
        base, self._base = self._base, None  # type: ignore[assignment]
        if base is None:
            return
        empty = base.execute("SELECT count(*) FROM dead_letters").fetchone()[0] == 0
        base.close()
        if self._new and empty:
            os.unlink(self.path)


# --- for who runs them again ---


def rows_of(path: str) -> list[dict[str, Any]]:
    """The letters as they are kept. Raises as `read_dead_letters` does."""
    if not os.path.isfile(path):
        raise SourceNotFound(f"there is no file {path!r}", path=path)
    return list(_read_database(path) if path.endswith(LETTERS_SQLITE) else _read_lines(path))


def replace_rows(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put these letters in the place of those in the file, wholly or not at all; without any the file is taken away.
    Raises SinkError."""
    try:
        if not rows:
            os.unlink(path)
        elif path.endswith(LETTERS_SQLITE):
            with closing(sqlite3.connect(path)) as base, base:  # one transaction
                base.execute("DELETE FROM dead_letters")
                base.executemany(_INSERT, map(_as_tuple, rows))
        else:
            part = f"{path}.new"
            with open(part, "wb") as file:
                file.writelines(_json(row).encode() + b"\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except (OSError, sqlite3.Error) as error:
        raise SinkError(f"the dead letters {path!r} cannot be replaced: {error}", path=path) from error


# --- records as text ---


def _kept(record: Any) -> tuple[str, Any]:
    """How a record is kept, and the JSON value that keeps it."""
    if _is_plain(record, DEEP):
        return "json", record
    try:
        return "pickle", base64.b64encode(_pickled(record)).decode()
    except Exception:  # whatever the record's own reduction raises: it is described then
        return "text", excerpt(record)


def _is_plain(value: Any, deep: int) -> bool:
    """Whether JSON gives exactly this value back: nothing but its own types, no subclasses, no odd numbers."""
    kind = type(value)
    if kind is str:
        return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)
    if kind is bool or value is None:
        return True
    if kind is int:
        return bool(value.bit_length() <= MANY_BITS)
    if kind is float:
        return isfinite(value)
    if deep == 0:
        return False
    if kind is list:
        return all(_is_plain(each, deep - 1) for each in value)
    if kind is dict:
        return all(type(key) is str and _is_plain(key, 0) and _is_plain(each, deep - 1) for key, each in value.items())
    return False


def _pickled(record: Any) -> bytes:
    try:
        packed = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)
    except Exception:
        import cloudpickle

        packed = cloudpickle.dumps(record)
    return bytes(packed)


def _as_tuple(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(_json(row[name]) if name == "record" else row[name] for name in COLUMNS)


def _text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception as odd:  # an exception's own __str__ may do anything
        return f"<its text cannot be had: {type(odd).__name__}>"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


# --- reading back ---


def _whole_lines(file: int) -> int:
    """Bytes of the file up to its last line end."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - (1 << 16))
        at = os.pread(file, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _read_lines(path: str) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _no_letter(path, f"line {number:,}") from error
            if not isinstance(row, dict):
                raise _no_letter(path, f"line {number:,}")
            yield row


def _read_database(path: str) -> Iterator[dict[str, Any]]:
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for row in base.execute(f"SELECT {_NAMES} FROM dead_letters ORDER BY id"):
            letter = dict(zip(COLUMNS, row, strict=True))
            yield {**letter, "record": json.loads(letter["record"])}
    except (sqlite3.Error, ValueError) as error:
        raise _no_letter(path, str(error)) from error
    finally:
        base.close()


def letter_from(path: str, row: dict[str, Any]) -> DeadLetter:
    """The letter that a row of the file at `path` keeps. Raises SourceError."""
    try:
        told = {name: row[name] for name in COLUMNS}
    except KeyError as error:
        raise _no_letter(path, f"no {error}") from error
    encoding, record = told.pop("encoding"), told.pop("record")
    if encoding == "pickle":
        try:
            record = pickle.loads(base64.b64decode(record))
        except Exception as error:
            raise SourceError(
                f"{path!r}: the record {told['index']:,} cannot be unpickled here: {type(error).__name__}: {error}. "
                "Load its classes first, where they were when it was written",
                path=path,
            ) from error
    elif encoding != "json":
        record = Unkept(record)
    return DeadLetter(**told, record=record)


def _no_letter(path: str, where: str) -> SourceError:
    return SourceError(f"{path!r} holds something else than dead letters: {where}", path=path)


def _shorter(path: str) -> ResumeError:
    return ResumeError(
        f"the dead letters {path!r} are fewer than the journal says: the file was cut or replaced. Put it back, or delete "
        "the journal to run from the start",
        path=path,
    )  # fmt: skip


for _public in (DeadLetter, Unkept, read_dead_letters):
    _public.__module__ = "taktline"
