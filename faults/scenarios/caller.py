"""The program itself is ended."""

from __future__ import annotations

import signal
from collections.abc import Callable

from faults import steps
from faults.job import Job
from faults.scenario import Ends, FailsAt, Scenario
from faults.scenarios.records import numbers
from faults.steps import Pace, SignalCaller

GROUP = "The caller is ended"
AT = 400


def signalled(
    name: str, fault: str, number: int, then: Callable[[], None] | None = None, codes: tuple[int, ...] = ()
) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        job=Job(numbers, (Pace(), SignalCaller(AT, number, then), steps.double)),
        compared=False,
        expect=Ends(codes),
    )


def interrupted(name: str, fault: str, *, group: bool, then: Callable[[], None] | None = None) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        job=Job(numbers, (Pace(), SignalCaller(AT, signal.SIGINT, then, group), steps.double)),
        compared=False,
        expect=FailsAt(0, ("KeyboardInterrupt",), named=False),
    )


KILLED = (-signal.SIGKILL,)
ENDED = (-signal.SIGTERM, 128 + signal.SIGTERM)

SCENARIOS = [
    signalled("SIGKILL to the caller", "in the middle of the run: no worker, no shared memory, no file is left",
              signal.SIGKILL, codes=KILLED),
    signalled("SIGKILL to the caller, a step asleep", "the same while a worker sleeps in a step",
              signal.SIGKILL, steps.asleep, codes=KILLED),
    signalled("SIGKILL to the caller, a step in C code", "the same while a worker is in one call of C code",
              signal.SIGKILL, steps.in_c_code, codes=KILLED),
    signalled("SIGTERM to the caller", "in the middle of the run: nothing is left", signal.SIGTERM, codes=ENDED),
    interrupted("Ctrl-C", "SIGINT to the whole foreground group: KeyboardInterrupt in the caller, nothing is left",
                group=True),
    interrupted("SIGINT to the caller alone", "as from a supervisor: the same", group=False),
    Scenario(
        name="Ctrl-C, a step asleep",
        fault="SIGINT to the caller while a step of another process sleeps for ever: it ends, nothing is left",
        job=Job(numbers, (Pace(), SignalCaller(AT, signal.SIGINT, steps.asleep), steps.double)),
        needs=frozenset({"workers"}),
        compared=False,
        expect=FailsAt(0, ("KeyboardInterrupt",), named=False),
    ),
]  # fmt: skip
