"""A run in the caller's process: the user's loop with a `yield`, and the first records measured on the way.

Results are made one record at a time by code that is as fast as the loop itself (`_segment.compiled`, form "lazy"),
except where a failed record must not end the run or steps take batches: there in lots of some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from time import perf_counter, process_time
from typing import Any

from taktline._observe.counters import LaneCount
from taktline._planner import choose
from taktline._planner.sample import Sampling
from taktline._recipe import plan as plans
from taktline._recipe.options import Options, usable_cores
from taktline._recipe.steps import Maker, Role, Step
from taktline._run.hub import Hub, settled
from taktline._run.lot import Lot
from taktline._run.meter import Meter
from taktline._run.reader import Reader, failure_of_source
from taktline._segment.batch import Batch
from taktline._segment.compiled import Compiled
from taktline._segment.fuse import Segment
from taktline._wire import carry
from taktline.errors import BatchLengthError, TaktlineError, placed

LOT = 0.005  # seconds of reading and work between two looks around: a slow source is not read ahead
MOST = 4096  # records in a lot

Phase = tuple[Lot | None, Iterator[Any] | None]


class Inline:
    """One run in this process. `hub`, where given, makes the Hub to go on with once the planner says that workers pay.
    `by_lots`: it is for `lots`, not for `results`."""

    def __init__(
        self, steps: tuple[Step, ...], options: Options, reader: Reader, meter: Meter, hub: Callable[[], Hub] | None,
        *, by_lots: bool = False,
    ) -> None:  # fmt: skip
        self._one_by_one = options.how == "loop"
        self._steps = tuple(_of_one_record(step) for step in steps) if self._one_by_one else steps
        self._options = options
        self._reader = reader
        self._meter = meter
        self._make_hub = hub
        self._may_be_lazy = not (by_lots or options.goes_on or options.seed is not None) and all(
            step.role is not Role.BATCH for step in self._steps
        )
        self._hub: Hub | None = None
        (seed,) = plans.here(self._steps).seeds(options.seed)
        self._segment = Segment(self._steps, goes_on=options.goes_on, seed=seed)
        self._busy_ns = 0
        self._complete = False
        self._end: Callable[[bool], None]
        self._lane: LaneCount
        self._lazy: Compiled | None = None
        self._lazy_from: int | None = None  # index of the first record of the lazy phase
        self._any = False  # record at the start of the last stretch
        self._lazy_left = 0  # records left at its start, as the source's iterator tells
        self._choice: choose.Choice | None = None
        self._sampling = Sampling(moving=hub is not None)
        self._lot_seconds = 0.0  # reading and work of the last lot

    def results(self, end: Callable[[bool], None]) -> tuple[Iterator[Any], Iterator[Any]]:
        """The results, one by one, and the generator to close for an early end. `end(complete)` is called once."""
        if not self._may_be_lazy:
            lots = self.lots(end)
            return chain.from_iterable(lots), lots
        self._begin(end)
        one_to_one = all(step.role is Role.MAP for step in self._steps)
        countable = one_to_one and hasattr(self._reader.iterator(), "__length_hint__")
        self._lazy = Compiled(self._steps, "lazy" if countable else "counted")
        results: Iterator[Any] = self._lazy.run(self._phases(), self._failed, self._counted, *self._segment.callables())
        return results, results

    def lots(self, end: Callable[[bool], None]) -> Iterator[Lot]:
        """The results as they are made, some records' at once; `end(complete)` is called once."""
        self._begin(end)
        return self._lots()

    def _begin(self, end: Callable[[bool], None]) -> None:
        self._end = end
        self._lane = self._meter.lanes[0]
        self._segment.make()

    def _lots(self) -> Iterator[Lot]:
        try:
            for lot, _ in self._phases():
                assert lot is not None
                yield lot
        finally:
            self._end(self._complete)

    def close(self) -> None:
        """Close what was built here, and the workers where there are any."""
        try:
            self._segment.close()
        finally:
            if self._hub is not None:
                self._hub.close()

    # --- the phases of a run ---

    def _phases(self) -> Iterator[Phase]:
        lot = 1
        while not self._reader.ended:
            if self._sampling.done and self._decided():
                break
            yield self._lot(lot), None
            lot = self._next_lot(lot)
        if self._choice is not None and self._choice.move:
            yield from self._move(lot)
        elif not self._reader.ended:
            yield from self._rest(lot)
        if self._reader.error is not None:
            raise self._reader.error
        self._complete = True

    def _decided(self) -> bool:
        """Whether the planner has spoken its last word; always so where there is nothing to decide."""
        if self._make_hub is None:
            return self._may_be_lazy
        options = self._options
        shares = [count.busy for count in self._lane.steps()]
        here = sum(b for b, s in zip(shares, self._steps, strict=True) if s.in_caller) / max(1e-9, sum(shares))
        choice = choose.choose(
            self._sampling.costs(here), workers=options.cores, cores=usable_cores(), remaining=self._reader.remaining,
            elapsed=self._meter.elapsed,
        )  # fmt: skip
        if choice.move:
            try:
                self._hub = self._make_hub()
            except TaktlineError as error:  # a step that cannot be carried over stays here, where it works
                choice = choose.Choice(False, True, f"stay with the loop: {error}")
        self._choice = choice
        self._meter.reasons[:] = [choice.reason]
        return choice.move or choice.final

    def _lot(self, size: int) -> Lot:
        """Read some records, run them, and give their results."""
        reader, meter = self._reader, self._meter
        first, began = reader.index, perf_counter()
        records = reader.read(size, LOT)
        read, cpu = perf_counter(), process_time()
        meter.reading += read - began
        meter.records_in += len(records)
        meter.batch_size = len(records) or meter.batch_size
        batch = self._segment.run(Batch(records, first=first))
        worked = perf_counter()
        self._busy_ns += int((worked - read) * 1e9)
        self._lot_seconds = worked - began
        self._sampling.learn(
            records, batch.values, read=read - began, work=worked - read, cpu=process_time() - cpu
        )  # fmt: skip
        self._note()
        results, error = settled(batch.values, batch.failures, first, records, self._options, meter)
        if error is not None:
            self._reader.ended = True
            self._reader.error = error
        meter.delivered(len(results))
        return results

    def _next_lot(self, lot: int) -> int:
        if self._one_by_one:
            return 1
        most = min(MOST, self._options.window or MOST)
        if self._lot_seconds < LOT / 2:
            lot = min(lot * 2, most)
        elif self._lot_seconds > LOT * 2:
            lot = max(1, lot // 2)
        units = max([1, *(step.size or 1 for step in self._steps)])
        return lot - lot % units if lot > units > 1 else lot

    def _rest(self, lot: int) -> Iterator[Phase]:
        """All that is left, in this process for good."""
        if not self._may_be_lazy:
            while not self._reader.ended:
                yield self._lot(lot), None
                lot = self._next_lot(lot)
            return
        records = self._reader.iterator()
        self._lazy_from = self._reader.index
        self._lazy_left = _left(records) if hasattr(records, "__length_hint__") else 0
        tick = self._meter.tick if self._meter.progress is not None else None
        # Some milliseconds at once: between two such stretches it is seen that the run is to stop. islice reads nothing
        # ahead, and costs nothing a record.
        most, stretch = min(MOST, self._options.window or MOST), 1
        while not self._reader.ended:
            began = perf_counter()
            self._any = False
            yield None, self._one_of(records)
            if not self._any:
                break
            yield None, islice(records, stretch)
            if tick is not None:
                tick()
            spent = perf_counter() - began
            stretch = max(1, stretch // 2) if spent > LOT else min(stretch * 2, most)
        self._reader.ended = True

    def _one_of(self, records: Iterator[Any]) -> Iterator[Any]:
        """The next record, and a note that there was one: the end of the source shows, and its errors come up, in the
        lazy loop."""
        for record in records:
            self._any = True
            yield record
            return

    def _move(self, lot: int) -> Iterator[Phase]:
        """Go on here until the workers are ready, then leave the rest to them."""
        hub = self._hub
        assert hub is not None
        hub.start()
        while not hub.ready() and not self._reader.ended:
            yield self._lot(lot), None
            lot = self._next_lot(lot)
        if (why := hub.without_workers) is not None:
            self._meter.reasons.append(f"stay with the loop after all: {why}")
            self._meter.use(plans.here(self._steps))
            self._hub = None
            hub.close()
            yield from self._rest(lot)
        elif not self._reader.ended:
            for results in hub.deliveries():
                yield results, None

    # --- counting and failing ---

    def _note(self) -> None:
        s = self._segment
        self._lane.note(0, self._busy_ns, 0, 0, 0, s.retried, s.records, s.timed_records, s.timed_ns)

    def _counted(self, read: int, given: int) -> None:
        """The lazy phase has ended."""
        try:
            if self._lazy_from is not None:
                self._add_up(read, given)
        finally:
            self._end(self._complete)

    def _add_up(self, read: int, given: int) -> None:
        meter, segment = self._meter, self._segment
        if read < 0:  # the fast form does not count; the source's iterator tells how far it got
            read = given = self._lazy_left - _left(self._reader.iterator())
        meter.records_in += read
        meter.records_out += given
        costs = [ns / max(1, n) for ns, n in zip(segment.timed_ns, segment.timed_records, strict=True)]
        for n, cost in enumerate(costs):
            segment.records[n] += read
            self._busy_ns += int(cost * read)
        self._note()

    def _failed(self, error: BaseException, read: int, record: Any) -> None:
        """An exception came out of the lazy loop: of a step, of the source, or of who closed the loop."""
        assert self._lazy is not None
        step, _ = self._lazy.culprit(error)
        if read < 0:
            read = self._lazy_left - _left(self._reader.iterator())
        index = (self._lazy_from or 0) + read - 1
        if step is None:
            if not isinstance(error, Exception) or isinstance(error, TaktlineError):
                raise error
            raise failure_of_source(error, index + 1) from error
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._meter.failed += 1
        name = self._steps[step].name
        raise placed(carry.as_step_error(error, name), index=index, step=name, record=record)


def _left(records: Iterator[Any]) -> int:
    """Records left in an iterator that can tell."""
    return int(records.__length_hint__())  # type: ignore[attr-defined]


def _of_one_record(step: Step) -> Step:
    """A batch step as a step of one record, for the technique that works on one at a time. Steps of other forms than
    lists get batches of one, so that nothing is converted between them; so do those that are verified."""
    if step.role is not Role.BATCH or step.verify is not None or (step.form != "list" and step.like is None):
        return step

    def one_at_a_time(fn: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
        def one(record: Any) -> Any:
            results = list(fn([record]))
            if len(results) != 1:
                raise BatchLengthError(step=step.name, given=1, returned=len(results))
            return results[0]

        if hasattr(fn, "close"):
            one.close = fn.close  # type: ignore[attr-defined]
        return one

    if step.like is not None:
        return replace(step, role=Role.MAP, fn=step.like, maker=None)
    if step.maker is None:
        return replace(step, role=Role.MAP, fn=one_at_a_time(step.fn))
    return replace(step, role=Role.MAP, maker=Maker(lambda: one_at_a_time(step.make()), (), {}))
