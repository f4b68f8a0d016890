"""Dead letters: records that failed, kept aside with their reason, as JSON lines or in an SQLite database.

Each is written when its turn comes in the order of the records, and is there after a SIGKILL from then on. They are added
to a file that is empty or holds dead letters, never to another one. What a letter is about (its source, the record, its
index, the step) makes its key: a run that begins anew meets its letters of the last time, and leaves them alone.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import sqlite3
import stat
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from math import isfinite
from typing import Any
from urllib.parse import quote

from taktline._excerpts import excerpt
from taktline._files import is_still, lock, private, put, refusal, sync_folder
from taktline._objects import Conflict
from taktline._public import named
from taktline._recipe.options import SQLITE_SUFFIXES
from taktline._stores import objects_at
from taktline._urls import get, is_url, shown
from taktline.errors import InUse, LineError, SinkError, SourceError, SourceNotFound

DEEP = 60  # levels of a record that are tried as JSON,
MANY = 100_000  # and values in it, one counted as often as it would be written
MANY_BITS = 4096  # of a whole number; longer ones are refused by many readers of JSON
TOLD = ("index", "step", "error", "message", "traceback", "record", "encoding", "run", "time")
ALSO = ("source", "given", "key")  # letters of earlier versions have none of them; the key tells what they are about
COLUMNS = (*TOLD, *ALSO)
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_INSERT = f"INSERT INTO dead_letters ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"
_BEGINNING = re.compile(rb'\{"index": \d*')  # of each line,
_THEN = b', "step": "'
_END = re.compile(rb'"key": "([0-9a-f]+)"\}\n$')
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
    source: str = ""  # where the record stands in what was read, such as "/data/orders.jsonl:48212"
    given: str = ""  # an excerpt of what the step was given, and which step made it; empty where that is the record


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


def row_of(
    index: int, step: str, error: BaseException, trace: str, record: Any, run: str, source: str | None, *,
    place: str = "", given: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A row that says all about a record that failed. Never raises for what the record is.

    `source`: what tells it from other sources; None where an index in it says nothing to a later run. `place`: where the
    record stands in it; `given`: what the step was given."""
    if not trace:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    encoding, kept = _kept(record)
    about = text_of([source if source is not None else run, index, step, encoding, kept])
    return {
        "index": index, "step": step, "error": type(error).__qualname__, "message": _text(error),
        "traceback": trace.encode("utf-8", "backslashreplace").decode(), "record": kept, "encoding": encoding, "run": run,
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"), "source": place, "given": given,
        "key": blake2b(about.encode(), digest_size=16).hexdigest(),
    }  # fmt: skip


class DeadLetters(ABC):
    """A file of dead letters, open at its end, for one run."""

    def __init__(self, path: str, run: str) -> None:
        self.path = path
        self.run = run
        self._place = os.path.realpath(path)  # a step may change the folder
        self._made = not os.path.exists(self._place)  # by this run
        self._known: set[str] | None = None  # keys of the letters that are there

    def write(self, letters: Sequence[dict[str, Any]]) -> None:
        """Add those of these that are not there. Raises SinkError, with none of the failed one left, where they cannot be
        written."""
        if self._known is None:
            self._known = self._keys()
        new = {each["key"]: each for each in letters if each["key"] not in self._known}
        self._add(list(new.values()))
        self._known.update(new)

    @abstractmethod
    def _keys(self) -> set[str]:
        """What the letters in the file are about."""

    @abstractmethod
    def _add(self, letters: Sequence[dict[str, Any]]) -> None:
        """`write`, of letters that are not there."""

    @abstractmethod
    def cut(self, index: int) -> None:
        """Drop this run's own letters from this index on, which an earlier process has written: its records are run again."""

    @abstractmethod
    def forget(self, run: str) -> None:
        """Drop the letters of another run, in whose place this one begins. Raises SinkError."""

    @abstractmethod
    def sync(self) -> None:
        """Make all that was written survive a power cut."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; one that this run has made and that is empty is taken away. May be called again."""

    def _failed(self, error: Exception) -> SinkError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return SinkError(f"the dead letters {self.path!r} cannot be written: {why}", path=self.path)


def open_dead_letters(path: str, run: str, *, taken_over: bool = False) -> DeadLetters:
    """The file at `path` for this run, made where there is none; letters are added to those in it. `taken_over`: an
    earlier attempt at the run may still have it, and is not to add any more. Raises LineError where it cannot be written or
    holds something else, SinkError where it cannot be now, InUse where another run writes it: then it is as it was."""
    try:
        if path.endswith(SQLITE_SUFFIXES):
            return _Database(path, run)
        try:
            return _LettersFile(path, run)
        except BlockingIOError:
            if not taken_over:
                raise
            place = os.path.realpath(path)
            with open(place, "rb") as file:
                _replaced(place, file.readlines())
            return _LettersFile(path, run)
    except BlockingIOError:
        raise InUse(
            f"another run writes the dead letters {path!r}: give each run its own, or wait until that one has ended",
            path=path,
        ) from None
    except OSError as error:
        raise refusal(error, f"the dead letters {path!r} cannot be written", path) from error
    except sqlite3.Error as error:
        raise LineError(f"the dead letters {path!r} cannot be written: {error}") from error


def check_dead_letters(path: str) -> None:
    """Raises LineError where a run would not add letters to the file at `path`, which is only looked at."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise LineError(f"the dead letters {path!r} cannot be written: there is no folder {folder!r}; make it first")
    if not os.path.isfile(path) or not os.path.getsize(path):
        return
    try:
        if path.endswith(SQLITE_SUFFIXES):
            with closing(sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)) as base:
                tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                if tables and not _columns(base).issuperset(TOLD):
                    raise not_letters(path, "it is a database without a table of them")
            return
        with open(path, "rb") as lines:
            first = lines.readline()
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LineError(f"the dead letters {path!r} cannot be written: {why}") from error
    if not (is_letter(first) or (not first.endswith(b"\n") and _is_begun(first))):
        raise not_letters(path, "its lines are no dead letters")


class _LettersFile(DeadLetters):
    """A letter a line, each written by one call."""

    def __init__(self, path: str, run: str) -> None:
        super().__init__(path, run)
        self._file = private(self._place)
        try:
            lock(self._file)
            self._end = self._mended(path)
            sync_folder(self._place)
        except BaseException:
            os.close(self._file)
            raise

    def _mended(self, path: str) -> int:
        """Where the next letter goes. Of what a killed run has begun nothing stays, and what an editor has left without a
        line end gets one; all else must be letters."""
        size = os.fstat(self._file).st_size
        end = _line_end(self._file, size)
        begun = os.pread(self._file, size - end, end)
        with open(self._file, "rb", closefd=False) as lines:
            lines.seek(0)
            first = lines.readline() if end else b""
        last = os.pread(self._file, end, start) if (start := _line_end(self._file, max(0, end - 1))) else first
        whole = is_letter(begun)
        if (end and not (is_letter(first) and is_letter(last[: end - start]))) or (
            begun and not whole and not _is_begun(begun)
        ):
            raise not_letters(path, "its lines are no dead letters")
        if whole:
            os.pwrite(self._file, b"\n", size)
            return size + 1
        if begun:
            os.ftruncate(self._file, end)
        return end

    def _keys(self) -> set[str]:
        with open(self._file, "rb", closefd=False) as lines:
            lines.seek(0)
            return {key for line in lines if (key := key_of(line))}

    def _add(self, letters: Sequence[dict[str, Any]]) -> None:
        for letter in letters:
            line = text_of(letter).encode() + b"\n"
            try:
                written = os.pwrite(self._file, line, self._end)
                while written < len(line):  # a disk that is getting full takes a part first
                    written += os.pwrite(self._file, line[written:], self._end + written)
            except OSError as error:
                os.ftruncate(self._file, self._end)
                raise self._failed(error) from error
            self._end += len(line)

    def cut(self, index: int) -> None:
        run, at, first = self.run.encode(), 0, None
        behind: list[bytes] = []  # letters of other runs, which may have added theirs since
        with open(self._file, "rb", closefd=False) as lines:
            lines.seek(0)
            for line in lines:
                if run in line and (letter := json.loads(line))["run"] == self.run and letter["index"] >= index:
                    first = at if first is None else first
                elif first is not None:
                    behind.append(line)
                at += len(line)
        if first is not None:
            if behind:
                self._move_up(first, behind)
            else:
                os.ftruncate(self._file, first)
            self._end = first + sum(map(len, behind))
        self._made = self._made or not self._end

    def _move_up(self, to: int, lines: list[bytes]) -> None:
        # In a new file: killed in the middle of it, none of the others' letters may be lost.
        _replaced(self._place, [os.pread(self._file, to, 0), *lines])
        moved = private(self._place, make=False)
        lock(moved)
        os.close(self._file)
        self._file = moved

    def forget(self, run: str) -> None:
        with open(self._place, "rb") as there:
            lines = there.readlines()
        kept = [line for line in lines if not _is_of(line, run)]
        if len(kept) < len(lines):
            self._move_up(0, kept)
            self._end = sum(map(len, kept))
            self._made = self._made or not self._end

    def sync(self) -> None:
        if not is_still(self._file, self._place):
            raise SinkError(
                f"the dead letters {self.path!r} were taken away or replaced by another program while the run was at work",
                path=self.path,
            )
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        file, self._file = self._file, -1
        if file < 0:
            return
        if self._made and self._end == 0:
            os.unlink(self._place)
        os.close(file)


class _Database(DeadLetters):
    """A table of letters; those of a batch are one transaction."""

    def __init__(self, path: str, run: str) -> None:
        super().__init__(path, run)
        os.close(private(self._place))
        # No check of the thread: a run is driven by one thread at a time, which need not be the one that began it.
        self._base = sqlite3.connect(self._place, check_same_thread=False)
        try:
            there = {name for (name,) in self._base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = _columns(self._base)
            if there and not columns.issuperset(TOLD):
                raise not_letters(path, "it is a database without a table of them")
            self._base.execute("PRAGMA synchronous = EXTRA")
            self._base.execute(_CREATE)
            if there:
                _add_columns(self._base, columns)
        except BaseException:
            self._base.close()
            raise

    def _keys(self) -> set[str]:
        return {key for (key,) in self._base.execute('SELECT "key" FROM dead_letters')}

    def _add(self, letters: Sequence[dict[str, Any]]) -> None:
        try:
            with self._base:
                self._base.executemany(_INSERT, map(_as_tuple, letters))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def cut(self, index: int) -> None:
        with self._base:
            self._base.execute('DELETE FROM dead_letters WHERE "index" >= ? AND run = ?', (index, self.run))
        self._made = self._made or self._is_empty()

    def _is_empty(self) -> bool:
        (count,) = self._base.execute("SELECT count(*) FROM dead_letters").fetchone()
        return bool(count == 0)

    def forget(self, run: str) -> None:
        with self._base:
            self._base.execute("DELETE FROM dead_letters WHERE run = ?", (run,))
        self._made = self._made or self._is_empty()

    def sync(self) -> None:
        pass  # each transaction is synced by SQLite itself

    def close(self) -> None:
        if self._base is None:
            return
        empty = self._is_empty()
        self._base.close()
        self._base = None  # type: ignore[assignment]
        if self._made and empty:
            os.unlink(self._place)


# --- for who runs them again ---


def rows_of(path: str) -> list[dict[str, Any]]:
    """The letters as they are kept. Raises as `read_dead_letters` does."""
    if is_url(path):
        return list(_rows_in(shown(path), get(path).splitlines(keepends=True)))
    if not os.path.isfile(path):
        raise SourceNotFound(f"there is no file {path!r}", path=path)
    return list(_read_database(path) if path.endswith(SQLITE_SUFFIXES) else _read_lines(path))


def replace_rows(path: str, rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]] = ()) -> None:
    """Put these letters in the place of those in the file, wholly or not at all; without any the file is taken away. At a
    URL those stay that another run has added since `before` was read. Raises SinkError."""
    if is_url(path):
        _replace_stored(path, rows, before)
        return
    path = os.path.realpath(path)
    try:
        if not rows:
            os.unlink(path)
        elif path.endswith(SQLITE_SUFFIXES):
            with closing(sqlite3.connect(path)) as base, base:  # one transaction
                base.execute("DELETE FROM dead_letters")
                _add_columns(base, _columns(base))
                base.executemany(_INSERT, map(_as_tuple, rows))
        else:
            _replaced(path, [text_of(row).encode() + b"\n" for row in rows])
    except (OSError, sqlite3.Error) as error:
        raise SinkError(f"the dead letters {path!r} cannot be replaced: {error}", path=path) from error


def _replace_stored(url: str, rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> None:
    """Those stay that another run has added since `before` was read."""
    store, place = objects_at(url)
    lines = [text_of(row).encode() + b"\n" for row in rows]
    read = {text_of(row) for row in before}
    while True:
        found = store.get(place)
        there = found[0].splitlines(keepends=True) if found is not None else []
        kept = [*lines, *(line for line in there if text_of(json.loads(line)) not in read)]
        try:
            if kept:
                store.put(place, b"".join(kept), found[1] if found is not None else None)
            else:
                store.take_away([place])
            return
        except Conflict:  # another run has added some just now
            continue


def _replaced(path: str, lines: Sequence[bytes]) -> None:
    """Put these lines in the place of a file that is there, with its mode."""
    part = f"{path}.new"
    with os.fdopen(private(part), "wb") as file:
        file.truncate(0)
        os.fchmod(file.fileno(), stat.S_IMODE(os.stat(path).st_mode))
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    put(part, path)


# --- records as text ---


def _kept(record: Any) -> tuple[str, Any]:
    """How a record is kept, and the JSON value that keeps it."""
    if _is_plain(record, DEEP, [MANY]):
        return "json", record
    try:
        return "pickle", base64.b64encode(_pickled(record)).decode()
    except Exception:  # whatever the record's own reduction raises: it is described then
        return "text", excerpt(record)


def _is_plain(value: Any, deep: int, left: list[int]) -> bool:
    """Whether JSON gives exactly this value back: nothing but its own types, no subclasses, no odd numbers; and so many
    values are left at most, where one that is held many times is written as often."""
    kind = type(value)
    left[0] -= 1
    if left[0] < 0:
        return False
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
        return all(_is_plain(each, deep - 1, left) for each in value)
    if kind is dict:
        return all(
            type(key) is str and _is_plain(key, 0, left) and _is_plain(each, deep - 1, left)
            for key, each in value.items()
        )
    return False


def _pickled(record: Any) -> bytes:
    try:
        packed = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)
    except Exception:
        import cloudpickle

        packed = cloudpickle.dumps(record)
    return bytes(packed)


def _as_tuple(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(text_of(row[name]) if name == "record" else row.get(name) for name in COLUMNS)


def _text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception as odd:  # an exception's own __str__ may do anything
        return f"<its text cannot be had: {type(odd).__name__}>"


def text_of(value: Any) -> str:
    """JSON, also of what no encoding knows."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


# --- reading back ---


def _line_end(file: int, end: int) -> int:
    """Behind the last line end among so many bytes of a file."""
    while end > 0:
        start = max(0, end - (1 << 16))
        at = os.pread(file, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _is_of(line: bytes, run: str) -> bool:
    return run.encode() in line and json.loads(line).get("run") == run


def key_of(line: bytes) -> str:
    """What the letter in a line is about; empty where an earlier version has written it."""
    found = _END.search(line[-64:])
    return found[1].decode() if found else ""


def is_letter(line: bytes) -> bool:
    """Whether a line is one."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and row.keys() >= {*TOLD}


def _is_begun(line: bytes) -> bool:
    """Whether this is the beginning of a letter's line."""
    found = _BEGINNING.match(line)
    if found is None:
        return b'{"index": '.startswith(line)
    rest = line[found.end() :][: len(_THEN)]
    return _THEN.startswith(rest)


def _read_lines(path: str) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        yield from _rows_in(path, file)


def _rows_in(path: str, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n") and not is_letter(line):
            return
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _no_letter(path, f"line {number:,}") from error
        if not isinstance(row, dict):
            raise _no_letter(path, f"line {number:,}")
        yield row


def _read_database(path: str) -> Iterator[dict[str, Any]]:
    base = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)
    try:
        columns = _columns(base)
        names = [name for name in COLUMNS if name in columns or name in TOLD]
        told = ", ".join(f'"{name}"' for name in names)
        for row in base.execute(f"SELECT {told} FROM dead_letters ORDER BY id"):
            letter = dict(zip(names, row, strict=True))
            yield {**letter, "record": json.loads(letter["record"])}
    except (sqlite3.Error, ValueError) as error:
        raise _no_letter(path, str(error)) from error
    finally:
        base.close()


def _columns(base: sqlite3.Connection) -> set[str]:
    return {name for _, name, *_ in base.execute("PRAGMA table_info(dead_letters)")}


def _add_columns(base: sqlite3.Connection, columns: set[str]) -> None:
    """Those that a table of an earlier version does not have."""
    for name in ALSO:
        if name not in columns:
            base.execute(f'ALTER TABLE dead_letters ADD COLUMN "{name}"')


def letter_from(path: str, row: dict[str, Any]) -> DeadLetter:
    """The letter that a row of the file at `path` keeps. Raises SourceError."""
    try:
        told = {name: row[name] for name in TOLD}
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
    return DeadLetter(**told, record=record, source=row.get("source") or "", given=row.get("given") or "")


def _no_letter(path: str, where: str) -> SourceError:
    return SourceError(f"{path!r} holds something else than dead letters: {where}", path=path)


def not_letters(path: str, why: str) -> LineError:
    """What to raise where a file is something else."""
    return LineError(
        f"dead letters are only added to a file that is empty or holds some, and {path!r} does not: {why}. "
        "Name a new file"
    )


named(globals())
