"""The contracts of what stands at the two ends of a line: derive from these to read from, or write to, something new.

Any iterable is a source already, and any callable of one result a sink. These are for more than that: a `Source` can be
read again and knows a little about itself; one that makes a `Splitter` has its records read and decoded by the workers,
a `Part` each; a `Live` one gives records when they come and is told when their results are safe. A `Sink` takes results in
bulk, and knows how to finish and how to give up; a `Resumable` one can also stop at a mark and go on from there in a later
process. `taktline.testing` has a check for each of them, and docs/extending.md an example. An `Observer` hears what happens.

A `Crew` runs what is between the ends: workers, wherever they are. `Machines` make one, and stand for it as `on=` of a run.

What a stranger's class raises reaches the caller as itself. `SourceError` and `SinkError` say more to people.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import taktline
from taktline._types import Out

if TYPE_CHECKING:
    from taktline._crew.contract import Batch as Batch
    from taktline._crew.contract import Blind as Blind
    from taktline._crew.contract import Broken as Broken
    from taktline._crew.contract import Came as Came
    from taktline._crew.contract import Crew as Crew
    from taktline._crew.contract import Encode as Encode
    from taktline._crew.contract import Ended as Ended
    from taktline._crew.contract import Failure as Failure
    from taktline._crew.contract import Figures as Figures
    from taktline._crew.contract import Lost as Lost
    from taktline._crew.contract import Orders as Orders
    from taktline._crew.contract import Ready as Ready
    from taktline._crew.contract import Spoiled as Spoiled
    from taktline._crew.contract import StartFailed as StartFailed
    from taktline._crew.contract import Withdrawn as Withdrawn
    from taktline._crew.contract import WorkerPlace as WorkerPlace
    from taktline._crew.contract import WorkerState as WorkerState

# Of the contract of crews, which a run in the caller's process does not load.
CREWS = (
    "Batch", "Blind", "Broken", "Came", "Crew", "Encode", "Ended", "Failure", "Figures", "Lost", "Orders", "PLAIN_ORDERS",
    "Ready", "Spoiled", "StartFailed", "Withdrawn", "WorkerPlace", "WorkerState",
)  # fmt: skip
__all__ = [  # noqa: PLE0604, RUF100
    "Health", "Live", "Machines", "Observer", "Part", "Resumable", "Sink", "Source", "Splitter", "Unread", *CREWS,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What belongs to crews is imported when it is first asked for."""
    if name in CREWS:
        from importlib import import_module

        value = globals()[name] = getattr(import_module("taktline._crew.contract"), name)
        return value
    raise AttributeError(f"module 'taktline.abc' has no attribute {name!r}")


class Unread:
    """Stands in the place of a record that cannot be made of what is there in the source: its `text`, and why not.

    A run with `on_error` or `dead_letters` treats it as a record that failed in a step called "(reading)".

    >>> Unread("{no json", ValueError("no JSON")).text
    '{no json'
    """

    __slots__ = ("error", "text")

    def __init__(self, text: str, error: Exception) -> None:
        self.text = text
        self.error = error


class Source(ABC, Generic[Out]):
    """Records that can be read from the start as often as asked. Only `__iter__` must be written.

    >>> class Squares(Source):
    ...     def __iter__(self):
    ...         return (n * n for n in range(4))
    >>> from taktline import line
    >>> list(line(str)(Squares()))
    ['0', '1', '4', '9']

    One with a `__len__` tells how many records there are: progress and plans use it.
    """

    forks = True
    """Whether workers may be forked while it is open: not where it has threads or connections of its own."""

    shared = False
    """Whether it is a database: one that is written to by the same run all the same."""

    columns = False
    """Whether its parts give tables too: batch steps over columns get those then, and no record is made."""

    @abstractmethod
    def __iter__(self) -> Iterator[Out]:
        """A fresh pass over all records, in order. What it has open it closes at the end, and where it is left early."""

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        """A fresh pass that goes on behind what cannot be read.

        Where one record alone cannot be made, an Unread stands in its place and is added to `unread`; where reading
        cannot go on behind it, what iterating raises is raised. Without records of that kind this is iterating.
        """
        return iter(self)

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        """A fresh pass in parts that workers read; None where this source is read by the caller's process alone.

        `exact`: parts are to have as many records as are asked for, as far as there are; else they may end earlier, where
        that is easier. With `unread` the Splitter's own records are those of `read`.
        """
        return None

    def split_columns(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        """As `split`, for steps over columns: asked where the source has `columns`. It need not be written where the parts
        of `split` give tables. One that this process reads itself makes tables here: its Splitter is `here`."""
        return self.split(exact=exact, unread=unread)

    def look(self) -> Callable[[], bool] | None:
        """What is called on another machine, by way of pickle, before parts go there: whether it has what they name. Where
        not, the caller's process reads for its workers from the first part on. None: that is found by the parts."""
        return None

    def beside(self, sink: Sink, *, journal: bool) -> Source:
        """What is to be read where the run writes there: this source, or the same records read so that the sink's writing
        does not get in the way. `journal`: the run may be gone on with. Raises LineError where both cannot be."""
        return self

    def about(self) -> int | None:
        """About how many records there are, where that is told in a few milliseconds and there is no `__len__`: for what
        people see of a run, and for nothing else. None where it is not known."""
        return None

    def describe(self) -> str:
        """What people call this source, such as a path."""
        return type(self).__name__

    def reads(self, path: str) -> bool:
        """Whether a file of this path, or an object of this URL, is among what is read, or would be if it were there: so
        nothing of the run itself is written there. A path that ends with a slash: whether anything in that folder is."""
        return False

    def fingerprint(self) -> Any:
        """Plain values, and callables that make the records, that change when the records do: with a journal no run goes
        on over other records than it began with. None where it cannot tell; then records are compared now and then."""
        return None

    def places(self) -> Splitter | None:
        """A further pass in parts, which tell where their records stand (`Part.where`): begun when a record has failed. None
        where there is none, such as of what can be read only once."""
        return None

    def untold(self) -> str:
        """What may change without its `fingerprint` changing, in words; empty where nothing may."""
        return ""


class Observer:
    """Hears what happens in a run: give it as `observer=`. Each method may be left out.

    All are called in the run's own thread, between two batches, so they should take microseconds; what one raises ends the
    run. An event or action is a named tuple, known by the name of its type: docs/extending.md lists them.

    >>> class Batches(Observer):
    ...     records = 0
    ...     def heard(self, at, event, actions):
    ...         if type(event).__name__ == "Done":
    ...             self.records += event.work.records
    >>> from taktline import line
    >>> batches = Batches()
    >>> _ = line(abs).run(range(-9, 0), observer=batches)
    >>> batches.records
    9
    """

    def begins(self, run: Any) -> None:
        """The run begins; `run` is its first Snapshot."""

    def heard(self, at: float, event: Any, actions: Sequence[Any]) -> None:
        """After `at` seconds this has happened, and these actions follow from it."""

    def looked(self, at: float, run: Any) -> None:
        """About four times a second while records go through: the Snapshot after `at` seconds."""

    def ends(self, report: Any) -> None:
        """The run has ended, well or not; the Report says how. Not called where the run never began."""


class Machines(ABC):
    """Where a line runs other than on this machine: `on=` of a run. It makes the crew that runs it there."""

    @abstractmethod
    def slots(self) -> int:
        """How many workers there are places for: so many are started where `workers=` does not say. Raises
        WorkersCannotStart where they cannot be reached."""

    def sizes(self) -> list[int]:
        """The places of each machine, for `flow.plan`. Raises as `slots` does."""
        return [self.slots()]

    @abstractmethod
    def crew(
        self, lanes: Sequence[tuple[Any, ...] | None], *, goes_on: bool, workers: int, most: int,
        seeds: Sequence[tuple[int, int, int] | None], setup: Callable[[], object] | None,
        tell: Callable[[list[str], list[str]], None],
    ) -> taktline.abc.Crew:  # fmt: skip
        """The crew for one run. `lanes`: the steps that workers run together, None where no worker does. `goes_on`: after a
        record that fails, too. `workers`: how many there will be in all; `most`: bytes that one may hold. `seeds`: what the
        run's seed says of each lane. `setup`: to be called in each worker before its first record. `tell`: what is worth
        a word in the report, and what workers do not have as it is in the caller's process. Raises LineError at once where
        a step cannot be carried over."""

    @property
    def says(self) -> str:
        """What people call them."""
        return type(self).__name__


class Splitter(ABC):
    """One pass over a source, made by `Source.split`: asked for the next part, or iterated over where there is none to cut.

    Both may take turns. A pass over it gives the records from here on; it may be left at any record, and is not gone on
    with once `part` was called: what is asked for next goes on behind the last record that was given.
    """

    here = False
    """Whether its parts have been read by this process: workers get what is in them, and read nothing."""

    @abstractmethod
    def part(self, records: int) -> Part | None:
        """The next records, at most so many, at least one; None at the end, and where no part can be cut here: then the
        records are taken by iterating, and it is asked again later. Raises what iterating would raise here."""

    def table(self) -> Part | None:
        """As `part`, where the source has `columns`: the next records that it keeps together itself, such as a row group.
        Where it ends follows from the source and its options alone, so that equal runs make equal files."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """The records from here on, read in this process, to the end of the source."""

    @property
    def left(self) -> int | None:
        """Bytes of the source behind the newest part, from which it is reckoned how many records are left; None where that
        is not known, or the source has a length."""
        return None

    def where(self) -> str:
        """Where the record that iterating gave last stands, as `Part.where` tells it; of a pass made by `Source.places`."""
        return ""

    def close(self) -> None:  # noqa: B027  most have nothing open
        """Let go of what is open. May be called again, and while parts of it are still read."""


class Part(Sequence[Any]):
    """Consecutive records of a source that nobody has read yet. As a sequence it reads them when they are looked at.

    A worker gets a pickle of it, which need only tell where the records are, and reads them there. It knows how many there
    are (`__len__`): a worker that finds another number says so, and the caller's process reads them again to tell why.
    """

    __slots__ = ("_records",)
    size: int
    """Bytes that the records take, about; more than 0."""

    whole: frozenset[str] = frozenset()
    """Of columns: the names of those that have no null in the whole source, so that all its tables are alike to steps."""

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        """A fresh pass over the records, here or in a worker. Raises at what cannot be read, behind the records before it;
        with `unread`, where that is one record alone, goes on as `Source.read` does."""
        raise NotImplementedError

    def table(self) -> Any:
        """The records as the rows of a pyarrow.Table, of a source with `columns`; its types are the source's. Raises
        where they cannot be had so: then they are read one by one, which tells what is wrong with which."""
        raise NotImplementedError

    def where(self, n: int) -> str:
        """Where record `n` of these stands, for people, such as "orders.jsonl:48212"; empty where that cannot be told."""
        return ""

    def __getitem__(self, at: Any) -> Any:
        if not hasattr(self, "_records"):
            self._records = [each.text if type(each) is Unread else each for each in self.read([])]
        return self._records[at]

    def __iter__(self) -> Iterator[Any]:
        return self.read()


class Health(NamedTuple):
    """How it stands with a live source."""

    backlog: int | None = None
    """Records that wait there and that no run has taken; None where it does not know."""

    lag: float | None = None
    """Seconds that the oldest of them waits, or the oldest that is not safe yet; None where it does not know."""

    refused: str = ""
    """Why it can have none now, such as that its server cannot be reached; empty where all is well."""


class Live(Source):
    """Records that come when they come, such as messages of a subscription. One run at a time.

    A run calls `open`, then `take` over and over, in between `safe`, and at last `close`, all in one thread. It ends where
    `take` says that nothing more comes. At the first SIGTERM it takes no more, finishes what it has, and tells that it is
    safe; a second one ends it at once.
    """

    ends = True
    """Whether it ends by itself, also where nothing of it becomes safe; not so where it would wait for that for ever."""

    drain: float | None = 30.0
    """Seconds that the first SIGTERM gives to what is under way; None: as long as it takes. What is not safe then is as if
    it had never been taken, and SystemExit(143) is raised."""

    settle: Callable[[], None] | None = None
    """For `take` to call before others get what is under way: makes safe what was delivered so far, and tells `safe` of it.
    The run puts it there before `open`, and takes it away before `close`."""

    def open(self, window: int | None, memory: int) -> None:
        """A run begins, its workers not started yet. `window`, `memory`: the most records (None: as the source likes) and
        bytes that it takes ahead of what is safe. Raises where no records can come."""

    @abstractmethod
    def take(self, most: int, seconds: float) -> list[Any] | None:
        """At most `most` records that are there within `seconds`; empty where none came, None where none will. An Unread
        may stand in the place of one that is not to be given to steps.

        `seconds` is 0 while the run has records under way that it must see to; it is never more than a quarter of a second.
        """

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        """The results of all records before the index `records` are safe in the sink, told in rising order. The first
        record that this run took has the index 0.

        `skipped`: indexes, since the last call, of records that failed and were left out without a dead letter."""

    def place(self, records: int) -> Any:
        """For a journal: where the source stands behind the record before the index `records`, as a JSON value by which it
        knows all before it again, also in a later process. Asked before `safe` is told of these records. None where it
        cannot tell: then what was delivered shortly before a kill may come again."""
        return None

    def resume(self, place: Any) -> None:
        """All before this place was delivered by an earlier process: it is told to be safe, and not given again. Between
        `open` and the first `take`."""

    def health(self) -> Health:
        """How it stands with this source, by what it knows without asking anybody: it is called four times a second, in the
        thread of the run, for metrics and for whoever starts more subscribers."""
        return Health()

    def comes_again(self, index: int) -> bool:
        """Asked where there are dead letters: whether the record at this index, which failed and is not safe, is to be
        among `skipped`, since it comes again; else it gets its dead letter now."""
        return False

    def elsewhere(self, first: int, records: int) -> Collection[int]:
        """The indexes, of so many records from `first` on, of those that are under way here and others' by now, who get them
        again: results of them are left out, and they are told to be safe with those around them, which must acknowledge
        nothing then. They stay others' once they were named. Asked right before results are handed on, where workers had
        the records, each result is of one record, and there is no journal; else results of such records arrive too."""
        return ()

    def close(self) -> None:
        """The run has ended: records that were taken and never told to be safe go back."""

    def __iter__(self) -> Iterator[Any]:
        while (records := self.take(1, 0.25)) is not None:
            yield from records


class Sink(ABC):
    """Takes results in order. `open` before the first, then either `commit` or `abort`.

    >>> class Shown(Sink):
    ...     def open(self):
    ...         self.results = []
    ...     def write(self, results):
    ...         self.results += results
    ...     def commit(self):
    ...         print("all:", self.results)
    ...     def abort(self):
    ...         print("given up")
    >>> from taktline import line
    >>> line(abs).run([-1, 2], Shown()).records_out
    all: [1, 2]
    2
    """

    no_journal = ""
    """Why no later process can go on with it, in words."""

    forks = True
    """Whether workers may be forked while it is open: not where it has threads or connections of its own."""

    shared = False
    """Whether it is a database: one that may be read by the same run all the same."""

    takes_failed = True
    """Whether it has a place for the `Failed` that `on_error="keep"` puts among the results; else such a run is refused."""

    encoder: Callable[[list[Any]], bytes] | None = None
    """Where workers may make the bytes of results: a function that can be pickled. What it raises it raises for results
    that `write` refuses; those are given to `write` then."""

    tables = False
    """Whether it takes tables: `write_table`."""

    table_encoder: Callable[[Any], bytes | memoryview] | None = None
    """As `encoder`, of a pyarrow.Table; what it makes goes to `write_encoded` too."""

    encoded_in_place = False
    """Whether `write_encoded` takes a memoryview as well as bytes, and keeps nothing of it when it returns: then what a
    worker made is written from where it lies, and not copied before."""

    @abstractmethod
    def open(self) -> None:
        """Get ready to write. Raises SinkError where that is impossible; nothing is left behind then."""

    @abstractmethod
    def write(self, results: Sequence[Any]) -> None:
        """Write these results, in order. Raises SinkError naming what could not be written."""

    def write_table(self, table: Any) -> None:
        """Write the rows of this pyarrow.Table as results, in order; in any turn with `write`. Raises as that does."""
        raise NotImplementedError

    def write_encoded(self, data: Any, count: int) -> None:
        """Write what `encoder` made of so many results. Raises SinkError as `write` does."""
        raise NotImplementedError

    def encoders_elsewhere(
        self,
    ) -> tuple[Callable[[list[Any]], bytes] | None, Callable[[Any], bytes | memoryview] | None]:
        """What workers on other machines have in place of `encoder` and `table_encoder`, such as what leaves the bytes in a
        file that both can reach. Asked for once it is open, where a run has such workers; from then on `write_encoded` gets
        what these make."""
        return self.encoder, self.table_encoder

    def notes(self) -> list[str]:
        """What of this run is worth a word in its report. Asked for at its end."""
        return []

    @abstractmethod
    def commit(self) -> None:
        """Everything was written: make it visible under its final name."""

    @abstractmethod
    def abort(self) -> None:
        """The run failed: leave nothing that looks like a whole result. May be called at any time after `open`, also where
        `commit` has failed."""

    def describe(self) -> str:
        """What people call this sink, such as a path."""
        return type(self).__name__

    def writes(self) -> list[str]:
        """The paths or URLs that are written, which must be nothing else's of the same run."""
        return []

    def adds(self) -> list[str]:
        """Of a folder that is written: the path or URL of such a file as comes into it, so that no run reads its own output
        the next time. One that ends with a slash stands for all that is in that folder, as where it is taken away."""
        return []


class Resumable(Sink):
    """A sink that a journal can bring back to a mark. With a journal, after `begin` or `resume` in place of `open`: any
    number of `write` and `save`, then `commit`, or `suspend` where a later process will go on."""

    visible = False
    """Whether what `save` has made safe is seen at once and stays, whether or not `commit` follows."""

    every: float | None = None
    """Seconds between two marks, where each is a thing of its own to be seen; None: as it is best for the run."""

    ahead: int | None = None
    """Records that must be under way for it, of a live source, where the run's `window` does not say."""

    keyed = False
    """Whether a result takes the place of an earlier one of the same key, so that it may come twice."""

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

    def due(self) -> bool:
        """Whether this is a good moment for a mark, before `every` is over. Asked after each `write`."""
        return False

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

    @abstractmethod
    def finished(self, run: str, position: Any) -> bool:
        """Whether the whole result of this run, up to `position`, was already made visible by `commit`. Asked before
        `resume`, where everything was delivered and the process may have been killed in `commit`."""

    def committed(self, position: Any) -> Any:
        """`commit` was done, by this process or one that was killed then: the position, with what `is_gone` needs to know, as
        the journal is to keep it from now on. A JSON value; asked before `noted`."""
        return position

    def noted(self) -> None:
        """The journal says that `commit` was done: what was kept in case it did not come to that may go."""

    def forget(self, run: str, position: Any) -> None:
        """The run is given up, and another one begins in its place: what it has written up to `position` and nobody sees
        may go. It may have been written by another sink of this kind."""

    def is_gone(self, run: str, position: Any) -> str:
        """The whole result of this run was made visible by `commit`: why it is not there any more; empty where it is,
        or where that cannot be told."""
        return ""
