"""Who is compared: our own techniques, each as a function of the records that gives its results and what they took."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._recipe.options import Options
from taktline._run.first_rows import all_here, came_of
from taktline._run.in_memory import Tables
from taktline._run.run import outputs_of
from taktline.views.progress import hidden

if TYPE_CHECKING:
    from taktline._line import Line
    from taktline._observe.snapshot import Report
    from taktline._run.run import Run


TECHNIQUES = ("loop", "pool", "queues", "line")
ONE_PROCESS_BATCHED = "one process, batched"
LOOP_SECONDS = 0.5  # of the loop over rows of tables, one by one: what it takes for all is reckoned from those,
LOOP_LEAST = 16  # of which there are so many at least


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one technique."""

    seconds: float
    cpu: float
    first: float | None
    report: Report | None = None  # of our own techniques
    reckoned_from: int | None = None  # records: the first so many were timed
    others: float = 0.0  # the share of the machine's cores that other programs had


Measure = Callable[[Any], tuple[list[Any], Measurement]]


class Contestant(NamedTuple):
    """Who takes part."""

    name: str
    how: str  # a technique; empty: a reference
    measure: Measure


@dataclass(slots=True)
class Score:
    """What was found of a contestant so far."""

    contestant: Contestant
    problem: str = ""  # why it has no times
    peak: int = 0  # the most bytes that all processes held
    seconds: float = 0.0  # that it took with somebody looking at memory
    times: list[Measurement] = field(default_factory=list)


def our_own(
    flow: Line, technique: Callable[[Line, Any, int, Options], Measure], workers: int, options: Options
) -> list[Contestant]:
    """All techniques, and the line in one process."""
    steps = flow.steps
    found = [
        Contestant(_called(how, workers, len(steps)), how, technique(flow, how, workers, options)) for how in TECHNIQUES
    ]
    here = type(flow)(all_here(steps), flow.name)  # in batches, and where nothing is left to choose
    found.insert(1, Contestant(ONE_PROCESS_BATCHED, ONE_PROCESS_BATCHED, technique(here, "auto", workers, options)))
    return found


def _called(how: str, workers: int, steps: int) -> str:
    return {
        "loop": "loop", "pool": f"pool ({workers})", "queues": f"queues, {max(workers, steps)} processes",
        "line": f"line, batched ({workers})",
    }[how]  # fmt: skip


def by_technique(
    flow: Line, how: Any, workers: int, options: Options, taken: Callable[[Run], list[Any]] = list
) -> Measure:
    """A run by a technique. `taken`: how its results are taken."""

    def measure(source: Any) -> tuple[list[Any], Measurement]:
        run = flow(source, how=how, workers=workers, progress=hidden, on_error=options.on_error, setup=options.setup)
        began = perf_counter()
        results = taken(run)
        seconds = perf_counter() - began
        report = run.report
        return results, Measurement(
            seconds, report.cpu_seconds, report.first_result, report, others=report.others or 0.0
        )

    return measure


def technique_over_tables(flow: Line, how: Any, workers: int, options: Options) -> Measure:
    return by_technique(flow, how, workers, options, lambda run: list(came_of(outputs_of(run))))


def loop_over_rows(flow: Line, options: Options) -> Measure:
    """The loop, row by row, for some time: what all of them would take is reckoned from those."""

    def measure(rows: Tables) -> tuple[list[Any], Measurement]:
        run = flow(rows, how="loop", progress=hidden, on_error=options.on_error, setup=options.setup)
        results: list[Any] = []
        began, seconds = perf_counter(), 0.0
        with closing(run):
            for output in outputs_of(run):
                results += came_of([output])
                seconds = perf_counter() - began
                if seconds > LOOP_SECONDS and output.first + output.records >= LOOP_LEAST:
                    break
        report = run.report
        done, many = report.records_in, len(rows)
        share = many / max(1, done)
        reckoned_from = done if done < many else None
        return results, Measurement(
            seconds * share, report.cpu_seconds * share, report.first_result, report, reckoned_from, report.others or 0.0
        )  # fmt: skip

    return measure


def dear_alone(flow: Line) -> bool:
    """Whether a step takes columns, of which techniques that move one record at a time make a table a record."""
    return any(step.form != "list" and step.like is None for step in flow.steps)
