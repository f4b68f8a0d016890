"""Line: the immutable, reusable sequence of steps that users hold."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from taktline._public import named
from taktline._recipe.options import check_planned, check_taken, checked
from taktline._recipe.steps import Step, StepLike, check_name, flatten
from taktline.abc import Sink
from taktline.errors import LineError

if TYPE_CHECKING:
    from taktline._check import Check
    from taktline._compare import Comparison
    from taktline._observe.snapshot import Report
    from taktline._planner.advise import Plan
    from taktline._run.run import Run


class Line:
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

    def __call__(self, source: Iterable[Any], **options: Any) -> Run:
        """The results of `source`, an iterable of records, in order: an iterator that starts with its first use.

        Options are those of docs/options.md; wrong ones raise LineError at once. While iterating, an exception
        of a step is raised as itself after all earlier results, with a note that names record and step.

        >>> from taktline import line
        >>> list(line(int, abs)(["-1", "2"]))
        [1, 2]
        """
        from taktline._run.run import Run

        return Run(self._steps, self.name, source, checked(options))

    def run(self, source: Iterable[Any], sink: Sink | Callable[[Any], Any] | None = None, **options: Any) -> Report:
        """Run `source` into `sink`: a callable of one result, a writer of `taktline.write`, or None to drop results.

        Returns the Report. Raises what iterating would raise, and SinkError where the sink fails.

        >>> from taktline import line
        >>> results = []
        >>> report = line(int).run(["1", "2"], results.append)
        >>> results, report.records_out
        ([1, 2], 2)
        """
        _check_sink(sink)
        run = self(source, **options)
        del source  # which the run lets go of when it has ended: a traceback must not keep it
        return run.drain(sink)

    def plan(
        self, source: Iterable[Any], sink: Sink | Callable[[Any], Any] | None = None, *, length: int | None = None,
        **options: Any,
    ) -> Plan:  # fmt: skip
        """Try the first records, then say what to do with this source, why, and how long it would take.

        Runs for a second or two and starts workers for it. The steps see copies of the first records, as in a run; the
        results are dropped, and steps with state or side effects have seen the records. An iterator is used up by as
        many; the plan says so. Records that fail, kill or hang, and lines that are no records, are passed over, counted in
        `failed` and `failures`, and no part of the times. `sink`: where the results would go; nothing is written there.
        `length`: how many records there are, where the source does not tell. Of the options of a run it takes those that
        change a plan: `how`, which is planned for then, `workers`, `batch_size`, `window`, `memory`, `on_error`,
        `dead_letters`, `start` and `setup`. `progress`: as for a run, or a callable that is told, in words, what is done now.
        Raises LineError for others and wrong ones, and what the source raises.

        >>> from taktline import line
        >>> print(line(abs).plan(range(-1000, 0)).how)
        loop
        """
        from taktline._run.trial import plan

        _check_sink(sink)
        if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 0):
            raise LineError(f"plan(length={length!r}): give the number of records, or leave it out")
        wanted = checked(options)
        check_planned(wanted)
        return plan(self._steps, self.name, source, sink, wanted, length)

    def stream(self, source: Iterable[Any] | AsyncIterable[Any], **options: Any) -> AsyncIterator[Any]:
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

    def compare(self, records: Iterable[Any], **options: Any) -> Comparison:
        """Run the four techniques in turn over the first records and set them side by side.

        `limit`: records to take, 20,000 by default. `rounds`: how often, 3 by default. `workers`: usable cores by
        default. `reference`: the standard library's own ways too. `predictions`: what the what-if says, beside what was
        measured. `progress`: as for a run, or a callable that is told, in words, what is done now. `on_error`: "raise",
        where it ends as the loop would, or "skip", where what fails is left out in all of them and said. `setup`: as in a
        run. Results are
        checked to be identical first; a technique whose results differ is shown as differing, not timed. Returns a
        Comparison.
        """
        from inspect import signature

        from taktline._compare import compare

        check_taken("flow.compare()", options, list(signature(compare).parameters)[2:])
        return compare(self, records, **options)

    def check(self, source: Iterable[Any], **options: Any) -> Check:
        """Tell before a long run what would go wrong: on the first records, each step twice, in batches, in workers.

        `limit`: records to take, 1,000 by default. `record`: only the one with this index. Finds steps, records and
        results that cannot be carried over, lines that are no records, records that fail, hang or kill a worker, answers
        that differ from one time to the next, in a batch, or in a worker, and says what to do. `on_error`, `dead_letters`
        and `setup` are those of the run that is to be: what it goes on after is advice. `progress`: as of `compare`. Returns
        a Check.

        >>> from taktline import batch, line
        >>> centred = batch(lambda numbers: [n - sum(numbers) / len(numbers) for n in numbers], name="centred")
        >>> print(line(centred).check([1, 2, 3]).findings[0].says)
        in a batch of many it gives -1.0, a batch of one gives 0.0
        """
        from inspect import signature

        from taktline._check import check

        check_taken("flow.check()", options, list(signature(check).parameters)[2:])
        return check(self, source, **options)


def _check_sink(sink: object) -> None:
    if sink is None or callable(sink) or isinstance(sink, Sink):
        return
    hint = ""
    if isinstance(sink, (str, bytes, os.PathLike)):
        hint = f"; did you mean taktline.write({os.fsdecode(sink)!r})?"
    elif isinstance(sink, (list, set)):
        hint = f"; did you mean its {'append' if isinstance(sink, list) else 'add'}, or list(flow(records))?"
    elif hasattr(sink, "write"):
        hint = "; did you mean taktline.write(stream, format), with a stream of bytes?"
    raise LineError(f"a sink must be a callable of one result or a writer, not {type(sink).__name__}{hint}")


def line(*steps: StepLike | Line, name: str | None = None) -> Line:
    """A line of these steps: plain functions of one record, steps made by the builders, or other lines.

    Raises LineError where there is no step or one that is not callable.

    >>> line(str.strip, line(int, abs))
    line(strip, int, abs)
    """
    if not steps:
        raise LineError("a line needs at least one step")
    check_name("line", name)
    return Line(flatten(steps), name)


named(globals())
