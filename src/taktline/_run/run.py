"""Run: the results of one line over one source, as an iterator and a context manager, with its report."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Any

from taktline._observe.snapshot import Report, Snapshot
from taktline._recipe import plan as plans
from taktline._recipe.options import Options
from taktline._recipe.plan import Plan
from taktline._recipe.ports import Sink
from taktline._recipe.steps import Step
from taktline._run.hub import Hub
from taktline._run.inline import Inline
from taktline._run.meter import Meter
from taktline._run.reader import Reader, check_source
from taktline.errors import SinkError

WRITE = 512  # results that a writer of files gets at once


class _Life:
    """What a run's generator needs. It does not know the Run: so a loop that is left drops the generator at once,
    and with it the workers, without waiting for the garbage collector to find a cycle."""

    def __init__(self, steps: tuple[Step, ...], name: str, source: Iterable[Any], options: Options) -> None:
        self.steps = steps
        self.options = options
        self.reader = Reader(source)
        self.plan = _plan(steps, options)
        self.meter = Meter(name, self.plan, options, self.reader.total)
        self.engine: Inline | Hub | None = None
        self._process = os.getpid()
        if self.plan.workers and options.how != "auto":
            self.engine = self._hub()  # refuses steps that cannot be carried over, before anything starts

    def begin(self) -> tuple[Iterator[Any], Iterator[Any]]:
        """The results one by one, and the generator behind them."""
        meter, automatic = self.meter, self.options.how == "auto" and self.plan.workers > 0
        meter.begin()
        if automatic and self.options.goes_on:
            meter.reasons[:] = ["move to workers: a record that fails must not end the run, so none is tried out here"]
            self.engine = self._hub()
        if isinstance(self.engine, Hub):
            batches = self._from(self.engine)
            return chain.from_iterable(batches), batches
        meter.use(plans.here(self.steps))
        self.engine = Inline(self.steps, self.options, self.reader, meter, self._hub if automatic else None)
        return self.engine.results(self.end)

    def end(self, complete: bool) -> None:
        """Once, on every way out."""
        engine, self.engine = self.engine, None
        if os.getpid() != self._process:
            return  # a fork of the caller's process: nothing in the run is its own to end
        self.meter.end(complete=complete)
        if engine is not None:
            engine.close()

    def _from(self, hub: Hub) -> Iterator[list[Any]]:
        complete = False
        try:
            hub.start()
            yield from hub.deliveries()
            complete = True
        except MemoryError as error:
            if not hasattr(error, "__taktline__"):  # a step's own says where it happened
                error.add_note(
                    "memory ran out in the caller's process while records or results were on their way; "
                    "use fewer workers, a smaller batch_size=, or a smaller memory="
                )
            raise
        finally:
            self.end(complete)

    def _hub(self) -> Hub:
        return Hub(self.plan, self.options, self.reader, self.meter)


class Run:
    """The results of a line over a source, in order. Lazy: nothing is read before the first result is asked for.

    Iterate over it once. Leave early by `break`, `close()` or a `with` block; workers end with it.
    """

    def __init__(self, steps: tuple[Step, ...], name: str, source: Iterable[Any], options: Options) -> None:
        check_source(source)
        self._life = _Life(steps, name, source, options)
        self._results: Iterator[Any] | None = None
        self._generator: Any = None

    def __iter__(self) -> Iterator[Any]:
        if self._results is None:
            self._results, self._generator = self._life.begin()
        return self._results

    def __next__(self) -> Any:
        return next(iter(self))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def report(self) -> Report:
        """What the run did: so far, or, once it has ended, in all."""
        return self._life.meter.report()

    def snapshot(self) -> Snapshot:
        """How far the run is."""
        return self._life.meter.snapshot()

    def close(self) -> None:
        """End the run and its workers. May be called again, and before the first result."""
        self._results = iter(())
        if self._generator is not None:
            self._generator.close()
        self._life.end(False)


def drain(run: Run, sink: Sink | Callable[[Any], Any] | None) -> Report:
    """All results of the run into the sink; the report. A sink's own trouble is raised as SinkError."""
    with run:
        if sink is None:
            deque(run, maxlen=0)
        elif isinstance(sink, Sink):
            _write(run, sink)
        else:
            for at, result in enumerate(run):
                try:
                    sink(result)
                except Exception as error:
                    raise _sink_failed(error, at) from error
    return run.report


def _write(run: Run, sink: Sink) -> None:
    sink.open()
    try:
        results = iter(run)
        while lot := list(islice(results, WRITE)):
            sink.write(lot)
        sink.commit()
    except BaseException:
        sink.abort()
        raise


def _sink_failed(error: Exception, at: int) -> SinkError:
    if isinstance(error, SinkError):
        return error
    return SinkError(
        f"the sink failed on result {at:,}: {type(error).__name__}: {error}. All results before it were taken.", at=at
    )


def _plan(steps: tuple[Step, ...], options: Options) -> Plan:
    """The plan that an option asks for; for "auto", the one to move to when workers pay."""
    workers = options.cores
    if options.how == "loop" or all(step.in_caller for step in steps):
        return plans.here(steps)
    if options.how == "pool":
        return plans.pool(steps, workers)
    if options.how == "queues":
        return plans.queues(steps, workers)
    return plans.line(steps, workers, options.batch_size)


Run.__module__ = "taktline"
