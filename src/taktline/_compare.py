"""Runs the techniques in turn over the same records: equality and memory first, then time, processor, first result."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._excerpts import excerpt
from taktline._observe import memory, pages
from taktline._planner.advise import technique
from taktline._planner.whatif import predict
from taktline._public import named
from taktline._recipe.options import usable_cores
from taktline._recipe.steps import Role, Step
from taktline._run.reader import Reader, check_source
from taktline._run.trial import try_out
from taktline._segment import firsts
from taktline._segment.forms import Unfit, cannot_stand, form_of
from taktline.errors import LineError, ResultsTooLarge

if TYPE_CHECKING:
    from taktline._line import Line

TECHNIQUES = ("loop", "pool", "queues", "line")
TIE = 0.02  # share by which two times may differ and still be called equal
CHUNKS = 16  # of Pool.imap's chunk size: so many chunks a worker, about what Pool.map chooses for itself
MOST_GIVEN = 200_000  # results of a record, in all steps that expand; of one that gives more
GIVEN = 10_000  # are compared
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

    def _repr_html_(self) -> str:
        return pages.comparison_html(self.to_dict())


@dataclass(frozen=True, slots=True)
class _Taken:
    """One run of one technique."""

    seconds: float
    cpu: float
    first: float | None


Measured = Callable[[list[Any]], tuple[list[Any], _Taken]]


def compare(
    flow: Line, records: Iterable[Any], *, limit: int = 20_000, rounds: int = 3, workers: int | None = None,
    reference: bool = True, predictions: bool = True, progress: Callable[[str], None] | None = None,
) -> Comparison:  # fmt: skip
    """Compare the four techniques, and the standard library's own ways, on the first `limit` records.

    Raises LineError for a limit, rounds or workers below 1, and whatever the plain loop raises on these records.
    """
    for name, value in (("limit", limit), ("rounds", rounds), ("workers", workers if workers is not None else 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LineError(f"compare({name}={value!r}): give a whole number of at least 1")
    if progress is not None and not callable(progress):
        raise LineError(f"compare(progress={progress!r}): give a callable that is told, in words, what is done now")
    check_source(records)
    taken, left_out = _first(records, limit)
    workers = workers or usable_cores()
    say = progress or (lambda _: None)
    say("the plain loop, for the results that all must have")
    expected, too_many = _expected(flow.steps, taken)
    if too_many is not None:
        flow, left_out = too_many.cut(flow)
        del taken[too_many.record + 1 :]
        expected = list(_plain_loop(flow.steps, taken))
    contestants = _contestants(flow, taken, workers, reference)
    problems: dict[str, str] = {}
    peaks: dict[str, int] = {}
    for each in contestants:  # a round of its own, since looking at memory takes time
        say(f"are the results of {each.name} identical?")
        problems[each.name], peaks[each.name] = _checked(each, taken, expected)
    predicted: dict[str, float] = {}
    if predictions:
        say("what the records cost, for the predictions")
        predicted = _predicted(flow, taken, workers)
    times: dict[str, list[_Taken]] = {each.name: [] for each in contestants}
    for turn in range(rounds):
        for each in contestants:
            if not problems[each.name]:
                say(f"round {turn + 1} of {rounds}: {each.name}")
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
    )  # fmt: skip


def _first(records: Iterable[Any], limit: int) -> tuple[list[Any], str]:
    """The first records, and what is said of those behind them."""
    reader = Reader(records, delivers=False)
    taken: list[Any] = []
    while len(taken) < limit and (some := reader.read(limit - len(taken))):
        taken += some
    if reader.error is not None:
        raise reader.error
    if not reader.read(1) and reader.error is None:
        return taken, ""
    try:
        whole = len(records)  # type: ignore[arg-type]
    except TypeError:
        return taken, f"the first {limit:,} records; what comes after them was left out"
    return taken, f"the first {limit:,} of {whole:,} records; {whole - limit:,} were left out, and start-up weighs more"


def _expected(steps: tuple[Step, ...], taken: list[Any]) -> tuple[list[Any], _TooMany | None]:
    """The loop's results; and where one record gives more than is compared, which one that is."""
    if not any(step.role is Role.EXPAND for step in steps):
        return list(_plain_loop(steps, taken)), None
    budget, at = firsts.Budget(MOST_GIVEN), 0

    def one_by_one() -> Iterator[Any]:
        nonlocal at
        for at, record in enumerate(taken):  # noqa: B007  the loop's variable is what is asked for
            budget.begin()
            yield record

    try:
        return list(_plain_loop(firsts.within(steps, budget), one_by_one())), None
    except ResultsTooLarge:
        if not budget.spent:
            raise
    return [], _TooMany(at, min(GIVEN, max(1, budget.given)))


class _TooMany(NamedTuple):
    """The record that gives more results than are compared, and how many of them are."""

    record: int
    results: int

    def cut(self, flow: Line) -> tuple[Line, str]:
        """The line that gives so many, and what is said of the others."""
        steps, _ = firsts.cut(flow.steps, self.results)
        return type(flow)(steps, flow.name), (
            f"record {self.record:,} gives endlessly many results, or more than are compared: of each record the first "
            f"{self.results:,} were; what comes after this record was left out"
        )


class _Contestant(NamedTuple):
    name: str
    how: str  # a technique; empty: a reference
    measured: Measured


def _contestants(flow: Line, taken: list[Any], workers: int, reference: bool) -> list[_Contestant]:
    steps = flow.steps
    found = [
        _Contestant(_called(how, workers, len(steps)), how, _technique(flow, how, workers)) for how in TECHNIQUES
    ]  # fmt: skip
    if reference:
        chunk = max(1, len(taken) // (workers * CHUNKS))
        found.append(
            _Contestant(f"multiprocessing.Pool.imap ({chunk:,} a chunk)", "", _pool(steps, workers, chunk))
        )  # fmt: skip
        found.append(_Contestant("multiprocessing queues, a process a step", "", _queues(steps)))
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


def _predicted(flow: Line, taken: list[Any], workers: int) -> dict[str, float]:
    """Seconds by technique, from a trial of the first records; empty where they cannot be tried."""
    tried = try_out(flow.steps, flow.name, taken, workers)
    if tried.failure or not tried.costs.records:
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
    )  # fmt: skip


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


def _technique(flow: Line, how: str, workers: int) -> Measured:
    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        run = flow(records, how=how, workers=workers, progress=False)
        began = perf_counter()
        results = list(run)
        seconds = perf_counter() - began
        report = run.report
        return results, _Taken(seconds, report.cpu_seconds, report.first_result)

    return measured


def _plain_loop(steps: tuple[Step, ...], records: Iterable[Any]) -> Iterator[Any]:
    """The loop that a user would have written; batch steps get lists of one."""
    chained = _chain(_scalars(steps), steps)
    for index, record in enumerate(records):
        try:
            yield from chained(record)
        except Exception as error:
            error.add_note(
                f"at record {index:,} in the plain loop\n  record  {excerpt(record)}\n"
                "  next    compare records that do not fail, or have the step not raise for such"
            )
            raise


def _chain(functions: list[Callable[[Any], Any]], steps: tuple[Step, ...]) -> Callable[[Any], Iterator[Any]]:
    def through(value: Any, at: int = 0) -> Iterator[Any]:
        while at < len(steps):
            fn, role = functions[at], steps[at].role
            at += 1
            if role is Role.KEEP:
                if not fn(value):
                    return
            elif role is Role.EXPAND:
                for inner in fn(value):
                    yield from through(inner, at)
                return
            else:
                value = fn(value)
        yield value

    return through


def _scalars(steps: tuple[Step, ...]) -> list[Callable[[Any], Any]]:
    """The steps' callables, those of batch steps with batches of one. Between steps of one form nothing is converted:
    the last of them gets what makes records of its result, the others hand theirs on."""
    functions: list[Callable[[Any], Any]] = []
    for n, step in enumerate(steps):
        fn = step.make()
        if step.role is not Role.BATCH:
            functions.append(fn)
        elif step.like is not None:
            functions.append(step.like)
        else:
            first = not n or steps[n - 1].like is not None or not steps[n - 1].joins(step)
            last = n + 1 == len(steps) or steps[n + 1].like is not None or not step.joins(steps[n + 1])
            functions.append(_of_one(step, fn, first, last))
    return functions


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


_chained: Callable[[Any], Iterator[Any]]  # what the workers of a forked pool find in their memory


def _set_up(steps: tuple[Step, ...]) -> None:
    global _chained
    _chained = _chain(_scalars(steps), steps)


def _through(record: Any) -> list[Any]:
    return list(_chained(record))


def _pool(steps: tuple[Step, ...], workers: int, chunk: int) -> Measured:
    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        _refuse_state(steps)
        first: list[float] = []
        began = perf_counter()

        def work() -> list[Any]:
            nonlocal first
            results: list[Any] = []
            with multiprocessing.get_context("fork").Pool(workers, _set_up, (steps,)) as pool:
                for some in pool.imap(_through, records, chunk):
                    first = first or [perf_counter() - began]
                    results += some
                pool.close()
                pool.join()
            return results

        results, seconds, cpu = _clocked(work)
        return results, _Taken(seconds, cpu, first[0] if first else None)

    return measured


def _queues(steps: tuple[Step, ...]) -> Measured:
    """The article's factory line: a process a step, queues between them, None wrapped around nothing ends the stream."""

    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        _refuse_state(steps)
        context = multiprocessing.get_context("fork")
        first: list[float] = []
        began = perf_counter()

        def work() -> list[Any]:
            nonlocal first
            queues = [context.Queue(SLOTS) for _ in range(len(steps) + 1)]
            processes = [
                context.Process(target=_station, args=(step, queues[n], queues[n + 1]), daemon=True)
                for n, step in enumerate(steps)
            ]
            for process in processes:
                process.start()
            feeder = threading.Thread(target=_feed, args=(records, queues[0]), daemon=True)
            feeder.start()
            results = []
            while (item := queues[-1].get()) is not None:
                first = first or [perf_counter() - began]
                results.append(item[0])
            for process in processes:
                process.join()
            return results

        results, seconds, cpu = _clocked(work)
        return results, _Taken(seconds, cpu, first[0] if first else None)

    return measured


def _feed(records: list[Any], queue: Any) -> None:
    for record in records:
        queue.put((record,))  # in a tuple, so that no record can be taken for the end
    queue.put(None)


def _station(step: Step, inbox: Any, outbox: Any) -> None:
    through = _chain(_scalars((step,)), (step,))
    while (item := inbox.get()) is not None:
        for result in through(item[0]):
            outbox.put((result,))
    outbox.put(None)


def _refuse_state(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.in_caller:
            raise LineError(f"step {step.name!r} needs all records in one place, which this way has not")


named(globals())
