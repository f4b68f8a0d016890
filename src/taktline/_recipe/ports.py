"""The contracts of what stands at the two ends of a line: where records come from, where results go.

Any iterable is a source. A `Source` is one that can be read more than once and knows a little about itself; a
`Splittable` one can be cut into parts that workers read; a `Live` one gives records when they come. Any callable of one
result is a sink. A `Sink` takes results in bulk and knows how to finish and how to give up; a `Resumable` one can also
stop at a mark and go on from there in a later process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any


class Unread:
    """Stands in the place of a record that its source could not make of what it has there: `text`."""

    __slots__ = ("error", "text")

    def __init__(self, text: str, error: Exception) -> None:
        self.text = text
        self.error = error


class Source(ABC):
    """Records that can be read from the start as often as asked."""

    forks = True  # workers may be forked while it is open; not so where it has threads or connections of its own
    shared = False  # it is a database, which may be written to while it is read
    of_the_caller = False  # stands for an iterable of the caller's: what that raises reaches the caller as itself

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """A fresh pass over all records, in order. Raises SourceError with the position of what cannot be read."""

    def each(self, unread: list[Unread]) -> Iterator[Any]:
        """As iterating over it; but where one record alone cannot be made, an Unread stands in its place, and is added to
        `unread`. Raises SourceError where it cannot go on behind that."""
        return iter(self)

    def beside(self, sink: Sink, *, journal: bool) -> Source:
        """What is to be read where the run writes there: this, or the same records read in a way that does not get into
        the sink's. `journal`: the run may be gone on with. Raises LineError where both cannot be."""
        return self

    def describe(self) -> str:
        """What people call this source, such as a path."""
        return type(self).__name__

    def reads(self, path: str) -> bool:
        """Whether a file of this path, or an object of this URL, is among what is read, or would be if it were there: so
        nothing of the run itself is written there."""
        return False

    def fingerprint(self) -> Any:
        """Plain values, and callables that make the records, that change when the records do, so that no run goes on over
        other records than it began with; None where it cannot tell."""
        return None

    def untold(self) -> str:
        """What may change without its `fingerprint` changing, in words; empty where nothing may."""
        return ""


class Part(Sequence[Any]):
    """Consecutive records that are still bytes in their source. As a sequence it decodes them when they are looked at.
    A pickle of it tells only where they are: whoever reads that back gets the bytes from the source."""

    __slots__ = ("_records",)
    size: int  # bytes
    behind: int | None = None  # bytes of the source behind it, where its length in records is not known

    def decoded(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        """A fresh pass over the records. Raises SourceError at what cannot be read, behind the records before it; with
        `unread`, where that is one record alone, goes on as `Source.each` does."""
        raise NotImplementedError

    def __getitem__(self, at: Any) -> Any:
        if not hasattr(self, "_records"):
            self._records = [each.text if type(each) is Unread else each for each in self.decoded([])]
        return self._records[at]

    def __iter__(self) -> Iterator[Any]:
        return self.decoded()


class Splittable(Source):
    """A source of which several processes can read a part each."""

    @abstractmethod
    def parts(
        self, *, exact: bool = False, unread: list[Unread] | None = None
    ) -> Generator[Part | Iterator[Any] | None, int, None] | None:
        """One pass, in order, for one who sends how many records are wanted next; None where this source cannot be split.

        The first answer is None. Sent a number, it answers with a Part of at most so many records (`exact`: of so many,
        unless its file ends), or with an iterator over records where no border is found; sent 0, with such an iterator.
        That may be left at any record: what is sent next goes on behind it. Raises SourceError as iterating does;
        with `unread` its iterators go on as `each` does."""


class Live(Source):
    """Records that come when they come, such as messages of a subscription. One run at a time."""

    ends = True  # by itself, also where nothing of it becomes safe; not so where it would wait for that for ever

    def open(self, window: int | None, memory: int) -> None:
        """A run begins, its workers not started yet. `window`, `memory`: the most records (None: as the source likes) and
        bytes that it takes ahead of what is safe. Raises SourceError where no records can come."""

    @abstractmethod
    def take(self, most: int, seconds: float) -> list[Any] | None:
        """At most `most` records that are there within `seconds`; empty where none came, None where none will.

        `seconds` is 0 while the run has records under way that it must see to."""

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        """The results of all records before the index `records` are safe in the sink, told in rising order.

        `skipped`: indexes, since the last call, of records that failed and were left out without a dead letter."""

    def close(self) -> None:
        """The run has ended: records that were taken and never told to be safe go back."""

    def __iter__(self) -> Iterator[Any]:
        while (records := self.take(1, 3600.0)) is not None:
            yield from records


class Sink(ABC):
    """Takes results in order. `open` before the first, then either `commit` or `abort`, exactly once."""

    no_journal = ""  # why no later process can go on with it
    forks = True  # workers may be forked while it is open; not so where it has threads or connections of its own
    shared = False  # it is a database, which may be read while it is written to

    @abstractmethod
    def open(self) -> None:
        """Get ready to write. Raises SinkError where that is impossible; nothing is left behind then."""

    @abstractmethod
    def write(self, results: Sequence[Any]) -> None:
        """Write these results, in order. Raises SinkError naming what could not be written."""

    encoder: Callable[[list[Any]], bytes] | None = None
    """Where a worker may make the bytes of results: a function that can be pickled. What it raises it raises for results
    that `write` refuses."""

    def write_encoded(self, data: bytes, count: int) -> None:
        """Write what `encoder` made of so many results. Raises SinkError as `write` does."""
        raise NotImplementedError

    @abstractmethod
    def commit(self) -> None:
        """Everything was written: make it visible under its final name."""

    @abstractmethod
    def abort(self) -> None:
        """The run failed: leave nothing that looks like a whole result. May be called at any time after `open`."""

    def describe(self) -> str:
        """What people call this sink, such as a path."""
        return type(self).__name__

    def writes(self) -> list[str]:
        """The paths or URLs that are written, which must be nothing else's of the same run."""
        return []


class Resumable(Sink):
    """A sink that a journal can bring back to a mark. After `begin` or `resume` in place of `open`: any number of
    `write` and `save`, then `commit`, or `suspend` where a later process will go on."""

    visible = False  # True: what `save` has made safe is seen at once and stays, whether or not `commit` follows
    keyed = False  # True: a result takes the place of an earlier one of the same key, so that it may come twice

    def fingerprint(self) -> Any:
        """A JSON value that tells where results go and how: no run goes on into something else."""
        return self.describe()

    def beside(self, journal: str) -> None:
        """The run's journal has this path: told before `begin` or `resume`. What a later process needs may lie beside
        it."""

    @abstractmethod
    def begin(self, run: str) -> None:
        """Get ready to write for the first time. `run` names the run: it stays the same when it is resumed.

        Called again by a later process where this one was killed before its first `save` was noted."""

    @abstractmethod
    def save(self, mark: str) -> Any:
        """Make all that was written so far survive a power cut, together with `mark`; the position, as a JSON value
        other than None."""

    @abstractmethod
    def resume(self, run: str, position: Any) -> str | None:
        """Go on behind a saved `position`, cutting off what was written after it.

        A sink that keeps marks itself (a database, in the same transaction as the rows) returns the newest one it has,
        which may be later than `position`; others return None. Raises ResumeError where it cannot go on, as `OutputLost`
        where what was written is gone."""

    @abstractmethod
    def suspend(self) -> None:
        """The run stops and will be resumed: keep what is needed for that. May be called at any time, also after
        `write` or `save` failed."""

    def noted(self) -> None:
        """The journal says that `commit` was done: what was kept in case it did not come to that may go."""

    def forget(self, run: str, position: Any) -> None:
        """The run is given up, and another one begins in its place: what it has written up to `position` and nobody sees
        may go. It may have been written by another sink of this kind."""

    def is_gone(self, run: str, position: Any) -> str:
        """The whole result of this run was made visible by `commit`: why it is not there any more; empty where it is,
        or where that cannot be told."""
        return ""

    @abstractmethod
    def finished(self, run: str, position: Any) -> bool:
        """Whether the whole result of this run, up to `position`, was already made visible by `commit`. Asked before
        `resume`, where everything was delivered and the process may have been killed in `commit`."""
