"""When a source that blocks is asked for its next record: while it blocks, the caller's thread is in its code, and can
deliver nothing. So what is under way comes out first, for a part of the time that the source has blocked."""

from __future__ import annotations

BLOCKED = 0.02  # seconds of waiting, not of computing, for one read: by then a source is one that blocks
SHARE = 0.1  # of the time that it has blocked: so the run takes at most so much longer, whatever the steps cost


class Patience:
    """Time is an argument, in seconds.

    >>> patience = Patience()
    >>> patience.waits(now=0.0)  # nothing is known of the source
    False
    >>> patience.blocked(1.0)
    >>> patience.waits(now=5.0), patience.waits(now=5.05), patience.waits(now=5.2), patience.waits(now=5.3)
    (True, True, False, False)
    """

    def __init__(self) -> None:
        self._left = 0.0  # seconds that results may be waited for
        self._since: float | None = None  # when this wait began

    def blocked(self, seconds: float) -> None:
        """A read has waited for so long."""
        if seconds >= BLOCKED:
            self._left += SHARE * seconds

    @property
    def is_left(self) -> bool:
        """Whether results may be waited for at all: then each record goes on its way before the next one is asked for."""
        return self._left > 0

    def waits(self, now: float) -> bool:
        """Whether the source is to be asked later, as results are under way."""
        if self._since is None:
            self._since = now
        if now - self._since < self._left:
            return True
        self.asked(now)
        return False

    def asked(self, now: float) -> None:
        """The source is asked now: this wait is over."""
        if self._since is not None:
            self._left = max(0.0, self._left - (now - self._since))
            self._since = None
