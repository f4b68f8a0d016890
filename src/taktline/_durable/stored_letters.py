"""Dead letters in a store of objects: one object of JSON lines, put anew as a whole at each mark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from taktline._durable.dead_letters import DeadLetters, is_letter, key_of, not_letters, text_of
from taktline._objects import Conflict
from taktline._stores import objects_at
from taktline._urls import shown
from taktline.errors import SinkError

MOST = 64 << 20  # bytes: each mark puts all of them


class StoredLetters(DeadLetters):
    """`taken_over`: what an earlier attempt may still put there does not count. `alone`: without a journal, so that what is
    not put there would not come again. Raises LineError where the object cannot be had, or holds something else."""

    def __init__(self, url: str, run: str, *, taken_over: bool, alone: bool) -> None:
        self._taken_over, self._alone = taken_over, alone
        self.path, self.run, self._known = shown(url), run, None
        self._process = os.getpid()
        self._store, self._place = objects_at(url)
        try:
            found = self._store.get(self._place)
        except SinkError as error:
            raise self._store.refusal(error, f"the dead letters {self.path!r} cannot be written", self.path) from error
        data = found[0] if found is not None else b""
        self._tag: str | None = found[1] if found is not None else None
        self._lines = data.splitlines(keepends=True)
        self._size = len(data)
        if self._lines and not (is_letter(self._lines[0]) and is_letter(self._lines[-1])):
            raise not_letters(self.path, "its lines are no dead letters")
        self._changed = False

    def _keys(self) -> set[str]:
        return {key for line in self._lines if (key := key_of(line))}

    def _add(self, letters: Sequence[dict[str, Any]]) -> None:
        lines = [text_of(letter).encode() + b"\n" for letter in letters]
        size = self._size + sum(map(len, lines))
        if size > MOST:
            raise SinkError(
                f"the dead letters {self.path!r} would have more than {MOST >> 20} MB, and a store takes them only as a "
                "whole, every few seconds: mend what fails, or name a path on a disk",
                path=self.path,
            )
        self._lines += lines
        self._size, self._changed = size, self._changed or bool(lines)

    def cut(self, index: int) -> None:
        self._keep(lambda letter: letter["run"] != self.run or letter["index"] < index)

    def forget(self, run: str) -> None:
        self._keep(lambda letter: letter["run"] != run)

    def _keep(self, stays: Callable[[dict[str, Any]], bool]) -> None:
        kept = [line for line in self._lines if stays(json.loads(line))]
        self._changed = self._changed or len(kept) < len(self._lines)
        self._lines, self._size = kept, sum(map(len, kept))

    def sync(self) -> None:
        if not self._changed:
            return
        data = b"".join(self._lines)
        while True:
            try:
                self._tag = self._store.put(self._place, data, self._tag)
                break
            except Conflict as error:
                found = self._store.get(self._place)
                own = found is not None and found[0] == data  # this very put, of which no answer came at first
                if not own and not self._taken_over:
                    raise SinkError(
                        f"the dead letters {self.path!r} were replaced while the run was at work, by another run or program: "
                        "give each run its own",
                        path=self.path,
                    ) from error
                self._tag = found[1] if found is not None else None
        self._changed = False

    def close(self) -> None:
        """Without a journal, those that came since the last mark are put there too."""
        if self._alone and os.getpid() == self._process:
            self.sync()
        self._changed = False
