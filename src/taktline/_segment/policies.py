"""What the options of a step put around its function: tries after a failure, and a limit of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from itertools import islice
from random import SystemRandom
from time import monotonic, perf_counter, sleep
from types import AsyncGeneratorType, CoroutineType, TracebackType
from typing import Any

from taktline import _signals
from taktline._recipe.steps import Role, Step
from taktline._segment.memory_size import amount
from taktline.errors import NotAwaited, ResultsTooLarge, StepTimeout

JITTER = SystemRandom()  # the steps' own random numbers stay as they are
# Modules through which an exception of a step may come.
AROUND = (__package__, "taktline._run.loop", "asyncio.", "concurrent.futures.")
WEIGHED = 64  # results at most between two looks at how much has come of a record that must be there as a whole
LONGEST = 60.0  # seconds between two tries at most

in_callers_process = True  # a worker's main sets it to False: there Ctrl-C never arrives, a step must have raised it
of_a_worker: ContextVar[bool] = ContextVar("of_a_worker", default=False)  # the same for a worker that is a thread
loading = False  # True in a launched worker until its steps, and all that they import, are there

Function = Callable[[Any], Any]


class Left(BaseException):
    """Raised in a worker that is a thread, wherever its steps are, when nobody waits for it any more."""


def in_caller() -> bool:
    """Whether steps run for the caller himself here: where Ctrl-C arrives, and with no other worker beside."""
    return in_callers_process and not of_a_worker.get()


def set_up(setup: Callable[[], object]) -> None:
    """What a run's `setup=` does in this process, before its first record. What it raises goes up with a note."""
    try:
        setup()
    except BaseException as error:
        error.add_note("raised by setup=, which each process calls before its first record")
        raise


def guarded(fn: Function, step: Step, retry: Callable[[], None], limit: Callable[[float], None], most: int) -> Function:
    """`fn` itself where the step has no such options, so that they cost nothing there.

    What a step that expands makes of a record comes at once then, since it may have to be made again: the options hold for
    all of it, and it may take `most` bytes. `retry()` is called before each further try; `limit(seconds)` when a call
    begins that may take so long, and `limit(0)` when it has ended: who watches from outside can end a call that does not
    come back.
    """
    if (step.retries or step.timeout is not None) and step.role is Role.EXPAND:
        fn = _at_once(fn, step, most)
    if step.rate:
        fn = _paced(fn, Pace(step))
    if step.timeout is not None:
        fn = _limited(fn, step.name, step.timeout, limit)
    if step.retries:
        fn = _retried(fn, step, retry)
    return fn


# What steps mostly return. Looked up before a value is looked at: 15 ns in the place of 50.
NEVER_AWAITED: frozenset[type] = frozenset(
    {bool, int, float, complex, str, bytes, bytearray, type(None), list, tuple, dict, set, frozenset}
)

SEEN = 100  # classes that are remembered


def waits(value: Any) -> bool:
    """Whether a value is none yet: a coroutine, a future, an async generator."""
    return hasattr(type(value), "__await__") or isinstance(value, AsyncGeneratorType)


def refuse(value: Any, step: str, *, awaited: bool = False) -> None:
    """Raises NotAwaited where a step returned what is still to be awaited: it would be true for every record, or stand
    among the results. `awaited`: the step was, and gave another one."""
    if type(value) in NEVER_AWAITED or not waits(value):
        return
    name = getattr(value, "__qualname__", "")
    error = NotAwaited(
        step=step, returned=f"{type(value).__name__} {name!r}" if name else type(value).__name__, awaited=awaited
    )
    if isinstance(value, CoroutineType):
        value.close()  # it never began: nobody is to be warned of that too
    raise error


class Refusal:
    """`refuse` for the steps of a fused function, by their position in it. `plain`: classes whose values need no look."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.plain: set[type] = set(NEVER_AWAITED)

    def __call__(self, value: Any, step: int) -> None:
        refuse(value, self._names[step])
        if len(self.plain) < SEEN:
            self.plain.add(type(value))


def looked_at(fn: Function, step: str) -> Function:
    """`fn`, but every value is looked at: for a step that has returned a coroutine once."""

    def look(value: Any) -> Any:
        result = fn(value)
        refuse(result, step)
        return result

    return look


async def awaited(result: Any) -> Any:
    """What a step that waits has returned, once it is there."""
    return await result if hasattr(type(result), "__await__") else result


def own(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the step's own code on."""
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith(AROUND):
        tb = tb.tb_next
    return tb


def interrupts(error: BaseException, tb: TracebackType | None = None) -> bool:
    """Whether what came out of a step's call in the caller's process is no failure of the step: a signal's handler has
    raised it in between, or in the midst of the step something that would end more than a record. `tb`: from the step's
    own code on, where that is known."""
    if isinstance(error, Left):
        return True
    if not in_caller():
        return False
    own_code = tb if tb is not None else own(error.__traceback__)
    return _signals.is_handler(own_code) or (not isinstance(error, Exception) and _signals.from_a_handler(own_code))


class Caught:
    """What a segment has caught. Where one exception object is raised again and again, Python puts each time in front of
    the earlier ones: those are cut off, so that neither a traceback nor its text grows."""

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}  # ids only: a traceback holds frames, and with them whole batches

    def now(self, error: BaseException) -> None:
        """This error was just caught."""
        head = tb = error.__traceback__
        earlier = self._heads.get(id(error))
        while earlier is not None and tb is not None:
            if id(tb.tb_next) == earlier:
                tb.tb_next = None
            tb = tb.tb_next
        if len(self._heads) >= SEEN:
            self._heads.clear()
        self._heads[id(error)] = id(head)


def pause(step: Step, tried: int) -> float:
    """Seconds to wait after a failed try, when there were so many before it.

    Full jitter: anything up to the exponential back-off, so that many workers do not come back at once
    (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    return JITTER.uniform(0, min(LONGEST, step.backoff * 2**tried))


def _at_once(fn: Function, step: Step, most: int) -> Function:
    """An expander whose lazy result is used up inside of the call. It may be endless: it is held within `most` bytes and
    the step's time here too, for in the caller's process nobody else can end it."""
    seconds = step.timeout

    def whole(value: Any) -> Any:
        began = perf_counter()
        given = fn(value)
        if waits(given):
            return given
        results, each = iter(given), 1
        values: list[Any] = []
        while True:
            before = len(values)
            values.extend(islice(results, each))
            if len(values) - before < each:
                return values
            if seconds is not None and perf_counter() - began > seconds:
                raise StepTimeout(step=step.name, seconds=seconds)
            weigh(values, most)
            each = min(2 * each, WEIGHED)

    return whole


def weigh(values: list[Any], most: int) -> None:
    """Raises ResultsTooLarge where one record has given more bytes: its results go on when all of them are there."""
    if values and amount(values[-1]) * len(values) > most:
        raise ResultsTooLarge(size=most)


def _limited(fn: Function, name: str, seconds: float, limit: Callable[[float], None]) -> Function:
    def in_time(value: Any) -> Any:
        limit(seconds)
        began = perf_counter()
        try:
            result = fn(value)
        finally:
            limit(0.0)
        # It came back by itself, but late: where nobody could end it, this is the only place that can tell.
        if perf_counter() - began > seconds:
            raise StepTimeout(step=name, seconds=seconds)
        return result

    return in_time


class Pace:
    """Lets calls begin so far apart that all workers of a step together keep its rate."""

    def __init__(self, step: Step) -> None:
        workers = 1 if in_caller() else step.workers or 1
        self._between = workers / step.rate if step.rate else 0.0
        self._next = 0.0

    def pause(self) -> float:
        """Seconds that the call which asks must wait before it begins."""
        if not self._between:
            return 0.0
        now = monotonic()
        start = max(self._next, now)
        self._next = start + self._between
        return start - now


def _paced(fn: Function, pace: Pace) -> Function:
    def in_turn(value: Any) -> Any:
        if (pause := pace.pause()) > 0:
            sleep(pause)
        return fn(value)

    return in_turn


def _retried(fn: Function, step: Step, retry: Callable[[], None]) -> Function:
    def until_done(value: Any) -> Any:
        for tried in range(step.retries):
            try:
                return fn(value)
            except Exception as error:
                if interrupts(error) or isinstance(error, ResultsTooLarge):
                    raise
                retry()
                sleep(pause(step, tried))
        return fn(value)

    return until_done
