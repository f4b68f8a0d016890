"""When a live source ends. It decides alone: time is an argument, and whatever asks a server is elsewhere."""

from __future__ import annotations

import warnings

from taktline.errors import LineError


class Ending:
    """How many records a live source may still give, and whether it has come to its end.

    idle: seconds without anything coming or being finished after which it ends; limit: records; seconds: of the whole.

    >>> ending = Ending(idle=5, limit=3, seconds=None)
    >>> ending.begin(100.0)
    >>> ending.left(10), ending.is_idle(104.0)
    (3, False)
    >>> ending.gave(2, 104.0)
    >>> ending.left(10), ending.is_idle(108.0), ending.is_idle(109.0), ending.is_over(109.0)
    (1, False, True, False)
    >>> ending.lost(109.0)  # while the server is away nothing can come
    >>> ending.is_idle(120.0), ending.is_given_up(113.0), ending.is_given_up(114.0)
    (False, False, True)
    """

    def __init__(self, *, idle: float | None, limit: int | None, seconds: float | None) -> None:
        for name, value, low in (("idle", idle, 0), ("limit", limit, 1), ("seconds", seconds, 0)):
            if value is not None and value < low:
                raise LineError(f"{name}={value!r}: give at least {low}")
        self._idle, self._limit, self._seconds = idle, limit, seconds
        self._given = 0
        self._began = self._moved = 0.0
        self._away: float | None = None  # since when the server cannot be reached
        self._reached = False  # it was, at least once

    @property
    def ends(self) -> bool:
        """Whether the source ends by itself, whatever comes."""
        return self._idle is not None or self._seconds is not None

    def begin(self, now: float) -> None:
        """A run begins."""
        self._given, self._away, self._reached = 0, None, False
        self._began = self._moved = now

    def left(self, most: int) -> int:
        """At most so many may be given now."""
        return most if self._limit is None else min(most, self._limit - self._given)

    def gave(self, records: int, now: float) -> None:
        """So many records were given."""
        self._given += records
        self._moved = now

    def moved(self, now: float) -> None:
        """Something was finished."""
        self._moved = now

    def reached(self, now: float) -> None:
        """The server has answered."""
        if self._away is not None or not self._reached:  # until now nothing could come
            self._moved = now
        self._away, self._reached = None, True

    def lost(self, now: float) -> None:
        """The server cannot be reached."""
        if self._away is None:
            self._away = now

    def away_for(self, now: float) -> float | None:
        """For how many seconds the server could not be reached; None where it can."""
        return None if self._away is None else now - self._away

    def is_over(self, now: float) -> bool:
        """Whether no more is to be taken, whatever there is."""
        return self.left(1) <= 0 or (self._seconds is not None and now >= self._began + self._seconds)

    def is_idle(self, now: float) -> bool:
        """Whether nothing has moved for so long, though the server could be reached."""
        return self._idle is not None and self._away is None and now >= self._moved + self._idle

    def idle_for(self, now: float) -> float:
        """For how many seconds it has been idle, behind those that it was to be."""
        return now - self._moved - (self._idle or 0.0)

    def is_given_up(self, now: float) -> bool:
        """Whether a source that is to end has waited for its server long enough: it must not end well then."""
        if self._away is not None and self._idle is not None and now >= self._away + self._idle:
            return True
        return self._seconds is not None and now >= self._began + self._seconds and not self._reached


def warn_full(what: str, messages: int) -> None:
    """A run ends because nothing of all that it has taken becomes safe before its end: more may be there."""
    warnings.warn(
        f"{what}: the run has taken {messages:,} messages, as many as may be under way, and ends so that they become safe; "
        "what is left waits for the next run. Take more at once (window=), or write to what is safe on the way: with a "
        "journal=, or a folder with roll=",
        RuntimeWarning,
        stacklevel=2,
    )
