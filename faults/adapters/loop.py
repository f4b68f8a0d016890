"""The plain loop: what everything is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from faults.job import Adapter, Expand, Job, Keep, Serial, Step


def through(step: Step, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(step, Expand):
            yield from step.fn(value)
        elif not isinstance(step, Keep):
            yield step.fn(value) if isinstance(step, Serial) else step(value)
        elif step.fn(value):
            yield value


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    values = records
    for step in job.steps:
        values = through(step, values)
    yield iter(values)


ADAPTERS = [Adapter("loop", None, frozenset({"serial"}), run)]
