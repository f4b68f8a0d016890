"""A worker ends, by one of its records or by somebody else's hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Complete, CompleteOr, FailsAt, Scenario
from faults.scenarios.records import BAD, COUNT, numbers
from faults.steps import Die, Leave, Pace, Sign, Strike

GROUP = "A worker dies"
WORKERS = frozenset({"workers"})


def deadly(name: str, how: Callable[[], None], *, at: int = BAD) -> Scenario:
    """A record that ends its worker."""
    return Scenario(
        name=f"a record that kills its worker: {name}",
        fault=f"record {at:,} does it every time: all results before it, then an error that names it",
        job=Job(numbers, (Pace(0.0005), Die((at,), how), steps.double)),
        needs=WORKERS,
        expect=FailsAt(at, named=True),
    )


def skipping(name: str, at: tuple[int, ...]) -> Scenario:
    return Scenario(
        name=f"records that kill are left out: {name}",
        fault="asked to leave them out, all the others come, in order",
        job=Job(numbers, (steps.same, Die(at, steps.Send(signal.SIGKILL))), {"on_error": "skip"}),
        needs=WORKERS | {"skip"},
        expect=Complete(),
        without=at,
    )


def harmed(name: str, fault: str, harm: Callable[[Any], Any]) -> Scenario:
    """One record that does harm beside its step's own work: asked to leave it out, all the others come."""
    return Scenario(
        name=name,
        fault=f"{fault}; asked to leave it out, all the others come, in order",
        job=Job(numbers, (steps.same, harm), {"on_error": "skip"}),
        needs=WORKERS | {"skip"},
        expect=Complete(),
        without=(BAD,),
    )


def struck(name: str, fault: str, number: int, *, every: bool = False, **more: Any) -> Scenario:
    """A worker that is ended or stopped from outside."""
    return Scenario(
        name=name,
        fault=fault,
        job=Job(numbers, (Sign(), Pace(), Strike(COUNT // 3, number, every), steps.double), more.pop("options", {})),
        needs=WORKERS,
        **({"expect": Complete()} | more),
    )


def initialised(name: str, fault: str, initialise: Callable[[], None], words: tuple[str, ...]) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        job=Job(numbers, (Pace(), steps.double), initialise=initialise),
        needs=WORKERS | {"initialise"},
        expect=CompleteOr(words),
    )


SCENARIOS = [
    deadly("SIGKILL", steps.Send(signal.SIGKILL)),
    deadly("SIGSEGV", steps.read_address_zero),
    deadly("abort", os.abort),
    deadly("exit code 0", Leave(0)),
    deadly("exit code 1", Leave(1)),
    skipping("the first", (0,)),
    skipping("the last", (COUNT - 1,)),
    skipping("neighbours", (700, 701, 702)),
    skipping("several far apart", (3, 900, 1_500)),
    harmed(
        "a result that kills its worker while it is packed", "SIGKILL in the result's __reduce__",
        steps.Seal((BAD,), steps.Send(signal.SIGKILL)),
    ),
    harmed(
        "a result that ends its worker while it is packed", "exit code 1 in the result's __reduce__",
        steps.Seal((BAD,), Leave(1)),
    ),
    harmed("a step closes every descriptor", "from 3 on", Die((BAD,), steps.close_all)),
    harmed("a step writes into every socket", "bytes that nobody expects", Die((BAD,), steps.write_everywhere)),
    Scenario(
        name="a step takes SIGUSR2 for itself",
        fault="and works for half of what a stall may last: all results",
        job=Job(numbers, (steps.TakeSignal(1.5), steps.double), {"stall": 3.0}),
        needs=WORKERS,
        expect=Complete(),
        fast=False,
    ),
    struck("a worker is killed from outside", "SIGKILL in the middle of the run: all results", signal.SIGKILL),
    struck("a worker is asked to end", "SIGTERM in the middle of the run: all results", signal.SIGTERM),
    struck(
        "all workers are killed at once", "SIGKILL to each in the middle of the run: all results", signal.SIGKILL,
        every=True,
    ),
    struck(
        "a worker is stopped", "SIGSTOP to one worker, for ever: all results, or an error that says so in bounded time",
        signal.SIGSTOP, expect=CompleteOr(("stall",)), options={"stall": 3.0}, fast=False,
    ),
    initialised(
        "workers that cannot be initialised", "the initialiser raises ImportError: one error with its text",
        steps.fail_at_once, ("no module named 'model'",),
    ),
    initialised(
        "workers that die before their first record", "the initialiser exits with 3: an error, not new workers for ever",
        steps.quit_at_once, (),
    ),
]  # fmt: skip
