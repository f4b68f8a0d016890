"""The `write` of the program's streams, for as long as something is to happen to what is printed.

Workers in threads print in whole lines, and what is drawn on a terminal steps aside first. One object stands in a stream's
`write` for both: two that were put in on each other could leave in turn alone, and each would pass by what the other has
begun. The streams stay the program's own objects, by whatever names they are known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

# Of all streams: they may go to one terminal. A signal's handler may print in the middle of a line.
lock = threading.RLock()


def put_in(stream: Any) -> Write:
    """The `write` of a stream from now on, for one more who wants it; `leave` it again. Raises AttributeError or TypeError
    where there is no stream, or one that bears nothing put in."""
    there = vars(stream).get("write")
    write = there if isinstance(there, Write) else Write(stream)
    write.wanted += 1
    return write


class Write:
    """What stands in the place of a stream's `write`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.wanted = 0  # by how many
        self.step_aside: Callable[[], None] | None = None  # of what is drawn: called before anything is written
        self.is_workers: Callable[[], bool] = lambda: False  # whether a worker in a thread writes
        self.in_line = False  # what was written last is not the end of a line
        self._begun: dict[int, str] = {}  # of each thread of a worker: a line that is not ended
        self._pid = os.getpid()
        self._own = vars(stream).get("write")  # somebody else's that was put in
        self.passed_on = stream.write
        stream.write = self

    def __call__(self, text: str) -> Any:
        if os.getpid() != self._pid or not isinstance(text, str):  # in a fork nobody is there who wants it
            return self.passed_on(text)
        if not self.is_workers():
            return self._write(text) if self.step_aside is not None else self.passed_on(text)
        thread = threading.get_ident()
        whole, end, rest = (self._begun.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._begun[thread] = rest
        if end:
            self._write(whole + end)
        return len(text)

    def _write(self, text: str) -> Any:
        with lock:
            if self.step_aside is not None:
                self.step_aside()
            written = self.passed_on(text)
            self.in_line = not text.endswith("\n") if text else self.in_line
            return written

    def end_lines(self) -> None:
        """There are no workers in threads any more: write what they have begun."""
        self.is_workers = lambda: False
        for thread in list(self._begun):
            self._write(self._begun.pop(thread))

    def leave(self) -> None:
        """One less wants it. The stream has its own again behind the last, where nobody has put in another meanwhile."""
        self.wanted -= 1
        if not self.wanted and vars(self.stream).get("write") is self:
            if self._own is None:
                del self.stream.write
            else:
                self.stream.write = self._own
