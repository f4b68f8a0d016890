"""A run as trace events, the format that Perfetto (ui.perfetto.dev) and Chrome open: who did what when.

The file is a JSON list that is written as it grows, some lines at once: what a run that was killed has left is a list
without its end, which those programs read. Each thread of the trace is a worker; each slice on it a batch, with its steps in
it, in about the shares of time that they take.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import IO, Any

from taktline._files import refusal
from taktline._observe.snapshot import Report, Snapshot
from taktline.abc import Observer
from taktline.errors import LineError

LEVEL = (
    5_000  # batches written in full; after as many more only each second one, then each fourth: so the file is bounded
)
STEPS = 12  # steps of a batch that get a slice


class Trace(Observer):
    """Writes one file. Raises LineError at once where it cannot be made."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # a step may change the folder
        if os.path.isdir(self._path):
            raise LineError(f"trace={path!r} is a folder; name a file")
        if not os.path.isdir(folder := os.path.dirname(self._path)):
            raise LineError(f"trace={path!r}: there is no folder {folder!r}; make it first")
        self._file: IO[bytes] | None = None
        self._process = os.getpid()
        self._lines: list[str] = []
        self._ended: dict[int, int] = {}  # by thread: microseconds up to which it is written
        self._named: set[int] = set()
        self._batches = 0
        self._stride = 1

    def begins(self, run: Snapshot) -> None:
        try:
            self._file = open(self._path, "wb", 0)  # noqa: SIM115  closed at the run's end
        except OSError as error:
            what = f"the trace {self._path!r} cannot be written"
            raise refusal(error, what, self._path, ". Name another file") from error
        self._lines.append("[\n")
        self._put({"ph": "M", "name": "process_name", "args": {"name": f"taktline: {run.name}"}}, first=True)
        self._write()

    def heard(self, at: float, event: Any, actions: Sequence[Any]) -> None:
        what = type(event).__name__
        if what == "Done":
            if event.work is not None:
                self._batch(at, event)
        elif what in ("Died", "Overran"):
            self._mark(at, f"worker {event.worker + 1} has ended", event.worker + 1)
        elif what == "WorkerLost":
            self._mark(at, f"worker {event.worker + 1} is lost", event.worker + 1)
        elif what == "WorkerReady":
            self._mark(at, "ready", event.worker + 1)
        elif what == "Moved":
            self._mark(at, f"goes on in {'this process' if event.how == 'loop' else 'workers'}: {event.why}", 0)
        for action in actions:
            kind = type(action).__name__
            if kind == "Start":
                self._name(action.worker + 1)
            elif kind == "Retire":
                self._mark(at, "replaced", action.worker + 1)
            elif kind == "Condemn":
                self._mark(at, "a record is given up, at which workers end", 0)

    def looked(self, at: float, run: Snapshot) -> None:
        speed = (run.records_in - run.resumed_at) / run.seconds if run.seconds else 0.0
        for name, value in (
            ("records a second", speed), ("in flight", run.in_flight), ("batch size", run.batch_size), ("failed", run.failed),
        ):  # fmt: skip
            self._put({"ph": "C", "name": name, "ts": round(at * 1e6, 1), "args": {"value": round(value, 1)}})
        self._write()

    def ends(self, report: Report) -> None:
        said = {"verdict": str(report.verdict), "records_in": report.records_in, "records_out": report.records_out}
        self._mark(report.seconds, "done" if report.complete else "stopped", 0, {**said, "failed": report.failed})
        self._lines.append("\n]\n")
        self._write()
        if self._file is not None:
            self._file.close()

    def _batch(self, at: float, done: Any) -> None:
        self._batches += 1
        if self._batches > LEVEL * (2 * self._stride - 1):
            self._stride *= 2
        if self._batches % self._stride:
            return
        work = done.work
        thread = 0 if done.worker is None else done.worker + 1
        self._name(thread)
        # What is heard late would overlap what came after it, and a thread does one thing at a time. Whole microseconds, so
        # that no rounding makes two slices overlap.
        begin = max(self._ended.get(thread, 0), round((at - work.seconds) * 1e6))
        end = max(begin, round(at * 1e6))
        self._ended[thread] = end
        put = self._lines.append
        put(
            f',\n{{"ph":"X","pid":1,"tid":{thread},"name":"batch {done.seq}","ts":{begin},"dur":{end - begin},'
            f'"args":{{"first":{work.first},"records":{work.records}}}}}'
        )
        if len(work.steps) > 1:
            long = end - begin
            for name, share in work.steps[:STEPS]:
                dur = min(end - begin, int(share * long))
                put(f',\n{{"ph":"X","pid":1,"tid":{thread},"name":{json.dumps(name)},"ts":{begin},"dur":{dur}}}')
                begin += dur

    def _mark(self, at: float, name: str, thread: int, args: dict[str, Any] | None = None) -> None:
        self._name(thread)
        whole = {"s": "p"} if not thread else {"s": "t"}
        self._put({"ph": "i", "tid": thread, "name": name, "ts": round(at * 1e6, 1), **whole, "args": args or {}})

    def _name(self, thread: int) -> None:
        if thread not in self._named:
            self._named.add(thread)
            name = f"worker {thread}" if thread else "this process"
            self._put({"ph": "M", "tid": thread, "name": "thread_name", "args": {"name": name}})
            self._put({"ph": "M", "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}})

    def _put(self, event: dict[str, Any], *, first: bool = False) -> None:
        self._lines.append(f"{'' if first else ',' + chr(10)}{json.dumps({'pid': 1, 'tid': 0, **event})}")

    def _write(self) -> None:
        """Whole lines, past this process: they are there though it is killed."""
        lines, self._lines = "".join(self._lines).encode(), []
        if self._file is None or os.getpid() != self._process:
            return
        try:
            self._file.write(lines)
        except OSError as error:
            raise refusal(error, f"the trace {self._path!r} cannot be written", self._path) from error
