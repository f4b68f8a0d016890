"""The journal: one small file of constant size that says how far a run is, and that a SIGKILL or a power cut cannot spoil.

    header   who the run is: its name, and fingerprints of what its results depend on. Written once;
             another one is a new file in the place of this one.
    word     8 bytes: how many results the caller has had. A write each, so it survives SIGKILL.
    attempt  8 bytes: which attempt at the run has it. A later one that finds it locked puts a copy in its place and has
             the lock on that: to an earlier one, frozen or at work, its own file has lost its name, and it looks at that
             before each mark and before what it does shows.
    slots    two entries, written in turn: the older one is overwritten, so the other one is whole at any moment.
    states   only where serial steps save theirs: a state beside the one that the newest entry tells of.

All but the states is allocated when it is made, so a full disk is met before anything runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

from taktline._durable.entries import (
    DONE,
    FIRST_ENTRY,
    JOURNAL_FORM,
    JOURNAL_PAGE,
    About,
    Checkpoint,
    Entry,
    as_line,
    differing,
    digest_of,
    said_in,
)
from taktline._files import CANNOT_SYNC, is_still, lock, private, put, refusal
from taktline._signals import pass_on
from taktline.errors import InUse, ResumeError, SinkError, TakenOver

SLOT = 1 << 17  # bytes an entry may take: a sink's position may hold up to a block of text not yet compressed
SIZE = 2 * JOURNAL_PAGE + 2 * SLOT
ATTEMPT = JOURNAL_PAGE + 8  # where the number of the attempt stands
COUNT_BITS = 40


class Journal:
    """One run's journal. A new one is made where there is none, or where a run with other `prints` is done, or has not
    delivered anything.

    `prints`: what the results depend on, as JSON values by name. `even`: every record gives one result. `if_changed`:
    other than "refuse", an unfinished run with other prints is left for `go_on` or `restart`, and `changed` names what
    differs. `attempt`: the number of this attempt at the run, which takes the file from an earlier one that has it. Raises
    LineError where the file cannot be made there, SinkError where it cannot be now, InUse where another run has it, TakenOver
    where that is a later attempt, ResumeError where it is damaged, or tells of an unfinished run with other prints.
    """

    def __init__(
        self, path: str, prints: Mapping[str, Any], *, even: bool = False, if_changed: str = "refuse",
        attempt: int | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self._attempt = attempt
        self.taken_over = False  # from an attempt that may not have noticed yet
        self._place = os.path.abspath(path)  # a step may change the folder
        self.changed: list[str] = []  # what differs from the unfinished run
        self.left: Any = None  # the sink's position in a run that was given up just now
        self._file: int | None = None
        self._about = About(uuid4().hex, dict(prints), even)
        self._turn = -1
        self._kept: list[Any] = [SIZE, 0, ""]  # where the state is that counts, how long it is, and its digest
        try:
            while self._file is None:
                self._file = self._locked()
                if self._file is not None:
                    self._read(self._about, if_changed)
                else:
                    self._make(self._about)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise refusal(error, f"the journal {path!r} cannot be used", path) from error
            raise

    @property
    def run(self) -> str:
        """The run's name, which stays the same when it is resumed."""
        return self._about.run

    @property
    def even(self) -> bool:
        """Whether every record of the unfinished run has given one result."""
        return self._about.even

    @property
    def changes(self) -> list[list[Any]]:
        """Where `go_on` was called: from which record on, and what had changed."""
        return self._about.changes

    @property
    def instead(self) -> str:
        """The name of the run in whose place `restart` has put this one; empty where there was none."""
        return self._about.instead

    def _locked(self) -> int | None:
        """The file, and this process the only one that has it; None where there is none."""
        while True:
            try:
                file = private(self._place, make=False)
            except FileNotFoundError as error:
                pass_on(error)
                return None
            try:
                lock(file)
                if os.path.samestat(os.fstat(file), os.stat(self._place)):
                    return file
            except FileNotFoundError as error:
                pass_on(error)  # somebody has just put another file in its place
            except BlockingIOError as error:
                pass_on(error)
                try:
                    copy = self._taken_from(file)
                finally:
                    os.close(file)
                if copy is None:
                    continue
                self.taken_over = True
                return copy
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _taken_from(self, file: int) -> int | None:
        """A copy of the journal, which an earlier attempt has locked, in its place; None where it is another one by now.
        Raises InUse where no earlier attempt has it, TakenOver where a later one does."""
        before = _attempt_in(file)
        if self._attempt is None or before is None or before == self._attempt:
            raise self._at_work()
        if before > self._attempt:
            raise TakenOver(path=self.path, own=self._attempt, attempt=before)
        part = f"{self._place}.new"
        copy = private(part)
        try:
            try:
                lock(copy)
            except BlockingIOError:
                raise self._at_work() from None
            if is_still(copy, part) and is_still(file, self._place):
                while True:  # until no mark has come in between: the states lie behind the entries that tell of them
                    entries = os.pread(file, 2 * SLOT, self._slot(0))
                    os.ftruncate(copy, 0)
                    at = 0
                    while data := os.pread(file, 1 << 20, at):
                        at += os.pwrite(copy, data, at)
                    if os.pread(file, 2 * SLOT, self._slot(0)) == entries:
                        break
                self._sign(copy)
                put(part, self._place)
                return copy
        except BaseException:
            os.close(copy)
            raise
        os.close(copy)
        return None

    def _sign(self, file: int) -> None:
        """Note whose the file is now, safe against a power cut."""
        os.pwrite(file, _word(self._attempt) if self._attempt is not None else bytes(8), ATTEMPT)
        os.fsync(file)

    def _make(self, about: About, entry: Entry = FIRST_ENTRY, count: int = 0, state: bytes | None = None) -> None:
        """A new journal, which takes its name, or the old one's place, only when it is whole. Nothing is made, and
        `_file` stays None, where another run has just made one."""
        part, before = f"{self._place}.new", self._file
        file = private(part)
        try:
            try:
                lock(file)
            except BlockingIOError:
                raise self._at_work() from None
            if not is_still(file, part) or (before is None and os.path.lexists(self._place)):
                if is_still(file, part):
                    os.unlink(part)
                os.close(file)
                return
            os.ftruncate(file, 0)
            _allocate(file)
            os.pwrite(file, about.line(), 0)
            self._sign(file)
            self._begin(about, file)
            self.count(count)
            if state is not None:
                entry = replace(entry, mark=replace(entry.mark, state=self.keep(state)))
            for _ in range(2):
                self._write(entry)
            put(part, self._place)
        except BaseException:
            self._file = before
            if is_still(file, part):
                os.unlink(part)
            os.close(file)
            raise
        if before is not None:
            os.close(before)

    def _begin(self, about: About, file: int) -> None:
        self._about, self._file, self._turn, self.resumed = about, file, -1, False
        self._kept = [SIZE, 0, ""]

    def _read(self, now: About, if_changed: str) -> None:
        file = self._file
        assert file is not None
        if os.fstat(file).st_size < SIZE:
            raise ResumeError(
                f"{self.path!r} is no journal, or was cut off. Name a file that is not there yet, or delete this one to run "
                "from the start",
                path=self.path,
            )
        header = said_in(os.pread(file, JOURNAL_PAGE, 0))
        if header is None or header.get("journal") != JOURNAL_FORM:
            raise self._damaged("its header cannot be read")
        found = [each for n in (0, 1) if (each := said_in(os.pread(file, SLOT, self._slot(n)))) is not None]
        if not found:
            raise self._damaged("neither of its two entries can be read")
        self._sign(file)  # only now: it is a journal
        newest = max(found, key=lambda each: int(each["turn"]))
        self._turn, self.resumed, self._about = int(newest["turn"]), True, About.told(header)
        self.entry = Entry(Checkpoint.from_told(newest["mark"]), newest["position"], newest["state"])
        self._meet(now, if_changed)

    def _meet(self, now: About, if_changed: str) -> None:
        """What there is with what is asked for. Raises ResumeError where the two do not go together."""
        if self._about.same_as(now):
            return
        # Where nothing was delivered yet there is nothing to go on with: as good as done.
        if self.entry.state == DONE:
            self._make(now)
            return
        if not (self.entry.mark.records or self.delivered):
            self.left = self.entry.position
            self._make(replace(now, instead=self.run))
            return
        self.changed = differing(self._about.prints, now.prints)
        self._now = now
        if if_changed == "refuse":
            raise self.refusal()

    def refusal(self, why: str = "") -> ResumeError:
        """What to raise where the run is another one than that of the journal."""
        named = [*self.changed[:5], *["more"] * (len(self.changed) > 5)]
        changed = " and ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))
        then = why or (
            'Run it as it was to go on; or, with if_changed="continue" (--if-changed continue), keep the results of the '
            f"{self.entry.mark.records:,} records that are done and go on with the new ones; or begin anew: "
            'if_changed="restart" (--if-changed restart), or delete the journal to run from the start'
        )
        return ResumeError(
            f"the journal {self.path!r} tells of an unfinished run that differs in {changed}. {then}",
            path=self.path, changed=changed,
        )  # fmt: skip

    def go_on(self, *, even: bool) -> None:
        """Keep what the journal says, and what the run depends on now in the place of what it did. `even`: also how many
        results were delivered of records that are not done."""
        entry, mark, count = self.entry, self.entry.mark, self.delivered
        if not even:
            mark, count = replace(mark, delivered=mark.results), mark.results
        state = None if mark.state is None else self.kept(mark.state)
        changes = [*self.changes, [mark.records, ", ".join(self.changed)]]
        now = replace(self._now, run=self.run, changes=changes, instead=self.instead)
        self._make(now, replace(entry, mark=mark), count, state)
        self.resumed = True

    def restart(self) -> None:
        """Give up what the journal says: as a new one, which knows the name of the run that it was of."""
        now = self._now if self.changed else replace(self._about, changes=[])
        self.left = self.entry.position
        self._make(replace(now, run=uuid4().hex, instead=self.run))

    @property
    def delivered(self) -> int:
        """Results that the caller has had, counted by `count` or told by the newest entry. Raises ResumeError where
        the count is damaged."""
        assert self._file is not None
        count = _number_in(self._file, JOURNAL_PAGE)
        if count is None:
            raise self._damaged("its count of results cannot be read")
        return max(count, self.entry.mark.delivered)

    def count(self, results: int) -> None:
        """The caller has had so many results in all. Survives SIGKILL at once, a power cut with the next entry."""
        word = results | (results * 0x9E3779B97F4A7C15 + 0x5A5A5A0000000000 & 0xFFFFFF0000000000)  # _checked
        # Not by a map of the file: where somebody cuts that, a store into it ends the process.
        try:
            os.pwrite(self._file, word.to_bytes(8, "little"), JOURNAL_PAGE)  # type: ignore[arg-type]
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, entry: Entry) -> None:
        """Note an entry, which is safe against a power cut when this returns. Raises SinkError where it cannot be, also
        where somebody has cut or replaced the file."""
        try:
            self._check_whole()
            self._write(entry)
        except OSError as error:
            raise self._unwritable(error) from error

    def _write(self, entry: Entry) -> None:
        turn = self._turn + 1
        line = as_line({"turn": turn, "mark": asdict(entry.mark), "position": entry.position, "state": entry.state})
        if len(line) > SLOT:
            raise SinkError(f"the sink's position is too large for the journal {self.path!r}: {len(line):,} bytes")
        assert self._file is not None
        os.pwrite(self._file, line, self._slot(turn % 2))
        os.fsync(self._file)
        self._turn, self.entry = turn, entry

    def check(self) -> None:
        """What is done from here on may show: raises TakenOver where a later attempt has the journal, SinkError where the
        file is not what this process made or found."""
        try:
            self._check_whole()
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_whole(self) -> None:
        """Raises TakenOver where a later attempt has put a copy in the file's place, SinkError where it is not what this
        process made or found: nobody could go on with it."""
        file = self._file
        assert file is not None
        try:
            there = os.path.samestat(os.fstat(file), os.stat(self._place))
        except FileNotFoundError as error:
            pass_on(error)
            there = False
        if there and os.fstat(file).st_size >= SIZE and said_in(os.pread(file, JOURNAL_PAGE, 0)) is not None:
            return
        if not there and self._attempt is not None and (later := self._later()) is not None:
            raise TakenOver(path=self.path, own=self._attempt, attempt=later)
        done = "was cut or overwritten" if there else "was taken away or replaced"
        raise SinkError(
            f"the journal {self.path!r} {done} by another program while the run was at work, so no run could go on from "
            f"what comes now. {self.entry.mark.delivered:,} results were noted before. Keep others away from it, delete "
            "what is left of it, and run from the start",
            path=self.path,
        )

    def _later(self) -> int | None:
        """The number of a later attempt, where the file in the place of this one is its."""
        try:
            file = private(self._place, make=False)
        except OSError as error:
            pass_on(error)
            return None
        try:
            found = _attempt_in(file)
        finally:
            os.close(file)
        return found if found is not None and found > (self._attempt or 0) else None

    def keep(self, state: bytes) -> list[Any]:
        """Put states of steps beside the entries, safe against a power cut when this returns; what the next entry must
        say of it. Until then the state that the newest entry tells of stays whole. Raises SinkError."""
        digest = digest_of(state).decode()
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
                raise self._unwritable(error) from error
            self._kept = [at, len(state), digest]
        return self._kept

    def kept(self, where: list[Any]) -> bytes:
        """The state that an entry tells of. Raises ResumeError where it is damaged."""
        at, length, digest = where
        assert self._file is not None
        state = os.pread(self._file, length, at)
        if digest_of(state).decode() != digest:
            raise self._damaged("the state of its serial steps cannot be read")
        self._kept = list(where)
        return state

    def close(self) -> None:
        """Let go of the file. May be called again."""
        file, self._file = self._file, None
        if file is not None:
            fcntl.flock(file, fcntl.LOCK_UN)  # forked workers have the same open file
            os.close(file)

    def _slot(self, n: int) -> int:
        return 2 * JOURNAL_PAGE + n * SLOT

    def _at_work(self) -> InUse:
        return InUse(f"another run is at work with the journal {self.path!r}", path=self.path)

    def _unwritable(self, error: OSError) -> SinkError:
        return SinkError(f"the journal {self.path!r} cannot be written: {error.strerror or error}")

    def _damaged(self, why: str) -> ResumeError:
        return ResumeError(
            f"{self.path!r} is no journal of this version, or is damaged: {why}. It cannot be told any more what was "
            "delivered: delete the journal to run from the start",
            path=self.path,
        )


def _allocate(file: int) -> None:
    """Have the room on the disk, so that a full one is met before anything runs."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, SIZE)
            return
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise
    os.pwrite(file, bytes(SIZE), 0)


def _checked(count: int) -> int:
    """`count` with check bits above it: the high bits of a multiplicative hash (Knuth's, with the golden ratio), and
    a constant, so that no word of zeros is whole."""
    return count | (count * 0x9E3779B97F4A7C15 + 0x5A5A5A0000000000 & 0xFFFFFF0000000000)


def _word(number: int) -> bytes:
    """A number that is read back whole or not at all."""
    return _checked(number).to_bytes(8, "little")


def _number_in(file: int, at: int) -> int | None:
    """What `_word` gave, at a place in a file; None where it is not whole."""
    word = int.from_bytes(os.pread(file, 8, at), "little")
    number = word & ((1 << COUNT_BITS) - 1)
    return number if word == _checked(number) else None


def _attempt_in(file: int) -> int | None:
    """The number of the attempt that has a journal; None where it has none."""
    return _number_in(file, ATTEMPT)
