"""Who had a core and who had none, as the system tells it: so that a busy machine is not taken for steps that wait."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time

from taktline._posix import resource
from taktline._signals import pass_on

PROC = "/proc"
CORES = os.cpu_count() or 1  # of the machine; told once, as the user's own tests may put something else there later
LEAST = 0.2  # seconds below which nothing is said of other programs: the system counts in hundredths
OF_THIS_THREAD = getattr(
    resource, "RUSAGE_THREAD", getattr(resource, "RUSAGE_SELF", 0)
)  # of the process, if no more is told


def queued(pids: Iterable[int]) -> float:
    """Seconds that these processes waited for a core since they started; 0 for those that are gone or where the system
    does not tell. Time that a step itself waits, for a disk or a clock, is not among them."""
    return sum(map(_queued, pids))


def busy() -> float | None:
    """Seconds that all cores of the machine together were at work since it started, for whomever; None where the system does
    not tell."""
    if not hasattr(os, "sysconf"):
        return None
    try:
        with open(f"{PROC}/stat", encoding="ascii") as file:
            user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    except (OSError, ValueError) as error:
        pass_on(error)
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def had_by_others(before: float | None, cpu: float, seconds: float) -> float:
    """The share of the machine's cores that other programs had for so many seconds, of which this one used `cpu` seconds of
    processor time. `before`: what `busy` said at their beginning."""
    now = busy()
    if now is None or before is None or not seconds:
        return 0.0
    return min(1.0, max(0.0, now - before - cpu) / (seconds * CORES))


class Others:
    """The share of the machine's cores that other programs had, over several stretches of time."""

    def __init__(self) -> None:
        self._seconds = self._had = 0.0

    def add(self, seconds: float, share: float | None) -> None:
        """They had this share for so long."""
        self._seconds += seconds
        self._had += seconds * (share or 0.0)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Look on while this process works, and none that it has started."""
        before, cpu, began = busy(), process_time(), perf_counter()
        yield
        seconds = perf_counter() - began
        self.add(seconds, had_by_others(before, process_time() - cpu, seconds))

    @property
    def share(self) -> float:
        """Of all that time; 0 where it was too short to tell."""
        return self._had / self._seconds if self._seconds >= LEAST else 0.0


def pauses() -> int:
    """How often this thread has given its core away by itself, as a step that waits does. Who never paused between two
    looks has computed, and any time beyond that of the processor was taken by other processes."""
    return int(resource.getrusage(OF_THIS_THREAD).ru_nvcsw) if resource is not None else 0


def _queued(pid: int) -> float:
    try:
        with open(f"{PROC}/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9  # time on a core, time in a queue for one, turns
    except (OSError, IndexError) as error:
        pass_on(error)
        return 0.0
