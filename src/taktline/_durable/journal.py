"""The journal: one small file of constant size that says how far a run is, and that a SIGKILL or a power cut cannot spoil.

    header   who the run is: its name, and fingerprints of what its results depend on. Written once.
    word     8 bytes: how many results the caller has had. A store into shared memory each, so it survives SIGKILL.
    slots    two entries, written in turn: the older one is overwritten, so the other one is whole at any moment.
    states   only where serial steps save theirs: a state beside the one that the newest entry tells of.

All but the states is allocated when it is made, so a full disk is met before anything runs.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from taktline.errors import LineError, ResumeError, SinkError

PAGE = 1 << 14  # bytes of the header, and of the word's part: a multiple of every machine's page
SLOT = 1 << 17  # bytes an entry may take: a sink's position may hold up to a block of text not yet compressed
SIZE = 2 * PAGE + 2 * SLOT
FORM = 1  # of this file; another number is another form
COUNT_BITS = 40
PATIENCE = 3.0  # seconds for the workers of a caller that was just killed to let go of the file

RUNNING, DELIVERED, DONE = "running", "delivered", "done"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the results are delivered."""

    records: int = 0  # index of the first record whose results are not all delivered
    results: int = 0  # of the records before it
    delivered: int = 0  # in all: some may be of the records from there on
    failed: int = 0  # of the records before it
    retried: int = 0
    seen: int = 0  # an index up to there, and the fingerprint of the record before that one, to know the source by
    print: str = ""
    state: Any = None  # where the journal keeps the states of serial steps behind the records before it

    def to_text(self) -> str:
        """For a sink that keeps marks itself."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_told(told: dict[str, Any]) -> Mark:
        """From its fields, of a journal of an earlier version too."""
        return Mark(**{each.name: told[each.name] for each in fields(Mark) if each.name in told})

    @staticmethod
    def from_text(text: str) -> Mark:
        """What `to_text` gave. Raises ResumeError where it is something else."""
        try:
            return Mark.from_told(json.loads(text))
        except (ValueError, TypeError) as error:
            raise ResumeError(f"the mark that the sink keeps cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says: the mark, the sink's position there, and the state of the run."""

    mark: Mark = Mark()
    position: Any = None  # None: nothing was written yet
    state: str = RUNNING  # then DELIVERED: only the sink's commit is left; then DONE


class Journal:
    """One run's journal. A new one is made where there is none, or where a run with other `prints` is done, or has not
    delivered anything.

    `prints`: what the results depend on, as JSON values by name. Raises LineError where the file cannot be made or
    another run has it, ResumeError where it is damaged, or tells of an unfinished run with other prints.
    """

    def __init__(self, path: str, prints: Mapping[str, Any]) -> None:
        self.path = path
        self._file: int | None = None
        self._words: memoryview
        self._turn = -1
        self._kept: list[Any] = [SIZE, 0, ""]  # where the state is that counts, how long it is, and its digest
        try:
            self._file = self._locked()
            if os.fstat(self._file).st_size == 0:
                self._make(prints)
            else:
                self._read(prints)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise LineError(f"the journal {path!r} cannot be used: {error.strerror or error}") from error
            raise

    def _locked(self) -> int:
        """The file, made where there is none, and this process the only one that has it."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                lock(file)
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass  # somebody has just put another file in its place
            except BlockingIOError:
                os.close(file)
                raise LineError(f"another run is at work with the journal {self.path!r}") from None
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _make(self, prints: Mapping[str, Any]) -> None:
        """A new journal, which takes the old one's place only when it is whole."""
        self.run, self.resumed, self.entry = uuid4().hex, False, Entry()
        part, empty = f"{self.path}.new", self._file
        assert empty is not None
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            lock(file)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, SIZE)
            else:
                os.pwrite(file, bytes(SIZE), 0)
            header = _line({"journal": FORM, "run": self.run, "prints": dict(prints)})
            if len(header) > PAGE:  # very many steps: say less
                header = _line({"journal": FORM, "run": self.run, "prints": _short(prints)})
            os.pwrite(file, header, 0)
            self._open(file)
            self._file = file
            self.count(0)
            self.write(self.entry)
            self.write(self.entry)
            os.rename(part, self.path)
            _sync_folder(self.path)
        except BaseException:
            self._file = empty
            os.close(file)
            os.unlink(part)
            if os.fstat(empty).st_size == 0:
                os.unlink(self.path)
            raise
        os.close(empty)

    def _read(self, prints: Mapping[str, Any]) -> None:
        file = self._file
        assert file is not None
        if os.fstat(file).st_size < SIZE:
            raise ResumeError(
                f"{self.path!r} is no journal, or was cut off. Name a file that is not there yet, or delete this one to run "
                "from the start",
                path=self.path,
            )
        header = _said(os.pread(file, PAGE, 0))
        if header is None or header.get("journal") != FORM:
            raise self._damaged("its header cannot be read")
        told = header["prints"]
        self._open(file)
        found = [each for n in (0, 1) if (each := _said(os.pread(file, SLOT, self._slot(n)))) is not None]
        if not found:
            raise self._damaged("neither of its two entries can be read")
        newest = max(found, key=lambda each: int(each["turn"]))
        self._turn = int(newest["turn"])
        self.run, self.resumed = str(header["run"]), True
        self.entry = Entry(Mark.from_told(newest["mark"]), newest["position"], newest["state"])
        now = json.loads(json.dumps(dict(prints)))
        if told != now and told != json.loads(json.dumps(_short(prints))):
            # Where nothing was delivered yet there is nothing to go on with: as good as done.
            if self.entry.state != DONE and (self.entry.mark.records or self.delivered):
                raise self._other(_differing(told, now))
            self._make(prints)

    def _open(self, file: int) -> None:
        self._turn = -1
        self._words = memoryview(mmap.mmap(file, SIZE))[PAGE : PAGE + 8].cast("Q")

    @property
    def delivered(self) -> int:
        """Results that the caller has had, counted by `count` or told by the newest entry. Raises ResumeError where
        the count is damaged."""
        word = int(self._words[0])
        count = word & ((1 << COUNT_BITS) - 1)
        if word != _checked(count):
            raise self._damaged("its count of results cannot be read")
        return max(count, self.entry.mark.delivered)

    def count(self, results: int) -> None:
        """The caller has had so many results in all. Survives SIGKILL at once, a power cut with the next entry."""
        self._words[0] = results | (results * 0x9E3779B97F4A7C15 + 0x5A5A5A0000000000 & 0xFFFFFF0000000000)  # _checked

    def write(self, entry: Entry) -> None:
        """Note an entry, which is safe against a power cut when this returns. Raises SinkError where it cannot be."""
        turn = self._turn + 1
        line = _line({"turn": turn, "mark": asdict(entry.mark), "position": entry.position, "state": entry.state})
        if len(line) > SLOT:
            raise SinkError(f"the sink's position is too large for the journal {self.path!r}: {len(line):,} bytes")
        try:
            assert self._file is not None
            os.pwrite(self._file, line, self._slot(turn % 2))
            os.fsync(self._file)
        except OSError as error:
            raise SinkError(f"the journal {self.path!r} cannot be written: {error.strerror or error}") from error
        self._turn, self.entry = turn, entry

    def keep(self, state: bytes) -> list[Any]:
        """Put states of steps beside the entries, safe against a power cut when this returns; what the next entry must
        say of it. Until then the state that the newest entry tells of stays whole. Raises SinkError."""
        digest = _digest(state).decode()
        start, length, known = self._kept
        if digest != known:
            at = SIZE if len(state) <= start - SIZE else start + length
            try:
                assert self._file is not None
                left, end = memoryview(state), at
                while left:
                    written = os.pwrite(self._file, left, end)
                    left, end = left[written:], end + written
                os.fsync(self._file)
            except OSError as error:
                raise SinkError(f"the journal {self.path!r} cannot be written: {error.strerror or error}") from error
            self._kept = [at, len(state), digest]
        return self._kept

    def kept(self, where: list[Any]) -> bytes:
        """The state that an entry tells of. Raises ResumeError where it is damaged."""
        at, length, digest = where
        assert self._file is not None
        state = os.pread(self._file, length, at)
        if _digest(state).decode() != digest:
            raise self._damaged("the state of its serial steps cannot be read")
        self._kept = list(where)
        return state

    def close(self) -> None:
        """Let go of the file. May be called again."""
        file, self._file = self._file, None
        if file is not None:
            fcntl.flock(file, fcntl.LOCK_UN)  # the map, and forked workers, have the same open file
            os.close(file)

    def _slot(self, n: int) -> int:
        return 2 * PAGE + n * SLOT

    def _damaged(self, why: str) -> ResumeError:
        return ResumeError(
            f"{self.path!r} is no journal of this version, or is damaged: {why}. It cannot be told any more what was "
            "delivered: delete the journal to run from the start",
            path=self.path,
        )  # fmt: skip

    def _other(self, changed: str) -> ResumeError:
        return ResumeError(
            f"the journal {self.path!r} tells of an unfinished run that differs in {changed}. Run it as it was to go on, "
            "or delete the journal to run from the start",
            path=self.path, changed=changed,
        )  # fmt: skip


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


def _checked(count: int) -> int:
    """`count` with check bits above it: the high bits of a multiplicative hash (Knuth's, with the golden ratio), and
    a constant, so that no word of zeros is whole."""
    return count | (count * 0x9E3779B97F4A7C15 + 0x5A5A5A0000000000 & 0xFFFFFF0000000000)


def _line(said: dict[str, Any]) -> bytes:
    text = json.dumps(said).encode()
    return _digest(text) + b" " + text + b"\n"


def _said(data: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is not whole."""
    digest, _, text = data.partition(b"\n")[0].partition(b" ")
    if not text or _digest(text) != digest:
        return None
    said = json.loads(text)
    return said if isinstance(said, dict) else None


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=12).hexdigest().encode()


def _short(prints: Mapping[str, Any]) -> dict[str, Any]:
    return {"the run": _digest(json.dumps(dict(prints)).encode()).decode()}


def _differing(told: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names of what differs, for people."""
    names = [name for name in dict.fromkeys((*told, *now)) if told.get(name) != now.get(name)]
    return ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")


def _sync_folder(path: str) -> None:
    """Make a rename in the folder of `path` survive a power cut."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
