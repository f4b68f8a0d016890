"""The table: a row a technique, and what its figures say."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from taktline._compare.contestants import ONE_PROCESS_BATCHED, Measurement, Score
from taktline._excerpts import readable
from taktline._observe import cores, pages, web
from taktline._observe.verdict import noise
from taktline._public import named
from taktline._recipe.options import usable_cores

if TYPE_CHECKING:
    from taktline._observe.snapshot import Report


TIE = 0.02  # share by which two times may differ and still be called equal
PREDICTED_CORES = 8  # of the machine that the line is predicted for
PREDICTED_ROW = f"line on {PREDICTED_CORES} cores (predicted)"


@dataclass(frozen=True, slots=True)
class Row:
    """One technique. Times in seconds (means), memory in bytes, `cpu_utilisation` a share of the usable cores."""

    technique: str
    reference: bool
    seconds: float = 0.0
    spread: float | None = None  # standard deviation of the rounds
    cpu_utilisation: float = 0.0
    speed_up: float = 0.0
    peak_memory: int = 0
    first_result: float | None = None
    identical: bool = True
    problem: str = ""  # why it has no times
    predicted: float | None = None  # seconds, by the what-if
    error: float | None = None  # of the prediction, as a share of the measured time
    measured: bool = True  # False: a machine that is not here; all figures are predicted
    tie: bool = False  # as fast as the fastest, as far as can be told
    reckoned_from: int | None = None  # records that were timed, where its times for all of them are reckoned from those
    history: dict[str, Any] = field(default_factory=dict)  # of one round: who did what when, for the page


@dataclass(frozen=True, slots=True)
class Comparison:
    """The techniques side by side. `str()` is the table."""

    records: int
    steps: int
    cores: int
    rounds: int
    left_out: str
    rows: tuple[Row, ...]
    fastest: str
    closing: str
    step_names: tuple[str, ...] = ()
    busy: tuple[float, ...] = ()  # seconds of each step, in the loop
    doubt: str = ""  # why the times may be wrong: other programs on the cores

    def __repr__(self) -> str:
        return readable(f"<Comparison of {len(self.rows)} ways over {self.records:,} records: {self.closing}>")

    def __str__(self) -> str:
        return readable(pages.comparison_text(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(self.to_dict())

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return pages.comparison_markdown(self.to_dict())

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write it as one HTML file without outside assets, to a path or a URL: the table, the times as bars, and who did
        what when under each technique."""
        from taktline._files import write_at

        write_at(os.fspath(path), web.html_page("comparison", web.comparison_html(self.to_dict())).encode())

    def _repr_html_(self) -> str:
        return web.comparison_html(self.to_dict())


def comparison(
    scores: list[Score], predicted: dict[str, float], *, records: int, step_names: tuple[str, ...], rounds: int,
    left_out: str,
) -> Comparison:  # fmt: skip
    """The table of what was found. `predicted`: seconds, by technique."""
    rows = [_row(each, scores[0], predicted.get(each.contestant.how)) for each in scores]
    ours = [row for row in rows if not row.problem and not row.reference]
    fastest = min(ours, key=lambda row: row.seconds).technique if ours else ""
    rows = [replace(row, tie=_ties(row, ours, fastest)) for row in rows]
    if (there := predicted.get(PREDICTED_ROW)) is not None and not rows[0].problem:
        rows.append(Row(PREDICTED_ROW, True, seconds=there, speed_up=rows[0].seconds / there, measured=False))
    times = [took for each in scores for took in each.times]
    return Comparison(
        records=records, steps=len(step_names), cores=usable_cores(), rounds=rounds, left_out=left_out, rows=tuple(rows),
        fastest=fastest, closing=_closing(rows, fastest), step_names=step_names, busy=_busy(times), doubt=_doubt(times),
    )  # fmt: skip


def _row(score: Score, loop: Score, guess: float | None) -> Row:
    """`guess`: the seconds that were predicted."""
    each, times = score.contestant, score.times
    if score.problem:
        return Row(each.name, not each.how, identical=False, problem=score.problem)
    seconds = [took.seconds for took in times]
    mean = statistics.mean(seconds)
    firsts = [took.first for took in times if took.first is not None]
    base = statistics.mean(took.seconds for took in loop.times) if loop.times else mean
    return Row(
        each.name, not each.how, seconds=mean, spread=statistics.stdev(seconds) if len(seconds) > 1 else None,
        cpu_utilisation=min(1.0, statistics.mean(took.cpu for took in times) / (mean * usable_cores())),
        speed_up=base / mean, peak_memory=score.peak, first_result=statistics.mean(firsts) if firsts else None,
        predicted=guess, error=(guess - mean) / mean if guess is not None else None,
        reckoned_from=times[-1].reckoned_from, history=_history(times[-1].report),
    )  # fmt: skip


def _history(report: Report | None) -> dict[str, Any]:
    """Who did what when, for the page."""
    if report is None:
        return {}
    return {"seconds": report.seconds, **{name: report.history[name] for name in ("rows", "cell_seconds")}}


def _busy(times: list[Measurement]) -> tuple[float, ...]:
    """What each step takes, in the first run that has a report."""
    report = next((took.report for took in times if took.report is not None), None)
    return tuple(step.busy for step in report.steps) if report is not None else ()


def _doubt(times: list[Measurement]) -> str:
    """Why the times may be wrong; empty where nothing speaks against them.

    >>> _doubt([Measurement(2.0, 1.9, None, others=0.9), Measurement(1.0, 1.9, None, others=0.3)])
    'Other programs took 70% of the cores: repeat the comparison when they have ended.'
    >>> _doubt([Measurement(2.0, 1.9, None, others=0.1)])
    ''
    """
    others = cores.Others()
    for took in times:
        others.add(took.seconds, took.others)
    return noise(others.share, "comparison")


def _ties(row: Row, ours: list[Row], fastest: str) -> bool:
    """Whether the row is as fast as the fastest: within a share of it, or within what the rounds differ."""
    best = next((each for each in ours if each.technique == fastest), None)
    if best is None or row.problem or row.reference or row.technique == fastest:
        return False
    return row.seconds - best.seconds <= max(TIE * best.seconds, (row.spread or 0.0) + (best.spread or 0.0))


def _closing(rows: list[Row], fastest: str) -> str:
    """What to do, and which of the standard library's ways took less than that."""
    said = _what_to_do(rows, fastest)
    best = next((row for row in rows if row.technique == fastest), None)
    other = min((row for row in rows if row.reference and not row.problem), key=lambda row: row.seconds, default=None)
    if best is None or other is None or other.seconds >= best.seconds * (1 - TIE):
        return said
    return f"{said} {other.technique}, here for reference, is {best.seconds / other.seconds:.1f} times as fast."


def _what_to_do(rows: list[Row], fastest: str) -> str:
    good = {row.technique: row for row in rows if not row.problem and not row.reference}
    if not good:
        return "No technique gave the loop's results."
    best = good[fastest]
    tied = [row.technique for row in good.values() if row.tie]
    tie = f" A tie: {', '.join(tied)} {'is' if len(tied) == 1 else 'are'} as fast as can be told." if tied else ""
    if fastest == "loop" or good.get("loop", best).tie:
        return f"Stay with the loop: no technique is faster on these records.{tie}"
    batched = good.get(ONE_PROCESS_BATCHED, best)
    if fastest == ONE_PROCESS_BATCHED or batched.tie:
        return f"Stay in one process, in batches: no technique is faster on these records.{tie}"
    beside = f", {batched.seconds / best.seconds:.1f} times {ONE_PROCESS_BATCHED}" if batched is not best else ""
    return f"{fastest} is the fastest, {best.speed_up:.1f} times the loop{beside}.{tie}"


named(globals())
