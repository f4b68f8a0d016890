"""All scenarios, in the order of the table."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from faults.scenario import Scenario
from faults.scenarios import (
    bounds,
    caller,
    durable,
    ends,
    leaving,
    records,
    services,
    surroundings,
    time,
    values,
    workers,
)

GROUPS = (values, records, workers, time, caller, leaving, bounds, ends, surroundings, durable, services)


@cache
def scenarios() -> tuple[Scenario, ...]:
    """Each with its group."""
    return tuple(replace(each, group=module.GROUP) for module in GROUPS for each in module.SCENARIOS)


def scenario(name: str) -> Scenario:
    """The one of this name."""
    return next(each for each in scenarios() if each.name == name)
