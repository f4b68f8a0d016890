"""Runs the techniques in turn over the same records: equality and memory first, then time, processor, first result."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from taktline._compare.contestants import ONE_PROCESS_BATCHED, TECHNIQUES, Measurement, Score, dear_alone
from taktline._compare.subject import Subject, of_records, of_tables
from taktline._compare.table import PREDICTED_CORES, PREDICTED_ROW, Comparison, comparison
from taktline._observe import memory
from taktline._planner.whatif import predict
from taktline._recipe.numbers import is_whole
from taktline._recipe.options import Options, checked, usable_cores
from taktline._recipe.plan import technique
from taktline._run.first_rows import first_rows
from taktline._run.in_memory import Tables
from taktline._run.reader import looked_at
from taktline._run.trial import try_out
from taktline._segment import policies
from taktline.errors import LineError
from taktline.views.progress import Status

if TYPE_CHECKING:
    from taktline._line import Line


LIMIT = 20_000  # records that are compared where it is not said; and
LIMIT_ALONE = 1_000  # where a table is made of each: that takes a millisecond or so
LIMIT_ROWS, LIMIT_BYTES = 1_000_000, 64 << 20  # the same of rows that go as tables: whatever is reached first
LOOK = 0.05  # seconds between two looks at memory
SLOW, SLOWER = 1.0, 1.5  # seconds, and times the loop's, from which one round of a technique tells enough of it


def compare(
    flow: Line, records: Iterable[Any], *, limit: int | None = None, rounds: int = 3, workers: int | None = None,
    reference: bool = True, predictions: bool = True, progress: bool | Callable[[str], None] | None = None,
    on_error: str = "raise", setup: Callable[[], object] | None = None,
) -> Comparison:  # fmt: skip
    """Compare the four techniques, and the standard library's own ways, on the first `limit` records; where the source has
    columns and the first step takes them on its first tables, such as row groups, until they have as many rows.

    With `on_error="skip"` lines that are no records and records that end or stop their process are left out beforehand, and
    all techniques leave out those that fail. `setup` is called in each process, as in a run. Raises LineError for a limit,
    rounds or workers below 1, for other options, and where there are no records; and with "raise" whatever the source or the
    plain loop raises on these records, or WorkerDied and StepTimeout where that would end or stop this process.
    """
    asked, limit = limit, limit if limit is not None else LIMIT if not dear_alone(flow) else LIMIT_ALONE
    for name, value in (("limit", limit), ("rounds", rounds), ("workers", workers if workers is not None else 1)):
        if not is_whole(value, least=1):
            raise LineError(f"compare({name}={value!r}): give a whole number of at least 1")
    options = checked({"on_error": on_error, "setup": setup})
    if on_error == "keep":
        raise LineError(
            'compare() does not take on_error="keep": records that fail would count as results. Give "skip", or leave it out'
        )
    with Status("compare", progress) as say:
        if setup is not None:
            policies.set_up(setup)
        source, workers = looked_at(records), workers or usable_cores()
        say("the first rows as tables")
        size = LIMIT_BYTES if asked is None else None
        if (found := first_rows(flow.steps, source, asked or LIMIT_ROWS, size=size)) is not None:
            subject = of_tables(flow, found, source, workers, reference, options, say)
        else:
            subject = of_records(flow, source, limit, workers, reference, options, say)
        return _compared(subject, rounds, workers, predictions, options, say)


def _compared(
    subject: Subject, rounds: int, workers: int, predictions: bool, options: Options, say: Status
) -> Comparison:
    if not len(subject.taken):
        raise LineError(f"there is nothing to compare: {subject.left_out or 'the source has no records'}")
    scores = [Score(each) for each in subject.contestants]
    for n, each in enumerate(scores):  # a round of its own, since looking at memory takes time
        known = [before.seconds for before in scores[:n]]
        left = (sum(known) + max(known) * (len(scores) - n)) * rounds if known else None
        say(f"are the results of {each.contestant.name} identical?", left)
        took = _check(each, subject)
        if rounds == 1 and took is not None and took.seconds > max(SLOW, SLOWER * scores[0].seconds):
            each.times.append(took)  # looking at memory has cost it little beside what it lacks
    predicted: dict[str, float] = {}
    if predictions:
        say("what the records cost, for the predictions")
        predicted = _predicted(subject.flow, subject.taken, workers, options)
    for turn in range(rounds):
        for n, each in enumerate(scores):
            if not each.problem and len(each.times) <= turn:
                say(f"round {turn + 1} of {rounds}: {each.contestant.name}", _left(scores, n, rounds - turn - 1))
                _time(each, subject.taken)
    return comparison(
        scores, predicted, records=len(subject.taken), step_names=tuple(step.name for step in subject.flow.steps),
        rounds=rounds, left_out=subject.left_out,
    )  # fmt: skip


def _left(scores: list[Score], at: int, rounds: int) -> float:
    """How many seconds the rounds take yet, about: the rest of this one, which is at a contestant, and so many more."""
    each = [0.0 if one.problem else one.seconds for one in scores]
    return sum(each[at:]) + sum(each) * rounds


def _check(score: Score, subject: Subject) -> Measurement | None:
    """Run it once: whether its results are the loop's, and the most memory that all processes held. What it took."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, memory.held(memory.tree(os.getpid())))
            if stop.wait(LOOK):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    began = perf_counter()
    watcher.start()
    try:
        results, took = score.contestant.measure(subject.taken)
    except Exception as error:
        score.problem = _fails(error)
        return None
    else:
        score.problem = subject.differs(subject.expected, results, took.reckoned_from is not None)
        return took
    finally:
        stop.set()
        watcher.join()
        score.peak, score.seconds = peak or memory.held_here(), perf_counter() - began


def _time(score: Score, taken: Any) -> None:
    try:
        score.times.append(score.contestant.measure(taken)[1])
    except Exception as error:
        score.problem = _fails(error)


def _fails(error: Exception) -> str:
    return f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _predicted(flow: Line, taken: Any, workers: int, options: Options) -> dict[str, float]:
    """Seconds by technique, from a trial of the first records; empty where they cannot be tried."""
    tried = try_out(flow.steps, flow.name, taken, workers, options=options)
    tables = isinstance(taken, Tables)
    if not tried.costs.records or (tables and not tried.costs.table):
        return {}
    found = {}
    if tables:  # each was tried as a whole
        found[ONE_PROCESS_BATCHED] = predict(
            tried.costs, technique("loop", flow.steps, 0), records=len(taken), cores=1
        ).seconds
    for how in TECHNIQUES[1:] if tables else TECHNIQUES:
        plan = technique(how, flow.steps, workers)
        if plan.workers == 0 or not tried.obstacle:
            found[how] = predict(tried.costs, plan, records=len(taken), cores=usable_cores()).seconds
    if not tried.obstacle and (line := technique("line", flow.steps, PREDICTED_CORES)).workers:
        found[PREDICTED_ROW] = predict(tried.costs, line, records=len(taken), cores=PREDICTED_CORES).seconds
    return found
