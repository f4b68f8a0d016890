"""Tries the first records of a source: what each step costs here, what moving costs, and what workers make of it.

The records are copied before the steps get them, so that steps which change their record do not change the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache
from itertools import chain, islice, repeat
from operator import length_hint
from time import perf_counter, perf_counter_ns, process_time_ns
from typing import Any, NamedTuple

from taktline._crew import weight
from taktline._observe import cores, memory
from taktline._planner.advise import Plan, Tried, advise
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._planner.sample import moving
from taktline._recipe.options import Options, memory_bytes, usable_cores
from taktline._recipe.plan import full_calls, here
from taktline._recipe.steps import Role, Step, as_step
from taktline._run.reader import Reader, check_source
from taktline._run.run import Run
from taktline._schedule.sizing import Calls
from taktline._segment import firsts, guard
from taktline._segment.batch import Batch
from taktline._segment.fuse import Segment
from taktline._segment.values import Encode
from taktline._wire import carry
from taktline.abc import Sink, Source
from taktline.errors import LineError, TaktlineError

SECONDS = 0.3  # of work that are tried: enough to see costs that differ from record to record
RECORDS = 10_000  # at most
GIVEN = 50_000  # results that a record, on average, may give in one step
BYTES = 1 << 26  # of records and of what stands between steps: fresh memory slows down what comes after it
LOT_NS = 2_000_000  # nanoseconds of work a lot
MOVING_NS = 20_000_000  # nanoseconds spent on packing and unpacking what stands between two steps
WARM = 4  # one record in so many, from the first on, is not timed in the loop
ROUNDS = 10  # of the loop over the tried records, where one is over too soon to be timed
ALONE_NS = 20_000_000  # nanoseconds spent on giving a batch step records one at a time
BESIDE = 0.3  # seconds that workers are tried
CUT_SECONDS = 1.0  # the same, where what comes of a record may be endless
WORKERS = 4  # that are tried at most: more would only take longer to start
CUT = 256  # records of a part
CUTTING_NS = 5_000_000  # nanoseconds spent on cutting the source into parts
EMPTY = 3_000  # records through workers that do nothing


def plan(
    steps: tuple[Step, ...], name: str, source: Iterable[Any], sink: Any, options: Options, length: int | None = None
) -> Plan:  # fmt: skip
    """What to do with this source of `length` records, where it does not tell, why, and how long it would take. Of a
    `sink` it is only looked at whether workers can make the bytes of its results."""
    encode = sink.encoder if isinstance(sink, Sink) else None
    tried = try_out(steps, name, source, options.cores, encode, options.start, options.setup)
    if length is not None:
        tried = tried._replace(total=length)
    return advise(
        tried, cores=usable_cores(), workers=options.cores, window=options.window, memory=memory_bytes(options.memory),
        how=options.how, batch_size=options.batch_size,
    )  # fmt: skip


def try_out(
    steps: tuple[Step, ...], name: str, source: Iterable[Any], workers: int, encode: Encode | None = None,
    start: str = "auto", setup: Callable[[], object] | None = None,
) -> Tried:  # fmt: skip
    """What the first records of this source cost, in the loop and with workers."""
    check_source(source)
    if setup is not None:
        guard.set_up(setup)
    trial = _Trial(steps, source, encode)
    trial.sample()
    obstacle, ways, loop_ns = trial.obstacle, Ways(), 0.0
    if trial.records:
        loop_ns = trial.loop(name)
        if not obstacle and not all(step.in_caller for step in steps):
            try:
                ways = trial.workers(name, min(workers, usable_cores(), WORKERS), loop_ns, start, setup)
            except LineError as error:  # a step that cannot be carried over
                obstacle = str(error)
    costs = trial.costs(loop_ns, ways)._replace(cut=_cutting(source), encode=trial.encoded())
    return Tried(
        name=name, steps=steps, costs=costs, total=trial.reader.total,
        one_shot=bool(trial.records) and iter(source) is source, failure=trial.failure, obstacle=obstacle,
        cut=trial.cut, carries=trial.carries,
    )  # fmt: skip


class _Measured(NamedTuple):
    """One step's figures while it is tried."""

    lots: list[float]
    computing_ns: list[float]


class _Trial:
    """The first records of a source and what they cost."""

    def __init__(self, steps: tuple[Step, ...], source: Iterable[Any], encode: Encode | None) -> None:
        self.steps = steps
        self.carries = ""
        self.reader = Reader(source, delivers=False)
        self._encode = encode
        self._encoding = [0.0, 0.0, 0.0]  # nanoseconds, bytes, and the records that gave what was encoded
        self.obstacle = ""  # why records or results cannot be moved
        self.failure = ""  # which record fails, where one does
        self.cut = ""  # which record gives more than is tried, where one does
        self._originals: list[Any] = []
        self._packed: list[list[carry.Bytes]] = []  # of each lot
        self._bytes = 0
        self._lots: list[int] = []
        self._read_ns = 0
        self._budget = firsts.Budget(GIVEN)
        self._expands = any(step.role is Role.EXPAND for step in steps)
        self._segments = [Segment([step], goes_on=False) for step in firsts.within(steps, self._budget)]
        self._measured = [_Measured([], []) for _ in steps]
        self._moves = [[0.0, 0.0, 0.0] for _ in range(len(steps) + 1)]
        self._moved = [0] * (len(steps) + 1)  # records of the source whose moving was measured
        self._moving_ns = [0] * (len(steps) + 1)
        self._alone_ns = [0.0] * len(steps)  # of batch steps: a record given alone

    @property
    def records(self) -> int:
        """How many were tried."""
        return sum(self._lots)

    def sample(self) -> None:
        """Try records lot by lot, until enough is known, the source ends or a record fails."""
        for segment in self._segments:
            segment.make()
        try:
            spent, lot, calls = 0, min(RECORDS, full_calls(self.steps)), Calls()
            takes_all = here(self.steps).segments[0].takes_all
            while spent < SECONDS * 1e9 and self.records < RECORDS and self._bytes < BYTES and not self._is_over():
                began = perf_counter_ns()
                records = self.reader.read(lot)
                self._read_ns += perf_counter_ns() - began
                if not records:
                    break
                took = self._lot(records)
                spent += took
                if takes_all:
                    calls.learn(len(records), took / 1e9)
                lot = min(max(lot * 2 if took < LOT_NS / 2 else lot, calls.wanted), max(1, RECORDS - self.records))
            if self.reader.error is not None:
                raise self.reader.error
        finally:
            for segment in self._segments:
                segment.close()

    def _is_over(self) -> bool:
        return bool(self.failure or self.cut)

    def _lot(self, records: list[Any]) -> int:
        """One lot through all steps; nanoseconds of work."""
        self._originals += records
        self._lots.append(len(records))
        values, spent = self._copied(records), 0
        origins: list[int] | None = list(range(len(records))) if self._expands else None
        for n, (segment, measured) in enumerate(zip(self._segments, self._measured, strict=True)):
            if n:
                self._move(n, values, self._lots[-1])
            self._budget.begin(self._lots[-1])
            began, computing, pauses = perf_counter_ns(), process_time_ns(), cores.pauses()
            batch = segment.run(Batch(values, origins))
            took = perf_counter_ns() - began
            measured.computing_ns.append(process_time_ns() - computing if cores.pauses() > pauses else took)
            measured.lots.append(took)
            spent += took
            origins = batch.origins if self._expands else None
            if batch.failures and self._budget.spent:
                self._cut(n, batch)
            elif batch.failures:
                error = batch.failures[0].error
                self.failure = f"a record fails in step {self.steps[n].name!r}: {type(error).__name__}: {error}"
            if self.steps[n].role is Role.BATCH and len(self._lots) == 1:
                self._alone(n, segment, values)
            values = batch.values
        self._move(len(self.steps), values, self._lots[-1])
        self._make_bytes(values, self._lots[-1])
        return spent

    def _cut(self, at: int, batch: Batch) -> None:
        """A record gave more than a trial takes: what it gave stands for all of it, and those behind it are not tried."""
        record = batch.failures[0].origin
        self._lots[-1] = record + 1
        # Of what comes all at once, as with retries, nothing is there.
        given = max(1, len(batch.values) - batch.before(record) or self._budget.given // self._lots[-1])
        self.steps, _ = firsts.cut(self.steps, given)
        self.cut = self.cut or (
            f"record {self.records - 1:,} gives endlessly many results in step {self.steps[at].name!r}, or more than are "
            f"tried: the first {given:,} stand for all of it, also in the times, and no record behind it was tried"
        )

    def _copied(self, records: list[Any]) -> list[Any]:
        """The records as a worker would get them; themselves where they cannot be moved."""
        self._move(0, records, len(records))
        try:
            packed: list[carry.Bytes] = [bytes(part) for part in carry.pack(records)]
            values: list[Any] = carry.unpack(packed)
        except Exception:  # what cannot be moved was said by _move
            return records
        self._packed.append(packed)
        self._bytes += sum(map(len, packed))
        return values

    def _move(self, at: int, values: list[Any], records: int) -> None:
        if self._moving_ns[at] > MOVING_NS or self.obstacle:
            return
        packing, unpacking, size, obstacle = moving(values)
        count = len(values)
        self._moving_ns[at] += int((packing + unpacking) * count)
        self._moved[at] += records
        for n, figure in enumerate((packing, unpacking, size)):
            self._moves[at][n] += figure * count
        if obstacle:
            what = "a record" if at == 0 else "a result" if at == len(self.steps) else "what a step returns"
            # Between two steps it need not move, unless they are in different processes: not in a fused line.
            if at in (0, len(self.steps)):
                self.obstacle = f"{what} cannot be sent between processes: {obstacle}"

    def _make_bytes(self, results: list[Any], records: int) -> None:
        """What it costs to make the bytes of some results for the sink."""
        if self._encode is None:
            return
        began = perf_counter_ns()
        try:
            data = self._encode(results)
        except Exception:  # a result that the sink refuses: the run says so
            self._encode = None
            return
        for n, figure in enumerate((perf_counter_ns() - began, len(data), records)):
            self._encoding[n] += figure

    def _alone(self, n: int, segment: Segment, values: list[Any]) -> None:
        """What a batch step takes for records given one at a time."""
        began, count = perf_counter_ns(), 0
        while perf_counter_ns() - began < ALONE_NS and count < 200:
            segment.run(Batch(values[:1]))
            count += 1
        self._alone_ns[n] = (perf_counter_ns() - began) / count

    def copies(self) -> list[Any]:
        """The tried records once more, as new objects."""
        if len(self._packed) < len(self._lots):
            return self._originals[: self.records]
        return list(chain.from_iterable(carry.unpack(packed) for packed in self._packed))[: self.records]

    def loop(self, name: str) -> float:
        """Nanoseconds a record of the loop. Stops at a record that fails, as the loop does."""
        seconds, count = 0.0, 0
        for _ in range(ROUNDS):
            copies = self.copies()
            source = iter(copies)  # which tells how many are left in it
            run = Run(self.steps, name, source, Options(how="loop", progress=False))
            left, began = len(copies), perf_counter()
            try:
                # What a run's first records pay, to begin with or to be timed, is not what a record costs.
                if warm := len(copies) // WARM:
                    next(islice(run, warm - 1, None), None)
                    left, began = length_hint(source), perf_counter()
                while perf_counter() - began < SECONDS and next(islice(run, 256, None), run) is not run:
                    pass
            except Exception:  # the record that fails is named by `failure`
                pass
            seconds += perf_counter() - began
            count += left - length_hint(source)
            run.close()
            if seconds > SECONDS / 3 or self.failure:
                break
        return seconds * 1e9 / max(1, count) + self._read_ns / self.records

    def workers(
        self, name: str, count: int, loop_ns: float, start: str, setup: Callable[[], object] | None
    ) -> Ways:  # fmt: skip
        """What the hand-over costs, seen on real workers with the tried records."""
        ways = _empty_line(start)
        costs = self.costs(loop_ns, ways)
        work_ns = sum(costs.mean_ns(n) for n, step in enumerate(self.steps) if not step.in_caller)
        records = max(32 * count, int(BESIDE * count * 1e9 / max(1.0, work_ns)))
        if self.cut:  # one of them may be as large, and as dear, as all that is tried of others
            dear, large = CUT_SECONDS * 1e9 * count / max(1.0, work_ns), BYTES * count / max(1.0, costs.moves[-1].size)
            records = max(count, int(min(records, dear, large)))
        copies = self.copies()
        times = max(1, min(-(-records // len(copies)), 50))
        source = chain.from_iterable(repeat(copies, times))
        options = Options(how="line", workers=count, progress=False, on_error="skip", start=start, setup=setup)
        run = Run(self.steps, name, islice(source, records), options)
        began = perf_counter()
        for _ in run:
            pass
        report = run.report
        self.carries = weight.among(report.reasons)
        busy = sum(step.busy for step, own in zip(report.steps, self.steps, strict=True) if not own.in_caller)
        moved = sum((costs.moves[0].unpack_ns, costs.moves[-1].pack_ns)) * report.records_in
        work = work_ns * report.records_in
        start_up = min(report.first_result or 0.0, perf_counter() - began)
        return ways._replace(
            start_up=start_up or ways.start_up,
            slowdown=min(4.0, max(0.25, (busy * 1e9 - moved) / work)) if work else 1.0,
            worker_memory=max(ways.worker_memory, (report.peak_memory - memory.held_here()) / count),
        )

    def costs(self, loop_ns: float, ways: Ways) -> Costs:
        """All figures."""
        # The first lots are small, to find out how dear records are; what a call costs weighs too much in them.
        most = max(self._lots, default=0)
        kept = [n for n, count in enumerate(self._lots) if 2 * count >= most]
        counts = tuple(self._lots[n] for n in kept)
        steps = []
        for step, measured, alone in zip(self.steps, self._measured, self._alone_ns, strict=True):
            # A lot in which a record failed ends there: the later steps got nothing of it.
            spent = [(*measured.lots, *[0.0] * len(self._lots))[n] for n in kept]
            computing = sum((*measured.computing_ns, *[0.0] * len(self._lots))[n] for n in kept) / max(1.0, sum(spent))
            lots, call_ns = tuple(spent), 0.0
            if step.role is Role.BATCH and self.records:
                lots, call_ns = _without_calls(lots, counts, alone, step.size)
            steps.append(
                StepCost(
                    step.name, lots, min(1.0, computing), call_ns, alone if step.role is Role.BATCH else None, step.size
                )
            )
        steps = self._as_fused(steps, counts, loop_ns)
        moves = [
            Move(*(figure / max(1, count) for figure in figures))
            for figures, count in zip(self._moves, self._moved, strict=True)
        ]
        return Costs(
            counts, self._read_ns / max(1, self.records), tuple(steps), tuple(moves), loop_ns, ways,
            memory=float(memory.held_here()),
        )  # fmt: skip

    def encoded(self) -> Move | None:
        """What making the sink's bytes costs; None where workers cannot."""
        ns, size, records = self._encoding
        return Move(ns / records, 0.0, size / records) if self._encode is not None and records else None

    def _as_fused(self, steps: list[StepCost], counts: tuple[int, ...], loop_ns: float) -> list[StepCost]:
        """The steps' costs as they are in the loop, where each value is gone before the next one is made; in a lot they
        all stand there at once, and large ones need fresh memory."""
        apart = sum(sum(step.lots) for step in steps) / max(1, sum(counts))
        fused = loop_ns - self._read_ns / max(1, self.records)
        if not 0 < fused < apart or any(step.role is Role.BATCH for step in self.steps):
            return steps
        return [step._replace(lots=tuple(ns * fused / apart for ns in step.lots)) for step in steps]


def _cutting(source: Iterable[Any]) -> Move | None:
    """What a record costs the hub that workers read themselves; None where they cannot."""
    splitter = source.split() if isinstance(source, Source) else None
    if splitter is None:
        return None
    began, records, size = perf_counter_ns(), 0, 0
    with closing(splitter):
        while records < RECORDS and perf_counter_ns() - began < CUTTING_NS:
            try:
                part = splitter.part(CUT)
            except TaktlineError:  # an error that the trial has met or the run will
                break
            if part is None:  # its end, or none can be cut here
                break
            carry.pack(part)
            records += len(part)
            size += part.size
    return Move((perf_counter_ns() - began) / records, 0.0, size / records) if records else None


def _without_calls(
    lots: tuple[float, ...], counts: tuple[int, ...], alone_ns: float, size: int | None
) -> tuple[tuple[float, ...], float]:
    """The lots of a batch step without what its calls cost, and that cost: a record alone, less what it costs in company."""
    full = [(ns, count) for ns, count in zip(lots, counts, strict=True) if count > 1]
    company = sum(ns for ns, _ in full) / max(1, sum(count for _, count in full)) if full else alone_ns
    call_ns = max(0.0, alone_ns - company)
    calls = [-(-count // (size or count)) for count in counts]
    return tuple(max(0.0, ns - call_ns * n) for ns, n in zip(lots, calls, strict=True)), call_ns


@cache
def _empty_line(start: str) -> Ways:
    """What workers cost that do nothing, measured once a process and a way to start them."""
    nothing = (as_step(abs),)
    held = memory.held_here()
    run = Run(
        nothing, "nothing", range(EMPTY), Options(how="line", workers=1, batch_size=1, progress=False, start=start)
    )
    began = perf_counter()
    try:
        results = iter(run)
        next(results)
        first = perf_counter() - began
        last = first
        for _ in results:
            last = perf_counter() - began
    except TaktlineError:  # no workers on this machine: the run itself will say so
        return Ways()
    ended, report = perf_counter() - began, run.report
    step = report.steps[0]
    return Ways(
        start_up=first, ending=max(0.0, ended - last), hub_batch_ns=(last - first) * 1e9 / EMPTY,
        worker_batch_ns=(step.busy + step.blocked) * 1e9 / EMPTY,
        worker_memory=max(10e6, float(report.peak_memory - held)),
    )  # fmt: skip
