"""What carries a run out: the loop in the caller's process (`inline.py`), or the hub with its crew (`hub.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from taktline._run.output import OutputBatch
from taktline._segment.values import Encode

if TYPE_CHECKING:
    from taktline._run.states import States


class Engine(ABC):
    """One run. It begins with the first result that is asked for, and works only while one is asked for.

    Results leave in the order of their records; those before an error leave before it. What was handed over last counts
    as delivered when the next is asked for. On every way out `end(complete)` is called, perhaps more than once."""

    states: States | None = None  # of serial steps, where a journal keeps them; set before it begins
    # Which of so many records from an index on are others' by now; set before it begins, where their results can be left out.
    elsewhere: Callable[[int, int], Collection[int]] | None = None
    in_records = False  # the results are taken as records, never as rows of a table; set before it begins
    encode: Encode | None = None  # makes bytes of the results, for a sink that takes them; set before it begins

    @abstractmethod
    def results(self, end: Callable[[bool], None]) -> tuple[Iterator[Any], Iterator[Any]]:
        """The results, one by one, and the generator to close for an early end."""

    @abstractmethod
    def outputs(self, end: Callable[[bool], None]) -> Iterator[OutputBatch]:
        """The results as they are made, some records' at once."""

    @abstractmethod
    def break_off(self) -> None:
        """From another thread: what is under way elsewhere is not waited for any more, and an error ends the run."""

    @abstractmethod
    def close(self) -> None:
        """End what was started and close what was built. May be called again, and before the run has begun."""
