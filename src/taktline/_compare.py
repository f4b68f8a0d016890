"""Runs the techniques in turn over the same records: equality and memory first, then time, processor, first result."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import connection
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._excerpts import excerpt
from taktline._observe import memory, pages, web
from taktline._planner.advise import Failures, technique
from taktline._planner.whatif import predict
from taktline._public import named
from taktline._recipe.options import Options, checked, usable_cores
from taktline._recipe.steps import Role, Step, is_async
from taktline._run import ahead
from taktline._run.reader import Reader, as_source, lent
from taktline._run.trial import try_out
from taktline._segment import firsts, guard
from taktline._segment.batch import READING, Batch
from taktline._segment.forms import Unfit, cannot_stand, form_of
from taktline._segment.fuse import Segment
from taktline._segment.waiting import OneByOne
from taktline.abc import Unread
from taktline.errors import Failed, LineError, ResultsTooLarge, StepError, TaktlineError
from taktline.views.progress import Status, hidden

if TYPE_CHECKING:
    from taktline._line import Line
    from taktline._observe.snapshot import Report

TECHNIQUES = ("loop", "pool", "queues", "line")
TIE = 0.02  # share by which two times may differ and still be called equal
CHUNKS = 16  # of Pool.imap's chunk size: so many chunks a worker, about what Pool.map chooses for itself
LIMIT = 20_000  # records that are compared where it is not said; and
LIMIT_ALONE = 1_000  # where a table is made of each: that takes a millisecond or so
MOST_GIVEN = 200_000  # results of a record, in all steps that expand; of one that gives more
GIVEN = 10_000  # are compared
WAIT = 10.0  # seconds for a record of a source whose records come when they come
LOOK = 0.05  # seconds between two looks at memory
CORES = 8  # of the machine that the line is predicted for
ELSEWHERE = f"line on {CORES} cores (predicted)"
SLOTS = 64  # records a queue of the reference line holds


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

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.rows)} ways over {self.records:,} records: {self.closing}>"

    def __str__(self) -> str:
        return pages.comparison_text(self.to_dict())

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


@dataclass(frozen=True, slots=True)
class _Taken:
    """One run of one technique."""

    seconds: float
    cpu: float
    first: float | None
    report: Report | None = None  # of our own techniques


Measured = Callable[[list[Any]], tuple[list[Any], _Taken]]


def compare(
    flow: Line, records: Iterable[Any], *, limit: int | None = None, rounds: int = 3, workers: int | None = None,
    reference: bool = True, predictions: bool = True, progress: bool | Callable[[str], None] | None = None,
    on_error: str = "raise", setup: Callable[[], object] | None = None,
) -> Comparison:  # fmt: skip
    """Compare the four techniques, and the standard library's own ways, on the first `limit` records.

    With `on_error="skip"` lines that are no records and records that end or stop their process are left out beforehand, and
    all techniques leave out those that fail. `setup` is called in each process, as in a run. Raises LineError for a limit,
    rounds or workers below 1 and for other options; and with "raise" whatever the source or the plain loop raises on these
    records, or WorkerDied and StepTimeout where that would end or stop this process.
    """
    limit = limit if limit is not None else LIMIT if not _dear_alone(flow) else LIMIT_ALONE
    for name, value in (("limit", limit), ("rounds", rounds), ("workers", workers if workers is not None else 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LineError(f"compare({name}={value!r}): give a whole number of at least 1")
    options = checked({"on_error": on_error, "setup": setup})
    if on_error == "keep":
        raise LineError('compare(on_error="keep"): the marks take no time; give "skip", or leave it out')
    with Status("compare", progress) as say:
        if setup is not None:
            guard.set_up(setup)
        return _compared(flow, as_source(records), limit, rounds, workers, reference, predictions, options, say)


def _compared(
    flow: Line, records: Iterable[Any], limit: int, rounds: int, workers: int | None, reference: bool, predictions: bool,
    options: Options, say: Status,
) -> Comparison:  # fmt: skip
    failures = Failures()
    by_index, left_out = _first(records, limit, failures, goes_on=options.goes_on)
    workers = workers or usable_cores()
    say("does a record end the process that it is tried in?")
    _take_harm_out(flow, by_index, workers, options, failures)
    taken, indexes = list(by_index.values()), list(by_index)
    say("the plain loop, for the results that all must have")
    expected, too_many = _expected(flow.steps, taken, indexes, failures if options.goes_on else None)
    if too_many is not None:
        record = indexes[too_many.record]
        flow, left_out = too_many.cut(flow, record)
        del taken[too_many.record + 1 :]
        failures.records = {index for index in failures.records if index <= record}
        expected = list(_plain_loop(flow.steps, taken, indexes, failures if options.goes_on else None))
    if failures.records:
        left_out += "; " if left_out else ""
        many = len(failures.records)
        left_out += f"{many:,} fail{'s' * (many == 1)}, and give{'s' * (many == 1)} no result: "
        left_out += "; ".join(map(str, failures.by_step()))
    contestants = _contestants(flow, taken, workers, reference, options)
    problems: dict[str, str] = {}
    peaks: dict[str, int] = {}
    taking: dict[str, float] = {}  # seconds, by contestant
    for n, each in enumerate(contestants):  # a round of its own, since looking at memory takes time
        about = [max(taking.values())] * (len(contestants) - n) if taking else []
        say(f"are the results of {each.name} identical?", sum((*taking.values(), *about)) * rounds if taking else None)
        began = perf_counter()
        problems[each.name], peaks[each.name] = _checked(each, taken, expected)
        taking[each.name] = perf_counter() - began
    predicted: dict[str, float] = {}
    if predictions:
        say("what the records cost, for the predictions")
        predicted = _predicted(flow, taken, workers, options)
    times: dict[str, list[_Taken]] = {each.name: [] for each in contestants}
    for turn in range(rounds):
        for n, each in enumerate(contestants):
            if not problems[each.name]:
                say(f"round {turn + 1} of {rounds}: {each.name}", _left(contestants, problems, taking, turn, n, rounds))
                problems[each.name] = _timed(each, taken, times[each.name])
    rows = [_row(each, times, problems[each.name], peaks[each.name], predicted) for each in contestants]
    ours = [row for row in rows if not row.problem and not row.reference]
    fastest = min(ours, key=lambda row: row.seconds).technique if ours else ""
    rows = [replace(row, tie=_ties(row, ours, fastest)) for row in rows]
    if (there := predicted.get(ELSEWHERE)) is not None and not rows[0].problem:
        rows.append(Row(ELSEWHERE, True, seconds=there, speed_up=rows[0].seconds / there, measured=False))
    return Comparison(
        records=len(taken), steps=len(flow.steps), cores=usable_cores(), rounds=rounds, left_out=left_out,
        rows=tuple(rows), fastest=fastest, closing=_closing(rows, fastest),
        step_names=tuple(step.name for step in flow.steps), busy=_busy(times),
    )  # fmt: skip


def _left(
    contestants: list[_Contestant], problems: dict[str, str], taking: dict[str, float], turn: int, at: int, rounds: int
) -> float:
    """How many seconds the rounds take yet, about, where this one is at a contestant."""
    each = [0.0 if problems[one.name] else taking[one.name] for one in contestants]
    return sum(each[at:]) + sum(each) * (rounds - turn - 1)


def _first(
    records: Iterable[Any], limit: int, failures: Failures, *, goes_on: bool
) -> tuple[dict[int, Any], str]:  # fmt: skip
    """The first records by index, and what is said of those behind them."""
    reader = Reader(records, delivers=False, goes_on=goes_on)
    taken: dict[int, Any] = {}
    with lent(records):
        while reader.index < limit and (some := reader.read_within(limit - reader.index, WAIT)):
            for index, record in enumerate(some, reader.index - len(some)):
                if type(record) is Unread:
                    failures.add(index, READING, record.error)
                else:
                    taken[index] = record
        if reader.error is not None:
            raise reader.error
        if reader.ended or (not reader.read(1) and reader.error is None):
            return taken, ""
    try:
        whole = len(records)  # type: ignore[arg-type]
    except TypeError:
        return taken, f"the first {limit:,} records; what comes after them was left out"
    return taken, f"the first {limit:,} of {whole:,} records; {whole - limit:,} were left out, and start-up weighs more"


def _take_harm_out(
    flow: Line, taken: dict[int, Any], workers: int, options: Options, failures: Failures
) -> None:  # fmt: skip
    """Take out the records that would end or stop the process of the plain loop. Raises what tells of the first one where
    the run ends there."""
    if all(step.in_caller for step in flow.steps):
        return
    indexes = list(taken)
    steps, _ = firsts.cut(flow.steps, GIVEN)
    try:
        went = ahead.send(steps, flow.name, list(taken.values()), workers=min(workers, usable_cores()), options=options)
    except TaktlineError:  # they cannot go to workers: each technique tells of that itself
        return
    for mark in went.failed:
        if not (ahead.harms(mark) or _ends_more(mark)):
            continue
        index = indexes[mark.index]
        if not options.goes_on:
            raise mark.error
        failures.add(index, mark.step, mark.error)
        del taken[index]
    if went.ended:
        raise LineError(
            f"{went.ended}, and what comes behind them was not tried: compare others, or with step(timeout=)"
        )


def _ends_more(failed: Failed) -> bool:
    """Whether it would end the plain loop's whole program, as SystemExit does."""
    return isinstance(failed.error, StepError) and not failed.error.moving and "would end more" in failed.error.why


def _expected(
    steps: tuple[Step, ...], taken: list[Any], indexes: list[int], failures: Failures | None
) -> tuple[list[Any], _TooMany | None]:
    """The loop's results; and where one record gives more than is compared, which one that is."""
    if not any(step.role is Role.EXPAND for step in steps):
        return list(_plain_loop(steps, taken, indexes, failures)), None
    budget, at = firsts.Budget(MOST_GIVEN), 0

    def one_by_one() -> Iterator[Any]:
        nonlocal at
        for at, record in enumerate(taken):  # noqa: B007  the loop's variable is what is asked for
            budget.begin()
            yield record

    try:
        return list(_plain_loop(firsts.within(steps, budget), one_by_one(), indexes, failures)), None
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
        steps, _ = firsts.cut(flow.steps, self.results)
        return type(flow)(steps, flow.name), (
            f"record {index:,} gives endlessly many results, or more than are compared: of each record the first "
            f"{self.results:,} were; what comes after this record was left out"
        )


class _Contestant(NamedTuple):
    name: str
    how: str  # a technique; empty: a reference
    measured: Measured


def _contestants(
    flow: Line, taken: list[Any], workers: int, reference: bool, options: Options
) -> list[_Contestant]:  # fmt: skip
    steps = flow.steps
    found = [
        _Contestant(_called(how, workers, len(steps)), how, _technique(flow, how, workers, options))
        for how in TECHNIQUES
    ]
    if reference:
        chunk = max(1, len(taken) // (workers * CHUNKS))
        imap = f"multiprocessing.Pool.imap ({chunk:,} a chunk)"
        found.append(_Contestant(imap, "", _pool(steps, workers, chunk, options)))
        found.append(_Contestant("multiprocessing queues, a process a step", "", _queues(steps, options)))
    return found


def _checked(each: _Contestant, taken: list[Any], expected: list[Any]) -> tuple[str, int]:
    """Why the results are not the loop's, where they are not, and the most memory that all processes held."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, memory.held(memory.tree(os.getpid())))
            if stop.wait(LOOK):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        results, _ = each.measured(taken)
    except Exception as error:
        return _fails(error), 0
    finally:
        stop.set()
        watcher.join()
    return _difference(expected, results), peak or memory.held_here()


def _timed(each: _Contestant, taken: list[Any], times: list[_Taken]) -> str:
    try:
        times.append(each.measured(taken)[1])
    except Exception as error:
        return _fails(error)
    return ""


def _fails(error: Exception) -> str:
    return f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _predicted(flow: Line, taken: list[Any], workers: int, options: Options) -> dict[str, float]:
    """Seconds by technique, from a trial of the first records; empty where they cannot be tried."""
    tried = try_out(flow.steps, flow.name, taken, workers, options=options)
    if not tried.costs.records:
        return {}
    found = {}
    for how in TECHNIQUES:
        plan = technique(how, flow.steps, workers)
        if plan.workers == 0 or not tried.obstacle:
            found[how] = predict(tried.costs, plan, records=len(taken), cores=usable_cores()).seconds
    if not tried.obstacle and (line := technique("line", flow.steps, CORES)).workers:
        found[ELSEWHERE] = predict(tried.costs, line, records=len(taken), cores=CORES).seconds
    return found


def _called(how: str, workers: int, steps: int) -> str:
    return {
        "loop": "loop", "pool": f"pool ({workers})", "queues": f"queues, {max(workers, steps)} processes",
        "line": f"line, batched ({workers})",
    }[how]  # fmt: skip


def _row(
    each: _Contestant, times: dict[str, list[_Taken]], problem: str, peak: int, predicted: dict[str, float]
) -> Row:
    if problem:
        return Row(each.name, not each.how, identical=False, problem=problem)
    seconds = [took.seconds for took in times[each.name]]
    mean = statistics.mean(seconds)
    firsts = [took.first for took in times[each.name] if took.first is not None]
    loop = next(iter(times.values()))
    base = statistics.mean(took.seconds for took in loop) if loop else mean
    guess = predicted.get(each.how)
    return Row(
        each.name, not each.how, seconds=mean, spread=statistics.stdev(seconds) if len(seconds) > 1 else None,
        cpu_utilisation=min(1.0, statistics.mean(took.cpu for took in times[each.name]) / (mean * usable_cores())),
        speed_up=base / mean, peak_memory=peak, first_result=statistics.mean(firsts) if firsts else None,
        predicted=guess, error=(guess - mean) / mean if guess is not None else None,
        history=_told(times[each.name]),
    )  # fmt: skip


def _told(times: list[_Taken]) -> dict[str, Any]:
    """Who did what when, in the last round."""
    report = times[-1].report if times else None
    if report is None:
        return {}
    return {"seconds": report.seconds, **{name: report.history[name] for name in ("rows", "cell_seconds")}}


def _busy(times: dict[str, list[_Taken]]) -> tuple[float, ...]:
    """What each step takes, in the first technique that has a report."""
    reports = (each.report for taken in times.values() for each in taken if each.report is not None)
    report = next(reports, None)
    return tuple(step.busy for step in report.steps) if report is not None else ()


def _ties(row: Row, ours: list[Row], fastest: str) -> bool:
    """Whether the row is as fast as the fastest: within a share of it, or within what the rounds differ."""
    best = next((each for each in ours if each.technique == fastest), None)
    if best is None or row.problem or row.reference or row.technique == fastest:
        return False
    return row.seconds - best.seconds <= max(TIE * best.seconds, (row.spread or 0.0) + (best.spread or 0.0))


def _closing(rows: list[Row], fastest: str) -> str:
    good = {row.technique: row for row in rows if not row.problem and not row.reference}
    if not good:
        return "No technique gave the loop's results."
    best = good[fastest]
    tied = [row.technique for row in good.values() if row.tie]
    tie = f" A tie: {', '.join(tied)} {'is' if len(tied) == 1 else 'are'} as fast as can be told." if tied else ""
    if fastest == "loop" or good.get("loop", best).tie:
        return f"Stay with the loop: nothing is faster on these records.{tie}"
    return f"{fastest} is the fastest, {best.speed_up:.1f} times the loop.{tie}"


# --- the techniques ---


def _technique(flow: Line, how: Any, workers: int, options: Options) -> Measured:
    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        run = flow(records, how=how, workers=workers, progress=hidden, on_error=options.on_error, setup=options.setup)
        began = perf_counter()
        results = list(run)
        seconds = perf_counter() - began
        report = run.report
        return results, _Taken(seconds, report.cpu_seconds, report.first_result, report)

    return measured


def _dear_alone(flow: Line) -> bool:
    """Whether a step takes columns, of which techniques that move one record at a time make a table a record."""
    return any(step.form != "list" and step.like is None for step in flow.steps)


def _plain_loop(
    steps: tuple[Step, ...], records: Iterable[Any], indexes: list[int], failures: Failures | None
) -> Iterator[Any]:
    """The loop that a user would have written; batch steps get lists of one. `indexes`: of the records in their source;
    `failures`: where those that fail are left out."""
    with closing(OneByOne()) as loop:
        chained = _chain(_scalars(steps, loop), steps)
        for index, record in zip(indexes, records, strict=False):
            try:
                if failures is None:
                    yield from chained(record)
                    continue
                results = list(chained(record))
            except Exception as error:
                if failures is not None and not isinstance(error, ResultsTooLarge):
                    failures.add(index, _failing_step(error, steps), error)
                    continue
                error.add_note(
                    f"at record {index:,} in the plain loop\n  record  {excerpt(record)}\n"
                    '  next    compare records that do not fail, or leave such out: on_error="skip"'
                )
                raise
            yield from results


def _failing_step(error: BaseException, steps: tuple[Step, ...]) -> str:
    """The step that the chain was at."""
    tb, at = error.__traceback__, 1
    while tb is not None:
        if tb.tb_frame.f_globals is globals():
            at = tb.tb_frame.f_locals.get("at", at)
        tb = tb.tb_next
    return steps[at - 1].name


def _chain(functions: list[Callable[[Any], Any]], steps: tuple[Step, ...]) -> Callable[[Any], Iterator[Any]]:
    def through(value: Any, at: int = 0) -> Iterator[Any]:
        while at < len(steps):
            fn, role = functions[at], steps[at].role
            at += 1
            if role is Role.KEEP:
                if not fn(value):
                    return
            elif role is Role.EXPAND or not steps[at - 1].keeps_number:
                for inner in fn(value):
                    yield from through(inner, at)
                return
            else:
                value = fn(value)
        yield value

    return through


def _scalars(steps: tuple[Step, ...], loop: OneByOne) -> list[Callable[[Any], Any]]:
    """The steps' callables, those of batch steps with batches of one, those that are `async def` run to their end in
    `loop`. Between steps of one form nothing is converted: the last of them gets what makes records of its result, the
    others hand theirs on."""
    functions: list[Callable[[Any], Any]] = []
    for n, step in enumerate(steps):
        fn, like = step.make(), step.like
        if step.kind == "async" or is_async(fn):
            fn, like = loop.plain(step, fn), like and loop.plain(step, like)
        if step.role is not Role.BATCH:
            functions.append(fn)
        elif not step.keeps_number:
            functions.append(_each_of(step))
        elif like is not None:
            functions.append(like)
        else:
            first = not n or _apart(steps[n - 1], step)
            last = n + 1 == len(steps) or _apart(step, steps[n + 1])
            functions.append(_of_one(step, fn, first, last))
    return functions


def _apart(step: Step, other: Step) -> bool:
    """Whether records stand between two neighbours where one of them is a batch step of one form."""
    alone = any(each.like is not None or not each.keeps_number for each in (step, other))
    return alone or not step.joins(other)


def _each_of(step: Step) -> Callable[[Any], list[Any]]:
    """A batch step that gives another number of results, for one record."""
    segment = Segment((step,), goes_on=False)
    segment.make()

    def given(record: Any) -> list[Any]:
        came = segment.run(Batch([record]))
        if came.failures:
            raise came.failures[0].error
        return came.values  # type: ignore[no-any-return]

    return given


def _of_one(step: Step, fn: Callable[[Any], Any], first: bool, last: bool) -> Callable[[Any], Any]:
    form = form_of(step.form)

    def one(record: Any) -> Any:
        try:
            given = form.take([record]) if first else record
        except Unfit as unfit:
            raise cannot_stand(step, unfit) from None
        result, _ = form.checked(fn(given), 1)
        return form.give(result).records()[0] if last else result

    return one


def _difference(expected: list[Any], results: list[Any]) -> str:
    """Why the results are not the loop's; empty where they are."""
    if len(expected) != len(results):
        return f"differs: {len(results):,} results where the loop has {len(expected):,}"
    for index, (one, other) in enumerate(zip(expected, results, strict=True)):
        same = _same(one, other)
        if same is None:
            return f"cannot be compared: result {index:,} has no == and no equal pickle"
        if not same:
            return f"differs from the loop at result {index:,}"
    return ""


def _same(one: Any, other: Any) -> bool | None:
    if one is other:
        return True
    try:
        if type(one) is type(other) and pickle.dumps(one) == pickle.dumps(other):
            return True
    except Exception:  # what cannot be pickled may still be equal
        pass
    try:
        equal = one == other
        return bool(equal.all()) if hasattr(equal, "all") else bool(equal)
    except Exception:  # a hostile __eq__: no answer is to be had
        return None


# --- the standard library's own ways, for reference ---


def _clocked(work: Callable[[], list[Any]]) -> tuple[list[Any], float, float]:
    """Results, seconds, and processor seconds of this process and its children."""
    before, began = os.times(), perf_counter()
    results = work()
    seconds, after = perf_counter() - began, os.times()
    return results, seconds, sum(after[:4]) - sum(before[:4])


_through: Callable[[Any], list[Any]]  # what the workers of a forked pool find in their memory


def _made(steps: tuple[Step, ...], options: Options) -> Callable[[Any], list[Any]]:
    """What a process of the standard library's does with a record: its results, or none where it fails and may."""
    if options.setup is not None:
        guard.set_up(options.setup)
    chained = _chain(_scalars(steps, OneByOne()), steps)  # which ends with the process

    def through(record: Any) -> list[Any]:
        try:
            return list(chained(record))
        except Exception:
            if not options.goes_on:
                raise
            return []

    return through


def _set_up(steps: tuple[Step, ...], options: Options) -> None:
    global _through
    _through = _made(steps, options)


def _through_it(record: Any) -> list[Any]:
    return _through(record)


def _pool(steps: tuple[Step, ...], workers: int, chunk: int, options: Options) -> Measured:
    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        _refuse_state(steps)
        first: list[float] = []
        began = perf_counter()

        def work() -> list[Any]:
            nonlocal first
            results: list[Any] = []
            with multiprocessing.get_context("fork").Pool(workers, _set_up, (steps, options)) as pool:
                for some in pool.imap(_through_it, records, chunk):
                    first = first or [perf_counter() - began]
                    results += some
                pool.close()
                pool.join()
            return results

        results, seconds, cpu = _clocked(work)
        return results, _Taken(seconds, cpu, first[0] if first else None)

    return measured


def _queues(steps: tuple[Step, ...], options: Options) -> Measured:
    """The article's factory line: a process a step, queues between them, an empty tuple ends the stream."""

    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        _refuse_state(steps)
        context = multiprocessing.get_context("fork")
        first: list[float] = []
        began = perf_counter()

        def work() -> list[Any]:
            nonlocal first
            queues = [context.Queue(SLOTS) for _ in range(len(steps) + 1)]
            processes = [
                context.Process(target=_station, args=(step, queues[n], queues[n + 1], options), daemon=True)
                for n, step in enumerate(steps)
            ]
            for process in processes:
                process.start()
            _end_where_all_have(queues[-1], processes)
            feeder = threading.Thread(target=_feed, args=(records, queues[0]), daemon=True)
            feeder.start()
            results = []
            while item := queues[-1].get():
                first = first or [perf_counter() - began]
                results.append(item[0])
            if item is None:
                raise RuntimeError(
                    "a process ended before its work: what it hands on cannot be pickled, or it was killed"
                )
            for process in processes:
                process.join()
            return results

        results, seconds, cpu = _clocked(work)
        return results, _Taken(seconds, cpu, first[0] if first else None)

    return measured


def _end_where_all_have(queue: Any, processes: list[Any]) -> None:
    """Put None into the last queue when no process is left, or one has failed: a queue whose items cannot be pickled says so
    on standard error alone, and would be waited for, for ever."""

    def watch() -> None:
        left = list(processes)
        while left and not any(process.exitcode for process in processes):
            connection.wait([process.sentinel for process in left])
            left = [process for process in left if process.exitcode is None]
        for process in left:
            process.kill()
        queue.put(None)

    threading.Thread(target=watch, daemon=True).start()


def _feed(records: list[Any], queue: Any) -> None:
    for record in records:
        queue.put((record,))  # in a tuple, so that no record can be taken for the end
    queue.put(())


def _station(step: Step, inbox: Any, outbox: Any, options: Options) -> None:
    through = _made((step,), options)
    outbox._on_queue_feeder_error = lambda *_: os._exit(1)
    while item := inbox.get():
        for result in through(item[0]):
            outbox.put((result,))
    outbox.put(())
    outbox.close()
    outbox.join_thread()  # in a process that is ending already, what cannot be pickled would end it as if all were well


def _refuse_state(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.in_caller:
            raise LineError(f"step {step.name!r} needs all records in one place, which this way has not")


named(globals())
