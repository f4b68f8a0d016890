"""What is compared: the first records or rows, without those that would end a process, and what all must make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._compare.contestants import Contestant, by_technique, loop_over_rows, our_own, technique_over_tables
from taktline._compare.difference import difference, difference_in_tables
from taktline._compare.plain_loop import plain_loop
from taktline._compare.reference import AS_TABLES, POOL_CHUNKS, references
from taktline._planner.advise import Failures
from taktline._recipe.options import Options, usable_cores
from taktline._recipe.plan import keyed
from taktline._recipe.steps import Role, Step
from taktline._run import ahead
from taktline._run.first_rows import FirstRows, all_here, came_of, without_rows
from taktline._run.in_memory import Tables
from taktline._run.reader import Reader, lent
from taktline._run.run import outputs_of
from taktline._segment import first_results
from taktline._segment.batch import READING_STEP
from taktline._segment.values import records_of
from taktline.abc import Unread
from taktline.errors import Failed, LineError, ResultsTooLarge, StepError, TaktlineError
from taktline.views.progress import Status, hidden

if TYPE_CHECKING:
    from taktline._line import Line


MOST_GIVEN = 200_000  # results of a record, in all steps that expand; of one that gives more
GIVEN = 10_000  # are compared
WAIT = 10.0  # seconds for a record of a source whose records come when they come


class Subject(NamedTuple):
    """What is compared: a line, some records or rows, what the loop makes of them, and who else makes something of them."""

    flow: Line
    taken: Any  # records in a list, or tables
    expected: list[Any]  # results, or what came together of them
    contestants: list[Contestant]
    left_out: str
    differs: Callable[[list[Any], list[Any], bool], str]  # expected and other results, or the first of those alone


def of_records(
    flow: Line, records: Iterable[Any], limit: int, workers: int, reference: bool, options: Options, say: Status
) -> Subject:
    """What is compared of a source of records. All must give what the plain loop gives."""
    failures = Failures()
    by_index, left_out = _first(records, limit, failures, goes_on=options.goes_on)
    say("does a record end the process that it is tried in?")
    _take_harm_out(flow, by_index, workers, options, failures)
    taken, indexes = list(by_index.values()), list(by_index)
    if keyed(flow.steps) is not None:  # of which the plain loop knows nothing
        say("one process, batched, for the results that all must have")
        pieces = _in_one_process(flow, taken, options, failures, indexes)
        expected = [record for some in pieces for record in records_of(some)]
        contestants = our_own(flow, by_technique, workers, options)
        return Subject(flow, taken, expected, contestants, _and_failures(left_out, failures), difference)
    say("the plain loop, for the results that all must have")
    expected, too_many = _expected(flow.steps, taken, indexes, failures if options.goes_on else None)
    if too_many is not None:
        record = indexes[too_many.record]
        flow, left_out = too_many.cut(flow, record)
        del taken[too_many.record + 1 :]
        failures.records = {index for index in failures.records if index <= record}
        expected = list(plain_loop(flow.steps, taken, indexes, failures if options.goes_on else None))
    contestants = our_own(flow, by_technique, workers, options)
    if not any(step.role is Role.BATCH for step in flow.steps):
        del contestants[1]  # there are no batches
    if reference:
        contestants += references(flow.steps, workers, max(1, len(taken) // (workers * POOL_CHUNKS)), options)
    return Subject(flow, taken, expected, contestants, _and_failures(left_out, failures), difference)


def of_tables(
    flow: Line, found: FirstRows, source: Any, workers: int, reference: bool, options: Options, say: Status
) -> Subject:
    """What is compared of a source with columns: tables, as a run gets them. All must give what one process gives, batched:
    the loop, which calls such a step once a row, would take too long over all of them."""
    failures, rows = Failures(), found.rows
    say("does a row end the process that it is tried in?")
    if any(not step.in_caller for step in flow.steps):
        rows = _without_harm(flow, rows, workers, options, failures)
    say("one process, batched, for the results that all must have")
    expected = _in_one_process(flow, rows, options, failures)
    contestants = our_own(flow, technique_over_tables, workers, options)
    contestants[0] = Contestant("loop", "loop", loop_over_rows(flow, options))
    if reference and keyed(flow.steps) is None:
        contestants += references(flow.steps, workers, 1, options, AS_TABLES)
    left_out = _behind(source, len(found.rows), rows=True) if found.behind else ""
    return Subject(flow, rows, expected, contestants, _and_failures(left_out, failures), difference_in_tables)


def _in_one_process(
    flow: Line, taken: Any, options: Options, failures: Failures, indexes: list[int] | None = None
) -> list[Any]:
    """What comes together in this process. `indexes`: of what was taken, where that is not all."""
    here = type(flow)(all_here(flow.steps), flow.name)
    run = here(taken, progress=hidden, on_error=options.on_error, setup=options.setup)
    found: list[Any] = []
    for output in outputs_of(run):
        found += came_of([output])
        for each in output.failures:
            failures.add(each.index if indexes is None else indexes[each.index], each.step, each.error)
    return found


def _and_failures(left_out: str, failures: Failures) -> str:
    if not failures.records:
        return left_out
    many = len(failures.records)
    return (
        f"{left_out}{'; ' if left_out else ''}{many:,} fail{'s' * (many == 1)}, and give{'s' * (many == 1)} no result: "
        f"{'; '.join(map(str, failures.by_step()))}"
    )


def _first(records: Iterable[Any], limit: int, failures: Failures, *, goes_on: bool) -> tuple[dict[int, Any], str]:
    """The first records by index, and what is said of those behind them."""
    reader = Reader(records, delivers=False, goes_on=goes_on)
    taken: dict[int, Any] = {}
    with lent(records):
        while reader.index < limit and (some := reader.read_within(limit - reader.index, WAIT)):
            for index, record in enumerate(some, reader.index - len(some)):
                if type(record) is Unread:
                    failures.add(index, READING_STEP, record.error)
                else:
                    taken[index] = record
        if reader.error is not None:
            raise reader.error
        if reader.ended or (not reader.read(1) and reader.error is None):
            return taken, ""
    return taken, _behind(records, limit)


def _behind(source: Any, count: int, *, rows: bool = False) -> str:
    """What is said of the records, or rows, behind the first ones."""
    what = "rows" if rows else "records"
    try:
        whole = len(source)
    except TypeError:
        return f"the first {count:,} {what}; what comes after them was left out"
    return f"the first {count:,} of {whole:,} {what}; {whole - count:,} were left out, and start-up weighs more"


def _take_harm_out(flow: Line, taken: dict[int, Any], workers: int, options: Options, failures: Failures) -> None:
    """Take out the records that would end or stop the process of the plain loop. Raises what tells of the first one where
    the run ends there."""
    if all(step.in_caller for step in flow.steps):
        return
    indexes = list(taken)
    steps, _ = first_results.cut(flow.steps, GIVEN)
    try:
        went = ahead.send(steps, flow.name, list(taken.values()), workers=min(workers, usable_cores()), options=options)
    except TaktlineError:  # they cannot go to workers: each technique tells of that itself
        return
    for mark in _harmful(went, options):
        failures.add(indexes[mark.index], mark.step, mark.error)
        del taken[indexes[mark.index]]


def _without_harm(flow: Line, rows: Tables, workers: int, options: Options, failures: Failures) -> Tables:
    """The rows but those that would end or stop the process that they are tried in. Raises as `_take_harm_out`."""
    try:
        went = ahead.send_tables(flow.steps, flow.name, rows, workers=min(workers, usable_cores()), options=options)
    except TaktlineError:  # they cannot go to workers: each technique tells of that itself
        return rows
    harmful = _harmful(went, options)
    for mark in harmful:
        failures.add(mark.index, mark.step, mark.error)
    return without_rows(rows, [mark.index for mark in harmful]) if harmful else rows


def _harmful(went: ahead.Ahead, options: Options) -> list[Failed]:
    """Which of the records that were sent ahead would end or stop the process that they are tried in. Raises what tells of
    the first one where the run ends there, and LineError where the workers did not come to an end."""
    harmful = [mark for mark in went.failed if ahead.harms(mark) or _ends_more(mark)]
    if harmful and not options.goes_on:
        raise harmful[0].error
    if went.ended:
        raise LineError(
            f"{went.ended}, and what comes behind them was not tried: compare others, or with step(timeout=)"
        )
    return harmful


def _ends_more(failed: Failed) -> bool:
    """Whether it would end the plain loop's whole program, as SystemExit does."""
    return isinstance(failed.error, StepError) and not failed.error.moving and "would end more" in failed.error.why


def _expected(
    steps: tuple[Step, ...], taken: list[Any], indexes: list[int], failures: Failures | None
) -> tuple[list[Any], _TooMany | None]:
    """The loop's results; and where one record gives more than is compared, which one that is."""
    if not any(step.role is Role.EXPAND for step in steps):
        return list(plain_loop(steps, taken, indexes, failures)), None
    budget, at = first_results.Budget(MOST_GIVEN), 0

    def one_by_one() -> Iterator[Any]:
        nonlocal at
        for at, record in enumerate(taken):  # noqa: B007  the loop's variable is what is asked for
            budget.begin()
            yield record

    try:
        return list(plain_loop(first_results.within(steps, budget), one_by_one(), indexes, failures)), None
    except ResultsTooLarge:
        if not budget.spent:
            raise
    return [], _TooMany(at, min(GIVEN, max(1, budget.given)))


class _TooMany(NamedTuple):
    """The record that gives more results than are compared, and how many of them are."""

    record: int
    results: int

    def cut(self, flow: Line, index: int) -> tuple[Line, str]:
        """The line that gives so many, and what is said of the others. `index`: the record's, in the source."""
        steps, _ = first_results.cut(flow.steps, self.results)
        return type(flow)(steps, flow.name), (
            f"record {index:,} gives endlessly many results, or more than are compared: of each record the first "
            f"{self.results:,} were; what comes after this record was left out"
        )
