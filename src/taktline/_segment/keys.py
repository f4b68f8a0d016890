"""Which consecutive records stay together in a batch step with `by=`: those of one key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taktline._segment.tables import ArrowRows
from taktline.abc import Unread

By = Callable[[Any], Any] | str


def key_of(by: By) -> Callable[[Any], Any]:
    """What gives the key of a record as its source gives it.

    >>> key_of("user")({"user": "ann"}), key_of(len)("abc"), key_of("real")(1.5)
    ('ann', 3, 1.5)
    """
    if not isinstance(by, str):
        return by

    def looked_up(record: Any) -> Any:
        return record[by] if isinstance(record, Mapping) else getattr(record, by)

    return looked_up


def alike(one: Any, other: Any) -> bool:
    """Whether two keys are the same. NaN is the same as NaN: nothing is parted that may belong together."""
    return one is other or bool(one == other) or bool(one != one and other != other)


def starts(values: Any, by: By) -> list[int]:
    """The places among these values, records or rows of a table, at which a key begins; the first one is one. What cannot
    be read belongs to the key before it. Raises what looking a key up does.

    >>> starts(["a", "b", "cc", "d"], len)
    [0, 2, 3]
    """
    if type(values) is ArrowRows and isinstance(by, str):
        return _starts_in_table(values.table, by)
    key = key_of(by)
    found: list[int] = []
    newest: Any = None
    for at, record in enumerate(values):
        if type(record) is Unread:
            continue
        own = key(record)
        if not found or not alike(own, newest):
            found.append(at)
        newest = own
    return [0, *found[1:]] if found else [0] * bool(len(values))


def start_of(records: Sequence[Any], at: int, by: By) -> int:
    """Where the key of the record at this place begins."""
    key = key_of(by)
    own = key(records[at])
    while at and alike(key(records[at - 1]), own):
        at -= 1
    return at


def _starts_in_table(table: Any, name: str) -> list[int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if len(column) < 2:
        return [0] * len(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    own, before = column.slice(1), column.slice(0, len(column) - 1)
    try:
        differs = pc.fill_null(pc.not_equal(own, before), False)
    except pa.ArrowNotImplementedError:  # lists and the like
        values = column.to_pylist()
        return [0, *(at for at in range(1, len(values)) if not alike(values[at - 1], values[at]))]
    differs = pc.or_(differs, pc.xor(pc.is_null(own), pc.is_null(before)))
    if pa.types.is_floating(column.type):
        both = pc.and_(pc.fill_null(pc.is_nan(own), False), pc.fill_null(pc.is_nan(before), False))
        differs = pc.and_not(differs, both)
    return [0, *(at + 1 for at in pc.indices_nonzero(differs).to_pylist())]
