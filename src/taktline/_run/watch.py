"""Times records that go through one at a time: their reading and their work, never what their results are used for."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter, perf_counter_ns, process_time
from typing import Any

from taktline._observe import cores
from taktline._run.meter import Meter
from taktline._run.reader import Reader

KEPT = 256  # records and results that are kept to see what moving them would cost


class Watch:
    """What some records cost. Times in seconds."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.count = self.given = 0  # records, results
        self.records: list[Any] = []  # the first of them
        self.results: list[Any] = []
        self.record: Any = None  # that is at work
        self.reading = self.cpu = 0.0
        self.waited = False  # the processor was given up in a step
        self._cpu_began = 0.0
        self._pauses = 0
        self.clock_ns = min(-perf_counter_ns() + perf_counter_ns() for _ in range(8))  # what a look at the clock takes

    def each(self, reader: Reader, most: int) -> Iterator[Any]:
        """Up to so many records, one at a time. An error of the source is raised with the place."""
        for _ in range(most):
            began = perf_counter()
            some = reader.read(1, here=True)
            took = perf_counter() - began
            if not some:
                if reader.error is not None:
                    raise reader.error
                return
            self.record = some.pop()
            self.count += 1
            self.reading += took
            self._meter.reading += took
            self._meter.records_in += 1
            if self.count <= KEPT:
                self.records.append(self.record)
            self.took()
            yield self.record
            self._pause()

    def gave(self, result: Any) -> None:
        """A result is about to be handed over."""
        self._pause()
        self.given += 1
        if self.given <= KEPT:
            self.results.append(result)
        self._meter.delivered(1)

    def took(self) -> None:
        """The steps go on."""
        self._pauses = cores.pauses()
        self._cpu_began = process_time()

    def _pause(self) -> None:
        self.cpu += process_time() - self._cpu_began
        self.waited = self.waited or cores.pauses() != self._pauses
