"""Collects what a run costs and makes its Snapshots and its Report."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from time import perf_counter, process_time, time
from typing import Any

from taktline import _excerpts as excerpts
from taktline._observe import cores
from taktline._observe.counters import LaneCount
from taktline._observe.history import History
from taktline._observe.snapshot import NodeCount, Report, Snapshot, StepCount
from taktline._observe.verdict import Group, Spent, judge, what_if
from taktline._observe.versions import versions
from taktline._recipe.options import Options, in_words, usable_cores
from taktline._recipe.plan import RunPlan
from taktline._recipe.steps import Gives, Role, Step
from taktline._run.failures import FailuresByKind, says
from taktline._run.memory_watch import MemoryWatch
from taktline._run.places import Places
from taktline._schedule import events
from taktline._segment.batch import READING_STEP
from taktline._segment.segment import Segment
from taktline._signals import pass_on
from taktline._working_folder import working_folder
from taktline.abc import Health, Live, Observer
from taktline.views import log
from taktline.views.progress import View, hidden, resume, view_for

TICK = 0.25  # seconds between two snapshots
STUCK = 5.0  # seconds after which one is overdue


class Meter:
    """The clock and the counters of one run."""

    def __init__(self, name: str, plan: RunPlan, options: Options, total: int | None) -> None:
        self.name = name
        self.plan = plan
        self.total = total
        self.about: int | None = None  # the same, reckoned
        self.under_way: Callable[[], Iterable[tuple[int, float]]] | None = None  # lanes at work, each since when
        self.window = options.window
        self.records_in = 0
        self.records_out = 0
        self.failed = 0
        self.given_back = 0  # failures whose records come again, and have no dead letter
        self.skipped = 0
        self.resumed_at = 0
        self.retried_earlier = 0
        self.workers_ended = 0
        self.dead_letters = None if options.dead_letters is None else os.fspath(options.dead_letters)
        self.journal = None if options.journal is None else os.fspath(options.journal)
        self.in_flight = 0
        self.batch_size = 1
        self.reading = 0.0
        self.handling = 0.0  # seconds of the hub with records and results
        self._broken_off: defaultdict[int, float] = defaultdict(float)  # seconds of steps that were ended at work
        self.listened = 0.0  # when it was last seen what workers have given back
        self.consuming = 0.0  # seconds that the results were with who takes them
        self.start_up = 0.0  # seconds until the first worker was ready
        self.forked = False  # and not launched
        self.tables = False  # records travel as rows of tables
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
        self.elsewhere = 0  # records that went to others while they were under way
        self.pids: Callable[[], Iterable[int]] = list
        self.tasks: Callable[[], Iterable[int]] = list  # what the system gives cores to for the workers
        self.machines: Callable[[], Iterable[str]] = list  # the machine of each worker that is on another one
        self._nodes: dict[str, tuple[int, int, float]] = {}  # what came from there: records, batches, busy seconds
        self.complete = False
        self.source = self.sink = ""  # in words
        self.line_of_steps: tuple[Step, ...] = ()  # as the line has them
        self.places: Places | None = None  # of the records in what is read
        self.error = ""  # what ended it early
        self._options = options
        self._failures = FailuresByKind()
        self.live: Live | None = None  # the source, where its records come when they come
        self.of_live = False  # whether it was such a source, which is known when it is gone, too
        self._health = Health()  # of it, when it was last looked at
        self._moved = perf_counter()  # when something was last done
        self.lanes: list[LaneCount] = []
        asked = options.progress
        # A view looks for itself, in a thread of its own; whatever else is given is called here.
        self._view = asked if isinstance(asked, View) else None if callable(asked) else view_for(asked)
        self.history = History()
        self.observers = _observers(options, shown=self._view is not None or callable(asked))
        self._shares: dict[int, tuple[tuple[str, float], ...]] = {}  # by lane: of its steps
        self._told = False  # the observers, that it has begun
        self.progress: Callable[[Snapshot], None] | None = None
        if callable(asked) and asked is not hidden and not isinstance(asked, View):
            self.progress = asked
        self._began = perf_counter()
        self._cpu_began = process_time()
        self._cores_began: float | None = None  # seconds that all cores had been at work, for whomever
        self._others = 0.0  # the share of them that other programs had
        self._started: float | None = None  # seconds since 1970
        self._folder = ""  # that the run began in
        self._first: float | None = None
        self._ended: float | None = None
        self._handed = self._began
        self._queued = 0.0
        self._cpu_ended = 0.0
        self._next_tick = self._began + TICK
        self._memory = MemoryWatch(self._began)
        self._earlier: list[list[LaneCount]] = []  # counters of an earlier plan of the same run

    @property
    def shows(self) -> bool:
        """Whether somebody looks while it runs."""
        return self._view is not None or self.progress is not None

    def begin(self) -> None:
        """The clock starts now: the first result was asked for."""
        self._began = perf_counter()
        self._cpu_began = process_time()
        self._cores_began = cores.busy()
        self._started = time()
        self._folder = working_folder()
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

    def use(self, plan: RunPlan, *, within: bool = False, tables: bool = False) -> None:
        """The run goes on under this plan. `within`: its workers are threads of this process; `tables`: what they get are
        rows of tables."""
        if self.lanes:
            self._earlier.append(self.lanes)
        self.plan = plan
        self.within, self.tables = within, tables
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

    def broken_off(self, step: int | None, seconds: float) -> None:
        """So long a step, by its place in the line, or the source (None) was at work when an exception came out of it."""
        if step is None:
            self.reading += seconds
        else:
            self._broken_off[step] += seconds

    def ends_with(self, error: BaseException | None) -> None:
        """This ended the run; its words are kept, and not the exception, which keeps much else."""
        if error is not None and not isinstance(error, GeneratorExit):  # which is somebody who took no more results
            self.error = self.error or excerpts.masked(says(error))

    def fail(self, index: int, step: str, error: BaseException, record: Any) -> None:
        """This record has failed."""
        self.failed += 1
        if not self._failures.by_step:
            self.history.mark(self.elapsed, "failed", f"record {index:,} fails in {step!r}")
        self._failures.add(index, step, error, record)

    def where(self, index: int) -> str:
        """Where a record stands in what was read, such as "orders.jsonl:48212"; empty where that is not known."""
        try:
            return self.places.of(index) if self.places is not None else ""
        except Exception as error:  # the source may have gone, and the run's own error is what is to be told
            pass_on(error)
            return ""

    def given(self, step: str, excerpt: str) -> str:
        """What a step was given, in words, and which step made it; empty where it was the record itself."""
        made_by = ""
        for each in (each for segment in self.plan.segments for each in segment.steps):
            if each.name == step:
                break
            if each.role is not Role.KEEP and each.gives is not Gives.MASK:
                made_by = each.name
        return f"{excerpt}, from step {made_by!r}" if excerpt and made_by else ""

    def ready(self) -> None:
        """A worker waits for records."""
        self.start_up = self.start_up or self.elapsed

    def worked(self, worker: int | None, lane: int, seconds: float, first: int, records: int) -> events.Work | None:
        """A batch came back from a worker, or went through steps here (None), and took so long. What to tell of it, where
        somebody listens."""
        self._moved = perf_counter()
        ended = self._moved - self._began
        self.history.worked(worker, ended - seconds, ended, lane)
        if worker is not None:
            self.batches += 1
            if seconds > self.longest[0]:
                self.longest = (seconds, first, records)
        return events.Work(seconds, first, records, self._shares_of(lane)) if self.observers else None

    def came_from(self, node: str, records: int, seconds: float) -> None:
        """A batch came back from a worker on another machine, which was busy with it for so long."""
        before = self._nodes.get(node, (0, 0, 0.0))
        self._nodes[node] = before[0] + records, before[1] + 1, before[2] + seconds

    def _by_node(self) -> tuple[NodeCount, ...]:
        """In the order in which something has come from them: who tells only the first ones apart always tells the same."""
        there = Counter(self.machines())
        names = [*self._nodes, *sorted(there.keys() - self._nodes.keys())]
        return tuple(NodeCount(name, there[name], *self._nodes.get(name, (0, 0, 0.0))) for name in names)

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

    @property
    def _still(self) -> float:
        """Seconds since anything was done, while there is something to do."""
        if self._ended is not None or not (self.in_flight or self._stuck):
            return 0.0
        return perf_counter() - self._moved

    @property
    def _stuck(self) -> bool:
        """Whether the run's own thread does not come back from a step or a sink: it looks around between two batches, and a
        live source never holds it for long."""
        return self.live is not None and perf_counter() > self._next_tick + STUCK

    def tick(self) -> None:
        """Look at memory, and show a snapshot, when it is time."""
        now = perf_counter()
        if now >= self._memory.next_look:
            self.look()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._note(now - self._began)
            if not self.in_flight:
                self._moved = now
            if self.live is not None:
                self._health = self.live.health()
            if self._view is not None:
                self._view.keep_up()
            else:
                resume()
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
        to(at, self.records_in, self.records_out, self.plan.workers, self.batch_size, self._memory.held, self.failed)

    def look(self) -> None:
        """Note how much memory is held."""
        self._memory.look(self.pids())

    def end(self, *, complete: bool) -> None:
        """The run has ended; call before the workers go."""
        if self._ended is None and not sys.is_finalizing():  # a run left open when Python ends has nobody to tell
            if perf_counter() >= self._memory.affordable:
                self.look()
            self._queued = cores.queued(self.tasks())
            self.machines = partial(list, [*self.machines()])
            self._ended = self.elapsed
            self._cpu_ended = process_time()
            self._others = self._had_by_others()
            self.complete = complete
            if not complete:
                self._break_off_work()
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

    def _break_off_work(self) -> None:
        """Batches that workers have not given back count to their steps, for as long as it is known that they were at work on
        them: while the source or the sink was waited for, nobody listened."""
        if self.under_way is not None and self.lanes:
            counts = [count for lane in self.lanes for count in lane.steps()]
            for n, (before, now) in enumerate(zip(counts, self._with_work(counts, self.listened), strict=True)):
                self._broken_off[n] += now.busy - before.busy

    def _had_by_others(self) -> float:
        """The share of the machine's cores that other programs than this run had so far."""
        workers = sum(lane.totals()[3] for lane in self._counts()) / 1e9 if not self.within else 0.0
        return cores.had_by_others(self._cores_began, process_time() - self._cpu_began + workers, self._seconds)

    @property
    def _taken(self) -> float | None:
        """The share of the machine's cores that other programs had; None where the system does not tell."""
        if self._cores_began is None or not self._seconds:
            return None
        return self._others if self._ended is not None else self._had_by_others()

    @property
    def _left(self) -> float | None:
        """About how many seconds the records take that are left."""
        total, done = self.about if self.total is None else self.total, self.records_in - self.resumed_at
        if self.complete or total is None or done <= 0 or total <= self.records_in:
            return None
        return self._seconds * (total - self.records_in) / done

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
            in_flight=self.in_flight, window=self.window,
            total=self.about if self.total is None else self.total,
            reckoned=self.total is None and self.about is not None, steps=self._steps(),
            skipped=self.skipped, retried=self.retried, workers_ended=self.workers_ended, memory=self._memory.held,
            still=self._still, backlog=self._health.backlog, lag=self._health.lag, refused=self._health.refused,
            nodes=self._by_node(),
        )  # fmt: skip

    def report(self) -> Report:
        """What the run did so far."""
        seconds, workers_cpu = self._seconds, sum(lane.totals()[3] for lane in self._counts()) / 1e9
        cpu = (self._cpu_ended if self._ended is not None else process_time()) - self._cpu_began
        cpu += workers_cpu if not self.within else 0.0
        usable = self._cores
        steps = self._steps()
        back = f"given back after a failure, to come again, and in no dead letter yet: {self.given_back:,}"
        others = (
            f"{self.elsewhere:,} records went to other consumers while they were under way; their results are left out"
        )
        spent = self._spent(seconds, workers_cpu, steps)
        return Report(
            name=self.name, how=self.plan.how, workers=self.plan.workers, batch_size=self.batch_size,
            records_in=self.records_in, records_out=self.records_out, failed=self.failed, skipped=self.skipped,
            retried=self.retried, seconds=seconds, first_result=self._first, cpu_seconds=cpu,
            cpu_utilisation=min(1.0, cpu / (seconds * usable)) if seconds else 0.0, cores=usable,
            peak_memory=self._memory.peak, complete=self.complete, resumed_at=self.resumed_at, journal=self.journal,
            dead_letters=self.dead_letters, steps=steps,
            dead_lettered=self.failed - self.given_back if self.dead_letters is not None else 0,
            verdict=judge(spent), reasons=(*self.reasons, *self._uncounted()),
            notes=(*self.notes, *([others] if self.elsewhere else []), *([back] if self.given_back else [])),
            error=self.error,
            started=self._started, ended=None if self._started is None or self._ended is None else self._started + seconds,
            source=self.source, sink=self.sink, options=in_words(self._options), host=os.uname().nodename,
            versions=versions(),
            failures=self._failures.told(),
            spent={
                "reading": self.reading, "moving": self.handling, "consuming": self.consuming, "no_core": self._queued,
            },
            what_if=what_if(spent), history=self.history.to_dict(seconds, self._shares_by_step()),
            total=self.about if self.total is None else self.total, reckoned=self.total is None and self.about is not None,
            left=self._left, others=self._taken, workers_ended=self.workers_ended,
            retry=self._retry(), folder=self._folder, nodes=self._by_node(),
        )  # fmt: skip

    def _uncounted(self) -> list[str]:
        """What steps want of a machine, where nobody looks for it."""
        if self._options.on is not None:
            return []
        return [
            f"step {step.name!r} wants {step.needs()} for each of its workers: that is counted with on= alone, and here it "
            "runs as any other step"
            for segment in self.plan.segments for step in segment.steps if step.resources
        ]  # fmt: skip

    def _retry(self) -> str:
        if self.dead_letters is None or self.failed <= self.given_back:
            return ""
        if {*self._failures.by_step} == {READING_STEP}:  # a line that is no record can be given to no step
            return ""
        from taktline._run.suggestions import retry

        return retry(self.line_of_steps, self.dead_letters)

    @property
    def _cores(self) -> int:
        """That the run can use: those of this machine, or one for each worker elsewhere and one here."""
        return usable_cores() if self._options.on is None else self.plan.workers + 1

    def _spent(self, seconds: float, workers_cpu: float, steps: tuple[StepCount, ...]) -> Spent:
        return Spent(
            how=self.plan.how, cores=self._cores, seconds=seconds, records=self.records_in, steps=steps,
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
            queued=self._queued, window=self.window, within=self.within, tables=self.tables,
            together=1.0 if self._one_by_one else self.records_in / max(1, self.batches + self.lots),
            batch_size=self._asked_size, complete=self.complete, live=self.of_live,
            others=(self._taken or 0.0) if self._options.on is None else 0.0,
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
            rounds[-1] = self._with_work(rounds[-1], perf_counter())
        merged, failed = [], self._failures.by_step
        for n, counts in enumerate(zip(*rounds, strict=True)):
            records, done = sum(c.records for c in counts), sum(c.ns_per_record * c.records for c in counts)
            merged.append(
                StepCount(
                    counts[0].name,
                    records,
                    sum(c.busy for c in counts) + self._broken_off[n],
                    sum(c.waiting for c in counts),
                    sum(c.blocked for c in counts),
                    done / records if records else 0.0,
                    failed.get(counts[0].name, 0),
                )
            )
        return tuple(merged)

    def _with_work(self, counts: list[StepCount], until: float) -> list[StepCount]:
        """The steps of the newest plan with the time of batches that are not back yet, shared out as that of others was."""
        assert self.under_way is not None
        at, found = 0, list(counts)
        spent = [0.0] * len(self.lanes)
        for lane, since in self.under_way():
            spent[lane] += max(0.0, until - since)
        for count, more in zip(self.lanes, spent, strict=True):
            mine = counts[at : at + len(count.names)]
            whole = sum(step.busy for step in mine)
            for n, step in enumerate(mine):
                share = step.busy / whole if whole else 1 / len(mine)
                found[at + n] = replace(step, busy=step.busy + more * share)
            at += len(mine)
        return found


def _observers(options: Options, *, shown: bool) -> tuple[Observer, ...]:
    """All that listen: those that were given, the trace, and the program's log. `shown`: progress is."""
    found = options.observers
    if options.trace is not None:
        from taktline.views.trace import Trace

        found += (Trace(os.fspath(options.trace)),)
    heard = log.listener(shown=shown) if options.progress is not hidden else None
    return found if heard is None else (*found, heard)


def ran_here(count: LaneCount, segment: Segment, busy_ns: int) -> None:
    """A segment has run in this process, for so many more nanoseconds."""
    s = segment
    count.note(0, count.busy_of(0) + busy_ns, 0, 0, 0, s.retried, s.records, s.timed_records, s.timed_ns)
