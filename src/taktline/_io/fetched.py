"""Rows that this process has read already, in columns: a part whose pickle has all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taktline._arrow import records_of, stream_of, table_of
from taktline._io.splitting import Cut
from taktline.abc import Part, Unread


class CutHere(Cut):
    """A pass whose rows this process reads."""

    here = True


class Fetched(Part):
    """Rows that are here already, in columns."""

    __slots__ = ("_table", "size")

    def __init__(self, table: Any) -> None:
        self._table = table
        self.size = max(1, table.nbytes)

    def __reduce__(self) -> Any:
        return _elsewhere, (stream_of(self._table),)

    def __len__(self) -> int:
        return self._table.num_rows  # type: ignore[no-any-return]

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, int):
            return super().__getitem__(at)
        return records_of(self._table.slice(range(len(self))[at], 1))[0]

    def read(self, unread: list[Unread] | None = None) -> Iterator[dict[str, Any]]:
        return iter(records_of(self._table))

    def table(self) -> Any:
        return self._table


def _elsewhere(stream: Any) -> Fetched:
    return Fetched(table_of(stream))
