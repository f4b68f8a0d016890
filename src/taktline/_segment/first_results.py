"""The first results of what `expand` makes of a record, which may be endless, for whoever only looks at a line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from time import perf_counter
from typing import Any

from taktline._recipe.steps import Maker, Role, Step, gives_async, is_async
from taktline._segment import policies
from taktline._segment.memory_size import amount
from taktline.errors import ResultsTooLarge

LOOK = 64  # results at most between two looks: with 1, 2, 4 … at first, since each may take long
SECONDS = 5.0  # that one record's results may take to come
SIZE = 1 << 26  # bytes that they may take


class Budget:
    """How much all steps that expand may give together, until it begins anew, and how many results one call may: more
    raises ResultsTooLarge."""

    def __init__(self, results: int) -> None:
        self._results = results
        self.begin()

    def begin(self, records: int = 1) -> None:
        """What comes from now on counts, for so many records."""
        self._most = self._results * records
        self.given = self._weight = 0
        self.spent = False
        self._began = perf_counter()

    def of_a_call(self) -> _Share:
        """What watches over the results of one call."""
        return _Share(self, self._results)

    def came(self, value: Any, count: int, *, spent: bool) -> None:
        """So many results come, the first of which is this; `spent`: a call has given what it may."""
        late = perf_counter() - self._began > SECONDS
        self.spent = self.spent or spent or self.given >= self._most or self._weight > SIZE or late
        if self.spent:
            raise ResultsTooLarge(size=SIZE)
        self.given += count
        self._weight += amount(value) * count


class _Share:
    """One call within a budget."""

    ended = False

    def __init__(self, budget: Budget, left: int) -> None:
        self._budget = budget
        self._left = left

    def came(self, value: Any, count: int) -> int:
        """Up to so many results come, the first of which is this: how many of them to take."""
        self._budget.came(value, count := max(1, min(count, self._left)), spent=not self._left)
        self._left -= count
        return count


class Firsts:
    """How much one call of a step may give: what it gives beyond that is left out. `cut` tells whether that was so in this
    process; `late`: because it took too long, so that it may be less the next time."""

    def __init__(self, step: str, results: int) -> None:
        self.step = step
        self.results = results
        self.cut = self.late = False

    def of_a_call(self) -> _Call:
        """What watches over the results of one call."""
        return _Call(self)


class _Call:
    """One call of a step that is cut."""

    def __init__(self, firsts: Firsts) -> None:
        self.ended = False
        self._firsts = firsts
        self._left = firsts.results
        self._weight = 0
        self._began = perf_counter()

    def came(self, value: Any, count: int) -> int:
        """Up to so many results come: how many of them to take. The last ones make it `ended`."""
        count = min(count, self._left)
        self._left -= count
        self._weight += amount(value) * count
        late = perf_counter() - self._began > SECONDS
        if not self._left or self._weight > SIZE or late:
            self.ended = self._firsts.cut = True
            self._firsts.late = self._firsts.late or late
        return count


def within(steps: Sequence[Step], budget: Budget) -> tuple[Step, ...]:
    """The steps, of which those that expand may give as much as the budget has."""
    return tuple(_watched(step, budget) if step.role is Role.EXPAND else step for step in steps)


def cut(steps: Sequence[Step], results: int) -> tuple[tuple[Step, ...], list[Firsts]]:
    """The steps, of which a record gets that many results at most, and about as many of each of several that
    expand; and what was left out by each of these."""
    expands = [n for n, step in enumerate(steps) if step.role is Role.EXPAND]
    each = max(1, int(max(1, results) ** (1 / max(1, len(expands)))))
    firsts = {n: Firsts(steps[n].name, each) for n in expands}
    made = tuple(_watched(step, firsts[n]) if n in firsts else step for n, step in enumerate(steps))
    return made, list(firsts.values())


def _watched(step: Step, watch: Budget | Firsts) -> Step:
    if step.maker is None:
        return replace(step, fn=_first(step.fn, watch))
    return replace(step, maker=Maker(lambda: _first(step.make(), watch), (), {}))


def _first(fn: Callable[[Any], Any], watch: Budget | Firsts) -> Callable[[Any], Any]:
    """`fn`, which expands, and the watch over what it gives."""

    def plain(value: Any) -> Any:
        return _drawn(fn(value), watch.of_a_call())

    async def awaited(value: Any) -> Any:
        return _drawn(await fn(value), watch.of_a_call())

    async def one_by_one(value: Any) -> AsyncIterator[Any]:
        call = watch.of_a_call()
        async for each in fn(value):
            if call.came(each, 1):
                yield each
            if call.ended:
                return

    made: Any = one_by_one if gives_async(fn) else awaited if is_async(fn) else plain
    for name in ("close", "save", "load"):
        if hasattr(fn, name):
            setattr(made, name, getattr(fn, name))
    return made  # type: ignore[no-any-return]


def _drawn(given: Any, call: _Share | _Call) -> Any:
    if policies.waits(given):  # which is refused as a step's own would be
        return given
    return chain.from_iterable(_pieces(iter(given), call))


def _pieces(results: Iterator[Any], call: _Share | _Call) -> Iterator[Iterable[Any]]:
    """The results in pieces that grow, so that looking at them costs next to nothing."""
    size = 1
    for first in results:
        yield chain((first,), islice(results, call.came(first, size) - 1))
        if call.ended:
            return
        size = min(2 * size, LOOK)
