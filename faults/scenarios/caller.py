"""The program itself is ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Complete, Ends, FailsAt, Scenario, Source, Told
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


class Late(Exception):
    """What the program's own handler raises."""


def too_late(number: int, frame: Any) -> None:
    raise Late("it took too long")


def take_with_an_alarm(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """As a time limit around a block does."""
    signal.signal(signal.SIGALRM, too_late)
    for result in results:
        if not got:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        got.append(result)


def take_in_two_threads(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """Who is refused has said so; whatever the other gets is looked at."""
    refused: list[BaseException] = []

    def take() -> None:
        try:
            for result in results:
                got.append(result)
        except Exception as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got.sort()
    if len(refused) == 2:
        raise refused[0]


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
    Scenario(
        name="a handler of the program's own raises",
        fault="an alarm 0.2 s after the first result: its exception comes out as it is, nothing is left",
        job=Job(numbers, (Pace(), steps.double)),
        consume=take_with_an_alarm,
        compared=False,
        expect=FailsAt(0, ("Late",), named=False),
    ),
    Scenario(
        name="two threads ask for the results of one run",
        fault="each result comes to one of them, once; or one is refused and the other has all",
        job=Job(numbers, (Pace(0.0002), steps.double)),
        consume=take_in_two_threads,
        expect=Complete(),
    ),
]  # fmt: skip
