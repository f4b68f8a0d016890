"""streamable: `map(…, concurrency=a process pool)`, as its documentation says under "via processes"; `catch` leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from streamable import stream

from faults.job import WORKERS, Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    with ProcessPoolExecutor(WORKERS, initializer=job.initialise) as processes:
        results = stream(records).map(job.function(), concurrency=processes)
        if job.options.get("on_error") == "skip":
            results = results.catch((ValueError, KeyError))  # what the steps may raise
        yield job.results(results)


ADAPTERS = [Adapter("streamable", "streamable", frozenset({"workers", "initialise", "skip"}), run)]
