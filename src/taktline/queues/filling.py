"""When what has come of a live source is given to the run. It decides alone: time is an argument."""

from __future__ import annotations

from taktline.errors import LineError


class Filling:
    """Whether messages that are there are given now, or more are waited for: for `wait` seconds from the first one on.

    >>> filling = Filling(wait=0.5)
    >>> filling.is_due(3, most=10, now=100.0), filling.is_due(10, most=10, now=100.1), filling.left(100.1)
    (False, True, 0.4)
    >>> filling.is_due(3, most=10, now=100.5)
    True
    >>> filling.gave()
    >>> filling.is_due(2, most=10, now=100.6)  # a new wait begins
    False
    """

    def __init__(self, wait: float) -> None:
        if wait < 0:
            raise LineError(f"wait={wait!r}: give at least 0")
        self._wait = wait
        self._since: float | None = None  # when the first of those that are there was seen

    def is_due(self, there: int, most: int, now: float) -> bool:
        """Whether so many, where at most `most` may be given, are given now; never where there are none."""
        if there and self._since is None:
            self._since = now
        return there > 0 and (there >= most or self.left(now) <= 0)

    def left(self, now: float) -> float:
        """For how many seconds more may be waited for."""
        return self._wait if self._since is None else max(0.0, round(self._since + self._wait - now, 6))

    def gave(self) -> None:
        """They were given."""
        self._since = None
