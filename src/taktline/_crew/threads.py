"""The crew of threads: workers in the caller's process, with its memory. Nothing is packed or copied on the way to them, and
they are ready in a millisecond.

A thread can be ended while it runs Python's code, not while it is inside a call of C's; and what ends its process ends all
of them. So this crew does not isolate: time limits and deaths of workers are for others.
"""

from __future__ import annotations

import contextvars
import copy
import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter, perf_counter_ns, thread_time_ns
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline import _printing
from taktline._crew import contract, envelope, library_limits, protocol, starts
from taktline._crew.contract import PLAIN_ORDERS, Crew, Figures, Heard, Orders, WorkerPlace
from taktline._crew.partial import newest_of, pieces
from taktline._recipe.plan import takes_tables
from taktline._recipe.steps import Step
from taktline._segment import policies
from taktline._segment.batch import Batch
from taktline._segment.memory_size import amount
from taktline._segment.segment import Segment
from taktline._segment.tables import ArrowRows
from taktline._segment.values import Encoded, records_of
from taktline._signals import pass_on
from taktline.abc import Part
from taktline.errors import WorkersCannotStart

if TYPE_CHECKING:
    from asyncio import Task

    from taktline._segment.async_steps import AsyncSegment

PARTS = 2  # of a batch that may be under way: as many as the schedule lets come before there is room (window.py)
GRACE = 1.0  # seconds in which a worker is to come back once the line has ended
AGAIN = 0.05  # seconds after which one that has not is told so again: a step may catch anything

own: contextvars.ContextVar[_ThreadWorker] = contextvars.ContextVar("taktline worker")


class _Load(NamedTuple):
    seq: int
    attempt: int
    batch: Batch
    orders: Orders


Say = Callable[["_ThreadWorker", Heard], None]


class _ThreadWorker:
    """One worker, as its thread and the crew see it."""

    def __init__(self, number: int, lane: int, segment: Segment | AsyncSegment, say: Say) -> None:
        self.number = number
        self.lane = lane
        self.segment = segment
        self.seq = 0  # of the batch at work
        self.closes = False  # it has built what it may have to close
        self.works = False  # a step may be at work, which is to be ended
        self.wake: Callable[[], object] = int  # after something was given
        self._say = say
        self._given: SimpleQueue[_Load | int | None] = SimpleQueue()  # a batch; one more part of it; the end
        self._early: deque[_Load] = deque()  # given while a MORE was waited for
        self._busy = self._waiting = self._blocked = 0
        context = contextvars.copy_context()
        context.run(own.set, self)
        context.run(policies.of_a_worker.set, True)
        name = f"taktline worker {number}"
        self.thread = threading.Thread(target=context.run, args=(self._begin,), name=name, daemon=True)

    # --- for the crew ---

    def give(self, what: _Load | int | None) -> None:
        """Hand it a batch; the number of a batch of which one more part may come; or None: the end."""
        self._given.put(what)
        with suppress(RuntimeError):  # its event loop has ended
            self.wake()

    def leave(self) -> None:
        """Nobody waits for it any more: have it come to an end, soon if its steps run Python's code."""
        self.give(None)
        if self.works and self.thread.ident is not None:
            import ctypes

            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.thread.ident), ctypes.py_object(policies.Left)
            )

    def frame(self) -> FrameType | None:
        """Where it is."""
        return sys._current_frames().get(self.thread.ident or 0)

    def place(self) -> WorkerPlace:
        """The value it is at, as far as that can be told."""
        return WorkerPlace(self.seq, self.segment.position(), self.segment.step_in(self.frame()))

    # --- its life ---

    def _begin(self) -> None:
        with suppress(policies.Left):  # it may come a moment late, behind the step that it was for
            self._live()

    def _live(self) -> None:
        if (decimal := sys.modules.get("decimal")) is not None:  # what it changes in place must be each thread's own
            decimal.setcontext(decimal.getcontext().copy())
        try:
            if not isinstance(self.segment, Segment):
                import asyncio  # some 30 ms

                asyncio.run(self._attend(self.segment))
            elif self._built():
                self._serve(self.segment)
        except policies.Left:
            raise
        except BaseException as error:  # beside the steps: no other worker would fare better
            self._say(self, contract.Broken(self.number, error))
        finally:
            self.works = False
            if isinstance(self.segment, Segment):
                try:
                    self.segment.close()
                except policies.Left:
                    pass
                except BaseException as error:
                    self._not_closed(error)

    def _not_closed(self, error: BaseException) -> None:
        error.add_note(protocol.IN_CLOSE)
        self._say(self, contract.Broken(self.number, error))

    def _built(self) -> bool:
        try:
            self.segment.make()
        except BaseException as error:
            self._say(self, contract.Broken(self.number, error))
            return False
        self.closes = any(step.maker is not None for step in self.segment.steps)
        self._say(self, contract.Ready(self.number))
        return True

    def _serve(self, segment: Segment) -> None:
        while True:
            began = perf_counter_ns()
            load = self._early.popleft() if self._early else self._given.get()
            self._waiting += perf_counter_ns() - began
            if load is None:
                return
            if isinstance(load, int):  # it is late: that batch has ended
                continue
            self.seq, self.works = load.seq, True
            self._work(segment, load)
            self.works = False

    def _work(self, segment: Segment, load: _Load) -> None:
        began = perf_counter_ns()
        try:
            batch = _opened(segment, load)
        except Exception as error:  # of a part of the source: whoever gave it reads it again, and finds out why
            pass_on(error)
            self._say(self, contract.Spoiled(self.number, load.seq, load.attempt, there=True))
            return
        self._busy += perf_counter_ns() - began
        given, last, unanswered = _parts(segment, batch, load.orders), False, 0
        while not last:
            began = perf_counter_ns()
            came, last = next(given)
            self._busy += perf_counter_ns() - began
            self._answer(load, came, last=last)
            unanswered += 1
            began = perf_counter_ns()
            self.works = last
            while not last and unanswered >= PARTS:
                what = self._given.get()
                if what is None:
                    raise policies.Left
                if not isinstance(what, int):
                    self._early.append(what)
                elif what == load.seq:
                    unanswered -= 1
            self.works = True
            self._blocked += perf_counter_ns() - began

    def _answer(self, load: _Load, came: Batch, *, last: bool = True) -> None:
        began = perf_counter_ns()
        orders, segment = load.orders, self.segment
        newest = None if last else newest_of(came, packed=False)
        data = None
        if orders.encode is not None and not orders.careful:
            data = envelope.encoded(came, orders.encode)
        came.values = _held(came.values) if data is None else Encoded(data, len(came.values), came.tail())
        came.first = load.batch.first
        size = came.size
        if type(came.values) is list and came.values:
            size = amount(came.values[-1]) * len(came.values)
        self._busy += perf_counter_ns() - began
        steps, timed = (
            (0, segment.timed_records) if isinstance(segment, Segment) else (segment.busy_ns, segment.records)
        )
        figures = Figures(
            self._busy + steps, self._waiting, self._blocked, thread_time_ns(), segment.retried, [*segment.records],
            [*timed], [*segment.timed_ns],
        )  # fmt: skip
        self._say(self, contract.Came(self.number, load.seq, load.attempt, came, size, figures, last, newest))

    async def _attend(self, segment: AsyncSegment) -> None:
        """The life of one whose steps wait."""
        import asyncio

        if not self._built():
            return
        arrived = asyncio.Event()
        self.wake = partial(asyncio.get_running_loop().call_soon_threadsafe, arrived.set)
        began = perf_counter_ns()
        try:
            while True:
                arrived.clear()
                try:
                    load = self._given.get_nowait()
                except Empty:
                    await arrived.wait()
                    continue
                if load is None:
                    return
                if isinstance(load, int):
                    continue
                self.seq = load.seq
                task = segment.start(
                    load.seq, _copy(load.batch), partial(self._done, load), careful=load.orders.careful
                )
                task.add_done_callback(self._ended)
                self._waiting = max(0, perf_counter_ns() - began - segment.busy_ns)
                await asyncio.sleep(0)  # what is under way goes on between two batches
        finally:
            try:
                await segment.close()
            except BaseException as error:
                self._not_closed(error)

    def _done(self, load: _Load, came: Batch) -> None:
        self._answer(load, came)

    def _ended(self, task: Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(self, contract.Broken(self.number, error))


def _held(values: Any) -> Any:
    """Values as they go to a worker and come back: rows of a table, or a list."""
    return values if type(values) is ArrowRows else records_of(values)


def _copy(batch: Batch) -> Batch:
    """A batch over the same values that may be run: it may have to be run again."""
    return Batch(_held(batch.values), batch.origins, [replace(each) for each in batch.failures], batch.first)


def _opened(segment: Segment, load: _Load) -> Batch:
    """The batch of a load, with its records where it is a part of the source. Raises what reading them does."""
    values = load.batch.values
    if not isinstance(values, Part):
        return _copy(load.batch)
    alone = copy.copy(values)  # what is open in the other one is read by others
    return envelope.read_part(alone, load.orders.first, goes_on=segment.goes_on, tables=segment.takes_tables)


def _parts(segment: Segment, batch: Batch, orders: Orders) -> Iterator[tuple[Batch, bool]]:
    if segment.expands:
        yield from pieces(segment, batch, orders, packed=False)
    else:
        yield segment.run(batch, careful=orders.careful, formed=True), True


class ThreadCrew(Crew):
    """The crew of threads. `segments` are the steps of each lane that has workers, None for the others; `most`: bytes that a
    worker may hold."""

    isolates = False

    def __init__(self, segments: Sequence[tuple[Step, ...] | None], *, goes_on: bool, most: int) -> None:
        self._segments = segments
        self._goes_on = goes_on
        self._most = most
        self._workers: dict[int, _ThreadWorker] = {}
        self._leaving: list[_ThreadWorker] = []  # of whom nothing is heard any more
        self._said: SimpleQueue[tuple[_ThreadWorker | None, Heard]] = SimpleQueue()
        self._abandoned = self._closed = False
        self._unclosed: list[BaseException] = []
        starts.crews.add(self)
        library_limits.keep_memory()
        _relay.begin()

    def start(self, worker: int, lane: int) -> None:
        if (member := self._workers.get(worker)) is not None:  # it was tried out, and waits for more
            assert member.lane == lane
            self._said.put((member, contract.Ready(worker)))
            return
        steps = self._segments[lane]
        assert steps is not None
        member = _ThreadWorker(worker, lane, self._segment(worker, steps), self._hear)
        try:
            member.thread.start()
        except RuntimeError as error:
            self._said.put((None, contract.StartFailed(worker, OSError(str(error)))))
            return
        self._workers[worker] = member

    def _segment(self, worker: int, steps: tuple[Step, ...]) -> Segment | AsyncSegment:
        if not steps[0].waits:
            segment = Segment(steps, goes_on=self._goes_on)
            segment.most = self._most
            return segment
        from taktline._segment.async_steps import AsyncSegment

        waiting = AsyncSegment(steps, goes_on=self._goes_on, worn_out=partial(self._worn_out, worker, steps))
        waiting.most = self._most
        return waiting

    def _worn_out(self, worker: int, steps: tuple[Step, ...]) -> None:
        names = ", ".join(repr(step.name) for step in steps)
        error = WorkersCannotStart(
            f"too many calls of {names} were out of time and do not let themselves be ended, which a thread cannot be "
            'replaced for; use start="launch"'
        )
        self._said.put((None, contract.Broken(worker, error)))

    def _hear(self, worker: _ThreadWorker, heard: Heard) -> None:
        self._said.put((worker, heard))

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        if not (isinstance(batch.values, Part) and takes_tables(self._segments[lane] or ())):
            batch.values = _held(batch.values)

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        self._give(worker, _Load(seq, attempt, batch, orders))

    def more(self, worker: int, seq: int) -> None:
        self._give(worker, seq)

    def _give(self, worker: int, what: _Load | int) -> None:
        if self._abandoned:
            starts.not_in_a_fork()
        if (member := self._workers.get(worker)) is not None:
            member.give(what)

    def end(self, worker: int) -> None:
        if (member := self._workers.pop(worker, None)) is not None:
            self._leaving.append(member)
            member.give(None)

    def kill(self, worker: int) -> None:
        """Take the worker for ended: it may still be inside a call, of which nothing is heard any more."""
        if (member := self._workers.pop(worker, None)) is not None:
            self._leaving.append(member)
            member.closes = False  # it is not waited for
            member.leave()
            self._said.put((None, contract.Ended(worker, None)))

    def wait(self, seconds: float) -> list[Heard]:
        if self._abandoned:
            starts.not_in_a_fork()
        told: list[Heard] = []
        with suppress(Empty):
            one = self._said.get(timeout=seconds) if seconds > 0 else self._said.get_nowait()
            while True:
                worker, heard = one
                if worker is None or self._workers.get(heard.worker) is worker:
                    told.append(heard)
                elif worker.closes and type(heard) is contract.Broken:  # of one that was replaced
                    told.append(contract.Broken(contract.NOBODY, heard.error))
                one = self._said.get_nowait()
        return told

    def look(self) -> dict[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        return {number: (None, member.place()) for number, member in self._workers.items()}

    def describe(self, worker: int) -> contract.WorkerState:
        frame = self._workers[worker].frame() if worker in self._workers else None
        calls = []
        while frame is not None and frame.f_code is not _ThreadWorker._live.__code__:
            calls.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
            frame = frame.f_back
        return contract.WorkerState(
            os.getpid(), "", "\n".join(["Stack (most recent call first):", *calls]) if calls else ""
        )

    def tasks(self) -> list[int]:
        return [member.thread.native_id or 0 for member in self._workers.values()]

    def close(self, *, gently: bool) -> None:
        """Those who work are ended where they run Python's code; what was built is closed, for `closing` seconds at most."""
        if self._closed:
            return
        members = [*self._workers.values(), *self._leaving]
        self._workers.clear()
        self._leaving = members
        for member in members:
            member.leave()
        for member in members:
            until = perf_counter() + (self.closing if member.closes else GRACE)
            while member.thread.is_alive() and member.thread is not threading.current_thread():
                member.thread.join(AGAIN)
                if perf_counter() > until:
                    break
                if member.works and member.thread.is_alive():
                    member.leave()
        self._closed = True
        _relay.end()
        while not self._said.empty():
            _, heard = self._said.get()
            if isinstance(heard, contract.Broken):
                self._unclosed.append(heard.error)
        alive = [member for member in members if member.thread.is_alive()]
        if any(member.closes and not member.works for member in alive):
            self._unclosed.append(contract.closes_too_long(self.closing, "thread goes on"))
        if left := [member for member in alive if member.works]:
            step = left[0].segment.steps[left[0].place().step].name
            warnings.warn(
                f"a worker's thread is still inside a call of step {step!r}: a thread cannot be ended there, and goes on "
                'until the call comes back. With start="launch" it would be ended',
                RuntimeWarning,
                stacklevel=2,
            )

    def unclosed(self) -> Sequence[BaseException]:
        return self._unclosed

    def abandon(self) -> None:
        """In a fork of this process: there are no threads of its in it."""
        self._abandoned = self._closed = True
        self._workers = {}

    def descriptors(self) -> Iterator[int]:
        """Nothing is open."""
        return iter(())


def _streams() -> list[_printing.Write]:
    """Of the streams that programs print to: those that let themselves be written to in another way."""
    writes = []
    for stream in dict.fromkeys((sys.stdout, sys.stderr)):
        with suppress(AttributeError, TypeError):  # there is none, or it has no attributes of its own
            write = _printing.put_in(stream)
            write.is_workers = _is_workers
            writes.append(write)
    return writes


def _is_workers() -> bool:
    return own.get(None) is not None


class TellingFactory:
    """Log records that steps make in workers say which worker and step it was; what these print comes in whole lines."""

    def __init__(self) -> None:
        self._crews = 0
        self._writes: list[_printing.Write] = []
        self.around: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()  # the program's own factory

    def begin(self) -> None:
        """One more crew is there."""
        self._crews += 1
        if self._crews == 1:
            self.around = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self)
            self._writes = _streams()

    def end(self) -> None:
        """One less."""
        self._crews -= 1
        while not self._crews and self._writes:
            write = self._writes.pop()
            write.end_lines()
            write.leave()
        if not self._crews and logging.getLogRecordFactory() is self:  # nobody has put another one around it
            logging.setLogRecordFactory(self.around)

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.around(*args, **kwargs)
        if (worker := own.get(None)) is not None:
            vars(record)["taktline_worker"] = worker.number
            vars(record)["taktline_step"] = worker.segment.name_at(sys._getframe())
        return record


_relay = TellingFactory()
