"""The numbers of a run, frozen: `Snapshot` while it goes, `Report` at its end. Every view shows one of these."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from taktline._excerpts import readable
from taktline._observe.measures import bottleneck
from taktline._public import named


@dataclass(frozen=True, slots=True)
class StepCount:
    """What one step has done so far. Times are seconds, summed over all workers."""

    name: str
    records: int  # records the step was given
    busy: float  # in the step's own code
    waiting: float  # its workers had no input
    blocked: float  # its workers could not hand their output on
    ns_per_record: float
    failed: int = 0  # records that failed in it


@dataclass(frozen=True, slots=True)
class NodeCount:
    """What the workers of one other machine have done so far. `busy`: seconds, summed over them."""

    name: str
    workers: int  # that are there, or were at the run's end
    records: int  # they were given; once for each of several segments
    batches: int
    busy: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is."""

    name: str
    how: str
    workers: int
    batch_size: int  # of the last batch read
    seconds: float
    records_in: int  # read from the source
    records_out: int  # delivered
    failed: int
    in_flight: int  # records read and not yet delivered
    window: int | None  # most of them, in records; None: bounded by memory
    total: int | None  # length of the source, where it is known or can be reckoned
    steps: tuple[StepCount, ...]
    reckoned: bool = False  # `total` is about right: from the bytes of a file, not from a count
    resumed_at: int = 0  # records that earlier processes had delivered
    dead_letters: str | None = None  # the file for failed records
    skipped: int = 0
    retried: int = 0
    workers_ended: int = 0  # before the run did
    memory: int = 0  # bytes, of the whole process tree, when it was last looked at
    still: float = 0.0  # seconds since anything was done, while there is something to do; 0.0 where there is nothing
    backlog: int | None = None  # of a live source: records that wait and that nobody has taken,
    lag: float | None = None  # for how many seconds the oldest of them waits,
    refused: str = ""  # and why its server gives none now
    nodes: tuple[NodeCount, ...] = ()  # the other machines that workers run on, as they came

    def __repr__(self) -> str:
        total = "" if self.total is None else f" of {self.total:,}"
        return readable(
            f"<Snapshot {self.name!r}: {self.records_in:,}{total} records, {self.failed:,} failed, {self.seconds:.3g} s>"
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the time went: the bottleneck, what shows it, what to do, what that would gain, and what comes next."""

    bottleneck: str
    evidence: str
    action: str
    gain: float | None = None  # predicted: time now / time after; None: not predicted
    next: str = ""  # the bottleneck after that
    doubt: str = ""  # why it may be wrong: a run too short to judge, or other programs on the cores

    def __str__(self) -> str:
        following = self.next and f"Then {bottleneck(self.next)} is next."
        return " ".join(filter(None, (self.doubt, self.evidence, self.action, following)))


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did. Times are seconds, memory is bytes; `cpu_utilisation` is a share of the usable cores, 0 to 1.

    Where a journal was resumed, records and failures are those of all processes together, times those of this one.
    """

    name: str
    how: str
    workers: int
    batch_size: int
    records_in: int
    records_out: int
    failed: int
    skipped: int
    retried: int
    seconds: float
    first_result: float | None  # seconds until the first result
    cpu_seconds: float
    cpu_utilisation: float
    cores: int
    peak_memory: int
    complete: bool  # every record of the source was read and delivered
    steps: tuple[StepCount, ...]
    verdict: Verdict
    reasons: tuple[str, ...] = field(default=())  # why it was run this way
    resumed_at: int = 0  # of the records, those that earlier processes with this journal had delivered
    journal: str | None = None
    dead_lettered: int = 0  # records that failed and are in the file `dead_letters`
    dead_letters: str | None = None
    notes: tuple[str, ...] = field(default=())  # what a journal could not compare, and from where on a run was another
    error: str = ""  # what ended it early
    started: float | None = None  # seconds since 1970
    ended: float | None = None
    source: str = ""  # what was read, and where the results went, in words
    sink: str = ""
    options: dict[str, str] = field(default_factory=dict)  # those that were given, in words
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    failures: tuple[dict[str, Any], ...] = field(
        default=()
    )  # by step and reason: records, and the first ones' examples
    spent: dict[str, float] = field(default_factory=dict)  # seconds: reading, moving, consuming, and without a core
    what_if: tuple[dict[str, Any], ...] = field(
        default=()
    )  # cores, and about how long the run would have taken on them
    history: dict[str, Any] = field(default_factory=dict)  # over time: points, marks, and each worker's row of cells
    total: int | None = None  # length of the source, where it is known or can be reckoned
    reckoned: bool = False  # `total` is about right
    left: float | None = None  # about how many seconds the rest takes, of a run that ended before its source did
    workers_ended: int = 0  # before the run did
    others: float | None = None  # the share of the machine's cores that other programs had; None: not known
    command: str = ""  # that was given; empty where a program ran it
    retry: str = (
        ""  # what runs the dead letters again, to be pasted: a command, or Python where none can reach the line
    )
    folder: str = ""  # in which the run began: paths in it that are not absolute begin there
    nodes: tuple[NodeCount, ...] = field(default=())  # the other machines that workers ran on, as they came

    def __repr__(self) -> str:
        how = "done" if self.complete else "stopped"
        return readable(
            f"<Report {self.name!r}: {how}, {self.records_in:,} in, {self.records_out:,} out, {self.failed:,} failed, "
            f"{self.seconds:.3g} s>"
        )

    def __str__(self) -> str:
        from taktline._observe import pages

        return readable(pages.report_text(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(self.to_dict())

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one HTML file without outside assets, to a path or a URL; it is there as a whole, or as it was
        before. Raises OSError, and of a URL LineError or SinkError."""
        from taktline._files import write_at
        from taktline._observe import web

        write_at(os.fspath(path), web.html_page(self.name, web.report_html(self.to_dict())).encode())

    def _repr_html_(self) -> str:
        from taktline._observe import web

        return web.report_html(self.to_dict())

    def _ipython_display_(self) -> None:
        """In a notebook: nothing where the run's own output has become this report, below the same cell."""
        import sys

        notebook = sys.modules.get("taktline.views.notebook")  # loaded where a run was shown in one
        if notebook is None or not notebook.is_shown(self):
            from IPython.display import display

            display({"text/plain": str(self), "text/html": self._repr_html_()}, raw=True)


named(globals())
