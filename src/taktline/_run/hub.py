"""The caller's side of a run with workers: wait, tell the schedule, do its actions, deliver. All inside `next()`."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf
from time import perf_counter
from types import MappingProxyType
from typing import Any

from taktline._crew import contract
from taktline._crew.contract import Crew, WorkerPlace
from taktline._excerpts import excerpt
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.plan import RunPlan, keyed
from taktline._recipe.steps import Role, Step
from taktline._run.engine import Engine
from taktline._run.in_flight import InFlight
from taktline._run.meter import Meter, ran_here
from taktline._run.originals import Originals
from taktline._run.output import OutputBatch, as_records, settled
from taktline._run.reader import Reader
from taktline._schedule import events
from taktline._schedule.bounds import batch_records, bounds
from taktline._schedule.machine import Machine
from taktline._schedule.sizing import BATCH_AIM, TABLE_BATCH_AIM, Sizing
from taktline._schedule.stall import Stall
from taktline._segment import keys, policies
from taktline._segment.batch import Batch
from taktline._segment.segment import Pieces, Segment
from taktline._segment.tables import ArrowRows
from taktline._segment.values import records_of
from taktline.abc import Part
from taktline.errors import Hanging, LineError, Stalled, StepTimeout, WorkerDied, WorkersCannotStart
from taktline.views.progress import withdraw

TURN = 0.0002  # seconds of reading between two looks at the workers
PATIENCE = 0.25  # seconds of waiting after which the clock and the progress are looked at
SOON = 0.02  # the same where records come when they come
NOT_READ = 3  # parts in a row that a machine's workers could not read, after which no more of them go there unread
NAMED = 4  # machines, in a sentence


class Hub(Engine):
    """Runs a plan by a crew. `clock` tells seconds."""

    def __init__(
        self, plan: RunPlan, options: Options, reader: Reader, meter: Meter, crew: Crew,
        clock: Callable[[], float] = perf_counter,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._clock = clock
        self._worker_count = plan.workers
        self._about_left = reader.about_left  # when it was read last
        self._options = options
        self._goes_on = options.goes_on
        self._reader = reader
        self._meter = meter
        # A first segment in this process takes records.
        self._tables = reader.tables and bool(plan.segments[0].workers)
        self._whole = self._tables and options.in_tables
        with_key = keyed([step for segment in plan.segments for step in segment.steps])
        self._by = with_key.by if with_key is not None else None
        memory = memory_bytes(options.memory)
        seeds = plan.seeds(options.seed)
        self._crew = crew
        if options.on is not None and (has := reader.look()) is not None:
            crew.look_first(has)
        # What was built for workers may take its time to close, as it does in the loop.
        crew.closing = options.stall or inf
        limits = bounds(
            [(s.workers, s.ahead) for s in plan.segments], batch_size=plan.batch_size, window=options.window, memory=memory,
            tables=self._whole, far=crew.batch_seconds > 0,
        )  # fmt: skip
        self._machine = Machine(limits.lanes, limits.limits, ordered=options.ordered)
        self._on = self._machine.on if not meter.observers else self._heard_on
        self._sizing = Sizing(
            plan.batch_size, unit=plan.call, least=plan.call, most_bytes=limits.most_bytes,
            aim=crew.batch_seconds or (TABLE_BATCH_AIM if reader.slices else BATCH_AIM),
        )  # fmt: skip
        self._here = [
            None if s.workers else Segment(s.steps, goes_on=options.goes_on, seed=seed)
            for s, seed in zip(plan.segments, seeds, strict=True)
        ]
        self._unread: dict[str, int] = {}  # parts of the source in a row that workers on these machines could not read
        self._most, self._most_bytes = options.recycle_records, options.recycle_bytes
        self._given: dict[int, int] = {}  # records, by worker, where workers are replaced after so many
        for segment in self._here:
            if segment is not None:
                segment.most = memory // 2
        self._under_way: dict[int, Pieces] = {}  # seq of a batch that comes in pieces here: the rest of them
        self._part: InFlight | None = None  # that has come, and has no number yet
        self._events: deque[tuple[events.Event, InFlight | None]] = deque()
        self._telling = False
        self._gently = any(step.maker or step.kind == "async" for segment in plan.segments for step in segment.steps)
        self._in_flight: dict[int, InFlight] = {}
        self._tells = reader.live or options.journal is not None
        self._stall = Stall(options.stall)
        self._lane_of: dict[int, int] = {}
        self._costs = [0.0] * len(limits.lanes)  # seconds a record of the last batch, a lane each
        self._read_cost = 0.0
        self._since: dict[int, float] = {}  # workers at work: since when
        self._retired: set[int] = set()  # workers whose number another one has: what was heard of them is of no matter
        self._living: set[int] = set()  # workers
        self._starting: set[int] = set()  # of them, those that do not take batches yet
        # On their way out: batches, the records of the source behind them, their results, and the error that follows.
        self._out: deque[tuple[int, int, OutputBatch, BaseException | None]] = deque()
        self._fatal: BaseException | None = None
        self._unreadable = 1 << 62  # in results as they come: the first part of the source that cannot be read
        self._leaving = False
        self._delivered = False  # all that was read
        self.takes_back = False  # who reads on without workers runs what cannot be sent to them
        self.unsent: InFlight | None = None  # what was read, and is left for that,
        self.why_unsent = ""  # and why
        meter.use(plan, within=not self._crew.isolates, tables=self._tables)
        meter.pids, meter.tasks = self._crew.pids, self._crew.tasks
        meter.under_way = self._at_work
        if options.on is not None:
            meter.machines = lambda: [crew.where(worker) for worker in list(self._living)]

    # --- what the run calls ---

    def results(self, end: Callable[[bool], None]) -> tuple[Iterator[Any], Iterator[Any]]:
        outputs = self.outputs(end)
        return chain.from_iterable(outputs), outputs

    def outputs(self, end: Callable[[bool], None]) -> Iterator[OutputBatch]:
        try:
            yield from self._outputs(end)
        except BaseException:  # a signal's handler may have kept this from being called, and again does no harm
            end(False)
            raise

    def _outputs(self, end: Callable[[bool], None]) -> Iterator[OutputBatch]:
        complete = False
        try:
            if self._options.setup is not None and (any(self._here) or not self._crew.isolates):
                policies.set_up(self._options.setup)
            self.start()
            yield from self.deliveries()
            complete = True
        except MemoryError as error:
            # A step's own says where it happened, and so does the source's.
            if error is not self._reader.error and not hasattr(error, "__taktline__"):
                error.add_note(
                    "memory ran out in the caller's process while records or results were on their way; "
                    "use fewer workers, a smaller batch_size=, or a smaller memory="
                )
            raise
        finally:
            end(complete)

    def start(self, lent: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Start the workers; they get ready while the caller goes on. `lent`: serial steps by name that the caller has
        built, has used, and will close: their states go on here."""
        for segment in self._here:
            if segment is not None:
                segment.make(lent)
                if self.states is not None:
                    self.states.built(segment)
        withdraw()
        self._tell(events.Begin())
        self._meter.forked = self._crew.forks or not self._crew.isolates
        if self._options.start == "auto" and self._crew.why:
            self._meter.reasons.append(self._crew.why)

    @property
    def without_workers(self) -> BaseException | None:
        """Why no worker can be had, where that is so and no record was read for them."""
        return self._fatal if isinstance(self._fatal, WorkersCannotStart) and not self._machine.next_seq else None

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether all workers wait for records, or do within about so many seconds; an error of theirs is raised by
        `deliveries`."""
        self._listen(seconds)
        return not self._starting or self._fatal is not None

    def deliveries(self) -> Iterator[OutputBatch]:
        """The results, a list a batch, in order. A list is taken when the next one is asked for."""
        machine, out, meter = self._machine, self._out, self._meter
        while True:
            while out:
                seq, records, results, error = out[0]
                meter.delivered(len(results))
                yield results
                meter.resumed()
                if error is not None:
                    raise error
                out.popleft()
                meter.in_flight -= records
                self._tell(events.Took(seq))
            if self._fatal is not None:
                raise self._fatal
            if machine.over or (self._leaving and machine.window.empty):
                break
            busy = self._feed()
            # Small batches go out many at once; a slow source is not asked again before results were looked for.
            if busy and not out:
                until = perf_counter() + TURN
                while not out and perf_counter() < until and self._feed():
                    pass
            if not out:
                self._listen(0 if busy else self._patience)
                meter.tick()
                if self._tells and not out:
                    yield OutputBatch([])  # who writes down what is done gets a chance to, also while nothing comes
        if self._reader.error is not None:
            raise self._reader.error
        self._delivered = True

    def break_off(self) -> None:
        self._fatal = self._fatal or self._reader.error or LineError("this run was left")

    def leave(self) -> None:
        """Read no more: `deliveries` ends with what is under way, and who reads on does so without workers."""
        self._leaving = True

    def close(self) -> None:
        crew = self._crew
        if crew is None:
            return
        try:
            self._meter.pids = self._meter.tasks = list
            self._meter.under_way = None
            for segment in self._here:
                if segment is not None:
                    segment.close()
        finally:
            if not self._delivered:
                crew.closing = Crew.closing
            crew.close(gently=self._gently)
            self._crew = None  # type: ignore[assignment]
            self._in_flight.clear()
            self._out.clear()
        if self._delivered and (unclosed := crew.unclosed()):
            raise unclosed[0]

    # --- feed, listen ---

    def _feed(self) -> bool:
        """Read one batch where there is room for it; whether there was."""
        room = self._machine.room()
        reader, workers = self._reader, self._worker_count
        if room < 1 or self._leaving or (room < reader.block and self._in_flight):
            return False
        wanted = self._sizing.next(self._about_left, workers)
        size = batch_records(room, wanted, window=self._options.window, workers=workers)
        first, began = reader.index, perf_counter()
        # What has read a part of the source may keep it open: that is for one thread.
        part = reader.read_part if self._crew.isolates else reader.read
        read = part if self._here[0] is None else self._read_here
        if self._tables:
            records = reader.read_part(size, 0.0 if self._in_flight else PATIENCE, whole=self._whole)
        else:
            records = read(size, 0.0 if self._in_flight else PATIENCE)
        seconds = perf_counter() - began
        self._meter.reading += seconds
        if records:
            count = len(records)
            self._read_cost = seconds / count
            flight = InFlight(first, records, Batch.read(records, reader.unread, first), goes_on=self._goes_on)
            weight = 0
            if self._here[0] is None:
                if self._tables and not self._crew.isolates:
                    self._decode(flight, table=True)
                as_read = flight.batch.copy() if self.takes_back else None
                self._crew.prepare(flight.batch, 0)
                if as_read is not None and len(flight.batch.failures) > len(as_read.failures):
                    known = {failure.origin for failure in as_read.failures}
                    failure = next(each for each in flight.batch.failures if each.origin not in known)
                    self.unsent, self.why_unsent, flight.batch = flight, str(failure.error), as_read
                    self.leave()
                    return False
                self._sizing.weigh(count, weight := flight.weight)
                if self._options.shows_records and not self._crew.isolates:
                    flight.before = Originals(records)
            self._in_flight[self._machine.next_seq] = flight
            self._meter.records_in += count
            self._meter.in_flight += count
            self._meter.batch_size = count
            self._tell(events.Read(count, weight))
        self._about_left = left = reader.about_left
        if left is not None:
            self._meter.about = reader.index + left
        if reader.ended:
            self._tell(events.Exhausted())
        self._meter.handling += perf_counter() - began - seconds
        return bool(records) or reader.ended

    def _read_here(self, most: int, seconds: float) -> list[Any]:
        """Records for a first step in this process: each goes through it before the source's own code gives the next."""
        reader = self._reader
        return reader.read(most if reader.runs_no_code or reader.live else 1, seconds, here=True)

    def _listen(self, seconds: float) -> None:
        began = self._clock()
        try:
            heard = self._crew.wait(seconds)
        finally:
            ended = self._meter.listened = self._clock()
        if heard:
            self._retired.clear()
            for each in heard:
                if each.worker not in self._retired:
                    CREW_EVENTS[type(each)](self, each)
            self._meter.handling += self._clock() - ended
        elif seconds and self._machine.at_work and self._stall.waited(ended - began):
            self._look_at_workers()

    def _at_work(self) -> list[tuple[int, float]]:
        """Which lanes are at work by which worker, since when. Another thread may ask."""
        return [(self._lane_of[worker], since) for worker, since in list(self._since.items())]

    @property
    def _patience(self) -> float:
        if self._reader.live and not self._in_flight:
            return 0.0  # the source itself is waited for
        return min(SOON if self._reader.live else PATIENCE, self._stall.pause)

    def _ready(self, heard: contract.Ready) -> None:
        self._starting.discard(heard.worker)
        self._living.add(heard.worker)
        self._stall.done()
        self._meter.ready()
        self._tell(events.WorkerReady(heard.worker))

    def _broken(self, heard: contract.Broken) -> None:
        self._fatal = self._fatal or heard.error

    def _spoiled(self, heard: contract.Spoiled) -> None:
        flight = self._in_flight.get(heard.seq)
        if flight is not None and flight.attempt == heard.attempt:
            unread = isinstance(flight.batch.values, Part)
            if unread:
                self._decode(flight)
                if heard.there and flight.error is None and (where := self._crew.where(heard.worker)):
                    self._not_read_at(where)
            self._tell(events.BatchSpoiled(heard.seq, heard.worker, unread))

    def _came(self, heard: contract.Came) -> None:
        worker, seq, attempt, batch, size, figures, last, newest = heard
        flight, lane = self._in_flight.get(seq), self._lane_of[worker]
        if flight is None or flight.attempt != attempt:
            return
        count = self._meter.lanes[lane]
        before = count.busy_of(worker)
        spent = (figures.busy - before) / 1e9
        count.note(worker, *figures)
        self._stall.done()
        if not last:
            flight.has_passed(batch, newest)
            part = flight.part(batch)
            self._tell(events.PartDone(seq, worker, max(size, part.weight)), part)
            return
        sent, flight.batch = flight.batch, batch
        flight.passed, flight.newest = (0, 0), None
        records = len(flight.records)
        if self._plan.batch_size is None:
            self._learn(lane, records, spent, size, first=not before)
        work = self._meter.worked(worker, lane, spent, flight.first, records)
        if self._options.on is not None and (node := self._crew.where(worker)):  # else it is lost by now
            self._meter.came_from(node, records, spent)
            if node in self._unread and isinstance(sent.values, Part):
                self._unread[node] = 0
        if self._most_bytes is not None and self._crew.holds(worker) > self._most_bytes:
            self._tell(events.Worn(worker))
        if len(self._machine.holding(worker)) > 1:
            self._since[worker] = self._clock()
        else:
            self._since.pop(worker, None)
        self._tell(events.Done(seq, worker, size, flight.failed, work))

    def _learn(self, lane: int, count: int, seconds: float, size: int, *, first: bool = False) -> None:
        """A batch was in a lane; the `first` one of a worker, in which its steps may have imported, tells of no call."""
        self._costs[lane] = seconds / max(1, count)
        if count and not first and self._plan.segments[lane].takes_all:
            self._sizing.learn_calls(lane, count, seconds)
        self._sizing.learn(count, max(*self._costs, self._read_cost) * count, size)

    def _ended(self, heard: contract.Ended) -> None:
        worker, place = heard.worker, heard.place
        self._meter.workers_ended += 1
        self._meter.history.mark(self._meter.elapsed, "died", f"worker {worker + 1} ended{_how(heard)}")
        lane, has = self._lane_of[worker], self._machine.holding(worker)
        self._is_gone(worker)
        if self._fatal is not None:
            return
        empty = bool(has) and not len(self._in_flight[has[0]].batch.values)
        mark = (place.seq, place.position or 0) if place is not None else None
        if place is not None and mark is not None and heard.overdue and not empty:
            segment = self._plan.segments[lane]
            exact = heard.exact and not segment.waits and _tells_record(segment.steps, place)
            tries = segment.steps[place.step].retries + 1
            self._tell(events.Overran(worker, mark, exact, tries, heard))
        else:
            self._tell(events.Died(worker, mark, empty, heard))

    def _lost(self, heard: contract.Lost) -> None:
        says = f"worker {heard.worker + 1} was lost{heard.why and f': {heard.why}'}"
        self._meter.history.mark(self._meter.elapsed, "died", says)
        self._is_gone(heard.worker)
        if self._fatal is None:
            self._tell(events.WorkerLost(heard.worker))

    def _is_gone(self, worker: int) -> None:
        """Nothing counts any more that this worker might still answer."""
        self._meter.lanes[self._lane_of[worker]].retire(worker)
        self._living.discard(worker)
        self._starting.discard(worker)
        self._since.pop(worker, None)
        for seq in self._machine.holding(worker):
            self._in_flight[seq].attempt += 1

    def _blind(self, heard: contract.Blind) -> None:
        self._not_read_at(heard.where, NOT_READ)

    def _withdrawn(self, heard: contract.Withdrawn) -> None:
        if heard.worker not in self._starting:
            self._is_gone(heard.worker)
        self._starting.discard(heard.worker)
        self._tell(events.WorkerUnplaced(heard.worker))

    def _look_at_workers(self) -> None:
        """Nothing was done for a while: has any worker moved on to another record since the last look?"""
        machine = self._machine
        busy = [w for w in self._lane_of if machine.holding(w) or w in self._starting]
        places = self._crew.look()
        if self._stall.stuck({w: places.get(w) for w in busy}):
            hanging = tuple(self._hanging(w, places[w][0] or places[w][1]) for w in busy if w in places)
            self._fatal = self._fatal or Stalled(
                seconds=self._options.stall or 0.0, workers=hanging, fork=self._crew.doubts
            )
        self._crew.ask(busy)

    def _hanging(self, worker: int, place: WorkerPlace | None) -> Hanging:
        pid, state, stack = self._crew.describe(worker)
        index = records = step = None
        if holds := self._machine.holding(worker):
            flight = self._in_flight[holds[0]]
            records = (flight.first, flight.first + len(flight.records) - 1)
            steps = self._plan.segments[self._lane_of[worker]].steps
            if place is not None and place.seq == holds[0]:
                step = steps[place.step].name
                if _tells_record(steps, place):
                    index = flight.first + flight.batch.origin(place.position or 0)
            index = flight.first if len(flight.records) == 1 else index
        return Hanging(worker, pid, index, records, step, state, stack)

    # --- what the schedule says ---

    def _tell(self, event: events.Event, part: InFlight | None = None) -> None:
        """Tell the schedule, and do what it says; what happens meanwhile it is told then. `part`: what has come."""
        if self._telling:
            self._events.append((event, part))
            return
        self._telling = True
        try:
            while True:
                self._part = part
                self._do(self._on(event))
                if self._part is not None:  # it comes behind the end of the run
                    self._part.kin[0] -= 1
                if not self._events:
                    break
                event, part = self._events.popleft()
        finally:
            self._telling = False
            if self._events:
                self._events.clear()

    def _heard_on(self, event: events.Event) -> list[events.Action]:
        """What the schedule answers, where somebody listens."""
        actions = self._machine.on(event)
        self._meter.heard(event, actions)
        return actions

    def _do(self, actions: list[events.Action]) -> None:
        for action in actions:
            ACTIONS[type(action)](self, action)

    def _send(self, action: events.Send) -> None:
        flight = self._in_flight[action.seq]
        if action.careful:
            self._decode(flight)
        elif self._unread and self._unread.get(self._crew.where(action.worker), 0) >= NOT_READ:
            self._decode(flight, table=self._tables)
        orders, encode = contract.PLAIN_ORDERS, self.encode
        if encode is not None and (action.lane + 1 < len(self._here) or self._plan.segments[action.lane].waits):
            encode = None
        seeded = self._options.seed is not None or self._tables
        if action.careful or seeded or encode is not None or flight.passed != (0, 0):
            orders = contract.Orders(
                action.careful, flight.first if seeded else 0, encode, flight.passed, flight.newest
            )
        flight.attempt += 1
        self._since.setdefault(action.worker, self._clock())
        self._crew.send(action.worker, action.seq, flight.attempt, flight.batch, orders)
        if self._most is not None:
            given = self._given[action.worker] = self._given.get(action.worker, 0) + len(flight.records)
            if given >= self._most:
                self._tell(events.Worn(action.worker))

    def _go_on(self, action: events.More) -> None:
        if action.worker is None:
            self._run(events.RunHere(action.seq, action.lane))
        else:
            self._crew.more(action.worker, action.seq)

    def _run(self, action: events.RunHere) -> None:
        """Through a segment in this process."""
        flight, segment = self._in_flight.get(action.seq), self._here[action.lane]
        if flight is None or segment is None:  # dropped while an earlier action was done
            return
        if self._options.shows_records and action.lane == 0:
            flight.before = Originals(flight.records)
        began = perf_counter()
        part = self._next_piece(action.seq, flight, segment)
        if part is None and self.states is not None:
            self.states.passed(segment, flight.first + len(flight.records))
        spent = perf_counter() - began
        ran_here(self._meter.lanes[action.lane], segment, int(spent * 1e9))
        onward, came = action.lane + 1, part or flight
        if onward < len(self._here) and self._here[onward] is None:
            self._crew.prepare(came.batch, onward)
        if part is not None:
            self._tell(events.PartDone(action.seq, None, part.weight), part)
            return
        if self._plan.batch_size is None:
            self._learn(action.lane, len(flight.records), spent, 0)
        work = self._meter.worked(None, action.lane, spent, flight.first, len(flight.records))
        self._tell(events.Done(action.seq, None, flight.batch.size, flight.failed, work))

    def _next_piece(self, seq: int, flight: InFlight, segment: Segment) -> InFlight | None:
        """Run a batch here until there is some of it that may go on, or to its end: None then."""
        if not segment.expands:
            flight.batch = segment.run(flight.batch)
            return None
        given = self._under_way.pop(seq, None) or segment.pieces(flight.batch)
        try:
            piece = next(given)
        except StopIteration as end:
            flight.batch = end.value
            return None
        self._under_way[seq] = given
        return flight.part(piece)

    def _start(self, action: events.Start) -> None:
        self._lane_of[action.worker] = action.lane
        self._given.pop(action.worker, None)
        self._living.add(action.worker)
        self._starting.add(action.worker)
        self._crew.start(action.worker, action.lane)

    def _start_failed(self, heard: contract.StartFailed) -> None:
        error, lane = heard.error, self._lane_of[heard.worker]
        self._living.discard(heard.worker)
        self._starting.discard(heard.worker)
        if not isinstance(error, OSError):
            self._fatal = self._fatal or error
        elif any(self._lane_of[other] == lane for other in self._living):
            reason = f"fewer workers than asked for: one more cannot be started: {error}"
            if reason not in self._meter.reasons:
                self._meter.reasons.append(reason)
        else:
            self._fatal = self._fatal or WorkersCannotStart(
                f"a worker process cannot be started: {error}. Free some memory, processes or file descriptors, "
                "or run with fewer workers"
            )

    def _split(self, action: events.Split) -> None:
        assert self._part is not None
        self._in_flight[action.part], self._part = self._part, None

    def _stop(self, action: events.Stop) -> None:
        self._crew.kill(action.worker)

    def _retire(self, action: events.Retire) -> None:
        self._meter.lanes[action.lane].retire(action.worker)
        self._crew.end(action.worker)
        self._retired.add(action.worker)
        self._start(events.Start(action.worker, action.lane))

    def _condemn(self, action: events.Condemn) -> None:
        flight = self._in_flight[action.seq]
        self._decode(flight)
        death: contract.Ended = action.cause
        lane, place = self._lane_of[death.worker], death.place
        steps, at = self._plan.segments[lane].steps, place.step if place is not None else 0
        step, failing = steps[at], self._failing(flight.batch, action.position, steps[: at + 1])
        self._crew.prepare(flight.batch, lane, apart=True)
        if action.position >= len(flight.batch.values):
            return  # the source cannot be read that far, which is known now: its error is in the record's place
        index = flight.first + flight.batch.origin(action.position)
        record = flight.records[index - flight.first]
        error: BaseException
        if death.exact:
            error = StepTimeout(step=step.name, seconds=step.timeout or 0.0, index=index)
        else:
            error = WorkerDied(index=index, step=step.name, exit_code=death.code, excerpt=excerpt(record))
        # All of a key fails, where it is one: what is left before it is another key.
        whole = self._by is not None and any(each.by is not None for each in steps[: at + 1])
        for n, position in reversed([*enumerate(failing if self._goes_on else failing[:1])]):
            flight.batch.fail(
                position, step.name, error, goes_on=self._goes_on, traceback=death.stack, begins_key=whole and not n
            )

    def _failing(self, batch: Batch, position: int, steps: Sequence[Step]) -> list[int]:
        """Which values fail with the one at this position: all of its key, where one of these steps takes whole keys."""
        if self._by is None or all(step.by is None for step in steps):
            return [position]
        borders = [*keys.starts(records_of(batch.values), self._by), len(batch.values)]
        behind = bisect_right(borders, position)
        return list(range(*borders[behind - 1 : behind + 1])) or [position]

    def _give_up(self, action: events.GiveUp) -> None:
        died = WorkerDied(index=None, step=None, exit_code=action.cause.code)
        if self._machine.holding(action.worker):
            when = "while no record is at work in them"
            remedy = (
                "So it is no record that ends them: look into the system's log, where memory may have run out, for a program "
                "that kills them, and at what a step leaves running in its worker"
            )
        else:
            when = "before they take a record"
            remedy = (
                f'They are started with sys.executable, {sys.executable!r}; where that is no Python, use start="fork"'
            )
        self._fatal = self._fatal or WorkersCannotStart(
            f"workers end again and again {when}; the last one: {died.message.splitlines()[0]}. {remedy}"
        )

    def _drop(self, action: events.Drop) -> None:
        flight = self._in_flight.pop(action.seq, None)
        self._under_way.pop(action.seq, None)
        if flight is not None:
            flight.kin[0] -= 1
            if not flight.kin[0]:
                self._meter.in_flight -= len(flight.records)

    def _emit(self, action: events.Emit) -> None:
        flight = self._in_flight.pop(action.seq)
        flight.kin[0] -= 1
        if self.elsewhere is not None and (gone := self.elsewhere(flight.first, len(flight.records))):
            flight.batch.leave_out({index - flight.first for index in gone}, goes_on=self._goes_on)
            self._meter.elsewhere += len(gone) if not flight.kin[0] else 0
        if self.in_records and type(flight.batch.values) is ArrowRows:
            as_records(flight.batch, self._plan.segments[-1].steps[-1], goes_on=self._goes_on)
        records = flight.as_read() if flight.batch.failures else flight.records
        results, error = settled(flight.batch, flight.first, records, self._options, self._meter, self._by)
        if error is None and flight.error is not None:
            # What was read behind it was none of the source's records.
            self._reader.ended = True
            self._meter.records_in = self._reader.index = flight.first + len(flight.records)
            error = flight.error
        if flight.kin[0]:  # there is more to come of these records
            results.more_comes(flight.batch.tail())
        self._out.append((action.seq, len(flight.records) if not flight.kin[0] else 0, results, error))

    def _not_read_at(self, where: str, parts: int = 1) -> None:
        """A worker on this machine could not read a part of the source that this process can, or as good as so many."""
        reasons, says = self._meter.reasons, _read_here(self._unread)
        if says in reasons:
            reasons.remove(says)
        self._unread[where] = self._unread.get(where, 0) + parts
        reasons.append(_read_here(self._unread))

    def _decode(self, flight: InFlight, *, table: bool = False) -> None:
        """Read a part of the source here, where a worker could not, or died with it; as a `table`, where it can be one."""
        counted = len(flight.records)
        if table:
            flight.read_table()
        else:
            flight.read()
        if flight.error is None or self._options.ordered:
            return
        # Results behind it may be delivered already, so all are that are under way, and the run ends after them.
        if flight.first < self._unreadable:
            self._unreadable, self._reader.error = flight.first, flight.error
        self._reader.ended, flight.error = True, None
        self._meter.records_in -= counted - len(flight.records)


# What is done when this is heard of the crew, and when the schedule says that.
CREW_EVENTS: dict[type, Callable[[Hub, Any], None]] = {
    contract.Ready: Hub._ready, contract.Came: Hub._came, contract.Spoiled: Hub._spoiled, contract.Ended: Hub._ended,
    contract.StartFailed: Hub._start_failed, contract.Broken: Hub._broken, contract.Lost: Hub._lost,
    contract.Withdrawn: Hub._withdrawn, contract.Blind: Hub._blind,
}  # fmt: skip
ACTIONS: dict[type, Callable[[Hub, Any], None]] = {
    events.Send: Hub._send, events.Emit: Hub._emit, events.RunHere: Hub._run, events.Start: Hub._start,
    events.Drop: Hub._drop, events.Retire: Hub._retire, events.Condemn: Hub._condemn, events.Split: Hub._split,
    events.More: Hub._go_on, events.Stop: Hub._stop, events.GiveUp: Hub._give_up,
}  # fmt: skip


def _read_here(machines: Iterable[str]) -> str:
    """That workers on these could not read the source, in words."""
    names = [*machines]
    which = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return (
        f"parts of the source were read in the caller's process, since workers on {which} could not: "
        "is the file there under the same path, and is it the same one?"
    )


def _how(death: contract.Ended) -> str:
    return ": a record took too long" if death.overdue else f", exit code {death.code}"


def _tells_record(steps: Sequence[Step], place: WorkerPlace) -> bool:
    """Whether a place says which record is at work: with batch steps it may be any of several."""
    return place.position is not None and all(step.role is not Role.BATCH for step in steps[: place.step + 1])
