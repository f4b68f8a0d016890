"""The caller's side of a run with workers: wait, tell the schedule, do its actions, deliver. All inside `next()`."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from time import monotonic_ns, perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._crew import words
from taktline._crew.local import End, Local
from taktline._excerpts import excerpt
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.plan import Plan
from taktline._recipe.steps import Role
from taktline._run.as_read import AsRead
from taktline._run.held import Encode, Held
from taktline._run.lot import Lot, settled
from taktline._run.meter import Meter, ran_here
from taktline._run.reader import Reader
from taktline._schedule import events
from taktline._schedule.bounds import batch_records, bounds
from taktline._schedule.machine import Machine
from taktline._schedule.sizing import Sizing
from taktline._schedule.stall import Stall
from taktline._segment import guard
from taktline._segment.amount import amount
from taktline._segment.fuse import Pieces, Segment
from taktline._signals import pass_on
from taktline._wire import carry
from taktline._wire.board import ANY, Place
from taktline._wire.channel import Message
from taktline.errors import Hanging, LineError, Stalled, StepTimeout, WorkerDied, WorkersCannotStart
from taktline.views.progress import withdraw

if TYPE_CHECKING:
    from taktline._run.states import States

TURN = 0.0002  # seconds of reading between two looks at the workers
PATIENCE = 0.25  # seconds of waiting after which the clock and the progress are looked at
SOON = 0.02  # the same where steps have a time limit, or records come when they come


class Delivery(NamedTuple):
    """Results on their way out, and the error that follows them."""

    seq: int
    records: int  # of the source, behind these results
    results: Lot
    error: BaseException | None


class Hub:
    """Runs a plan that has workers. Raises LineError at once where a step cannot be carried over to them. `beside`: why
    nothing can be forked beside the run's source or sink; empty where it can."""

    def __init__(self, plan: Plan, options: Options, reader: Reader, meter: Meter, beside: str = "") -> None:
        self._plan = plan
        self._worker_count = plan.workers
        self._about_left = reader.about_left  # when it was read last
        self._options = options
        self._reader = reader
        self._meter = meter
        memory = memory_bytes(options.memory)
        withdraw()  # workers get the streams that steps hold as they are without it
        seeds = plan.seeds(options.seed)
        self._crew = Local(
            [segment.steps if segment.workers else None for segment in plan.segments],
            goes_on=options.goes_on, start=options.start, most=max(1 << 20, memory // (2 * plan.workers)),
            seeds=seeds, setup=options.setup, tell=partial(_told, meter), beside=beside,
        )  # fmt: skip
        limits = bounds(
            [(s.workers, s.ahead) for s in plan.segments], batch_size=plan.batch_size, window=options.window, memory=memory
        )  # fmt: skip
        self._machine = Machine(limits.lanes, limits.limits, ordered=options.ordered)
        self._sizing = Sizing(
            plan.batch_size, unit=plan.call, least=plan.call, most_bytes=limits.most_bytes
        )  # fmt: skip
        self._here = [
            None if s.workers else Segment(s.steps, goes_on=options.goes_on, seed=seed)
            for s, seed in zip(plan.segments, seeds, strict=True)
        ]
        self._most, self._most_bytes = options.recycle_records, options.recycle_bytes
        self._given: dict[int, int] = {}  # records, by worker, where workers are replaced after so many
        for segment in self._here:
            if segment is not None:
                segment.most = memory // 2
        self._under_way: dict[int, Pieces] = {}  # seq of a batch that comes in pieces here: the rest of them
        self._part: Held | None = None  # that has come, and has no number yet
        self._unheard: set[int] = set()  # workers that were ended in the middle of what they say
        self._events: deque[tuple[events.Event, Held | None]] = deque()
        self._telling = False
        self._gently = any(step.maker or step.kind == "async" for segment in plan.segments for step in segment.steps)
        self._held: dict[int, Held] = {}
        self._overran: dict[int, Place] = {}  # worker that was ended: the value that took too long
        self._limited = any(step.timeout for s in plan.segments if s.workers for step in s.steps)
        self._tells = reader.live or options.journal is not None
        self._stall = Stall(options.stall)
        self._lane_of: dict[int, int] = {}
        self._costs = [0.0] * len(limits.lanes)  # seconds a record of the last batch, a lane each
        self._read_cost = 0.0
        self._starting: set[int] = set()
        self._out: deque[Delivery] = deque()
        self._dying: tuple[int, End, bool]  # the newest worker that ended: its lane, how, and whether it was too late
        self._fatal: BaseException | None = None
        self._unreadable = 1 << 62  # in results as they come: the first part of the source that cannot be read
        self._leaving = False
        self.encode: Encode | None = None  # makes bytes of the results, for a sink that takes them
        self.states: States | None = None  # of serial steps, where a journal keeps them
        meter.use(plan)
        meter.pids = self._crew.pids

    # --- what the run calls ---

    def results(self, end: Callable[[bool], None]) -> tuple[Iterator[Any], Iterator[Any]]:
        """The results, one by one, and the generator to close for an early end. `end(complete)` is called at the end."""
        lots = self.lots(end)
        return chain.from_iterable(lots), lots

    def lots(self, end: Callable[[bool], None]) -> Iterator[Lot]:
        """The results as they come, a batch's at once; `end(complete)` is called at the end."""
        try:
            yield from self._lots(end)
        except BaseException:  # a signal's handler may have kept this from being called, and again does no harm
            end(False)
            raise

    def _lots(self, end: Callable[[bool], None]) -> Iterator[Lot]:
        complete = False
        try:
            if self._options.setup is not None and any(self._here):
                guard.set_up(self._options.setup)
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
        self._meter.forked = self._crew.forks
        if self._options.start == "auto":
            self._meter.reasons.append(self._crew.why)

    def launch_because(self, why: str) -> None:
        """Before the start: nothing can be forked, for this reason. Raises LineError as the making of a Hub does."""
        self._crew.launch_because(why)

    @property
    def without_workers(self) -> BaseException | None:
        """Why no worker can be had, where that is so and no record was read for them."""
        return self._fatal if isinstance(self._fatal, WorkersCannotStart) and not self._machine.next_seq else None

    def ready(self) -> bool:
        """Whether all workers wait for records. Looks, does not wait; an error of theirs is raised by `deliveries`."""
        self._listen(0)
        return not self._starting or self._fatal is not None

    def deliveries(self) -> Iterator[Lot]:
        """The results, a list a batch, in order. A list is taken when the next one is asked for."""
        machine, out, meter = self._machine, self._out, self._meter
        while True:
            while out:
                results, error = out[0].results, out[0].error
                meter.delivered(len(results))
                yield results
                meter.resumed()
                if error is not None:
                    raise error
                delivery = out.popleft()
                meter.held -= delivery.records
                self._tell(events.Took(delivery.seq))
            if self._fatal is not None:
                raise self._fatal
            if machine.over or (self._leaving and machine.window.empty):
                break
            busy = self._feed()
            # Small batches go out many at once; a slow source is not asked again before results were looked for.
            until = perf_counter() + TURN
            while busy and not out and perf_counter() < until:
                if not self._feed():
                    break
            if not out:
                self._listen(0 if busy else self._patience)
                meter.tick()
                if self._tells and not out:
                    yield Lot((), 0, 0)  # who writes down what is done gets a chance to, also while nothing comes
        if self._reader.error is not None:
            raise self._reader.error

    def break_off(self) -> None:
        """From another thread: `deliveries` is to end now, whatever is under way."""
        self._fatal = self._fatal or self._reader.error or LineError("this run was left")

    def leave(self) -> None:
        """Read no more: `deliveries` ends with what is under way, and who reads on does so without workers."""
        self._leaving = True

    def close(self) -> None:
        """End the workers and what is open here. May be called again."""
        crew = self._crew
        if crew is None:
            return
        try:
            self._meter.pids = list
            for segment in self._here:
                if segment is not None:
                    segment.close()
        finally:
            crew.close(gently=self._gently)
            self._crew = None  # type: ignore[assignment]
            self._held.clear()
            self._out.clear()

    # --- feed, listen ---

    def _feed(self) -> bool:
        """Read one batch where there is room for it; whether there was."""
        room = self._machine.room()
        reader, workers = self._reader, self._worker_count
        if not room or self._leaving or (room < reader.block and self._held):
            return False
        wanted = self._sizing.next(self._about_left, workers)
        size = batch_records(room, wanted, window=self._options.window, workers=workers)
        first, began = reader.index, perf_counter()
        read = reader.read_part if self._here[0] is None else self._read_here
        records = read(size, 0.0 if self._held else PATIENCE)
        seconds = perf_counter() - began
        self._meter.reading += seconds
        if records:
            count = len(records)
            self._read_cost = seconds / count
            held = Held(first, records, goes_on=self._options.goes_on, unread=reader.unread)
            weight = 0
            if self._here[0] is None:
                held.pack(self._plan.segments[0].steps[0].name)
                weight = held.size
                self._sizing.weigh(count, weight)
            self._held[self._machine.next_seq] = held
            self._meter.records_in += count
            self._meter.held += count
            self._meter.batch_size = count
            self._tell(events.Read(count, weight or held.size))
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
        began = perf_counter()
        self._crew.wait(seconds, self._heard, self._gone)
        if self._limited:
            self._end_overdue()
        if seconds and self._machine.at_work and self._stall.waited(perf_counter() - began):
            self._look_at_workers()

    @property
    def _patience(self) -> float:
        if self._reader.live and not self._held:
            return 0.0  # the source itself is waited for
        return min(SOON if self._limited or self._reader.live else PATIENCE, self._stall.pause)

    def _heard(self, worker: int, message: Message) -> None:
        kind = message.kind
        if worker in self._unheard:
            return
        if kind in (words.DONE, words.PART):
            began = perf_counter()
            self._came_back(worker, message)
            self._meter.handling += perf_counter() - began
        elif kind == words.READY:
            self._starting.discard(worker)
            self._stall.done()
            self._meter.ready()
            self._tell(events.Ready(worker))
        elif kind == words.SPOILED:
            self._tell(events.Spoiled(message.seq, worker))
        elif kind == words.BROKEN:
            self._fatal = self._fatal or _why_broken(words.Broken(*pickle.loads(message.note)))

    def _came_back(self, worker: int, message: Message) -> None:
        seq, lane = message.seq, self._lane_of[worker]
        figures, rest = words.unpack_figures(message.note)
        count = self._meter.lanes[lane]
        before = count.busy_of(worker)
        spent = (figures.busy - before) / 1e9
        count.note(worker, *figures)
        self._stall.done()
        whole, is_part = self._held.get(seq), message.kind == words.PART
        if whole is None:  # dropped meanwhile
            self._tell(events.Done(seq, worker, 0, False))
            return
        held = whole.part() if is_part else whole
        size = sum(map(len, message.parts))
        onward = lane + 1 < len(self._here) and self._here[lane + 1] is None
        outcome = words.Outcome(*pickle.loads(rest)) if rest else words.PLAIN_OUTCOME
        try:
            decode = not onward and not outcome.each and len(message.parts) > 1
            buffers = self._crew.buffers(worker, message) if decode else ()
            last = self._plan.segments[lane].steps[-1].name
            held.came_back(outcome, message.parts, buffers, last, decode=not onward)
        except carry.RAISED as error:  # results of the user's classes: once more then, each in a pickle of its own
            pass_on(error)
            if outcome.each:  # they were: so it is none of them that is at fault
                raise
            if not is_part:
                self._tell(events.Spoiled(seq, worker))
                return
            whole.kin[0] -= 1
            self._unheard.add(worker)
            self._crew.kill(worker)
            return
        if is_part:
            whole.has_passed(held)
            self._tell(events.Part(seq, worker, max(size, _weight(held))), held)
            return
        held.passed = (0, 0)
        self._learn(lane, len(held.records), spent, size, first=not before)
        self._meter.worked(spent, held.first, len(held.records))
        if self._most_bytes is not None and self._crew.holds(worker) > self._most_bytes:
            self._tell(events.Worn(worker))
        self._tell(events.Done(seq, worker, size, held.failed))

    def _learn(self, lane: int, count: int, seconds: float, size: int, *, first: bool = False) -> None:
        """A batch was in a lane; the `first` one of a worker, in which its steps may have imported, tells of no call."""
        self._costs[lane] = seconds / max(1, count)
        if count and not first and self._plan.segments[lane].takes_all:
            self._sizing.learn_calls(lane, count, seconds)
        self._sizing.learn(count, max(*self._costs, self._read_cost) * count, size)

    def _gone(self, worker: int, end: End) -> None:
        lane = self._lane_of[worker]
        self._meter.lanes[lane].retire(worker)
        self._starting.discard(worker)
        self._unheard.discard(worker)
        overran = self._overran.pop(worker, None)
        mark = end.mark
        # It may have gone on to the next value just before it was ended: then that one is not to blame.
        late = mark is not None and overran is not None and mark[:3] == overran[:3]
        self._dying = (lane, end, late)
        if self._fatal is not None:
            return
        holds = self._machine.holding(worker)
        empty = bool(holds) and not self._held[holds[0]].count
        if mark is not None and overran is not None and not empty:
            steps = self._plan.segments[lane].steps
            exact = (
                late
                and mark.position != ANY
                and not self._plan.segments[lane].waits
                and all(step.role is not Role.BATCH for step in steps[: mark.step + 1])
            )
            self._tell(events.Overran(worker, mark[:2], exact, steps[mark.step].retries + 1))
        else:
            self._tell(events.Died(worker, mark[:2] if mark is not None else None, empty))

    def _end_overdue(self) -> None:
        for worker, mark in self._crew.overdue(monotonic_ns()).items():
            if worker not in self._overran:
                self._overran[worker] = mark
                self._crew.kill(worker)

    def _look_at_workers(self) -> None:
        """Nothing was done for a while: has any worker moved on to another record since the last look?"""
        machine = self._machine
        busy = [w for w in self._lane_of if machine.holding(w) or w in self._starting]
        places = self._crew.places()
        if self._stall.stuck({w: places.get(w) for w in busy}):
            hanging = tuple(self._hanging(w, places[w][0] or places[w][1]) for w in busy if w in places)
            self._fatal = self._fatal or Stalled(
                seconds=self._options.stall or 0.0, workers=hanging, fork=self._crew.doubts
            )
        self._crew.ask(busy)

    def _hanging(self, worker: int, place: Place | None) -> Hanging:
        pid, state = self._crew.process_of(worker)
        index = records = step = None
        if holds := self._machine.holding(worker):
            held = self._held[holds[0]]
            records = (held.first, held.first + len(held.records) - 1)
            steps = self._plan.segments[self._lane_of[worker]].steps
            if place is not None and place.seq == holds[0]:
                step = steps[place.step].name
                if place.position != ANY and all(each.role is not Role.BATCH for each in steps[: place.step + 1]):
                    index = held.first + held.batch.origin(place.position)
            index = held.first if len(held.records) == 1 else index
        return Hanging(worker, pid, index, records, step, state, self._crew.stack(worker))

    # --- what the schedule says ---

    def _tell(self, event: events.Event, part: Held | None = None) -> None:
        """Tell the schedule, and do what it says; what happens meanwhile it is told then. `part`: what has come."""
        self._events.append((event, part))
        if self._telling:
            return
        self._telling = True
        try:
            while self._events:
                event, self._part = self._events.popleft()
                self._do(self._machine.on(event))
                if self._part is not None:  # it comes behind the end of the run
                    self._part.kin[0] -= 1
        finally:
            self._telling = False
            self._events.clear()

    def _do(self, actions: list[events.Action]) -> None:
        for action in actions:
            kind = type(action)
            if kind is events.Send:
                self._send(action)  # type: ignore[arg-type]
            elif kind is events.Emit:
                self._emit(action.seq)  # type: ignore[union-attr]
            elif kind is events.Run:
                self._run(action)  # type: ignore[arg-type]
            elif kind is events.Start:
                self._start(action)  # type: ignore[arg-type]
            elif kind is events.Drop:
                self._forget(action.seq)  # type: ignore[union-attr]
            elif kind is events.Retire:
                self._retire(action)  # type: ignore[arg-type]
            elif kind is events.Condemn:
                self._condemn(action)  # type: ignore[arg-type]
            elif kind is events.Split:
                assert self._part is not None
                self._held[action.part], self._part = self._part, None  # type: ignore[union-attr]
            elif kind is events.More:
                self._go_on(action)  # type: ignore[arg-type]
            elif kind is events.Stop:
                self._crew.kill(action.worker)  # type: ignore[union-attr, arg-type]
            else:
                self._give_up(action)  # type: ignore[arg-type]

    def _send(self, action: events.Send) -> None:
        held = self._held[action.seq]
        if action.careful:
            self._decode(held)
        segment = self._plan.segments[action.lane]
        last = action.lane + 1 == len(self._here) and not segment.waits
        note = held.orders(
            segment.steps[0].name, careful=action.careful, seeded=self._options.seed is not None,
            encode=self.encode if last else None,
        )  # fmt: skip
        assert held.parts is not None
        self._crew.send(action.worker, action.seq, note, held.parts)
        if self._most is not None:
            given = self._given[action.worker] = self._given.get(action.worker, 0) + len(held.records)
            if given >= self._most:
                self._tell(events.Worn(action.worker))

    def _go_on(self, action: events.More) -> None:
        if action.worker is None:
            self._run(events.Run(action.seq, action.lane))
        else:
            self._crew.go_on(action.worker, action.seq)

    def _run(self, action: events.Run) -> None:
        """Through a segment in this process."""
        held, segment = self._held.get(action.seq), self._here[action.lane]
        if held is None or segment is None:  # dropped while an earlier action was done
            return
        if self._options.shows_records and action.lane == 0:
            held.before = AsRead(held.records)
        began = perf_counter()
        part = self._next_piece(action.seq, held, segment)
        if part is None and self.states is not None:
            self.states.passed(segment, held.first + len(held.records))
        spent = perf_counter() - began
        ran_here(self._meter.lanes[action.lane], segment, int(spent * 1e9))
        onward, came = action.lane + 1, part or held
        if onward < len(self._here) and self._here[onward] is None:
            came.pack(self._plan.segments[onward].steps[0].name)
        if part is not None:
            self._tell(events.Part(action.seq, None, max(part.size, _weight(part))), part)
            return
        self._learn(action.lane, len(held.records), spent, 0)
        self._tell(events.Done(action.seq, None, held.size, held.failed))

    def _next_piece(self, seq: int, held: Held, segment: Segment) -> Held | None:
        """Run a batch here until there is some of it that may go on, or to its end: None then."""
        if not segment.expands:
            held.batch = segment.run(held.batch)
            return None
        given = self._under_way.pop(seq, None) or segment.pieces(held.batch)
        try:
            piece = next(given)
        except StopIteration as end:
            held.batch = end.value
            return None
        self._under_way[seq] = given
        part = held.part()
        part.batch = piece
        return part

    def _start(self, action: events.Start) -> None:
        self._lane_of[action.worker] = action.lane
        self._given.pop(action.worker, None)
        self._starting.add(action.worker)
        try:
            self._crew.start(action.worker, action.lane)
        except WorkersCannotStart as error:
            self._fatal = self._fatal or error
        except OSError as error:
            pass_on(error)
            self._starting.discard(action.worker)
            if any(self._lane_of[other] == action.lane for other in self._crew.workers()):
                reason = f"fewer workers than asked for: one more cannot be started: {error}"
                if reason not in self._meter.reasons:
                    self._meter.reasons.append(reason)
                return
            self._fatal = self._fatal or WorkersCannotStart(
                f"a worker process cannot be started: {error}. Free some memory, processes or file descriptors, "
                "or run with fewer workers"
            )

    def _retire(self, action: events.Retire) -> None:
        self._meter.lanes[action.lane].retire(action.worker)
        self._crew.retire(action.worker)
        self._start(events.Start(action.worker, action.lane))

    def _condemn(self, action: events.Condemn) -> None:
        held = self._held[action.seq]
        self._decode(held)
        lane, end, late = self._dying
        step = self._plan.segments[lane].steps[end.mark.step if end.mark is not None else 0]
        held.split(step.name)
        if action.position >= held.count:
            return  # the source cannot be read that far, which is known now: its error is in the record's place
        index = held.first + held.batch.origin(action.position)
        record = held.records[index - held.first]
        error: BaseException
        if late:
            error = StepTimeout(step=step.name, seconds=step.timeout or 0.0, index=index)
        else:
            error = WorkerDied(index=index, step=step.name, exit_code=end.code, excerpt=excerpt(record))
        held.condemn(action.position, step.name, error, end.stack)

    def _give_up(self, action: events.GiveUp) -> None:
        died = WorkerDied(index=None, step=None, exit_code=self._dying[1].code)
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

    def _forget(self, seq: int) -> None:
        held = self._held.pop(seq, None)
        self._under_way.pop(seq, None)
        if held is not None:
            held.kin[0] -= 1
            if not held.kin[0]:
                self._meter.held -= len(held.records)

    def _emit(self, seq: int) -> None:
        held = self._held.pop(seq)
        held.kin[0] -= 1
        error: BaseException | None = None
        if held.encoded is not None:
            results: Lot = held.encoded
        else:
            records = held.as_read() if held.batch.failures else held.records
            results, error = settled(held.batch, held.first, records, self._options, self._meter)
        if error is None and held.error is not None:
            # What was read behind it was none of the source's records.
            self._reader.ended = True
            self._meter.records_in = self._reader.index = held.first + len(held.records)
            error = held.error
        if held.kin[0]:  # there is more to come of these records
            results.more_comes(held.tail or held.batch.tail())
        self._out.append(Delivery(seq, len(held.records) if not held.kin[0] else 0, results, error))

    def _decode(self, held: Held) -> None:
        """Read a part of the source here, where a worker could not, or died with it."""
        counted = len(held.records)
        held.decode()
        if held.error is None or self._options.ordered:
            return
        # Results behind it may be delivered already, so all are that are under way, and the run ends after them.
        if held.first < self._unreadable:
            self._unreadable, self._reader.error = held.first, held.error
        self._reader.ended, held.error = True, None
        self._meter.records_in -= counted - len(held.records)


def _told(meter: Meter, reasons: list[str], missed: list[str]) -> None:
    """What is to be known of the workers' surroundings: for the report, and what they do not have as it is here."""
    meter.reasons += reasons
    if missed:
        meter.missed += missed
        says = (
            f"workers do not have this as it is in the caller's process: {', '.join(missed)}; they have what their own "
            "imports make. Build it in each worker, with setup= or per_worker(), or"
        )
        meter.reasons.append(says.partition(". Build")[0])
        warnings.warn(f'{says} share this process\'s memory with start="fork"', RuntimeWarning, stacklevel=2)


def _weight(held: Held) -> int:
    """Bytes that a part takes as objects, about: some kinds take many times what they take as bytes."""
    values = held.batch.values
    return amount(values[-1]) * len(values) if held.here and len(values) else 0


def _why_broken(broken: words.Broken) -> BaseException:
    carried = carry.CarriedError(*broken.error)
    if broken.built:
        error = carry.unpack_error(carried, step="(building the steps)", trace=broken.traceback)
        error.add_note("in the worker:\n    " + broken.traceback.rstrip().replace("\n", "\n    "))
        return error
    if carried.type_name == WorkersCannotStart.__name__:
        return WorkersCannotStart(f"a worker could not load the steps: {carried.text}")
    return WorkersCannotStart(
        f"a worker could not load the steps: {carried.type_name}: {carried.text}. "
        "What the steps import must be importable in a fresh interpreter with the same sys.path.\n"
        + broken.traceback.rstrip()
    )
