"""The ways of getting a work done: the plain loop, the line's techniques, and the peers, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.peers import PEERS, WORKERS
from benchmarks.work import SIZE, WORKS, Work, generated, longer
from taktline import line

Way = Callable[[Work], Iterator[Any]]
HALVES = "half each"


class Turn(NamedTuple):
    """One round. Seconds of each way in all and to its first result, and of the loop for one record; `predicted`:
    seconds, by technique, of a plan made in the same process, where one was asked for."""

    times: dict[str, tuple[float, float]]
    one_record: float
    predicted: dict[str, float]


def turn(name: str, length: int, ways: list[str], plan: bool, seconds: float = 0.0) -> Turn:
    """Each of these ways once over the work of this name, in this order. `seconds`: what its loop takes, where it is to
    take some ten."""
    work = WORKS[name]() if name in WORKS else generated(int(name.split()[-1]), length)
    work = longer(work, seconds) if seconds else work
    _import(ways)
    predicted = {}
    if plan:
        made = line(*work.steps).plan(work.records(), length=work.length, workers=WORKERS)
        predicted = {each.how: each.seconds for each in made.predictions if each.cores == made.cores}
    times = {each: measured(way(each), work) for each in ways}
    began = perf_counter()
    work.bulk([next(iter(work.records()))])
    return Turn(times, perf_counter() - began, predicted)


def way(name: str) -> Way:
    """By name: "plain" is the user's own loop; a technique, also with ", launch" behind it; a peer "by" a chunk size."""
    if name == "plain":
        return lambda work: work.loop(work.records())
    if name == HALVES:
        return halves
    if " by " in name:
        peer, chunk = name.rsplit(" by ", 1)
        return lambda work: PEERS[peer](work, int(chunk))
    how, _, start = name.partition(", ")
    given = {"start": start} if start else {}
    return lambda work: iter(line(*work.steps)(work.records(), how=how, workers=WORKERS, progress=False, **given))


def halves(work: Work) -> Iterator[Any]:
    """What no way of sharing the work can be faster than: bare processes that have their part of the records already, keep
    their results, and do nothing else."""
    children = []
    for worker in range(WORKERS):
        if not (pid := os.fork()):
            part = islice(work.records(), worker, None, WORKERS)
            while some := list(islice(part, SIZE)):
                work.bulk(some)
            os._exit(0)
        children.append(pid)
    for pid in children:
        if os.waitpid(pid, 0)[1]:
            raise ChildProcessError("half of the work failed")
    yield None


def measured(run: Way, work: Work) -> tuple[float, float]:
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


def _import(ways: list[str]) -> None:
    """What a process imports once is not what is compared."""
    for package in {"joblib", "mpire", "pypeln", "streamable"} & {name.split(" by ")[0] for name in ways}:
        import_module(package)
    for how in ("auto", "line"):  # behind them: a run looks through modules that are new since the one before
        list(line(abs)(range(3), how=how, workers=1, progress=False))
