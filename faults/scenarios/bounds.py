"""How far is read ahead, and how much is held."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Bounded, Ends, Scenario, Source, Told
from faults.steps import BASE, Harm

GROUP = "Bounds"
MOST = 100_000  # records read ahead: more than any library has reason to
RESTS = 3.0  # seconds that the consumer rests


def take_ten_and_rest(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """Takes ten results, and looks how far was read while it rests."""
    got.extend(itertools.islice(results, 10))
    end = time.monotonic() + RESTS
    while time.monotonic() < end and source.read <= MOST:
        time.sleep(0.05)
    told.read.append(source.read)


def take_a_thousand(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    got.extend(itertools.islice(results, 1_000))
    told.read.append(source.read)


class FirstIsSlow(Harm):
    """The first record takes two seconds, all others nothing."""

    def strike(self, record: Any) -> None:
        if record == BASE:
            time.sleep(2.0)


def take_all_slowly(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    count = 0
    for _ in results:
        count += 1
        time.sleep(0.001)
    if count != 2_000:
        told.wrong = f"silent loss: {count} of 2,000 results"


def megabytes() -> Iterator[bytes]:
    for n in range(2_000):
        yield bytes([n % 256]) * 1_000_000


SCENARIOS = [
    Scenario(
        name="an endless source",
        fault="a thousand results are taken: no more than 100,000 records have been read",
        job=Job(itertools.count, (steps.double,)),
        consume=take_a_thousand, compared=False,
        expect=Bounded(MOST + 1_000),
    ),
    Scenario(
        name="a consumer that rests",
        fault="ten results are taken, then none for three seconds: no more than 100,000 records are read",
        job=Job(itertools.count, (steps.double,)),
        consume=take_ten_and_rest, compared=False,
        expect=Bounded(MOST), fast=False,
    ),
    Scenario(
        name="the first record is slow",
        fault="two seconds for the first of an endless source: the others do not pile up behind it",
        job=Job(lambda: itertools.count(BASE), (FirstIsSlow(), steps.double)),
        consume=take_a_thousand, compared=False,
        expect=Bounded(2 * MOST), fast=False,
    ),
    Scenario(
        name="large records and a slow consumer",
        fault="2,000 records of 1 MB through a window of 64 MB: never more than 600 MB in all processes",
        job=Job(megabytes, (steps.same,), {"memory": "64MB"}),
        consume=take_all_slowly, compared=False, most_memory=600_000_000,
        expect=Ends((0,)), fast=False, limit=60.0,
    ),
]  # fmt: skip
