"""What is shown of a run: some lines for people, in pieces that may have a colour, and one line for a log."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from taktline._excerpts import harmless
from taktline._observe.measures import cost, duration, rate
from taktline._observe.snapshot import Snapshot, StepCount

BAR = 10  # characters of a step's bar
LENGTH = 52  # of the bar of the whole run
STEPS = 8  # rows for steps: with head and foot 12 lines at most
SOON = 0.5  # seconds that are left, below which nothing is said of it: it may take longer than was thought
DIGITS = 3  # of a number of records that is only reckoned
BOTTLENECK, FAILED, DONE = "bottleneck", "failed", "done"  # the colours; each stands beside a word that says the same

Row = list[tuple[str, str]]  # texts, each with its colour, or an empty one


class Doing(NamedTuple):
    """What something does now that is no run, such as a comparison: how far it is, in words, and for how long yet."""

    name: str
    says: str
    seconds: float
    left: float | None = None  # seconds, about


def plain(what: Snapshot | Doing) -> str:
    """One line for a log."""
    if isinstance(what, Doing):
        return f"{what.name}: {what.says}"
    return f"{what.name[:30]}: {_progress(what)}{_failed(what, ' · ')}"


def rows(what: Snapshot | Doing, *, brief: bool = False, columns: int = 80) -> list[Row]:
    """At most 12 rows for a terminal; `brief`: one. No text in them steers a terminal, and none is longer than a row."""
    if isinstance(what, Doing):
        left = f" · about {duration(what.left)} left" if what.left is not None and what.left >= SOON else ""
        says = _short(f" {_clean(what.name)}: {_clean(what.says)}", columns - 10 - len(left))
        return [[(f"{says}{left}", ""), (_clock(what.seconds), "")]]
    return [_status(what, columns)] if brief else _drawn(what, columns)


def text(drawn: list[Row]) -> str:
    """The rows without their colours."""
    return "\n".join("".join(each for each, _ in row) for row in drawn)


def _drawn(snapshot: Snapshot, columns: int) -> list[Row]:
    workers = f"{snapshot.workers} workers" if snapshot.workers else "this process"
    head = f" {_short(_clean(snapshot.name), 32)}  {snapshot.how} · {workers} · batch {snapshot.batch_size:,}"
    drawn: list[Row] = [[(f"{_short(head, 70):<70}{_clock(snapshot.seconds)}", "")]]
    drawn += _steps(snapshot)
    if snapshot.nodes:
        drawn.append([(_short(f" {_nodes(snapshot)}", columns - 1), "")])
    drawn.append([(f" {_progress(snapshot)}", "")])
    if snapshot.failed:
        # A file's name is never cut: it goes on in the next row.
        line = f" {_failed(snapshot)}"
        drawn += [[(line[at : at + columns - 1], FAILED)] for at in range(0, len(line), columns - 1)]
    if snapshot.total:
        done, left = _ahead(snapshot)
        width = round(done * LENGTH)
        drawn.append([(f" {'━' * width}", DONE), (f"{'╌' * (LENGTH - width)}  {done:>4.0%}  {left}", "")])
    return drawn


def _status(snapshot: Snapshot, columns: int) -> Row:
    """How far a run is, in one row."""
    ahead = ""
    if snapshot.total:
        done, left = _ahead(snapshot)
        ahead = f" · {done:.0%} · {left}"
    slowest = max(snapshot.steps, key=lambda step: step.busy, default=None)
    line = f" {_progress(snapshot, short=True)}{ahead}"
    row = [(line, "")]
    if snapshot.failed:
        row.append((f" · {snapshot.failed:,} failed", FAILED))
    if slowest is not None and slowest.busy and len(snapshot.steps) > 1:
        row.append((f" · bottleneck {_short(_clean(slowest.name), 14)}", BOTTLENECK))
    return [*row, (f" · {_clock(snapshot.seconds).strip()}", "")]


def _steps(snapshot: Snapshot) -> list[Row]:
    """The dearest steps, in the order of the line, and what the others take together."""
    steps = snapshot.steps
    dearest = sorted(range(len(steps)), key=lambda n: -steps[n].busy)
    most = STEPS - bool(snapshot.nodes)
    shown = sorted(dearest if len(steps) <= most else dearest[: most - 1])
    rest = [steps[n] for n in range(len(steps)) if n not in shown]
    drawn = [_step(steps[n], snapshot, slowest=n == dearest[0] and len(steps) > 1) for n in shown]
    if rest:
        whole = sum(step.busy for step in steps)
        share = sum(step.busy for step in rest) / whole if whole else 0.0
        drawn.append([(f" … {len(rest)} more, {share:.0%} of the busy time together", "")])
    return drawn


def _nodes(snapshot: Snapshot) -> str:
    """The machines that workers run on, the busiest last: it is the idle ones that tell something."""
    busy = {node.name: node.busy / (snapshot.seconds * max(1, node.workers) or 1) for node in snapshot.nodes}
    shown = sorted(busy, key=lambda name: busy[name])
    return f"{len(shown)} nodes: " + " · ".join(f"{_clean(name)} busy {min(1.0, busy[name]):.0%}" for name in shown)


def _step(step: StepCount, snapshot: Snapshot, *, slowest: bool) -> Row:
    capacity = snapshot.seconds * max(1, snapshot.workers)
    share = min(1.0, step.busy / capacity) if capacity else 0.0
    full = round(share * BAR)
    bar = "█" * full + "░" * (BAR - full)
    line = f" {_short(_clean(step.name), 14):<14} {bar}  busy {share:>4.0%}  {cost(step.ns_per_record):>12}"
    return [(line, ""), ("  ◄ bottleneck", BOTTLENECK)] if slowest and step.busy else [(line, "")]


def _ahead(snapshot: Snapshot) -> tuple[float, str]:
    """The share that is done, and how long it takes yet."""
    total = snapshot.total or 1
    done = min(0.99 if snapshot.reckoned else 1.0, snapshot.records_in / total)
    here = snapshot.records_in - snapshot.resumed_at
    if not here:
        return done, ""
    return done, f"{duration(snapshot.seconds * max(0, total - snapshot.records_in) / here)} left"


def _progress(snapshot: Snapshot, *, short: bool = False) -> str:
    speed = rate((snapshot.records_in - snapshot.resumed_at) / snapshot.seconds) if snapshot.seconds else ""
    window = f" of {snapshot.window:,}" if snapshot.window is not None else ""
    under_way = "" if short else f" · {snapshot.in_flight:,}{window} in flight"
    return f"{snapshot.records_in:,}{_of(snapshot)} records · {speed}{under_way}"


def _failed(snapshot: Snapshot, before: str = "") -> str:
    aside = f" → {_clean(snapshot.dead_letters)}" if snapshot.dead_letters else ""
    return f"{before}{snapshot.failed:,} failed{aside}" if snapshot.failed else ""


def _of(snapshot: Snapshot) -> str:
    total = snapshot.total
    if total is None:
        return ""
    return f" of about {round(total, DIGITS - len(str(total))):,}" if snapshot.reckoned else f" of {total:,}"


def _clock(seconds: float) -> str:
    """Minutes and seconds, which move each second."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:{minutes:02}' if hours else f'{minutes:02}'}:{rest:02}".rjust(9)


def _clean(said: str) -> str:
    return harmless(said)


def _short(said: str, most: int) -> str:
    return said if len(said) <= most else f"{said[: most - 1]}…"


def cut(row: Row, columns: int) -> Row:
    """As much of a row as stands in so many columns."""
    width = 0
    kept: Row = []
    for said, colour in row:
        for n, char in enumerate(said):
            width += 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if width > columns:
                return [*kept, (said[:n], colour)]
        kept.append((said, colour))
    return kept
