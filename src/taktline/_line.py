"""Line: the immutable, reusable sequence of steps that users hold."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, Unpack, overload

import taktline  # whose names are imported when they are first looked at: annotations are resolved where somebody asks
from taktline._public import named
from taktline._recipe.numbers import is_whole
from taktline._recipe.options import CheckOptions, CompareOptions, RunOptions, check_planned, check_taken, checked
from taktline._recipe.steps import Form, Step, StepLike, StepOptions, check_name, flatten
from taktline._recipe.steps import batch as batch_step
from taktline._recipe.steps import expand as expand_step
from taktline._recipe.steps import keep as keep_step
from taktline._types import B, In, Out, T
from taktline.abc import Sink
from taktline.errors import LineError

if TYPE_CHECKING:
    from taktline._types import A, AnyKind, C, D, E, F, G, H, I

    # Two sets of overloads of `line`: with coroutines and lines in one union with plain functions, mypy takes fault with
    # lambdas and a bare `async def`.
    S: TypeAlias = Callable[[A], B] | Step[A, B]
    W: TypeAlias = Callable[[A], Coroutine[Any, Any, B]]  # before `S`, which takes it for a function that returns one
    X: TypeAlias = "Step[A, B] | Line[A, B] | Callable[[A], Coroutine[Any, Any, B]] | Callable[[A], B]"
    Any1: TypeAlias = "Step | Line | Callable[[Any], Any]"


class Line(Generic[In, Out]):
    """Steps in order. Call it with a source to run it; made by `line`."""

    __slots__ = ("_name", "_steps")

    def __init__(self, steps: tuple[Step, ...], name: str | None) -> None:
        self._steps = steps
        self._name = name

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, lines among them flattened."""
        return self._steps

    @property
    def name(self) -> str:
        """What reports call this line."""
        return self._name or " → ".join(step.name for step in self._steps)

    def __repr__(self) -> str:
        return f"line({', '.join(step.name for step in self._steps)})"

    @overload
    def then(self, fn: Step[Out, B] | Line[Out, B], /) -> Line[In, B]: ...
    @overload
    def then(self, fn: Callable[[Out], Coroutine[Any, Any, B]], /) -> Line[In, B]: ...
    @overload
    def then(self, fn: Callable[[Out], B], /) -> Line[In, B]: ...
    def then(self, fn: StepLike | Line, /) -> Line:
        """This line with one more step, or another line's, behind it: `line(a, b)` is `line(a).then(b)`. A type checker
        knows here what comes out of the steps before, so it looks into lambdas too.

        >>> list(line(int).keep(lambda n: n > 1).then(lambda n: n * n)(["1", "2", "3"]))
        [4, 9]
        """
        return Line(flatten([*self._steps, fn]), self._name)

    def keep(self, predicate: Callable[[Out], object], *, name: str | None = None) -> Line[In, Out]:
        """This line with `keep(predicate)` behind it."""
        return self._behind(keep_step(predicate, name=name))

    def expand(self, fn: Callable[[Out], Iterable[B]], *, name: str | None = None) -> Line[In, B]:
        """This line with `expand(fn)` behind it."""
        return self._behind(expand_step(fn, name=name))

    @overload
    def batch(
        self, fn: Callable[[list[Out]], Iterable[B]], size: int | None = None, *, form: Literal["list"] = "list",
        by: Callable[[Any], object] | str | None = None, like: Callable[[Out], B] | None = None,
        verify: bool | float = False, **step_options: Unpack[StepOptions],
    ) -> Line[In, B]: ...  # fmt: skip
    @overload
    def batch(
        self, fn: Callable[[list[Out]], Coroutine[Any, Any, Iterable[B]]], size: int | None = None, *,
        form: Literal["list"] = "list", by: Callable[[Any], object] | str | None = None,
        like: Callable[[Out], Coroutine[Any, Any, B]] | None = None,
        verify: bool | float = False, **step_options: Unpack[StepOptions],
    ) -> Line[In, B]: ...  # fmt: skip
    @overload
    def batch(
        self, fn: Callable[[Any], Any], size: int | None = None, *, form: Form,
        by: Callable[[Any], object] | str | None = None, like: Callable[[Out], Any] | None = None,
        verify: bool | float = False, **step_options: Unpack[StepOptions],
    ) -> Line[In, Any]: ...  # fmt: skip
    def batch(self, fn: StepLike, size: int | None = None, **options: Any) -> Line:
        """This line with `batch(fn, size)` behind it, and its options."""
        return self._behind(batch_step(fn, size, **options))

    def _behind(self, step: Step) -> Line:
        return Line(flatten([*self._steps, step]), self._name)

    @overload
    def __call__(
        self: Line[A, Coroutine[Any, Any, T]], source: Iterable[A], **options: Unpack[RunOptions]
    ) -> taktline.Run[T]: ...
    @overload
    def __call__(self, source: Iterable[In], **options: Unpack[RunOptions]) -> taktline.Run[Out]: ...
    def __call__(self, source: Iterable[Any], **options: Any) -> taktline.Run:
        """The results of `source`, an iterable of records, in order: an iterator that starts with its first use.

        Options are those of docs/options.md; wrong ones raise LineError at once. While iterating, an exception
        of a step is raised as itself after all earlier results, with a note that names record and step.

        >>> from taktline import line
        >>> list(line(int, abs)(["-1", "2"]))
        [1, 2]
        """
        _check_python_goes_on()
        from taktline._run.run import Run

        return Run(self._steps, self.name, source, checked(options))

    @overload
    def run(
        self: Line[A, Coroutine[Any, Any, T]], source: Iterable[A], sink: Sink | Callable[[T], object] | None = None,
        **options: Unpack[RunOptions],
    ) -> taktline.Report: ...  # fmt: skip
    @overload
    def run(
        self, source: Iterable[In], sink: Sink | Callable[[Out], object] | None = None, **options: Unpack[RunOptions]
    ) -> taktline.Report: ...
    def run(
        self, source: Iterable[Any], sink: Sink | Callable[[Any], object] | None = None, **options: Any
    ) -> taktline.Report:
        """Run `source` into `sink`: a callable of one result, a writer of `taktline.write`, or None to drop results.

        Returns the Report. Raises what iterating would raise, and SinkError where the sink fails.

        >>> from taktline import line
        >>> results = []
        >>> report = line(int).run(["1", "2"], results.append)
        >>> results, report.records_out
        ([1, 2], 2)
        """
        _check_python_goes_on()
        from taktline._run.ends import check_sink

        check_sink(sink)
        run = self(source, **options)
        del source  # which the run lets go of when it has ended: a traceback must not keep it
        return run.drain(sink)

    def plan(
        self, source: Iterable[In], sink: Sink | Callable[[Out], object] | None = None, *, length: int | None = None,
        **options: Unpack[RunOptions],
    ) -> taktline.Plan:  # fmt: skip
        """Try the first records, then say what to do with this source, why, and how long it would take.

        Runs for a second or two and starts workers for it. The steps see copies of the first records, as in a run; the
        results are dropped, and steps with state or side effects have seen the records. An iterator is used up by as
        many; the plan says so. Records that fail, kill or hang, and lines that are no records, are passed over, counted in
        `failed` and `failures`, and no part of the times. `sink`: where the results would go; nothing is written there.
        `length`: how many records there are, where the source does not tell. Of the options of a run it takes those that
        change a plan: `how`, which is planned for then, `workers`, `batch_size`, `window`, `memory`, `on_error`,
        `dead_letters`, `start`, `setup` and `on`: then the records are tried here, and the times are for that cluster and
        for larger ones. `progress`: as for a run, or a callable that is told, in words, what is done now.
        Raises LineError for others and wrong ones, and what the source raises.

        >>> from taktline import line
        >>> print(line(abs).plan(range(-1000, 0)).how)
        loop
        """
        from taktline._run.ends import check_sink
        from taktline._run.trial import plan

        check_sink(sink)
        if length is not None and not is_whole(length, least=0):
            raise LineError(f"plan(length={length!r}): give the number of records, or leave it out")
        wanted = checked(options)
        check_planned(wanted)
        if wanted.on is not None:
            from taktline._run.trial_machines import plan_on

            return plan_on(self._steps, self.name, source, sink, wanted, length)
        return plan(self._steps, self.name, source, sink, wanted, length)

    @overload
    def stream(
        self: Line[A, Coroutine[Any, Any, T]], source: Iterable[A] | AsyncIterable[A], **options: Unpack[RunOptions]
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream(
        self, source: Iterable[In] | AsyncIterable[In], **options: Unpack[RunOptions]
    ) -> AsyncGenerator[Out, None]: ...
    def stream(self, source: Iterable[Any] | AsyncIterable[Any], **options: Any) -> AsyncGenerator[Any, None]:
        """The results of a source, sync or async, in order, for `async for`: the running event loop is never blocked.

        Options and exceptions are those of a call. Leave it early by `break` or cancellation; workers end with it.

        >>> import asyncio
        >>> from taktline import line
        >>> async def main():
        ...     return [result async for result in line(int).stream(["1", "2"])]
        >>> asyncio.run(main())
        [1, 2]
        """
        import contextvars

        from taktline._run.run import Run
        from taktline._run.stream import stream

        wanted = checked(options)
        if wanted.on_lost != "refuse":
            raise LineError(
                f"flow.stream() has no use for on_lost={wanted.on_lost!r}: it has no output that can be lost"
            )
        context = contextvars.copy_context()
        return stream(lambda records: Run(self._steps, self.name, records, wanted), source, context)

    def compare(self, records: Iterable[In], **options: Unpack[CompareOptions]) -> taktline.Comparison:
        """Run the four techniques in turn over the first records and set them side by side.

        `limit`: records to take, 20,000 by default; 1,000 where steps take columns, of which the techniques that move one
        record at a time make a table a record. Of a source with columns, whose first step takes them, all go as tables: whole
        row groups until they have `limit` rows, 1,000,000 by default; the loop's time, row by row, is reckoned from its
        first ones. `rounds`: how often, 3 by default. `workers`: usable cores by
        default. `reference`: the standard library's own ways too. `predictions`: what the what-if says, beside what was
        measured. `progress`: as for a run, or a callable that is told, in words, what is done now. `on_error`: "raise",
        where it ends as the loop would, or "skip", where what fails is left out in all of them and said. `setup`: as in a
        run. Results are
        checked to be identical first; a technique whose results differ is shown as differing, not timed. Returns a
        Comparison.
        """
        from taktline._compare.comparing import compare

        check_taken("flow.compare()", options, tuple(CompareOptions.__annotations__))
        return compare(self, records, **options)

    def check(self, source: Iterable[In], **options: Unpack[CheckOptions]) -> taktline.Check:
        """Tell before a long run what would go wrong: on the first records, each step twice, in batches, in workers.

        `limit`: records to take, 1,000 by default. `record`: only the one with this index. Finds steps, records and
        results that cannot be carried over, lines that are no records, records that fail, hang or kill a worker, answers
        that differ from one time to the next, in a batch, or in a worker, and says what to do. `on_error`, `dead_letters`
        and `setup` are those of the run that is to be: what it goes on after is advice. `on`: the steps are tried there.
        `progress`: as of `compare`. Steps that get tables in a run get the first rows as one here. Returns a Check.

        >>> from taktline import batch, line
        >>> centred = batch(lambda numbers: [n - sum(numbers) / len(numbers) for n in numbers], name="centred")
        >>> print(line(centred).check([1, 2, 3]).findings[0].says)
        in a batch of many it gives -1.0, a batch of one gives 0.0
        """
        from taktline._check import check

        check_taken("flow.check()", options, tuple(CheckOptions.__annotations__))
        return check(self, source, **options)


def _check_python_goes_on() -> None:
    """Raises LineError while Python ends: it can import no module then, and start no thread and no process."""
    if sys.is_finalizing():
        raise LineError(
            "Python ends, so no run can begin any more, as in a __del__: close in a with block, or by atexit"
        )


@overload
def line(a: Step[A, B], /, *, name: str | None = None) -> Line[A, B]: ...
@overload
def line(a: AnyKind, /, *, name: str | None = None) -> Line[Any, Any]: ...
@overload
def line(a: AnyKind, b: W[B, C], /, *, name: str | None = None) -> Line[Any, C]: ...
@overload
def line(a: AnyKind, b: S[B, C], c: W[C, D], /, *, name: str | None = None) -> Line[Any, D]: ...
@overload
def line(a: AnyKind, b: S[B, C], /, *, name: str | None = None) -> Line[Any, C]: ...
@overload
def line(a: AnyKind, b: S[B, C], c: S[C, D], /, *, name: str | None = None) -> Line[Any, D]: ...
@overload
def line(a: Callable[[A], Coroutine[Any, Any, B]], /, *, name: str | None = None) -> Line[A, B]: ...
@overload
def line(a: S[A, B], b: W[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: W[C, D], /, *, name: str | None = None) -> Line[A, D]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], d: W[D, E], /, *, name: str | None = None) -> Line[A, E]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], e: W[E, F], /, *, name: str | None = None) -> Line[A, F]: ...
@overload
def line(a: S[A, B], /, *, name: str | None = None) -> Line[A, B]: ...
@overload
def line(a: S[A, B], b: S[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: S[A, B], b: AnyKind, /, *, name: str | None = None) -> Line[A, Any]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], /, *, name: str | None = None) -> Line[A, D]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: AnyKind, /, *, name: str | None = None) -> Line[A, Any]: ...
@overload
def line(a: S[A, B], b: AnyKind, c: S[C, D], /, *, name: str | None = None) -> Line[A, D]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], /, *, name: str | None = None) -> Line[A, E]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], e: S[E, F], /, *, name: str | None = None) -> Line[A, F]: ...
@overload
def line(a: S[A, B], b: S[B, C], c: S[C, D], d: AnyKind, /, *, name: str | None = None) -> Line[A, Any]: ...
@overload
def line(
    a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], e: S[E, F], f: S[F, G], /, *, name: str | None = None
) -> Line[A, G]: ...
@overload
def line(
    a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], e: S[E, F], f: S[F, G], g: S[G, H], /, *, name: str | None = None
) -> Line[A, H]: ...
@overload
def line(
    a: S[A, B], b: S[B, C], c: S[C, D], d: S[D, E], e: S[E, F], f: S[F, G], g: S[G, H], h: S[H, I], /, *,
    name: str | None = None,
) -> Line[A, I]: ...  # fmt: skip
@overload
def line(a: X[A, B], /, *, name: str | None = None) -> Line[A, B]: ...
@overload
def line(a: X[A, B], b: X[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: X[A, B], b: X[B, C], c: X[C, D], /, *, name: str | None = None) -> Line[A, D]: ...
@overload
def line(a: X[A, B], b: X[B, C], c: X[C, D], d: X[D, E], /, *, name: str | None = None) -> Line[A, E]: ...
@overload
def line(a: X[A, B], b: X[B, C], c: X[C, D], d: X[D, E], e: X[E, F], /, *, name: str | None = None) -> Line[A, F]: ...
@overload
def line(
    a: X[A, B], b: X[B, C], c: X[C, D], d: X[D, E], e: X[E, F], f: X[F, G], /, *, name: str | None = None
) -> Line[A, G]: ...
@overload
def line(
    a: X[A, B], b: X[B, C], c: X[C, D], d: X[D, E], e: X[E, F], f: X[F, G], g: X[G, H], /, *, name: str | None = None
) -> Line[A, H]: ...
@overload
def line(
    a: X[A, B], b: X[B, C], c: X[C, D], d: X[D, E], e: X[E, F], f: X[F, G], g: X[G, H], h: X[H, I], /, *,
    name: str | None = None,
) -> Line[A, I]: ...  # fmt: skip
@overload
def line(a: Line[A, B], b: Line[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: Line[A, B], b: S[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: S[A, B], b: Line[B, C], /, *, name: str | None = None) -> Line[A, C]: ...
@overload
def line(a: Line, /, *more: Any1, name: str | None = None) -> Line: ...
@overload
def line(a: Any1, b: Line, /, *more: Any1, name: str | None = None) -> Line: ...
@overload
def line(a: Any1, b: Any1, c: Line, /, *more: Any1, name: str | None = None) -> Line: ...
@overload
def line(a: Any1, b: Any1, c: Any1, d: Line, /, *more: Any1, name: str | None = None) -> Line: ...
@overload
def line(a: Any1, b: Any1, c: Any1, d: Any1, e: Line, /, *more: Any1, name: str | None = None) -> Line: ...
@overload
def line(
    a: Any1, b: Any1, c: Any1, d: Any1, e: Any1, f: Any1, g: Any1, h: Any1, i: Any1, /,
    *more: Any1, name: str | None = None,
) -> Line: ...  # fmt: skip
def line(*steps: StepLike | Line, name: str | None = None, **other: Any) -> Line:
    """A line of these steps: plain functions of one record, steps made by the builders, or other lines.

    Raises LineError where there is no step or one that is not callable.

    >>> line(str.strip, line(int, abs))
    line(strip, int, abs)
    """
    if not steps:
        raise LineError("a line needs at least one step")
    check_taken("line()", other, ("name",))
    check_name("line", name)
    return Line(flatten(steps), name)


named(globals())
