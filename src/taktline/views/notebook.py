"""Progress below a notebook's cell: one output, updated in place."""

from __future__ import annotations

from html import escape
from typing import Any

from taktline._excerpts import harmless
from taktline._observe.snapshot import Snapshot
from taktline.views.terminal import drawn


class Notebook:
    """One output of the running cell, empty again at the end."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, snapshot: Snapshot) -> None:
        """This is how far the run is now."""
        text = harmless(drawn(snapshot), keep="\n")
        self._put({"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"})

    def end(self, snapshot: Snapshot | None) -> None:
        """The run is over."""
        if self._handle is not None:
            self._put({"text/plain": "", "text/html": ""})

    def _put(self, data: dict[str, str]) -> None:
        if self._handle is not None:
            self._handle.update(data, raw=True)
            return
        from IPython.display import display

        self._handle = display(data, raw=True, display_id=True)
