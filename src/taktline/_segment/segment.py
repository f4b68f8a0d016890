"""A segment at work: its steps over one batch, with every failure found exactly and the results before it kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from time import perf_counter, perf_counter_ns
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from taktline._recipe.steps import Role, Step, is_async
from taktline._segment import keys, policies
from taktline._segment.batch import Batch, Begun, Came, Mark, no_mark, nobody
from taktline._segment.batch_steps import BatchSteps, SegmentPart, stretches
from taktline._segment.codegen import Compiled
from taktline._segment.forms import cannot_stand
from taktline._segment.memory_size import HELD_BYTES, amount
from taktline._segment.tables import ArrowRows, each_record
from taktline._segment.values import Table
from taktline.errors import NotAwaited, ResultsTooLarge

if TYPE_CHECKING:
    from taktline._segment.async_steps import OneByOne
    from taktline._segment.seeds import Seeds

TIMED_EVERY = 16  # one batch in so many, and each of the first ones, has some records timed step by step
GOLDEN = 0.618034  # of a batch, by which their place moves on: all places come up evenly, whatever the costs' rhythm
PIECE_SECONDS = 0.04  # after which what has come of an `expand` goes on, and
PIECE = 4 << 20  # bytes: more at once would save nothing
PIECES = 8  # are what may be held here, at least
LOOK = 512  # results of an `expand` at most between two looks at whether they may go on: 1 ns a result
LOOK_SECONDS = 0.001  # that it takes them, about
TIMED_RECORDS = 16  # 2 clock reads a step and record, some 100 ns: under 1 % of a batch where it matters


Pieces = Generator[Batch, None, Batch]
T = TypeVar("T")


def rest_of(given: Generator[Any, None, T]) -> T:
    """What a generator returns, where what it yields is no matter."""
    while True:
        try:
            next(given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def put_together(pieces: Pieces, *, goes_on: bool) -> Batch:
    """The pieces and the rest as one."""
    whole = Batch([], [])
    try:
        while True:
            whole.append(next(pieces), goes_on=goes_on)
    except StopIteration as end:
        rest: Batch = end.value
    if not whole.values and not whole.failures:
        return rest
    whole.append(rest, goes_on=goes_on)
    return whole


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

    def __init__(self, steps: Sequence[Step], *, goes_on: bool, seed: tuple[int, int, int] | None = None) -> None:
        self.steps = tuple(steps)
        self.seeds: Seeds | None = None  # `seed`: the run's, the place of the first step in the line, a block of lists
        if seed is not None:
            from taktline._segment.seeds import Seeds

            self.seeds = Seeds(*seed)
        self.goes_on = goes_on
        self.caught = policies.Caught()
        self.keeps_interrupt = False  # Ctrl-C in a step ends the batch as a failure does; who runs it raises it
        self.records = [0] * len(self.steps)  # given to each step
        self.timed_records = [0] * len(self.steps)
        self.timed_ns = [0] * len(self.steps)
        self.retried = 0
        self.mark: Mark = no_mark  # who watches over this process from outside puts its own here,
        self.begun: Begun = nobody  # and is told of each value that goes carefully,
        self.came: Came = nobody  # before and after it
        # What comes of one record may be endless: it comes in `pieces` then.
        self.expands = any(step.role is Role.EXPAND for step in self.steps)
        self.most = HELD_BYTES  # of a record's results that may be held here until it is known whether the record fails
        self.piece_seconds = PIECE_SECONDS
        self._piece_began = 0.0
        self._alone: int | None = None  # position in the batch of the value that is run by itself
        self._part_now: SegmentPart | None = None  # the part that is at work,
        self._values: Any = None  # the iterator over the values that are run now,
        self._end = 0  # and the position behind the last of them
        self._built_now: Step | None = None
        self._made: list[Any] = []
        self._lent: Mapping[str, Any] = {}
        self._loop: OneByOne | None = None  # for `async def` steps that are run here one record at a time
        self._traced = False  # say which record each value came from
        self._callables: list[Any] = []
        self._likes: list[Any] = []
        self._parts: list[SegmentPart] = []
        self.batches = 0  # run so far
        keyed = next((n for n, step in enumerate(self.steps) if step.by is not None), None)
        self._keyed = keyed  # the first step that takes its batches by a key
        self.starts: list[int] = []  # origins at which one begins in the batch that is run

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
                from taktline._segment.async_steps import OneByOne

                self._loop = self._loop or OneByOne(self.most)
                like = self._loop.plain(step, like) if like is not None else None
                fn, step = self._loop.plain(step, fn), replace(step, timeout=None)
            self._likes.append(like)
            self._callables.append(policies.guarded(fn, step, self._retry, partial(self._limit, n), self.most))
        self._built_now = None
        changes = not all(step.keeps_number for step in self.steps)
        self._traced = changes or self.goes_on
        self._parts = [self._part(first, last) for first, last in stretches(self.steps)]

    def _part(self, first: int, last: int) -> SegmentPart:
        part = BatchSteps if self.steps[first].role is Role.BATCH else _Stretch
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

    @property
    def takes_tables(self) -> bool:
        """Whether its first step has a use for a table as it is."""
        return bool(self._parts) and self._parts[0].takes_tables

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
        if self.seeds is None:
            return self._likes
        return [like and self.seeds.wrap_like(n, like) for n, like in enumerate(self._likes)]

    def runs(self, part: SegmentPart, values: Any, end: int) -> None:
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

    def _look_up(self, batch: Batch) -> None:
        """Where keys begin in a batch as it was read."""
        if self._keyed is not None:
            by = self.steps[self._keyed].by
            assert by is not None
            found = {batch.origin(at) for at in keys.starts(batch.values, by)[1:]}
            found.update(each.origin for each in batch.failures if each.begins_key and len(batch.values))
            self.starts = [0, *sorted(found)]

    def run(self, batch: Batch, *, careful: bool = False, formed: bool = False) -> Batch:
        """The batch after all steps. `careful`: with a mark before each record and step; slow, exact. `formed`: its
        values may come as columns, a Table, where the last step made them."""
        if self.expands:
            return put_together(self.pieces(batch, careful=careful), goes_on=self.goes_on)
        self._look_up(batch)
        if self.seeds is None:
            return self._run(batch, careful, formed)
        with self.seeds.batch(batch.first):
            return self._run(batch, careful, formed)

    def pieces(self, batch: Batch, *, careful: bool = False, formed: bool = False) -> Pieces:
        """As `run`, piece by piece: yields what may go on before the rest of it, and returns the rest.

        In a run that goes on after a failure a piece ends between two records, so that all of one can be taken back."""
        self._look_up(batch)
        with self.seeds.batch(batch.first) if self.seeds is not None else nullcontext():
            if careful:
                return (yield from self._carefully(batch))
            return (yield from self._flow(self._parts, batch, self._is_timed(), formed))

    def _is_timed(self) -> bool:
        self.batches += 1
        self._piece_began = perf_counter()
        return self.batches % TIMED_EVERY == 1 or self.batches <= TIMED_EVERY

    def _run(self, batch: Batch, careful: bool, formed: bool) -> Batch:
        timed = self._is_timed()
        if careful:
            return put_together(self._carefully(batch), goes_on=self.goes_on)
        for n, part in enumerate(self._parts):
            batch = part.run(self._for(part, batch), timed, formed=self._stays(n, formed))
        return batch

    def _stays(self, n: int, formed: bool) -> bool:
        """Whether what part `n` makes may be a table: for the part behind it, or at the end."""
        return formed if n + 1 == len(self._parts) else self._parts[n + 1].takes_tables

    def _for(self, part: SegmentPart, batch: Batch) -> Batch:
        """The batch as this part takes it: rows of a table become records where it has no use for tables."""
        if type(batch.values) is ArrowRows and not part.takes_tables:
            batch.values, bad = each_record(batch.values)
            step = self.steps[part.first]
            batch.fail_each([(n, cannot_stand(step, why)) for n, why in bad], step.name, goes_on=self.goes_on)
        elif type(batch.values) is Table:  # columns of another form
            batch.values = batch.values.records()
        return batch

    def _flow(
        self, parts: Sequence[SegmentPart], batch: Batch, timed: bool, formed: bool, alone: int | None = None
    ) -> Pieces:
        """The batch after these parts: each piece that one gives goes through those behind it at once. `alone`: the position
        of its only value, where that is to be marked."""
        part, *behind = parts
        formed_here = behind[0].takes_tables if behind else formed
        given = part.flow(self._for(part, batch), timed, formed=formed_here)
        while True:
            if alone is not None:
                self.begun(alone, part.first)
                self.mark(alone, part.first, 0.0)
            try:
                piece, last = next(given), False
            except StopIteration as end:
                piece, last = end.value, True
            if behind:
                piece = yield from self._flow(behind, piece, timed, formed, alone)
            if last or (piece.failures and not self.goes_on):
                return piece
            yield piece
            self._piece_began = perf_counter()

    def cut(self, out: Batch, weight: int, now: float) -> Batch | None:
        """Take out of the results so far, which take so many bytes, what may go on, where it is time for it. The newest
        value's record is still at work. Raises ResultsTooLarge."""
        if weight < min(PIECE, self.most // PIECES) and now - self._piece_began < self.piece_seconds:
            return None
        assert out.origins is not None
        end = len(out.values)
        if self.goes_on or self.seeds is not None:
            # What failed is taken back whole; and where a seed is set a record's values stay together, for how often a step
            # was called for it before tells its numbers, and so do those of a batch step's lists.
            newest = out.origins[-1]
            end = bisect_left(out.origins, newest if self.seeds is None else self.seeds.start_of_block(newest))
            if weight * (len(out.values) - end) // len(out.values) > self.most:
                raise ResultsTooLarge(size=self.most)
            if not end:
                return None
        piece = Batch(out.values[:end], out.origins[:end], out.failures[:])
        del out.values[:end], out.origins[:end], out.failures[:]
        return piece

    def _carefully(self, batch: Batch) -> Pieces:
        """Record by record and step by step, so that a death is known to be this record's in this step."""
        parts = [self._part(first, last) for first, last in stretches(self.steps, single=True)]
        self._piece_began = perf_counter()
        if self._keyed is not None:
            return (yield from self._key_by_key(parts, batch))
        whole = Batch([], [], [])
        for start, end, failure in batch.spans():
            for at in range(start, end):
                if whole.lost(batch.origin(at)):
                    continue
                self._alone = at
                yield from self._alone_through(parts, Batch([batch.values[at]], [batch.origin(at)]), at, whole)
                self._alone = None
                if whole.is_over(goes_on=self.goes_on):
                    return whole
                if self.expands and (at + 1 == end or batch.origin(at + 1) != batch.origin(at)):
                    yield whole.taken()
            if failure is not None:
                whole.keep(failure)
        return whole

    def _key_by_key(self, parts: Sequence[SegmentPart], batch: Batch) -> Pieces:
        """Run steps that take whole keys: those before them record by record, then all that is left of the key, by
        the mark of its first value."""
        assert self._keyed is not None
        first = next(n for n, part in enumerate(parts) if part.last > self._keyed)
        whole = Batch([], [], [])
        origins = [batch.origin(at) for at in range(len(batch.values))]
        ends = [*origins[-1:], *(each.origin for each in batch.failures)]
        for start, end in pairwise([*self.starts, max(ends, default=-1) + 1]):
            some, at = Batch([], [], []), bisect_left(origins, start)
            one = at
            while at < len(origins) and origins[at] < end and not some.is_over(goes_on=self.goes_on):
                self._alone, value = at, Batch([batch.values[at]], [origins[at]])
                value = rest_of(self._flow(parts[:first], value, False, False, at)) if first else value
                some.append(value, goes_on=self.goes_on)
                at += 1
            known = [each for each in batch.failures if start <= each.origin < end]
            some.failures = sorted([*some.failures, *known], key=lambda each: each.origin)
            for each in some.failures:
                each.place = some.before(each.origin)
            self._alone = one
            yield from self._alone_through(parts[first:], some, one, whole)
            if whole.is_over(goes_on=self.goes_on):
                return whole
            if self.expands:
                yield whole.taken()
            self._alone = None
        return whole

    def _alone_through(
        self, parts: Sequence[SegmentPart], some: Batch, at: int, whole: Batch
    ) -> Generator[Batch, None, None]:
        """Add to `whole` what comes of one value, or of those of a key, by the mark of the value at `at`."""
        given, last = self._flow(parts, some, False, False, at), False
        while not last:
            try:
                piece = next(given)
            except StopIteration as end:
                piece, last = end.value, True
            self.came(at, piece)
            whole.append(piece, goes_on=self.goes_on)
            if whole.is_over(goes_on=self.goes_on):
                return
            if not last:
                yield whole.taken()


class _Stretch(SegmentPart):
    """Scalar steps, fused into one compiled loop."""

    def __init__(self, segment: Segment, first: int, last: int, *, traced: bool) -> None:
        super().__init__(segment, first, last, traced=traced)
        one_to_one = all(step.role is Role.MAP for step in self.steps)
        self._expands = [n for n, step in enumerate(self.steps) if step.role is Role.EXPAND]
        self.one_to_one = one_to_one
        self.whole = segment
        traced = (traced and not one_to_one) or self.seeds is not None
        self._handed_over = False  # a piece is somewhere else
        self.code = Compiled(self.steps, "traced" if traced else "plain")
        self.timed_code = Compiled(self.steps, "timed")

    def step_in(self, frame: FrameType) -> int | None:
        for code in (self.code, self.timed_code):
            if (step := code.step_in(frame)) is not None:
                return step
        return None

    def run(self, batch: Batch, timed: bool, *, formed: bool = False) -> Batch:
        if self._expands:
            return put_together(self.flow(batch, timed), goes_on=self.goes_on)
        return super().run(batch, timed, formed=formed)

    def flow(self, batch: Batch, timed: bool, *, formed: bool = False) -> Pieces:
        out = Batch([], [] if self.traced or batch.origins is not None else None)
        for start, end, failure in batch.spans():
            if not (yield from self._span(batch, start, end, out, timed)):
                break
            if failure is not None:
                out.keep(failure)
                if not self.goes_on:
                    break
        return out

    def span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> bool:
        return rest_of(self._span(batch, start, end, out, timed))

    def _span(self, batch: Batch, start: int, end: int, out: Batch, timed: bool) -> Generator[Batch, None, bool]:
        if timed and end > start:
            at = start + int(self.whole.batches // TIMED_EVERY * GOLDEN % 1 * max(1, end - start - TIMED_RECORDS + 1))
            first = min(end, at + TIMED_RECORDS)
            if not (yield from self._chunk(batch, start, at, out, self.code)):
                return False
            if not (yield from self._chunk(batch, at, first, out, self.timed_code)):
                return False
            start = first
        return (yield from self._chunk(batch, start, end, out, self.code))

    def _chunk(self, batch: Batch, start: int, end: int, out: Batch, code: Compiled) -> Generator[Batch, None, bool]:
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
                looks = code.run(values, told, out.values, froms, counts, ns, perf_counter_ns, *self.callables)
                if looks is not None:
                    yield from self._looked(looks, out, values, end)
            except BaseException as caught:
                if self._handed_over:  # it came from who has the piece: he leaves
                    raise
                error = code.raised(caught)
                at = end - values.__length_hint__() - 1
            self._count(at - start + (error is not None), counts, ns, timed=code is self.timed_code)
            if out.origins is not None and self.one_to_one:
                out.origins.extend(origins[: at - start])
            if error is None:
                return True
            step, tb = code.culprit(error)
            if isinstance(error, ResultsTooLarge):
                at_fault = step if step is not None else (self._expands or [0])[-1]
                self.fail(out, batch.origin(at), self.first + at_fault, error, tb)
                return False
            if step is not None and isinstance(error, NotAwaited):
                self.callables[step] = policies.looked_at(self.callables[step], self.steps[step].name)
            given = code.given(error)
            if not self.fail(out, batch.origin(at), self.first + (step or 0), error, tb, given):
                return False
            start = at + 1
            while start < end and out.lost(batch.origin(start)):
                start += 1
        return True

    def _looked(
        self, looks: Generator[None, int, None], out: Batch, values: Any, end: int
    ) -> Generator[Batch, None, None]:
        """Run what comes in steps that expand, and hand over what may go on."""
        weight, seen, until, looked = 0, len(out.values), 1, perf_counter()
        try:
            next(looks)
            while True:
                count, now = len(out.values), perf_counter()
                each = amount(out.values[-1])
                weight += (count - seen) * each
                seen = count
                if (piece := self.whole.cut(out, weight, now)) is not None:
                    weight, seen = weight * len(out.values) // count, len(out.values)
                    self._handed_over = True
                    with self.seeds.away() if self.seeds is not None else nullcontext():
                        yield piece
                    self._handed_over = False
                    self.segment.runs(self, values, end)
                    now = perf_counter()
                # So many results until the next look as come in a millisecond, and are no piece by themselves.
                until = min(2 * until, LOOK) if now - looked < LOOK_SECONDS else max(1, until // 2)
                looked = now
                looks.send(min(until, max(1, PIECE // each)))
        except StopIteration:
            return

    def _count(self, given: int, counts: list[int], ns: list[int], *, timed: bool) -> None:
        """Add up how many records each step was given; a step that changes their number counts what it passed on."""
        for n, step in enumerate(self.steps):
            if timed:
                self.whole.note(self.first + n, counts[n], ns[n])
                continue
            self.whole.records[self.first + n] += given
            if step.role is not Role.MAP:
                given = counts[n]
