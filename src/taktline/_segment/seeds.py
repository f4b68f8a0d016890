"""Random numbers that depend on the run's seed and on the record alone, not on technique, workers or batch size.

`random` and NumPy's global generator are seeded anew before each call of a step, from the seed, the record's index, the
step's place in the line, and how often that step was called for that record before (behind an `expand`). So a record
sees the same numbers whether its steps run fused in one process or each in its own.
"""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    def __init__(self, seed: int, place: int) -> None:
        self._seed = seed
        self._place = place
        self._first = 0
        self._index = -1
        self._calls: dict[int, int] = {}  # step: how often called for this record

    @contextmanager
    def batch(self, first: int) -> Iterator[None]:
        """Around a batch whose first record has this index. Random numbers outside of it stay as they were."""
        self._first = first
        self._index = -1
        before = _state()
        try:
            yield
        finally:
            _restore(before)

    def at(self, origin: int) -> int:
        """The next calls are for the record at this position of the batch; given back."""
        if self._first + origin != self._index:
            self._index = self._first + origin
            self._calls = {}
        return origin

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

    def _sow(self, step: int) -> None:
        call = self._calls[step] = self._calls.get(step, -1) + 1
        text = f"{self._seed} {self._index} {self._place + step} {call}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        random.seed(int.from_bytes(digest, "little"))
        if (numpy_random := _numpy()) is not None:
            numpy_random.seed(struct.unpack("<4I", digest))


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
