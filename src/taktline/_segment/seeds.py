"""Random numbers that depend on the run's seed and on the record alone, not on technique, workers or batch size.

`random` and NumPy's global generator are seeded anew before each call of a step, from the seed, the record's index, the
step's place in the line, and how often that step was called for that record before (behind an `expand`). So a record
sees the same numbers whether its steps run fused in one process or each in its own. A batch step is seeded by the first
record of its list, and its lists are the same in every run: they end at each block of so many records.

Where steps wait, many calls are under way at once. Each has numbers of its own, which are the generators' own only while
it is at work.
"""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from taktline._recipe.steps import Role, Step


class Seeds:
    """Seeds the steps of one segment, the first of which is the line's step `place`.

    >>> from taktline._recipe.steps import as_step
    >>> seeds = Seeds(7, 0)
    >>> drawing = seeds.wrap(0, as_step(lambda _: random.random()), lambda _: random.random())
    >>> with seeds.batch(100):
    ...     seeds.at(3), drawing(None) == drawing(None)
    (3, False)
    >>> with seeds.batch(100):
    ...     third = (seeds.at(3), drawing(None))
    >>> with seeds.batch(103):
    ...     third == (seeds.at(0) + 3, drawing(None))
    True
    """

    def __init__(self, seed: int, place: int, block: int = 1, first: int = 0) -> None:
        self._seed = seed
        self._place = place
        self.block = block
        self._first = first
        self._index = -1
        self._outside: Any = None  # the generators' state around the batch
        self._turn = 0  # which list it is of those that begin with this record
        self._calls: dict[int, int] = {}  # step: how often called for this record

    @contextmanager
    def batch(self, first: int) -> Iterator[None]:
        """Around a batch whose first record has this index. Random numbers outside of it stay as they were."""
        self._first = first
        self._index = -1
        self._outside = _state()
        try:
            yield
        finally:
            _restore(self._outside)

    def at(self, origin: int, turn: int = 0) -> int:
        """The next calls are for the record at this position of the batch; given back."""
        if self._first + origin != self._index or turn != self._turn:
            self._index, self._turn = self._first + origin, turn
            self._calls = {}
        return origin

    def block_of(self, origin: int) -> int:
        """The block of records that this one belongs to."""
        return (self._first + origin) // self.block

    def start_of_block(self, origin: int) -> int:
        """The position in the batch of the first record of its block."""
        return self.block_of(origin) * self.block - self._first

    @contextmanager
    def away(self) -> Iterator[None]:
        """Around what others do in the middle of a batch: the numbers go on behind it as if nobody had drawn any."""
        within, own = (self._index, self._turn, self._calls), _state()
        _restore(self._outside)
        try:
            yield
        finally:
            self._outside = _state()
            self._index, self._turn, self._calls = within
            _restore(own)

    def wrap(self, step: int, what: Step, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`fn`, the callable of the segment's step with this number, seeded before each call."""
        if what.role is not Role.EXPAND:

            def seeded(record: Any) -> Any:
                self._sow(step)
                return fn(record)

            return seeded

        def expanded(record: Any) -> Any:
            self._sow(step)
            values = fn(record)
            return values if isinstance(values, (list, tuple)) else _with_its_own(iter(values))

        return expanded

    def wrap_like(self, step: int, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`fn`, which the batch step with this number is `like`, seeded before each call."""

        def seeded(record: Any) -> Any:
            self._sow(-1 - step)
            return fn(record)

        return seeded

    def own(self, step: int, *, like: bool = False) -> Own:
        """The numbers of the next call of a step that waits."""
        return Own(self._digest(-1 - step if like else step))

    def _sow(self, step: int) -> None:
        _sow(self._digest(step))

    def _digest(self, step: int) -> bytes:
        """What seeds the next call of a step, or, by a number below zero, of what it is like."""
        call = self._calls[step] = self._calls.get(step, -1) + 1
        place = self._place + step if step >= 0 else step - self._place
        text = f"{self._seed} {self._index} {place} {call}" + f" {self._turn}" * (self._turn > 0)
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Own:
    """The random numbers of one call, which goes on while others draw: within `with`, the generators give them."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._state: Any = None
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = _state()
        if self._state is None:
            _sow(self._digest)
        else:
            _restore(self._state)

    def __exit__(self, *_: object) -> None:
        self._state = _state()
        _restore(self._before)

    def around(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`fn`, what it gives to be awaited, with these numbers whenever it is at work."""
        return lambda value: _Awaited(self, fn, value)

    def values(self, values: Any) -> Iterator[Any]:
        """The values of a result of `expand`, which may draw in between."""
        with self:
            values = iter(values)
        while True:
            with self:
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value


class _Awaited:
    """A call that is under way only with the numbers of its own."""

    def __init__(self, own: Own, fn: Callable[[Any], Any], value: Any) -> None:
        self._own, self._fn, self._value = own, fn, value

    def __await__(self) -> Generator[Any, Any, Any]:
        with self._own:
            result = self._fn(self._value)
            if not hasattr(type(result), "__await__"):
                return result
            waits = result.__await__()
        go_on: Callable[[], Any] = partial(next, waits)
        while True:
            try:
                with self._own:
                    awaited = go_on()
            except StopIteration as stop:
                return stop.value
            try:
                answer = yield awaited
            except GeneratorExit:
                with self._own:
                    waits.close()
                raise
            except BaseException as error:  # such as its cancellation: for the step to hear of
                go_on = partial(waits.throw, error)
            else:
                go_on = partial(next, waits) if answer is None else partial(waits.send, answer)


def _sow(digest: bytes) -> None:
    random.seed(int.from_bytes(digest, "little"))
    if (numpy_random := _numpy()) is not None:
        # Both make their state of it in the same way: with the same words they would draw the same numbers.
        numpy_random.seed(struct.unpack(">4I", digest))


def _with_its_own(values: Iterator[Any]) -> Iterator[Any]:
    """A lazy result of `expand` draws between the calls of later steps: it goes on with its own numbers each time."""
    for value in values:
        state = _state()
        yield value
        _restore(state)


@functools.cache
def _numpy() -> Any:
    """NumPy's generators, loaded now where there are any: a step may import them only when it runs."""
    try:
        import numpy.random
    except ImportError:
        return None
    return numpy.random


def _state() -> tuple[Any, Any]:
    numpy_random = _numpy()
    return random.getstate(), numpy_random.get_state() if numpy_random is not None else None


def _restore(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    if state[1] is not None:
        _numpy().set_state(state[1])
