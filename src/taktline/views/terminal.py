"""Progress on a terminal, drawn in place; elsewhere a plain line every half minute."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Iterable
from time import monotonic
from typing import Any, ClassVar

from taktline._excerpts import harmless
from taktline._observe.pages import cost, duration, rate
from taktline._observe.snapshot import Snapshot

PLAIN = 30.0  # seconds between two lines where there is no terminal
BAR = 10  # characters of a step's bar
STEPS = 8  # steps shown: with head and foot 12 lines at most
DIGITS = 3  # of a number of records that is only reckoned
COLUMNS, ROWS = 80, 24  # of a terminal that does not tell
ERASE = "\x1b[J"  # from where the cursor is to the end of the screen
IN_ASCII = str.maketrans("█░━╌·◄µ→±", "#-=-|<u>+")


class Lines:
    """A line every half minute, and one at the end where that was asked for."""

    def __init__(self) -> None:
        self._next = monotonic() + PLAIN

    def show(self, snapshot: Snapshot) -> None:
        """This is how far the run is now."""
        if monotonic() >= self._next:
            self._next = monotonic() + PLAIN
            self._say(snapshot)

    def end(self, snapshot: Snapshot | None) -> None:
        """The run is over."""
        if snapshot is not None:
            self._say(snapshot)

    def _say(self, snapshot: Snapshot) -> None:
        if sys.stderr is not None:
            print(_for(sys.stderr, harmless(plain(snapshot))), file=sys.stderr, flush=True)


class Region:
    """Some lines at the end of a terminal, drawn anew in place.

    The cursor waits in the first column of the first of them, and what anybody else prints takes their place: so nothing
    of that can be lost, whoever prints it. What goes through `sys.stdout`, `sys.stderr` or a logging handler over them
    finds the lines erased before, and is passed on as it is; a line that is not ended is let be until it is.
    """

    now: ClassVar[Region | None] = None  # that is open; a terminal has room for one

    @classmethod
    def free(cls) -> Region | Lines:
        """A region; lines where there is one already, such as of a run in which this one is."""
        return cls() if cls.now is None else Lines()

    def __init__(self) -> None:
        self._terminal = sys.stderr
        self._pid = os.getpid()
        self._drawn = False
        self._lock = threading.RLock()  # a signal's handler may print in the middle of drawing
        Region.now = self

    def show(self, snapshot: Snapshot) -> None:
        """This is how far the run is now."""
        with self._lock:
            self._stand_in()
            if any(each.in_line for each in self._streams()):
                return
            for each in self._streams():
                each.stream.flush()
            size = os.get_terminal_size(self._terminal.fileno())
            columns, rows = size.columns or COLUMNS, size.lines or ROWS
            lines = harmless(drawn(snapshot), keep="\n").split("\n")[: max(1, rows - 1)]
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            text = "\n".join(_cut(each, columns - 1) for each in lines)
            self._drawn = True
            # From the first column so many blanks end in the same row; behind what others have left there, in the next.
            self._write(f"{' ' * columns}\r{ERASE}{_for(self._terminal, text)}\r{up}")

    def step_aside(self) -> None:
        """Somebody is about to write."""
        if not self._drawn or os.getpid() != self._pid:  # in a fork nothing is drawn
            return
        with self._lock:
            if self._drawn:
                self._drawn = False
                self._write(ERASE)

    def withdraw(self) -> None:
        """Take the lines away, and what stands in the place of the streams."""
        try:
            self.step_aside()
        finally:
            with self._lock:
                for name in ("stdout", "stderr"):
                    if isinstance(stream := getattr(sys, name), Above):
                        setattr(sys, name, stream.stream)
                for handler in _handlers():
                    if isinstance(handler.stream, Above):
                        handler.stream = handler.stream.stream

    def end(self, snapshot: Snapshot | None) -> None:
        """The run is over: nothing is left of it."""
        if Region.now is self:
            Region.now = None
        self.withdraw()

    def _stand_in(self) -> None:
        for name in ("stdout", "stderr"):
            if _on_terminal(stream := getattr(sys, name)):
                setattr(sys, name, _above(stream, name))
        for handler in _handlers():
            for each in self._streams():
                if handler.stream is each.stream:
                    handler.stream = each

    def _streams(self) -> list[Above]:
        return [each for each in (sys.stdout, sys.stderr) if isinstance(each, Above)]

    def _write(self, text: str) -> None:
        terminal = self._terminal
        (terminal.stream if isinstance(terminal, Above) else terminal).write(text)
        terminal.flush()


class Above:
    """A stream of the program over a terminal on which something is drawn: what is written there goes above that."""

    def __init__(self, stream: Any, name: str) -> None:
        self.stream = stream
        self.name_in_sys = name
        self.in_line = False  # what was written last is not the end of a line

    def write(self, text: str) -> Any:
        """Pass it on."""
        _step_aside()
        written = self.stream.write(text)
        self.in_line = not text.endswith("\n") if text else self.in_line
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        """Pass them on."""
        for each in lines:
            self.write(each)

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # of a copy that is being made
            raise AttributeError(name)
        _step_aside()  # whoever asks for `buffer` or `fileno` writes there
        return getattr(self.stream, name)

    def __reduce__(self) -> Any:
        return getattr, (sys, self.name_in_sys)


_known: dict[int, Above] = {}  # by the stream's id: somebody may have kept one, who finds it as it was


def _above(stream: Any, name: str) -> Above:
    known = _known.get(id(stream))
    if known is None or known.stream is not stream:
        known = _known[id(stream)] = Above(stream, name)
    known.in_line = False  # what was written meanwhile is not known
    return known


def _on_terminal(stream: Any) -> bool:
    try:
        return stream is not None and not isinstance(stream, Above) and bool(stream.isatty())
    except Exception:  # closed, or somebody's own stream that cannot tell
        return False


def _handlers() -> list[Any]:
    """The logging handlers of this process that write into a stream."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    each = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return [handler for handler in each if type(handler) is logging.StreamHandler]


def _step_aside() -> None:
    if (region := Region.now) is not None:
        region.step_aside()


@atexit.register
def _at_exit() -> None:
    """A run that somebody has left open is not to leave its lines there."""
    if (region := Region.now) is not None:
        try:
            region.end(None)
        except Exception:  # of the stream: there is nobody left to tell
            pass


def _for(stream: Any, text: str) -> str:
    """The text as the stream can write it."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return text.translate(IN_ASCII).encode("ascii", "replace").decode()
    return text


def _cut(line: str, columns: int) -> str:
    """As much of a line as stands in so many columns."""
    width = 0
    for n, char in enumerate(line):
        width += 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width > columns:
            return line[:n]
    return line


def plain(snapshot: Snapshot) -> str:
    """One line for a log."""
    return f"{snapshot.name[:30]}: {_progress(snapshot)}"


def drawn(snapshot: Snapshot) -> str:
    """Some lines for a terminal, at most 12 of 80 columns."""
    workers = f"{snapshot.workers} workers" if snapshot.workers else "this process"
    head = f" {snapshot.name[:32]}  {snapshot.how} · {workers} · batch {snapshot.batch_size:,}"
    lines = [f"{head[:70]:<70}{duration(snapshot.seconds):>9}"]
    most = max((step.busy for step in snapshot.steps), default=0.0)
    capacity = snapshot.seconds * max(1, snapshot.workers)
    for step in snapshot.steps[:STEPS]:
        share = min(1.0, step.busy / capacity) if capacity else 0.0
        full = round(share * BAR)
        mark = "  ◄ bottleneck" if step.busy == most and len(snapshot.steps) > 1 else ""
        bar = "█" * full + "░" * (BAR - full)
        lines.append(f" {step.name[:14]:<14} {bar}  busy {share:>4.0%}  {cost(step.ns_per_record):>12}{mark}")
    lines.append(f" {_progress(snapshot)}")
    if snapshot.total:
        done = min(1.0, snapshot.records_in / snapshot.total)
        width = round(done * 52)
        here = snapshot.records_in - snapshot.resumed_at
        left = snapshot.seconds * max(0, snapshot.total - snapshot.records_in) / here if here else 0.0
        lines.append(f" {'━' * width}{'╌' * (52 - width)}  {done:>4.0%}  {duration(left)} left")
    return "\n".join(lines)


def _progress(snapshot: Snapshot) -> str:
    speed = rate((snapshot.records_in - snapshot.resumed_at) / snapshot.seconds) if snapshot.seconds else ""
    aside = f" → {snapshot.dead_letters}" if snapshot.dead_letters else ""
    failed = f" · {snapshot.failed:,} failed{aside}" if snapshot.failed else ""
    window = f" of {snapshot.window:,}" if snapshot.window is not None else ""
    return (
        f"{snapshot.records_in:,}{_of(snapshot)} records · {speed} · {snapshot.in_flight:,}{window} in flight{failed}"
    )


def _of(snapshot: Snapshot) -> str:
    total = snapshot.total
    if total is None:
        return ""
    return f" of about {round(total, DIGITS - len(str(total))):,}" if snapshot.reckoned else f" of {total:,}"
