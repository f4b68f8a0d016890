"""Steps that do not come back."""

from __future__ import annotations

from faults import steps
from faults.job import Job
from faults.scenario import Complete, CompleteOr, FailsAt, Scenario
from faults.scenarios.records import BAD, numbers
from faults.steps import Pace, Stick

GROUP = "A step is stuck"

TIMEOUT = {"timeout": 1.0}


SCENARIOS = [
    Scenario(
        name="a time limit ends a sleeping step",
        fault="record 1,733 sleeps for ever, its limit is 1 s: an error that names it, after all results before",
        job=Job(numbers, (steps.same, Stick(BAD, steps.asleep)), step_options=TIMEOUT),
        needs=frozenset({"timeout"}),
        expect=FailsAt(BAD, ("TimeoutError", "StepTimeout", "Timeout"), named=True),
    ),
    Scenario(
        name="a time limit ends a step in C code",
        fault="the same, in one call of C code that keeps the interpreter's lock",
        job=Job(numbers, (steps.same, Stick(BAD, steps.in_c_code)), step_options=TIMEOUT),
        needs=frozenset({"timeout", "workers"}),
        expect=FailsAt(BAD, ("TimeoutError", "StepTimeout", "Timeout"), named=True),
    ),
    Scenario(
        name="records over their time are left out",
        fault="the same with a sleeping step, asked to leave such records out: all the others",
        job=Job(numbers, (steps.same, Stick(BAD, steps.asleep)), {"on_error": "skip"}, TIMEOUT),
        needs=frozenset({"timeout", "skip"}),
        expect=Complete(),
        without=(BAD,),
    ),
    Scenario(
        name="nothing moves any more",
        fault="record 1,733 sleeps for ever and no limit is set: an error that names it once nothing moves",
        job=Job(numbers, (Pace(), Stick(BAD, steps.asleep)), {"stall": 3.0}),
        needs=frozenset({"workers"}),
        expect=FailsAt(BAD, ("Stalled",), named=True, after=0),  # those of its batch before it cannot be had
        fast=False,
    ),
    Scenario(
        name="workers that take long to start",
        fault="each needs 4 s before its first record, and 2 s without one would be a stall: all results, or that error",
        job=Job(lambda: range(16), (steps.double,), {"stall": 2.0}, initialise=steps.load_a_model),
        needs=frozenset({"stall", "workers"}),
        expect=CompleteOr(("stalled",)),
        fast=False,
    ),
    Scenario(
        name="slow is not stuck",
        fault="every record takes 0.5 s, and 2 s without one would be a stall: all results",
        job=Job(lambda: range(16), (Pace(0.5), steps.double), {"stall": 2.0}),
        needs=frozenset({"stall"}),
        expect=Complete(),
        fast=False,
    ),
]
