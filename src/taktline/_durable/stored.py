"""A journal in a store of objects: one small object, replaced as a whole, each time on the condition that it is still the one
that this process has put there.

It is journal, lease and fence in one. `holder` in it names the process that has it. A later attempt, or whoever has seen no
new object for the length of a lease, puts itself there; from then on the store refuses each put of the one before, which may
be frozen, or on a host that nobody reaches. No clocks are compared: a lease runs by the clock of who waits for its end.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from threading import Event, RLock, Thread, current_thread
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from taktline._durable.entries import FIRST_ENTRY, About, Checkpoint, Entry, as_line, digest_of, said_in
from taktline._durable.journal import Journal
from taktline._objects import Conflict
from taktline._stores import objects_at
from taktline._urls import shown
from taktline.errors import InUse, LineError, SinkError, TakenOver, TaktlineError

FORM = "1 object"
LEASE = 60.0  # seconds without a new object, after which its holder is taken for gone
RENEWALS = 4  # of a lease, while it lasts
LOOKS = 30  # at a lease, until it has run out


class StoredJournal(Journal):
    """As Journal is, at a URL. Raises LineError also where the store does not look at conditions."""

    def __init__(
        self, url: str, prints: Mapping[str, Any], *, even: bool = False, if_changed: str = "refuse",
        attempt: int | None = None,
    ) -> None:  # fmt: skip
        self.path = shown(url)
        self._objects, self._place = objects_at(url)
        self._attempt, self.taken_over, self.changed, self.left = attempt, False, [], None
        self._about = About(uuid4().hex, dict(prints), even)
        self._holder = uuid4().hex
        self._before = ""  # who had it
        self._tag: str | None = None
        self._turn, self.resumed, self.entry = -1, False, Entry()
        self._state = b""
        self._coming: bytes | None = None  # the state that the next entry tells of
        self._alone, self._ended = RLock(), Event()
        self._put_at = monotonic()
        self._lost: TaktlineError | None = None
        self._process = os.getpid()
        self._has = False  # the object is this process's
        try:
            self._take(self._about, if_changed)
            self._check_store()
            if self.entry.position is None:  # what attempts have left that are over, nobody goes on with
                self._objects.clear(f"{self._place}.parts/", self.check)
        except BaseException as error:
            self.close()
            if isinstance(error, SinkError) and error is not self._lost:
                raise self._objects.refusal(error, f"the journal {self.path!r} cannot be used", self.path) from error
            raise
        self._renewer = Thread(target=self._renew, name="taktline's lease", daemon=True)
        self._renewer.start()

    # --- begin ---

    def _take(self, now: About, if_changed: str) -> None:
        while True:
            found = self._objects.get(self._place)
            self._tag = None
            try:
                if found is None:
                    self._make(now)
                    return
                said = self._told(found[0])
                self._tag = found[1]
                if said["holder"]:
                    if not self._may_take(said, self._tag):
                        continue
                    self.taken_over = True
                self._from(said, found[0])
                self._put(self.entry)
                self._meet(now, if_changed)
                return
            except Conflict:  # somebody else was quicker
                continue

    def _may_take(self, said: dict[str, Any], tag: str) -> bool:
        """Whether somebody else's journal may be taken: as a later attempt, or when nothing has come of the holder for the
        length of a lease. False where it is another one by now; raises InUse where the holder is at work, TakenOver where
        it is a later attempt."""
        before = said["attempt"]
        if self._attempt is not None and before is not None and before != self._attempt:
            if before > self._attempt:
                raise TakenOver(path=self.path, own=self._attempt, attempt=before)
            return True
        warnings.warn(
            f"the journal {self.path!r} is another process's: waiting {LEASE:.0f} seconds at most, to see if it is at work",
            RuntimeWarning,
            stacklevel=2,
        )
        until = monotonic() + LEASE
        while monotonic() < until:
            sleep(LEASE / LOOKS)
            if self._objects.tag(self._place) == tag:
                continue
            found = self._objects.get(self._place)
            if found is not None and self._told(found[0])["holder"] == said["holder"]:
                raise self._at_work()
            return False
        return True

    def _told(self, data: bytes) -> dict[str, Any]:
        """What an object says. Raises ResumeError where it is no journal."""
        said = said_in(data)
        if said is None or said.get("journal") != FORM:
            raise self._damaged("it cannot be read")
        return said

    def _from(self, said: dict[str, Any], data: bytes) -> None:
        self._turn, self.resumed, self._about = int(said["turn"]), True, About.told(said)
        self._state = data.partition(b"\n")[2]
        self.entry = Entry(Checkpoint.from_told(said["mark"]), said["position"], said["state"])

    def _check_store(self) -> None:
        """Raises LineError where the store puts an object whatever its condition is."""
        if not self._is_put_if(self._objects.nobodys):
            if not self._is_put_if(None):
                return
            if not self._is_put_if(None):  # it looks at that too: so the journal was gone before
                self._objects.take_away_if({self._place: str(self._tag)})
                raise self._not_own(None)
        raise LineError(
            f"the journal {self.path!r}: its store puts an object whatever its condition is (If-Match, If-None-Match), "
            "so two hosts could both go on with one run. Name a place in a store that keeps such conditions, or a path "
            "on storage that the machines share"
        )

    def _is_put_if(self, tag: str | None) -> bool:
        try:
            self._tag = self._objects.put(self._place, self._said_now(), tag)
        except Conflict:
            return False
        return True

    def _make(self, about: About, entry: Entry = FIRST_ENTRY, count: int = 0, state: bytes | None = None) -> None:
        self._about, self.resumed, self._state = about, False, b""
        mark = replace(entry.mark, delivered=count)
        if state is not None:
            mark = replace(mark, state=self.keep(state))
        (self._write if self._has else self._put)(replace(entry, mark=mark))

    # --- on the way ---

    @property
    def delivered(self) -> int:
        return self.entry.mark.delivered

    def count(self, results: int) -> None:
        """So many results are delivered: noted with the next entry, since a put for each result would be too many."""

    def write(self, entry: Entry) -> None:
        """Note an entry, which is safe when this returns. Raises TakenOver where somebody else has the journal, SinkError
        where it cannot be noted."""
        with self._alone:
            if self._lost is not None:
                raise self._lost
            self._write(entry)

    def _write(self, entry: Entry) -> None:
        while True:
            try:
                return self._put(entry)
            except Conflict:
                self._tag = self._own_tag()

    def _own_tag(self) -> str:
        """The tag of what this process has put there itself, of which no answer has come. Raises where it is not its own."""
        found = self._objects.get(self._place)
        said = said_in(found[0]) if found is not None else None
        if found is None or said is None or said.get("holder") != self._holder:
            raise self._not_own(said)
        return found[1]

    def _not_own(self, said: dict[str, Any] | None) -> TaktlineError:
        """What to raise where the object, which says this, is not this process's any more."""
        self._has = False
        if said is not None and said.get("journal") == FORM:
            self._lost = TakenOver(path=self.path, own=self._attempt, attempt=said["attempt"])
        else:
            self._lost = SinkError(
                f"the journal {self.path!r} was taken away or replaced by another program while the run was at work, so no "
                f"run could go on from what comes now. {self.entry.mark.delivered:,} results were noted before. Keep others "
                "away from it, and run from the start",
                path=self.path,
            )
        return self._lost

    def _put(self, entry: Entry) -> None:
        """Raises Conflict."""
        was = self._turn, self.entry, self._state
        self._turn, self.entry = self._turn + 1, entry
        self._state = self._state if self._coming is None else self._coming
        try:
            self._tag = self._objects.put(self._place, self._said_now(), self._tag)
        except BaseException:
            self._turn, self.entry, self._state = was
            raise
        self._put_at, self._has, self._coming = monotonic(), True, None

    def _said_now(self, holder: str | None = None) -> bytes:
        entry = self.entry
        said = {
            "journal": FORM, **asdict(self._about), "holder": self._holder if holder is None else holder,
            "attempt": self._attempt, "turn": self._turn, "mark": asdict(entry.mark), "position": entry.position,
            "state": entry.state,
        }  # fmt: skip
        return as_line(said) + self._state

    def check(self) -> None:
        with self._alone:
            if self._lost is not None:
                raise self._lost
            if self._objects.tag(self._place) != self._tag:
                self._tag = self._own_tag()

    def keep(self, state: bytes) -> list[Any]:
        """Keep this state, which is put with the next entry; what an entry says of it."""
        self._coming = state
        return [len(state), digest_of(state).decode()]

    def kept(self, where: list[Any]) -> bytes:
        if [len(self._state), digest_of(self._state).decode()] != where:
            raise self._damaged("the state of its serial steps cannot be read")
        return self._state

    def _renew(self) -> None:
        """While no marks come, as in a step that takes long, the lease goes on all the same."""
        while not self._ended.wait(LEASE / RENEWALS):
            with self._alone:
                if self._lost is None and not self._ended.is_set() and monotonic() >= self._put_at + LEASE / RENEWALS:
                    try:
                        self._write(self.entry)
                    except (TakenOver, SinkError):
                        continue  # it is known who has it, or the store is away: the next mark says so, or tries again

    # --- end ---

    def close(self) -> None:
        """Let go of it. May be called again."""
        if os.getpid() != self._process:
            return
        self._ended.set()
        renewer = getattr(self, "_renewer", None)
        if renewer is not None and renewer is not current_thread():
            renewer.join()
        has, self._has = self._has, False
        if has:
            try:
                self._objects.put(self._place, self._said_now(holder=""), self._tag)
            except (Conflict, SinkError):
                pass  # somebody else has it, or the store is away: then the lease runs out by itself

    def _at_work(self) -> InUse:
        return InUse(f"another run is at work with the journal {self.path!r}", path=self.path)
