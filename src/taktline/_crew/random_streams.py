"""Random numbers in workers: each has the generators that its caller had, and they would all draw the same."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterable
from typing import Any


def generators_in(things: Iterable[Any]) -> list[Any]:
    """The random generators among these things."""
    kinds = _kinds()
    return [each for each in things if type(each) in kinds]


def all_generators(reached: Iterable[Any]) -> list[Any]:
    """Those that steps reach, and all others that Python's collector knows, of installed packages too: 50 ns a thing."""
    # Both kinds of look are needed: what a program has frozen, the collector does not tell.
    found = {id(each): each for each in (*reached, *generators_in(gc.get_objects()))}
    return list(found.values())


def own_streams(found: Iterable[Any]) -> None:
    """Give each of them numbers of its own in this process, from the system's entropy."""
    legacy = []
    numpy: Any = sys.modules.get("numpy.random")
    for each in found:
        if isinstance(each, random.Random):
            random.Random.seed(each)
        elif isinstance(each, numpy.SeedSequence):
            type(each).__init__(each)
        elif isinstance(each, numpy.BitGenerator):
            # As if it were built anew, in place: who draws from it holds its address.
            type(each).__init__(each, numpy.SeedSequence())
        else:
            legacy.append(each)
    for state in legacy:  # once their bit generators have begun anew: a number that was drawn ahead goes
        kept = state.get_state(legacy=False)
        if "has_gauss" in kept:
            state.set_state({**kept, "has_gauss": 0, "gauss": 0.0})


def _kinds() -> set[type]:
    kinds = _and_below(random.Random) - _and_below(random.SystemRandom)
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        for kind in (numpy_random.SeedSequence, numpy_random.RandomState):
            kinds |= _and_below(kind)
        kinds |= {kind for kind in _and_below(numpy_random.BitGenerator) if kind.__module__.startswith("numpy.")}
    return kinds


def _and_below(kind: type) -> set[type]:
    below: list[type] = kind.__subclasses__()
    return {kind}.union(*map(_and_below, below))
