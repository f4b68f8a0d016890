"""A folder of parts at a URL. No store gives many objects their names at one moment: so the parts are kept elsewhere until
all are whole, and are put in their places then, and `_SUCCESS` beside them when all are there.

With a journal in the same store they wait beside that, and any host goes on with them:

    …/nightly.journal                                            the journal
    …/nightly.journal.parts/<run>/<attempt>/part-00000.jsonl     parts that are whole,
    …/nightly.journal.parts/<run>/<attempt>/state-17             how far the open one is, at the mark of that number,
    …/nightly.journal.parts/<run>/<part>/<attempt>-00000         and what is in it so far, as of any output

The store itself copies them to their places. Without a journal they wait in a folder among the temporary ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection
from typing import Any
from uuid import uuid4

from taktline._io import remote
from taktline._io.building import PART_NAME, Building
from taktline._io.output import Output
from taktline._io.pieces import nobody_needs
from taktline._io.replacing import ALL_THERE, Put, Replacement, is_ours
from taktline._objects import Missing, Objects
from taktline._signals import pass_on
from taktline._stores import knows_conditions, objects_at, objects_of
from taktline._urls import put, shown, store_of, take_away, told
from taktline.errors import LineError, OutputLost, SinkError


class StoredParts:
    """Where the parts of a folder inside are kept: they are of a journal's run."""

    def __init__(self, building: StoredBuilding, inside: str) -> None:
        self._building = building
        self._inside = inside

    def output(self, name: str, level: int | None) -> Output:
        return self._building.output(self._inside, name, level)

    def ended(self, name: str, output: Output) -> None:
        self._building.is_whole(f"{self._inside}{name}", output)

    def only_up_to(self, number: int) -> None:
        """What came behind is of no part that the journal tells of."""


class StoredBuilding:
    """As `Building` is, at a URL."""

    adds_to_parts = is_adding = False

    def __init__(self, url: str, mode: str | None) -> None:
        remote.check_target(url)
        self.url = f"{url.rstrip('/')}/"
        self.path = shown(self.url)
        self._mode = mode
        if mode == "append":
            raise LineError(
                f'mode="append" adds parts to a folder on this machine; at {self.path!r} files are added by roll=, each with '
                "a name of its own"
            )
        self._here: Building | None = None  # without a journal
        self._journal = ""
        self._kept: Objects | None = None  # the store, and in it
        self._at = self._run = self._folder = ""  # the journal, its run, and what is kept of it
        self._own = ""  # this attempt
        self._attempts: list[str] = []  # and those before
        self._whole: list[str] = []  # parts, as they are kept
        self._ended: list[tuple[int, Output]] = []  # and after which mark that was
        self._marks = 0
        self._made: int | None = None  # parts that were put in their places
        self._process = 0

    # --- begin ---

    def open(self) -> None:
        """For a run that nobody goes on with. Raises LineError, SinkError."""
        self._check()
        known = hashlib.sha256(self.url.encode()).hexdigest()[:12]  # two shops may have a folder of one name each
        name = f"{os.path.basename(self.path.rstrip('/'))}.{known}"
        self._here = Building(os.path.join(tempfile.gettempdir(), name), None)
        self._here.open()
        self._run = self._own = uuid4().hex[:12]

    def begin(self, run: str) -> None:
        """For a run with a journal, from the start."""
        self._check()
        self._start(run)

    def take_up(self, run: str, position: dict[str, Any]) -> None:
        self._start(run)
        self._attempts = [*position["attempts"]]
        self._marks = position["saved"]

    def _start(self, run: str) -> None:
        self._own, self._process = uuid4().hex[:12], os.getpid()
        self._run, self._folder = run, f"{self._at}.parts/{run}/"
        self._attempts, self._whole, self._ended, self._marks = [], [], [], 0
        assert self._kept is not None
        self._kept.put(self._token, self._said())

    def beside(self, journal: str) -> None:
        """Raises LineError where the parts cannot be kept beside this journal."""
        store, _ = store_of(self.url)
        if not remote.is_url(journal):
            raise LineError(
                f"the parts for {self.path!r} are kept beside the journal until all are whole, and {journal!r} is on this "
                "machine: name a journal in the store of the folder, or write to a folder here"
            )
        kept, self._at = objects_at(journal)
        if not knows_conditions(store) or not kept.is_of(objects_of(store, self.url)):
            raise LineError(
                f"the parts for {self.path!r} are kept beside the journal, and the store copies them when all are whole: "
                f"{shown(journal)!r} is in another one. Name a journal in that of the folder"
            )
        self._journal, self._kept = journal, kept

    def _check(self) -> None:
        """Raises LineError where the folder must not be written to."""
        there = self._there()
        if there and self._mode is None:
            raise LineError(
                f'the folder {self.path!r} is there already: mode="replace" puts the new parts in its place, and roll= adds '
                "files to those that are there"
            )
        if strange := next((name for name in there if not is_ours(name)), None):
            raise LineError(
                f'mode="replace" would take away {strange!r} in {self.path!r}, which no run has written; name another '
                "folder, or empty it"
            )

    def _there(self) -> list[str]:
        """What is in the folder, by its path from there. Raises SinkError."""
        store, path = store_of(self.url)
        try:
            store.invalidate_cache()
            found = store.find(path)
        except FileNotFoundError as error:
            pass_on(error)
            return []
        except Exception as error:  # each store has errors of its own
            raise SinkError(f"{self.path!r} cannot be looked up: {told(error)}", path=self.path) from error
        above = f"{path.rstrip('/')}/"
        return sorted(name for each in found if (name := each.removeprefix(above)) and name != path.rstrip("/"))

    # --- parts ---

    def parts(self, inside: str) -> Any:
        """Where the parts of a folder inside are kept; "" is the folder itself."""
        if self._here is not None:
            return self._here.parts(inside)
        return StoredParts(self, f"{inside}/" if inside else "")

    def make(self, inside: str) -> None:
        if self._here is not None:
            self._here.make(inside)

    def output(self, inside: str, name: str, level: int | None) -> Output:
        beside = f"{self._journal}.parts/{self._run}/"
        made = Output(f"{beside}{self._own}/{inside}{name}", level)
        made.beside(self._journal, within=f"{self._run}/", attempt=self._own)
        return made

    def is_whole(self, name: str, output: Output) -> None:
        """A part is. What was kept of it while it was open stays until the journal tells of that."""
        self._whole.append(f"{self._own}/{name}")
        self._ended.append((self._marks, output))

    def note(self, number: int, data: bytes) -> dict[str, Any]:
        """Keep what the journal's next entry will tell of; the one before is still needed until then."""
        assert self._kept is not None
        self._marks = number
        whole = json.dumps(self._whole).encode()
        self._kept.put(f"{self._folder}{self._own}/state-{number}", whole + b"\n" + data)
        self._kept.take_away([f"{self._folder}{self._own}/state-{number - 2}"] if number > 2 else [])
        known = [output for mark, output in self._ended if mark <= number - 2]
        self._ended = [(mark, output) for mark, output in self._ended if mark > number - 2]
        for output in known:
            output.noted()
        attempts = list(dict.fromkeys([*self._attempts, self._own]))
        return {"attempts": attempts, "name": f"{self._own}/state-{number}"}

    def noted_at(self, position: dict[str, Any]) -> bytes:
        """Raises OutputLost where it is gone, or a part that is whole."""
        assert self._kept is not None
        found = self._kept.get(f"{self._folder}{position['name']}")
        if found is None:
            raise self._lost(position["name"])
        whole, _, data = found[0].partition(b"\n")
        self._whole = json.loads(whole)
        there = self._kept.sizes(self._folder)
        if gone := next((each for each in self._whole if f"{self._folder}{each}" not in there), None):
            raise self._lost(gone)
        return data

    def keep_only(self, folders: Collection[str]) -> None:
        """What came behind the mark is no part that it tells of."""

    def _lost(self, name: str) -> OutputLost:
        return OutputLost(
            path=self.path, why=f"what was written for {self.path!r} is gone: the object {self._folder + name!r}"
        )

    # --- end ---

    def publish(self) -> None:
        """All is written: put it in its place. Raises SinkError."""
        if self._here is None:
            self._copy()
            return
        store, place = store_of(self.url)
        try:
            if knows_conditions(store):
                self._put_files(objects_of(store, self.url), self._here.folder, f"{place.rstrip('/')}/")
            else:
                self._upload(self._here.folder)
        except SinkError:
            self._here.let_go()  # the parts are whole: they are kept, as the error says
            raise
        self._here.abandon()

    def _copy(self) -> None:
        """From where they are kept."""
        kept = self._kept
        assert kept is not None
        sizes = kept.sizes(self._folder)

        def copied(each: str) -> Put:
            return lambda path, tag: kept.copy(each, path, sizes.get(each, 0))

        parts = {each.partition("/")[2]: copied(f"{self._folder}{each}") for each in self._whole}
        place = f"{store_of(self.url)[1].rstrip('/')}/"
        try:
            Replacement(
                kept, place, self.path, parts, self._marked, replaces=self._mode == "replace",
                is_own=lambda: self.is_published(self._run, {}), check=self._still, emptied=copied(self._token),
            ).run()  # fmt: skip
            self._made = len(parts)
        except Missing as error:
            raise SinkError(
                f"what was written for {self.path!r} was taken away while it was put in its place: {error}",
                path=self.path,
            ) from error

    def _marked(self, path: str, tag: str | None) -> str:
        assert self._kept is not None
        return self._kept.join(path, [(self._kept, self._token)], b"", tag)

    def _still(self) -> None:
        """Raises Missing where this attempt is over."""
        assert self._kept is not None
        if self._kept.tag(self._token) is None:
            raise Missing(self._token)

    def _put_files(self, store: Objects, folder: str, place: str) -> None:
        """From the folder among the temporary files."""

        def sent(file: str) -> Put:
            return lambda path, tag: store.put_file(file, path, tag)

        parts = {name: sent(os.path.join(folder, name)) for name in _files_in(folder)}
        try:
            Replacement(
                store, place, self.path, parts, lambda path, tag: store.put(path, self._said(), tag),
                replaces=self._mode == "replace", is_own=lambda: False, check=lambda: None,
            ).run()  # fmt: skip
        except SinkError as error:
            raise SinkError(
                f"the results could not be put at {self.path!r}: {error}. They are complete, and kept in {folder!r}.",
                path=self.path,
            ) from error

    @property
    def _token(self) -> str:
        """An object that becomes `_SUCCESS`. It goes with all others of its run when that is done: where this attempt was
        frozen and a later one has done all, there is nothing left to copy, and it changes nothing more."""
        return f"{self._folder}{self._own}/{ALL_THERE}"

    def _said(self) -> bytes:
        """What is in it: as no other has the same, its tag is like no other."""
        return json.dumps({"run": self._run, "attempt": self._own}).encode() + b"\n"

    def _upload(self, folder: str) -> None:
        old = self._there()
        names = _files_in(folder)
        if ALL_THERE in old:
            take_away(f"{self.url}{ALL_THERE}")
        for name in names:
            remote.upload(os.path.join(folder, name), f"{self.url}{name}")
        for name in old:
            if name not in (*names, ALL_THERE):
                take_away(f"{self.url}{name}")
        put(f"{self.url}{ALL_THERE}", self._said())

    def abandon(self) -> None:
        """Leave nothing behind. May be called again."""
        if self._here is not None:
            self._here.abandon()

    def let_go(self) -> None:
        """Leave it for who goes on. May be called again.

        Where a later attempt has begun without what this one has written, or is done, nobody would take that away."""
        own, self._own = self._own, ""
        if self._kept is None or not own or os.getpid() != self._process:
            return
        try:
            if nobody_needs(own, self._kept, self._at):
                there = self._kept.sizes(self._folder)
                self._kept.take_away(
                    [each for each in there if f"/{own}/" in each or each.rpartition("/")[2].startswith(f"{own}-")]
                )
        except SinkError:  # the store is away: it stays
            return

    def is_published(self, run: str, position: dict[str, Any]) -> bool:
        """Whether the folder is this run's, as a whole. What is kept stays until the journal says that all is done."""
        assert self._kept is not None
        found = self._kept.get(f"{store_of(self.url)[1].rstrip('/')}/{ALL_THERE}")
        return found is not None and run.encode() in found[0]

    def made_at(self, position: dict[str, Any]) -> dict[str, Any]:
        """What is kept of the folder that is whole, to see later whether it still is."""
        return {"parts": self._made if self._made is not None else self._parts_there()}

    def _parts_there(self) -> int:
        assert self._kept is not None
        there = self._kept.sizes(f"{store_of(self.url)[1].rstrip('/')}/")
        return sum(PART_NAME.match(each.rpartition("/")[2]) is not None for each in there)

    def is_gone(self, run: str, position: dict[str, Any]) -> tuple[str, bool]:
        """Why what was published is not there any more, empty where it is; no run adds to what was there before."""
        self._folder = f"{self._at}.parts/{run}/"
        if not remote.may_be_there(f"{self.url}{ALL_THERE}"):
            return f"{self.path!r} was written whole, and is not there any more ({ALL_THERE} is missing)", False
        made = position.get("made")
        if made is None or not self.is_published(run, position):  # another run has put its own there
            return "", False
        gone = made["parts"] - self._parts_there()
        why = f"{gone:,} of {made['parts']:,} parts of {self.path!r}, which was written whole, are not there any more"
        return why if gone > 0 else "", False

    def forget_owner(self) -> None:
        """The journal says that all is done."""
        self._own = ""
        if self._kept is not None:
            self._kept.clear(self._folder)

    def forget(self, run: str) -> None:
        """Another run begins in the place of this one."""
        if self._kept is not None:
            self._kept.clear(f"{self._at}.parts/{run}/")


def _files_in(folder: str) -> list[str]:
    """All files there, by their paths from there, sorted."""
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)
