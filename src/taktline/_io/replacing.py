"""Many objects that together take the place of what is in a folder of a store.

A store changes one object at a time. So each step says what it found before, and the store refuses it where that has changed:
of two runs that write to one folder at the same time one begins again, and what is there at last is one's own as a whole. An
attempt that was frozen amid all this, while another one did the rest, is refused too: what it would take away is another
object by then, and what it would put has lost its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import random
from time import monotonic, sleep

from taktline._io.building import PART_NAME
from taktline._objects import Conflict, Objects
from taktline.errors import SinkError

ALL_THERE = "_SUCCESS"  # as Hadoop and Spark call it: what reads a folder passes over it
TRIES = 8

Put = Callable[[str, str | None], str]
"""Puts an object at a path, where the tag is still this one or the source still there; the new tag."""


class Replacement:
    """`folder`: its path in the store, with "/" at the end; `name`: for people. `parts`: by their paths from there.
    `mark`: puts the object at a path that says that all is there. `emptied`: puts something there that is like no other
    object, in the place of one that is to go. `replaces`: whatever runs have written there; else only what is of this very
    run, as `is_own` says of what `mark` has put. `check`: raises where this attempt is over."""

    def __init__(
        self, store: Objects, folder: str, name: str, parts: Mapping[str, Put], mark: Put,
        *, replaces: bool, is_own: Callable[[], bool], check: Callable[[], None], emptied: Put | None = None,
    ) -> None:  # fmt: skip
        self._store, self._folder, self._name = store, folder, name
        self._parts = {f"{folder}{each}": put for each, put in parts.items()}
        self._mark, self._emptied, self._check = mark, emptied, check
        self._replaces, self._is_own = replaces, is_own

    def run(self) -> None:
        """Raises SinkError, and what the calls raise that it was given."""
        for number in range(TRIES):
            began = monotonic()
            try:
                return self._once()
            except Conflict:  # both would meet again, were they not to wait for times of their own
                sleep(random() * (monotonic() - began) * 2**number)
        raise SinkError(
            f"others write to {self._name!r} while this run puts its results there: give each run a folder of its own",
            path=self._name,
        )

    def _once(self) -> None:
        """Raises Conflict."""
        seen = {path: tag for path, tag in self._store.tags(self._folder).items() if not path.endswith("/")}
        whole = f"{self._folder}{ALL_THERE}"
        self._look(seen, whole)
        self._check()
        if whole in seen:
            self._store.take_away_if({whole: seen.pop(whole)})
        put = {path: how(path, seen.get(path)) for path, how in self._parts.items()}
        self._take_away({path: tag for path, tag in seen.items() if path not in put})
        if {path: tag for path, tag in self._store.tags(self._folder).items() if not path.endswith("/")} != put:
            raise Conflict(self._folder)
        self._mark(whole, None)

    def _look(self, seen: Mapping[str, str], whole: str) -> None:
        """Raises SinkError where something is there by now that must stay."""
        for path in seen:
            name = path.removeprefix(self._folder)
            if not is_ours(name):
                raise SinkError(
                    f"{name!r} is in {self._name!r} by now, which no run has written: nothing was changed there. Move "
                    "it away, and start the same run again",
                    path=self._name,
                )
            if not self._replaces and path not in self._parts and not (path == whole and self._is_own()):
                raise SinkError(
                    f"another run has written {name!r} into {self._name!r} while this one was at work, and nothing was "
                    'changed there: name another folder, or say mode="replace"',
                    path=self._name,
                )

    def _take_away(self, old: Mapping[str, str]) -> None:
        for path, tag in old.items():
            self._store.take_away_if({path: tag if self._emptied is None else self._emptied(path, tag)})


def is_ours(name: str) -> bool:
    """Whether a run has written an object of this path in its folder."""
    *folders, last = name.split("/")
    return all("=" in each for each in folders) and (last == ALL_THERE or PART_NAME.match(last) is not None)
