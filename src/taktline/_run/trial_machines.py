"""The plan for machines elsewhere: records are tried here, and the what-if says what they would take there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from taktline._planner.advise import Plan, advise
from taktline._planner.machines import on_machines
from taktline._recipe.options import Options, memory_bytes, usable_cores
from taktline._recipe.steps import Step
from taktline._run.ends import check_options
from taktline._run.trial import try_out
from taktline.abc import Sink
from taktline.views.progress import Status


def plan_on(
    steps: tuple[Step, ...], name: str, source: Iterable[Any], sink: Any, options: Options, length: int | None
) -> Plan:
    """What to do with this source on the machines that `options` name. Raises WorkersCannotStart where they cannot be
    reached."""
    check_options(source, sink, options.dead_letters)
    assert options.on is not None
    sizes, cores = options.on.sizes(), usable_cores()
    encode = sink.encoder if isinstance(sink, Sink) else None
    here = replace(options, on=None, workers=None)
    with Status("plan", options.progress) as say:
        tried = try_out(steps, name, source, cores, encode, here, say, sink)
    if length is not None:
        tried = tried._replace(total=length)
    best = advise(
        tried, cores=cores, workers=cores, window=options.window, memory=memory_bytes(options.memory),
        batch_size=options.batch_size, on_error=options.on_error, dead_letters=options.dead_letters,
    )  # fmt: skip
    return on_machines(
        best, tried, sizes, says=options.on.says, workers=options.workers, how=options.how, batch_size=options.batch_size,
        window=options.window, memory=memory_bytes(options.memory),
    )  # fmt: skip
