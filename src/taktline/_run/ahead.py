"""Records go ahead through workers before anything is tried with them here: what fails, kills or hangs is known by then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from taktline._observe.snapshot import Report
from taktline._recipe.options import Options
from taktline._recipe.steps import Step
from taktline._run.run import Run, outputs_of
from taktline.abc import Source, Unread
from taktline.errors import Failed, StepError, StepTimeout, WorkerDied
from taktline.views.progress import hidden

HANGS_AFTER = 20.0  # seconds that a step which has no time limit of its own may take for one record
HUNG = 2  # such records after which no more go ahead


class Ahead(NamedTuple):
    """What came of the records: results, and a Failed in the place of each that failed; by the index in what was given. Of
    tables the results that came together, apart from what failed."""

    results: list[Any]
    failed: list[Failed]
    read: int  # records that went ahead
    report: Report
    missed: Sequence[str]  # what workers do not have as it is here

    @property
    def ended(self) -> str:
        """Why records behind these were not sent ahead; empty where they were."""
        return f"{HUNG} records took too long" if sum(map(hung, self.failed)) >= HUNG else ""


def hung(failed: Failed) -> bool:
    """Whether it was ended because it took too long."""
    return isinstance(failed.error, StepTimeout)


def harms(failed: Failed) -> bool:
    """Whether it would end, or stop, the process that it is tried in."""
    return hung(failed) or isinstance(failed.error, WorkerDied)


def cannot_go(failed: Failed) -> bool:
    """Whether no step has failed: it, or what comes of it, cannot go between processes."""
    return isinstance(failed.error, StepError) and failed.error.moving


def send(
    steps: tuple[Step, ...], name: str, records: Iterable[Any], *, workers: int, source: object = None,
    options: Options | None = None, keep: bool = False, came: Callable[[], None] = lambda: None,
) -> Ahead:  # fmt: skip
    """Send records through workers; each may be an Unread. Raises what a run raises that cannot begin, or go on.

    `source`: what they were read from, whose word it is whether workers may be forked beside it. `options`: of the run
    that is to be, of which `start`, `setup` and `on` count. `keep`: the results are wanted. `came` is
    called when one is there."""
    feed = _Feed(records, source)
    failed: list[Failed] = []
    results: list[Any] = []
    run = _run(steps, name, feed, "keep", workers, options)
    left = HUNG
    with closing(run):
        for each in run:
            if keep:
                results.append(each)
            if isinstance(each, Failed):
                failed.append(each)
                left -= hung(each)
                if not left:  # in input order: all before it have come
                    return Ahead(results, failed, each.index + 1, run.report, tuple(run.missed))
            came()
    return Ahead(results, failed, feed.count, run.report, tuple(run.missed))


def send_tables(
    steps: tuple[Step, ...], name: str, rows: Source, *, workers: int, options: Options | None = None
) -> Ahead:
    """As `send`, of a source with columns, whose rows go as tables. The results are what came together."""
    failed: list[Failed] = []
    results: list[Any] = []
    left, read = HUNG, 0
    run = _run(steps, name, rows, "skip", workers, options)
    with closing(run):
        for output in outputs_of(run):
            if len(output):
                results.append(output.results)
            for each in output.failures:
                failed.append(Failed(each.index, each.record, each.step, each.error))
                left -= hung(failed[-1])
            read = output.first + output.records
            if left <= 0:
                break
    return Ahead(results, failed, read, run.report, tuple(run.missed))


def _run(
    steps: tuple[Step, ...], name: str, source: Source, on_error: Literal["skip", "keep"], workers: int,
    options: Options | None,
) -> Run:  # fmt: skip
    """Through workers, each step within a time."""
    wanted = options or Options()
    limited = tuple(step if step.in_caller or step.timeout else replace(step, timeout=HANGS_AFTER) for step in steps)
    return Run(
        limited, name, source,
        Options(
            how="line", workers=workers, on_error=on_error, progress=hidden, start=wanted.start, setup=wanted.setup,
            on=wanted.on,
        ),
    )  # fmt: skip


class _Feed(Source):
    """The records, counted."""

    def __init__(self, records: Iterable[Any], source: object) -> None:
        self._records = records
        self.forks = source.forks if isinstance(source, Source) else True  # it is read while this is
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        return self.read([])

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        for record in self._records:
            if type(record) is Unread:
                unread.append(record)
            self.count += 1
            yield record
