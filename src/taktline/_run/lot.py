"""What an engine hands over at once: the results of consecutive records, and what else became of those."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


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
