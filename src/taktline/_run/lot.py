"""What an engine hands over at once: the results of consecutive records, and what else became of those."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from taktline._recipe.ports import Sink


@dataclass(frozen=True, slots=True)
class Lost:
    """A record that failed, in a run that goes on."""

    index: int
    step: str
    error: BaseException
    traceback: str
    record: Any


class Lot(list[Any]):
    """Results. Those of the records before `first + records` are all delivered with it."""

    __slots__ = ("failures", "first", "records")

    def __init__(self, results: Iterable[Any], first: int, records: int, failures: tuple[Lost, ...] = ()) -> None:
        super().__init__(results)
        self.first = first
        self.records = records  # 0 where the last one failed and ends the run: what it gave before is no whole result
        self.failures = failures

    def into(self, sink: Sink) -> None:
        """Write the results."""
        sink.write(self)


class EncodedLot(Lot):
    """Results whose bytes a worker has made for the sink; as a list it has their number alone."""

    __slots__ = ("_count", "_data")

    def __init__(self, data: bytes, count: int, first: int, records: int) -> None:
        super().__init__((), first, records)
        self._data = data
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> NoReturn:
        raise TypeError("these results are bytes for a sink")

    def into(self, sink: Sink) -> None:
        sink.write_encoded(self._data, self._count)
