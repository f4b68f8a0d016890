"""Tells before a long run what would go wrong in it: each step over some records, twice, in batches, and in workers."""

from __future__ import annotations

import json
import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from taktline._crew.weight import NOTED_BYTES, weigh
from taktline._excerpts import excerpt, readable
from taktline._observe import pages
from taktline._observe.measures import cost, many, size
from taktline._planner.advise import FailedStep, Failures, what_becomes
from taktline._public import named
from taktline._recipe import plan as plans
from taktline._recipe.numbers import is_whole
from taktline._recipe.options import Options, checked
from taktline._recipe.steps import Role, Step
from taktline._run import ahead
from taktline._run.ends import check_options
from taktline._run.first_rows import all_here, came_of, first_rows, first_unlike, without_rows
from taktline._run.in_memory import Tables
from taktline._run.output import OutputBatch
from taktline._run.reader import Reader, lent, looked_at
from taktline._run.run import outputs_of
from taktline._segment import first_results, policies
from taktline._segment.batch import READING_STEP, Batch, Failure
from taktline._segment.equality import same
from taktline._segment.segment import Segment
from taktline._segment.tables import ArrowRows, each_record
from taktline._segment.values import records_of
from taktline._signals import came_from_outside
from taktline._wire import serialize
from taktline.abc import Unread
from taktline.errors import Failed, LineError, TaktlineError, WorkerDied, movable
from taktline.views.progress import Status, hidden

if TYPE_CHECKING:
    from taktline._line import Line
    from taktline._segment.async_steps import OneByOne

WAIT = 10.0  # seconds for a record of a source whose records come when they come
AGAIN = 5.0  # seconds a step may take for further runs over the same records
TOGETHER = 512  # records of a batch where the step has no size of its own
SLOWER = 2.0  # times as long in a worker as here: less may be the machine's mood
GIVEN = 100_000  # results that all records together may give in the steps that expand,
MOST_GIVEN, LEAST_GIVEN = 1_000, 100  # and one of them
SHOWN = 10  # of the values behind a step, where a single record is checked
TELLS = 30  # records from which something is said of speed
NOTICED = 0.05  # seconds of difference below which nobody would notice


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a run would meet. `index`: of the first record that shows it; None: it is not one record's.
    `advice`: nothing goes wrong, but it could be better."""

    kind: (
        str  # build, reading, carry, pickle, fails, unequal, changes, forms, apart, dies, hangs, workers, surroundings,
    )
    # slower, cut
    step: str
    index: int | None
    says: str
    next: str
    advice: bool = False
    records: int = 1  # that show it, where each is looked at for it: such as fail

    def __str__(self) -> str:
        return readable(pages.finding_text(asdict(self)))


@dataclass(frozen=True, slots=True)
class Check:
    """What `Line.check` found. `fine`: nothing, or advice only. `path`: of a single record, its value after each step."""

    line: str
    records: int
    findings: tuple[Finding, ...]
    path: tuple[str, ...] = ()
    record: int | None = None  # the only one that was looked at, where that was asked for

    @property
    def fine(self) -> bool:
        """Whether a run over such records would go well."""
        return all(finding.advice for finding in self.findings)

    def __repr__(self) -> str:
        found = sum(not finding.advice for finding in self.findings)
        says = "fine" if self.fine else f"{found} found"
        return readable(f"<Check of {self.line!r} over {self.records:,} records: {says}>")

    def __str__(self) -> str:
        return readable(pages.check_text(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {**asdict(self), "fine": self.fine}

    def _repr_html_(self) -> str:
        from taktline._observe.pictures import escaped

        return f"<pre>{escaped(self)}</pre>"

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(self.to_dict())


def check(
    flow: Line, source: Iterable[Any], *, limit: int = 1_000, record: int | None = None, on_error: str = "raise",
    dead_letters: Any = None, setup: Callable[[], object] | None = None, on: Any = None,
    progress: bool | Callable[[str], None] | None = None,
) -> Check:  # fmt: skip
    """Check a line on the first `limit` records of a source, or on one `record` by its index.

    `on_error`, `dead_letters`, `setup`, `on`: of the run that is to be; no letter is written. Raises LineError for a limit
    below 1, a record that is not there and wrong options, and what the source raises where it cannot go on.
    """
    if not is_whole(limit, least=1):
        raise LineError(f"check(limit={limit!r}): give a whole number of at least 1")
    if record is not None and not is_whole(record, least=0):
        raise LineError(f"check(record={record!r}): give the record's index, a whole number from 0")
    options = checked({"on_error": on_error, "dead_letters": dead_letters, "setup": setup, "on": on})
    source = looked_at(source)
    check_options(source, None, dead_letters)
    with Status("check", progress) as say:
        if setup is not None:
            policies.set_up(setup)
        return _checked(flow, source, limit, record, options, say)


def _checked(flow: Line, source: Iterable[Any], limit: int, record: int | None, options: Options, say: Status) -> Check:
    first = record or 0
    say("reads the records")
    at_hand: _AtHand | _RowsAtHand
    limit = limit if record is None else 1
    if (found := first_rows(flow.steps, source, limit, first=first, exact=True)) is not None:
        at_hand, unread, count = _RowsAtHand(found.rows, first), Failures(), len(found.rows)
    else:
        at_hand, unread, count = _read(source, first, limit)
    if record is not None and not count:
        raise LineError(f"record={record}: the source has no record {record:,}; indexes begin at 0")
    looking = _Looking(options, list(_carried(flow.steps)))
    looking.failed += unread.by_step()
    steps, looked_at = first_results.cut(flow.steps, max(LEAST_GIVEN, min(MOST_GIVEN, GIVEN // max(1, len(at_hand)))))
    flow = type(flow)(steps, flow.name)
    findings = looking.findings
    with closing(_Walk(flow.steps, looking, show=record is not None)) as walk:
        all_of_them = many(len(at_hand), "record")
        if any(step.in_caller for step in flow.steps) or findings or not len(at_hand):
            say(f"{all_of_them}, each step twice")
            walk.through(at_hand)  # a step with state would go on from one run to the next
        else:
            say(f"{all_of_them} in workers")
            went, at_hand = _in_workers(flow, at_hand, looking)
            say(f"{all_of_them}, each step twice")
            walk.through(at_hand)
            late = any(each.late for each in looked_at)
            if not (late or walk.interrupted) and not any(
                finding.kind in ("build", "pickle", "unequal", "changes", "forms") for finding in findings
            ):
                say(f"{all_of_them} in batches, and are their results the same?")
                _compare(flow, at_hand, went, walk, findings)
    findings += looking.failures()
    findings += map(_cut, (each for each in looked_at if each.cut))
    findings.sort(key=lambda finding: finding.advice)
    return Check(flow.name, count, tuple(findings), tuple(walk.path), record)


class _Looking:
    """What was found so far, for a run with these options."""

    def __init__(self, options: Options, findings: list[Finding]) -> None:
        self.options = options
        self.findings = findings
        self._failures: dict[str, Failures] = {}  # by step
        self.failed: list[FailedStep] = []
        self.why: dict[str, str] = {}  # by step: what comes of its exception on the way from a worker

    def add(self, index: int, step: str, error: BaseException) -> None:
        """A record has failed in a step."""
        if step not in self._failures:
            self._failures[step] = Failures()
            if why := serialize.pack_error(error).why:
                self.why[step] = f" (in a run it comes as a StepError: {why})"
        self._failures[step].add(index, step, error)

    def failures(self) -> Iterable[Finding]:
        """Those of lines that are no records, and of steps that fail."""
        becomes = what_becomes(self.options.on_error, self.options.dead_letters)
        found = [*self.failed, *(each for step in self._failures.values() for each in step.by_step())]
        for each in sorted(found, key=lambda each: each.first):
            reading = each.step == READING_STEP
            says = f"it {'cannot be read' if reading else 'fails'}: {each.error}{self.why.get(each.step, '')}"
            says += f"; {each.records:,} such records in all" if each.records > 1 else ""
            yield Finding(
                "reading" if reading else "fails",
                each.step,
                each.first,
                says,
                becomes,
                self.options.goes_on,
                each.records,
            )


def _cut(step: first_results.Firsts) -> Finding:
    most = f"at most {step.results:,}, of {size(first_results.SIZE)} or {first_results.SECONDS:g} s,"
    says = f"it gives more results for a record than are looked at: {most} were"
    return Finding("cut", step.step, None, says, "nothing, if a record may give that many", advice=True)


class _AtHand(dict[int, Any]):
    """Those that are looked at, by index."""

    def send(self, flow: Line, options: Options) -> ahead.Ahead:
        """What workers make of them."""
        copies = list(map(_copy, self.values()))
        return ahead.send(flow.steps, flow.name, copies, workers=2, keep=True, options=options)

    def without(self, indexes: Collection[int]) -> _AtHand:
        """All but these."""
        return _AtHand((index, record) for index, record in self.items() if index not in indexes)


class _RowsAtHand:
    """Rows of tables that are looked at, of a source with columns. `first`: the index of the first one."""

    def __init__(self, rows: Tables, first: int, indexes: list[int] | None = None) -> None:
        self.rows = rows
        self._first = first
        self._indexes = indexes if indexes is not None else list(range(first, first + len(rows)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indexes)

    def send(self, flow: Line, options: Options) -> ahead.Ahead:
        return ahead.send_tables(flow.steps, flow.name, self.rows, workers=2, options=options)

    def without(self, indexes: Collection[int]) -> _RowsAtHand:
        there = [n for n, index in enumerate(self._indexes) if index in indexes]
        left = [index for index in self._indexes if index not in indexes]
        return _RowsAtHand(without_rows(self.rows, there), self._first, left) if there else self

    def standing(self) -> _Standing:
        """All of them, of which there is at least one, before the first step."""
        splitter = self.rows.split()
        assert splitter is not None
        part = splitter.table()
        assert part is not None
        return _Standing(ArrowRows(part.table(), part.whole), self._indexes)


class _Standing:
    """Rows of a table between two steps, with the index of the record that each comes of."""

    def __init__(self, rows: ArrowRows, indexes: list[int]) -> None:
        self.rows = rows
        self.indexes = indexes

    def __len__(self) -> int:
        return len(self.rows)

    def each(self) -> list[tuple[int, Any]]:
        """As records."""
        return list(zip(self.indexes, each_record(self.rows)[0], strict=True))


def _read(source: Iterable[Any], first: int, count: int) -> tuple[_AtHand, Failures, int]:
    """Records by index, what of them cannot be read, and how many there are of both. Raises what the source raises."""
    reader = Reader(source, delivers=False, goes_on=True)
    records = _AtHand()
    unread = Failures()
    with lent(source):
        while reader.index < first + count and not reader.ended:
            at = reader.index
            some = reader.read_within(min(4096, first + count - at), WAIT)
            if reader.live and not some:
                break
            for index, record in enumerate(some, at):
                if index < first:
                    continue
                if type(record) is Unread:
                    unread.add(index, READING_STEP, record.error)
                else:
                    records[index] = record
    if reader.error is not None and reader.index < first + count:
        raise reader.error
    return records, unread, max(0, reader.index - first)


def _carried(steps: tuple[Step, ...]) -> Iterable[Finding]:
    """Steps that cannot be carried over to workers, or that carry much."""
    for step in steps:
        if step.in_caller:
            continue
        if (found := serialize.which_function([step.name], [step])) is not None:
            yield Finding(
                "carry", step.name, None, f"it cannot be carried over to a worker: {_told(found[1])}",
                'build what it needs in the worker with per_worker(), keep it here with kind="inline", or start="fork"',
            )  # fmt: skip
        elif (carried := weigh([step], float("inf"))) is not None and carried.size > NOTED_BYTES:
            says = f"it carries {carried.size / 1e6:,.0f} MB to each launched worker ({carried.seconds:.2g} s to pack)"
            remedy = "keep that in a module that workers import, or build it there with per_worker()"
            yield Finding("carry", step.name, None, says, f'{remedy}; start="fork" shares it', advice=True)


def _in_workers(
    flow: Line, at_hand: _AtHand | _RowsAtHand, looking: _Looking
) -> tuple[ahead.Ahead | None, _AtHand | _RowsAtHand]:
    """What workers make of them, None where they cannot, and those that may be tried here too."""
    findings, indexes = looking.findings, list(at_hand)
    try:
        went = at_hand.send(flow, looking.options)
    except TaktlineError as error:
        findings.append(Finding("workers", "", None, str(error), 'correct this, or run with how="loop"'))
        return None, at_hand
    except Exception as error:  # of a factory, in a worker
        findings.append(Finding("build", "", None, f"a step cannot be built in a worker: {_told(error)}", "correct it"))
        return None, at_hand
    for each in went.missed:
        findings.append(
            Finding(
                "surroundings", "", None, f"workers do not have {each} as it is here",
                "build it in each worker, with setup= or per_worker()",
            )
        )  # fmt: skip
    harmful = list(filter(ahead.harms, went.failed))
    goes_on, left_out = looking.options.goes_on, set()
    for mark in harmful:
        index = indexes[mark.index]
        limited = any(step.name == mark.step and step.timeout for step in flow.steps)
        if not ahead.hung(mark):
            assert isinstance(mark.error, WorkerDied)
            died = WorkerDied(index=index, step=mark.step, exit_code=mark.error.exit_code)
            says = f"it kills its worker ({str(died).splitlines()[0]})"
            becomes = what_becomes(looking.options.on_error, looking.options.dead_letters)
            findings.append(Finding("dies", mark.step, index, says, becomes, goes_on))
        elif limited:
            looking.add(index, mark.step, mark.error)
        else:
            says = f"it was not done after {ahead.HANGS_AFTER:g} s, and was ended"
            remedy = 'give it a limit, step(timeout=), and leave such records out with on_error="skip"'
            findings.append(Finding("hangs", mark.step, index, says, remedy))
        left_out.add(index)
    if went.ended:
        says = f"{went.ended}: the {len(indexes) - went.read:,} records behind them were not looked at"
        findings.append(Finding("hangs", "", None, says, "correct that first", advice=True))
        left_out.update(indexes[went.read :])
    return went, at_hand.without(left_out)


def _compare(
    flow: Line, at_hand: _AtHand | _RowsAtHand, went: ahead.Ahead | None, walk: _Walk, findings: list[Finding]
) -> None:
    """Results in workers beside those of the loop, and what moving costs beside what the work costs."""
    if went is None or not len(at_hand):
        return
    if isinstance(at_hand, _RowsAtHand):
        _compare_tables(flow, at_hand, went, findings)
        return
    records = at_hand
    harmful = set(map(id, filter(ahead.harms, went.failed)))
    results = [result for result in went.results if id(result) not in harmful]
    worker_ns = {each.name: each.ns_per_record for each in went.report.steps}
    here = list(flow(map(_copy, records.values()), how="loop", on_error="keep", progress=hidden))
    for at, (one, other) in enumerate(zip(here, results, strict=False)):
        if not _alike(one, other):
            says = f"result {at:,} is {excerpt(other)} in a worker and {excerpt(one)} here"
            findings.append(
                Finding("workers", "", None, says, "look for what differs: environment, files, hashes, state")
            )
            return
    if len(here) != len(results):
        says = f"{len(results):,} results in workers and {len(here):,} here"
        findings.append(Finding("workers", "", None, says, "look for what differs: environment, files, hashes, state"))
        return
    if len(records) < TELLS:
        return
    for step in flow.steps:
        ns, there, count = walk.ns.get(step.name, 0.0), worker_ns.get(step.name, 0.0), len(records)
        if not went.failed and there > SLOWER * ns and (there - ns) * count / 1e9 > NOTICED:
            says = f"a record takes {cost(there)} in a worker and {cost(ns)} here"
            remedy = "look for what each worker sets up or caches for itself, and for threads of numeric libraries"
            findings.append(Finding("slower", step.name, None, says, remedy, advice=True))
    moving, work = _moving(list(records.values())) + _moving(here), sum(walk.ns.values())
    if moving > work:
        says = f"moving a record costs {cost(moving)}, working on it {cost(work)}: workers make it slower"
        findings.append(Finding("slower", "", None, says, 'leave how="auto", which stays with the loop', advice=True))


def _compare_tables(flow: Line, at_hand: _RowsAtHand, went: ahead.Ahead, findings: list[Finding]) -> None:
    """Tables made by workers beside those that one process makes, in batches too."""
    run = type(flow)(all_here(flow.steps), flow.name)(at_hand.rows, on_error="skip", progress=hidden)
    here = list(came_of(outputs_of(run)))
    there = list(came_of(OutputBatch(results) for results in went.results))
    counts = sum(map(len, here)), sum(map(len, there))
    says = ""
    if (unlike := first_unlike(here, there, same)) is not None:
        at, one, other = unlike
        says = f"result {at:,} is {excerpt(other)} in a worker and {excerpt(one)} here"
    elif counts[0] != counts[1]:
        says = f"{counts[1]:,} results in workers and {counts[0]:,} here"
    if says:
        remedy = "look for what differs: environment, files, hashes, state"
        findings.append(Finding("workers", "", None, says, remedy))


def _moving(values: list[Any]) -> float:
    """Nanoseconds to pack and unpack one of these."""
    began = perf_counter()
    try:
        serialize.unpack([bytes(part) for part in serialize.pack(values)])
    except Exception:  # it cannot go at all, which has been told already
        return 0.0
    return (perf_counter() - began) * 1e9 / max(1, len(values))


class _Walk:
    """All records through one step after the other, in this process."""

    def __init__(self, steps: tuple[Step, ...], looking: _Looking, *, show: bool) -> None:
        self.steps = steps
        self.interrupted = False  # a step has raised what means Ctrl-C
        self.path: list[str] = []
        self.ns: dict[str, float] = {}  # what a record costs in each step
        self._findings = looking.findings
        self._looking = looking
        self._show = show
        self._loop: OneByOne | None = None
        self._known: set[tuple[str, str]] = set()  # of each kind and step the first record tells

    def through(self, at_hand: _AtHand | _RowsAtHand) -> None:
        """Walk until the end, or a step that cannot be built."""
        borders = _borders(self.steps)
        values: list[tuple[int, Any]] | _Standing
        if isinstance(at_hand, _AtHand):
            values = [(index, _copy(record)) for index, record in at_hand.items()]
        else:
            values = at_hand.standing() if len(at_hand) else []
        for n, step in enumerate(self.steps):
            if isinstance(values, _Standing) and not plans.takes_tables([step]):
                values = values.each()
            if n in borders and isinstance(values, list):
                self._packable(values, step.name, "its record cannot be sent to a worker", "record")
            try:
                fn = step.make()
            except Exception as error:
                self._find("build", step, None, f"it cannot be built: {_told(error)}", "correct what it is built from")
                return
            began = perf_counter()
            given = len(values)
            if isinstance(values, _Standing):
                values = self._rows(step, fn, values)
            elif step.role is Role.BATCH:
                values = self._batches(step, fn, values)
            else:
                values = self._one_by_one(step, self._plain(step, fn), values)
            if isinstance(values, list):
                self._gives_nothing(step, values)
            self.ns.setdefault(step.name, (perf_counter() - began) * 1e9 / max(1, given))
            if step.maker is not None and hasattr(fn, "close"):
                fn.close()
            if self._show:
                some = values if isinstance(values, list) else values.each()
                shown = [excerpt(value) for _, value in some[:SHOWN]]
                shown += [f"and {len(some) - SHOWN:,} more"] if len(some) > SHOWN else []
                self.path.append(f"{step.name}: " + (", ".join(shown) or "nothing"))
        if len(self.steps) in borders and isinstance(values, list):
            self._packable(values, self.steps[-1].name, "its result cannot be sent to the caller", "result")

    def _gives_nothing(self, step: Step, values: list[tuple[int, Any]]) -> None:
        """A step that gives None for every record may have been meant to return it."""
        if step.role in (Role.MAP, Role.BATCH) and len(values) > 1 and all(value is None for _, value in values):
            says = "it returns None for every record"
            self._find(
                "none", step, None, says, "return the record, or what is made of it", advice=step is self.steps[-1]
            )

    def _plain(self, step: Step, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function of one record that can be called, where it may be an `async def`."""
        if step.kind != "async":
            return fn
        from taktline._segment.async_steps import OneByOne

        self._loop = self._loop or OneByOne()
        return self._loop.plain(step, fn)

    def close(self) -> None:
        """End what `async def` steps have left."""
        if self._loop is not None:
            self._loop.close()

    def _find(self, kind: str, step: Step, index: int | None, says: str, remedy: str, *, advice: bool = False) -> None:
        if (kind, step.name) not in self._known:
            self._known.add((kind, step.name))
            self._findings.append(Finding(kind, step.name, index, says, remedy, advice))

    def _packable(self, values: list[tuple[int, Any]], step: str, says: str, what: str) -> None:
        for index, value in values:
            try:
                serialize.pack_each([value], check=True)
            except serialize.NotSerializable as error:
                remedy = movable(f"the {what}", str(error.error))
                self._findings.append(Finding("pickle", step, index, f"{says}: {_told(error.error)}", remedy))
                return

    def _failed(self, step: Step, index: int, error: BaseException) -> None:
        self.interrupted = self.interrupted or isinstance(error, KeyboardInterrupt)
        self._looking.add(index, step.name, error)

    # --- steps of one record ---

    def _one_by_one(self, step: Step, fn: Callable[[Any], Any], values: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        out: list[tuple[int, Any]] = []
        spent, began = 0.0, perf_counter()
        for index, value in values:
            before = _packed(value)
            one = perf_counter()
            result, error = _outcome(step, fn, value)
            spent += perf_counter() - one
            if error is not None:
                self._failed(step, index, error)
            elif before is not None and not step.in_caller and perf_counter() - began < AGAIN + spent:
                result = self._again(step, fn, index, value, before, result)
            if error is None:
                out += _passed_on(step, index, value, result)
        self.ns[step.name] = spent * 1e9 / max(1, len(values))
        return out

    def _again(self, step: Step, fn: Callable[[Any], Any], index: int, value: Any, before: bytes, result: Any) -> Any:
        """Run it again, on the record as it was and as it is now; the first result as it was."""
        kept = _copy((value, result))[1]  # the value may be inside of it
        after = _packed(value)
        other, error = _outcome(step, fn, pickle.loads(before))
        if error is not None or not same(kept, other):
            got = f"raises {_told(error)}" if error is not None else f"gives {excerpt(other)}"
            self._find(
                "unequal", step, index, f"the same record again {got}, first {excerpt(kept)}",
                "it has hidden state or chance: use serial() for state, or draw chance from the record itself",
            )  # fmt: skip
        elif after is not None and after != before:
            other, error = _outcome(step, fn, pickle.loads(after))
            if error is not None or not same(kept, other):
                says = f"it changes the record it is given, and gives {excerpt(other)} for that, {excerpt(kept)} before"
                self._find(
                    "changes", step, index, says, "change a copy, so that a second try finds the record as it was"
                )
        return kept

    # --- batch steps ---

    def _rows(self, step: Step, fn: Callable[[Any], Any], values: _Standing) -> list[tuple[int, Any]] | _Standing:
        """A batch step over rows of a table: all at once, again, and one by one."""
        alone = replace(step, fn=fn, maker=None, by=None, verify=None, retries=0, timeout=None)
        whole = _run(alone, values.rows)
        for failure in whole.failures:
            self._failed(step, values.indexes[failure.origin], failure.error)
        places = whole.origins or range(len(whole.values))
        if not step.in_caller:
            self._rows_alone(step, alone, values, whole, list(places))
        indexes = [values.indexes[at] for at in places]
        if type(whole.values) is ArrowRows:
            return _Standing(whole.values, indexes)
        return list(zip(indexes, records_of(whole.values), strict=True))

    def _rows_alone(self, step: Step, alone: Step, values: _Standing, whole: Batch, places: list[int]) -> None:
        """Each row by itself, with `like` where there is one; and then all of them again."""
        began, tolerance = perf_counter(), step.verify or 0.0
        if step.like is not None:
            step = replace(step, like=self._plain(step, step.like))
        for at in dict.fromkeys(places) if step.by is None else ():  # or it gets whole keys
            if perf_counter() - began > AGAIN:
                break
            start, end = bisect_left(places, at), bisect_right(places, at)
            given, row = _several(whole.values[start:end]), values.rows[at : at + 1]
            error: BaseException | None = None
            if step.like is not None:
                one, error = _outcome(replace(step, role=Role.MAP), step.like, each_record(row)[0][0])
                wanted = [one]
            else:
                batch = _run(alone, row, first=at)
                wanted = _several(batch.values)
                for failure in batch.failures:
                    error = failure.error
            if error is not None or not same(given, wanted, tolerance):
                name = "like=" if step.like is not None else "a batch of one"
                self._differs_alone(step, values.indexes[at], given, wanted, name, error)
                return
        again = _run(alone, values.rows)
        if (unlike := first_unlike([whole.values], [again.values], same)) is not None:
            place, first, other = unlike
            self._differs_again(step, values.indexes[places[place]], first, other)

    def _differs_alone(
        self, step: Step, index: int, given: list[Any], wanted: list[Any], name: str, error: BaseException | None
    ) -> None:
        """A record has another result in a batch than by itself."""
        result, other = (given[0], wanted[0]) if step.keeps_number and given and wanted else (given, wanted)
        got = f"raises {_told(error)}" if error is not None else f"gives {excerpt(other)}"
        self._find(
            "forms", step, index, f"in a batch of many it gives {excerpt(result)}, {name} {got}",
            "make a record's result independent of its neighbours, correct like=, or state a tolerance: verify=1e-9",
        )  # fmt: skip

    def _differs_again(self, step: Step, index: int, first: Any, other: Any) -> None:
        """A batch has other results a second time."""
        self._find(
            "unequal", step, index, f"the same batch again gives {excerpt(other)}, first {excerpt(first)}",
            "it has hidden state, chance, or changes the batch's records: work on a copy",
        )  # fmt: skip

    def _batches(self, step: Step, fn: Callable[[Any], Any], values: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        calls = [0]

        def counting(batch: Any) -> Any:
            calls[0] += 1
            return fn(batch)

        size = step.size or TOGETHER if step.by is None else len(values) or 1  # whole keys
        alone = replace(step, fn=counting, maker=None, by=None, verify=None, size=size, retries=0, timeout=None)
        whole = _run(alone, [value for _, value in values])
        handed = calls[0]
        for failure in whole.failures:
            self._failed(step, values[failure.origin][0], failure.error)
        if not whole.failures and handed > -(-len(values) // size):
            self._find(
                "apart", step, None, f"it was handed {handed:,} batches where {-(-len(values) // size):,} would do: "
                "neighbouring records mix types or columns", "make them alike in a step before", advice=True,
            )  # fmt: skip
        results: dict[int, list[Any]] = {}
        for position, result in zip(whole.origins or range(len(values)), whole.values, strict=True):
            results.setdefault(position, []).append(result)
        if not step.in_caller:
            self._scalar_form(step, alone, values, results)
        return [(values[position][0], result) for position, given in results.items() for result in given]

    def _scalar_form(
        self, step: Step, alone: Step, values: list[tuple[int, Any]], results: dict[int, list[Any]]
    ) -> None:
        """Give a batch step its records one at a time, with `like` where there is one, and then as a batch again."""
        began, tolerance = perf_counter(), step.verify or 0.0
        if step.like is not None:
            step = replace(step, like=self._plain(step, step.like))
        copies = {position: _copy(values[position][1]) for position in results}
        name = "like=" if step.like is not None else "a batch of one"
        for position, given in results.items() if step.by is None else ():
            if perf_counter() - began > AGAIN:
                return
            wanted, error = _single(step, alone, copies[position])
            if error is not None or not same(given, wanted, tolerance):
                self._differs_alone(step, values[position][0], given, wanted, name, error)
                return
        again = _run(alone, [_copy(values[position][1]) for position in results])
        firsts = ((position, result) for position, given in results.items() for result in given)
        for (position, first), result in zip(firsts, again.values, strict=False):
            if not same(first, result):
                self._differs_again(step, values[position][0], first, result)
                return


def _several(values: Any) -> list[Any]:
    """A few results as a list."""
    return each_record(values)[0] if type(values) is ArrowRows else records_of(values)


def _run(step: Step, values: list[Any] | ArrowRows, first: int = 0) -> Batch:
    segment = Segment((step,), goes_on=True)
    segment.keeps_interrupt = True
    segment.make()
    with closing(segment):
        try:
            return segment.run(Batch(values, first=first), formed=type(values) is ArrowRows)
        except KeyboardInterrupt as error:  # which may have come of any of them
            if came_from_outside(error):
                raise
            return Batch([], [], [Failure(0, 0, step.name, error)])


def _single(step: Step, alone: Step, value: Any) -> tuple[list[Any], BaseException | None]:
    """The results of one record alone."""
    if step.like is not None:
        result, error = _outcome(replace(step, role=Role.MAP), step.like, value)
        return [result], error
    batch = _run(alone, [value])
    failure: Failure | None = batch.failures[0] if batch.failures else None
    return ([], failure.error) if failure is not None else (batch.values, None)


def _outcome(step: Step, fn: Callable[[Any], Any], value: Any) -> tuple[Any, BaseException | None]:
    try:
        result = fn(value)
        if step.role is Role.EXPAND:
            return list(result), None
        policies.refuse(result, step.name, awaited=step.kind == "async")
        return (bool(result) if step.role is Role.KEEP else result), None
    except BaseException as error:  # in a run it is the record's failure, or ends it, whatever it is
        if policies.interrupts(error) or (isinstance(error, KeyboardInterrupt) and came_from_outside(error)):
            raise
        return None, error


def _passed_on(step: Step, index: int, value: Any, result: Any) -> list[tuple[int, Any]]:
    if step.role is Role.KEEP:
        return [(index, value)] if result else []
    return [(index, each) for each in result] if step.role is Role.EXPAND else [(index, result)]


def _borders(steps: tuple[Step, ...]) -> set[int]:
    """Positions of steps before which values go to another process; the number of steps: the results do."""
    found, at = set(), 0
    for segment in plans.line(steps, 2).segments:
        if segment.workers:
            found |= {at, at + len(segment.steps)}
        at += len(segment.steps)
    return found


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Failed) and isinstance(other, Failed):
        wrapped = "StepError" in type(other.error).__name__
        return one.step == other.step and (wrapped or type(one.error) is type(other.error))
    return same(one, other)


def _packed(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # it cannot go to a worker either, which is told where it has to
        return None


def _copy(value: Any) -> Any:
    """A copy as a worker would get it; the value itself where it cannot be carried."""
    packed = _packed(value)
    try:
        return value if packed is None else pickle.loads(packed)
    except Exception:  # told where it has to go to a worker
        return value


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


named(globals())
