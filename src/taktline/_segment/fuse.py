"""A segment at work: its steps over one batch, with every failure found exactly and the results before it kept."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import perf_counter_ns
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any

from taktline._recipe.steps import Role, Step, is_async
from taktline._segment import guard
from taktline._segment.batch import Batch, Begun, Came, Mark, no_mark, nobody
from taktline._segment.batched import Batched, Part, stretches
from taktline._segment.compiled import Compiled
from taktline.errors import NotAwaited

if TYPE_CHECKING:
    from taktline._segment.seeds import Seeds
    from taktline._segment.waiting import OneByOne

TIMED_EVERY = 16  # one batch in so many, and each of the first ones, has some records timed step by step
GOLDEN = 0.618034  # of a batch, by which their place moves on: all places come up evenly, whatever the costs' rhythm
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
        self.caught = guard.Caught()
        self.keeps_interrupt = False  # Ctrl-C in a step ends the batch as a failure does; who runs it raises it
        self.records = [0] * len(self.steps)  # given to each step
        self.timed_records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.retried = 0
        self.mark: Mark = no_mark  # who watches over this process from outside puts its own here,
        self.begun: Begun = nobody  # and is told of each value that goes carefully,
        self.came: Came = nobody  # before and after it
        self._alone: int | None = None  # position in the batch of the value that is run by itself
        self._part_now: Part | None = None  # the part that is at work,
        self._values: Any = None  # the iterator over the values that are run now,
        self._end = 0  # and the position behind the last of them
        self._built_now: Step | None = None
        self._made: list[Any] = []
        self._lent: Mapping[str, Any] = {}
        self._loop: OneByOne | None = None  # for `async def` steps that are run here one record at a time
        self._traced = False  # say which record each value came from
        self._callables: list[Any] = []
        self._likes: list[Any] = []
        self._parts: list[Part] = []
        self.batches = 0  # run so far

    def make(self, lent: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Build the callables. What a factory raises goes up as it is, with the step's name as a note.

        `lent`: by the names of their steps, callables that another segment has built and will close."""
        self._lent = lent
        for n, step in enumerate(self.steps):
            self._built_now = step
            try:
                self._made.append(lent[step.name] if step.name in lent else step.make())
            except BaseException as error:
                error.add_note(f"raised while step {step.name!r} was built for this worker")
                self.close()  # those before it were built
                raise
            fn, like = self._made[-1], step.like
            if step.kind == "async" or is_async(fn):  # what a factory builds may be
                from taktline._segment.waiting import OneByOne

                self._loop = self._loop or OneByOne()
                like = self._loop.plain(step, like) if like is not None else None
                fn, step = self._loop.plain(step, fn), replace(step, timeout=None)
            self._likes.append(like)
            self._callables.append(guard.guarded(fn, step, self._retry, partial(self._limit, n)))
        self._built_now = None
        changes = any(step.role in (Role.KEEP, Role.EXPAND) for step in self.steps)
        self._traced = changes or self.goes_on
        self._parts = [self._part(first, last) for first, last in stretches(self.steps)]

    def _part(self, first: int, last: int) -> Part:
        part = Batched if self.steps[first].role is Role.BATCH else _Stretch
        return part(self, first, last, traced=self._traced)

    def close(self) -> None:
        """Close the callables that were built for this worker and can be closed."""
        made, self._made, self._callables, self._likes, self._parts = self._made, [], [], [], []
        with ExitStack() as closing:  # all of them, also where one raises
            if self._loop is not None:
                closing.callback(self._loop.close)
            for step, each in zip(self.steps, made, strict=False):
                if step.maker is not None and step.name not in self._lent and hasattr(each, "close"):
                    closing.callback(self._close, each)

    def _close(self, each: Any) -> None:
        closed = each.close()
        if self._loop is not None and isinstance(closed, Coroutine):
            self._loop.run(closed)

    def count_anew(self) -> None:
        """What was counted so far is known to whoever asks for this."""
        self.records, self.timed_records, self.timed_ns = ([0] * len(self.steps) for _ in range(3))
        self.retried = 0

    def stateful(self) -> Iterator[tuple[Step, Any]]:
        """The serial steps, as they were built here."""
        return ((step, made) for step, made in zip(self.steps, self._made, strict=False) if step.has_state)

    def callables(self) -> list[Any]:
        """The steps' callables, in order, as they are to be called."""
        if self.seeds is None:
            return list(self._callables)
        return [self.seeds.wrap(n, self.steps[n], made) for n, made in enumerate(self._callables)]

    def likes(self) -> list[Any]:
        """Of batch steps the callables for one record, where they have one."""
        return self._likes

    def runs(self, part: Part, values: Any, end: int) -> None:
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

    def note(self, step: int, records: int, ns: int) -> None:
        """So many records were so long in a step."""
        self.records[step] += records
        self.timed_records[step] += records
        self.timed_ns[step] += ns

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
        timed = self.batches % TIMED_EVERY == 0 or self.batches < TIMED_EVERY
        self.batches += 1
        if careful:
            return self._carefully(batch)
        for part in self._parts[:-1]:
            batch = part.run(batch, timed)
        return self._parts[-1].run(batch, timed, formed=formed)

    def _carefully(self, batch: Batch) -> Batch:
        """Record by record and step by step, so that a death is known to be this record's in this step."""
        parts = [self._part(first, last) for first, last in stretches(self.steps, single=True)]
        whole = Batch([], [], [])
        for start, end, failure in batch.spans():
            for at in range(start, end):
                if whole.lost(batch.origin(at)):
                    continue
                one = Batch([batch.values[at]], [batch.origin(at)])
                self._alone = at
                for part in parts:
                    self.begun(at, part.first)
                    self.mark(at, part.first, 0.0)
                    one = part.run(one, False)
                self.came(at, one)
                self._alone = None
                whole.append(one, goes_on=self.goes_on)
                if one.failures and not self.goes_on:
                    return whole
            if failure is not None:
                whole.keep(failure)
        return whole


class _Stretch(Part):
    """Scalar steps, fused into one compiled loop."""

    def __init__(self, segment: Segment, first: int, last: int, *, traced: bool) -> None:
        super().__init__(segment, first, last, traced=traced)
        one_to_one = all(step.role is Role.MAP for step in self.steps)
        self.one_to_one = one_to_one
        self.whole = segment
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
            at = start + int(self.whole.batches // TIMED_EVERY * GOLDEN % 1 * max(1, end - start - TIMED_RECORDS + 1))
            first = min(end, at + TIMED_RECORDS)
            if not self._chunk(batch, start, at, out, self.code):
                return False
            if not self._chunk(batch, at, first, out, self.timed_code):
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
            if step is not None and isinstance(error, NotAwaited):
                self.callables[step] = guard.looked_at(self.callables[step], self.steps[step].name)
            if not self.fail(out, batch.origin(at), self.first + (step or 0), error, tb):
                return False
            start = at + 1
            while start < end and out.lost(batch.origin(start)):
                start += 1
        return True

    def _count(self, given: int, counts: list[int], ns: list[int], *, timed: bool) -> None:
        """Add up how many records each step was given; a step that changes their number counts what it passed on."""
        for n, step in enumerate(self.steps):
            if timed:
                self.whole.note(self.first + n, counts[n], ns[n])
                continue
            self.whole.records[self.first + n] += given
            if step.role is not Role.MAP:
                given = counts[n]
