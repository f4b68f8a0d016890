"""Whether a run that has moved to workers should come back to the loop: what records cost now, here and there."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from taktline._planner.choose import LOOP_AGAIN_SHARE, reason_to_return
from taktline._run.meter import Meter

LOOK = 0.25  # seconds between two looks
CERTAIN = 2  # looks in a row that must agree
COMPUTING = 0.5  # share of their busy time that workers use the processor, at least
CLOCK_NS = 40  # nanoseconds of a timed step that the clock itself takes


class _Figures(NamedTuple):
    """What was counted so far. Times in seconds, `timed` and `steps` a step each."""

    elapsed: float
    consuming: float
    reading: float
    records: int
    busy: int  # nanoseconds of all workers
    cpu: int
    steps: tuple[int, ...]  # records given to it
    timed: tuple[int, ...]
    timed_ns: tuple[int, ...]


class Returning:
    """Looks at the counters now and then. `decoding`: workers also do what the caller's process would do itself in the
    loop, with records or results that are bytes."""

    def __init__(self, *, decoding: bool = False) -> None:
        self._decoding = decoding
        self.reason = ""
        self._last: _Figures | None = None
        self._next = 0.0  # when to look again
        self._agree = 0

    def pays(self, meter: Meter) -> bool:
        """Whether the loop would have been faster on what was done since the last look, and on what was done before."""
        if meter.elapsed < self._next:
            return False
        self._next = meter.elapsed + LOOK
        last, now = self._last, _figures(meter)
        if last is None:
            self._last = now
        if last is None or not _all_timed(last, now):
            return False
        self._last = now
        if now.cpu - last.cpu < COMPUTING * (now.busy - last.busy):
            return False  # the workers wait in their steps, or have no core: neither is better in the loop
        here, there = _costs(last, now)
        if self._decoding:
            here = max(here, (now.busy - last.busy) / (now.records - last.records))
        self.reason = reason_to_return(here, there)
        self._agree = self._agree + 1 if here < LOOP_AGAIN_SHARE * there else 0
        return self._agree >= CERTAIN


def _all_timed(last: _Figures, now: _Figures) -> bool:
    """Whether each step that was given records was timed at some: batch steps are at each call, the others at few."""
    given = (new > old for new, old in zip(now.steps, last.steps, strict=True))
    timed = (new > old for new, old in zip(now.timed, last.timed, strict=True))
    return now.records > last.records and all(t or not g for g, t in zip(given, timed, strict=True))


def _figures(meter: Meter) -> _Figures:
    totals = [lane.totals() for lane in meter.lanes]
    steps, timed, timed_ns = (tuple(chain.from_iterable(each)) for each in zip(*(t[-3:] for t in totals), strict=True))
    busy, cpu = sum(each[0] for each in totals), sum(each[3] for each in totals)
    return _Figures(meter.elapsed, meter.consuming, meter.reading, meter.records_in, busy, cpu, steps, timed, timed_ns)


def _costs(last: _Figures, now: _Figures) -> tuple[float, float]:
    """Nanoseconds a record: of the loop, by the steps' own times, and of the run as it is."""
    records = now.records - last.records
    here = (now.reading - last.reading) * 1e9 / records
    for n, given in enumerate(now.steps):
        timed = now.timed[n] - last.timed[n]
        if timed:
            cost = max(0.0, (now.timed_ns[n] - last.timed_ns[n]) / timed - CLOCK_NS)
            here += cost * (given - last.steps[n]) / records
    there = (now.elapsed - last.elapsed) - (now.consuming - last.consuming)
    return here, there * 1e9 / records
