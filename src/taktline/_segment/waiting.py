"""Steps that wait: many records at once, in one event loop (`async def`) or in threads, over the borders of batches.

A waiting segment takes batches as they come and gives each back when all of its records are done. A record goes through
its steps in one task; each step lets so many records in at once, and no more than its rate allows.
"""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import Any

from taktline._recipe.steps import Role, Step
from taktline._segment import guard
from taktline._segment.batch import Batch, Failure, Mark, no_mark
from taktline.errors import StepTimeout

LEFT_ALONE = 64  # threads of one step that never came back; one more, and the worker must be replaced

Done = Callable[[Batch], None]


class Waiting:
    """Runs waiting steps over batches, in a running event loop. `worn_out()` is called when too many threads hang."""

    def __init__(self, steps: Sequence[Step], *, goes_on: bool, worn_out: Callable[[], None]) -> None:
        self.steps = tuple(steps)
        self.goes_on = goes_on
        self.mark: Mark = no_mark
        self.enters: Callable[[int], None] | None = None  # told the batch of each record that begins a step
        self.retried = 0
        self.busy_ns = 0  # time in steps, each record's shared among as many as may be in the step at once
        self.records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.worn_out = worn_out
        self._stations: list[_Station] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ways: dict[asyncio.Task[_Came], None] = {}  # of the records under way, in the order in which they began

    def make(self) -> None:
        """Build the callables. What a factory raises goes up as it is, with the step's name as a note."""
        for step in self.steps:
            try:
                made = step.make()
            except BaseException as error:
                error.add_note(f"raised while step {step.name!r} was built for this worker")
                raise
            self._stations.append(_Station(step, made, self))

    def start(self, seq: int, batch: Batch, done: Done, *, careful: bool) -> None:
        """Begin with all records of the batch; `done` is called with what came of it. `careful`: one after the other,
        with a mark before each."""
        task = asyncio.get_running_loop().create_task(self._whole(seq, batch, done, careful))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _whole(self, seq: int, batch: Batch, done: Done, careful: bool) -> None:
        ways: list[asyncio.Task[_Came]] = []
        try:
            for position, value in enumerate(batch.values):
                ways.append(asyncio.ensure_future(self._one(seq, value)))
                self._ways[ways[-1]] = None
                ways[-1].add_done_callback(self._came)
                if careful:
                    self.mark(position, 0, 0.0)
                    await ways[-1]
            for way in ways:
                if (await way).error is not None and not self.goes_on:
                    break
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)  # the steps' own clean-up is waited for
        done(self._assembled(batch, [way.result() for way in ways if not way.cancelled()]))

    def _assembled(self, batch: Batch, came: list[_Came]) -> Batch:
        out = Batch([], [])
        assert out.origins is not None
        old = list(batch.failures)
        for position, one in enumerate(came):
            while old and old[0].place <= position:
                out.failures.append(_moved(old.pop(0), len(out.values)))
            origin = batch.origin(position)
            if out.lost(origin):
                continue
            if one.error is None or not self.goes_on:
                out.values += one.values
                out.origins += [origin] * len(one.values)
            if one.error is not None:
                if self.goes_on:
                    out.take_back(origin)
                step = self.steps[one.step].name
                out.failures.append(Failure(len(out.values), origin, step, one.error, one.traceback))
                if not self.goes_on:
                    return out
        out.failures += [_moved(failure, len(out.values)) for failure in old]
        return out

    async def _one(self, seq: int, value: Any) -> _Came:
        came = _Came([])
        try:
            await self._through(seq, value, 0, came)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            came.error = error  # whatever a step raises is the record's failure, as in any other step
        return came

    async def _through(self, seq: int, value: Any, first: int, came: _Came) -> None:
        for n in range(first, len(self.steps)):
            came.step = n
            station = self._stations[n]
            began = perf_counter_ns()
            try:
                result = await station.call(seq, value)
            except BaseException as error:
                tb = _steps_own(error.__traceback__)
                came.traceback = "".join(traceback.format_exception(type(error), error, tb)) if tb is not None else ""
                raise
            finally:
                self.records[n] += 1
                spent = perf_counter_ns() - began
                self.timed_ns[n] += spent // station.tasks
                self.busy_ns += spent // station.tasks
            if station.role is Role.KEEP:
                if not result:
                    return
            elif station.role is Role.EXPAND:
                for inner in result:
                    await self._through(seq, inner, n + 1, came)
                return
            else:
                value = result
        came.values.append(value)

    def _came(self, way: asyncio.Task[_Came]) -> None:
        self._ways.pop(way, None)

    def position(self) -> int:
        """How many records have come out of a step: it is not one record that is at work here, but this moves."""
        return sum(self.records)

    def step_in(self, frame: FrameType | None) -> int:
        """Records are in all steps at once."""
        return 0

    def name_at(self, frame: FrameType | None) -> str | None:
        """The name of the step that is run now, where that can be told."""
        return self.steps[0].name if len(self.steps) == 1 else None

    def stack(self) -> str:
        """Where the record that began first is now, innermost call first, as faulthandler writes it."""
        calls: list[str] = []
        for way in list(self._ways)[:1]:
            inner: Any = way.get_coro()
            while (frame := getattr(inner, "cr_frame", None)) is not None:
                calls.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
                inner = inner.cr_await
        return "\n".join(["Stack (most recent call first):", *reversed(calls)]) if calls else ""

    async def close(self) -> None:
        """Cancel what is under way, wait for its clean-up, and close what was built for this worker."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for station in self._stations:
            await station.close()


@dataclass(slots=True)
class _Came:
    """What came of one value so far."""

    values: list[Any]
    error: BaseException | None = None
    step: int = 0
    traceback: str = ""


class _Station:
    """One step: its callable, how many may be in it, and its pace."""

    def __init__(self, step: Step, made: Callable[[Any], Any], whole: Waiting) -> None:
        self.role = step.role
        self.tasks = step.tasks or 1
        self._step = step
        self._made = made
        self._whole = whole
        self._inside = asyncio.Semaphore(self.tasks)
        self._pace = guard.Pace(step)
        self._hanging = 0
        self._threads: ThreadPoolExecutor | None = None
        if step.kind == "thread":
            self._threads = ThreadPoolExecutor(self.tasks + LEFT_ALONE, thread_name_prefix=step.name)

    async def call(self, seq: int, value: Any) -> Any:
        step = self._step
        async with self._inside:
            for tried in range(step.retries):
                try:
                    return await self._in_time(seq, value)
                except Exception:
                    self._whole.retried += 1
                    await asyncio.sleep(guard.JITTER.uniform(0, min(guard.LONGEST, step.backoff * 2**tried)))
            return await self._in_time(seq, value)

    async def _in_time(self, seq: int, value: Any) -> Any:
        if (pause := self._pace.pause()) > 0:
            await asyncio.sleep(pause)
        seconds = self._step.timeout
        if self._whole.enters is not None:
            self._whole.enters(seq)
        call = self._in_thread(value) if self._threads is not None else self._made(value)
        if seconds is None:
            return await call
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call
        except TimeoutError:
            if not limit.expired():
                raise  # the step's own
            raise StepTimeout(step=self._step.name, seconds=seconds) from None

    async def _in_thread(self, value: Any) -> Any:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._threads, _in_step, self._made, value)
        try:
            # A thread cannot be ended. One that is late is left alone, and another one takes its place.
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            if not call.done():
                self._hanging += 1
                call.add_done_callback(self._came_back)
                if self._hanging > LEFT_ALONE:
                    self._whole.worn_out()
            raise

    def _came_back(self, call: asyncio.Future[Any]) -> None:
        self._hanging -= 1
        if not call.cancelled():
            call.exception()  # nobody waits for it any more

    async def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._step.maker is not None and hasattr(self._made, "close"):
            closed = self._made.close()
            if isinstance(closed, Awaitable):
                await closed


def _in_step(fn: Callable[[Any], Any], value: Any) -> Any:
    try:
        return fn(value)
    except StopIteration as error:  # a future cannot hold it
        raise RuntimeError(f"the step raised StopIteration: {error}") from error


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _moved(failure: Failure, place: int) -> Failure:
    failure.place = place
    return failure


def _steps_own(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the step's own code on."""
    own = (__file__, asyncio.__file__.rpartition("/")[0], "/concurrent/futures/")
    while tb is not None and any(part in tb.tb_frame.f_code.co_filename for part in own):
        tb = tb.tb_next
    return tb


class OneByOne:
    """Runs an `async def` step for one record at a time, where a plain function is called for."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None

    def plain(self, step: Step, made: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[Any], Any]:
        """The step as a plain function, which keeps its time limit itself: a coroutine can be ended."""

        async def in_time(value: Any) -> Any:
            limit = asyncio.timeout(step.timeout)
            try:
                async with limit:
                    return await made(value)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise StepTimeout(step=step.name, seconds=step.timeout or 0.0) from None

        return lambda value: self.run(in_time(value))

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
            runner.close()
        else:
            self._thread.submit(runner.close).result()
            self._thread.shutdown()
            self._thread = None
