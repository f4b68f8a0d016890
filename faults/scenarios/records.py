"""A record fails: its exception, and the results before it."""

from __future__ import annotations

import threading

from faults import steps
from faults.job import Job
from faults.scenario import Complete, FailsAt, Scenario
from faults.steps import BASE, Give, Raise

GROUP = "A record fails"
COUNT, BAD = 2_000, 1_733


def numbers() -> range:
    return range(BASE, BASE + COUNT)


def raising(name: str, fault: str, kind: type[BaseException], *, at: int = BAD, named: bool = False) -> Scenario:
    """A scenario in which a step raises `kind` at one record."""
    return Scenario(
        name=name,
        fault=fault,
        job=Job(numbers, (steps.same, Raise(at, Made(kind)), steps.double)),
        expect=FailsAt(at, (kind.__name__,), named=named),
    )


class Made:
    """Makes an exception in the worker."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __call__(self) -> BaseException:
        return self.kind("one", "two") if self.kind is steps.TwoFacts else self.kind("bad")


def unpicklable() -> list[object]:
    records: list[object] = list(numbers())
    records[BAD] = threading.Lock()
    return records


def unreadable() -> list[object]:
    records: list[object] = list(numbers())
    records[BAD] = steps.Unreadable()
    return records


def cannot_travel(name: str, fault: str, job: Job) -> Scenario:
    return Scenario(
        name=name,
        fault=fault,
        job=job,
        needs=frozenset({"workers"}),
        look=repr,
        expect=FailsAt(BAD, named=True, travels=True),
    )


SCENARIOS = [
    raising(
        "an exception comes as itself, after all earlier results",
        "a step raises ValueError at record 1,733",
        ValueError,
    ),
    raising("the error says which record it was", "the same; the error names the record", ValueError, named=True),
    raising("the first record fails", "ValueError at record 0", ValueError, at=0),
    raising("the last record fails", "ValueError at the last record: not one result less", ValueError, at=COUNT - 1),
    Scenario(
        name="the first of two failures wins",
        fault="record 1,733 raises after 0.3 s, record 1,734 at once: the error is that of 1,733, as in the loop",
        job=Job(numbers, (Raise(BAD, Made(ValueError), slow=0.3), Raise(BAD + 1, Made(KeyError)))),
        expect=FailsAt(BAD, ("ValueError",), named=False),
    ),
    raising(
        "an exception that cannot be made anew",
        "its class takes two arguments and keeps one: pickle cannot make it anew",
        steps.TwoFacts,
    ),
    raising("an exception that cannot be pickled", "it holds a lock", steps.HoldsLock),
    raising("StopIteration in a step", "no quiet end of the run", StopIteration),
    raising("GeneratorExit in a step", "no quiet end of the run", GeneratorExit),
    raising("SystemExit in a step", "no quiet end of a worker", SystemExit),
    raising("KeyboardInterrupt in a step", "no quiet end of a worker", KeyboardInterrupt),
    cannot_travel("a record that cannot be pickled", "a lock among the records", Job(unpicklable, (steps.same,))),
    cannot_travel("a record that cannot be read back", "unpickling it raises", Job(unreadable, (steps.same,))),
    cannot_travel(
        "a result that cannot be pickled",
        "a step gives a lock",
        Job(numbers, (steps.same, Give(BAD, threading.Lock))),
    ),
    cannot_travel(
        "a result that cannot be read back",
        "unpickling it raises",
        Job(numbers, (steps.same, Give(BAD, steps.Unreadable))),
    ),
    Scenario(
        name="failed records are left out",
        fault="two records raise; asked to leave them out, all the others come, in order",
        job=Job(numbers, (steps.same, Raise(BAD, Made(ValueError)), Raise(7, Made(KeyError))), {"on_error": "skip"}),
        needs=frozenset({"skip"}),
        expect=Complete(),
        without=(7, BAD),
    ),
    Scenario(
        name="a failure that passes",
        fault="a record raises twice and then works; with three retries all results come",
        job=Job(numbers, (steps.same, steps.RaiseTwice(BAD)), step_options={"retries": 3, "backoff": 0.01}),
        needs=frozenset({"retries"}),
        expect=Complete(),
    ),
]
