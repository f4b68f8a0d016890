"""taktline: its four techniques, and `auto`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from faults.job import WORKERS, Adapter, Expand, Job, Keep, Serial
from faults.steps import Waits
from taktline import Line, expand, keep, line, per_worker, serial, step, write, write_sql
from taktline._crew.machines import agents_here


class Initialised:
    """A step that is built in each worker, and does `initialise` there first."""

    def __init__(self, initialise: Callable[[], None], fn: Callable[[Any], Any]) -> None:
        initialise()
        self.fn = fn

    def __call__(self, record: Any) -> Any:
        return self.fn(record)


def flow(job: Job) -> Line:
    steps: list[Any] = []
    for each in job.steps:
        if isinstance(each, Keep):
            steps.append(keep(each.fn))
        elif isinstance(each, Expand):
            steps.append(expand(each.fn))
        elif isinstance(each, Serial):
            steps.append(serial(each.fn))
        elif job.initialise is not None:
            steps.append(per_worker(Initialised, job.initialise, each))
        elif isinstance(each, Waits):
            steps.append(step(each.fn, tasks=each.tasks, **job.step_options))
        else:
            steps.append(step(each, **job.step_options))
    return line(*steps)


@contextmanager
def run(how: Any, job: Job, records: Iterable[Any], start: Any = "auto", agents: int = 0) -> Iterator[Iterator[Any]]:
    on = agents_here(agents) if agents else None
    with flow(job)(records, how=how, start=start, workers=WORKERS, on=on, **job.options) as results:
        yield results


def drain(how: Any, job: Job, start: Any = "auto", agents: int = 0) -> None:
    assert job.out is not None
    sink = write_sql(job.out, "results") if job.out.startswith("sqlite:") else write(job.out)
    flow(job).run(
        job.records(),
        sink,
        how=how,
        start=start,
        workers=WORKERS,
        on=agents_here(agents) if agents else None,
        **job.options,
    )


EVERYWHERE = frozenset({
    "skip", "serial", "initialise", "retries", "stall", "seed", "dead letters", "journal", "writes", "tables", "urls",
    "waits", "command",
})  # fmt: skip
# In the caller's own process nobody is there to end a late step.
WITH_WORKERS = EVERYWHERE | {"workers", "timeout"}
ADAPTERS = [
    Adapter(
        f"taktline {how}", "taktline", EVERYWHERE if how == "loop" else WITH_WORKERS, partial(run, how),
        partial(drain, how),
    )
    for how in ("loop", "pool", "queues", "line", "auto")
]  # fmt: skip
# The others fork where that is safe, which it is in the suite's programs.
ADAPTERS.append(
    Adapter("taktline launched", "taktline", WITH_WORKERS, partial(run, "line", start="launch"),
            partial(drain, "line", start="launch"))
)  # fmt: skip
# Threads die with their caller, cannot be ended inside a call, and share the generators.
ADAPTERS.append(
    Adapter("taktline threads", "taktline", EVERYWHERE - {"seed"}, partial(run, "line", start="threads"),
            partial(drain, "line", start="threads"))
)  # fmt: skip
# As on several machines: a helper process, two agents, and their workers. The command knows Ray alone, which brings its own.
ADAPTERS.append(
    Adapter("taktline agents", "taktline", WITH_WORKERS - {"command"}, partial(run, "line", agents=2),
            partial(drain, "line", agents=2))
)  # fmt: skip
