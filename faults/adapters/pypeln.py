"""pypeln: a stage of processes a step, with `maxsize`, and `ordered` behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pypeln as pl

from faults.job import WORKERS, Adapter, Expand, Job, Keep, Serial


@contextmanager
def run(job: Job, records: Iterable[Any]) -> Iterator[Iterator[Any]]:
    stage: Any = records
    for step in job.steps:
        fn = step.fn if isinstance(step, (Keep, Expand, Serial)) else step
        build = {Keep: pl.process.filter, Expand: pl.process.flat_map}.get(type(step), pl.process.map)
        stage = build(
            fn, stage, workers=WORKERS, maxsize=100, timeout=job.step_options.get("timeout", 0), on_start=job.initialise
        )
    yield iter(pl.process.ordered(stage, maxsize=100))


ADAPTERS = [Adapter("pypeln", "pypeln", frozenset({"workers", "initialise", "timeout"}), run)]
