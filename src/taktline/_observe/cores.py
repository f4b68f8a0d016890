"""Who had a core and who had none, as the system tells it: so that a busy machine is not taken for steps that wait."""

from __future__ import annotations

from collections.abc import Iterable

from taktline._posix import resource
from taktline._signals import pass_on

OF_THIS_THREAD = getattr(
    resource, "RUSAGE_THREAD", getattr(resource, "RUSAGE_SELF", 0)
)  # of the process, if no more is told


def queued(pids: Iterable[int]) -> float:
    """Seconds that these processes waited for a core since they started; 0 for those that are gone or where the system
    does not tell. Time that a step itself waits, for a disk or a clock, is not among them."""
    return sum(map(_queued, pids))


def pauses() -> int:
    """How often this thread has given its core away by itself, as a step that waits does. Who never paused between two
    looks has computed, and any time beyond that of the processor was taken by other processes."""
    return int(resource.getrusage(OF_THIS_THREAD).ru_nvcsw) if resource is not None else 0


def _queued(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9  # time on a core, time in a queue for one, turns
    except (OSError, IndexError) as error:
        pass_on(error)
        return 0.0
