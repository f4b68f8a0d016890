"""Tries the first records of a source: what each step costs here, what moving costs, and what workers make of it.

The records are copied before the steps get them, so that steps which change their record do not change the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from itertools import chain, islice, repeat
from operator import length_hint
from time import perf_counter, perf_counter_ns, process_time_ns
from typing import Any, NamedTuple

from taktline._crew import weight
from taktline._observe import cores, memory
from taktline._planner.advise import Failures, Plan, Tried, advise
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._planner.sample import moving
from taktline._recipe.options import Options, memory_bytes, usable_cores
from taktline._recipe.plan import full_calls, here, takes_tables
from taktline._recipe.steps import Role, Step, as_step
from taktline._run import ahead
from taktline._run.ends import check_options
from taktline._run.first_rows import first_rows
from taktline._run.reader import Reader, lent, looked_at
from taktline._run.run import Run
from taktline._run.trial_tables import try_tables
from taktline._schedule.sizing import Calls
from taktline._segment import first_results, policies
from taktline._segment.batch import READING_STEP, Batch, Failure
from taktline._segment.memory_size import amount
from taktline._segment.segment import Segment
from taktline._signals import came_from_outside
from taktline._wire import serialize
from taktline.abc import Sink, Source, Unread
from taktline.errors import Failed, Stalled, TaktlineError
from taktline.views.progress import Status, hidden

Encoder = Callable[[list[Any]], bytes]  # makes a sink's bytes of results

SECONDS = 0.3  # of work that are tried: enough to see costs that differ from record to record
RECORDS = 10_000  # at most
GIVEN = 50_000  # results that a record, on average, may give in one step
READING_SECONDS = 2.0  # that the source may take for them
AHEAD_SECONDS = 5.0  # after which no more go ahead, though no result has come
AHEAD_LOT = 512  # records that are read for that at once
AHEAD_GIVEN = 1_000  # results that a record may give there
SKIPPED = 3  # times the records that are tried, so many may fail
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
) -> Plan:
    """What to do with this source of `length` records, where it does not tell, why, and how long it would take. Of a
    `sink` it is only looked at whether workers can make the bytes of its results."""
    check_options(source, sink, options.dead_letters)
    encode = sink.encoder if isinstance(sink, Sink) else None
    with Status("plan", options.progress) as say:
        tried = try_out(steps, name, source, options.cores, encode, options, say, sink)
    if length is not None:
        tried = tried._replace(total=length)
    elif tried.total is None and isinstance(source, Source) and (about := source.about()) is not None:
        tried = tried._replace(about=max(about, tried.read))
    return advise(
        tried, cores=usable_cores(), workers=options.cores, window=options.window, memory=memory_bytes(options.memory),
        how=options.how, batch_size=options.batch_size, on_error=options.on_error, dead_letters=options.dead_letters,
    )  # fmt: skip


def try_out(
    steps: tuple[Step, ...], name: str, source: Iterable[Any], workers: int, encode: Encoder | None = None,
    options: Options | None = None, say: Callable[[str, float], None] = lambda says, left: None, sink: Any = None,
) -> Tried:  # fmt: skip
    """What the first records of this source cost, in the loop and with workers, and what fails of them. Of `options`
    `start` and `setup` count. Raises what the source raises."""
    source = looked_at(source)
    options = options or Options()
    if options.setup is not None:
        policies.set_up(options.setup)
    trial = _Trial(steps, source, encode, options)
    with lent(source):
        say("does a record end the process that it is tried in?", 3 * SECONDS)
        if not trial.tables_go_ahead(name):
            trial.go_ahead(name)
        tabled = None
        if trial.sent and not (trial.failures.records or trial.ended) and _has_tables(steps, source):
            say("the first rows as a table", SECONDS)
            with trial.others.beside():
                tabled = try_tables(steps, source, sink, trial.sent)
        if tabled is None:
            say("the first records, step by step", 3 * SECONDS)
            with trial.others.beside():
                trial.sample()
    ways, loop_ns = Ways(), 0.0
    if trial.records:
        say("the same records in the loop", 2 * SECONDS)
        with trial.others.beside():
            loop_ns = trial.loop(name)
        if not trial.obstacle and not all(step.in_caller for step in steps):
            say("the same records in workers", SECONDS)
            try:
                ways = trial.workers(name, min(workers, usable_cores(), WORKERS), loop_ns)
            except TaktlineError as error:  # no workers can be started, or none that go on
                trial.obstacle = str(error)
    once = getattr(source, "once", False) if isinstance(source, Source) else iter(source) is source
    if tabled is None:
        costs = trial.costs(loop_ns, ways)._replace(cut=None if once else _cutting(source), encode=trial.encoded())
    else:
        costs = tabled
    return Tried(
        name=name, steps=steps, costs=costs, total=trial.reader.total, read=trial.reader.index,
        tried=trial.tried,
        one_shot=bool(trial.reader.index) and once, failures=trial.failures, obstacle=trial.obstacle,
        cut=trial.cut, carries=trial.carries, ended=trial.ended, others=trial.others.share,
    )  # fmt: skip


def _has_tables(steps: tuple[Step, ...], source: Any) -> bool:
    """Whether a run would hand its steps tables, and the source can be read again."""
    columns = isinstance(source, Source) and source.columns and not getattr(source, "once", False)
    return columns and takes_tables(steps)


class _Measured(NamedTuple):
    """One step's figures while it is tried."""

    lots: list[float]
    computing_ns: list[float]


class _Trial:
    """The first records of a source and what they cost."""

    def __init__(
        self, steps: tuple[Step, ...], source: Iterable[Any], encode: Encoder | None, options: Options
    ) -> None:
        self.steps = steps
        self.carries = ""
        self.ended = ""  # why the trial ended before its time
        self.failures = Failures()
        self.others = cores.Others()
        self._source = source
        self._options = options
        # What cannot be read is passed over, whatever the run does with it.
        self.reader = Reader(source, delivers=False, goes_on=True)
        self.sent: int | None = None  # records that went ahead and came back; None: none did, and all are tried here
        self._read: deque[tuple[int, Any]] | None = (
            None  # records that have gone ahead and come back, with their indexes
        )
        self._as_they_come: list[Any] = []  # those read last
        self._encode = encode
        self._encoding = [0.0, 0.0, 0.0]  # nanoseconds, bytes, and the records that gave what was encoded
        self.obstacle = ""  # why records or results cannot be moved
        self.cut = ""  # which record gives more than is tried, where one does
        self._originals: list[Any] = []
        self._gone: set[int] = set()  # positions among them of those that did not come through, or are not to be tried
        self._packed: list[list[serialize.Bytes]] | None = []  # of each lot; None: they cannot be
        self._bytes = 0
        self._lots: list[int] = []
        self._read_ns = 0  # that reading took so far
        self._readings: list[tuple[int, int]] = []  # records, and the nanoseconds that they cost
        self._budget = first_results.Budget(GIVEN)
        self._expands = any(step.role is Role.EXPAND for step in steps)
        # Each step is tried by itself, over what the one before it gave: where keys begin is not known there.
        tried = (replace(step, by=None) for step in first_results.within(steps, self._budget))
        self._segments = [Segment([step], goes_on=False) for step in tried]
        self._measured = [_Measured([], []) for _ in steps]
        self._moves = [[0.0, 0.0, 0.0] for _ in range(len(steps) + 1)]
        self._moved = [0] * (len(steps) + 1)  # records of the source whose moving was measured
        self._moving_ns = [0] * (len(steps) + 1)
        self._alone_ns = [0.0] * len(steps)  # of batch steps: a record given alone

    @property
    def records(self) -> int:
        """How many were tried here and came through."""
        return sum(self._lots)

    @property
    def tried(self) -> int:
        """How many were tried, whether or not they came through."""
        if self.cut:
            return self.records + len(self.failures.records)
        return self.reader.index if self.sent is None else self.sent

    @property
    def read_ns(self) -> float:
        """Nanoseconds to read a record. The first time may have imported and opened what it reads."""
        readings = [each for each in self._readings[1:] if each[0]] or self._readings
        return sum(ns for _, ns in readings) / max(1, sum(count for count, _ in readings))

    def tables_go_ahead(self, name: str) -> bool:
        """Send the first rows through workers as a table, where a run would; whether all came through. What fails is found
        out record by record."""
        found = (
            first_rows(self.steps, self._source, RECORDS, exact=True) if _has_tables(self.steps, self._source) else None
        )
        if found is None or all(step.in_caller for step in self.steps):
            return False
        workers = min(2, self._options.cores, usable_cores())
        try:
            went = ahead.send_tables(self.steps, name, found.rows, workers=workers, options=self._options)
        except Stalled:
            raise
        except TaktlineError:  # told by the records
            return False
        if not (went.failed or went.ended):
            self.sent, self._read = went.read, deque()
        return self.sent is not None

    def go_ahead(self, name: str) -> None:
        """Send the first records through workers: what fails there, or would end or stop this process, is not tried here.
        Where the steps cannot go to workers, all are."""
        if all(step.in_caller for step in self.steps):
            return
        steps, _ = first_results.cut(self.steps, AHEAD_GIVEN)
        read: list[tuple[int, Any]] = []
        failed: set[int] = set()
        first = 0.0

        def came() -> None:
            nonlocal first
            first = first or perf_counter()

        def records() -> Iterator[Any]:
            lot, weight, began = 1, 0, perf_counter()  # workers may have taken long to start
            while len(read) < RECORDS and weight < BYTES and self._may_read():
                now, spent = perf_counter(), self._read_ns
                if now - began > AHEAD_SECONDS or (first and now - first > SECONDS):
                    return
                some = self._from_source(lot)
                read.extend(some)
                weight += amount(some[-1][1]) * len(some) if some else 0
                lot = min(2 * lot, AHEAD_LOT) if self._read_ns - spent < LOT_NS / 2 else lot
                yield from self._as_they_come

        workers = min(2, self._options.cores, usable_cores())
        try:
            went = ahead.send(
                steps, name, records(), workers=workers, source=self._source, options=self._options, came=came
            )
        except Stalled:
            raise
        except TaktlineError as error:  # a step that cannot be carried over; or no worker can be started
            self.obstacle = str(error)
        else:
            for each in went.failed:
                if ahead.cannot_go(each):  # which is seen here too, and what it costs to stay
                    continue
                failed.add(each.index)
                if each.step != READING_STEP:  # which has been noted
                    self.failures.add(each.index, each.step, self._told(each))
            self.ended = went.ended
            self.sent = went.read
        sent = self.reader.index if self.sent is None else self.sent
        self._read = deque((index, record) for index, record in read if index < sent and index not in failed)

    def _told(self, failed: Failed) -> BaseException:
        limited = any(step.name == failed.step and step.timeout for step in self.steps)
        if not ahead.hung(failed) or limited:
            return failed.error
        return TimeoutError(
            f"not done after {ahead.HANGS_AFTER:g} s, for which a run would wait. Give the step a limit: step(timeout=)"
        )

    def sample(self) -> None:
        """Try records lot by lot, until enough is known or the source ends."""
        for segment in self._segments:
            segment.keeps_interrupt = True
            segment.make()
        try:
            spent, lot, calls = 0, min(RECORDS, full_calls(self.steps)), Calls()
            takes_all = here(self.steps).segments[0].takes_all
            while spent < SECONDS * 1e9 and self.records < RECORDS and self._bytes < BYTES and not self.cut:
                began = perf_counter_ns()
                some, over = self._next(lot)
                reading = perf_counter_ns() - began
                if not some:
                    if over:
                        break
                    continue
                took = self._lot(some)
                spent += took
                if takes_all:
                    calls.learn(len(some), took / 1e9)
                grown = lot * 2 if max(took, reading) < LOT_NS / 2 else lot
                lot = min(max(grown, calls.wanted), max(1, RECORDS - self.records))
            if self.reader.error is not None:
                raise self.reader.error
        finally:
            for segment in self._segments:
                segment.close()

    def _next(self, most: int) -> tuple[list[tuple[int, Any]], bool]:
        """The next records to be tried here, with their indexes, and whether there are no more."""
        if self._read is not None:
            some = [self._read.popleft() for _ in range(min(most, len(self._read)))]
            return some, not self._read
        some = self._from_source(most) if self._may_read() else []
        return some, not self._may_read()

    def _may_read(self) -> bool:
        return not self.reader.ended and self.reader.index < SKIPPED * RECORDS and self._read_ns < READING_SECONDS * 1e9

    def _from_source(self, most: int) -> list[tuple[int, Any]]:
        """Records of the source with their indexes, without those that cannot be read, which have failed."""
        began, computing, pauses, first = perf_counter_ns(), process_time_ns(), cores.pauses(), self.reader.index
        copying = self.reader.copying_ns
        self._as_they_come = self.reader.read_within(most, READING_SECONDS)
        took, computing = perf_counter_ns() - began, process_time_ns() - computing
        self._read_ns += took
        # What workers take of the cores meanwhile is no cost of reading, nor are copies, which the loop does not make.
        took = took if cores.pauses() > pauses else min(took, computing)
        self._readings.append((len(self._as_they_come), max(0, took - (self.reader.copying_ns - copying))))
        some = []
        for index, record in enumerate(self._as_they_come, first):
            if type(record) is Unread:
                self.failures.add(index, READING_STEP, record.error)
            else:
                some.append((index, record))
        return some

    def _lot(self, some: list[tuple[int, Any]]) -> int:
        """One lot through all steps; nanoseconds of work."""
        records = [record for _, record in some]
        behind = len(self._originals)
        self._originals += records
        values, spent = self._copied(records), 0
        count = len(records)  # of those that are tried
        origins: list[int] = list(range(count))
        failed: set[int] = set()
        figures = []
        for n, segment in enumerate(self._segments):
            left = count - len(failed)
            if n:
                self._move(n, values, left)
            self._budget.begin(max(1, left))
            began, computing, pauses = perf_counter_ns(), process_time_ns(), cores.pauses()
            given, positions, failures, cut = self._through(segment, values)
            took = perf_counter_ns() - began
            figures.append((took, process_time_ns() - computing if cores.pauses() > pauses else took, left))
            spent += took
            if cut is not None:
                count = origins[cut.failures[0].origin] + 1
                self._cut(n, cut, some[count - 1][0], count - len(failed))
            if self.steps[n].role is Role.BATCH and not self._lots:
                self._alone(n, segment, values)
            for failure in failures:
                at = origins[failure.origin]
                failed.add(at)
                self.failures.add(some[at][0], failure.step, failure.error)
            values = given
            origins = [origins[at] for at in positions] if positions is not None else origins
            if failures:
                through = [at for at, origin in enumerate(origins) if origin not in failed]
                values, origins = [values[at] for at in through], [origins[at] for at in through]
        went = count - len(failed)
        self._gone.update(behind + at for at in failed)
        self._gone.update(range(behind + count, behind + len(records)))
        if went:
            self._lots.append(went)
            for measured, (took, computing, left) in zip(self._measured, figures, strict=True):
                # Those that failed are taken to have cost what the others did, as far as they came.
                measured.lots.append(took * went / max(1, left))
                measured.computing_ns.append(computing * went / max(1, left))
            self._move(len(self.steps), values, went)
            self._make_bytes(values, went)
        return spent

    def _through(
        self, segment: Segment, values: list[Any]
    ) -> tuple[list[Any], list[int] | None, list[Failure], Batch | None]:
        """Values through one step: what comes of them, of which values where that is not one of each, what failed, and,
        where one gives more than a trial takes, the batch that ended there."""
        batch = segment.run(Batch(values))
        if not batch.failures:
            return batch.values, batch.origins, [], None
        out: list[Any] = []
        positions: list[int] = []
        failures: list[Failure] = []
        start = 0
        while True:
            failure = batch.failures[0] if batch.failures else None
            over = failure is not None and self._budget.spent
            keep = len(batch.values) if failure is None or over else batch.before(failure.origin)
            out += batch.values[:keep]
            positions += [start + batch.origin(at) for at in range(keep)]
            if failure is None:
                return out, positions, failures, None
            failure.origin += start
            if over:
                return out, positions, failures, batch
            if isinstance(failure.error, KeyboardInterrupt) and came_from_outside(failure.error):
                raise failure.error
            failures.append(failure)
            start = failure.origin + 1
            batch = segment.run(Batch(values[start:]))

    def _cut(self, at: int, batch: Batch, index: int, tried: int) -> None:
        """A record gave more than a trial takes: what it gave stands for all of it, and those behind it are not tried."""
        # Of what comes all at once, as with retries, nothing is there.
        given = max(1, len(batch.values) - batch.before(batch.failures[0].origin) or self._budget.given // tried)
        self.steps, _ = first_results.cut(self.steps, given)
        self.cut = self.cut or (
            f"record {index:,} gives endlessly many results in step {self.steps[at].name!r}, or more than are "
            f"tried: the first {given:,} stand for all of it, also in the times, and no record behind it was tried"
        )

    def _copied(self, records: list[Any]) -> list[Any]:
        """The records as a worker would get them; themselves where they cannot be moved."""
        self._move(0, records, len(records))
        try:
            packed: list[serialize.Bytes] = [bytes(part) for part in serialize.pack(records)]
            values: list[Any] = serialize.unpack(packed)
        except Exception:  # what cannot be moved was said by _move
            self._packed = None
            return records
        if self._packed is not None:
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
        if self._packed is None:
            return [each for at, each in enumerate(self._originals) if at not in self._gone]
        each = chain.from_iterable(serialize.unpack(packed) for packed in self._packed)
        return [record for at, record in enumerate(each) if at not in self._gone]

    def loop(self, name: str) -> float:
        """Nanoseconds a record of the loop. Stops at a record that fails, as the loop does."""
        seconds, count = 0.0, 0
        for _ in range(ROUNDS):
            copies = self.copies()
            source = iter(copies)  # which tells how many are left in it
            run = Run(self.steps, name, source, Options(how="loop", progress=hidden))
            left, began = len(copies), perf_counter()
            try:
                # What a run's first records pay, to begin with or to be timed, is not what a record costs.
                if warm := len(copies) // WARM:
                    next(islice(run, warm - 1, None), None)
                    left, began = length_hint(source), perf_counter()
                while perf_counter() - began < SECONDS and next(islice(run, 256, None), run) is not run:
                    pass
            except Exception:  # it came through before: of steps that do not do the same each time this is one half
                pass
            seconds += perf_counter() - began
            count += left - length_hint(source)
            run.close()
            if seconds > SECONDS / 3:
                break
        return seconds * 1e9 / max(1, count) + self.read_ns

    def workers(self, name: str, count: int, loop_ns: float) -> Ways:
        """What the hand-over costs, seen on real workers with the tried records."""
        start = self._options.start
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
        options = Options(
            how="line", workers=count, progress=hidden, on_error="skip", start=start, setup=self._options.setup
        )
        run = Run(self.steps, name, islice(source, records), options)
        began = perf_counter()
        for _ in run:
            pass
        report = run.report
        self.others.add(report.seconds, report.others)
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
            spent = [measured.lots[n] for n in kept]
            computing = sum(measured.computing_ns[n] for n in kept) / max(1.0, sum(spent))
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
        copying_ns = self.reader.copying_ns / max(1, self.reader.index)
        moves[0] = moves[0]._replace(pack_ns=moves[0].pack_ns + copying_ns)
        return Costs(counts, self.read_ns, tuple(steps), tuple(moves), loop_ns, ways, memory=float(memory.held_here()))

    def encoded(self) -> Move | None:
        """What making the sink's bytes costs; None where workers cannot."""
        ns, size, records = self._encoding
        return Move(ns / records, 0.0, size / records) if self._encode is not None and records else None

    def _as_fused(self, steps: list[StepCost], counts: tuple[int, ...], loop_ns: float) -> list[StepCost]:
        """The steps' costs as they are in the loop, where each value is gone before the next one is made; in a lot they
        all stand there at once, and large ones need fresh memory."""
        apart = sum(sum(step.lots) for step in steps) / max(1, sum(counts))
        fused = loop_ns - self.read_ns
        if not 0 < fused < apart or any(step.role is Role.BATCH for step in self.steps):
            return steps
        return [step._replace(lots=tuple(ns * fused / apart for ns in step.lots)) for step in steps]


def _cutting(source: Iterable[Any]) -> Move | None:
    """What a record costs the hub that workers read themselves; None where they cannot."""
    unread: list[Unread] = []
    splitter = source.split(unread=unread) if isinstance(source, Source) else None
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
            serialize.pack(part)
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
def _empty_line(start: Any) -> Ways:
    """What workers cost that do nothing, measured once a process and a way to start them."""
    nothing = (as_step(abs),)
    held = memory.held_here()
    run = Run(
        nothing, "nothing", range(EMPTY), Options(how="line", workers=1, batch_size=1, progress=hidden, start=start)
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
