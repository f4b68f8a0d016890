"""A pass over files or tables in parts, written as a generator: it has files open and stands at one place in one of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from taktline.abc import Part, Splitter

ASK_TABLE = -1  # sent where a part is wanted that the source keeps together itself

Cuts = Generator[Part | Iterator[Any] | None, int, None]


class Cut(Splitter):
    """A Splitter made of a generator, whose first answer is None. Sent how many records are wanted next, it answers with a
    Part (sent ASK_TABLE: one that the source keeps together), or, where none can be cut there and always for 0, with an
    iterator over records that may be left anywhere.
    `left`: the bytes behind the newest part; `where`: the place of the newest record that iterating gave."""

    def __init__(
        self, cuts: Cuts, left: Callable[[], int | None] = lambda: None, where: Callable[[], str] = str
    ) -> None:
        self._cuts = cuts
        self._left = left
        self._where = where
        self._here: Iterator[Any] = iter(())  # records where no part could be cut
        next(cuts)

    def table(self) -> Part | None:
        return self.part(ASK_TABLE)

    def part(self, records: int) -> Part | None:
        self._here = iter(())
        try:
            cut = self._cuts.send(records)
        except StopIteration:
            return None
        if isinstance(cut, Part):
            return cut
        assert cut is not None
        self._here = cut
        return None

    def __iter__(self) -> Iterator[Any]:
        while True:
            here, self._here = self._here, iter(())
            yield from here
            try:
                cut = self._cuts.send(0)
            except StopIteration:
                return
            assert cut is not None
            self._here = iter(cut)

    @property
    def left(self) -> int | None:
        return self._left()

    def where(self) -> str:
        return self._where()

    def close(self) -> None:
        self._cuts.close()
