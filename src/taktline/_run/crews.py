"""Which crew runs a plan: processes on this machine, threads of this process, or workers on other machines."""

from __future__ import annotations

import warnings
from functools import partial

from taktline._crew.contract import Crew
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.plan import RunPlan
from taktline._run.meter import Meter
from taktline.errors import WorkersCannotStart
from taktline.views.progress import withdraw


def crew_for(plan: RunPlan, options: Options, meter: Meter, beside: str = "") -> Crew:
    """The crew for a plan that has workers. `beside`: why nothing can be forked beside the run's source or sink; empty
    where it can. Raises LineError at once where a step cannot be carried over."""
    if options.on is not None:
        return _elsewhere(plan, options, meter)
    if options.start == "threads":
        return threads_for(plan, options)
    from taktline._crew import starts

    if why := starts.no_processes():
        raise WorkersCannotStart(why)
    from taktline._crew.processes import ProcessCrew

    withdraw()  # workers get the streams that steps hold as they are without it
    return ProcessCrew(
        [segment.steps if segment.workers else None for segment in plan.segments],
        goes_on=options.goes_on, start=options.start, most=_most(plan, options), seeds=plan.seeds(options.seed),
        setup=options.setup, tell=partial(_told, meter), beside=beside,
    )  # fmt: skip


def _elsewhere(plan: RunPlan, options: Options, meter: Meter) -> Crew:
    assert options.on is not None
    withdraw()
    return options.on.crew(
        [segment.steps if segment.workers else None for segment in plan.segments],
        goes_on=options.goes_on, workers=max(segment.workers for segment in plan.segments), most=_most(plan, options),
        seeds=plan.seeds(options.seed), setup=options.setup, tell=partial(_told, meter),
    )  # fmt: skip


def threads_for(plan: RunPlan, options: Options) -> Crew:
    """A crew of threads for a plan that has workers."""
    from taktline._crew.threads import ThreadCrew

    lanes = [segment.steps if segment.workers else None for segment in plan.segments]
    return ThreadCrew(lanes, goes_on=options.goes_on, most=_most(plan, options))


def _most(plan: RunPlan, options: Options) -> int:
    """Bytes that a worker may hold."""
    return max(1 << 20, memory_bytes(options.memory) // (2 * plan.workers))


def _told(meter: Meter, reasons: list[str], missed: list[str]) -> None:
    """What is to be known of the workers' surroundings: for the report, and what they do not have as it is here."""
    meter.reasons += reasons
    if missed:
        meter.missed += missed
        says = (
            f"workers do not have this as it is in the caller's process: {', '.join(missed)}; they have what their own "
            "imports make. Build it in each worker, with setup= or per_worker(), or"
        )
        meter.reasons.append(says.partition(". Build")[0])
        warnings.warn(f'{says} share this process\'s memory with start="fork"', RuntimeWarning, stacklevel=2)
