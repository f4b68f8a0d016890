"""The signals that end a command, and what it does at the first and at the second one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from taktline.cli import standard

if TYPE_CHECKING:
    from taktline import Run

EXIT_CODES = {"Ctrl-C": 130, "SIGTERM": 143, "SIGHUP": 129}  # exit codes


class Terminated(KeyboardInterrupt):
    """A signal to end has arrived, named as people call it: unwind and clean up, and end with a code of its own. Any other
    KeyboardInterrupt a step has raised."""


@contextmanager
def caught() -> Iterator[None]:
    """Signals that end a command raise Terminated, but for those that whoever started it has had ignored."""
    before = {}
    for number in _ending():
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _on_end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it is none of Python's, and cannot be set from here
                signal.signal(number, handler)


def _on_end(number: int, frame: Any) -> None:
    raise Terminated(_called(number))


def _called(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _ending() -> list[int]:
    """The signals that end a command; a terminal's end (SIGHUP) only where nohup has not said that it does not."""
    hung_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hung_up]


class Signals:
    """While a run lasts, the first signal to end lets it finish what is in flight; the second stops it at once."""

    def __init__(self, run: Run, *, live: bool) -> None:
        self._run = run
        self._live = live  # the run itself sees to SIGTERM: at the first one it ends well
        self._before: dict[int, Any] = {}
        self.first: str | None = None

    def __enter__(self) -> None:
        for number in _ending():
            if self._live and number == signal.SIGTERM:
                continue
            self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.first is not None:
            raise KeyboardInterrupt
        self.first = _called(number)
        self._run.stop()
        standard.end_input()
        # Not print(): the signal may have come in the middle of one, and a stream cannot be entered twice.
        above = "\x1b[J" if os.isatty(2) else ""  # of progress, which is drawn from the cursor on
        left = f"{self._run.snapshot().in_flight:,} in flight are finished first"
        with suppress(OSError):  # the terminal is gone
            os.write(2, f"{above}{self.first}, stopping: {left}; once more: at once\n".encode())
