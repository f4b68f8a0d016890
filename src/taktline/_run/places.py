"""Where records stand in what is read, for who is told that one of them has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from taktline.abc import Part, Splitter

AT_ONCE = 4096  # records that are passed over at once


class Places:
    """Finds the places of records by their index, in a pass over the source that goes forward: to pass over a gigabyte of
    lines takes about a second.

    `begin` begins such a pass; it gives None where there is none.
    """

    def __init__(self, begin: Callable[[], Splitter | None]) -> None:
        self._begin = begin
        self._parts: Iterator[tuple[int, Part | str]] | None = None
        self._first, self._here = 0, ""  # type: int, Part | str

    def of(self, index: int) -> str:
        """Where the record of this index stands; empty where that cannot be told. Raises what reading raises."""
        if self._parts is None or index < self._first:
            self._parts, self._first, self._here = self._each(), 0, ""
            self._first, self._here = next(self._parts, (-1, ""))
        while not self._has(index):
            self._first, self._here = next(self._parts, (-1, ""))
            if self._first < 0:
                self._parts = None
                return ""
        return self._here if isinstance(self._here, str) else self._here.where(index - self._first)

    def _has(self, index: int) -> bool:
        return index < self._first + (1 if isinstance(self._here, str) else len(self._here))

    def _each(self) -> Iterator[tuple[int, Part | str]]:
        """The parts, with the index of the first record of each; of a record beside them its place, as far as it is known."""
        splitter = self._begin()
        if splitter is None:
            return
        index, most = 0, AT_ONCE
        try:
            while True:
                part = splitter.part(most)
                if part is not None:
                    yield index, part
                    index, most = index + len(part), min(AT_ONCE, 2 * most)
                elif most > 1:
                    most //= 2
                elif next(islice(splitter, 1), splitter) is splitter:
                    return
                else:
                    yield index, splitter.where()
                    index += 1
        finally:
            splitter.close()
