"""What came of a batch in parts before its worker died: left out when it is run again, and held against what comes now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taktline._crew.protocol import Orders
from taktline._segment.batch import Batch, Failure
from taktline._segment.equality import same
from taktline._segment.memory_size import amount
from taktline._segment.segment import Segment
from taktline._segment.values import records_of
from taktline._wire import serialize
from taktline.errors import StepError

LARGEST = 1 << 16  # bytes of a result that is kept to be held against another


def newest_of(batch: Batch, *, packed: bool) -> bytes | None:
    """The last result, packed, by which it is seen later whether a step gives the same again; None where it is too large,
    or would have to be made first. `packed`: the values are here as bytes."""
    if packed:
        return bytes(batch.values[-1]) if batch.values and len(batch.values[-1]) < LARGEST else None
    if type(batch.values) is not list or not batch.values or amount(batch.values[-1]) > LARGEST:
        return None
    value = batch.values[-1]
    own: Any = type(value).__eq__
    if own is object.__eq__:  # nothing says when two of them are the same
        return None
    try:
        return bytes(serialize.pack_each([value])[0])
    except serialize.NotSerializable:  # which is told where it is sent
        return None


class PartialOutput:
    """So many results and failures have left a batch, the last of the results being `newest`, where that is known."""

    def __init__(self, passed: tuple[int, int], newest: bytes | None, *, packed: bool) -> None:
        self._values, self._failures = passed
        self._newest = newest
        self._packed = packed  # the values of the batch come as bytes

    def __bool__(self) -> bool:
        return bool(self._values or self._failures)

    def without(self, batch: Batch, step: str) -> Batch:
        """The batch without them. Where its results are others, it ends in a failure in the place of those."""
        values, failures = min(self._values, len(batch.values)), min(self._failures, len(batch.failures))
        self._values -= values
        self._failures -= failures
        if values and not self._values and self._differs(batch.values, values - 1):
            return Batch([], [], [_not_again(0, batch.origin(values - 1), step, "other results than")])
        left = batch.failures[failures:]
        for failure in left:
            failure.place -= values
        return Batch(records_of(batch.values)[values:], (batch.origins or [])[values:], left)

    def missed(self, rest: Batch, given: Batch, step: str) -> None:
        """The batch is at its end, and not all of them have come."""
        origin = given.origin(max(0, len(given.values) - 1))
        rest.failures.append(_not_again(len(rest.values), origin, step, "fewer results than"))

    def _differs(self, values: Any, position: int) -> bool:
        if self._newest is None:
            return False
        value = records_of(values)[position]
        try:
            value = serialize.unpack_one(0, value) if self._packed else value
            return not same(serialize.unpack_one(0, self._newest), value)
        except serialize.RAISED:  # it is told where it is needed
            return False


def pieces(segment: Segment, batch: Batch, orders: Orders, *, packed: bool) -> Iterator[tuple[Batch, bool]]:
    """What comes of a batch as it comes, without what has passed already; and whether it is the last of it. `packed`: its
    values come as bytes."""
    given, step = segment.pieces(batch, careful=orders.careful, formed=True), segment.steps[-1].name
    passed = PartialOutput(orders.passed, None if segment.goes_on else orders.newest, packed=packed)
    last = False
    while not last:
        try:
            piece = next(given)
        except StopIteration as end:
            piece, last = end.value, True
        if passed:
            piece = passed.without(piece, step)
            last = last or piece.is_over(goes_on=segment.goes_on)
        if last and passed and not piece.failures:
            passed.missed(piece, batch, step)
        if last or len(piece.values) or piece.failures:
            yield piece, last


def _not_again(place: int, origin: int, step: str, what: str) -> Failure:
    error = StepError(
        step=step, type_name="StepError", text=f"{what} when it was run before its worker died",
        why="what was delivered by then can only be told from the rest where a step gives the same each time: without "
        "chance, clocks, or the order of a set",
    )  # fmt: skip
    return Failure(place, origin, step, error)
