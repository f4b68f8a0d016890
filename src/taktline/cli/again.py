"""Dead letters run again: what `taktline retry` does to their file."""

from __future__ import annotations

import os
from typing import Any

from taktline._durable import dead_letters
from taktline._files import is_there, take_away_at
from taktline._segment.batch import READING_STEP
from taktline.errors import LineError


class Again:
    """The letters of a file, or of an object, as records of a run, whose own dead letters go into `pending` beside it until
    it is done.

    The file is replaced only at the end, after the results are safe: whenever this is killed, a letter is in the file,
    or its result is in the output, or both, never neither. Letters of lines that could not be read stay. Raises
    SourceError where the file holds something else, LineError where no letter can be run again.
    """

    def __init__(self, path: str, journal: str | None) -> None:
        if "://" not in path:
            path = os.path.realpath(path)  # a step may change the folder
        self._path = path
        self._journal = os.path.abspath(journal) if journal is not None and "://" not in journal else journal
        rows = self._before = dead_letters.rows_of(path)
        letters = [dead_letters.letter_from(path, row) for row in rows]
        unread = [letter.step == READING_STEP for letter in letters]
        self.unread = sum(unread)  # lines that were no records, which no step can be given
        lost = [
            bad or isinstance(letter.record, dead_letters.Unkept) for letter, bad in zip(letters, unread, strict=True)
        ]
        if letters and self.unread == len(letters):
            raise LineError(
                f"all letters in {path!r} are of lines that could not be read, so there is no record to run again; mend "
                "the lines where they were read from, and run that again"
            )
        self.records: list[Any] = [letter.record for letter, gone in zip(letters, lost, strict=True) if not gone]
        self._rows = [row for row, gone in zip(rows, lost, strict=True) if not gone]
        self._lost = [row for row, gone in zip(rows, lost, strict=True) if gone]
        folder, name = os.path.split(path)
        self.pending = os.path.join(folder, f".{name}.again.jsonl")
        self.goes_on = journal is not None and is_there(journal)

    def __enter__(self) -> None:
        if not self.goes_on:
            self._forget(self.pending)

    def __exit__(self, *_: object) -> None:
        if self._journal is None:
            self._forget(self.pending)

    def done(self) -> tuple[int, int]:
        """The results are safe: leave in the file what still fails; how many went well, and how many do not."""
        failed = dead_letters.rows_of(self.pending) if is_there(self.pending) else []
        if self._journal is not None:  # first: a journal that is done must not let a next run replace these results
            self._forget(self._journal)
        before = [self._rows[row["index"]] for row in failed]
        same = ("index", "source", "key")
        still = [row | {name: was.get(name) for name in same} for row, was in zip(failed, before, strict=True)]
        dead_letters.replace_rows(self._path, [*self._lost, *still], self._before)
        self._forget(self.pending)
        return len(self._rows) - len(still), len(self._lost) + len(still)

    def _forget(self, path: str) -> None:
        if is_there(path):
            take_away_at(path)
