"""Progress below a notebook's cell: one output, updated in place, that becomes the report."""

from __future__ import annotations

from html import escape
from typing import Any, ClassVar

from taktline._notebook import shell
from taktline._observe.snapshot import Report, Snapshot
from taktline.views.drawing import BOTTLENECK, DONE, FAILED, Doing, rows, text

COLOURS = {BOTTLENECK: "#b8860b", FAILED: "#d33", DONE: "#2a8a3e"}


class Notebook:
    """One output of the running cell."""

    now: ClassVar[Notebook | None] = None  # that is open; a cell has room for one
    shown: ClassVar[tuple[Any, ...] | None] = None  # which report stands below which cell

    def __init__(self) -> None:
        self._handle: Any = None
        Notebook.now = self

    def show(self, what: Snapshot | Doing, *, brief: bool) -> None:
        """This is how far it is now."""
        if Notebook.now is not self:  # a thread that is late: the report stands there
            return
        drawn = rows(what, brief=brief)
        lines = "\n".join(
            "".join(f'<span style="color:{COLOURS[colour]}">{escape(said)}</span>' if colour else escape(said)
                    for said, colour in row) for row in drawn
        )  # fmt: skip
        self._put({"text/plain": text(drawn), "text/html": f'<pre role="status">{lines}</pre>'})

    def end(self, what: Snapshot | Doing | None, report: Report | None) -> None:
        """The run is over: its report takes the place of the picture, or nothing."""
        Notebook.now = None
        if report is not None:
            Notebook.shown = (_cell(), *_key(report))
            self._put({"text/plain": str(report), "text/html": report._repr_html_()})
        elif self._handle is not None:
            self._put({"text/plain": "", "text/html": ""})

    def stand_in(self) -> None:
        """Its output comes with the first picture."""

    def withdraw(self) -> None:
        """Nothing is to be done: a notebook's output bears that others print."""

    def _put(self, data: dict[str, str]) -> None:
        if self._handle is not None:
            self._handle.update(data, raw=True)
            return
        from IPython.display import display

        self._handle = display(data, raw=True, display_id=True)


def is_shown(report: Report) -> bool:
    """Whether this report stands below the running cell already."""
    return Notebook.shown is not None and Notebook.shown == (_cell(), *_key(report))


def _key(report: Report) -> tuple[Any, ...]:
    return report.name, report.seconds, report.records_in, report.records_out, report.failed


def _cell() -> Any:
    here = shell()
    return None if here is None else (id(here), here.execution_count)
