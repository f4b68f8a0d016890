"""Steps that wait: many records at once, in one event loop (`async def`) or in threads, over the borders of batches.

A waiting segment takes batches as they come and gives each back when all of its records are done. A record goes through
neighbouring steps in one task, as do the records that a batch step gets in one call; a call's records come from one
batch. Each step lets so many calls in at once, and no more than its rate allows.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from traceback import format_exception
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

from taktline._excerpts import excerpt
from taktline._recipe.steps import Role, Step, gives_async, is_async
from taktline._segment import policies
from taktline._segment.batch import Batch, Begun, Came, Failure, Mark, no_mark, nobody
from taktline._segment.batch_steps import BatchSteps, Piece, SegmentPart, stretches
from taktline._segment.memory_size import HELD_BYTES
from taktline._segment.threads import Threads
from taktline.errors import ResultsTooLarge, StepTimeout

if TYPE_CHECKING:
    from taktline._segment.seeds import Seeds

LEFT_ALONE = 64  # threads, or coroutines, of one step that never came back; one more, and the worker must be replaced
LOOK = 64  # results of a record that are weighed each time
CLEAN_UP = 1.0  # seconds for a coroutine that is cancelled: it may catch that, and go on for ever
LEAVING = 0.8  # the same when the run is left: what was built for the worker is still to be closed in the hub's GRACE

Done = Callable[[Batch], None]
_Way: TypeAlias = "asyncio.Task[Batch] | Failure"  # of a record, or of those of one call; or one that failed before


class AsyncSegment:
    """Runs waiting steps over batches, in a running event loop. `worn_out()` is called when too many threads hang."""

    takes_tables = False

    def __init__(
        self, steps: Sequence[Step], *, goes_on: bool, worn_out: Callable[[], None],
        seed: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        self.steps = tuple(steps)
        self.seed = seed
        self.goes_on = goes_on
        self.caught = policies.Caught()
        self.most = HELD_BYTES
        self.keeps_interrupt = False
        self.seeds: Seeds | None = None  # each call has its own: `seeds_for`
        self.mark: Mark = no_mark
        self.begun: Begun = nobody
        self.came: Came = nobody
        self.starts: list[int] = []  # steps that wait take no whole keys
        self.enters: Callable[[int], None] | None = None  # told the batch of each call that begins
        self.retried = 0
        self.busy_ns = 0  # time in steps, each call's shared among as many as may be in the step at once
        self.records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.worn_out = worn_out
        self.stations: list[Station] = []
        self.calls = 0  # that have come back
        self._parts: list[_Records | _Calls] = []
        self._alone: int | None = None  # position in the batch of the value that is run by itself
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._given_up: set[asyncio.Task[Any]] = set()  # cancelled here, and not by a step
        self._open: dict[int, list[_Way]] = {}  # by id: those of each batch in a part, in the order in which they began

    def make(self) -> None:
        """Build the callables. What a factory raises goes up as it is, with the step's name as a note."""
        for step in self.steps:
            try:
                made = step.make()
            except BaseException as error:
                error.add_note(f"raised while step {step.name!r} was built for this worker")
                raise
            self.stations.append(Station(step, made, self))
        for first, last in stretches(self.steps):
            part = _Calls if self.steps[first].role is Role.BATCH else _Records
            self._parts.append(part(self, first, last))

    def start(self, seq: int, batch: Batch, done: Done, *, careful: bool) -> asyncio.Task[None]:
        """Begin with all records of the batch; `done` is called with what came of it. `careful`: one after the other,
        with a mark before each. What goes wrong beside the steps is the task's exception."""
        task = asyncio.get_running_loop().create_task(self._whole(seq, batch, done, careful))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _whole(self, seq: int, batch: Batch, done: Done, careful: bool) -> None:
        done(await (self._carefully(seq, batch) if careful else self._through(seq, batch)))

    async def _through(self, seq: int, batch: Batch) -> Batch:
        for part in self._parts:
            batch = await self._past(part, seq, batch)
        return batch

    async def _carefully(self, seq: int, batch: Batch) -> Batch:
        whole = Batch([], [])
        for start, end, failure in batch.spans():
            for at in range(start, end):
                self.begun(at, 0)
                self._alone = at
                self.mark(at, 0, 0.0)
                one = await self._through(seq, Batch([batch.values[at]], [batch.origin(at)], first=batch.first))
                self._alone = None
                self.came(at, one)
                whole.append(one, goes_on=self.goes_on)
                if whole.failures and not self.goes_on:
                    return whole
            if failure is not None:
                whole.keep(failure)
        return whole

    async def _past(self, part: _Records | _Calls, seq: int, batch: Batch) -> Batch:
        """The batch after one part: all of its tasks begin at once, and what they give is put together in order."""
        ways: list[_Way] = []
        begin = asyncio.get_running_loop().create_task
        for start, end, failure in batch.spans():
            ways += [begin(part.came_of(seq, batch, *each)) for each in part.together(batch, start, end)]
            ways += [failure] if failure is not None else []
        self._open[id(ways)] = ways
        out = Batch([], [], first=batch.first)
        try:
            for way in ways:
                if isinstance(way, Failure):
                    out.keep(way)
                else:
                    out.append(await way, goes_on=self.goes_on)
                if out.failures and not self.goes_on:
                    break
        finally:
            await self._give_up(_under_way(ways), CLEAN_UP)
            del self._open[id(ways)]
        return out

    async def _give_up(self, tasks: Sequence[asyncio.Task[Any]], seconds: float) -> None:
        """Cancel them; the steps' own clean-up is waited for, but not for ever."""
        self._given_up.update(tasks)
        for task in tasks:
            task.add_done_callback(self._given_up.discard)
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def is_given_up(self, error: BaseException) -> bool:
        """Whether an exception is the end of the task that is run now, as it was told, and not a step's own."""
        return isinstance(error, asyncio.CancelledError) and (self._closing or asyncio.current_task() in self._given_up)

    def seeds_for(self, batch: Batch) -> Seeds | None:
        """What seeds the calls that one task makes for a batch, where a seed is set."""
        if self.seed is None:
            return None
        from taktline._segment.seeds import Seeds

        return Seeds(*self.seed, first=batch.first)

    def callables(self) -> list[Any]:
        """What each step calls, in order."""
        return [station.made for station in self.stations]

    def likes(self) -> list[Any]:
        """Of batch steps what is called for one record, where there is such a thing."""
        return [step.like for step in self.steps]

    def begins(self, step: int) -> None:
        """A step begins; of use where it is one record alone that is run, for else many are at work."""
        if self._alone is not None:
            self.mark(self._alone, step, 0.0)

    def runs(self, part: SegmentPart, values: Any, end: int) -> None:
        """A step begins with values of a batch: of no use here, where calls are marked one by one."""

    def note(self, step: int, records: int, ns: int) -> None:
        """So many records were so long in a step."""
        self.records[step] += records
        share = ns // self.stations[step].tasks
        self.timed_ns[step] += share
        self.busy_ns += share

    def position(self) -> int:
        """How many calls have come back: it is not one record that is at work here, but this moves."""
        return self.calls

    def step_in(self, frame: FrameType | None) -> int:
        """Records are in all steps at once."""
        return 0

    def name_at(self, frame: FrameType | None) -> str | None:
        """The name of the step that is run now, where that can be told."""
        return self.steps[0].name if len(self.steps) == 1 else None

    def stack(self) -> str:
        """Where the record that began first is now, innermost call first, as faulthandler writes it."""
        calls: list[str] = []
        oldest = next((way for ways in self._open.values() for way in _under_way(ways)), None)
        if oldest is not None:
            inner: Any = oldest.get_coro()
            while (frame := getattr(inner, "cr_frame", None)) is not None:
                calls.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
                inner = inner.cr_await
        return "\n".join(["Stack (most recent call first):", *reversed(calls)]) if calls else ""

    async def close(self) -> None:
        """Cancel what is under way, wait for its clean-up, and close what was built for this worker."""
        self._closing = True
        ways = [way for each in self._open.values() for way in _under_way(each)]
        await self._give_up([*self._tasks, *ways], LEAVING)
        for station in self.stations:
            await station.close()


def _under_way(ways: list[_Way]) -> list[asyncio.Task[Batch]]:
    return [way for way in ways if isinstance(way, asyncio.Task) and not way.done()]


class _Records:
    """Neighbouring steps of one record each: a task a record takes it through all of them."""

    def __init__(self, whole: AsyncSegment, first: int, last: int) -> None:
        self._whole = whole
        self._first, self._last = first, last

    def together(self, batch: Batch, start: int, end: int) -> Iterator[tuple[int, int]]:
        """From where up to where the values go through in one task: each alone; where a seed is set all of a record, for
        how often a step was called for it before tells which random numbers it gets."""
        at = start
        while at < end:
            upto = at + 1
            while self._whole.seed is not None and upto < end and batch.origin(upto) == batch.origin(at):
                upto += 1
            yield at, upto
            at = upto

    async def came_of(self, seq: int, batch: Batch, start: int, end: int) -> Batch:
        """What comes of the values from `start` to `end`, all of one record."""
        origin, came = batch.origin(start), _Came([], [], seeds=self._whole.seeds_for(batch))
        if came.seeds is not None:
            came.seeds.at(origin)
        try:
            for value in batch.values[start:end]:
                await self._through(seq, value, self._first, came)
        except BaseException as error:
            if self._whole.is_given_up(error):
                raise
            # whatever a step raises is the record's failure, as in any other step
            if self._whole.goes_on:
                came.values.clear()
            self._whole.caught.now(error)
            tb = policies.own(error.__traceback__)
            text = "".join(format_exception(type(error), error, tb)) if tb is not None else ""
            name, given = self._whole.steps[came.step].name, excerpt(came.value)
            came.failures.append(Failure(len(came.values), origin, name, error, text, given=given))
        came.origins, came.value = [origin] * len(came.values), None
        return came

    async def _through(self, seq: int, value: Any, first: int, came: _Came) -> None:
        for n in range(first, self._last):
            came.step, came.value = n, value
            self._whole.begins(n)
            station = self._whole.stations[n]
            own = came.seeds.own(n) if came.seeds is not None else None
            began = perf_counter_ns()
            try:
                result = await station.call(seq, own.around(station.made) if own is not None else station.made, value)
            finally:
                self._whole.note(n, 1, perf_counter_ns() - began)
            if station.role is Role.KEEP:
                if not result:
                    return
            elif station.role is Role.EXPAND:
                for inner in own.values(result) if own is not None else result:
                    await self._through(seq, inner, n + 1, came)
                    if not len(came.values) % LOOK:
                        policies.weigh(came.values, self._whole.most)
                return
            else:
                value = result
        came.values.append(value)


@dataclass(slots=True)
class _Came(Batch):
    """What came of one record so far, the step that it is in and what that was given, and what seeds its calls."""

    step: int = 0
    value: Any = None
    seeds: Seeds | None = None


class _Calls(BatchSteps):
    """Batch steps that wait: a task takes the records of one call through all of them."""

    waits = True

    def __init__(self, whole: AsyncSegment, first: int, last: int) -> None:
        super().__init__(whole, first, last, traced=True)
        self._whole = whole
        self._stations = whole.stations[first:last]

    def together(self, batch: Batch, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The lists, as `lists` tells them."""
        one = copy.copy(self)
        one.seeds = self._whole.seeds_for(batch)
        return one.lists(batch, start, end)

    async def came_of(self, seq: int, batch: Batch, start: int, end: int, turn: int) -> Batch:
        """What comes of the values from `start` to `end`."""
        self.segment.begins(self.first)
        one, out = copy.copy(self), Batch([], [])  # what it holds while it is under way is not the others'
        one.pieces, one.seeds = [], self._whole.seeds_for(batch)
        one.callables = [one.calls(n, seq, station.made) for n, station in enumerate(self._stations)]
        one.likes = [like and one.calls(n, seq, like, like=True) for n, like in enumerate(self.likes)]
        await one.through(Piece(batch, out, start, batch.values[start:end], turn=turn))
        one.settle(out)
        return out

    def calls(self, n: int, seq: int, fn: Callable[[Any], Any], *, like: bool = False) -> Callable[[Any], Any]:
        """A call of a step, or of what it is `like`."""
        call, seeds = self._stations[n].call, self.seeds
        if seeds is None:
            return partial(call, seq, fn)
        return lambda value: call(seq, seeds.own(n + self.first, like=like).around(fn), value)

    def passes(self, error: BaseException) -> bool:
        return self._whole.is_given_up(error)


class Station:
    """One step: its callable, how many calls may be under way, and their pace."""

    def __init__(self, step: Step, made: Callable[[Any], Any], whole: AsyncSegment) -> None:
        self.role = step.role
        self.tasks = step.tasks or 1
        self._built = made
        self.made = gathered(made, whole.most)
        self._step = step
        self._whole = whole
        self._inside = asyncio.Semaphore(self.tasks)
        self._pace = policies.Pace(step)
        self._as_it_is = not (step.retries or step.rate or any(each.timeout for each in whole.steps))
        self._threads = Threads(step.name) if step.kind == "thread" and not is_async(made) else None
        self._left_alone: set[asyncio.Task[Any]] = set()

    async def call(self, seq: int, fn: Callable[[Any], Any], value: Any) -> Any:
        """What `fn`, the step's callable or its `like`, gives for a value of this batch, with the step's options."""
        step = self._step
        try:
            async with self._inside:
                if self._as_it_is:
                    return await self._own(fn, value)
                for tried in range(step.retries):
                    try:
                        return await self._in_time(seq, fn, value)
                    except Exception as error:
                        if isinstance(error, ResultsTooLarge):
                            raise
                        self._whole.retried += 1
                        await asyncio.sleep(policies.pause(step, tried))
                return await self._in_time(seq, fn, value)
        finally:
            self._whole.calls += 1

    async def _in_time(self, seq: int, fn: Callable[[Any], Any], value: Any) -> Any:
        if (pause := self._pace.pause()) > 0:
            await asyncio.sleep(pause)
        seconds = self._step.timeout
        if self._whole.enters is not None:
            self._whole.enters(seq)
        if seconds is None:
            return await self._own(fn, value)
        return await in_time(self._begun(fn, value), self._step.name, seconds, self._leave_alone)

    async def _own(self, fn: Callable[[Any], Any], value: Any) -> Any:
        """What a call gives that is part of this task, which the step may cancel: that is an error of its own then."""
        task = asyncio.current_task()
        assert task is not None
        try:
            return await self._begun(fn, value)
        finally:
            if task.cancelling() and not self._whole.is_given_up(asyncio.CancelledError()):
                task.uncancel()
                await asyncio.sleep(0)  # raises CancelledError, where the step has not waited for it

    async def _begun(self, fn: Callable[[Any], Any], value: Any) -> Any:
        if self._threads is not None:
            result = await self._in_thread(self._threads, fn, value)
        else:
            result = fn(value)
            if hasattr(type(result), "__await__"):  # a plain function that is said to be async may give a value at once
                result = await result
        if type(result) not in policies.NEVER_AWAITED:
            policies.refuse(result, self._step.name, awaited=self._threads is None)
        return result

    def _leave_alone(self, task: asyncio.Task[Any]) -> None:
        self._left_alone.add(task)
        task.add_done_callback(self._left_alone.discard)
        if len(self._left_alone) > LEFT_ALONE:
            self._whole.worn_out()

    async def _in_thread(self, threads: Threads, fn: Callable[[Any], Any], value: Any) -> Any:
        call = threads.call(fn, value)
        try:
            return await call
        except asyncio.CancelledError:
            if call.cancelled():
                threads.left_alone += 1
                if threads.left_alone > LEFT_ALONE:
                    self._whole.worn_out()
            raise

    async def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
        if self._step.maker is not None and hasattr(self._built, "close"):
            closed = self._built.close()
            if isinstance(closed, Awaitable):
                await closed


async def in_time(
    call: Awaitable[Any], step: str, seconds: float, leave_alone: Callable[[asyncio.Task[Any]], object]
) -> Any:
    """What `call` gives. Raises StepTimeout when its time is up: it is cancelled then, and may clean up.

    It is a task of its own, since it may catch that and go on: `leave_alone(task)` is told so."""
    task = asyncio.create_task(_kept(call))
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:  # the caller's own end
        task.cancel()
        await asyncio.wait({task}, timeout=CLEAN_UP)
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CLEAN_UP)
        if not task.done():
            leave_alone(task)
        elif not task.cancelled():
            task.result()  # what it raised instead is its own error
        raise StepTimeout(step=step, seconds=seconds)
    result, error = task.result()
    if error is not None:
        raise error
    return result


async def _kept(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What `call` gives, or what it raised that would end the event loop."""
    try:
        return await call, None
    except (KeyboardInterrupt, SystemExit) as error:
        return None, error


def gathered(made: Callable[[Any], Any], most: int = HELD_BYTES) -> Callable[[Any], Any]:
    """The callable; of an async generator one that gives all that it yields at once, and of no more than `most` bytes."""
    if not gives_async(made):
        return made

    async def whole(value: Any) -> list[Any]:
        values: list[Any] = []
        async for each in made(value):
            values.append(each)
            if not len(values) % LOOK:
                policies.weigh(values, most)
        return values

    return whole


class OneByOne:
    """Runs an `async def` step for one record at a time, where a plain function is called for."""

    def __init__(self, most: int = HELD_BYTES) -> None:
        self._most = most  # bytes that an async generator may make of a record
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._left_alone: list[asyncio.Task[Any]] = []

    def plain(self, step: Step, made: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[Any], Any]:
        """The step as a plain function, which keeps its time limit itself: a coroutine can be ended."""

        call = gathered(made, self._most)

        async def checked(value: Any) -> Any:
            result = await policies.awaited(call(value))
            policies.refuse(result, step.name, awaited=True)
            return result

        if (seconds := step.timeout) is None:
            return lambda value: self.run(checked(value))
        return lambda value: self.run(in_time(checked(value), step.name, seconds, self._left_alone.append))

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                pass
            else:  # a notebook, or a caller that is async itself: its loop is taken, so ours runs in another thread
                self._thread = ThreadPoolExecutor(1)
        if self._thread is None:
            return self._runner.run(call)
        context = contextvars.copy_context()
        return self._thread.submit(partial(self._runner.run, call, context=context)).result()

    def close(self) -> None:
        """End the loop, and what tasks the steps have left in it. May be called again."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._thread is None:
            self._end(runner)
        else:
            self._thread.submit(self._end, runner).result()
            self._thread.shutdown()
            self._thread = None

    def _end(self, runner: asyncio.Runner) -> None:
        if all(task.done() for task in self._left_alone):
            runner.close()
            return
        # It would wait for ever for what does not let itself be cancelled.
        loop = runner.get_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        asyncio.set_event_loop(None)
