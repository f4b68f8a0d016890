"""multiprocessing.Pool.imap: "a lazier version of map()", with its default chunks of one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from faults.job import WORKERS, Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    with multiprocessing.Pool(WORKERS, initializer=job.initialise) as pool:
        yield job.results(pool.imap(job.function(), records))


ADAPTERS = [Adapter("Pool.imap", None, frozenset({"workers", "initialise"}), run)]
