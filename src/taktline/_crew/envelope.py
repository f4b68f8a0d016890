"""A batch as bytes, and back, for both ends: what the caller's side seals a worker opens, and the other way round.

A message is a note, which says how to run the batch or what failed in it, and a payload: one pickle of all values with
the large buffers in them, or a pickle a value where the batch goes carefully.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from taktline._crew.cells import in_cells
from taktline._crew.protocol import PLAIN_ORDERS, Figures, Orders
from taktline._segment.batch import Batch, Failure
from taktline._segment.tables import ArrowRows, rows_of
from taktline._segment.values import Encode, Encoded, records_of
from taktline._signals import pass_on
from taktline._wire import identity, serialize
from taktline.abc import Part, Unread

Told = tuple[int, int, int]  # a failure that the caller's side knows: place, origin, which of those it has sent along
Sent = tuple[int, int, int, bool]  # the same on its way to a worker: whether it begins a key too


class Packed:
    """Values as bytes. `each`: every one is in a part of its own; `values`: the same as objects, where they are here too."""

    __slots__ = ("_count", "_values", "each", "parts")

    def __init__(self, parts: list[serialize.Bytes], count: int, *, each: bool = False, values: Any = None) -> None:
        self.parts = parts
        self.each = each
        self._count = count
        self._values = values

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(map(len, self.parts))

    def __len__(self) -> int:
        return self._count

    def records(self) -> list[Any]:
        """The values; raises what unpickling raises."""
        if self._values is not None:
            return records_of(self._values)
        if self.each:
            return [serialize.unpack_one(n, part) for n, part in enumerate(self.parts)]
        return records_of(serialize.unpack(self.parts))

    def without(self, start: int, stop: int) -> Packed:
        """All but the values from `start` to `stop`, each of which is in a part of its own."""
        assert self.each
        parts = self.parts[:start] + self.parts[stop:]
        return Packed(parts, len(parts), each=True)


class Unreadable(Exception):
    """Results of the user's classes, of which some cannot be read back."""


class _Outcome(NamedTuple):
    """What is not the results themselves. `encoded`: they are the bytes for the sink, of a batch with this tail."""

    each: bool = False
    origins: list[int] | None = None
    failures: list[Told | tuple[Any, ...]] = []
    encoded: tuple[int, int] | None = None
    newest: bytes | None = None


PLAIN_BATCH: tuple[Orders, bool, list[int] | None, list[Sent]] = (PLAIN_ORDERS, False, None, [])
PLAIN_OUTCOME = _Outcome()

UNSENT = "its record cannot be sent to a worker"
UNRETURNED = "its result cannot be sent from a worker to the caller"

# --- the caller's side ---


def pack(batch: Batch, step: str, *, goes_on: bool) -> None:
    """Have the values as bytes: nothing that happens here changes them from now on. What cannot be pickled fails, in the
    name of `step`. A part of the source that nobody has read stays what it is."""
    if type(batch.values) is list:
        parts = _packed(batch, step, UNSENT, goes_on=goes_on)
        batch.values = Packed(parts, len(batch.values), values=batch.values)


def pack_each(batch: Batch, step: str, *, goes_on: bool) -> None:
    """Have each value as bytes of its own, so that one can be told from the others and be taken out."""
    if type(batch.values) is ArrowRows:
        batch.values = records_of(batch.values)
    pack(batch, step, goes_on=goes_on)
    if batch.values.each:
        return
    try:
        parts = serialize.pack_each(batch.values.records())
    except serialize.RAISED as error:  # it cannot be told which value is at fault: the records of all of them fail
        pass_on(error)
        why = error.error if isinstance(error, serialize.NotSerializable) else error
        what = serialize.failed_to_go(step, why, "what it was given cannot be read back")
        known = {failure.origin for failure in batch.failures}
        lost = {batch.origin(n) for n in range(len(batch.values))} - known
        failures = batch.failures + [Failure(0, origin, step, what) for origin in lost]
        batch.failures = sorted(failures, key=lambda failure: failure.origin)[: None if goes_on else 1]
        for failure in batch.failures:
            failure.place = 0
        parts, batch.origins = [], []
    batch.values = Packed(parts, len(parts), each=True)


def seal(batch: Batch, step: str, orders: Orders, *, goes_on: bool) -> tuple[bytes, list[serialize.Bytes]]:
    """The note and the payload of a batch for a worker whose first step this is."""
    if orders.careful:
        pack_each(batch, step, goes_on=goes_on)
    else:
        pack(batch, step, goes_on=goes_on)
    values = batch.values
    if type(values) is Packed:
        parts, each = values.parts, values.each
    else:
        parts, each = _packed(batch, step, UNSENT, goes_on=goes_on), False
    failures = [(each.place, each.origin, key, each.begins_key) for key, each in enumerate(batch.failures)]
    what = (orders, each, batch.origins, failures)
    return b"" if what == PLAIN_BATCH else pickle.dumps((tuple(orders), *what[1:])), parts


def open_note(note: bytes) -> tuple[Figures, int, bytes]:
    """The counters in the note of an answer, how many results there are, and the rest of it."""
    steps, count = HEAD.unpack_from(note)
    numbers = _numbers(steps)
    busy, waiting, blocked, cpu, retried, *lists = numbers.unpack_from(note, HEAD.size)
    figures = Figures(busy, waiting, blocked, cpu, retried, lists[:steps], lists[steps : 2 * steps], lists[2 * steps :])
    return figures, count, note[HEAD.size + numbers.size :]


def open_answer(
    count: int, told: bytes, parts: Sequence[serialize.Bytes], buffers: Callable[[], Sequence[Any]], sent: Batch, step: str,
    *, goes_on: bool, onward: bool,
) -> tuple[Batch, bytes | None]:  # fmt: skip
    """What a worker whose last step this is made of the batch it was `sent`: so many results, and what is `told` of them.
    Of a part of it also the last result, packed. `buffers`: the large buffers among the parts, which are kept. `onward`:
    the results stay bytes, for other workers. Raises Unreadable where they cannot be read back as a whole, and may be with
    every value by itself."""
    outcome = _Outcome(*pickle.loads(told)) if told else PLAIN_OUTCOME
    if outcome.encoded is not None:
        data = buffers()[0] if len(parts) > 1 else bytes(parts[0])
        return Batch(Encoded(data, count, outcome.encoded), first=sent.first), outcome.newest
    bad: list[serialize.NotSerializable] = []
    values: Any
    if onward:
        values = Packed([bytes(part) for part in parts], count, each=outcome.each)
    elif outcome.each:
        values, bad = _each_unpacked(parts)
    else:
        try:
            values = serialize.unpack(parts, buffers() if len(parts) > 1 else None)
            values = values if type(values) is ArrowRows else records_of(values)
        except serialize.RAISED as error:
            pass_on(error)
            raise Unreadable from error
    batch = Batch(values, outcome.origins, [], sent.first)
    if outcome.failures:
        batch.failures = [_failure(each, sent) for each in outcome.failures]
    if bad:
        _fail(batch, bad, step, "its result cannot be read back from a worker", goes_on=goes_on)
    return batch, outcome.newest


def _failure(told: Any, sent: Batch) -> Failure:
    if len(told) > 3:
        place, origin, step, error, trace, given = told
        trace = in_cells(trace)
        raised = serialize.unpack_error(serialize.SerializedError(*error), step=step, trace=trace)
        return Failure(place, origin, step, raised, trace, given=given)
    failure: Failure = sent.failures[told[2]]
    failure.place = told[0]
    return failure


# --- a worker's side ---


def open_orders(note: bytes) -> tuple[Orders, bool, list[int] | None, list[Sent]]:
    """How to run a batch, whether each value is in a part of its own, and the batch's origins and failures."""
    if not note:
        return PLAIN_BATCH
    orders, each, origins, failures = pickle.loads(note)
    return Orders(*orders), each, origins, failures


def open_batch(
    note: bytes, parts: Sequence[serialize.Bytes], buffers: Callable[[], Sequence[Any]], step: str, *, goes_on: bool,
    begins: Callable[[int], None], tables: bool = False,
) -> tuple[Orders, Batch | None]:  # fmt: skip
    """How to run a batch, and the batch; None where it cannot be read back as a whole. `begins` is told each value of a
    careful one before it is unpacked. `step`: in whose name a value fails that cannot be. `tables`: its values may be rows
    of a table."""
    orders, each, origins, known = open_orders(note)
    failures = [
        Failure(place, origin, "", KeyError(), record=key, begins_key=begins_key)
        for place, origin, key, begins_key in known
    ]
    if each:
        values, bad = _each_unpacked(parts, begins if orders.careful else None)
        batch = Batch(values, origins, failures, orders.first)
        _fail(batch, bad, step, "its record cannot be read back in a worker", goes_on=goes_on)
        return orders, batch
    try:
        values = serialize.unpack(parts, buffers() if len(parts) > 1 else None)
        if isinstance(values, Part):
            return orders, read_part(values, orders.first, goes_on=goes_on, tables=tables)
        held = values if tables and type(values) is ArrowRows else records_of(values)
        return orders, Batch(held, origins, failures, orders.first)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except serialize.RAISED:
        return orders, None


def read_part(part: Part, first: int, *, goes_on: bool, tables: bool = False) -> Batch:
    """The records of a part of the source; with `tables` as rows of a table, where it has columns. Raises where there are
    not as many as were counted, too."""
    if tables and (rows := rows_of(part)) is not None:
        return Batch(rows, first=first)
    unread: list[Unread] | None = [] if goes_on else None
    records = list(part.read(unread))
    if len(records) != len(part):
        raise ValueError(f"{len(records)} records in the place of {len(part)}")
    return Batch.read(records, unread, first)


def pack_results(batch: Batch, step: str, *, goes_on: bool, check: bool = False) -> None:
    """Have each result as bytes of its own, which can be read back if that is to be checked; what cannot go fails."""
    packed: list[serialize.Bytes] = []
    try:
        packed += serialize.pack_each(batch.values, check=check)
    except serialize.NotSerializable as error:
        packed += serialize.pack_each(batch.values[: error.position])
        _fail(batch, [error], step, UNRETURNED, goes_on=goes_on)
    batch.values = packed[: len(batch.values)]


def seal_answer(
    batch: Batch, orders: Orders, step: str, *, goes_on: bool, is_part: bool
) -> tuple[int, bytes, list[serialize.Bytes]]:
    """How many results a batch has that came through, the outcome, and the payload. Where it went carefully its results
    are bytes already."""
    count = len(batch.values)
    newest = None
    if is_part:
        from taktline._crew.partial import newest_of  # mostly not needed

        newest = newest_of(batch, packed=orders.careful)
    if orders.encode is not None and not orders.careful and (data := encoded(batch, orders.encode)) is not None:
        # A part behind the first one may stay where it is.
        parts = [b"", data] if len(data) >= serialize.LARGE else [data]
        return count, pickle.dumps(tuple(_Outcome(encoded=batch.tail(), newest=newest))), parts
    parts = batch.values if orders.careful else _packed(batch, step, UNRETURNED, goes_on=goes_on)
    outcome = _Outcome(orders.careful, batch.origins, [_told(failure) for failure in batch.failures], newest=newest)
    return len(batch.values), b"" if outcome == PLAIN_OUTCOME else pickle.dumps(tuple(outcome)), parts


def note_of(count: int, figures: Figures, outcome: bytes) -> bytes:
    """The note of an answer."""
    n = len(figures.records)
    lists = (*figures.records, *figures.timed_records, *figures.timed_ns)
    return HEAD.pack(n, count) + _numbers(n).pack(*figures[:5], *lists) + outcome


def _told(failure: Failure) -> Told | tuple[Any, ...]:
    if isinstance(failure.record, int):  # it came with the batch: the caller's side knows the rest
        return (failure.place, failure.origin, failure.record)
    error = tuple(serialize.pack_error(failure.error))
    return (failure.place, failure.origin, failure.step, error, failure.traceback, failure.given)


def encoded(batch: Batch, encode: Encode) -> serialize.Bytes | None:
    """The results as bytes for the sink; None where the caller must see them, or the error they cause there."""
    if batch.failures:
        return None
    try:
        return encode(batch.values)
    except Exception:
        return None


# --- values that stay here ---


def copied(value: Any) -> Any:
    """A value as a worker would get it. Raises what packing it raises."""
    if not identity.ready():  # no crew of processes has looked for what is told by `is`, which is not copied
        identity.look()
    return serialize.unpack(serialize.pack([value]))[0]


def snapshot(values: Any) -> bytes:
    """Values as they are now, as a pickle for this process. Raises what packing them raises."""
    return serialize.snapshot(values)


def copied_error(error: BaseException, *, step: str, trace: str) -> BaseException:
    """An exception as it would come from a worker."""
    return serialize.unpack_error(serialize.pack_error(error), step=step, trace=trace)


# --- both ends ---

HEAD = struct.Struct("<II")  # steps, results
_NUMBERS: dict[int, struct.Struct] = {}


def _numbers(steps: int) -> struct.Struct:
    """The form of a worker's counters."""
    if steps not in _NUMBERS:
        _NUMBERS[steps] = struct.Struct(f"<{5 + 3 * steps}Q")
    return _NUMBERS[steps]


def _packed(batch: Batch, step: str, why: str, *, goes_on: bool) -> list[serialize.Bytes]:
    """The values as one pickle; what cannot be pickled fails."""
    while True:
        try:
            return serialize.pack(batch.values)
        except serialize.NotSerializable as error:
            if type(batch.values) is list:
                _fail(batch, [error], step, why, goes_on=goes_on)
            else:
                batch.values = records_of(batch.values)  # among which it is found


def _each_unpacked(
    parts: Sequence[serialize.Bytes], begins: Callable[[int], None] | None = None
) -> tuple[list[Any], list[serialize.NotSerializable]]:
    """The values of parts of their own, and which of them cannot be read back: None stands in their place."""
    values: list[Any] = []
    bad: list[serialize.NotSerializable] = []
    for position, part in enumerate(parts):
        if begins is not None:
            begins(position)
        try:
            values.append(serialize.unpack_one(position, part))
        except serialize.NotSerializable as error:
            values.append(None)
            bad.append(error)
    return values, bad


def _fail(batch: Batch, bad: list[serialize.NotSerializable], step: str, why: str, *, goes_on: bool) -> None:
    lost = [(each.position, serialize.failed_to_go(step, each.error, why)) for each in bad]
    batch.fail_each(lost, step, goes_on=goes_on)
