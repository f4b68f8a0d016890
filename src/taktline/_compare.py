"""Runs the techniques in turn over the same records: equality first, then time, processor, memory, first result."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from taktline._observe import memory, pages
from taktline._recipe.options import usable_cores
from taktline._recipe.steps import Role, Step
from taktline._segment.forms import Unfit, cannot_stand, form_of
from taktline.errors import LineError

if TYPE_CHECKING:
    from taktline._line import Line

TECHNIQUES = ("loop", "pool", "queues", "line")
TIE = 0.02  # share by which two times may differ and still be called equal
CHUNKS = 16  # of Pool.imap's chunk size: so many chunks a worker, about what Pool.map chooses for itself
SLOTS = 64  # records a queue of the reference line holds


@dataclass(frozen=True, slots=True)
class Row:
    """One technique. Times in seconds (medians), memory in bytes, `cpu_utilisation` a share of the usable cores."""

    technique: str
    reference: bool
    seconds: float = 0.0
    spread: float | None = None  # half the range of the rounds
    cpu_utilisation: float = 0.0
    speed_up: float = 0.0
    peak_memory: int = 0
    first_result: float | None = None
    identical: bool = True
    problem: str = ""  # why it has no times


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
    memory: int
    first: float | None


Measured = Callable[[list[Any]], tuple[list[Any], _Taken]]


def compare(
    flow: Line, records: Iterable[Any], *, limit: int = 20_000, rounds: int = 3, workers: int | None = None,
    reference: bool = True, progress: Callable[[str], None] | None = None,
) -> Comparison:  # fmt: skip
    """Compare the four techniques, and the standard library's own ways, on the first `limit` records.

    Raises LineError for a limit, rounds or workers below 1, and whatever the plain loop raises on these records.
    """
    for name, value in (("limit", limit), ("rounds", rounds), ("workers", workers if workers is not None else 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LineError(f"compare({name}={value!r}): give a whole number of at least 1")
    source = iter(records)
    taken = list(islice(source, limit))
    more = next(source, source) is not source
    workers = workers or usable_cores()
    say = progress or (lambda _: None)
    contestants: list[tuple[str, bool, Measured]] = [
        (_called(how, workers, len(flow.steps)), False, _technique(flow, how, workers)) for how in TECHNIQUES
    ]
    if reference:
        chunk = max(1, len(taken) // (workers * CHUNKS))
        contestants.append((f"multiprocessing.Pool.imap ({chunk:,} a chunk)", True, _pool(flow.steps, workers, chunk)))
        contestants.append(("multiprocessing queues, a process a step", True, _queues(flow.steps)))
    say("the plain loop, for the results that all must have")
    expected = list(_plain_loop(flow.steps, taken))
    times: dict[str, list[_Taken]] = {name: [] for name, _, _ in contestants}
    problems: dict[str, str] = {}
    for each in range(rounds):
        for name, _, measured in contestants:
            if name in problems:
                continue
            say(f"round {each + 1} of {rounds}: {name}")
            try:
                results, took = measured(taken)
            except Exception as error:
                problems[name] = f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                continue
            if each == 0 and (difference := _difference(expected, results)):
                problems[name] = difference
                continue
            times[name].append(took)
    rows = tuple(
        _row(name, is_reference, times, problems, times[contestants[0][0]]) for name, is_reference, _ in contestants
    )
    ours = [row for row in rows if not row.problem and not row.reference]
    fastest = min(ours, key=lambda row: row.seconds).technique if ours else ""
    left_out = f"the first {limit:,} records; what comes after them was left out" if more else ""
    return Comparison(
        records=len(taken), steps=len(flow.steps), cores=usable_cores(), rounds=rounds, left_out=left_out, rows=rows,
        fastest=fastest, closing=_closing(rows, fastest),
    )  # fmt: skip


def _called(how: str, workers: int, steps: int) -> str:
    return {
        "loop": "loop", "pool": f"pool ({workers})", "queues": f"queues, {max(workers, steps)} processes",
        "line": f"line, batched ({workers})",
    }[how]  # fmt: skip


def _row(
    name: str, reference: bool, times: dict[str, list[_Taken]], problems: dict[str, str], loop: list[_Taken]
) -> Row:
    if name in problems:
        return Row(name, reference, identical=False, problem=problems[name])
    took = times[name]
    seconds = [each.seconds for each in took]
    median = statistics.median(seconds)
    firsts = [each.first for each in took if each.first is not None]
    base = statistics.median(each.seconds for each in loop) if loop else median
    return Row(
        name, reference, seconds=median, spread=(max(seconds) - min(seconds)) / 2 if len(seconds) > 1 else None,
        cpu_utilisation=min(1.0, statistics.median(each.cpu for each in took) / (median * usable_cores())),
        speed_up=base / median, peak_memory=max(each.memory for each in took),
        first_result=statistics.median(firsts) if firsts else None,
    )  # fmt: skip


def _closing(rows: tuple[Row, ...], fastest: str) -> str:
    good = {row.technique: row for row in rows if not row.problem and not row.reference}
    if not good:
        return "No technique gave the loop's results."
    best = good[fastest]
    ties = [row.technique for row in good.values() if row is not best and row.seconds <= best.seconds * (1 + TIE)]
    tie = f" ({', '.join(ties)} within {TIE:.0%}: a tie)" if ties else ""
    if fastest == "loop":
        return f"Stay with the loop: nothing is faster on these records{tie}."
    return f"{fastest} is the fastest, {best.speed_up:.1f} times the loop{tie}."


# --- the techniques ---


def _technique(flow: Line, how: str, workers: int) -> Measured:
    def measured(records: list[Any]) -> tuple[list[Any], _Taken]:
        run = flow(records, how=how, workers=workers, progress=False)
        began = perf_counter()
        results = list(run)
        seconds = perf_counter() - began
        report = run.report
        return results, _Taken(seconds, report.cpu_seconds, report.peak_memory, report.first_result)

    return measured


def _plain_loop(steps: tuple[Step, ...], records: Iterable[Any]) -> Iterator[Any]:
    """The loop that a user would have written; batch steps get lists of one."""
    chained = _chain(_scalars(steps), steps)
    for record in records:
        yield from chained(record)


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


def _watched(work: Callable[[], list[Any]]) -> tuple[list[Any], float, float, int]:
    """Results, seconds, processor seconds of this process and its children, and the peak memory of all of them."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.1):
            children = multiprocessing.active_children()
            peak = max(peak, memory.held([os.getpid(), *(child.pid for child in children if child.pid)]))

    watcher = threading.Thread(target=watch, daemon=True)
    before = os.times()
    began = perf_counter()
    watcher.start()
    try:
        results = work()
    finally:
        stop.set()
        watcher.join()
    seconds = perf_counter() - began
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    return results, seconds, cpu, max(peak, memory.held_here())


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

        results, seconds, cpu, peak = _watched(work)
        return results, _Taken(seconds, cpu, peak, first[0] if first else None)

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

        results, seconds, cpu, peak = _watched(work)
        return results, _Taken(seconds, cpu, peak, first[0] if first else None)

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


for _public in (Comparison, Row):
    _public.__module__ = "taktline"
