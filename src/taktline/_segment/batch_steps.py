"""Batch steps: what their functions are handed, and what becomes of the records where that does not come through."""

from __future__ import annotations

import copy
import traceback
from bisect import bisect_left, bisect_right
from collections.abc import Coroutine, Generator, Iterator, Sequence
from itertools import pairwise
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from taktline._excerpts import excerpt
from taktline._recipe.steps import Gives, Role, Step
from taktline._segment import policies, step_results
from taktline._segment.batch import Batch, Failure
from taktline._segment.equality import same
from taktline._segment.forms import Columns, Misfit, Unfit, cannot_stand, form_of, not_of_the_form
from taktline._segment.frames import UNKNOWN_ARGUMENT
from taktline._segment.picking import picked, positions, renumbered
from taktline._segment.picking import places as placed
from taktline._segment.tables import ArrowRows, put_together, way_of
from taktline._segment.values import Table, records_of
from taktline._signals import pass_on
from taktline.errors import BatchLengthError, FormsDiffer, NotAwaited

if TYPE_CHECKING:
    from taktline._segment.seeds import Seeds

VERIFIED = 256  # records of each batch step with verify= that are compared with its like=, in each worker
SHOWN = 3  # records of those that differ

T = TypeVar("T")


def stretches(steps: Sequence[Step], *, single: bool = False) -> list[tuple[int, int]]:
    """Cut into stretches of scalar steps (`single`: one each) and of batch steps between which nothing is converted:
    pairs (first, one past the last)."""
    cuts: list[tuple[int, int]] = []
    for n, step in enumerate(steps):
        scalar = step.role is not Role.BATCH and n > 0 and steps[n - 1].role is not Role.BATCH
        # What is told apart record by record must know which of them is whose.
        told = step.like is None or all(each.keeps_number for each in steps[cuts[-1][0] if cuts else n : n])
        if (scalar and not single) or (n > 0 and steps[n - 1].joins(step) and told):
            cuts[-1] = (cuts[-1][0], n + 1)
        else:
            cuts.append((n, n + 1))
    return cuts


class Host(Protocol):
    """The segment that a part belongs to."""

    steps: tuple[Step, ...]
    goes_on: bool
    caught: policies.Caught
    keeps_interrupt: bool  # Ctrl-C in a step ends the batch as a failure does; who runs it raises it
    seeds: Seeds | None
    starts: list[int]  # origins at which a key begins, where a step takes its batches by one

    def callables(self) -> list[Any]:
        """The steps' callables, in order, as they are to be called."""

    def likes(self) -> list[Any]:
        """Of batch steps the callables for one record, where they have one."""

    def runs(self, part: SegmentPart, values: Any, end: int) -> None:
        """The values of this iterator, the last of which stands before position `end`, are run now."""

    def begins(self, step: int) -> None:
        """A step begins within a part of several."""

    def note(self, step: int, records: int, ns: int) -> None:
        """So many records were so long in a step."""


class SegmentPart:
    """Some neighbouring steps of a segment. Walks around failures that came in; subclasses do the spans between."""

    takes_tables = False  # its values may be rows of a table

    def __init__(self, segment: Host, first: int, last: int, *, traced: bool) -> None:
        self.segment = segment
        self.first, self.last = first, last
        self.steps = segment.steps[first:last]
        self.callables = segment.callables()[first:last]
        self.goes_on = segment.goes_on
        self.seeds = segment.seeds
        self.traced = traced  # say which record each value came from

    def place(self, out: Batch) -> int:
        """How many results there are so far."""
        return len(out.values)

    def run(self, batch: Batch, timed: bool, *, formed: bool = False) -> Batch:
        out = Batch([], [] if self.traced or batch.origins is not None else None)
        for start, end, failure in batch.spans():
            if not self.span(batch, start, end, out, timed):
                break
            if failure is not None:
                out.keep(failure)
                if not self.goes_on:
                    break
        return out

    def flow(self, batch: Batch, timed: bool, *, formed: bool = False) -> Generator[Batch, None, Batch]:
        """As `run`, where it may come piece by piece: yields what may go on before the rest, and returns the rest."""
        yield from ()
        return self.run(batch, timed, formed=formed)

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        """Run the values from `start` to `end` into `out`; False where a failure ends the batch."""
        raise NotImplementedError

    def step_in(self, frame: FrameType) -> int | None:
        """Which step of this part the frame is at; None where it is another function's."""
        return None

    def fail(
        self, out: Batch, origin: int, step: int, error: BaseException, tb: TracebackType | None, given: str = ""
    ) -> bool:
        """Note a failure; whether the batch goes on. `given`: what the step was given, as an excerpt."""
        interrupted = isinstance(error, KeyboardInterrupt) and policies.in_caller()
        if interrupted and not self.segment.keeps_interrupt:
            raise error  # Ctrl-C is the user's, not the record's
        if policies.interrupts(error, tb):
            raise error  # whatever the run does with failures
        self.segment.caught.now(error)
        if out.lost(origin):
            return True
        if self.goes_on:
            out.take_back(origin)
        text = "".join(traceback.format_exception(type(error), error, tb)) if tb is not None else ""
        name = self.segment.steps[step].name
        out.failures.append(Failure(self.place(out), origin, name, error, text, given=given))
        return self.goes_on and not interrupted


class BatchSteps(SegmentPart):
    """Batch steps of one form: one conversion before them, one behind, none between.

    What fails as a batch is tried again in parts, from the values that came in: a step may have changed the batch that
    it was handed. So the results are those of the loop, down to the record at fault.

    Written as coroutines, for steps that wait. Over plain functions they never do, and `at_once` runs them.
    """

    waits = False  # its callables give what must be awaited

    def __init__(self, segment: Host, first: int, last: int, *, traced: bool) -> None:
        super().__init__(segment, first, last, traced=traced)
        self.form = form_of(self.steps[0].form)
        self.way = way_of(self.steps[0].form) if self.seeds is None and not self.waits else None
        self.takes_tables = self.way is not None
        self.tabled = False  # the values are rows of a table, and so are the results
        self.size = min((step.size for step in self.steps if step.size is not None), default=None)
        self.likes = segment.likes()[first:last]
        self.unverified = [VERIFIED if step.verify is not None else 0 for step in self.steps]
        self.pieces: list[Columns | ArrowRows] = []  # results that are no records yet
        self.now = 0  # the step at work
        self.keeps_number = all(step.keeps_number for step in self.steps)
        self.by_keys = any(step.by is not None for step in self.steps)

    def step_in(self, frame: FrameType) -> int | None:
        return self.now if frame.f_code is BatchSteps.through.__code__ else None

    def run(self, batch: Batch, timed: bool, *, formed: bool = False) -> Batch:
        self.pieces, self.tabled = [], formed and type(batch.values) is ArrowRows
        failed = batch.failures if self.by_keys else []
        out = super().run(batch if not failed else self._without(batch, failed), timed)
        if self.tabled and (rows := _as_one(self.pieces)) is not None:
            out.values, self.pieces = rows, []
            if not out.failures and batch.origins is None and self.keeps_number:
                out.origins = None
        elif formed and self.pieces and not (out.values or out.failures or failed) and self.steps[0].form != "list":
            out.values = Table(self.pieces)
        else:
            self.settle(out)
        if failed and (self.goes_on or not out.failures):
            for each in failed:
                each.place = out.before(each.origin)
            out.failures = sorted([*out.failures, *failed], key=lambda each: (each.place, each.origin))
        return out

    def _without(self, batch: Batch, failed: list[Failure]) -> Batch:
        """The values that are left of whole keys, though records between them have failed; where that ends the run, those
        before the key that has not come whole."""
        starts = self.segment.starts
        first = starts[bisect_right(starts, failed[0].origin) - 1] if starts else 0
        count = len(batch.values) if self.goes_on else batch.before(first)
        return Batch(batch.values[:count], batch.origins and batch.origins[:count], [], batch.first)

    def _borders(self, batch: Batch, start: int, end: int) -> list[int]:
        """Where a key begins among the values between `start` and `end`, and not at these."""
        found = self.segment.starts
        if batch.origins is not None:
            found = sorted({batch.before(origin) for origin in found})
        return found[bisect_right(found, start) : bisect_left(found, end)]

    def place(self, out: Batch) -> int:
        return len(out.values) + sum(map(len, self.pieces))

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        self.segment.runs(self, None, start)
        for at, upto, turn in self.lists(batch, start, end):
            if not at_once(self.through(Piece(batch, out, at, batch.values[at:upto], turn=turn))):
                return False
        if batch.failures and not self.tabled:  # their places are told by the results before them
            self.settle(out)
        return True

    def lists(self, batch: Batch, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The lists that the values from `start` to `end` are handed over in: from, up to, and which one it is of those that
        begin with the same record."""
        size = self.size or max(1, end - start)
        if self.by_keys:
            at = upto = start
            for border in [*self._borders(batch, start, end), end]:
                if at < upto and border - at > size:
                    yield at, upto, 0
                    at = upto
                upto = border
            if at < end:
                yield at, end, 0
            return
        if self.seeds is None:
            yield from ((at, min(at + size, end), 0) for at in range(start, end, size))
            return
        at, turn = start, 0
        while at < end:
            block = self.seeds.block_of(batch.origin(at))
            upto = at + 1
            while upto < min(at + size, end) and self.seeds.block_of(batch.origin(upto)) == block:
                upto += 1
            yield at, upto, turn
            turn = turn + 1 if upto < end and batch.origin(upto) == batch.origin(at) else 0
            at = upto

    def fail(
        self, out: Batch, origin: int, step: int, error: BaseException, tb: TracebackType | None, given: str = ""
    ) -> bool:
        if not self.tabled:
            self.settle(out)
        return super().fail(out, origin, step, error, tb, given)

    def settle(self, out: Batch) -> None:
        """Put the results so far where they belong, as plain records."""
        for piece in self.pieces:
            out.values.extend(piece.records())
        self.pieces = []

    async def through(self, piece: Piece) -> bool:
        """A piece through the steps that it has before it; False where a failure ends the batch."""
        while piece.values and piece.out.lost(piece.origin(0)):
            piece = piece.part(1, len(piece.values))
        if piece.values and self.seeds is not None:
            self.seeds.at(piece.origin(0), piece.turn)
        values, began = piece.values, perf_counter_ns()
        if not values or piece.first == len(self.steps):
            return self._done(piece, Columns(None, [values]))
        # What an exception was caught for is done behind the `except`: what a step raises meanwhile would have it as context.
        table = values if type(values) is ArrowRows else None
        state, unfit = self._taken(values, piece)
        if unfit is not None:
            return await self._in_parts(piece, piece.first, cannot_stand(self.steps[piece.first], unfit))
        count, places, _lent = len(values), None, state  # which shares memory for as long as it is kept
        columns: Columns | ArrowRows | None = None
        for n in range(piece.first, len(self.steps)):
            self.now = n
            if isinstance(state, Columns):  # of another library's table
                state, unfit = self._taken(state.records())
                if unfit is not None:
                    return await self._in_parts(piece, n, cannot_stand(self.steps[n], unfit))
            if n > 0:
                self.segment.begins(self.first + n)
            verified = self._to_verify(n, state)
            raised: BaseException | None = None
            given, result = count, None
            try:
                result = self.callables[n](state)
                if self.waits:
                    result = await result
                policies.refuse(result[0] if type(result) is list and result else result, self.steps[n].name)
                if type(result) is not list:
                    result = step_results.drawn(result)
            except NotAwaited as error:
                return self._all_fail(piece, n, error)
            except BaseException as error:
                if self.passes(error):
                    raise
                raised = error
            if raised is not None:
                self.segment.caught.now(raised)
                self.unverified[n] += len(verified)
                if len(values) == 1:
                    self.segment.note(self.first + n, 1, perf_counter_ns() - began)
                return await self._rescue(piece, n, raised, state)
            try:
                state, count, places = self._after(piece, n, state, result, count, places)
            except BatchLengthError as error:
                return self._all_fail(piece, n, error, places)
            except Misfit as misfit:
                return self._all_fail(piece, n, not_of_the_form(self.steps[n], result, misfit), places)
            except _Unplaced:
                return await self._each_alone(piece)
            if not count:
                self.segment.note(self.first + n, given, perf_counter_ns() - began)
                return True
            if verified or n + 1 == len(self.steps):
                try:
                    columns = self._given(state, table)
                except Exception as error:  # a value without an exact one in Python; libraries have many errors
                    pass_on(error)
                    columns, raised = None, not_of_the_form(self.steps[n], state, error)
                if raised is not None:
                    return await self._in_parts(piece, n, raised)
            self.segment.note(self.first + n, given, perf_counter_ns() - began)
            if verified and columns is not None and (rows := await self._differing(n, verified, columns.records())):
                return await self._around(piece, n, rows, columns)
            began = perf_counter_ns()
        assert columns is not None
        return self._done(piece, columns, places)

    def _after(
        self, piece: Piece, n: int, before: Any, result: Any, count: int, places: list[int] | None
    ) -> tuple[Any, int, list[int] | None]:
        """The batch after a step that was given `count` records as `before` and returned this: in the form or as Columns, how
        many results it has, and of which of the piece's values each of them comes; None: of the one at its own place.
        Raises BatchLengthError, Misfit."""
        step = self.steps[n]
        if step.gives is Gives.ROWS:
            state, returned_count = self._checked(result, count)
            if returned_count != count:
                raise BatchLengthError(step=step.name, given=count, returned=returned_count)
            return state, count, places
        if step.gives is Gives.MASK:
            at, length = positions(result, before)
            if length != count:
                raise BatchLengthError(step=step.name, given=count, returned=length)
            if len(at) in (0, count):
                return before, len(at), places if at else []
            return picked(step.form, before, at), len(at), at if places is None else [places[each] for each in at]
        state, many = self._checked(result, count)
        if many != count and self._checked(result, many)[1] != many:
            raise Misfit("columns of one length")
        first = piece.batch.first + piece.at if places is None and type(piece.values) is ArrowRows else 0
        told = placed(state, first, count)
        if told is None:
            if self.goes_on and self._parts_of(piece):
                raise _Unplaced
            told = [0] * many
        return renumbered(state, many), many, told if places is None else [places[each] for each in told]

    async def _each_alone(self, piece: Piece) -> bool:
        """The values one by one, or key by key, where it is not told which result comes of which."""
        borders = [0, *self._parts_of(piece), len(piece.values)]
        for start, end in pairwise(borders):
            if not await self.through(piece.part(start, end)):
                return False
        return True

    def _parts_of(self, piece: Piece) -> Sequence[int]:
        """Where a piece can be cut."""
        if not self.by_keys:
            return range(1, len(piece.values))
        end = piece.at + len(piece.values)
        return [border - piece.at for border in self._borders(piece.batch, piece.at, end)]

    def _taken(self, values: Any, piece: Piece | None = None) -> tuple[Any, Unfit | None]:
        """The values in the form, or why they do not stand in it."""
        try:
            if type(values) is ArrowRows and self.way is not None:
                first = piece.batch.first + piece.at if piece is not None else 0
                return self.way.take(values, first, lent=True), None
            return self.form.take(records_of(values)), None
        except Unfit as unfit:
            return None, unfit

    def _given(self, state: Any, table: ArrowRows | None) -> Columns | ArrowRows:
        """What the steps made, of rows of a `table` or of records, as columns. Raises Misfit, and the libraries' own."""
        if isinstance(state, Columns):
            return state
        if table is not None and self.tabled and self.way is not None:
            rows = self.way.give(state, table)
            if rows is not None:
                return rows
        return self.form.give(state)

    def _checked(self, result: Any, given: int) -> tuple[Any, int]:
        """What a step returned, in the form or as Columns, and how many results that is."""
        try:
            return self.form.checked(result, given)
        except Misfit:
            if (table := step_results.as_table(result, given)) is None:
                raise
            return table

    def _done(self, piece: Piece, columns: Columns | ArrowRows, places: list[int] | None = None) -> bool:
        count = len(piece.values)
        if count:
            self.pieces.append(columns)
        if piece.out.origins is not None and places is not None:
            piece.out.origins.extend(map(piece.origin, places))
        elif piece.out.origins is not None:
            known = piece.batch.origins
            at = range(piece.at, piece.at + count)
            piece.out.origins.extend(at if known is None else known[piece.at : piece.at + count])
        return True

    # --- a piece that does not come through ---

    async def _in_parts(self, piece: Piece, step: int, error: BaseException, given: Any = UNKNOWN_ARGUMENT) -> bool:
        """Both halves apart; a single record, or a key, fails in `step`, which was `given` this in the place of one."""
        if not (borders := self._parts_of(piece)):
            tb, failing = policies.own(error.__traceback__), range(len(piece.values))
            shown = "" if given is UNKNOWN_ARGUMENT else excerpt(given)
            return all(self.fail(piece.out, piece.origin(n), self.first + step, error, tb, shown) for n in failing)
        half = borders[(len(borders) - 1) // 2]
        return await self.through(piece.part(0, half)) and await self.through(piece.part(half, len(piece.values)))

    async def _rescue(self, piece: Piece, step: int, error: BaseException, state: Any) -> bool:
        """`step`, handed `state`, has raised: its records one by one with its `like`, or in parts."""
        like = self.likes[step]
        if like is None:
            given = state[0] if type(state) is list and len(state) == 1 else UNKNOWN_ARGUMENT
            return await self._in_parts(piece, step, error, given)
        odd: BaseException | None = None
        try:
            records = await self._before(piece, step)
        except BaseException as again:  # of steps that came through a moment ago
            if self.passes(again):
                raise
            odd = again
        if odd is not None:
            return await self._in_parts(piece, step, odd)
        results: list[Any] = []
        for n, record in enumerate(records):
            if self.seeds is not None:
                self.seeds.at(piece.origin(n), piece.turn)
            failed: BaseException | None = None
            try:
                result = like(record)
                results.append(await result if self.waits else result)
            except BaseException as raised:
                if self.passes(raised):
                    raise
                failed = raised
            if failed is not None:
                if not await self.through(piece.part(n - len(results), n, results, step + 1)):
                    return False
                if not await self._in_parts(piece.part(n, n + 1), step, failed, record):
                    return False
                results = []
        return await self.through(piece.part(len(records) - len(results), len(records), results, step + 1))

    async def _before(self, piece: Piece, step: int) -> list[Any]:
        """The records as they are before `step`, made anew."""
        if step == piece.first:
            return records_of(piece.values)
        state, unfit = self._taken(piece.values, piece)
        if unfit is not None:
            raise unfit
        for n in range(piece.first, step):
            result = self.callables[n](state)
            state, _ = self._checked(step_results.drawn(await result if self.waits else result), len(piece.values))
            if isinstance(state, Columns) and n + 1 < step:
                state = self.form.take(state.records())
        return (state if isinstance(state, Columns) else self.form.give(state)).records()

    def _all_fail(self, piece: Piece, step: int, error: BaseException, places: list[int] | None = None) -> bool:
        """Which result belongs to which record cannot be told: all of the piece's records fail that are still there."""
        there = range(len(piece.values)) if places is None else dict.fromkeys(places)
        return all(self.fail(piece.out, piece.origin(n), self.first + step, error, None) for n in there)

    # --- batch form and scalar form side by side ---

    def _to_verify(self, step: int, state: Any) -> list[Any]:
        """The first records that `step` is given, as they are before it."""
        if not self.unverified[step]:
            return []
        if self.form is form_of("list"):
            records = copy.deepcopy(list(state[: self.unverified[step]]))
        else:
            records = self.form.give(state).records()[: self.unverified[step]]
        self.unverified[step] -= len(records)
        return records

    async def _differing(
        self, step: int, records: list[Any], results: list[Any]
    ) -> list[tuple[int, tuple[str, str, str]]]:
        """Positions and excerpts of the records for which the step's `like` gives something else."""
        like, tolerance = self.likes[step], self.steps[step].verify
        rows = []
        for n, record in enumerate(records):
            shown = excerpt(record)
            try:
                wanted = like(record)
                if self.waits:
                    wanted = await wanted
            except Exception as error:
                pass_on(error)
                rows.append((n, (shown, excerpt(results[n]), f"raises {type(error).__name__}: {error}")))
                continue
            if not same(results[n], wanted, tolerance or 0.0):
                rows.append((n, (shown, excerpt(results[n]), excerpt(wanted))))
        return rows

    async def _around(
        self, piece: Piece, step: int, rows: list[tuple[int, tuple[str, str, str]]], columns: Columns | ArrowRows
    ) -> bool:
        """The records that differ fail, those between them go on."""
        results, step_after = columns.records(), step + 1
        at = 0
        for n, (position, _) in enumerate([*rows, (len(results), ("", "", ""))]):
            if not await self.through(piece.part(at, position, results[at:position], step_after)):
                return False
            if position == len(results):
                break
            error = FormsDiffer(
                step=self.steps[step].name, rows=[row for _, row in rows[n : n + SHOWN]],
                tolerance=self.steps[step].verify or 0.0,
            )  # fmt: skip
            if not self.fail(piece.out, piece.origin(position), self.first + step, error, None):
                return False
            at = position + 1
        return True

    def passes(self, error: BaseException) -> bool:
        """Whether an exception that came out of a step has nothing to do with its records."""
        return (policies.in_caller() and isinstance(error, KeyboardInterrupt)) or policies.interrupts(error)


def _as_one(pieces: Sequence[Columns | ArrowRows]) -> ArrowRows | None:
    """All of them as rows of one table; None where they are no such rows, or of other types."""
    rows = [piece for piece in pieces if isinstance(piece, ArrowRows)]
    return put_together(rows) if rows and len(rows) == len(pieces) else None


class _Unplaced(Exception):
    """Raised where nothing tells which result comes of which record."""


class Piece:
    """Some consecutive values of a batch, with the steps of its part from `first` on before them."""

    __slots__ = ("at", "batch", "first", "out", "turn", "values")

    def __init__(self, batch: Batch, out: Batch, at: int, values: Any, first: int = 0, turn: int = 0) -> None:
        self.batch, self.out, self.at, self.values, self.first, self.turn = batch, out, at, values, first, turn

    def origin(self, n: int) -> int:
        return self.batch.origin(self.at + n)

    def part(self, start: int, end: int, values: list[Any] | None = None, first: int | None = None) -> Piece:
        """A part of it, where `values` is given with those as they are before the step `first`."""
        mine = self.values[start:end] if values is None else values
        return Piece(self.batch, self.out, self.at + start, mine, self.first if first is None else first, self.turn)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that has nothing to wait for.

    >>> async def double(n):
    ...     return n * 2
    >>> at_once(double(2))
    4
    """
    try:
        call.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    raise RuntimeError("a plain step has waited")
