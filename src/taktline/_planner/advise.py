"""From what was tried to a plan for people: technique, workers, batches, the reasons in words, and the time it takes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from taktline._excerpts import masked, readable
from taktline._observe import pages, web
from taktline._observe.measures import cost, duration, many
from taktline._observe.verdict import noise
from taktline._planner.choose import WORTHWHILE_GAIN, reason_to_move, reason_to_stay
from taktline._planner.costs import Costs
from taktline._planner.whatif import Prediction, predict
from taktline._public import named
from taktline._recipe import plan as plans
from taktline._recipe.plan import technique
from taktline._recipe.steps import Step
from taktline._segment.batch import READING_STEP
from taktline.errors import TaktlineError

LENGTH = 1_000_000  # records that are reckoned with where the source does not tell how many it has
CORES = (1, 2, 4, 8, 64)  # machines that are predicted beside this one
SAME = 1.03  # share by which a plan with fewer workers may be slower and still be preferred
CROWDED = 1.3  # times that work may take longer in workers before it is said
TASKS = 64  # records at once that a step which waits could have under way
SAID = 300  # characters of an error's text
FEW = 30  # records from which a spread says something


@dataclass(frozen=True, slots=True)
class FailedStep:
    """One step in which tried records failed: how many, the index of the first, and its error as text. `step` is
    "(reading)" for lines that are no records."""

    step: str
    records: int
    first: int
    error: str

    def __str__(self) -> str:
        step = "in reading" if self.step == READING_STEP else f"in step {self.step!r}"
        where = (
            f"record {self.first:,} {step}"
            if self.records == 1
            else f"{self.records:,} {step}, first record {self.first:,}"
        )
        return f"{where}: {self.error}"


class Failures:
    """The records that failed in a trial, each in the step where it did so first."""

    def __init__(self) -> None:
        self.records: set[int] = set()
        self._steps: dict[str, FailedStep] = {}

    def add(self, index: int, step: str, error: BaseException) -> None:
        """A record has failed."""
        if index in self.records:
            return
        self.records.add(index)
        known = self._steps.get(step)
        if known is not None and known.first < index:
            self._steps[step] = replace(known, records=known.records + 1)
            return
        says = str(error) if isinstance(error, TaktlineError) else f"{type(error).__name__}: {error}"
        said = masked(says.partition("\n")[0].rstrip(": "))[:SAID]
        self._steps[step] = FailedStep(step, known.records + 1 if known else 1, index, said)

    def by_step(self) -> tuple[FailedStep, ...]:
        """Each step with failures, by the first record that failed there."""
        return tuple(sorted(self._steps.values(), key=lambda step: step.first))


def what_becomes(on_error: str, dead_letters: object, first: int | None = None) -> str:
    """What a run with these options does with records that fail, and what else could be done, in words. `first`: the
    index of the first of them."""
    if dead_letters is not None:
        return f"the run goes on, and keeps them in {str(dead_letters)!r}"
    if on_error == "skip":
        return 'the run goes on without them; to keep them aside, give dead_letters="failed.jsonl"'
    if on_error == "keep":
        return "the run goes on, with a mark in the place of each"
    there = f" at record {first:,}" if first is not None else ""
    return (
        f'with on_error="raise" the run ends{there}: mend it, or have such records left out with on_error="skip", or kept '
        'aside with dead_letters="failed.jsonl"'
    )


class Tried(NamedTuple):
    """What a trial of the first records found."""

    name: str
    steps: tuple[Step, ...]
    costs: Costs
    total: int | None  # length of the source, where it tells
    read: int  # records of the source
    tried: int  # of them, whether or not they came through
    one_shot: bool  # which are used up
    failures: Failures
    obstacle: str  # why records cannot go to workers, where they cannot
    cut: str = ""  # which record gives more than was tried, where one does
    carries: str = ""  # what the steps carry to each launched worker, where that is much
    ended: str = ""  # why no more were tried
    about: int | None = None  # the length, reckoned, where the source does not tell it
    others: float = 0.0  # the share of the machine's cores that other programs had meanwhile

    @property
    def length(self) -> int:
        """How many records the times are for."""
        known = self.total if self.total is not None else self.about
        return known if known is not None else LENGTH


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step as it was measured. `spread`: standard deviation of a record's cost as a share of it; None: too few."""

    name: str
    ns_per_record: float
    spread: float | None
    computing: float  # share of its time on the processor; the rest it waits


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a source, why, and the predicted time. `str()` is for people.

    Times are seconds unless named otherwise; `predictions` has a row for each technique on each number of cores.
    """

    name: str
    tried: int  # records
    records: int  # that the times are for
    length_known: bool
    cores: int
    steps: tuple[PlannedStep, ...]
    read_ns: float
    move_in_ns: float  # packing and unpacking a record
    move_out_ns: float  # packing and unpacking its result
    size_in: float  # bytes of a record on its way
    size_out: float
    start_up: float
    how: str
    segments: tuple[tuple[str, ...], ...]  # steps that run together
    workers: int
    batch_size: int
    seconds: float
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    failed: int = 0  # of the tried records; the costs and times are of the others
    failures: tuple[FailedStep, ...] = ()
    machines: tuple[Prediction, ...] = ()  # with `on=`: the line on as many as there are, and on other numbers of such
    reckoned: bool = False  # `records` is about right: from the bytes of a file, not from a count
    doubt: str = ""  # why costs and times may be wrong: other programs on the cores

    def __repr__(self) -> str:
        about = f"about {self.seconds:.3g} s for {self.records:,} records"
        return readable(f"<Plan {self.name!r}: {self.how}, {self.workers} workers, {about}>")

    def __str__(self) -> str:
        return readable(pages.plan_text(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(self.to_dict())

    def _repr_html_(self) -> str:
        return web.plan_html(self.to_dict())


def advise(
    tried: Tried, *, cores: int, workers: int, window: int | None, memory: int, how: str = "auto",
    batch_size: int | None = None, on_error: str = "raise", dead_letters: object = None,
) -> Plan:  # fmt: skip
    """The plan for what was tried, with `workers` at most on `cores`; with the technique `how`, where it is not "auto"."""
    costs, steps = tried.costs, tried.steps
    records = tried.length
    machines = sorted({*CORES, cores})
    found = everywhere(
        costs, steps, records, machines, window, memory, obstacle=bool(tried.obstacle), batch_size=batch_size
    )
    loop = next(each for each in found if each.how == "loop" and each.cores == cores)
    chosen = loop
    if not tried.obstacle and costs.records and how == "auto":
        chosen = _chosen(costs, steps, records, cores, workers, window, memory, loop, batch_size)
    elif not tried.obstacle and costs.records:
        plan = technique(how, steps, workers, batch_size)
        chosen = predict(costs, plan, records=records, cores=cores, window=window, memory=memory)
    plan = technique(chosen.how, steps, chosen.workers) if chosen.workers else plans.here(steps)
    moves, ways = costs.moves, costs.ways
    return Plan(
        name=tried.name, tried=tried.tried, records=records, length_known=tried.total is not None,
        reckoned=tried.total is None and tried.about is not None, cores=cores,
        steps=tuple(
            PlannedStep(
                step.name, costs.mean_ns(n), costs.spread(n) if costs.records >= FEW else None, step.computing
            )
            for n, step in enumerate(costs.steps)
        ),
        read_ns=costs.read_ns, move_in_ns=moves[0].pack_ns + moves[0].unpack_ns,
        move_out_ns=moves[-1].pack_ns + moves[-1].unpack_ns, size_in=moves[0].size, size_out=moves[-1].size,
        start_up=ways.start_up, how=chosen.how,
        segments=tuple(tuple(step.name for step in segment.steps) for segment in plan.segments),
        workers=chosen.workers, batch_size=chosen.batch_size, seconds=chosen.seconds,
        reasons=_reasons(tried, chosen, loop, records, workers, window, how),
        advice=(*_failing(tried, on_error, dead_letters), *_advice(tried, chosen, records, cores)),
        predictions=found, failed=len(tried.failures.records), failures=tried.failures.by_step(),
        doubt=noise(tried.others, "plan"),
    )  # fmt: skip


def everywhere(
    costs: Costs, steps: tuple[Step, ...], records: int, machines: list[int], window: int | None, memory: int,
    *, obstacle: bool = False, batch_size: int | None = None,
) -> tuple[Prediction, ...]:  # fmt: skip
    """Each technique on each machine, with a worker a core."""
    if not costs.records:
        return tuple(Prediction("loop", 0, cores, 0.0, 0.0, 0.0, "nothing", 0.0, 1) for cores in machines)
    found = []
    for how in ("loop", "pool", "queues", "line"):
        for cores in machines:
            plan = technique(how, steps, cores, batch_size)
            if how != "loop" and (obstacle or not plan.workers):
                continue
            found.append(predict(costs, plan, records=records, cores=cores, window=window, memory=memory))
    return tuple(found)


def _chosen(
    costs: Costs, steps: tuple[Step, ...], records: int, cores: int, workers: int, window: int | None, memory: int,
    loop: Prediction, batch_size: int | None,
) -> Prediction:  # fmt: skip
    """The line with the fewest workers that is as good as the best; the loop where that gains little."""
    counts = sorted({n for n in (*CORES, workers) if n <= workers})
    lines = [
        predict(
            costs, technique("line", steps, n, batch_size), records=records, cores=cores, window=window, memory=memory
        )
        for n in counts
        if technique("line", steps, n).workers
    ]
    if not lines:
        return loop
    best = min(each.seconds for each in lines)
    line = next(each for each in lines if each.seconds <= best * SAME)
    return line if line.seconds * WORTHWHILE_GAIN < loop.seconds else loop


def _reasons(
    tried: Tried, chosen: Prediction, loop: Prediction, records: int, workers: int, window: int | None, how: str
) -> tuple[str, ...]:
    costs = tried.costs
    if not costs.records:
        return (
            "nothing can be said of the costs: no record that was tried came through"
            if tried.read
            else "there are no records, so nothing can be said of the costs",
        )
    found = []
    moving, work, by_workers = _shares(costs, tried.steps, chosen.workers or workers, window)
    if tried.obstacle:
        found.append(f"stay with the loop: {tried.obstacle}")
    elif how != "auto":
        found.append(f"how={how!r} was asked for: {loop.seconds / (chosen.seconds or 1.0):.1f} times the loop")
    elif chosen.workers:
        found.append(reason_to_move(chosen.workers, moving, work, loop.seconds / chosen.seconds))
        if chosen.workers < workers:
            found.append(f"more than {chosen.workers} workers gain nothing: {_limit(chosen.bottleneck)}")
    elif all(step.in_caller for step in tried.steps):
        found.append("stay with the loop: all steps run in the caller's process")
    elif workers < 2 and not any(step.waits for step in costs.steps):
        found.append("stay with the loop: there is one core to use")
    elif loop.seconds < 2 * costs.ways.start_up:
        found.append(f"stay with the loop: {records:,} records are done before workers have started")
    else:
        found.append(reason_to_stay(moving, work))
        if costs.ways.slowdown > CROWDED:
            found.append(
                f"work takes {costs.ways.slowdown:.1f} times as long in workers side by side: the cores are busy with "
                "other programs, or the steps use several of them by themselves (numeric libraries do)"
            )
    if tried.carries:
        found.append(tried.carries)
    if by_workers and chosen.workers:
        found.append(f"workers {by_workers} themselves: nothing of that passes through the caller's process")
    if len(tried.steps) > 1 and chosen.workers:
        found.append("neighbouring steps run as one in the same worker: nothing is packed between them")
    placed = [n for n, step in enumerate(tried.steps) if step.resources]
    if placed:
        names = ", ".join(repr(tried.steps[n].name) for n in placed)
        found.append(f"what resources= wants for {names} is counted with on= alone: here it runs as any other step")
    return (*found, *(_placed(tried, n) for n in placed if chosen.workers))


def _placed(tried: Tried, n: int) -> str:
    """Of a step that runs where a resource is: what the way there and back costs."""
    step, moves = tried.steps[n], tried.costs.moves
    each = " each" if (step.workers or 1) > 1 else ""
    ns = sum(move.pack_ns + move.unpack_ns for move in moves[n : n + 2])
    return (
        f"{step.name!r} has {many(step.workers or 1, 'worker')} with {step.needs()}{each}: batches go there and on "
        f"through the caller's process, {cost(ns)}"
    )


def _shares(costs: Costs, steps: tuple[Step, ...], workers: int, window: int | None) -> tuple[float, float, str]:
    """Nanoseconds a record of moving and of work in a line, and what workers do in it that the caller does in the loop."""
    line = costs.under(technique("line", steps, workers), window)
    moving, by_workers = costs.ways.hub_record_ns, []
    work = sum(costs.mean_ns(n) for n, step in enumerate(steps) if not step.in_caller)
    for here, there, what in (
        (0, costs.read_ns, "read the source"),
        (-1, line.moves[-1].pack_ns, "encode the results"),
    ):
        if line.moves[here] is costs.moves[here]:
            moving += costs.moves[here].pack_ns + costs.moves[here].unpack_ns
        else:
            work += there
            by_workers.append(what)
    return moving, work, " and ".join(by_workers)


def _limit(bottleneck: str) -> str:
    return {
        "hub": "the caller's process, which packs records and unpacks results, is the bottleneck",
        "source": "reading the source is the bottleneck",
        "start-up": "the run is over before they have started",
        "waiting": "there are too few records for them",
    }.get(bottleneck, f"{bottleneck!r} is the bottleneck")


def _advice(tried: Tried, chosen: Prediction, records: int, cores: int) -> tuple[str, ...]:
    costs, found = tried.costs, []
    for n, step in enumerate(costs.steps):
        if step.waits and not tried.steps[n].waits and costs.mean_ns(n) * records > 1e9 * costs.ways.start_up:
            seconds = _overlapped(tried, n, records, cores)
            found.append(
                f"{step.name!r} waits {1 - step.computing:.0%} of its time: with step({step.name}, tasks={TASKS}) "
                f"{TASKS} records wait at once, about {duration(seconds)} in all"
            )
    if tried.cut:
        found.append(tried.cut)
    if tried.one_shot:
        found.append(
            f"the source can be read but once: the {tried.read:,} records that were read of it for this are used up. "
            "Give the run one that has them again"
        )
    return tuple(found)


def _failing(tried: Tried, on_error: str, dead_letters: object) -> list[str]:
    """What failed, and what the run makes of that."""
    steps, count = tried.failures.by_step(), len(tried.failures.records)
    found = []
    if steps:
        first = steps[0].first
        of_them = "; ".join(map(str, steps))
        found.append(f"{count:,} of {tried.tried:,} tried records failed, none of which counts in the times: {of_them}")
        found.append(what_becomes(on_error, dead_letters, first))
    if tried.ended:
        found.append(f"the trial ended early: {tried.ended}. Give steps that may hang a limit: step(timeout=)")
    return found


def _overlapped(tried: Tried, at: int, records: int, cores: int) -> float:
    """Seconds where the waiting of one step overlaps: what it computes stays, what it waits is shared by many."""
    costs = tried.costs
    step = costs.steps[at]
    left = step.computing + (1 - step.computing) / TASKS
    other = step._replace(lots=tuple(ns * left for ns in step.lots), computing=step.computing / left)
    work = costs.read_ns + sum(map(costs.mean_ns, range(len(costs.steps))))
    better = costs._replace(
        steps=(*costs.steps[:at], other, *costs.steps[at + 1 :]),
        loop_ns=costs.loop_ns * (1 - costs.mean_ns(at) * (1 - left) / work),
    )
    times = [predict(better, plans.here(tried.steps), records=records, cores=cores).seconds]
    line = technique("line", tried.steps, cores)
    if line.workers and not tried.obstacle:
        times.append(predict(better, line, records=records, cores=cores).seconds)
    return min(times)


named(globals())
