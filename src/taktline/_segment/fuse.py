"""A segment at work: its steps over one batch, with every failure found exactly and the results before it kept."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from taktline._recipe.steps import Role, Step
from taktline._segment import guard
from taktline._segment.batch import Batch, Failure
from taktline._segment.compiled import Compiled
from taktline.errors import BatchLengthError

if TYPE_CHECKING:
    from taktline._segment.seeds import Seeds

TIMED_EVERY = 16  # one batch in so many has its first records timed step by step
TIMED_RECORDS = 16  # 2 clock reads a step and record, some 100 ns: under 1 % of a batch where it matters

Mark = Callable[[int, int, float], None]  # position of a value in its batch, step, seconds it may take (0: no limit)


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
        self.records = [0] * len(self.steps)  # given to each step
        self.timed_records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.retried = 0
        self.mark: Mark = _no_mark  # who watches over this process from outside puts its own here
        self._alone: int | None = None  # position in the batch of the value that is run by itself
        self._part_now: _Part | None = None  # the part that is at work,
        self._values: Any = None  # the iterator over the values that are run now,
        self._end = 0  # and the position behind the last of them
        self._built_now: Step | None = None
        self._made: list[Any] = []
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
                raise
            self._callables.append(guard.guarded(self._made[-1], step, self._retry, partial(self._limit, n)))
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
        for step, each in zip(self.steps, made, strict=False):
            if step.maker is not None and hasattr(each, "close"):
                each.close()

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

    def run(self, batch: Batch, *, careful: bool = False) -> Batch:
        """The batch after all steps. `careful`: with a mark before each record and step; slow, exact."""
        if self.seeds is None:
            return self._run(batch, careful)
        with self.seeds.batch(batch.first):
            return self._run(batch, careful)

    def _run(self, batch: Batch, careful: bool) -> Batch:
        timed = self._runs % TIMED_EVERY == 0
        self._runs += 1
        if careful:
            return self._carefully(batch)
        for part in self._parts:
            batch = part.run(batch, timed)
        return batch

    def _carefully(self, batch: Batch) -> Batch:
        """Record by record and step by step, so that a death is known to be this record's in this step."""
        parts = [self._part(n, n + 1) for n in range(len(self.steps))]
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


def _no_mark(position: int, step: int, seconds: float) -> None:
    """Nobody watches."""


def _stretches(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Cut into stretches of scalar steps and single batch steps: pairs (first, one past the last)."""
    cuts: list[tuple[int, int]] = []
    for n, step in enumerate(steps):
        scalar = step.role is not Role.BATCH
        if scalar and cuts and steps[cuts[-1][0]].role is not Role.BATCH:
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

    def run(self, batch: Batch, timed: bool) -> Batch:
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
        if isinstance(error, KeyboardInterrupt) and in_callers_process:
            raise error  # Ctrl-C is the user's, not the record's
        if out.lost(origin):
            return True
        if self.goes_on:
            out.take_back(origin)
        text = "".join(traceback.format_exception(type(error), error, tb)) if tb is not None else ""
        out.failures.append(Failure(len(out.values), origin, self.segment.steps[step].name, error, text))
        return self.goes_on


in_callers_process = True  # a worker's main sets it to False: there Ctrl-C never arrives, a step must have raised it


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
                at = end - values.__length_hint__() - 1  # type: ignore[attr-defined]
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
    """One batch step. A list that fails is tried again one record at a time, so that only the culprit fails."""

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        step, fn = self.steps[0], self.callables[0]
        size = step.size or max(1, end - start)
        at, next_at = start, start
        while (at := next_at) < end:
            if out.lost(batch.origin(at)):
                next_at = at + 1
                continue
            next_at = min(at + size, end)
            given = batch.values[at:next_at]
            began = perf_counter_ns()
            self.segment.runs(self, None, at)
            if self.segment.seeds is not None:
                self.segment.seeds.at(batch.origin(at))
            try:
                results = self._checked(fn(given), len(given))
            except BatchLengthError as error:
                # Which result belongs to which record cannot be told: all of the list's records fail.
                for n in range(len(given)):
                    if not self.fail(out, batch.origin(at + n), self.first, error, None):
                        return False
                continue
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and in_callers_process:
                    raise
                if not self._one_by_one(batch, at, given, error, out):
                    return False
                continue
            self._note(len(given), perf_counter_ns() - began)
            out.values.extend(results)
            if out.origins is not None:
                out.origins.extend(batch.origin(n) for n in range(at, at + len(given)))
        return True

    def _one_by_one(self, batch: Batch, at: int, given: list[Any], first: BaseException, out: Batch) -> bool:
        like = self.steps[0].like
        for n, value in enumerate(given):
            if out.lost(batch.origin(at + n)):
                continue
            began = perf_counter_ns()
            if self.segment.seeds is not None:
                self.segment.seeds.at(batch.origin(at + n))
            try:
                if len(given) == 1 and like is None:
                    raise first  # it was alone already
                result = like(value) if like is not None else self._checked(self.callables[0]([value]), 1)[0]
            except BaseException as error:
                tb = guard.own(error.__traceback__)
                self._note(1, perf_counter_ns() - began)
                if not self.fail(out, batch.origin(at + n), self.first, error, tb):
                    return False
            else:
                self._note(1, perf_counter_ns() - began)
                out.values.append(result)
                if out.origins is not None:
                    out.origins.append(batch.origin(at + n))
        return True

    def _note(self, count: int, ns: int) -> None:
        segment, at = self.segment, self.first
        segment.records[at] += count
        segment.timed_records[at] += count
        segment.timed_ns[at] += ns

    def _checked(self, results: Any, given: int) -> Sequence[Any]:
        try:
            returned = len(results)
        except TypeError:
            results = list(results)
            returned = len(results)
        if returned != given:
            raise BatchLengthError(step=self.steps[0].name, given=given, returned=returned)
        return results  # type: ignore[no-any-return]
