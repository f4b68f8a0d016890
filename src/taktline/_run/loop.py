"""A run in the caller's process: the user's loop with a `yield`, and the first records measured on the way.

Results are made one record at a time by code that is as fast as the loop itself (`_segment.compiled`, form "lazy"),
except where a failed record must not end the run or steps take batches: there in lots of some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, islice, pairwise
from time import perf_counter, perf_counter_ns, process_time
from typing import TYPE_CHECKING, Any

from taktline._crew.protocol import Orders
from taktline._observe import cores
from taktline._observe.counters import LaneCount
from taktline._planner import choose
from taktline._recipe import plan as plans
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.plan import RunPlan
from taktline._recipe.steps import Role, Step
from taktline._run.auto import Auto
from taktline._run.engine import Engine
from taktline._run.in_flight import InFlight
from taktline._run.meter import Meter, ran_here
from taktline._run.originals import Originals
from taktline._run.output import OutputBatch, as_records, settled
from taktline._run.reader import Reader
from taktline._run.returning import Returning
from taktline._run.watch import Watch
from taktline._schedule.sizing import Calls
from taktline._segment import keys, policies
from taktline._segment.batch import Batch, Failure
from taktline._segment.codegen import Compiled
from taktline._segment.segment import Segment, rest_of
from taktline._segment.single import of_one_record
from taktline._segment.tables import ArrowRows
from taktline._segment.values import records_of
from taktline._signals import pass_on
from taktline.errors import TaktlineError, as_step_error, placed

if TYPE_CHECKING:
    from taktline._crew.contract import Crew
    from taktline._run.hub import Hub
    from taktline._run.overlap import Overlap

LOT = 0.005  # seconds of reading and work between two looks around: a slow source is not read ahead
ENOUGH = 0.00025  # seconds of a lot of full calls: the results of further ones would be made in memory that is fresh
MOST = 4096  # records in a lot
# Slices of a table in memory that go through at once where it stays here: calls weigh little then, and what a step makes of
# them takes little memory (1 GB through two columns of arithmetic, seconds of the processor: 0.14 and 0.15; with 6 slices of
# 4 MB 0.17 and 0.19, with 24 0.14; the step alone 0.08).
SLICES = 16
SINGLY = 32  # records whose results are given one by one: nothing is known yet of how long the next one takes
LOOK = 0.05  # seconds of the lazy loop between two lots that are timed
READY = 0.05  # seconds between two looks at whether the run is to stop, where workers are waited for
LOOK_NS = 200_000  # nanoseconds of work in such a lot: enough to be timed

LIST_ITERATOR: type = type(iter(list[Any]()))
# What tells exactly how many records are left in it. Of any other kind it is a guess, or may change meanwhile.
EXACT = (LIST_ITERATOR, type(iter(())), type(iter(range(0))))

Phase = tuple[OutputBatch | Iterator[Any] | None, Iterator[Any] | None]


class Loop(Engine):
    """One run in this process. `hub`, where given, makes the Hub to go on with once the planner says that workers pay,
    by `plan`; of a crew that is there, where it is given one.
    `by_outputs`: it is for `outputs`, not for `results`. `encoded`: workers would make the bytes of results.
    `beside`: why nothing can be forked beside the run's source or sink."""

    def __init__(
        self, steps: tuple[Step, ...], options: Options, reader: Reader, meter: Meter,
        hub: Callable[[Crew | None], Hub] | None, *, plan: RunPlan | None = None, by_outputs: bool = False,
        encoded: bool = False, beside: str = "",
    ) -> None:  # fmt: skip
        self._one_by_one = options.how == "loop"
        apart = self._one_by_one and reader.block == 1  # with a seed batch steps get the lists that they always get
        self._steps = tuple(of_one_record(step) for step in steps) if apart else steps
        self._options = options
        self._reader = reader
        self._meter = meter
        self._make_hub = hub
        self._encoded = encoded
        self._may_be_lazy = not (by_outputs or options.goes_on or options.seed is not None) and all(
            step.role is not Role.BATCH for step in self._steps
        )
        self._in_batches = any(step.role is Role.BATCH for step in self._steps)
        with_key = plans.keyed(self._steps)
        self._by = with_key.by if with_key is not None else None
        self._hub: Hub | None = None
        self._plan = plan
        self._overlap: Overlap | None = None  # of two threads that were tried
        (seed,) = plans.here(self._steps).seeds(options.seed)
        self._segment = Segment(self._steps, goes_on=options.goes_on, seed=seed)
        self._segment.keeps_interrupt = True
        self._segment.most, self._segment.piece_seconds = memory_bytes(options.memory) // 2, LOT
        self._complete = self._built = False
        self._end: Callable[[bool], None]
        self._lane: LaneCount
        self._lazy: Compiled | None = None
        self._countable = False  # the source's iterator tells how many records it has given
        self._was_lazy = False
        self._lazily = 0  # records read by the lazy loop in stretches that are over
        self._grows: list[Any] | None = None  # the list that the source's iterator goes over
        self._given: int | None = None  # its position at the start of this stretch, in one where it tells that
        self._any = False  # the stretch has a record
        self._stretch_began = 0.0
        self._in_lazy = False  # it is not over
        self._untold: tuple[float, int, int] | None = None  # the stretch before: seconds, first record, records
        # Each record goes through, and its results are taken, before the next one is read: the source may wait for that.
        self._by_one = self._may_be_lazy and (
            self._one_by_one or not reader.runs_no_code or any(step.role is Role.EXPAND for step in self._steps)
        )
        self._watched = Compiled(self._steps, "watched") if self._by_one else None
        self._auto = Auto(
            self._steps,
            options,
            reader,
            meter,
            plan=plan if hub is not None else None,
            singly=self._by_one,
            encoded=encoded,
            beside=beside,
        )
        self._lot_size = 1
        self._most = min(MOST, options.window or MOST, options.batch_size or MOST)  # records in a lot
        self._whole = options.in_tables
        self._stays = False  # it was decided to go on here,
        self._slice = 0  # and so many rows of a table in memory are taken at once
        self._gave = 0.0  # the processor's time when the newest lot was given
        self._lot_seconds: float | None = None  # reading and work of the last lot
        self._units = plans.full_calls(self._steps)
        self._takes_all = plans.here(self._steps).segments[0].takes_all
        self._calls = Calls()  # of batch steps that ask for no size

    def results(self, end: Callable[[bool], None]) -> tuple[Iterator[Any], Iterator[Any]]:
        if not self._may_be_lazy:
            outputs = self.outputs(end)
            return chain.from_iterable(outputs), outputs
        self._begin(end)
        one_to_one = all(step.role is Role.MAP for step in self._steps)
        self._countable = one_to_one and type(self._reader.iterator()) in EXACT
        self._lazy = Compiled(self._steps, "lazy" if self._countable else "counted")
        results: Iterator[Any] = self._lazy.run(self._phases(), self._failed, self._counted, *self._segment.callables())
        return results, results

    def outputs(self, end: Callable[[bool], None]) -> Iterator[OutputBatch]:
        if self._may_be_lazy:
            return self._gathered(self.results(end)[1])
        self._begin(end)
        return self._outputs()

    def _gathered(self, results: Any) -> Iterator[OutputBatch]:
        """Results of the lazy loop, those of some milliseconds at once; of one record, where its source may wait for them."""
        size = 1
        with closing(results):
            while True:
                some: list[Any] = []
                began = perf_counter()
                try:
                    some.extend(islice(results, size))
                except BaseException:
                    if some:
                        yield OutputBatch(some)
                    raise
                if not some:
                    return
                seconds = perf_counter() - began
                yield OutputBatch(some)
                if not (self._one_by_one and self._by_one):
                    size = max(1, size // 2) if seconds > LOT else min(size * 2, MOST)

    def _begin(self, end: Callable[[bool], None]) -> None:
        self._end = end
        self._lane = self._meter.lanes[0]
        if not self._auto.begins_there:
            self._build()

    def _build(self) -> None:
        """Steps are to run here."""
        self._built = True
        if self._options.setup is not None:
            policies.set_up(self._options.setup)
        self._segment.make()
        if self.states is not None:
            self.states.built(self._segment)

    def _outputs(self) -> Iterator[OutputBatch]:
        try:
            try:
                for output, _ in self._phases():
                    assert isinstance(output, OutputBatch)
                    yield output
            finally:
                self._end(self._complete)
        except BaseException:  # a signal's handler may have kept this from being called, and again does no harm
            self._end(False)
            raise

    def break_off(self) -> None:
        if (hub := self._hub) is not None:
            hub.break_off()

    def close(self) -> None:
        try:
            self._segment.close()
        finally:
            self._end_threads()
            if self._hub is not None:
                self._hub.close()

    # --- the phases of a run ---

    def _phases(self) -> Iterator[Phase]:
        if not self._built:
            if self._goes(choose.Choice(True, True, self._auto.begins_there)) and self._hub is not None:
                yield from self._move(self._hub, at_once=True)
            else:
                self._build()
        while not self._reader.ended:
            known = self._auto.sampling.done
            if known and self._make_hub is not None and (sample := self._auto.tries_threads(self._lane)):
                yield from self._in_two_threads(sample)
            elif not (known and self._decided()):
                yield from self._some()
            elif self._hub is not None:
                yield from self._move(self._hub)
            else:
                yield from self._rest()
            if self._auto.is_open:
                self._auto.begin()
        if self._reader.error is not None:
            raise self._reader.error
        self._complete = True

    def _decided(self) -> bool:
        """Whether the planner has spoken its last word; always so where there is nothing to decide."""
        return self._make_hub is None or self._goes(self._auto.decide(self._lane))

    def _goes(self, choice: choose.Choice) -> bool:
        """Do what was chosen, if it can be done; whether that is the last word."""
        assert self._make_hub is not None
        if choice.move:
            try:
                if choice.threads and (overlap := self._overlap) is not None:
                    self._hub, self._overlap = self._make_hub(overlap.crew), None
                    for worker, figures in overlap.figures.items():  # it may give them nothing more
                        self._meter.lanes[0].note(worker, *figures)
                else:
                    self._end_threads()
                    self._hub = self._make_hub(None)
            # A step that cannot be carried over stays here, where it works; so does all where the hub cannot be loaded.
            except (TaktlineError, ImportError, OSError) as error:
                pass_on(error)
                choice = choose.Choice(False, True, f"stay with the loop: {error}")
        self._end_threads()
        self._auto.decided(choice)
        self._stays = choice.final and not choice.move
        return choice.move or choice.final

    def _in_two_threads(self, sample: choose.Sample) -> Iterator[Phase]:
        """The next records in two threads, to see how far these overlap."""
        from taktline._run.overlap import OVERLAP_THREADS, Overlap, records_for

        assert self._plan is not None
        overlap = self._overlap = Overlap(self._plan, self._options)
        while not overlap.ready() and not self._reader.ended:
            yield from self._some()
        most = min(MOST, (self._options.window or MOST) // OVERLAP_THREADS)
        size = min(max(self._lot_least(), records_for(sample)), most)
        while not overlap.done and not self._reader.ended:
            yield from self._at_once(overlap, size)
        self._auto.tried_threads(overlap.of(sample))

    def _end_threads(self) -> None:
        overlap, self._overlap = self._overlap, None
        if overlap is not None:
            for worker, figures in overlap.figures.items():  # the processor's time is this process's own
                self._lane.note(1 + worker, *figures._replace(cpu=0))
            overlap.crew.close(gently=True)

    def _at_once(self, overlap: Overlap, size: int) -> Iterator[Phase]:
        """Some records in each thread."""
        reader, meter = self._reader, self._meter
        read: list[InFlight] = []
        began = perf_counter()
        for _ in range(2):
            first = reader.index
            if records := reader.read_part(size, whole=self._whole) if reader.tables else reader.read(size):
                batch = Batch.read(records, reader.unread, first)
                read.append(InFlight(first, records, batch, goes_on=self._options.goes_on))
        count = sum(len(flight.records) for flight in read)
        meter.reading += perf_counter() - began
        meter.records_in += count
        meter.lots += len(read)
        orders = [Orders(first=flight.first, encode=self.encode if reader.tables else None) for flight in read]
        came = overlap.run([flight.batch for flight in read], count, orders)
        for flight, one in zip(read, came, strict=True):
            if one is None:  # which record cannot be read is found out here
                flight.read()
            batch = one or rest_of(self._segment.pieces(flight.batch, formed=reader.tables))
            yield self._to_deliver(batch, flight.first, flight.records, None, last=True), None
            if flight.error is not None and reader.error is None:
                reader.ended, reader.error = True, flight.error
                reader.index = meter.records_in = flight.first + len(flight.records)
            if batch.failures or reader.error is not None:
                return

    def _some(self, most: int | None = None) -> Iterator[Phase]:
        """The next records, timed."""
        size = self._next_lot() if most is None else most
        if self._by_one:
            yield self._singly(min(size, SINGLY)), None
        else:
            yield from self._lot(size)

    def _singly(self, most: int) -> Iterator[Any]:
        """Results of up to so many records, each read when all results of the one before it were taken. How long that
        takes, and where in the source's own code, is no concern of the steps: they are timed one by one."""
        assert self._watched is not None
        segment, count = self._segment, len(self._steps)
        ns, counts = [0] * count, [0] * count
        watch = Watch(self._meter, ns)
        try:
            yield from self._watched.run(
                watch.each(self._reader, most),
                ns,
                counts,
                perf_counter_ns,
                watch.gave,
                watch.took,
                *segment.callables(),
            )
        except BaseException as caught:
            error = self._watched.raised(caught)
            step = self._watched.culprit(error)[0]
            if step is None:
                raise
            self._meter.broken_off(step, watch.open)
            index, given = self._reader.index - 1, self._watched.given(error)
            raise self._of_step(error, step, index, watch.record, given)  # noqa: B904  its cause is its own
        finally:
            many = watch.share
            for n in range(count):
                behind = any(step.role is Role.EXPAND for step in self._steps[:n])
                counts[n] = round(counts[n] * many) if behind else counts[n]
                ns[n] = round(ns[n] * many)
                segment.note(n, counts[n], ns[n])
            ran_here(self._lane, segment, sum(ns))
            self._meter.ran(sum(ns) / 1e9, self._reader.index - watch.count, watch.count)
        self._reader.ended = self._reader.ended or watch.count < most
        self._learn(watch, max(0, sum(ns) - watch.clock_ns * sum(counts)) / 1e9)

    def _learn(self, watch: Watch, work: float) -> None:
        self._lot_seconds = watch.reading + work
        if not watch.waited:
            work = min(work, watch.cpu * watch.share)
        self._auto.sampling.learn(
            watch.records,
            watch.results,
            read=watch.reading,
            work=work,
            cpu=watch.cpu,
            count=watch.count,
            given=watch.given + watch.untimed,
        )
        self._auto.compare()

    def _lot(self, size: int) -> Iterator[Phase]:
        """Read some records, run them, and give their results."""
        reader = self._reader
        first, began = reader.index, perf_counter()
        if reader.tables:
            yield from self._table(first, began, size)
            return
        records = reader.read(size, LOT, here=True)
        as_read = Batch.read(records, reader.unread, first)
        yield from self._through(
            as_read, records, Originals(records) if self._options.shows_records else None, first, began
        )

    def _table(self, first: int, began: float, size: int) -> Iterator[Phase]:
        """Read what the source keeps together, as rows of a table, and run it; in the loop row by row."""
        reader, options = self._reader, self._options
        larger = self._stays and reader.in_memory and self._whole
        if larger:
            self._slice = size = self._slice or SLICES * self._auto.sampling.table
        part = reader.read_part(size, LOT, whole=self._whole and not larger)
        flight = InFlight(first, part, Batch.read(part, reader.unread, first), goes_on=options.goes_on)
        flight.read_table()
        batch = flight.batch
        if not self._one_by_one:
            rows = type(batch.values) is ArrowRows
            records = batch.values if rows else flight.records
            before = Originals(records) if options.shows_records and not rows else None
            yield from self._through(batch, records, before, first, began)
            if self._encoded and rows and self._make_hub is not None:
                self._auto.sampling.taken(process_time() - self._gave)
        elif self._by is not None:
            yield from self._key_by_key(flight, first, began)
        else:
            for at in range(len(flight.records)):
                one = batch.only(at)
                before = Originals(one.values) if options.shows_records and type(one.values) is list else None
                yield from self._through(
                    one, flight.records[at : at + 1] if one.failures else one.values, before, first + at, began
                )
                began = perf_counter()
                if reader.error is not None:
                    return
        if flight.error is not None and reader.error is None:
            reader.ended, reader.error = True, flight.error
            reader.index = self._meter.records_in = first + len(flight.records)

    def _key_by_key(self, flight: InFlight, first: int, began: float) -> Iterator[Phase]:
        """In the loop, where a step takes whole keys: each by itself."""
        rows = flight.batch.values
        if type(rows) is not ArrowRows:  # of one key already
            before = Originals(flight.records) if self._options.shows_records else None
            yield from self._through(flight.batch, flight.records, before, first, began)
            return
        assert self._by is not None
        for start, end in pairwise([*keys.starts(rows, self._by), len(rows)]):
            yield from self._through(
                Batch(rows[start:end], first=first + start), rows[start:end], None, first + start, began
            )
            began = perf_counter()
            if self._reader.error is not None:
                return

    def _through(
        self, as_read: Batch, records: Any, before: Originals | None, first: int, began: float
    ) -> Iterator[Phase]:
        """Run a batch and give its results: of what may be endless some at a time."""
        reader, meter, rows = self._reader, self._meter, as_read.values
        asked = self._make_hub is not None or not self._auto.sampling.done  # somebody asks what it costs
        read, cpu, pauses = perf_counter(), process_time() if asked else 0.0, cores.pauses() if asked else 0
        meter.reading += read - began
        meter.records_in += len(records)
        meter.lots += bool(len(records))
        meter.batch_size = len(records) or meter.batch_size
        given, batch, elsewhere = self._segment.pieces(as_read, formed=reader.tables), None, 0.0
        while batch is None:
            try:
                piece = next(given)
            except StopIteration as end:
                batch = end.value
                break
            except KeyboardInterrupt as error:  # out of a batch step: whose record it was is not known
                name = self._segment.name_at(None)
                self._meter.broken_off(self._segment.step_in(None), perf_counter() - read - elsewhere)
                where = f"step {name!r}" if name else "the steps"
                error.add_note(f"in {where}, at one of {len(records):,} records from {first:,} on")
                raise
            left, cpu_left = perf_counter(), process_time() if asked else 0.0
            yield self._to_deliver(piece, first, records, before), None
            elsewhere += perf_counter() - left
            cpu += process_time() - cpu_left if asked else 0.0
        if self.states is not None:
            self.states.passed(self._segment, first + len(records))
        worked = perf_counter() - elsewhere
        self._lot_seconds = worked - began
        work = worked - read
        if asked:
            cpu = process_time() - cpu
            work = min(work, cpu) if cores.pauses() == pauses else work
        if self._takes_all and len(records) and self._auto.sampling.records:  # the first record may have imported
            self._calls.learn(len(records), work)
        if asked and type(rows) is ArrowRows:
            moved = rows.size if reader.in_memory else 0
            self._auto.sampling.learn_table(
                len(rows), batch.size, given=moved, read=read - began, work=work, cpu=cpu
            )  # fmt: skip
        elif asked:
            results = records_of(batch.values) if reader.tables else batch.values
            self._auto.sampling.learn(records, results, read=read - began, work=work, cpu=cpu)
        ran_here(self._lane, self._segment, int((worked - read - self._broken_in(batch, worked - read)) * 1e9))
        meter.ran(worked - read, first, len(records))
        self._auto.compare()
        failures, interrupt = batch.failures, None
        if failures and isinstance(failures[-1].error, KeyboardInterrupt):
            interrupt = failures.pop()  # after the results that were there before it, as in the loop
        self._gave = process_time() if asked else 0.0
        yield self._to_deliver(batch, first, records, before, interrupt=interrupt, last=True), None

    def _broken_in(self, batch: Batch, seconds: float) -> float:
        """How long the step took that has ended the run in this batch, for the record that failed: what the others, which
        cost what those did that were timed, do not account for. The meter has counted it."""
        if not batch.failures or self._options.goes_on:
            return 0.0
        step = next((n for n, each in enumerate(self._steps) if each.name == batch.failures[-1].step), None)
        open_seconds = max(0.0, seconds - self._cost_ns * batch.failures[-1].origin / 1e9)
        if step is None:
            return 0.0
        self._meter.broken_off(step, open_seconds)
        return open_seconds

    def _to_deliver(
        self, batch: Batch, first: int, records: Any, before: Originals | None, *,
        interrupt: Failure | None = None, last: bool = False,
    ) -> OutputBatch:  # fmt: skip
        """What to deliver of these results; `last`: with them all has come of these records."""
        if self.in_records and type(batch.values) is ArrowRows:
            as_records(batch, self._steps[-1], goes_on=self._options.goes_on)
        as_read = before.records() if batch.failures and before is not None else records
        results, error = settled(batch, first, as_read, self._options, self._meter, self._by)
        if interrupt is not None and error is None:
            at = interrupt.origin
            error = placed(interrupt.error, index=first + at, step=interrupt.step, record=records[at])
            behind = len(batch.values) - batch.before(interrupt.origin)
            results.upto(interrupt.origin, len(results) - behind)  # not all of these records were run
        if not last:
            results.more_comes(batch.tail())
        if error is not None:
            self._reader.ended = True
            self._reader.error = error
        self._meter.delivered(len(results))
        return results

    def _next_lot(self) -> int:
        if self._one_by_one or not (self._reader.runs_no_code or self._reader.live or self._by_one or self._in_batches):
            return 1
        lot, most = max(self._lot_size, self._lot_least()), self._most
        if self._lot_seconds is None or (self._may_be_lazy and self._auto.sampling.records < SINGLY):
            return lot
        if self._lot_seconds < (ENOUGH if self._units > 1 else LOT / 2):
            lot = min(lot * 2, most)
        elif self._lot_seconds > LOT * 2:
            lot = max(1, lot // 2)
        self._lot_size = max(self._lot_least(), lot - lot % self._units if lot > self._units > 1 else lot)
        return self._lot_size

    def _lot_least(self) -> int:
        """Records with which the calls of batch steps are full, or take the smaller part of the time."""
        return min(max(self._units, self._calls.wanted), self._most)

    def _rest(self) -> Iterator[Phase]:
        """What is left, in this process: for good, or until the work costs something else than what was decided on."""
        if not self._may_be_lazy:
            while not self._reader.ended and not self._auto.is_open:
                yield from self._lot(self._next_lot())
            return
        records = self._reader.iterator()
        if self._countable and type(records) is LIST_ITERATOR:
            reduced: Any = records.__reduce__()
            self._grows = reduced[1][0]
        # Some milliseconds at once: between two such stretches it is seen that the run is to stop, or to be thought over.
        size, most, look_at = 1, min(MOST, self._options.window or MOST), perf_counter() + LOOK
        while not self._reader.ended and not self._auto.is_open:
            yield from self._stretch(records, size)
            began = self._stretch_began
            seconds = perf_counter() - began
            if began > look_at and self._make_hub is not None and not self._reader.ended:
                # Some records that are timed after many that are not: too few to slow down the run.
                yield from self._some(max(1, min(size, int(LOOK_NS / max(1.0, self._auto.sampling.work_ns)))))
                look_at = perf_counter() + LOOK
            size = max(1, size // 2) if seconds > LOT else min(size * 2, most)

    def _stretch(self, records: Iterator[Any], size: int) -> Iterator[Phase]:
        """Some records through the lazy loop."""
        self._was_lazy = True
        self._stretch_began, self._in_lazy = perf_counter(), True
        self._given, self._any = self._position() if self._countable else None, False
        yield None, self._one_of(records)
        if self._any:
            yield None, islice(records, size)  # it reads nothing ahead, and takes 2 ns a record
        self._stretch_ended(size + 1 if self._any else 0)
        self._meter.tick()

    def _one_of(self, records: Iterator[Any]) -> Iterator[Any]:
        """The next record, and a note that there was one: the source's end is seen in the lazy loop, as its errors are."""
        try:
            for record in records:
                self._any = True
                yield record
                return
        finally:
            records = iter(())  # the source, which a traceback must not keep

    def _position(self) -> int:
        """How many records the source's iterator has given, from wherever it is counted: its list may grow meanwhile."""
        records: Any = self._reader.iterator()
        return len(self._grows or ()) - int(records.__length_hint__())

    def _stretch_ended(self, most: int) -> None:
        """The lazy loop has taken so many records, or all there were."""
        self._in_lazy = False
        read = most if self._given is None else self._position() - self._given
        self._reader.ended = self._reader.ended or not most
        self._lazily += read
        self._reader.index += read
        self._given = None
        self._add_up(read)

    def _move(self, hub: Hub, *, at_once: bool = False) -> Iterator[Phase]:
        """Go on here until the workers are ready, or `at_once`: wait for them. Then leave the rest to them, or come back when
        that pays."""
        self._meter.moved("workers", self._meter.reasons[-1])
        hub.start({step.name: made for step, made in self._segment.stateful()})
        size = 1
        while at_once and not hub.ready(READY) and not self._reader.ended:
            pass
        while not hub.ready() and not self._reader.ended:
            if not self._by_one:
                yield from self._lot(self._next_lot())
                continue
            yield from self._stretch(self._reader.iterator(), size)
            size = size * 2 if perf_counter() - self._stretch_began < LOT else max(1, size // 2)
        if (why := hub.without_workers) is not None:
            self._make_hub, self._auto.moves = None, False
            self._return(hub, f"stay with the loop after all: {why}")
            return
        if self._reader.ended:
            return
        hub.takes_back = True
        returning = Returning(decoding=self._reader.splits or self._encoded)
        for results in hub.deliveries():
            yield results, None
            if returning.pays(self._meter):
                hub.leave()
        if (left := hub.unsent) is not None:
            self._return(hub, f"back to the loop at record {left.first:,}: {hub.why_unsent}")
            before = Originals(left.records) if self._options.shows_records else None
            yield from self._through(left.batch, left.records, before, left.first, perf_counter())
        elif not self._reader.ended:
            self._return(hub, f"back to the loop at record {self._reader.index:,}: {returning.reason}")

    def _return(self, hub: Hub, reason: str) -> None:
        """The workers have ended: on with the loop."""
        hub.close()
        if not self._built:
            self._build()
        self._hub = None
        self._meter.use(plans.here(self._steps))
        self._auto.came_back(reason)
        self._meter.moved("loop", reason)
        self._lane = self._meter.lanes[0]
        self._segment.count_anew()
        self._lot_size, self._lot_seconds = 1, None

    # --- counting and failing ---

    def _counted(self, read: int, given: int) -> None:
        """The lazy phases have ended."""
        try:
            if self._was_lazy:
                self._add_up(self._in_stretch(read))
                self._tell_of_stretch(0)
                if not self._countable:
                    self._meter.records_out += given
        finally:
            self._grows = None
            self._end(self._complete)

    def _broken_off(self, error: BaseException, step: int | None, read: int) -> None:
        """An exception has ended the stretch: what its records do not account for was spent where that came from."""
        if self._in_lazy and not isinstance(error, GeneratorExit):
            seconds = perf_counter() - self._stretch_began - self._cost_ns * max(0, read) / 1e9
            self._meter.broken_off(step, max(0.0, seconds))

    @property
    def _cost_ns(self) -> float:
        """Nanoseconds that a record takes, as those did that were timed."""
        segment = self._segment
        return sum(ns / max(1, timed) for ns, timed in zip(segment.timed_ns, segment.timed_records, strict=True))

    def _add_up(self, read: int) -> None:
        """So many records went through the lazy loop, at the cost of those that were timed."""
        meter, segment = self._meter, self._segment
        meter.records_in += read
        if self._countable:
            meter.records_out += read
        segment.records = [given + read for given in segment.records]
        # Few were timed, and the first ones, which are slow: all of them took no longer than the stretch did.
        ns = int(min(self._cost_ns * read, (perf_counter() - self._stretch_began) * 1e9))
        ran_here(self._lane, segment, ns)
        if read:
            self._tell_of_stretch(min(0, read))
        if read > 0:
            self._untold = ns / 1e9, self._reader.index - read, read

    def _tell_of_stretch(self, fewer: int) -> None:
        """The meter hears of the stretch before, once it is known that it had `fewer` records than was thought."""
        if self._untold is not None:
            seconds, first, records = self._untold
            self._untold = None
            self._meter.ran(seconds, first, records + fewer)

    def _in_stretch(self, read: int) -> int:
        """Records read in the stretch that is not over; `read`: in all of them, where they are counted. Negative where
        the last stretch was thought to be full and the source had fewer."""
        if not self._countable:
            return read - self._lazily
        return 0 if self._given is None else self._position() - self._given

    def _failed(self, error: BaseException, read: int, record: Any) -> None:
        """An exception came out of the lazy loop: of a step, of the source, or of who closed the loop."""
        assert self._lazy is not None
        error = self._lazy.raised(error)
        step = self._lazy.culprit(error)[0]
        index = self._reader.index + self._in_stretch(read) - 1
        self._broken_off(error, step, self._in_stretch(read))
        if step is not None:
            self._meter.records_out -= self._countable  # it was read, and is counted by that
            raise self._of_step(error, step, index, record, self._lazy.given(error))
        if not isinstance(error, Exception) and (error.__traceback__ is None or error.__traceback__.tb_next is None):
            raise error  # whoever closed the loop, or Ctrl-C in it
        raise self._reader.explained(error, index + 1)

    def _of_step(self, error: BaseException, step: int, index: int, record: Any, given: str) -> BaseException:
        """What to raise where a step raised `error`; `given`: an excerpt of what it was given."""
        assert self._lazy is not None
        if policies.interrupts(error, self._lazy.culprit(error)[1]):
            return error
        name = self._steps[step].name
        if not isinstance(error, KeyboardInterrupt):  # which is itself in the caller's process, whoever has raised it
            self._meter.fail(index, name, error, record)
            error = as_step_error(error, name)
        source, given = self._meter.where(index), self._meter.given(name, given)
        return placed(error, index=index, step=name, record=record, source=source, given=given)
