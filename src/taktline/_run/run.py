"""Run: the results of one line over one source, as an iterator and a context manager, with its report."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from taktline._excerpts import masked, readable
from taktline._observe.snapshot import Report, Snapshot
from taktline._public import named
from taktline._recipe import plan as plans
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.steps import Role, Step
from taktline._run.draining import Draining
from taktline._run.ends import check_apart, check_sink, refuse_unbegun
from taktline._run.engine import Engine
from taktline._run.in_memory import Tables
from taktline._run.loop import Loop
from taktline._run.meter import Meter
from taktline._run.output import OutputBatch
from taktline._run.places import Places
from taktline._run.reader import Reader, as_source
from taktline._schedule.bounds import worth_splitting
from taktline._segment.values import Encode
from taktline._signals import pass_on
from taktline._types import Out
from taktline._urls import is_url, shown
from taktline.abc import Live, Resumable, Sink, Source
from taktline.errors import LineError, SinkError

if TYPE_CHECKING:
    from taktline._crew.contract import Crew
    from taktline._run.checkpointer import Checkpointer
    from taktline._run.hub import Hub

WRITE = 512  # results that a writer of files gets at once


class _Life:
    """What a run's generator needs. It does not know the Run: so a loop that is left drops the generator at once,
    and with it the workers, without waiting for the garbage collector to find a cycle."""

    def __init__(self, steps: tuple[Step, ...], name: str, source: Iterable[Any], options: Options) -> None:
        self.steps = steps
        self.source = source
        self.sink: Sink | None = None  # where the results go, as far as the checkpointer must know
        self.options = options
        self.plan = plans.technique(options.how, steps, options.cores, options.batch_size)
        block = plans.block_of_lists(steps) if options.seed is not None else 1
        tables = plans.takes_tables(steps) and options.seed is None and isinstance(source, Source) and source.columns
        with_key = plans.keyed(steps)
        reader: Callable[..., Reader] = Reader
        if with_key is not None:
            from taktline._run.keyed import KeyedReader

            most = memory_bytes(options.memory) // 2
            reader = partial(KeyedReader, step=with_key, size=most, window=options.window)
        apart = worth_splitting(self.plan, options.window) and block == 1 and with_key is None
        self.reader = reader(
            source, split=tables or apart, tables=tables, exact=options.batch_size is not None, goes_on=options.goes_on,
            block=block,
        )  # fmt: skip
        self.meter = Meter(name, self.plan, options, self.reader.total)
        self.meter.source = _described(source)
        self.meter.line_of_steps = steps
        if isinstance(source, Source):
            self.meter.places = Places(source.places)
        if isinstance(source, Live):
            self.meter.live, self.meter.of_live = source, True
        self.checkpointer: Checkpointer | None = None
        if options.journal is not None or options.dead_letters is not None or isinstance(source, Live):
            from taktline._run.checkpointer import Checkpointer  # with what writes files: some 8 ms

            self.checkpointer = Checkpointer(steps, source, options, self.reader, self.meter)
        self.beside = _not_beside(
            source, options
        )  # why nothing can be forked beside the run's ends; empty where it can
        self.draining: Draining | None = None
        self.drained = False  # by `drain`, so that nobody's own code takes the results one by one
        self.encode: Encode | None = None
        self.in_records = False  # the results are taken as records, never as rows of a table
        self.engine: Engine | None = None
        self.crew: Crew | None = None
        self._process = os.getpid()
        if self.plan.workers and (options.how != "auto" or options.on is not None):
            self.engine = self._hub()  # refuses steps that cannot be carried over, before anything starts

    def begin(self) -> tuple[Iterator[Any], Iterator[Any]]:
        """The results one by one, and the generator behind them."""
        self.in_records = True
        if self.checkpointer is not None:
            results = self.checkpointer.each(self.outputs())
            if self.draining is not None:
                results = self._until_safe(results)
            return results, results
        return self._engine().results(self.end)

    def _until_safe(self, results: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from results
        finally:
            self.release()

    def release(self) -> None:
        """All is safe, or given up: SIGTERM is no concern of this run any more. May be called again."""
        if self.draining is not None:
            self.draining.end()

    def open(self, sink: Sink | None) -> Checkpointer | None:
        """Take the files that must survive this process, and find where an earlier one stopped."""
        if self.checkpointer is not None:
            try:
                if isinstance(self.source, Live) and self.draining is None:
                    self.draining = Draining(self.reader, self.source.drain)
                self.checkpointer.open(sink)
            except BaseException:
                self.end(False)
                self.checkpointer.close()
                self.release()
                raise
        return self.checkpointer

    def outputs(self) -> Iterator[OutputBatch]:
        """The results, an output batch at a time, for the Checkpointer."""
        kept = self.open(self.sink)
        if kept is not None and kept.over:
            self.end(True)
            return iter(())
        return self._engine().outputs(self.end)

    def end(self, complete: bool) -> None:
        """On every way out; after the first time nothing is left to do."""
        try:
            self._end(complete)
        except BaseException:  # a signal's handler may raise at any line: what is still open is closed all the same
            self._close()
            raise

    def _end(self, complete: bool) -> None:
        if os.getpid() == self._process:
            self.source = ()
            self.meter.broken_off(None, self.reader.broken_off)
            self.reader.broken_off = 0.0
            self.meter.end(complete=complete and not self.reader.stopped)
        self._close()

    def __del__(self) -> None:
        """Where a signal's handler has raised on the way to `end`."""
        if getattr(self, "engine", None) is not None:
            self.end(False)
        if getattr(self, "draining", None) is not None:
            self.release()

    def _close(self) -> None:
        if os.getpid() != self._process:
            self.engine = None
            return  # a fork of the caller's process: nothing in the run is its own to end
        if self.engine is not None:
            self.engine.close()
            self.engine = self.crew = None
        self.meter.hide()
        self.meter.places = self.meter.live = None
        self.reader.close()

    def _engine(self) -> Engine:
        meter, options = self.meter, self.options
        automatic = options.how == "auto" and options.on is None and self.plan.workers > 0
        if meter.shows and meter.total is None and isinstance(self.source, Source):
            meter.about = self.source.about()
        meter.begin()
        if automatic and (reason := self._not_here()):
            meter.reasons[:] = [f"move to workers: {reason}"]
            self.engine = self._hub()
        if self.engine is None:
            meter.use(plans.here(self.steps))
            hub = self._hub if automatic else None
            self.engine = Loop(
                self.steps, self.options, self.reader, meter, hub, plan=self.plan,
                by_outputs=self.checkpointer is not None or self.encode is not None, encoded=self.encode is not None,
                beside=self.beside,
            )  # fmt: skip
            self.engine.states = self.checkpointer.states if self.checkpointer is not None else None
        self.engine.in_records = self.in_records
        return self.engine

    def _not_here(self) -> str:
        """Why no record may be tried out in this process; empty where it may."""
        if self.options.start == "auto" and not hasattr(os, "fork"):
            return ""  # there are no workers
        if (self.options.goes_on or self.options.journal is not None) and self.options.start != "threads":
            return "a record that kills its process must not end this run, so none is tried out here"
        for step in self.steps:
            if step.in_caller:
                continue
            if step.timeout is not None:
                return f"only there can a record of step {step.name!r} be ended that takes too long"
            if step.waits:
                return f"step {step.name!r} waits, and has up to {step.tasks} records at once there"
            if step.maker is not None and step.workers is not None:
                return f"no copy of step {step.name!r} beside theirs is built here"
        return ""

    def _hub(self, crew: Crew | None = None) -> Hub:
        """The hub, with a crew that is there already or one as the options say."""
        from taktline._run.crews import crew_for  # with what starts workers: some 15 ms, for nothing in the loop
        from taktline._run.hub import Hub

        self.crew = crew or crew_for(self.plan, self.options, self.meter, self.beside)
        hub = Hub(self.plan, self.options, self.reader, self.meter, self.crew)
        hub.encode, hub.in_records = self.encode, self.in_records
        if self.checkpointer is not None:
            hub.states = self.checkpointer.states
            hub.elsewhere = self.checkpointer.elsewhere if self.encode is None else None
        return hub

    def goes_to(self, sink: object) -> None:
        """The results go there. Raises LineError where a fork was asked for and is not possible beside it, or where
        workers must be launched for it and a step cannot be carried over."""
        if not self.beside and (why := _not_beside(sink)):
            self.beside = why
            if self.options.start == "auto" and self.crew is not None:
                self.crew.launch_because(why)
        _check_forks(self.beside, self.options)
        if isinstance(sink, Sink):
            self.reader.beside(sink, journal=self.options.journal is not None)

    def encode_for(self, sink: Sink) -> bool:
        """Have workers make the sink's bytes, where there are workers and it has a use for them: the results are to be
        taken by output batches then."""
        if not self.plan.workers or (self.checkpointer is not None and self.checkpointer.resumes_midway):
            return False
        if sink.encoder is not None or (sink.table_encoder is not None and self.reader.tables):
            elsewhere = self.options.on is not None
            self.encode = Encode(*(sink.encoders_elsewhere() if elsewhere else (sink.encoder, sink.table_encoder)))
        if self.engine is not None:
            self.engine.encode = self.encode
        return self.encode is not None


class Run(Generic[Out]):
    """The results of a line over a source, in order. Lazy: nothing is read before the first result is asked for.

    Iterate over it once. Leave early by `break`, `close()` or a `with` block; workers end with it.
    """

    def __init__(self, steps: tuple[Step, ...], name: str, source: Iterable[Any], options: Options) -> None:
        source = as_source(source)
        plans.check_seed(steps, options, live=isinstance(source, Live))
        plans.check_start(steps, options)
        plans.check_keys(steps, options)
        _check_forks(_not_beside(source, options), options)
        check_apart(source, others=_files(options))
        self._life = _Life(steps, name, source, options)
        self._results: Iterator[Any] | None = None
        self._generator: Any = None
        self._thread: int | None = None  # that iterates over it

    def __iter__(self) -> Iterator[Out]:
        self._check_thread()
        if self._results is None:
            if not self._life.drained:
                self._life.meter.iterated()
            try:
                self._results, self._generator = self._life.begin()
            except BaseException:
                self._life.end(False)
                raise
        return self._results

    def _check_thread(self) -> None:
        here = get_ident()
        if self._thread != here and self._thread in sys._current_frames():
            raise LineError(
                "another thread iterates over this run already, and gets all of its results. Hand them on from there, such "
                "as through a queue.Queue, or give each thread a run of its own"
            )
        self._thread = here

    def __next__(self) -> Out:
        return next(iter(self))

    def __enter__(self) -> Run[Out]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def to_list(self) -> list[Any]:
        """All results in a list.

        >>> from taktline import line
        >>> line(abs)([-1, 2]).to_list()
        [1, 2]
        """
        return list(self)

    def to_pandas(self) -> Any:
        """All results as a DataFrame of pandas, a row each; plain values as a Series. Of a DataFrame as the source, with as
        many results as rows, it has that one's index.

        >>> from taktline import line
        >>> line(lambda row: {**row, "half": row["n"] / 2})([{"n": 1}, {"n": 2}]).to_pandas()
           n  half
        0  1   0.5
        1  2   1.0

        Raises LineError where the results cannot stand in one table exactly: rows with other columns, values of several
        types in one column.
        """
        source = self._life.source if isinstance(self._life.source, Tables) else None
        frame = self._as_table("pandas")
        if source is not None and source.frame is not None and self._keeps_number and len(source.frame) == len(frame):
            frame.index = source.frame.index
        return frame

    @property
    def _keeps_number(self) -> bool:
        return all(step.keeps_number for step in self._life.steps)

    def to_polars(self) -> Any:
        """All results as a DataFrame of Polars; plain values as a Series. Raises LineError as `to_pandas`."""
        return self._as_table("polars")

    def to_arrow(self) -> Any:
        """All results as a Table of pyarrow; plain values as an Array. Raises LineError as `to_pandas`."""
        return self._as_table("arrow")

    def tables(self, form: str = "arrow") -> Iterator[Any]:
        """The results as tables of "arrow", "pandas" or "polars", in order, each of some rows: as many as came together.

        >>> from taktline import line
        >>> sum(table.num_rows for table in line(lambda n: {"n": n})(range(3)).tables("arrow"))
        3
        """
        from taktline._run.as_tables import check_form, each

        check_form(form)
        return each(outputs_of(self), form)

    def _as_table(self, form: str) -> Any:
        from taktline._run.as_tables import check_form, whole

        check_form(form)
        life, keeps = self._life, self._keeps_number
        source = life.source if keeps and isinstance(life.source, Tables) else None
        with self:
            return whole(outputs_of(self), form, source, life.meter.total if keeps else None)

    def __repr__(self) -> str:
        meter = self._life.meter
        state = "has not begun" if self._results is None else f"{meter.records_in:,} in, {meter.records_out:,} out"
        return readable(f"<Run {meter.name!r}: {state}>")

    def __len__(self) -> int:
        """How many results it gives in all, where that is known before: so `tqdm(flow(records))` has a total.

        Raises TypeError where the source has no length, steps leave out or add results, or failed records are left out.
        """
        life = self._life
        if life.options.journal is not None:
            raise TypeError("this run has no length: its journal tells how much is left, once it has begun")
        for step in life.steps:
            if step.role in (Role.KEEP, Role.EXPAND):
                raise TypeError(
                    f"this run has no length: step {step.name!r} may give more or fewer results than records"
                )
        if life.options.goes_on and life.options.on_error != "keep":
            raise TypeError("this run has no length: records that fail are left out")
        if (total := life.meter.total) is None:
            raise TypeError("this run has no length: its source does not tell how many records there are")
        return total

    def __bool__(self) -> bool:
        return True

    @property
    def report(self) -> Report:
        """What the run did: so far, or, once it has ended, in all."""
        return self._life.meter.report()

    @property
    def missed(self) -> tuple[str, ...]:
        """What workers do not have as it is in this process, so far: it cannot be carried over to them."""
        return tuple(self._life.meter.missed)

    def snapshot(self) -> Snapshot:
        """How far the run is."""
        return self._life.meter.snapshot()

    @property
    def delivered(self) -> int:
        """With a journal: how many results the caller has had, this process's and earlier ones'. Before the first
        result it says where an earlier process stopped, so that the caller can cut back what it wrote itself.

        One is delivered when the next one is asked for. Raises LineError or ResumeError where the journal cannot be used.
        """
        kept = self._life.checkpointer
        if kept is None:
            return self._life.meter.records_out
        if self._results is None:
            self._life.open(None)
        return kept.delivered

    def stop(self) -> None:
        """Read no more records, deliver those that are in flight, and end: `report.complete` is False then.

        Returns at once. May be called at any moment, from a signal's handler or another thread.
        """
        self._life.reader.stop()

    def close(self) -> None:
        """End the run and its workers. May be called again, before the first result, and from another thread: one that
        waits for a result of this run then gets a LineError.
        """
        try:
            self._close()
        except BaseException:  # as above
            self._close()
            raise

    def _close(self) -> None:
        self._results = iter(())
        if getattr(self._generator, "gi_running", False):  # in another thread, or below us: whoever runs it cleans up
            leave(self)
            return
        if self._generator is not None:
            self._generator.close()
        self._life.end(False)
        if self._life.checkpointer is not None:
            self._life.checkpointer.close()
        self._life.release()

    def drain(self, sink: Sink | Callable[[Out], object] | None = None) -> Report:
        """All results into `sink`, as `Line.run` does; the report. A run that is stopped finishes nothing: a file does
        not appear under its name, and with a journal its part stays for the run that goes on.
        """
        check_sink(sink)
        self._life.goes_to(sink)
        self._life.drained = True
        self._life.meter.sink = _described(sink)
        _check_shows(sink, self._life.source)
        _check_takes(sink, self._life.options)
        check_apart(self._life.source, sink, _files(self._life.options))
        with self:
            try:
                self._into(sink)
                if isinstance(sink, Sink):
                    self._life.meter.reasons += sink.notes()
            except BaseException as error:
                self._life.meter.complete = False  # all may have been read by then, and not be in the sink
                self._life.meter.ends_with(error)
                raise
        return self.report

    def _into(self, sink: Sink | Callable[[Any], Any] | None) -> None:
        if sink is None:
            deque(self, maxlen=0)
        elif isinstance(sink, Sink):
            self._write(sink)
        else:
            for at, result in enumerate(self):
                try:
                    if (returned := sink(result)) is not None:
                        refuse_unbegun(returned)
                except Exception as error:
                    raise _sink_failed(error, at) from error

    def _write(self, sink: Sink) -> None:
        life = self._life
        life.sink = sink
        kept = life.open(sink)
        if kept is not None and kept.by_mark:
            self._results = iter(())
            life.encode_for(sink)
            life.in_records = not sink.tables
            kept.write(life.outputs())
            return
        sink.open()
        try:
            if life.encode_for(sink) or (sink.tables and life.reader.tables):
                for output in outputs_of(self):
                    output.into(sink)
            else:
                for some in _some(iter(self)):
                    sink.write(some)
            if life.reader.stopped and not life.reader.live:
                sink.abort()
                return
            sink.commit()
        except BaseException:
            sink.abort()
            raise
        if kept is not None:
            kept.committed()


# What other rooms do with a run, and users do not.


def outputs_of(run: Run, *, in_records: bool = False) -> Iterator[OutputBatch]:
    """The results of a run as they are made, some at a time; in the place of iterating over it. `in_records`: never as
    rows of a table."""
    life = run._life
    life.in_records = in_records
    if life.options.journal is not None:  # each result counts by itself
        return (OutputBatch([result]) for result in run)
    run._results = iter(())
    run._generator = life.outputs() if life.checkpointer is None else life.checkpointer.outputs(life.outputs())
    return run._generator  # type: ignore[no-any-return]


def leave(run: Run) -> None:
    """From another thread than the run's own: give up what is under way. `close` must follow."""
    run._life.reader.leave()
    if (engine := run._life.engine) is not None:
        engine.break_off()


def _described(end: object) -> str:
    """A source or sink in words."""
    if isinstance(end, (Source, Sink)):
        return masked(end.describe())
    if end is None:
        return ""
    return str(getattr(end, "__qualname__", type(end).__name__))


def _files(options: Options) -> dict[str, Any]:
    return {"the dead letters": options.dead_letters, "the journal": options.journal, "the trace": options.trace}


def _some(results: Iterator[Any]) -> Iterator[list[Any]]:
    """The results, some at once. Those before an exception come before it: the sink may show them at once."""
    while True:
        some: list[Any] = []
        try:
            some.extend(islice(results, WRITE))  # keeps what came before an exception; list() would lose it
        except BaseException:
            yield some
            raise
        if not some:
            return
        yield some


def _not_beside(end: object, options: Options | None = None) -> str:
    """Why workers cannot be forked beside this source or sink, or the journal; empty where they can."""
    files = {"journal": options.journal, "dead letters": options.dead_letters} if options is not None else {}
    for what, path in files.items():
        if path is not None and is_url(os.fspath(path)):
            return f"what keeps the {what} at {shown(os.fspath(path))!r} has threads that no worker may inherit"
    if isinstance(end, (Source, Sink)) and not end.forks:
        return f"{end.describe()!r} has threads and connections that no worker may inherit"
    return ""


def _check_forks(why: str, options: Options) -> None:
    if why and options.start == "fork":
        raise LineError(f'{why}, so workers cannot be forked beside it; use start="launch"')


def _check_shows(sink: object, source: object) -> None:
    at_once = isinstance(sink, Resumable) and sink.visible
    if isinstance(source, Live) and isinstance(sink, Sink) and not at_once and not source.ends:
        raise LineError(
            f"{sink.describe()!r} shows its results when the run ends, so nothing of {source.describe()!r} would be safe "
            "before; let the source end by itself, such as with idle=, or use a sink that shows them at once"
        )


def _check_takes(sink: object, options: Options) -> None:
    if options.on_error == "keep" and isinstance(sink, Sink) and not sink.takes_failed:
        raise LineError(
            f'{sink.describe()!r} has no place for the records that fail, which on_error="keep" puts among the results. '
            'Write JSON lines, or keep them aside: dead_letters="failed.jsonl"'
        )


def _sink_failed(error: Exception, at: int) -> SinkError:
    pass_on(error)
    if isinstance(error, SinkError):
        return error
    return SinkError(
        f"the sink failed on result {at:,}: {type(error).__name__}: {error}. All results before it were taken.", at=at
    )


named(globals())
