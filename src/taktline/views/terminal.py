"""Progress on a terminal: one view of the Snapshot. Not a terminal: a plain line every half minute."""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import Any

from taktline._excerpts import harmless
from taktline._observe.pages import cost, duration, rate
from taktline._observe.snapshot import Snapshot

QUIET = 1.0  # seconds in which nothing is shown: a short run needs no progress
PLAIN = 30.0  # seconds between two lines where there is no terminal
BAR = 10  # characters of a step's bar
STEPS = 8  # steps shown: with head and foot 12 lines at most
DIGITS = 3  # of a number of records that is only reckoned


class Progress:
    """Call it with each Snapshot; `close` it at the end. Uses rich on a terminal, where it is installed."""

    def __init__(self) -> None:
        self._live: Any = None
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._next_plain = monotonic() + PLAIN

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.seconds < QUIET:
            return
        if not self._terminal:
            if monotonic() >= self._next_plain:
                self._next_plain = monotonic() + PLAIN
                print(harmless(plain(snapshot)), file=sys.stderr, flush=True)
            return
        self._show(harmless(drawn(snapshot), keep="\n"))

    def close(self) -> None:
        """Take the view away. May be called again."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _show(self, text: str) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            console = Console(stderr=True, no_color="NO_COLOR" in os.environ, highlight=False)
            # Live shows what steps print above itself, and leaves nothing when it ends.
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


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
