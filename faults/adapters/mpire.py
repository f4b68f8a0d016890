"""mpire: WorkerPool.imap, ordered. Records travel as tuples of arguments; a source without a length needs a chunk size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mpire import WorkerPool

from faults.job import WORKERS, Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    arguments = ((record,) for record in records)
    with WorkerPool(n_jobs=WORKERS) as pool:
        yield job.results(
            pool.imap(
                job.function(),
                arguments,
                chunk_size=1,
                worker_init=job.initialise,
                task_timeout=job.step_options.get("timeout"),
            )
        )


ADAPTERS = [Adapter("mpire", "mpire", frozenset({"workers", "initialise", "timeout"}), run)]
