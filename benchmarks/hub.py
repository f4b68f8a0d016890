"""The hub alone over many workers that cost nothing: what one process that decides can do, whatever is beneath it.

python3 dev.py bench hub [--workers 8,64,512,2048] [--batches 40000] [--rounds 5] [--count]

`--count` counts calls of functions a batch in place of taking the time: a figure that others at work do not change.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from benchmarks.anew import anew
from taktline._crew.contract import PLAIN_ORDERS, Came, Crew, Figures, Heard, Orders, Ready, WorkerPlace
from taktline._recipe import plan as plans
from taktline._recipe.options import Options
from taktline._recipe.steps import as_step
from taktline._run.hub import Hub
from taktline._run.meter import Meter
from taktline._run.reader import Reader
from taktline._segment.batch import Batch

GOAL = 8_000  # batches a second at the most workers
RECORDS = 10  # of a batch: it is not their way that is measured
AT_ONCE = 64  # answers that come together, as where many are at work


class NoCrew(Crew):
    """Workers that give each batch back as it was sent, the oldest first."""

    def __init__(self) -> None:
        self._heard: deque[Heard] = deque()
        self._busy: dict[int, int] = {}

    def start(self, worker: int, lane: int) -> None:
        self._heard.append(Ready(worker))

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        pass

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        busy = self._busy[worker] = self._busy.get(worker, 0) + 150_000_000
        figures = Figures(busy, 0, 0, busy, 0, [busy], [0], [0])
        self._heard.append(Came(worker, seq, attempt, batch, 100, figures))

    def more(self, worker: int, seq: int) -> None:
        raise AssertionError

    def end(self, worker: int) -> None:
        raise AssertionError

    kill = end

    def wait(self, seconds: float) -> list[Heard]:
        return [self._heard.popleft() for _ in range(min(AT_ONCE, len(self._heard)))]

    def look(self) -> Mapping[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        return {}

    def close(self, *, gently: bool) -> None:
        self._heard.clear()


def deliveries(workers: int, batches: int) -> tuple[Any, Any]:
    """A run over so many batches, with all workers ready and at work: its deliveries, and who ends it."""
    options = Options(how="line", workers=workers, batch_size=RECORDS, progress=False)
    plan = plans.line([as_step(abs)], workers, RECORDS)
    source: Sequence[int] = range(batches * RECORDS)
    hub = Hub(plan, options, Reader(source, goes_on=False), Meter("hub", plan, options, None), NoCrew())
    hub.start()
    while not hub.ready():
        pass
    return hub.deliveries(), hub


def rate(workers: int, batches: int) -> float:
    """Batches a second."""
    outputs, hub = deliveries(workers, batches)
    began = perf_counter()
    count = sum(1 for _ in outputs)
    took = perf_counter() - began
    hub.close()
    return count / took


def calls(workers: int, batches: int) -> float:
    """Calls of functions a batch."""
    outputs, hub = deliveries(workers, batches)
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        came = sum(1 for _ in outputs)
    finally:
        sys.setprofile(None)
    hub.close()
    return counted / came


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py bench hub")
    parser.add_argument("--workers", default="8,64,512,2048", help="numbers, comma between them")
    parser.add_argument("--batches", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", action="store_true", help="calls of functions a batch, not time")
    given = parser.parse_args(arguments)
    numbers = [int(number) for number in given.workers.split(",")]
    if given.count:
        for workers in numbers:
            print(f"{workers:>5} workers: {calls(workers, given.batches):.1f} calls a batch", flush=True)
        return
    print("| workers that cost nothing | batches a second | µs a batch |\n|---|---|---|", flush=True)
    for workers in numbers:
        found = statistics.median(anew(rate, workers, given.batches) for _ in range(given.rounds))
        goal = "" if workers != max(numbers) else f", goal ≥ {GOAL:,}: {'met' if found >= GOAL else 'missed'}"
        print(f"| {workers:,} | {found:,.0f}{goal} | {1e6 / found:.0f} |", flush=True)
