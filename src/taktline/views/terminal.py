"""Progress on a terminal, drawn in place; elsewhere a plain line every half minute."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar

from taktline import _printing
from taktline._excerpts import ASCII_LIKE, harmless
from taktline._observe.snapshot import Snapshot
from taktline.views.drawing import BOTTLENECK, DONE, FAILED, Doing, Row, cut, plain, rows

PLAIN = 30.0  # seconds between two lines where there is no terminal
COLUMNS, ROWS = 80, 24  # of a terminal that does not tell
ERASE = "\x1b[J"  # from where the cursor is to the end of the screen
COLOURS = {BOTTLENECK: "\x1b[33m", FAILED: "\x1b[31m", DONE: "\x1b[32m"}


class Lines:
    """A line every half minute, and one at the end where that was asked for."""

    def __init__(self) -> None:
        self._next = monotonic() + PLAIN

    def show(self, what: Snapshot | Doing, *, brief: bool) -> None:
        """This is how far it is now."""
        if monotonic() >= self._next:
            self._next = monotonic() + PLAIN
            self._say(what)

    def end(self, what: Snapshot | Doing | None, report: Any) -> None:
        """The run is over: print its last line."""
        if what is not None:
            self._say(what)

    def stand_in(self) -> None:
        """Lines are written as others'."""

    def withdraw(self) -> None:
        """There is nothing to take away."""

    def _say(self, what: Snapshot | Doing) -> None:
        if sys.stderr is not None:
            print(_for(sys.stderr, harmless(plain(what))), file=sys.stderr, flush=True)


class Region:
    """Some lines at the end of a terminal, drawn anew in place.

    The cursor waits in the first column of the first of them, and what anybody else prints takes their place: so nothing
    of that can be lost, whoever prints it. What goes through `sys.stdout` or `sys.stderr`, by whatever name they are
    known, finds the lines erased before, and is passed on as it is; a line that is not ended is let be until it is.
    """

    now: ClassVar[Region | None] = None  # that is open; a terminal has room for one

    def __init__(self) -> None:
        self._terminal = sys.stderr
        self._pid = os.getpid()
        self._drawn = False
        self._away = True  # nothing is to be drawn, though a thread that is late may still be about to
        self._writes: list[_printing.Write] = []  # of the streams over this terminal
        Region.now = self

    def show(self, what: Snapshot | Doing, *, brief: bool) -> None:
        """This is how far it is now."""
        with _printing.lock:
            if self._away:
                return
            self._put_in()
            if any(each.in_line for each in self._writes) or _keys_are_read(self._terminal):
                return
            for each in self._writes:
                each.stream.flush()
            size = os.get_terminal_size(self._terminal.fileno())
            columns, height = size.columns or COLUMNS, size.lines or ROWS
            lines = [cut(row, columns - 1) for row in rows(what, brief=brief, columns=columns)][: max(1, height - 1)]
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            text = "\n".join(map(_coloured, lines))
            self._drawn = True
            # From the first column so many blanks end in the same row; behind what others have left there, in the next.
            self._write(f"{' ' * columns}\r{ERASE}{_for(self._terminal, text)}\r{up}")

    def stand_in(self) -> None:
        """Something may be drawn from now on. Whoever has looked up a stream's `write` before passes this by: so it is
        to be called in the thread that prints, and again after it was withdrawn."""
        with _printing.lock:
            self._away = False
            self._put_in()

    def _put_in(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if _on_terminal(stream) and all(each.stream is not stream for each in self._writes):
                # Somebody's own may bear nothing put in: what it writes takes the lines' place.
                with suppress(AttributeError, TypeError):
                    write = _printing.put_in(stream)
                    write.step_aside = self.step_aside
                    self._writes.append(write)

    def step_aside(self) -> None:
        """Somebody is about to write."""
        if not self._drawn or os.getpid() != self._pid:  # in a fork nothing is drawn
            return
        with _printing.lock:
            if self._drawn:
                self._drawn = False
                self._write(ERASE)

    def withdraw(self) -> None:
        """Take the lines away, and what stands in the place of the streams' `write`."""
        with _printing.lock:
            self._away = True
        try:
            self.step_aside()
        finally:
            with _printing.lock:
                while self._writes:
                    write = self._writes.pop()
                    write.step_aside = None
                    write.leave()

    def end(self, what: Snapshot | Doing | None, report: Any) -> None:
        """The run is over: take the lines away."""
        if Region.now is self:
            Region.now = None
        self.withdraw()

    def _write(self, text: str) -> None:
        own = next((each.passed_on for each in self._writes if each.stream is self._terminal), self._terminal.write)
        own(text)
        self._terminal.flush()


def _on_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except Exception:  # closed, or somebody's own stream that cannot tell
        return False


def _keys_are_read(terminal: Any) -> bool:
    """Whether some program reads key by key there, such as a debugger's prompt or an editor: it has the screen."""
    try:
        import termios

        return not termios.tcgetattr(terminal.fileno())[3] & termios.ICANON
    except Exception:  # no such system, or none that tells
        return False


@atexit.register
def _at_exit() -> None:
    """A run that somebody has left open is not to leave its lines there."""
    if (region := Region.now) is not None:
        try:
            region.end(None, None)
        except Exception:  # of the stream: there is nobody left to tell
            pass


def _coloured(row: Row) -> str:
    return "".join(f"{COLOURS[colour]}{said}\x1b[0m" if colour else said for said, colour in row)


def _for(stream: Any, text: str) -> str:
    """The text as the stream can write it."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return text.translate(ASCII_LIKE).encode("ascii", "replace").decode()
    return text
