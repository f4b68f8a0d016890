"""Other ways to the same ordered results, each as its documentation recommends: (work, chunk) to an iterator of results.

Those that know no chunks get lists of records and a function of lists. What is not installed is left out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any

from benchmarks.work import Work

WORKERS = 2
FORK = multiprocessing.get_context("fork")
Peer = Callable[[Work, int], Iterator[Any]]


def chunks(work: Work, size: int) -> Iterator[list[Any]]:
    source = iter(work.records())
    while some := list(islice(source, size)):
        yield some


def pool(work: Work, chunk: int) -> Iterator[Any]:
    with FORK.Pool(WORKERS) as workers:
        yield from chain.from_iterable(workers.imap(work.bulk, chunks(work, chunk)))


def executor(work: Work, chunk: int) -> Iterator[Any]:
    with ProcessPoolExecutor(WORKERS, FORK) as workers:
        yield from chain.from_iterable(workers.map(work.bulk, chunks(work, chunk)))


def joblib(work: Work, chunk: int) -> Iterator[Any]:
    from joblib import Parallel, delayed

    calls = (delayed(work.bulk)(some) for some in chunks(work, chunk))
    yield from chain.from_iterable(Parallel(WORKERS, return_as="generator")(calls))


def mpire(work: Work, chunk: int) -> Iterator[Any]:
    from mpire import WorkerPool

    lists = [(some,) for some in chunks(work, chunk)]  # in a tuple, since it unpacks what it is given
    with WorkerPool(WORKERS, start_method="fork") as workers:
        yield from chain.from_iterable(workers.imap(work.bulk, lists, chunk_size=1))


def pypeln(work: Work, chunk: int) -> Iterator[Any]:
    from pypeln import process

    stage = process.map(work.bulk, chunks(work, chunk), workers=WORKERS, maxsize=8)
    yield from chain.from_iterable(process.ordered(stage))


def streamable(work: Work, chunk: int) -> Iterator[Any]:
    from streamable import Stream

    with ProcessPoolExecutor(WORKERS, FORK) as workers:
        yield from chain.from_iterable(Stream(chunks(work, chunk)).map(work.bulk, concurrency=workers))


PEERS: dict[str, Peer] = {"Pool.imap": pool, "ProcessPoolExecutor.map": executor}
PEERS |= {
    name: peer
    for name, peer in (("joblib", joblib), ("mpire", mpire), ("pypeln", pypeln), ("streamable", streamable))
    if find_spec(name) is not None
}
