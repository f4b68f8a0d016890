"""What if: the real schedule, driven by measured costs and a simulated clock, tells the time on any number of cores.

The machine, the window and the batch controller of a run decide here too; only the hands are made up. The hub is one
process, each worker another; `cores` of them can work at once and share the cores evenly where there are more. Work is
drawn by replaying the measured lots in their order, again and again, so dear records come as often and as close
together as they came in the sample.

A long run is not simulated whole: when the rate of two stretches of deliveries is the same, the steady state is
reached, and all but the records of one more stretch, which show the tail, are leapt over at that rate. So a prediction
costs a few thousand simulated batches, however many records there are.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import NamedTuple

from taktline._planner.costs import Costs, StepCost
from taktline._public import named
from taktline._recipe.plan import RunPlan
from taktline._schedule import events
from taktline._schedule.bounds import batch_records, bounds
from taktline._schedule.machine import Machine
from taktline._schedule.sizing import BATCH_AIM, FAR_BATCH_AIM, Sizing

STRETCH = 256  # deliveries at least over which a rate is taken
LONGEST = 1_000  # deliveries at most: then a rate is taken though not all measured lots were replayed
STEADY = 0.02  # share by which the rates of two stretches may differ in the steady state
STRETCHES = 8  # after so many it is taken for steady as it is
COPY_NS = 0.15  # nanoseconds to copy a byte: what the hub passes on between workers is not unpacked there
FULL = 0.85  # share of the run from which something is its bottleneck
MEMORY = 1 << 32  # bytes in flight at most, where the caller does not say


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run would take. Seconds and bytes; `cpu_utilisation` is a share of `cores`, 0 to 1.

    `bottleneck`: a step's name, "source", "hub", "start-up", "waiting" (nothing is busy all the time), or "nothing" (there
    are no records).
    """

    how: str
    workers: int
    cores: int
    seconds: float
    cpu_utilisation: float
    memory: float
    bottleneck: str
    first_result: float
    batch_size: int  # records of a batch in the steady state
    machines: int = 0  # on which the workers are; 0: on the caller's


def predict(
    costs: Costs, plan: RunPlan, *, records: int, cores: int, window: int | None = None, memory: int = MEMORY,
    aim: float = BATCH_AIM,
) -> Prediction:  # fmt: skip
    """What this plan would take for so many records on so many cores. `aim`: seconds of work a batch.

    >>> from taktline._planner.costs import Move, StepCost, Ways
    >>> from taktline._recipe import plan as plans
    >>> from taktline._recipe.steps import as_step
    >>> costs = Costs((1,), 0, (StepCost("abs", (1e6,)),), (Move(), Move()), 1e6, Ways(start_up=0, worker_batch_ns=0))
    >>> [round(predict(costs, plans.line([as_step(abs)], n), records=100_000, cores=n).seconds) for n in (1, 2, 10)]
    [100, 50, 10]
    """
    if not plan.workers:
        return _loop(costs, records, cores)
    if costs.table and (plan.batch_size or 1) == 1:
        plan = replace(plan, batch_size=costs.table)
    return _Simulation(costs.under(plan, window), plan, records, cores, window, memory, aim).run()


def _loop(costs: Costs, records: int, cores: int) -> Prediction:
    each_ns = costs.loop_ns + (costs.encode.pack_ns if costs.encode else 0.0)
    seconds = each_ns * records / 1e9
    heaviest = max(range(len(costs.steps)), key=costs.mean_ns)
    means = [costs.mean_ns(n) for n in range(len(costs.steps))]
    computing = sum(mean * step.computing for mean, step in zip(means, costs.steps, strict=True)) + costs.read_ns
    bottleneck = "source" if costs.read_ns > means[heaviest] else costs.steps[heaviest].name
    return Prediction(
        "loop", 0, cores, seconds, min(1.0, computing / max(1.0, sum(means) + costs.read_ns)) / cores, costs.memory,
        bottleneck, each_ns / 1e9, 1,
    )  # fmt: skip


class _Replay:
    """Seconds that a segment takes for records `first` to `last` of the source.

    `alone`: they come one by one. Then one record stands for each measured lot, so that a few hundred show them all.
    `at_once`: records that are in a step that waits at the same time; each was measured by itself.
    """

    def __init__(self, costs: Costs, steps: tuple[StepCost, ...], *, alone: bool, at_once: int = 1) -> None:
        counts = costs.lots
        sums = [0.0] * len(counts)
        self._calls: list[tuple[float, int]] = []
        for step in steps:
            ns = list(step.lots)
            if alone and step.alone_ns is not None:
                ns = [step.alone_ns * count for count in counts]
            elif step.call_ns:
                self._calls.append((step.call_ns / 1e9, step.size or 1 << 62))
            sums = [a + b / at_once / 1e9 for a, b in zip(sums, ns, strict=True)]
        if alone:
            each = [seconds / count for seconds, count in zip(sums, counts, strict=True)]
            right = sum(sums) / sum(counts) / (sum(each) / len(each)) if sum(each) else 1.0  # lots weigh the same now
            counts, sums = (1,) * len(counts), [seconds * right for seconds in each]
        self._records = [0, *accumulate(counts)]
        self._seconds = [0.0, *accumulate(sums)]

    @property
    def length(self) -> int:
        """Records after which it begins anew."""
        return self._records[-1]

    def between(self, first: int, last: int) -> float:
        """Work in seconds, and the calls of the batch steps."""
        calls = sum(cost * -(-(last - first) // size) for cost, size in self._calls)
        return self._until(last) - self._until(first) + calls

    def _until(self, record: int) -> float:
        whole = self._records[-1]
        rounds, rest = divmod(record, whole)
        lot = min(bisect_right(self._records, rest), len(self._records) - 1) - 1
        start, end = self._records[lot], self._records[lot + 1]
        inside = (rest - start) / (end - start) * (self._seconds[lot + 1] - self._seconds[lot])
        return rounds * self._seconds[-1] + self._seconds[lot] + inside


class _Cores:
    """The simulated clock: processes at work share the cores evenly, those that wait need none.

    Work is timed on a clock of its own that goes slower when there are more processes than cores, so one heap holds it.
    """

    def __init__(self, cores: int) -> None:
        self.now = 0.0
        self.used = 0.0  # seconds of processor time
        self._cores = cores
        self._worked = 0.0
        self._working: list[tuple[float, int, Callable[[], None]]] = []
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def work(self, seconds: float, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._working, (self._worked + seconds, self._count, then))

    def wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (self.now + seconds, self._count, then))

    def advance(self) -> None:
        """To the next end of some work or of some waiting."""
        working = len(self._working)
        rate = min(1.0, self._cores / working) if working else 1.0
        done = self.now + (self._working[0][0] - self._worked) / rate if working else float("inf")
        awake = self._waiting[0][0] if self._waiting else float("inf")
        until = max(self.now, min(done, awake))
        self._worked += (until - self.now) * rate
        self.used += (until - self.now) * rate * working
        self.now = until
        heapq.heappop(self._working if done <= awake else self._waiting)[2]()


class _Mark(NamedTuple):
    """Figures of a moment of the simulation."""

    now: float
    delivered: int
    used: float
    hub: float
    reading: float
    lanes: tuple[float, ...]


class _SimulatedWorker:
    __slots__ = ("at_work", "has", "lane")

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.has: deque[int] = deque()
        self.at_work = False


class _Simulation:
    """One plan over so many records. The hub's methods are named as those of the real one."""

    def __init__(
        self, costs: Costs, plan: RunPlan, records: int, cores: int, window: int | None, memory: int, aim: float
    ) -> None:
        self._costs, self._plan, self._window = costs, plan, window
        self._all = self._left = records
        limits = bounds(
            [(s.workers, s.ahead) for s in plan.segments], batch_size=plan.batch_size, window=window, memory=memory,
            far=aim >= FAR_BATCH_AIM,
        )  # fmt: skip
        self._machine = Machine(limits.lanes, limits.limits)
        self._sizing = Sizing(plan.batch_size, unit=plan.call, least=plan.call, most_bytes=limits.most_bytes, aim=aim)
        self._cores = _Cores(cores)
        self._count = cores
        alone = plan.batch_size == 1
        self._ends = list(accumulate(len(segment.steps) for segment in plan.segments))  # a lane's last step + 1
        firsts = [0, *self._ends]
        self._replays = [
            _Replay(costs, costs.steps[first:last], alone=alone, at_once=max(1, segment.ahead))
            for first, last, segment in zip(firsts, self._ends, plan.segments, strict=False)
        ]
        self._computing = [_computing(costs, first, last) for first, last in zip(firsts, self._ends, strict=False)]
        self._ins = [costs.moves[first] for first in firsts[:-1]]
        self._outs = [costs.moves[last] for last in self._ends]
        self._workers: dict[int, _SimulatedWorker] = {}
        self._batches: dict[int, tuple[int, int]] = {}  # seq: first record, count
        self._seq = self._index = 0
        self._jobs: deque[events.RunHere] = deque()
        self._out: deque[int] = deque()
        self._inbox: deque[tuple[int, int]] = deque()
        self._seconds = [0.0] * len(plan.segments)  # a record of the last batch, a lane each
        self._hub_at_work = self._fed = False
        self._hub = self._reading = 0.0
        self._lanes = [0.0] * len(plan.segments)
        self._delivered = self._held = self._most_held = self._size = 0
        self._sizes: dict[int, int] = {}  # seq: bytes it holds
        self._first = self._ready = 0.0
        self._stretch_from = _Mark(0, 0, 0, 0, 0, tuple(self._lanes))
        self._rate = 0.0
        self._stretches = self._stretch_batches = 0
        self._leapt: _Mark | None = None

    def run(self) -> Prediction:
        self._tell(events.Begin())
        self._go_on()
        while not self._machine.over:
            self._cores.advance()
        return self._prediction()

    # --- the hub ---

    def _go_on(self) -> None:
        """What the hub does next, where it is free; it looks at its workers between two batches that it reads."""
        if self._hub_at_work:
            return
        if self._jobs:
            self._run(self._jobs.popleft())
        elif self._out:
            self._deliver(self._out.popleft())
        elif self._inbox and (self._fed or not self._machine.room()):
            self._fed = False
            self._receive(*self._inbox.popleft())
        elif self._machine.room():
            self._fed = True
            self._feed()

    def _at_work(self, seconds: float, then: Callable[[], None]) -> None:
        self._hub_at_work = True
        self._hub += seconds

        def done() -> None:
            self._hub_at_work = False
            then()
            self._go_on()

        self._cores.work(seconds, done)

    def _feed(self) -> None:
        wanted = self._sizing.next(self._left, self._plan.workers)
        room = self._machine.room()
        count = min(self._left, batch_records(room, wanted, window=self._window, workers=self._plan.workers))
        first = self._index
        self._index += count
        self._left -= count
        reading = count * self._costs.read_ns / 1e9
        packing, size = 0.0, 0
        if self._plan.segments[0].workers:
            packing = (count * self._ins[0].pack_ns + self._costs.ways.hub_batch_ns / 2) / 1e9
            size = int(count * self._ins[0].size)
        self._reading += reading

        def read() -> None:
            if count:
                self._batches[self._seq] = (first, count)
                self._seq += 1
                self._size = max(self._size, count)
                self._hold(self._seq - 1, size)
                self._sizing.weigh(count, size)
                self._tell(events.Read(count, size))
            if not self._left:
                self._tell(events.Exhausted())

        self._at_work(reading + packing, read)

    def _receive(self, seq: int, worker: int) -> None:
        lane = self._workers[worker].lane
        count = self._batches[seq][1]
        out = self._outs[lane]
        onward = lane + 1 < len(self._plan.segments) and self._plan.segments[lane + 1].workers
        ns = out.size * COPY_NS + self._costs.ways.hub_batch_ns / 2 if onward else out.unpack_ns
        ways = self._costs.ways

        def received() -> None:
            self._hold(seq, int(count * out.size))
            self._tell(events.Done(seq, worker, int(count * out.size), False))

        self._at_work((count * (ns + ways.hub_record_ns / 2) + ways.hub_batch_ns / 2) / 1e9, received)

    def _run(self, action: events.RunHere) -> None:
        """Through a segment in the hub's process."""
        lane = action.lane
        first, count = self._batches[action.seq]
        seconds = self._replays[lane].between(first, first + count)
        packs = lane + 1 < len(self._plan.segments)
        packing = count * self._outs[lane].pack_ns / 1e9 if packs else 0.0
        self._learn(lane, count, seconds, 0)
        self._lanes[lane] += seconds

        def ran() -> None:
            self._tell(events.Done(action.seq, None, 0, False))

        self._at_work(seconds + packing, ran)

    def _deliver(self, seq: int) -> None:
        count = self._batches.pop(seq)[1]

        def taken() -> None:
            self._delivered += count
            self._first = self._first or self._cores.now
            self._hold(seq, 0)
            self._tell(events.Took(seq))
            self._look()

        writing = self._costs.encode.pack_ns if self._costs.encode else 0.0
        self._at_work(count * (self._costs.ways.hub_record_ns / 2 + writing) / 1e9, taken)

    def _learn(self, lane: int, count: int, seconds: float, size: int) -> None:
        self._seconds[lane] = seconds / count
        if self._plan.segments[lane].takes_all:
            self._sizing.learn_calls(lane, count, seconds)
        self._sizing.learn(count, max(*self._seconds, self._costs.read_ns / 1e9) * count, size)

    def _hold(self, seq: int, size: int) -> None:
        self._held += size - self._sizes.pop(seq, 0)
        if size:
            self._sizes[seq] = size
        self._most_held = max(self._most_held, self._held)

    # --- what the schedule says ---

    def _tell(self, event: events.Event) -> None:
        for action in self._machine.on(event):
            if isinstance(action, events.Send):
                self._workers[action.worker].has.append(action.seq)
                self._work(action.worker)
            elif isinstance(action, events.Emit):
                self._out.append(action.seq)
            elif isinstance(action, events.RunHere):
                self._jobs.append(action)
            else:
                assert isinstance(action, events.Start)  # nobody dies here, and no record fails
                self._start(action.worker, action.lane)

    def _start(self, worker: int, lane: int) -> None:
        self._workers[worker] = _SimulatedWorker(lane)

        def ready() -> None:
            self._ready = self._cores.now
            self._tell(events.WorkerReady(worker))
            self._go_on()

        self._cores.work(self._costs.ways.start_up, ready)

    # --- the workers ---

    def _work(self, w: int) -> None:
        worker = self._workers[w]
        if worker.at_work or not worker.has:
            return
        worker.at_work = True
        seq = worker.has.popleft()
        first, count = self._batches[seq]
        lane, ways = worker.lane, self._costs.ways
        steps = self._replays[lane].between(first, first + count)
        waiting = steps * (1 - self._computing[lane])
        moving = count * (self._ins[lane].unpack_ns + self._outs[lane].pack_ns)
        computing = (steps - waiting) * ways.slowdown + (moving + ways.worker_batch_ns) / 1e9

        def done() -> None:
            self._lanes[lane] += computing + waiting
            self._learn(lane, count, computing + waiting, int(count * self._outs[lane].size))
            self._inbox.append((seq, w))
            worker.at_work = False
            self._work(w)
            self._go_on()

        def computed() -> None:
            if waiting:
                self._cores.wait(waiting, done)
            else:
                done()

        self._cores.work(computing, computed)

    # --- the steady state ---

    def _look(self) -> None:
        """At the end of a stretch: whether the steady state is reached, and then the leap."""
        self._stretch_batches += 1
        start = self._stretch_from
        enough = max(STRETCH, 8 * self._plan.workers)
        if self._leapt is not None or self._stretch_batches < enough:
            return
        if self._delivered - start.delivered < self._replays[0].length and self._stretch_batches < LONGEST:
            return
        here = self._mark()
        rate = (here.delivered - start.delivered) / max(1e-12, here.now - start.now)
        steady = abs(rate - self._rate) < STEADY * rate
        self._rate = rate
        self._stretches += 1
        self._stretch_batches, self._stretch_from = 0, here
        if steady or self._stretches >= STRETCHES:
            self._leap(start, here)

    def _leap(self, start: _Mark, here: _Mark) -> None:
        stretch = here.delivered - start.delivered
        over = self._left - stretch
        if over <= stretch:
            return
        times = over / stretch
        self._left -= over
        gaps = [b - a for a, b in zip(start[:-1], here[:-1], strict=True)]
        lanes = tuple((b - a) * times for a, b in zip(start.lanes, here.lanes, strict=True))
        self._leapt = _Mark(gaps[0] * times, over, gaps[2] * times, gaps[3] * times, gaps[4] * times, lanes)

    def _mark(self) -> _Mark:
        return _Mark(self._cores.now, self._delivered, self._cores.used, self._hub, self._reading, tuple(self._lanes))

    # --- the outcome ---

    def _prediction(self) -> Prediction:
        here, leapt = self._mark(), self._leapt or _Mark(0, 0, 0, 0, 0, tuple([0.0] * len(self._lanes)))
        ways, plan = self._costs.ways, self._plan
        seconds = here.now + leapt.now + ways.ending
        cpu = (here.used + leapt.used) / (seconds * self._count) if seconds else 0.0
        lanes = [a + b for a, b in zip(here.lanes, leapt.lanes, strict=True)]
        return Prediction(
            how=plan.how, workers=plan.workers, cores=self._count, seconds=seconds, cpu_utilisation=min(1.0, cpu),
            memory=self._costs.memory + plan.workers * ways.worker_memory + 2 * self._most_held,
            bottleneck=self._bottleneck(seconds, cpu, here.hub + leapt.hub, here.reading + leapt.reading, lanes),
            first_result=self._first, batch_size=self._size,
        )  # fmt: skip

    def _bottleneck(self, seconds: float, cpu: float, hub: float, reading: float, lanes: list[float]) -> str:
        if not self._all:
            return "nothing"
        if self._ready > seconds / 2:
            return "start-up"
        here = sum(lanes[n] for n, segment in enumerate(self._plan.segments) if not segment.workers)
        shares = [
            (spent / segment.workers / seconds, n)
            for n, (spent, segment) in enumerate(zip(lanes, self._plan.segments, strict=True))
            if segment.workers
        ]
        share, lane = max(shares)
        there = sum(lanes) - here
        # On fewer cores than processes none of them is busy all the time, but the cores are.
        if hub > FULL * seconds or (cpu > FULL and hub > there and share <= FULL):
            if reading > hub / 2:
                return "source"
            return self._heaviest(lambda n: not self._plan.segments[n].workers) if here > hub / 2 else "hub"
        return self._heaviest(lambda n: n == lane) if share > FULL or cpu > FULL else "waiting"

    def _heaviest(self, among: Callable[[int], bool]) -> str:
        """The dearest step of some lanes."""
        ranges = [
            range(end - len(segment.steps), end)
            for n, (end, segment) in enumerate(zip(self._ends, self._plan.segments, strict=True))
            if among(n)
        ]
        return self._costs.steps[max(chain.from_iterable(ranges), key=self._costs.mean_ns)].name


def _computing(costs: Costs, first: int, last: int) -> float:
    """Share of the processor in the time of these steps."""
    means = [(costs.mean_ns(n), costs.steps[n].computing) for n in range(first, last)]
    whole = sum(mean for mean, _ in means)
    return sum(mean * share for mean, share in means) / whole if whole else 1.0


named(globals())
