"""Whether a run is watched, and where: on a terminal, in a notebook, in plain lines, or not at all."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Protocol

from taktline._observe.snapshot import Snapshot
from taktline._segment import guard
from taktline.errors import LineError

QUIET = 1.0  # seconds in which nothing is shown where nobody has asked: a short run needs no progress
VARIABLE = "TAKTLINE_PROGRESS"


class Shower(Protocol):
    """Puts snapshots before somebody's eyes."""

    def show(self, snapshot: Snapshot) -> None:
        """This is how far the run is now."""

    def end(self, snapshot: Snapshot | None) -> None:
        """The run is over; `snapshot` is its last one, where it is known."""


def view_for(wanted: bool | None, *, silent: bool = True) -> View | None:
    """The view that `progress=` asks for; None where nothing is to be shown.

    None leaves it to the environment: TAKTLINE_PROGRESS, 0 or 1; without it a terminal or a notebook, in the main thread
    of the program. `silent`: elsewhere nothing is shown then; else lines, as for True. Raises LineError for another value
    of the variable."""
    wanted = _said() if wanted is None else wanted
    where = _where()
    if wanted is None and (where == "" or not _in_the_main_thread()):
        return View("", first=QUIET) if where == "" and not silent else None
    return View(where, first=QUIET if wanted is None else 0.0, last=wanted is True) if wanted is not False else None


class View:
    """Shows the snapshots that it is called with. `close` it at the end, which may be done again. `first`: seconds of the
    run before which nothing is shown; `last`: where lines are written, one tells the end too.

    It never fails the run that it shows: where the stream is closed or broken, nothing more is shown."""

    def __init__(self, where: str, *, first: float, last: bool = False) -> None:
        self._where = where
        self._first = first
        self._last = last
        self._shower: Shower | None = None
        self._given_up = False

    def __call__(self, snapshot: Snapshot) -> None:
        if self._given_up or (self._shower is None and snapshot.seconds < self._first):
            return
        try:
            self._shower = self._shower or _shower(self._where)
            self._shower.show(snapshot)
        except Exception:  # of a stream that may be anything: closed, broken, somebody's own. Only progress is lost
            self._given_up = True

    def close(self, snapshot: Snapshot | None = None) -> None:
        """The run has ended; `snapshot` says how."""
        shower, self._shower = self._shower, None
        try:
            if shower is None and self._last and snapshot is not None and not self._given_up:
                shower = _shower(self._where)
            if shower is not None:
                shower.end(snapshot if self._last else None)
        except Exception:  # as above
            pass
        self._given_up = True


def withdraw() -> None:
    """Nothing of any run is to be drawn now, or to stand in the place of the program's streams: the next snapshot is
    shown again."""
    if (terminal := sys.modules.get("taktline.views.terminal")) is not None and terminal.Region.now is not None:
        try:
            terminal.Region.now.withdraw()
        except Exception:  # as in View
            pass


def _said() -> bool | None:
    """What the environment says."""
    said = os.environ.get(VARIABLE, "")
    if said not in ("", "0", "1"):
        raise LineError(f"{VARIABLE}={said!r}: give 1 to show progress, 0 to show none, or leave it out")
    return said == "1" if said else None


def _where() -> str:
    """Where there is somebody to see it."""
    if _kernel() is not None:
        return "notebook"
    try:
        terminal = sys.stderr is not None and sys.stderr.isatty()
    except Exception:  # closed, or somebody's own stream that cannot tell
        terminal = False
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"  # no control sequences there
    return "terminal" if terminal and not plain else ""


def _kernel() -> Any:
    """The notebook's kernel that this process is; None where it is none. IPython is not imported for that."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)


def _in_the_main_thread() -> bool:
    """Whether this is the program's own main thread: not a worker's, and not one of another pool of processes."""
    processes = sys.modules.get("multiprocessing.process")
    apart = processes is not None and processes.parent_process() is not None
    return guard.in_callers_process and not apart and threading.current_thread() is threading.main_thread()


def _shower(where: str) -> Shower:
    if where == "notebook":
        from taktline.views.notebook import Notebook

        return Notebook()
    from taktline.views import terminal

    return terminal.Region.free() if where == "terminal" else terminal.Lines()
