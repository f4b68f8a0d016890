"""What a batch holds. A plain list is its records; anything else knows how to become that list.

Who only passes a batch on need not know which it is. Besides the cases here, a part of a source that nobody has read
(`abc.Part`) is one, and so is what is packed for the way to another process (`_crew/envelope.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from taktline.abc import Part


class Values(Protocol):
    """Values of a batch in another form than a list."""

    @property
    def size(self) -> int:
        """Bytes it holds; 0 where that is not known."""

    def __len__(self) -> int: ...

    def records(self) -> list[Any]:
        """The values as a list. Raises what reading them raises."""


def records_of(values: Any) -> list[Any]:
    """The values of a batch as a list, whatever they are."""
    if type(values) is list:
        return values
    return values[:] if isinstance(values, Part) else values.records()  # type: ignore[no-any-return]


def without(values: Any, start: int, stop: int) -> Any:
    """All but the values from `start` to `stop`; those given stay as they are."""
    return values[:start] + values[stop:] if type(values) is list else values.without(start, stop)


class Encode:
    """Makes a sink's bytes of results: of `records` in a list, or of a `table` of Arrow. Raises where it has none of them."""

    def __init__(
        self, records: Callable[[list[Any]], bytes] | None, table: Callable[[Any], bytes | memoryview] | None
    ) -> None:
        self._records = records
        self._table = table

    def __call__(self, values: Any) -> bytes | memoryview:
        table = getattr(values, "table", None)
        if table is not None and self._table is not None:
            return self._table(table)
        if self._records is None:
            raise TypeError("the sink makes its bytes of tables alone")
        return self._records(records_of(values))


class Table:
    """What batch steps made of a whole batch, as columns: some records a piece."""

    __slots__ = ("pieces",)
    size = 0

    def __init__(self, pieces: Sequence[Any]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def records(self) -> list[Any]:
        """All of them as plain records."""
        return [record for piece in self.pieces for record in piece.records()]


class Encoded:
    """Results whose bytes a worker has made for the sink: of them nothing is left but their number. `data`: bytes, or a
    buffer of the worker's, whose place there is free again when nothing refers to it any more."""

    __slots__ = ("_count", "data", "tail")

    def __init__(self, data: Any, count: int, tail: tuple[int, int] = (0, 0)) -> None:
        self.data = data
        self._count = count
        self.tail = tail  # as Batch.tail says

    @property
    def size(self) -> int:
        """Bytes for the sink."""
        return len(self.data)

    def __len__(self) -> int:
        return self._count

    def records(self) -> NoReturn:
        """There are none any more."""
        raise TypeError("these results are bytes for a sink")
