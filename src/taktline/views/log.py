"""What happens in a run, for the program's log: at INFO on the logger "taktline", which nobody hears who has not asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from taktline._observe.measures import duration
from taktline._observe.snapshot import Report, Snapshot
from taktline.abc import Observer
from taktline.views.drawing import plain

EVERY = 30.0  # seconds between two lines of a run that goes on


def logger() -> Any:
    """The logger; None where the program has not imported `logging`: then nobody can hear it."""
    if (logging := sys.modules.get("logging")) is None:
        return None
    found = logging.getLogger("taktline")
    if not any(isinstance(each, logging.NullHandler) for each in found.handlers):
        found.addHandler(logging.NullHandler())
    return found


def listener(*, shown: bool) -> Observer | None:
    """Who writes down what happens in a run; None where nobody hears it. `shown`: its progress is seen elsewhere."""
    found = logger()
    return Logged(found, shown) if found is not None and found.isEnabledFor(20) else None  # INFO


class Logged(Observer):
    """Writes to a logger: start, moves, workers that are replaced, the end; and how far it is, where that is not seen."""

    def __init__(self, logger: Any, shown: bool) -> None:
        self._logger = logger
        self._shown = shown
        self._next = EVERY
        self._name = ""

    def begins(self, run: Snapshot) -> None:
        self._name = run.name
        length = "" if run.total is None else f", {run.total:,} records"
        self._logger.info("%s: begins%s", run.name, length)

    def heard(self, at: float, event: Any, actions: Sequence[Any]) -> None:
        what = type(event).__name__
        if what == "Moved":
            self._logger.info("%s: goes on in %s: %s", self._name, _place(event.how), event.why)
        elif what in ("Died", "Overran"):
            self._logger.info("%s: worker %d has ended%s", self._name, event.worker + 1, _code(event.cause))
        elif what == "WorkerLost":
            self._logger.info("%s: worker %d is lost; what it had goes to others", self._name, event.worker + 1)
        for action in actions:
            kind = type(action).__name__
            if kind == "Retire":
                self._logger.info("%s: worker %d has done enough, and is replaced", self._name, action.worker + 1)
            elif kind == "Start" and what != "Begin":
                self._logger.info("%s: another worker %d starts", self._name, action.worker + 1)
            elif kind == "Condemn":
                self._logger.info("%s: a record is given up, at which workers end", self._name)

    def looked(self, at: float, run: Snapshot) -> None:
        if at >= self._next and not self._shown:
            self._next = at + EVERY
            self._logger.info("%s", plain(run))

    def ends(self, report: Report) -> None:
        self._logger.info(
            "%s: %s, %s in, %s out, %s failed, %s, %s",
            report.name, "done" if report.complete else "stopped", f"{report.records_in:,}", f"{report.records_out:,}",
            f"{report.failed:,}", duration(report.seconds), "; ".join(report.reasons) or report.how,
        )  # fmt: skip


def _place(how: str) -> str:
    return "this process" if how == "loop" else "workers"


def _code(cause: Any) -> str:
    code = getattr(cause, "code", None)
    return "" if code is None else f" (exit code {code})"
