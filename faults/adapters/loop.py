"""The plain loop: what everything is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from faults.job import Adapter, Job


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    function = job.function()
    yield job.results(function(record) for record in records)


ADAPTERS = [Adapter("loop", None, frozenset({"serial"}), run)]
