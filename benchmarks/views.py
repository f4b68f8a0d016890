"""What each view costs a run: processor seconds of the caller and its workers together, beside the same run unseen.

python3 dev.py bench views [--rounds 7] [--seconds 5] [--only TEXT]

Each run is a process of its own, and all take turns. Best of the rounds; the row "unseen, again" tells how far two equal
runs are apart. That is more than most views cost. So the last column but one tells the processor time in the view's own code,
by the clock of the thread that it runs in, and in what it hands its numbers to (an SDK, IPython). Views whose threads keep
workers from being forked stand beside a run whose workers are launched too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pty
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import process_time, sleep, thread_time
from typing import Any, NamedTuple

WORKERS = 2
SIZE = 40  # records of some 50 µs: 2 ms a batch, so two workers do 1,000 batches a second
SCRAPE = 5.0  # seconds between two looks at the health page
GOAL, GOAL_TRACE = 1.01, 1.02  # the trace's at 1,000 batches a second
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: what a process leaves behind comes to this one, which counts it


def spin(n: int) -> int:
    """Some 50 µs."""
    for _ in range(700):
        n = n * 1_103_515_245 + 12_345 & 0x7FFFFFFF
    return n


class Way(NamedTuple):
    """How a run is seen; `beside`: the way that it is held against."""

    view: str
    start: str
    beside: str
    kernel: bool = False  # in a notebook


WAYS = {
    "unseen": Way("", "fork", ""),
    "unseen, again": Way("", "fork", "unseen"),
    "terminal": Way("terminal", "fork", "unseen"),
    "observer": Way("observer", "fork", "unseen"),
    "trace": Way("trace", "fork", "unseen"),
    "unseen, launched": Way("", "launch", ""),
    "--serve": Way("serve", "launch", "unseen, launched"),
    "otel": Way("otel", "launch", "unseen, launched"),
    "unseen, in a notebook": Way("", "launch", "", kernel=True),
    "notebook": Way("notebook", "launch", "unseen, in a notebook", kernel=True),
}


# --- in the process that is measured ---


def run(view: str, start: str, count: int, size: int | None, port: int, told: str) -> None:
    """One run; what this process has used before it goes into the file `told`."""
    from taktline import abc, line

    options: dict[str, Any] = {"progress": view in ("terminal", "notebook")}
    inside = Inside()
    with ExitStack() as stack:
        if view == "observer":
            options["observer"] = abc.Observer()
            inside.watches(abc.Observer, *HEARD)
        elif view == "trace":
            from taktline.views.trace import Trace

            options["trace"] = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".json")).name
            inside.watches(Trace, *HEARD)
        elif view == "otel":
            options["observer"] = _telemetry(inside)
        elif options["progress"]:
            from taktline.views.progress import View

            inside.watches(View, "begin", "keep_up", "_turn", "withdraw", "close")
        results = line(spin)(range(count), how="line", workers=WORKERS, start=start, batch_size=size, **options)
        if view == "serve":
            from taktline.cli.serving import HealthPage

            page = HealthPage(str(port), 300.0)
            stack.callback(page.close)
            page.watch(results.snapshot)
        before = process_time()
        report = results.drain()
    Path(told).write_text(json.dumps([before, report.seconds, inside.seconds]), encoding="utf-8")


HEARD = ("begins", "heard", "looked", "ends")


class Inside:
    """Adds up the processor time that is spent in some methods, in whichever thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._within = threading.local()

    def watches(self, owner: Any, *names: str) -> None:
        """From now on these are looked at; what they call of one another counts once."""
        for name in names:
            setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, called: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **more: Any) -> Any:
            if getattr(self._within, "one", False):
                return called(*given, **more)
            self._within.one, began = True, thread_time()
            try:
                return called(*given, **more)
            finally:
                self.seconds += thread_time() - began
                self._within.one = False

        return timed


def _telemetry(inside: Inside) -> Any:
    """With an SDK that collects every five seconds, and drops it."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from taktline.otel import Telemetry

    class Dropped(MetricExporter):
        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
            """There is nothing to end."""

    inside.watches(Telemetry, *HEARD)
    inside.watches(PeriodicExportingMetricReader, "collect")
    reader = PeriodicExportingMetricReader(Dropped(), export_interval_millis=1000 * SCRAPE)
    return Telemetry(MeterProvider([reader]), TracerProvider())


# --- around it ---


def measured(way: Way, count: int, size: int | None) -> tuple[float, float, float]:
    """Processor seconds from the run's beginning until all of its processes have ended, the run's own seconds, and
    processor seconds in the view."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        told = str(Path(folder) / "told")
        code = f"from benchmarks.views import run; run({way.view!r}, {way.start!r}, {count}, {size}, {port}, {told!r})"
        before = _of_children()
        with _scraped(port) if way.view == "serve" else ExitStack():
            (_in_a_kernel if way.kernel else _in_a_terminal)(code)
        while True:  # what workers were left behind by
            try:
                os.wait()
            except ChildProcessError:
                break
        unseen, seconds, inside = json.loads(Path(told).read_text(encoding="utf-8"))
    return _of_children() - before - unseen, seconds, inside


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _in_a_terminal(code: str) -> None:
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    environment = {name: value for name, value in environment.items() if name not in ("NO_COLOR", "TAKTLINE_PROGRESS")}
    child = subprocess.Popen([sys.executable, "-c", code], stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    said = b""
    while True:
        try:
            some = os.read(ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            break
        if not some:
            break
        said = (said + some)[-4_000:]
    os.close(ours)
    if child.wait():
        sys.exit(said.decode(errors="replace"))


def _in_a_kernel(code: str) -> None:
    import nbclient
    import nbformat

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(made, timeout=600, kernel_name="python3").execute()


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Somebody looks at the metrics now and then."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SCRAPE / 2):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    answer.read()
            except OSError:  # the run has ended, or not begun
                continue
            sleep(SCRAPE / 2)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def table(ways: dict[str, Way], count: int, size: int | None, rounds: int, say: Callable[[str], None]) -> Iterator[str]:
    """A row a view."""
    used: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    order, seconds = list(ways), 0.0
    for turn in range(rounds):
        for name in order:
            say(f"round {turn + 1} of {rounds}: {name}")
            cpu, seconds, inside = measured(ways[name], count, size)
            used[name].append(cpu)
            shares[name].append(inside / cpu)
        order = [*order[1:], order[0]]
    yield f"{count:,} records, {f'batches of {size}' if size else 'batches as they are sized'}, {seconds:.1f} s a run"
    yield ""
    yield "| view | processor, best | beside unseen | median beside median | in the view itself | |"
    yield "|---|---|---|---|---|---|"
    for name, way in ways.items():
        best = min(used[name])
        if not way.beside:
            yield f"| {name} | {best:.3f} s | | | | |"
            continue
        other = used[way.beside]
        ratio, middle = best / min(other), statistics.median(used[name]) / statistics.median(other)
        most = GOAL_TRACE if way.view == "trace" and size else GOAL
        met = f"≤ {most}: {'met' if ratio <= most else 'missed'}" if way.view else ""
        share = statistics.median(shares[name])
        own = f"{share:.2%}" if share else ""
        yield f"| {name} | {best:.3f} s | {ratio:.4f} | {middle:.4f} | {own} | {met} |"


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python3 dev.py bench views")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run, about")
    parser.add_argument("--only", default="", help="views whose name has this in it, and what they are held against")
    given = parser.parse_args(arguments)
    wanted = {name for name, way in WAYS.items() if given.only in name and way.view}
    wanted |= {WAYS[name].beside for name in wanted} | ({"unseen, again", "unseen"} if not given.only else set())
    ways = {name: way for name, way in WAYS.items() if name in wanted}
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    began = process_time()
    for n in range(2_000):
        spin(n)
    count = int(given.seconds * WORKERS / ((process_time() - began) / 2_000))
    for size in (None, SIZE):
        for row in table(ways, count, size, given.rounds, lambda text: print(text, file=sys.stderr, flush=True)):
            print(row, flush=True)
        print()


if __name__ == "__main__":
    main()
