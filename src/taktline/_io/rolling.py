"""A folder to which files are added while a run goes on: each is there once it is whole, and what it holds is safe then.

For sources that do not end. A file ends where it has enough results, or some seconds after the one before: that is the run's
mark, and behind it messages are acknowledged. Names begin with the time of the process's start and end with a number, so that
several processes may write to one folder, and all are read in order of time.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import uuid4

from taktline._io import place, remote
from taktline._io.output import sweep
from taktline._signals import pass_on
from taktline._urls import store_of, take_away, told, url_of
from taktline.abc import Resumable, Sink
from taktline.errors import LineError, SinkError

FILE_ROWS = 10_000  # of a file, where nobody says how many
LEFT = re.compile(r"\.part-\d{8}T\d{12}Z-[0-9a-f]{8}-\d{5,}\..*taktline-[0-9a-f]{8}\.part")  # of killed runs


class Rolling(Resumable):
    """`make`: a sink of one file, at a path; `suffix` of its name; `rows`, `seconds`: where it ends."""

    visible = True

    def __init__(self, folder: str, make: Callable[[str], Sink], suffix: str, rows: int, seconds: float) -> None:
        self._at_url = remote.is_url(folder)
        self._folder = (folder if self._at_url else place.absolute(folder)).rstrip("/") + "/"
        self._make = make
        self._suffix = suffix
        self._rows, self.ahead = rows, 2 * rows
        self.every = self._seconds = seconds
        self._stem, self._number = "", 0
        self._part: Sink | None = None
        self._in_part = 0
        self._due = 0.0
        self._unsaved = False  # a file is whole, and no mark tells of it
        above = os.path.dirname(self._folder.rstrip("/"))
        if not self._at_url and not os.path.isdir(above):
            raise LineError(f"there is no folder {above!r} to make {folder!r} in; make it first")
        if not self._at_url and os.path.lexists(self._folder.rstrip("/")) and not os.path.isdir(self._folder):
            raise LineError(f"{folder!r} is there and is no folder; name another one for the files")
        one = make(f"{self._folder if self._at_url else above + '/'}part{suffix}")
        self.tables = one.tables

    def describe(self) -> str:
        return remote.shown(self._folder)

    def writes(self) -> list[str]:
        return [self._folder if self._at_url else self._folder.rstrip("/")]

    def adds(self) -> list[str]:
        return [f"{self._folder}part-99999{self._suffix}"]

    # --- on the way ---

    def open(self) -> None:
        self._stem = f"part-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{uuid4().hex[:8]}"
        self._number, self._part, self._unsaved = 0, None, False
        try:
            if not self._at_url:
                os.makedirs(self._folder, exist_ok=True)
            sweep(tempfile.gettempdir() if self._at_url else self._folder, LEFT)
        except OSError as error:
            raise SinkError(
                f"{self.describe()!r} cannot be written: {error.strerror or error}", path=self.describe()
            ) from error

    def write(self, results: Sequence[Any]) -> None:
        if results:
            self._next().write(results)
            self._passed(len(results))

    def write_table(self, table: Any) -> None:
        if table.num_rows:
            self._next().write_table(table)
            self._passed(table.num_rows)

    def _next(self) -> Sink:
        """The open file, or a new one."""
        if self._part is None:
            part = self._make(f"{self._folder}{self._stem}-{self._number:05}{self._suffix}")
            part.open()
            self._part, self._in_part, self._due = part, 0, monotonic() + self._seconds
            self._number += 1
        return self._part

    def _passed(self, count: int) -> None:
        self._in_part += count
        if self._in_part >= self._rows or monotonic() >= self._due:
            self._end()

    def due(self) -> bool:
        return self._unsaved

    def _end(self) -> None:
        """The open file is whole."""
        part, self._part = self._part, None
        if part is not None:
            part.commit()
            self._unsaved = True

    def commit(self) -> None:
        self._end()

    def abort(self) -> None:
        """The files that are there stay."""
        part, self._part = self._part, None
        if part is not None:
            part.abort()

    # --- from mark to mark ---

    def fingerprint(self) -> Any:
        return [self.describe(), self._suffix, self._rows]

    def begin(self, run: str) -> None:
        self.open()

    def save(self, mark: str) -> Any:
        self._end()
        self._unsaved = False
        return {"stem": self._stem, "files": self._number}

    def resume(self, run: str, position: Any) -> None:
        """What came behind the position is taken away: its records come again."""
        behind = re.compile(re.escape(position["stem"]) + r"-(\d{5,})\..*")
        for name in self._names():
            if (found := behind.fullmatch(name)) and int(found[1]) >= position["files"]:
                self._take_away(name)
        self.open()

    def _names(self) -> list[str]:
        try:
            if not self._at_url:
                return os.listdir(self._folder)
            store, path = store_of(self._folder)
            store.invalidate_cache()
            return [each.rpartition("/")[2] for each in store.ls(path, detail=False)]
        except FileNotFoundError as error:
            pass_on(error)
            return []
        except Exception as error:  # each store has errors of its own
            raise SinkError(f"{self.describe()!r} cannot be looked up: {told(error)}", path=self.describe()) from error

    def _take_away(self, name: str) -> None:
        if not self._at_url:
            os.unlink(self._folder + name)
            return
        store, path = store_of(self._folder + name)
        take_away(url_of(store, path, self._folder))

    def suspend(self) -> None:
        self.abort()

    def finished(self, run: str, position: Any) -> bool:
        return False  # all was made visible by `save`
