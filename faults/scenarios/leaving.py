"""The results are left before their end."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Ends, FailsAt, Scenario, Source, Told
from faults.scenarios.records import numbers
from faults.steps import Harm, Pace, Stick

GROUP = "Leaving early"
PATIENCE = 5.0


def take_ten(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    got.extend(itertools.islice(results, 10))
    if len(got) != 10:
        told.wrong = f"silent loss: {len(got)} of 10 results"


def fail_at_ten(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    for result in results:
        got.append(result)
        if len(got) == 10:
            raise ZeroDivisionError("the consumer's own")


def not_at_all(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """The results are not asked for."""


class Work(Harm):
    """Notes that work is done."""

    def strike(self, record: Any) -> None:
        time.sleep(0.002)
        steps.note("work")


def goes_on(run: Any) -> str | None:
    """After leaving, the program lives on: is anybody still working for it?"""
    run()
    gc.collect()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        before = len(steps.notes())
        time.sleep(0.5)
        if len(steps.notes()) == before:
            return None
    return "left behind: workers go on working for results that nobody takes"


def same_processes(run: Any) -> str | None:
    """Twenty runs that are left early, then: how many descriptors are open?"""
    run()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        run()
    gc.collect()
    end = time.monotonic() + PATIENCE
    while (more := len(os.listdir("/proc/self/fd")) - before) > 2 and time.monotonic() < end:
        time.sleep(0.05)
    return f"left behind: {more} more open descriptors after ten runs" if more > 2 else None


SCENARIOS = [
    Scenario(
        name="a break out of an endless source",
        fault="ten results are taken: the program ends, nothing is left",
        job=Job(itertools.count, (Pace(), steps.double)),
        consume=take_ten, compared=False,
        expect=Ends((0,)),
    ),
    Scenario(
        name="a break, and the program goes on",
        fault="ten results are taken: nobody works on, five seconds later",
        job=Job(itertools.count, (Work(), steps.double)),
        consume=take_ten, compared=False, drive=goes_on,
        expect=Ends((0,)),
    ),
    Scenario(
        name="the consumer raises",
        fault="at the tenth result: its own exception comes out, nothing is left",
        job=Job(itertools.count, (Pace(), steps.double)),
        consume=fail_at_ten, compared=False,
        expect=FailsAt(0, ("ZeroDivisionError",), named=False),
    ),
    Scenario(
        name="a break while a step is stuck",
        fault="ten results are taken, and the 13th record sleeps for ever: the program ends all the same",
        # alone in its batch: no result that is taken may wait for it
        job=Job(numbers, (Stick(12, steps.asleep), steps.double), options={"batch_size": 1}),
        consume=take_ten, compared=False, needs=frozenset({"workers"}),
        expect=Ends((0,)),
    ),
    Scenario(
        name="results that nobody asks for",
        fault="the run is made and dropped: nothing is left",
        job=Job(lambda: range(1_000), (steps.double,)),
        consume=not_at_all, compared=False,
        expect=Ends((0,)),
    ),
    Scenario(
        name="many runs that are left early",
        fault="eleven times ten results: no more open descriptors than after the first",
        job=Job(lambda: range(1_000), (steps.double,)),
        consume=take_ten, compared=False, drive=same_processes,
        expect=Ends((0,)), limit=120,  # with agents it starts 55 interpreters, which take a minute where others are at work
    ),
]  # fmt: skip
