"""What an adapter is asked to run, and what the scenarios say of it: plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from typing import Any

WORKERS = 2

# Where an adapter does not offer what a scenario needs, that is "not offered", which is no pass. Without workers in
# other processes the question itself does not arise: "n/a".
WORKS_ELSEWHERE = "workers"


@dataclass(frozen=True)
class Keep:
    """A step that drops the records for which it is false."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True)
class Expand:
    """A step of one record in, any number out."""

    fn: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True)
class Serial:
    """A step with state: it must see every record in input order, in one place."""

    fn: Callable[[Any], Any]


Step = Callable[[Any], Any] | Keep | Expand | Serial


class Chain:
    """Steps of one record in, one out, as one function: what pools are given."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.fns = tuple(step.fn if isinstance(step, Serial) else step for step in steps)

    def __call__(self, record: Any) -> Any:
        return reduce(lambda value, fn: fn(value), self.fns, record)  # type: ignore[operator]


class FlatChain:
    """Steps that drop or add records, as one function of one record that gives a list: the usual way round with pools."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps

    def __call__(self, record: Any) -> list[Any]:
        values = [record]
        for step in self.steps:
            if isinstance(step, Keep):
                values = [value for value in values if step.fn(value)]
            elif isinstance(step, Expand):
                values = [made for value in values for made in step.fn(value)]
            else:
                fn = step.fn if isinstance(step, Serial) else step
                values = [fn(value) for value in values]
        return values


@dataclass(frozen=True)
class Job:
    """Records through steps. The options have the words of taktline's API; an adapter takes those that it offers."""

    records: Callable[[], Iterable[Any]]
    steps: tuple[Step, ...]
    options: Mapping[str, Any] = field(default_factory=dict)  # of the run: on_error, window, journal, ...
    step_options: Mapping[str, Any] = field(default_factory=dict)  # of each plain step: retries, timeout
    initialise: Callable[[], None] | None = None  # done once in each worker before its first record
    out: str | None = None  # a file that results are written to

    @property
    def flat(self) -> bool:
        """Whether a record may give no result or several."""
        return any(isinstance(step, (Keep, Expand)) for step in self.steps)

    def function(self) -> Callable[[Any], Any]:
        """All steps as one function of one record: of one result, or of a list of them where `flat`."""
        return FlatChain(self.steps) if self.flat else Chain(self.steps)

    def results(self, of_function: Iterable[Any]) -> Iterator[Any]:
        """The results, from what `function` gave."""
        return chain.from_iterable(of_function) if self.flat else iter(of_function)


@dataclass(frozen=True)
class Adapter:
    """One way of running a job. `run(job, records)` is left when the user leaves; it gives the results in order."""

    name: str
    package: str | None  # whose version is shown; None: the standard library
    offers: frozenset[str]
    run: Callable[[Job, Iterable[Any]], AbstractContextManager[Iterator[Any]]]
    drain: Callable[[Job], None] | None = None  # the records into the job's file, where it has writers
