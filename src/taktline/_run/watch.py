"""Times records that go through one at a time: their reading and their work, never what their results are used for."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter, perf_counter_ns, process_time
from typing import Any

from taktline._observe import cores
from taktline._run.meter import Meter
from taktline._run.reader import Reader

TRIES = 64
KEPT = 256  # records and results that are kept to see what moving them would cost


class Watch:
    """What some records cost. Times in seconds."""

    def __init__(self, meter: Meter, ns: list[int]) -> None:
        self._meter = meter
        self._ns = ns  # what each step took
        self.count = self.given = 0  # records, results
        self.untimed = 0  # further results, of records that gave many
        self._enough = 0  # results with which enough is known of the record at work
        self.records: list[Any] = []  # the first of them
        self.results: list[Any] = []
        self.record: Any = None  # that is at work
        self.began = 0.0  # when the steps last went on
        self.worked_ns = 0  # what they had taken until then
        self.reading = self.cpu = 0.0
        self.waited = False  # the processor was given up in a step
        self._cpu_began = 0.0
        self._pauses = 0
        self.clock_ns = _timing_ns()

    def each(self, reader: Reader, most: int) -> Iterator[Any]:
        """Up to so many records, one at a time. An error of the source is raised with the place."""
        for _ in range(most):
            began = perf_counter()
            some = reader.read(1, here=True)
            took = perf_counter() - began
            if not some:
                self._meter.reading += took
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
            self._enough = self.given + KEPT
            self.took()
            yield self.record
            if self.given < self._enough:
                self._pause()

    def gave(self, result: Any) -> bool:
        """A result is about to be handed over: whether those of this record that come next are to be timed, too."""
        self._pause()
        self.given += 1
        if self.given <= KEPT:
            self.results.append(result)
        self._meter.delivered(1)
        return self.given < self._enough

    def took(self, untimed: int | None = None) -> int:
        """The steps go on; so many results were handed over without a word, or None: the one before was told of."""
        if untimed is None:
            self.began, self.worked_ns = perf_counter(), sum(self._ns)
        if untimed:
            self.untimed += untimed
            self._meter.delivered(untimed)
        self._pauses = cores.pauses()
        self._cpu_began = process_time()
        return 0

    @property
    def open(self) -> float:
        """How long the step is at work that has not come back, which no step was told yet."""
        return perf_counter() - self.began - (sum(self._ns) - self.worked_ns) / 1e9

    @property
    def share(self) -> float:
        """How many times as many results came as were timed."""
        return (self.given + self.untimed) / max(1, self.given)

    def _pause(self) -> None:
        self.cpu += process_time() - self._cpu_began
        self.waited = self.waited or cores.pauses() != self._pauses


def _timing_ns() -> float:
    """Nanoseconds that timing a step adds to it, by the same code as in the form "watched" of `_segment.compiled`."""
    plain: tuple[type, ...] = (int,)
    ns, counts, clock = [0], [0], perf_counter_ns
    t = began = clock()
    for _ in range(TRIES):
        counts[0] += 1
        if counts.__class__ in plain:
            break
        u = clock()
        ns[0] += u - t
        t = u
    return (t - began) / TRIES
