"""When a run that gets nothing done is stalled, and when it is only slow. Time and places come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOOKS = 8  # looks at the workers in the time that `stall` allows: a hang is found an eighth of it late at most


class Stall:
    """Nothing came back for a while: are the workers still moving from record to record inside their batches?

    Tell it what was `waited` and when something was `done`. It answers True when it is time to look at where the workers
    are, and `stuck` says whether none of them has moved for as long as is allowed.

    >>> stall = Stall(8.0)
    >>> [stall.waited(0.5), stall.waited(0.5)]
    [False, True]
    >>> looks = []
    >>> for _ in range(9):
    ...     looks.append(stall.stuck({0: "record 7"}))
    >>> looks
    [False, False, False, False, False, False, False, False, True]
    """

    def __init__(self, limit: float | None) -> None:
        self.pause = float("inf") if limit is None else limit / LOOKS  # seconds between two looks
        self._waited = 0.0  # seconds since the last look
        self._places: Mapping[int, Any] | None = None
        self._same = 0  # looks in a row that found all workers where they were

    def done(self) -> None:
        """A batch came back."""
        self._waited = 0.0
        self._places = None
        self._same = 0

    def waited(self, seconds: float) -> bool:
        """So long was waited for workers that have something to do; whether it is time to look at them."""
        # However long the machine slept or the caller was stopped: one wait counts as one look at most.
        self._waited += min(seconds, self.pause)
        if self._waited < self.pause:
            return False
        self._waited = 0.0
        return True

    def stuck(self, places: Mapping[int, Any]) -> bool:
        """The workers are at these places now; whether the run is stalled."""
        self._same = self._same + 1 if places == self._places else 0
        self._places = dict(places)
        return self._same >= LOOKS
