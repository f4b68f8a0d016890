"""The source or the sink fails."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import FailsAt, Scenario, Source, Told
from faults.scenarios.records import BAD, numbers

GROUP = "The source or the sink fails"


def broken(at: int) -> Callable[[], Iterator[int]]:
    def records() -> Iterator[int]:
        for n in numbers():
            if n == numbers()[at]:
                raise OSError(errno.EIO, "the disk is gone")
            yield n

    return records


def into_a_full_disk(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    with open("/dev/full", "w", buffering=1) as file:
        for result in results:
            got.append(result)
            if len(got) > BAD:
                file.write(f"{result}\n")


SCENARIOS = [
    Scenario(
        name="the source raises in the middle",
        fault="OSError before record 1,733: all results before, then an error with its text",
        job=Job(broken(BAD), (steps.same, steps.double)),
        due=numbers,
        expect=FailsAt(BAD, ("OSError",), named=False),
    ),
    Scenario(
        name="the source raises at once",
        fault="OSError before the first record: an error with its text",
        job=Job(broken(0), (steps.same, steps.double)),
        due=numbers,
        expect=FailsAt(0, ("OSError",), named=False),
    ),
    Scenario(
        name="the disk is full at the sink",
        fault="the consumer cannot write result 1,733: its error comes out, nothing is left",
        job=Job(numbers, (steps.same, steps.double)),
        consume=into_a_full_disk,
        expect=FailsAt(BAD, ("OSError",), named=False),
    ),
]
