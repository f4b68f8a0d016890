"""A segment at work: its steps over one batch, with every failure found exactly and the results before it kept."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from taktline._recipe.steps import Role, Step
from taktline._segment import guard
from taktline._segment.batch import Batch, Failure, Mark, no_mark
from taktline._segment.compiled import Compiled
from taktline._segment.forms import Columns, Formed, Misfit, Unfit, cannot_stand, form_of
from taktline._segment.same import same
from taktline.errors import BatchLengthError, FormError, FormsDiffer, excerpt

if TYPE_CHECKING:
    from taktline._segment.seeds import Seeds
    from taktline._segment.waiting import OneByOne

TIMED_EVERY = 16  # one batch in so many has its first records timed step by step
VERIFIED = 256  # records of each batch step with verify= that are compared with its like=, in each worker
SHOWN = 3  # records of those that differ
TIMED_RECORDS = 16  # 2 clock reads a step and record, some 100 ns: under 1 % of a batch where it matters


class Segment:
    """Runs its steps over batches in this process. `make` builds the steps' callables; `close` closes them.

    >>> from taktline._recipe.steps import as_step
    >>> segment = Segment([as_step(int), as_step(abs)], goes_on=False)
    >>> segment.make()
    >>> segment.run(Batch(["-1", "2"])).values
    [1, 2]
    >>> failed = segment.run(Batch(["3", "x", "4"]))
    >>> failed.values, failed.failures[0].step, failed.failures[0].error
    ([3], 'int', ValueError("invalid literal for int() with base 10: 'x'"))
    """

    def __init__(self, steps: Sequence[Step], *, goes_on: bool, seed: tuple[int, int] | None = None) -> None:
        self.steps = tuple(steps)
        self.seeds: Seeds | None = None  # `seed`: the run's, and the place of the first step in the line
        if seed is not None:
            from taktline._segment.seeds import Seeds

            self.seeds = Seeds(*seed)
        self.goes_on = goes_on
        self.keeps_interrupt = False  # Ctrl-C in a step ends the batch as a failure does; who runs it raises it
        self.records = [0] * len(self.steps)  # given to each step
        self.timed_records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.retried = 0
        self.mark: Mark = no_mark  # who watches over this process from outside puts its own here
        self._alone: int | None = None  # position in the batch of the value that is run by itself
        self._part_now: _Part | None = None  # the part that is at work,
        self._values: Any = None  # the iterator over the values that are run now,
        self._end = 0  # and the position behind the last of them
        self._built_now: Step | None = None
        self._made: list[Any] = []
        self._loop: OneByOne | None = None  # for `async def` steps that are run here one record at a time
        self._traced = False  # say which record each value came from
        self._callables: list[Any] = []
        self._parts: list[_Part] = []
        self._runs = 0

    def make(self) -> None:
        """Build the callables. What a factory raises goes up as it is, with the step's name as a note."""
        for n, step in enumerate(self.steps):
            self._built_now = step
            try:
                self._made.append(step.make())
            except BaseException as error:
                error.add_note(f"raised while step {step.name!r} was built for this worker")
                self.close()  # those before it were built
                raise
            fn = self._made[-1]
            if step.kind == "async":
                from taktline._segment.waiting import OneByOne

                self._loop = self._loop or OneByOne()
                fn, step = self._loop.plain(step, fn), replace(step, timeout=None)
            self._callables.append(guard.guarded(fn, step, self._retry, partial(self._limit, n)))
        self._built_now = None
        changes = any(step.role in (Role.KEEP, Role.EXPAND) for step in self.steps)
        self._traced = changes or self.goes_on
        self._parts = [self._part(first, last) for first, last in _stretches(self.steps)]

    def _part(self, first: int, last: int) -> _Part:
        part = _Batched if self.steps[first].role is Role.BATCH else _Stretch
        return part(self, first, last, traced=self._traced)

    def close(self) -> None:
        """Close the callables that were built for this worker and can be closed."""
        made, self._made, self._callables, self._parts = self._made, [], [], []
        with ExitStack() as closing:  # all of them, also where one raises
            if self._loop is not None:
                closing.callback(self._loop.close)
            for step, each in zip(self.steps, made, strict=False):
                if step.maker is not None and hasattr(each, "close"):
                    closing.callback(self._close, each)

    def _close(self, each: Any) -> None:
        closed = each.close()
        if self._loop is not None and isinstance(closed, Coroutine):
            self._loop.run(closed)

    def count_anew(self) -> None:
        """What was counted so far is known to whoever asks for this."""
        self.records, self.timed_records, self.timed_ns = ([0] * len(self.steps) for _ in range(3))
        self.retried = 0

    def callables(self) -> list[Any]:
        """The steps' callables, in order, as they are to be called."""
        if self.seeds is None:
            return list(self._callables)
        return [self.seeds.wrap(n, self.steps[n], made) for n, made in enumerate(self._callables)]

    def runs(self, part: _Part, values: Any, end: int) -> None:
        """The values of this iterator, the last of which stands before position `end`, are run now."""
        self._part_now, self._values, self._end = part, values, end

    def position(self) -> int:
        """Which value is run now: of the batch as it was given, as long as no batch step came before."""
        if self._alone is not None:
            return self._alone
        return self._end - int(self._values.__length_hint__()) - 1 if self._values is not None else 0

    def step_in(self, frame: FrameType | None) -> int:
        """The position of the step that is run now, as a frame of this thread tells."""
        if (found := self._found(frame)) is not None:
            return found
        return self._part_now.first if self._part_now is not None else 0

    def name_at(self, frame: FrameType | None) -> str | None:
        """The name of the step that is built or run above this frame; None where that cannot be told, as in threads."""
        if self._built_now is not None:
            return self._built_now.name
        found = self._found(frame)
        if found is None and self._part_now is not None and len(self._part_now.steps) == 1:
            found = self._part_now.first
        return self.steps[found].name if found is not None else None

    def _found(self, frame: FrameType | None) -> int | None:
        part = self._part_now
        while part is not None and frame is not None:
            if (found := part.step_in(frame)) is not None:
                return part.first + found
            frame = frame.f_back
        return None

    def _limit(self, step: int, seconds: float) -> None:
        self.mark(self.position(), step, seconds)

    def _retry(self) -> None:
        self.retried += 1

    def begins(self, step: int) -> None:
        """A step begins within a part of several; of use where it is one record alone that is run."""
        if self._alone is not None:
            self.mark(self._alone, step, 0.0)

    def run(self, batch: Batch, *, careful: bool = False, formed: bool = False) -> Batch:
        """The batch after all steps. `careful`: with a mark before each record and step; slow, exact. `formed`: its
        values may come as columns, a Formed, where the last step made them."""
        if self.seeds is None:
            return self._run(batch, careful, formed)
        with self.seeds.batch(batch.first):
            return self._run(batch, careful, formed)

    def _run(self, batch: Batch, careful: bool, formed: bool) -> Batch:
        timed = self._runs % TIMED_EVERY == 0
        self._runs += 1
        if careful:
            return self._carefully(batch)
        for part in self._parts[:-1]:
            batch = part.run(batch, timed)
        return self._parts[-1].run(batch, timed, formed=formed)

    def _carefully(self, batch: Batch) -> Batch:
        """Record by record and step by step, so that a death is known to be this record's in this step."""
        parts = [self._part(first, last) for first, last in _stretches(self.steps, single=True)]
        whole = Batch([], [], [])
        start = 0
        for failure in [*batch.failures, None]:
            end = failure.place if failure is not None else len(batch.values)
            for at in range(start, end):
                if whole.lost(batch.origin(at)):
                    continue
                one = Batch([batch.values[at]], [batch.origin(at)])
                self._alone = at
                for part in parts:
                    self.mark(at, part.first, 0.0)
                    one = part.run(one, False)
                self._alone = None
                whole.append(one, goes_on=self.goes_on)
                if one.failures and not self.goes_on:
                    return whole
            start = end
            if failure is not None:
                failure.place = len(whole.values)
                whole.failures.append(failure)
        return whole


def _stretches(steps: Sequence[Step], *, single: bool = False) -> list[tuple[int, int]]:
    """Cut into stretches of scalar steps (`single`: one each) and of batch steps between which nothing is converted:
    pairs (first, one past the last)."""
    cuts: list[tuple[int, int]] = []
    for n, step in enumerate(steps):
        scalar = step.role is not Role.BATCH and n > 0 and steps[n - 1].role is not Role.BATCH
        if (scalar and not single) or (n > 0 and steps[n - 1].joins(step)):
            cuts[-1] = (cuts[-1][0], n + 1)
        else:
            cuts.append((n, n + 1))
    return cuts


class _Part:
    """Some neighbouring steps of a segment. Walks around failures that came in; subclasses do the spans between."""

    def __init__(self, segment: Segment, first: int, last: int, *, traced: bool) -> None:
        self.segment = segment
        self.first, self.last = first, last
        self.steps = segment.steps[first:last]
        self.callables = segment.callables()[first:last]
        self.goes_on = segment.goes_on
        self.traced = traced  # say which record each value came from

    def run(self, batch: Batch, timed: bool, *, formed: bool = False) -> Batch:
        out = Batch([], [] if self.traced or batch.origins is not None else None)
        if not batch.failures:
            self.span(batch, 0, len(batch.values), out, timed)
            return out
        at = 0
        for failure in batch.failures:
            if not self.span(batch, at, failure.place, out, timed):
                return out
            at = failure.place
            failure.place = len(out.values)
            out.failures.append(failure)
            if not self.goes_on:
                return out
        self.span(batch, at, len(batch.values), out, timed)
        return out

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        """Run the values from `start` to `end` into `out`; False where a failure ends the batch."""
        raise NotImplementedError

    def step_in(self, frame: FrameType) -> int | None:
        """Which step of this part the frame is at; None where it is another function's."""
        return None

    def fail(self, out: Batch, origin: int, step: int, error: BaseException, tb: TracebackType | None) -> bool:
        """Note a failure; whether the batch goes on."""
        interrupted = isinstance(error, KeyboardInterrupt) and guard.in_callers_process
        if interrupted and not self.segment.keeps_interrupt:
            raise error  # Ctrl-C is the user's, not the record's
        if out.lost(origin):
            return True
        if self.goes_on:
            out.take_back(origin)
        text = "".join(traceback.format_exception(type(error), error, tb)) if tb is not None else ""
        out.failures.append(Failure(len(out.values), origin, self.segment.steps[step].name, error, text))
        return self.goes_on and not interrupted


class _Stretch(_Part):
    """Scalar steps, fused into one compiled loop."""

    def __init__(self, segment: Segment, first: int, last: int, *, traced: bool) -> None:
        super().__init__(segment, first, last, traced=traced)
        one_to_one = all(step.role is Role.MAP for step in self.steps)
        self.one_to_one = one_to_one
        self.seeds = segment.seeds
        traced = (traced and not one_to_one) or self.seeds is not None
        self.code = Compiled(self.steps, "traced" if traced else "plain")
        self.timed_code = Compiled(self.steps, "timed")

    def step_in(self, frame: FrameType) -> int | None:
        for code in (self.code, self.timed_code):
            if (step := code.step_in(frame)) is not None:
                return step
        return None

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        if timed and end > start:
            first = min(end, start + TIMED_RECORDS)
            if not self._chunk(batch, start, first, out, self.timed_code):
                return False
            start = first
        return self._chunk(batch, start, end, out, self.code)

    def _chunk(self, batch: Batch, start: int, end: int, out: Batch, code: Compiled) -> bool:
        n = len(self.steps)
        while start < end:
            whole = start == 0 and end == len(batch.values)
            values = iter(batch.values if whole else batch.values[start:end])
            origins: Any
            if batch.origins is not None:
                origins = batch.origins[start:end]
            else:
                origins = range(start, end)
            self.segment.runs(self, values, end)
            counts, ns, froms = [0] * n, [0] * n, [] if out.origins is None or self.one_to_one else out.origins
            at = end
            error: BaseException | None = None
            told = origins if self.seeds is None else map(self.seeds.at, map(batch.origin, range(start, end)))
            try:
                code.run(values, told, out.values, froms, counts, ns, perf_counter_ns, *self.callables)
            except BaseException as caught:
                error = caught
                at = end - values.__length_hint__() - 1
            self._count(at - start + (error is not None), counts, ns, timed=code is self.timed_code)
            if out.origins is not None and self.one_to_one:
                out.origins.extend(origins[: at - start])
            if error is None:
                return True
            step, tb = code.culprit(error)
            if not self.fail(out, batch.origin(at), self.first + (step or 0), error, tb):
                return False
            start = at + 1
            while start < end and out.lost(batch.origin(start)):
                start += 1
        return True

    def _count(self, given: int, counts: list[int], ns: list[int], *, timed: bool) -> None:
        """Add up how many records each step was given; a step that changes their number counts what it passed on."""
        segment = self.segment
        for n, step in enumerate(self.steps):
            at = self.first + n
            segment.records[at] += counts[n] if timed else given
            if timed:
                segment.timed_records[at] += counts[n]
                segment.timed_ns[at] += ns[n]
            elif step.role is not Role.MAP:
                given = counts[n]


class _Batched(_Part):
    """Batch steps of one form: one conversion before them, one behind, none between.

    What fails as a batch is tried again in parts, from the values that came in: a step may have changed the batch that
    it was handed. So the results are those of the loop, down to the record at fault.
    """

    def __init__(self, segment: Segment, first: int, last: int, *, traced: bool) -> None:
        super().__init__(segment, first, last, traced=traced)
        self.form = form_of(self.steps[0].form)
        self.size = min((step.size for step in self.steps if step.size is not None), default=None)
        self.unverified = [VERIFIED if step.verify is not None else 0 for step in self.steps]
        self.pieces: list[Columns] = []  # results that are no records yet
        self.now = 0  # the step at work

    def step_in(self, frame: FrameType) -> int | None:
        return self.now if frame.f_code is _Batched._through.__code__ else None

    def run(self, batch: Batch, timed: bool, *, formed: bool = False) -> Batch:
        self.pieces = []
        out = super().run(batch, timed)
        if formed and self.pieces and not out.values and not out.failures and self.steps[0].form != "list":
            out.values = Formed(self.pieces)
        else:
            self._settle(out)
        return out

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        size = self.size or max(1, end - start)
        self.segment.runs(self, None, start)
        for at in range(start, end, size):
            if not self._through(_Piece(batch, out, at, batch.values[at : min(at + size, end)])):
                return False
        if batch.failures:  # their places are told by the results before them
            self._settle(out)
        return True

    def fail(self, out: Batch, origin: int, step: int, error: BaseException, tb: TracebackType | None) -> bool:
        self._settle(out)
        return super().fail(out, origin, step, error, tb)

    def _settle(self, out: Batch) -> None:
        for piece in self.pieces:
            out.values.extend(piece.records())
        self.pieces = []

    def _through(self, piece: _Piece) -> bool:
        """A piece through the steps that it has before it; False where a failure ends the batch."""
        while piece.values and piece.out.lost(piece.origin(0)):
            piece = piece.part(1, len(piece.values))
        if piece.values and self.segment.seeds is not None:
            self.segment.seeds.at(piece.origin(0))
        values, began = piece.values, perf_counter_ns()
        if not values or piece.first == len(self.steps):
            return self._done(piece, Columns(None, [values]))
        try:
            state = self.form.take(values)
        except Unfit as unfit:
            return self._in_parts(piece, piece.first, cannot_stand(self.steps[piece.first], unfit))
        columns = None
        for n in range(piece.first, len(self.steps)):
            self.now = n
            if n > 0:
                self.segment.begins(self.first + n)
            verified = self._to_verify(n, state)
            try:
                state = self.callables[n](state)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and guard.in_callers_process:
                    raise
                if len(values) == 1:
                    self._note(n, 1, perf_counter_ns() - began)
                return self._rescue(piece, n, error)
            try:
                state, count = self.form.checked(state, len(values))
                if count != len(values):
                    raise BatchLengthError(step=self.steps[n].name, given=len(values), returned=count)
            except BatchLengthError as error:
                return self._all_fail(piece, n, error)
            except Misfit as misfit:
                return self._all_fail(piece, n, self._not_of_the_form(n, state, misfit))
            if verified or n + 1 == len(self.steps):
                try:
                    columns = self.form.give(state)
                except Exception as misfit:  # a value without an exact one in Python; libraries have many errors
                    return self._in_parts(piece, n, self._not_of_the_form(n, state, misfit))
            self._note(n, len(values), perf_counter_ns() - began)
            if verified and columns is not None and (rows := self._differing(n, verified, columns.records())):
                return self._around(piece, n, rows, columns)
            began = perf_counter_ns()
        assert columns is not None
        return self._done(piece, columns)

    def _done(self, piece: _Piece, columns: Columns) -> bool:
        if piece.values:
            self.pieces.append(columns)
        if piece.out.origins is not None:
            piece.out.origins.extend(piece.origin(n) for n in range(len(piece.values)))
        return True

    # --- a piece that does not come through ---

    def _in_parts(self, piece: _Piece, step: int, error: BaseException) -> bool:
        """Both halves apart; a single record fails in `step`."""
        if len(piece.values) == 1:
            tb = guard.own(error.__traceback__)
            return self.fail(piece.out, piece.origin(0), self.first + step, error, tb)
        half = len(piece.values) // 2
        return self._through(piece.part(0, half)) and self._through(piece.part(half, len(piece.values)))

    def _rescue(self, piece: _Piece, step: int, error: BaseException) -> bool:
        """`step` has raised: its records one by one with its `like`, or in parts."""
        like = self.steps[step].like
        if like is None:
            return self._in_parts(piece, step, error)
        try:
            records = self._before(piece, step)
        except Exception as odd:  # steps that came through a moment ago
            return self._in_parts(piece, step, odd)
        results: list[Any] = []
        for n, record in enumerate(records):
            if self.segment.seeds is not None:
                self.segment.seeds.at(piece.origin(n))
            try:
                results.append(like(record))
            except BaseException as failed:
                if isinstance(failed, KeyboardInterrupt) and guard.in_callers_process:
                    raise
                if not self._through(piece.part(n - len(results), n, results, step + 1)):
                    return False
                if not self._in_parts(piece.part(n, n + 1), step, failed):
                    return False
                results = []
        return self._through(piece.part(len(records) - len(results), len(records), results, step + 1))

    def _before(self, piece: _Piece, step: int) -> list[Any]:
        """The records as they are before `step`, made anew."""
        if step == piece.first:
            return piece.values
        state = self.form.take(piece.values)
        for n in range(piece.first, step):
            state, _ = self.form.checked(self.callables[n](state), len(piece.values))
        return self.form.give(state).records()

    def _all_fail(self, piece: _Piece, step: int, error: BaseException) -> bool:
        """Which result belongs to which record cannot be told: all of the piece's records fail."""
        return all(
            self.fail(piece.out, piece.origin(n), self.first + step, error, None) for n in range(len(piece.values))
        )

    def _not_of_the_form(self, step: int, result: Any, why: Exception) -> FormError:
        wanted = f"not {why}" if isinstance(why, Misfit) else f"which gives no plain records: {why}"
        return FormError(
            step=self.steps[step].name, form=self.steps[step].form, why=f"it returned {type(result).__name__}, {wanted}",
            remedy="return one result a record in the step's form",
        )  # fmt: skip

    # --- batch form and scalar form side by side ---

    def _to_verify(self, step: int, state: Any) -> list[Any]:
        """The first records that `step` is given, as they are before it."""
        if not self.unverified[step]:
            return []
        if self.form is form_of("list"):
            return copy.deepcopy(list(state[: self.unverified[step]]))
        return self.form.give(state).records()[: self.unverified[step]]

    def _differing(self, step: int, records: list[Any], results: list[Any]) -> list[tuple[int, tuple[str, str, str]]]:
        """Positions and excerpts of the records for which the step's `like` gives something else."""
        like, tolerance = self.steps[step].like, self.steps[step].verify
        assert like is not None
        self.unverified[step] -= len(records)
        rows = []
        for n, record in enumerate(records):
            shown = excerpt(record)
            try:
                wanted = like(record)
            except Exception as error:
                rows.append((n, (shown, excerpt(results[n]), f"raises {type(error).__name__}: {error}")))
                continue
            if not same(results[n], wanted, tolerance or 0.0):
                rows.append((n, (shown, excerpt(results[n]), excerpt(wanted))))
        return rows

    def _around(
        self, piece: _Piece, step: int, rows: list[tuple[int, tuple[str, str, str]]], columns: Columns
    ) -> bool:  # fmt: skip
        """The records that differ fail, those between them go on."""
        results, step_after = columns.records(), step + 1
        at = 0
        for n, (position, _) in enumerate([*rows, (len(results), ("", "", ""))]):
            if not self._through(piece.part(at, position, results[at:position], step_after)):
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

    def _note(self, step: int, count: int, ns: int) -> None:
        segment, at = self.segment, self.first + step
        segment.records[at] += count
        segment.timed_records[at] += count
        segment.timed_ns[at] += ns


class _Piece:
    """Some consecutive values of a batch, with the steps of its part from `first` on before them."""

    __slots__ = ("at", "batch", "first", "out", "values")

    def __init__(self, batch: Batch, out: Batch, at: int, values: list[Any], first: int = 0) -> None:
        self.batch, self.out, self.at, self.values, self.first = batch, out, at, values, first

    def origin(self, n: int) -> int:
        return self.batch.origin(self.at + n)

    def part(self, start: int, end: int, values: list[Any] | None = None, first: int | None = None) -> _Piece:
        """A part of it, where `values` is given with those as they are before the step `first`."""
        mine = self.values[start:end] if values is None else values
        return _Piece(self.batch, self.out, self.at + start, mine, self.first if first is None else first)
