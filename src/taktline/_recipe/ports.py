"""The contracts of what stands at the two ends of a line: where records come from, where results go.

Any iterable is a source. A `Source` is one that can be read more than once and knows a little about itself.
Any callable of one result is a sink. A `Sink` takes results in bulk and knows how to finish and how to give up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any


class Source(ABC):
    """Records that can be read from the start as often as asked."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """A fresh pass over all records, in order. Raises SourceError with the position of what cannot be read."""

    def describe(self) -> str:
        """What people call this source, such as a path."""
        return type(self).__name__


class Sink(ABC):
    """Takes results in order. `open` before the first, then either `commit` or `abort`, exactly once."""

    @abstractmethod
    def open(self) -> None:
        """Get ready to write. Raises SinkError where that is impossible; nothing is left behind then."""

    @abstractmethod
    def write(self, results: Sequence[Any]) -> None:
        """Write these results, in order. Raises SinkError naming what could not be written."""

    @abstractmethod
    def commit(self) -> None:
        """Everything was written: make it visible under its final name."""

    @abstractmethod
    def abort(self) -> None:
        """The run failed: leave nothing that looks like a whole result. May be called at any time after `open`."""

    def describe(self) -> str:
        """What people call this sink, such as a path."""
        return type(self).__name__
