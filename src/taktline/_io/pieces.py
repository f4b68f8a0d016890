"""What goes to a URL, kept in numbered objects beside a journal that is in a store, until it is put together at the end.

    …/nightly.journal                        the journal
    …/nightly.journal.parts/<run>/<attempt>-00000    pieces of the output, each 8 MB or more,
    …/nightly.journal.parts/<run>/<attempt>-rest-17  and what comes behind them, at the mark of that number

Any host goes on from there. Each attempt at a run has names of its own, so that an earlier one, which may not have noticed
yet that it is over, writes into nothing that a later one goes on with. No upload stays open meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from taktline._objects import ANY_TAG, Conflict, Missing, Objects
from taktline._stores import knows_conditions, objects_at, objects_of
from taktline._urls import shown, store_of, told
from taktline.errors import OutputLost, SinkError

DONE = b'"state": "done"'  # in a journal
PIECE = 8 << 20  # bytes: stores put nothing together that is shorter than 5 MB, but for the last one,
TWICE = 1000  # and no more than 10,000: after so many a piece has twice as many bytes


class Pieces:
    """The bytes of one output. `target`: its URL; `journal`: that of the journal. `within`: a folder for those of this output
    among what is beside the journal; `attempt`: how the names of this attempt's objects begin, where others share that."""

    def __init__(self, target: str, journal: str, *, within: str = "", attempt: str = "") -> None:
        self._target = target
        self._name = shown(target)
        self._store, self._journal = objects_at(journal)
        self._above = f"{self._journal}.parts/{within}"
        self._attempt = attempt
        self._folder = ""
        self._own = ""  # how names of this attempt's objects begin
        self._by: list[list[Any]] = []  # how those of each attempt begin, and how many there are
        self._rest = bytearray()  # behind them
        self.length = 0  # bytes, in all
        self._saves = 0
        self._kept: tuple[str, int] = ("", 0)  # the object of the rest, and how long it is
        self._is_saved = False  # all of this
        self._has_objects = False
        self._tag: str | None = ANY_TAG  # of what is at the target
        self._process = 0

    def begin(self) -> None:
        """Raises SinkError, LineError."""
        self._start(uuid4().hex[:12])

    def resume(self, position: dict[str, Any]) -> None:
        """Go on behind what `save` told. Raises OutputLost where that is gone."""
        self._start(position["folder"])
        self._has_objects = True
        self._by = [list(each) for each in position["by"]]
        name, length = position["rest"]
        there = self._store.sizes(self._folder)
        pieces = list(self._pieces())
        gone = next((each for each in pieces if each not in there), "")
        rest = self._store.get(self._folder + name) if name else (b"", "")
        if gone or rest is None or len(rest[0]) != length:
            lost = gone or self._folder + name
            raise OutputLost(path=self._name, why=f"what was written for {self._name!r} is gone: the object {lost!r}")
        self._rest += rest[0]
        self.length = sum(there[each] for each in pieces) + length

    def _start(self, folder: str) -> None:
        self._folder, self._own = f"{self._above}{folder}/", self._attempt or uuid4().hex[:12]
        self._by, self._rest, self._saves, self._kept = [], bytearray(), 0, ("", 0)
        self.length, self._is_saved, self._has_objects = 0, False, False
        self._process = os.getpid()
        # Of what is there before this attempt writes: what an attempt puts there that has taken the journal over is another.
        self._tag = self._seen()

    def _seen(self) -> str | None:
        store, path = store_of(self._target)
        if not knows_conditions(store):
            return ANY_TAG
        try:
            return objects_of(store, self._target).tag(path)
        except SinkError:  # who may write need not be allowed to look
            return ANY_TAG

    def write(self, data: bytes | memoryview) -> None:
        """Raises SinkError."""
        self._rest += data
        self.length += len(data)
        self._is_saved = self._is_saved and not len(data)
        while len(self._rest) >= (size := PIECE << (self._count // TWICE)):
            if not self._by or self._by[-1][0] != self._own:
                self._by.append([self._own, 0])
            number = self._count
            self._store.put(self._path(self._own, number), bytes(self._rest[:size]))
            self._has_objects = True
            self._by[-1][1] += 1
            del self._rest[:size]

    def flush(self) -> None:
        """As files do."""

    @property
    def _count(self) -> int:
        return sum(count for _, count in self._by)

    def _pieces(self) -> Iterator[str]:
        number = 0
        for own, count in self._by:
            for _ in range(count):
                yield self._path(own, number)
                number += 1

    def _path(self, own: str, number: int) -> str:
        return f"{self._folder}{own}-{number:05}"

    def save(self) -> dict[str, Any]:
        """How far it is, all of that safe. What the position before told of stays until the next one. Raises SinkError."""
        if not self._is_saved:
            self._save()
        folder = self._folder.removeprefix(self._above).rstrip("/")
        return {"folder": folder, "by": [list(each) for each in self._by], "rest": list(self._kept)}

    def _save(self) -> None:
        self._saves += 1
        self._kept = (f"{self._own}-rest-{self._saves}" if self._rest else "", len(self._rest))
        if self._rest:
            self._store.put(self._folder + self._kept[0], bytes(self._rest))
            self._has_objects = True
        if self._saves > 2:
            self._store.take_away([f"{self._folder}{self._own}-rest-{self._saves - 2}"])
        self._is_saved = True

    def so_far(self) -> bytes:
        """All that was written. Raises SinkError, OutputLost."""
        found = [self._store.get(each) for each in self._pieces()]
        if None in found:
            raise OutputLost(path=self._name, why=f"what was written for {self._name!r} is gone")
        return b"".join([*(each[0] for each in found if each is not None), bytes(self._rest)])

    def publish(self) -> None:
        """All is written: put it together at the target. Raises SinkError."""
        store, path = store_of(self._target)
        if not knows_conditions(store):
            self._stream(store, path)
            return
        target = objects_of(store, self._target)
        try:
            if self._count:
                target.join(path, ((self._store, each) for each in self._pieces()), bytes(self._rest), self._tag)
            else:
                target.put(path, bytes(self._rest), self._tag)
        except (Conflict, Missing) as error:
            raise SinkError(
                f"{self._name!r} was replaced while the run was at work, so its results were not put there. They are "
                "complete: the same run, started again, puts them in the place of what is there now",
                path=self._name,
            ) from error

    def _stream(self, store: Any, path: str) -> None:
        """Into a store that knows no conditions."""
        try:
            with store.open(path, "wb") as file:
                for each in self._pieces():
                    found = self._store.get(each)
                    if found is None:
                        raise FileNotFoundError(each)
                    file.write(found[0])
                file.write(bytes(self._rest))
        except Exception as error:  # each store has errors of its own
            raise SinkError(
                f"the results could not be put at {self._name!r}: {told(error)}. They are complete: the same run, started "
                "again, puts them there",
                path=self._name,
            ) from error

    def suspend(self) -> None:
        """Leave what is there for who goes on. May be called again.

        Where a later attempt has begun without what this one has written, or is done, nobody would take that away."""
        own, self._own = self._own, ""
        if not own or os.getpid() != self._process:
            return
        try:
            if nobody_needs(own, self._store, self._journal):
                self._store.clear(f"{self._folder}{own}-")
        except SinkError:  # the store is away: it stays
            return

    def clear(self, position: dict[str, Any] | None = None) -> None:
        """The journal says that all is done, or given up at this position: nobody goes on with it. May be called again."""
        self._own = ""
        folder = f"{self._above}{position['folder']}/" if position is not None else self._folder
        if folder and (position is not None or self._has_objects):
            self._store.clear(folder)


def nobody_needs(own: str, store: Objects, journal: str) -> bool:
    """Whether the journal tells nothing of what the attempt of this name has written, or says that all is done. Raises
    SinkError."""
    found = store.get(journal)
    return found is None or own.encode() not in found[0] or DONE in found[0]
