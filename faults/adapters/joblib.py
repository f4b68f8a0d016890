"""joblib: Parallel with its default backend (loky) and `return_as="generator"`, which gives results in order as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from joblib import Parallel, delayed

from faults.job import WORKERS, Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    function = job.function()
    parallel = Parallel(n_jobs=WORKERS, return_as="generator", timeout=job.step_options.get("timeout"))
    results = parallel(delayed(function)(record) for record in records)
    try:
        yield job.results(results)
    finally:
        results.close()


ADAPTERS = [Adapter("joblib", "joblib", frozenset({"workers", "timeout"}), run)]
