"""Collects what a run costs and makes its Snapshots and its Report."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from time import perf_counter, process_time, time
from typing import Any

from taktline import _excerpts as excerpts
from taktline._observe import cores, memory
from taktline._observe.counters import LaneCount
from taktline._observe.history import History
from taktline._observe.snapshot import Report, Snapshot, StepCount
from taktline._observe.verdict import Group, Spent, judge, what_if
from taktline._observe.versions import versions
from taktline._recipe.options import Options, in_words, usable_cores
from taktline._recipe.plan import Plan
from taktline._schedule import events
from taktline._segment.fuse import Segment
from taktline.views import log
from taktline.views.progress import View, hidden, view_for

TICK = 0.25  # seconds between two snapshots
LOOK = 1.0  # seconds between two looks at memory
KINDS = 50  # of failures that are told apart
EXAMPLES = 3  # of each
RARELY = 50  # at least so many times as long between them as one takes: a millisecond a process, 10 a gigabyte


class Meter:
    """The clock and the counters of one run."""

    def __init__(self, name: str, plan: Plan, options: Options, total: int | None) -> None:
        self.name = name
        self.plan = plan
        self.total = total
        self.about: int | None = None  # the same, reckoned
        self.under_way: Callable[[], Iterable[tuple[int, float]]] | None = None  # lanes at work, each since when
        self.window = options.window
        self.records_in = 0
        self.records_out = 0
        self.failed = 0
        self.skipped = 0
        self.resumed_at = 0
        self.retried_earlier = 0
        self.dead_letters = None if options.dead_letters is None else os.fspath(options.dead_letters)
        self.journal = None if options.journal is None else os.fspath(options.journal)
        self.held = 0
        self.batch_size = 1
        self.reading = 0.0
        self.handling = 0.0  # seconds of the hub with records and results
        self.consuming = 0.0  # seconds that the results were with who takes them
        self.start_up = 0.0  # seconds until the first worker was ready
        self.forked = False  # and not launched
        self.within = False  # workers are threads of this process, whose processor time is its own
        self.batches = 0  # that came back from workers
        self.placed: deque[BaseException] = deque(maxlen=16)  # errors that stand in the place of records, the newest
        self.lots = 0  # that were run in the caller's process
        self.longest = (0.0, 0, 0)  # the batch that took longest: seconds, first record, records
        self._asked_size = options.batch_size
        self._one_by_one = options.how in ("loop", "pool", "queues")
        self.reasons: list[str] = list(plan.reasons)
        self.missed: list[str] = []  # what workers do not have as it is in the caller's process
        self.notes: list[str] = []
        self.pids: Callable[[], Iterable[int]] = list
        self.tasks: Callable[[], Iterable[int]] = list  # what the system gives cores to for the workers
        self.complete = False
        self.source = self.sink = ""  # in words
        self.error = ""  # what ended it early
        self._options = options
        self._failures: dict[tuple[str, str], dict[str, Any]] = {}  # by step and kind of error
        self.lanes: list[LaneCount] = []
        asked = options.progress
        # A view looks for itself, in a thread of its own; whatever else is given is called here.
        self._view = asked if isinstance(asked, View) else None if callable(asked) else view_for(asked)
        self.history = History()
        self.observers = options.observers
        if options.trace is not None:
            from taktline.views.trace import Trace

            self.observers += (Trace(os.fspath(options.trace)),)
        if asked is not hidden and (heard := log.listener(shown=self._view is not None or callable(asked))) is not None:
            self.observers += (heard,)
        self._shares: dict[int, tuple[tuple[str, float], ...]] = {}  # by lane: of its steps
        self._told = False  # the observers, that it has begun
        self.progress: Callable[[Snapshot], None] | None = None
        if callable(asked) and asked is not hidden and not isinstance(asked, View):
            self.progress = asked
        self._began = perf_counter()
        self._cpu_began = process_time()
        self._started: float | None = None  # seconds since 1970
        self._first: float | None = None
        self._ended: float | None = None
        self._handed = self._began
        self._queued = 0.0
        self._cpu_ended = 0.0
        self._peak = self._held = 0
        self._next_tick = self._began + TICK
        self._next_look = self._began + LOOK
        self._affordable = 0.0  # the time from which a look takes no more than its share of the run
        self._earlier: list[list[LaneCount]] = []  # counters of an earlier plan of the same run

    @property
    def shows(self) -> bool:
        """Whether somebody looks while it runs."""
        return self._view is not None or self.progress is not None

    def begin(self) -> None:
        """The clock starts now: the first result was asked for."""
        self._began = perf_counter()
        self._cpu_began = process_time()
        self._started = time()
        if self._view is not None:
            self._view.begin(self.snapshot)
        if self.observers:
            self._told = True
            snapshot = self.snapshot()
            for each in self.observers:
                each.begins(snapshot)

    def heard(self, event: Any, actions: Sequence[Any] = ()) -> None:
        """This has happened: whoever listens is told."""
        at = self.elapsed
        for each in self.observers:
            each.heard(at, event, actions)

    def moved(self, how: str, why: str) -> None:
        """The run goes on in another way."""
        self.history.mark(self.elapsed, "moved", why)
        if self.observers:
            self.heard(events.Moved(how, why))

    def iterated(self) -> None:
        """Somebody's program takes the results one by one: it has the screen, and one row of it shows the run."""
        if self._view is not None:
            self._view.brief = True

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._began

    def use(self, plan: Plan, *, within: bool = False) -> None:
        """The run goes on under this plan. `within`: its workers are threads of this process."""
        if self.lanes:
            self._earlier.append(self.lanes)
        self.plan = plan
        self.within = within
        self._shares.clear()
        self.lanes = [LaneCount([step.name for step in segment.steps]) for segment in plan.segments]

    def delivered(self, results: int) -> None:
        """Some results are handed over."""
        if self._first is None and results:
            self._first = self.elapsed
        self.records_out += results
        self.tick()
        self._handed = perf_counter()

    def resumed(self) -> None:
        """What was handed over last has been taken."""
        self.consuming += perf_counter() - self._handed

    def ends_with(self, error: BaseException | None) -> None:
        """This ended the run; its words are kept, and not the exception, which keeps much else."""
        if error is not None and not isinstance(error, GeneratorExit):  # which is somebody who took no more results
            self.error = self.error or excerpts.masked(_in_words(error))

    def fail(self, index: int, step: str, error: BaseException, record: Any) -> None:
        """This record has failed."""
        self.failed += 1
        kind = type(error).__name__
        if (step, kind) not in self._failures:
            if len(self._failures) >= KINDS:
                return
            says = excerpts.masked(_in_words(error).partition("\n")[0][:200])
            self._failures[step, kind] = {"step": step, "reason": says, "records": 0, "examples": []}
            if len(self._failures) == 1:
                self.history.mark(self.elapsed, "failed", f"record {index:,} fails in {step!r}")
        found = self._failures[step, kind]
        found["records"] += 1
        if len(found["examples"]) < EXAMPLES:
            found["examples"].append([index, excerpts.excerpt(record)])

    def ready(self) -> None:
        """A worker waits for records."""
        self.start_up = self.start_up or self.elapsed

    def worked(self, worker: int | None, lane: int, seconds: float, first: int, records: int) -> events.Work | None:
        """A batch came back from a worker, or went through steps here (None), and took so long. What to tell of it, where
        somebody listens."""
        ended = perf_counter() - self._began
        self.history.worked(worker, ended - seconds, ended, lane)
        if worker is not None:
            self.batches += 1
            if seconds > self.longest[0]:
                self.longest = (seconds, first, records)
        return events.Work(seconds, first, records, self._shares_of(lane)) if self.observers else None

    def ran(self, seconds: float, first: int, records: int) -> None:
        """Some records went through the loop."""
        work = self.worked(None, 0, seconds, first, records)
        if work is not None:
            self.heard(events.Done(self.lots, None, 0, False, work))

    def _shares_of(self, lane: int) -> tuple[tuple[str, float], ...]:
        """About which share of a batch's time in this lane each of its steps takes; looked at anew with each tick."""
        if lane not in self._shares:
            steps = self.lanes[lane].steps()
            whole = sum(step.busy for step in steps)
            self._shares[lane] = tuple((step.name, step.busy / whole if whole else 1 / len(steps)) for step in steps)
        return self._shares[lane]

    def tick(self) -> None:
        """Look at memory, and show a snapshot, when it is time."""
        now = perf_counter()
        if now >= self._next_look:
            self.look()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._note(now - self._began)
            if self._view is not None:
                self._view.keep_up()
            if self.progress is None and not self.observers:
                return
            snapshot = self.snapshot()
            self._shares.clear()
            for each in self.observers:
                each.looked(snapshot.seconds, snapshot)
            if self.progress is not None:
                self.progress(snapshot)

    def _note(self, at: float, *, last: bool = False) -> None:
        """A point of the history."""
        to = self.history.last if last else self.history.point
        to(at, self.records_in, self.records_out, self.plan.workers, self.batch_size, self._held, self.failed)

    def look(self) -> None:
        """Note how much memory is held."""
        began, pids = perf_counter(), list(self.pids())
        self._held = memory.held([*pids, os.getpid()]) if pids else memory.held_here()
        self._peak = max(self._peak, self._held)
        ended = perf_counter()
        self._affordable = ended + RARELY * (ended - began)
        self._next_look = max(ended + LOOK, self._affordable)

    def end(self, *, complete: bool) -> None:
        """The run has ended; call before the workers go."""
        if self._ended is None and not sys.is_finalizing():  # a run left open when Python ends has nobody to tell
            if perf_counter() >= self._affordable:
                self.look()
            self._queued = cores.queued(self.tasks())
            self._ended = self.elapsed
            self._cpu_ended = process_time()
            self.complete = complete
            if not complete:
                self.ends_with(sys.exception())
            self._note(self._ended, last=True)
            try:
                if self._told:
                    report = self.report()
                    for each in self.observers:
                        each.ends(report)
                if self.progress is not None:
                    self.progress(self.snapshot())
            finally:
                if self._view is not None:
                    self._view.close(self.snapshot(), self.report)

    def hide(self) -> None:
        """Nothing of this run is to be seen any more. May be called again."""
        if self._view is not None:
            self._view.close()

    @property
    def retried(self) -> int:
        """Tries after a first one that failed, earlier processes' too."""
        return self.retried_earlier + sum(lane.totals()[4] for lane in self._counts())

    def snapshot(self) -> Snapshot:
        """How far the run is."""
        return Snapshot(
            name=self.name, how=self.plan.how, workers=self.plan.workers, batch_size=self.batch_size,
            seconds=self._seconds, records_in=self.records_in,
            records_out=self.records_out, failed=self.failed, resumed_at=self.resumed_at, dead_letters=self.dead_letters,
            in_flight=self.held, window=self.window,
            total=self.about if self.total is None else self.total,
            reckoned=self.total is None and self.about is not None, steps=self._steps(),
        )  # fmt: skip

    def report(self) -> Report:
        """What the run did so far."""
        seconds, workers_cpu = self._seconds, sum(lane.totals()[3] for lane in self._counts()) / 1e9
        cpu = (self._cpu_ended if self._ended is not None else process_time()) - self._cpu_began
        cpu += workers_cpu if not self.within else 0.0
        usable = usable_cores()
        steps = self._steps()
        spent = self._spent(seconds, workers_cpu, steps)
        return Report(
            name=self.name, how=self.plan.how, workers=self.plan.workers, batch_size=self.batch_size,
            records_in=self.records_in, records_out=self.records_out, failed=self.failed, skipped=self.skipped,
            retried=self.retried, seconds=seconds, first_result=self._first, cpu_seconds=cpu,
            cpu_utilisation=min(1.0, cpu / (seconds * usable)) if seconds else 0.0, cores=usable, peak_memory=self._peak,
            complete=self.complete, resumed_at=self.resumed_at, journal=self.journal, dead_letters=self.dead_letters,
            dead_lettered=self.failed if self.dead_letters is not None else 0, steps=steps,
            verdict=judge(spent), reasons=tuple(self.reasons), notes=tuple(self.notes),
            error=self.error,
            started=self._started, ended=None if self._started is None or self._ended is None else self._started + seconds,
            source=self.source, sink=self.sink, options=in_words(self._options), host=os.uname().nodename,
            versions=versions(),
            failures=tuple({**each, "examples": [list(one) for one in each["examples"]]} for each in self._failures.values()),
            spent={
                "reading": self.reading, "moving": self.handling, "consuming": self.consuming, "no_core": self._queued,
            },
            what_if=what_if(spent), history=self.history.to_dict(seconds, self._shares_by_step()),
        )  # fmt: skip

    def _spent(self, seconds: float, workers_cpu: float, steps: tuple[StepCount, ...]) -> Spent:
        return Spent(
            how=self.plan.how, cores=usable_cores(), seconds=seconds, records=self.records_in, steps=steps,
            groups=[
                Group(
                    len(segment.steps), segment.workers, segment.ahead,
                    min((step.rate for step in segment.steps if step.rate), default=None),
                    tuple(step.size or 0 for step in segment.steps),
                )
                for segment in self.plan.segments
            ],
            reading=self.reading, handling=self.handling, consuming=self.consuming, start_up=self.start_up,
            forked=self.forked, workers_cpu=workers_cpu, longest=self.longest, batches=self.batches,
            queued=self._queued, window=self.window, within=self.within,
            together=1.0 if self._one_by_one else self.records_in / max(1, self.batches + self.lots),
            batch_size=self._asked_size, complete=self.complete,
        )  # fmt: skip

    def _shares_by_step(self) -> list[list[float]]:
        """By lane: what each of its steps takes of a batch's time."""
        return [[step.busy for step in lane.steps()] for lane in self.lanes]

    @property
    def _seconds(self) -> float:
        return self._ended if self._ended is not None else self.elapsed

    def _counts(self) -> Iterator[LaneCount]:
        """The counters of each lane of all plans of the run."""
        return chain.from_iterable((*self._earlier, self.lanes))

    def _steps(self) -> tuple[StepCount, ...]:
        """Each step's counts, over all plans of the run; while it goes, with the batches that are in work."""
        rounds = [[count for lane in lanes for count in lane.steps()] for lanes in (*self._earlier, self.lanes)]
        if self.under_way is not None and self._ended is None and rounds:
            rounds[-1] = self._with_work(rounds[-1])
        merged = []
        for counts in zip(*rounds, strict=True):
            records, done = sum(c.records for c in counts), sum(c.ns_per_record * c.records for c in counts)
            merged.append(
                StepCount(
                    counts[0].name,
                    records,
                    sum(c.busy for c in counts),
                    sum(c.waiting for c in counts),
                    sum(c.blocked for c in counts),
                    done / records if records else 0.0,
                )
            )
        return tuple(merged)

    def _with_work(self, counts: list[StepCount]) -> list[StepCount]:
        """The steps of the newest plan with the time of batches that are not back yet, shared out as that of others was."""
        assert self.under_way is not None
        now, at, found = perf_counter(), 0, list(counts)
        spent = [0.0] * len(self.lanes)
        for lane, since in self.under_way():
            spent[lane] += max(0.0, now - since)
        for count, more in zip(self.lanes, spent, strict=True):
            mine = counts[at : at + len(count.names)]
            whole = sum(step.busy for step in mine)
            for n, step in enumerate(mine):
                share = step.busy / whole if whole else 1 / len(mine)
                found[at + n] = replace(step, busy=step.busy + more * share)
            at += len(mine)
        return found


def _in_words(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        return f"{kind}: {error}".removesuffix(": ")
    except Exception:  # an exception of somebody's, that cannot say what it is
        return kind


def ran_here(count: LaneCount, segment: Segment, busy_ns: int) -> None:
    """A segment has run in this process, for so many more nanoseconds."""
    s = segment
    count.note(0, count.busy_of(0) + busy_ns, 0, 0, 0, s.retried, s.records, s.timed_records, s.timed_ns)
