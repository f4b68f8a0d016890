"""One round over one work, in a process of its own.

The same loop runs up to a tenth faster or slower from process to process, as its memory happens to lie. What is forked
inherits that from its parent, and what is launched draws anew; so only rounds in different processes compare the ways.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.peers import PEERS, WORKERS
from benchmarks.work import WORKS, Work, generated
from taktline import line

Contestant = Callable[[Work], Iterator[Any]]


class Turn(NamedTuple):
    """Seconds of each contestant in all and to its first result, and of the loop for one record. `predicted`: seconds,
    by technique, of a plan made in the same process, where one was asked for."""

    times: dict[str, tuple[float, float]]
    one_record: float
    predicted: dict[str, float]


def turn(work: str, length: int, contestants: list[str], *, plan: bool = False) -> Turn:
    """Each contestant once, in this order, in a new process."""
    asked = json.dumps([work, length, contestants, plan])
    command = [sys.executable, "-m", "benchmarks.turn", asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    return Turn(*json.loads(done.stdout.splitlines()[-1]))


def contestant(name: str) -> Contestant:
    """By name: "loop", a technique, a technique with ", fork" behind it, or a peer "by" a chunk size."""
    if name == "loop":
        return lambda work: work.loop(work.records())
    if " by " in name:
        peer, chunk = name.rsplit(" by ", 1)
        return lambda work: PEERS[peer](work, int(chunk))
    how, _, start = name.partition(", ")
    return lambda work: iter(
        line(*work.steps)(work.records(), how=how, workers=WORKERS, start=start or "launch", progress=False)
    )


def made(name: str, length: int) -> Work:
    """The work of this name."""
    return WORKS[name]() if name in WORKS else generated(int(name.split()[-1]), length)


def measured(run: Contestant, work: Work) -> tuple[float, float]:
    """Seconds in all, and to the first result."""
    began = perf_counter()
    results = run(work)
    next(results)
    first = perf_counter() - began
    if work.kept:
        list(results)
    else:
        for _ in results:
            pass
    return perf_counter() - began, first


def _imported(contestants: list[str]) -> None:
    """Import what the contestants use: a process does that once, and it is not what is compared."""
    for how in ("auto", "line"):
        list(line(abs)(range(3), how=how, workers=1, progress=False))
    for name in contestants:
        package = name.split(" by ")[0]
        if find_spec(package.split(".")[0].lower()) is not None:
            import_module(package.split(".")[0].lower())


def main() -> None:
    name, length, contestants, planned = json.loads(sys.argv[1])
    work = made(name, length)
    _imported(contestants)
    predicted = {}
    if planned:
        plan = line(*work.steps).plan(work.records(), length=work.length, workers=WORKERS)
        predicted = {each.how: each.seconds for each in plan.predictions if each.cores == plan.cores}
    times = {each: measured(contestant(each), work) for each in contestants}
    began = perf_counter()
    work.bulk([next(iter(work.records()))])
    print(json.dumps(Turn(times, perf_counter() - began, predicted)))


if __name__ == "__main__":
    main()
