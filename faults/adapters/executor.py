"""concurrent.futures.ProcessPoolExecutor.map, as in the example of its documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from faults.job import WORKERS, Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    with ProcessPoolExecutor(WORKERS, initializer=job.initialise) as executor:
        yield job.results(executor.map(job.function(), records))


ADAPTERS = [Adapter("ProcessPoolExecutor.map", None, frozenset({"workers", "initialise"}), run)]
