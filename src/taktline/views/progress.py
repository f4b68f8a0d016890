"""Whether a run is watched, and where: on a terminal, in a notebook, in plain lines, or not at all."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from taktline._notebook import kernel
from taktline._observe.snapshot import Report, Snapshot
from taktline._recipe.options import default_progress
from taktline._segment import policies
from taktline._signals import pass_on
from taktline.errors import LineError
from taktline.views.drawing import Doing

QUIET = 1.0  # seconds in which nothing is shown where nobody has asked: a short run needs no progress
TURN = 0.25  # seconds between two pictures
VARIABLE = "TAKTLINE_PROGRESS"


class Shower(Protocol):
    """Puts before somebody's eyes how far something is."""

    def show(self, what: Snapshot | Doing, *, brief: bool) -> None:
        """This is how far it is now; `brief`: in one row."""

    def end(self, what: Snapshot | Doing | None, report: Report | None) -> None:
        """What was shown is over; `what` and `report` say how it ended, where that is to be shown."""

    def stand_in(self) -> None:
        """In the thread that the run is in: something may be shown from now on."""

    def withdraw(self) -> None:
        """Somebody else needs the place, or forks this process."""


def hidden(snapshot: Snapshot) -> None:
    """The `progress=` of runs within something that shows itself: nothing, whatever the environment says."""


def view_for(wanted: bool | None, *, silent: bool = True) -> View | None:
    """The view that `progress=` asks for; None where nothing is to be shown.

    TAKTLINE_PROGRESS, 0 or 1, takes the place of `wanted`; without both it is up to the environment: a terminal or a
    notebook, in the main thread of the program, unless another view is there. `silent`: elsewhere nothing is shown then;
    else lines, as for True. Raises LineError for another value of the variable."""
    said = _said()
    wanted = said if said is not None else default_progress() if wanted is None else wanted
    if wanted is False:
        return None
    where = _where()
    if wanted is True:
        return View(where if _in_the_main_thread() else "", first=0.0, last=True)
    if not _in_the_main_thread():
        return None
    if where == "" or _is_automatic():
        return None if silent else View("", first=QUIET)
    return View(where, first=QUIET)


class View:
    """Shows how far something is, four times a second, by a thread of its own: so the clock moves while a record takes
    long. `begin` it, `keep_up` now and then, `close` it at the end, which may be done again. `first`: seconds before which
    nothing is shown; `last`: where lines are written, one tells the end too.

    It never fails the run that it shows: where the stream is closed or broken, nothing more is shown."""

    now: View | None = None  # whose thread runs
    withdrawn: View | None = None  # that is to be shown again as soon as it may be

    def __init__(self, where: str, *, first: float, last: bool = False) -> None:
        self.brief = False  # one row: somebody's program goes on beside it
        self._where = where
        self._first = first
        self._last = last
        self._shower: Shower | None = None
        self._shown = False
        self._given_up = False
        self._look: Callable[[], Any] | None = None
        self._clock: threading.Thread | None = None
        self._stop = threading.Event()
        self._process = os.getpid()

    def __call__(self, what: Snapshot | Doing) -> None:
        """This is how far it is now."""
        if self._given_up or (not self._shown and what.seconds < self._first):
            return
        try:
            if self._get_ready():
                self._shown = True
                self._shower.show(what, brief=self.brief)  # type: ignore[union-attr]
        except Exception:  # of a stream that may be anything: closed, broken, somebody's own. Only progress is lost
            self._given_up = True

    def begin(self, look: Callable[[], Snapshot | Doing]) -> None:
        """What is to be shown begins; `look` tells how far it is, and is held weakly."""
        self._look = weakref.WeakMethod(look)
        self.keep_up()

    def keep_up(self) -> None:
        """See to it that it is shown, after others may have needed the place."""
        if self._clock is not None or self._look is None or self._given_up or os.getpid() != self._process:
            return
        if View.now is not None and View.now is not self and View.now._clock is not None:
            return  # of a run around this one: its thread is enough for a program
        import contextvars  # a notebook knows by the context which cell an output belongs to

        View.now = self
        try:
            if self._get_ready():
                self._shower.stand_in()  # type: ignore[union-attr]
        except Exception:  # as above
            self._given_up = True
            return
        self._stop = threading.Event()  # of this thread alone: one that is late ends all the same
        self._clock = threading.Thread(
            target=contextvars.copy_context().run, args=(self._turn, self._stop), name="taktline progress", daemon=True
        )
        _watch_forks()
        try:
            self._clock.start()
        except RuntimeError:  # no more threads, or Python ends
            self._clock, self._given_up = None, True

    def _get_ready(self) -> bool:
        """Whether there is who shows it."""
        self._shower = self._shower or _shower(self._where, asked=self._last)
        return self._shower is not None

    def _turn(self, stop: threading.Event) -> None:
        while not stop.wait(TURN) and not self._given_up:
            look = self._look and self._look()
            if look is None:
                return
            try:
                what = look()
            except RuntimeError:  # a dict has grown while it was gone through: the next time
                continue
            self(what)
            del look, what

    def withdraw(self) -> None:
        """Nothing is to be drawn now, and no thread is to run: until it is to `keep_up`."""
        self._halt()
        View.withdrawn = self
        try:
            if self._shower is not None:
                self._shower.withdraw()
        except Exception:  # as above
            pass

    def _halt(self) -> None:
        clock, self._clock = self._clock, None
        self._stop.set()
        if View.now is self:
            View.now = None
        if clock is not None and clock is not threading.current_thread() and os.getpid() == self._process:
            clock.join(1.0)  # it may hang on a terminal that takes nothing

    def close(self, what: Snapshot | Doing | None = None, report: Callable[[], Report] | None = None) -> None:
        """What was shown has ended; `what` and `report` say how."""
        self._look = None
        if View.withdrawn is self:
            View.withdrawn = None
        self._halt()
        shower, self._shower = self._shower, None
        try:
            if shower is None and self._last and what is not None and not self._given_up:
                shower = _shower(self._where, asked=True)
            if shower is not None:
                told = self._shown or self._last
                shower.end(what if self._last else None, report() if report is not None and told else None)
        except Exception:  # as above
            pass
        self._given_up = True


class Status:
    """For what takes a while and is no run: one row that says what is done now.

    `wanted`: as `progress=` of a run, or a callable that is told in words."""

    def __init__(self, name: str, wanted: bool | Callable[[str], None] | None) -> None:
        if wanted is not None and not isinstance(wanted, bool) and not callable(wanted):
            raise LineError(
                f"{name}(progress={wanted!r}): give True, False, or a callable that is told, in words, what is done now"
            )
        self._told = wanted if callable(wanted) else None
        self._view = view_for(wanted) if not callable(wanted) else None
        self._name = name
        self._says = ""
        self._left: float | None = None  # seconds from then on
        self._at = self._began = perf_counter()

    def __enter__(self) -> Status:
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._view is not None:
            self._view.close()

    def __call__(self, says: str, left: float | None = None) -> None:
        """This is done now; `left`: how many seconds all of it takes yet, about."""
        self._says, self._left, self._at = says, left, perf_counter()
        if self._told is not None:
            self._told(says)
        if self._view is not None:
            self._view.begin(self.doing)

    def doing(self) -> Doing:
        """What is done now."""
        now = perf_counter()
        left = None if self._left is None else max(0.0, self._left - (now - self._at))
        return Doing(self._name, self._says, now - self._began, left)


def withdraw() -> None:
    """Nothing of any run is to be drawn now, or to stand in the place of the program's streams, and no thread of a view is
    to run: the next picture is drawn again."""
    if View.now is not None:
        View.now.withdraw()


def resume() -> None:
    """What was withdrawn is shown again, such as the row of a comparison, whose runs show nothing themselves."""
    view = View.withdrawn
    if view is not None and View.now is None and threading.current_thread() is threading.main_thread():
        view.keep_up()


_watched = False


def _watch_forks() -> None:
    """Whoever forks this process does so without the thread, and without what is drawn."""
    global _watched
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=withdraw)
    if not _watched:
        atexit.register(withdraw)
    _watched = True


def _said() -> bool | None:
    """What the environment says."""
    said = os.environ.get(VARIABLE, "")
    if said not in ("", "0", "1"):
        raise LineError(f"{VARIABLE}={said!r}: give 1 to show progress, 0 to show none, or leave it out")
    return said == "1" if said else None


def _where() -> str:
    """Where there is somebody to see it."""
    if kernel() is not None:
        return "notebook"
    try:
        terminal = sys.stderr is not None and sys.stderr.isatty()
    except Exception as error:  # closed, or somebody's own stream that cannot tell
        pass_on(error)
        terminal = False
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"  # no control sequences there
    return "terminal" if terminal and not plain else ""


def _is_automatic() -> bool:
    """Whether this runs under a program that nobody looks at: a build server, or pytest in this very process."""
    if "pytest" in sys.modules and "PYTEST_CURRENT_TEST" in os.environ:
        return True
    return os.environ.get("CI", "").lower() not in ("", "0", "false") and kernel() is None


def _in_the_main_thread() -> bool:
    """Whether this is the program's own main thread: not a worker's, and not one of another pool of processes."""
    processes = sys.modules.get("multiprocessing.process")
    apart = processes is not None and processes.parent_process() is not None
    return policies.in_callers_process and not apart and threading.current_thread() is threading.main_thread()


def _shower(where: str, *, asked: bool) -> Shower | None:
    """Who shows it there. Where there is one already, such as of a run around this one: lines if it was asked for."""
    if where == "notebook":
        from taktline.views.notebook import Notebook

        if Notebook.now is None:
            return Notebook()
    elif where == "terminal":
        from taktline.views.terminal import Region

        if Region.now is None:
            return Region()
    if where != "" and not asked:
        return None
    from taktline.views.terminal import Lines

    return Lines()
