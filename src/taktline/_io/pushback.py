"""Lines that may be given back: what is read ahead to find the end of a row, in vain, is read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Taken:
    """Lines of bytes, each given once, or again where it was given back.

    >>> lines = Taken([b"1\\n", b"2\\n", b"3\\n"])
    >>> first, second = (line for _, line in zip(range(2), lines))
    >>> lines.give_back([second])
    >>> list(lines), lines.count
    ([b'2\\n', b'3\\n'], 3)
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.waiting: list[bytes] = []  # that were given back, the next one last
        self.count = 0  # lines that were taken and not given back

    def __iter__(self) -> Iterator[bytes]:
        while True:
            line = self.waiting.pop() if self.waiting else next(self._lines, None)
            if line is None:
                return
            self.count += 1
            yield line

    def give_back(self, lines: list[bytes]) -> None:
        """The last lines that were taken are to be taken again."""
        self.waiting += reversed(lines)
        self.count -= len(lines)

    @property
    def ahead(self) -> int:
        """Bytes that are to be taken again."""
        return sum(map(len, self.waiting))
