"""python3 dev.py ways [--cases 300] [--seed N] [--only SEED [--times N]] [--go-on]

Draws ways and holds each against the model. A difference ends it, or is counted with --go-on; `--only` repeats the way with
its own seed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from random import SystemRandom
from types import FrameType

from faults.ways import runner, sources
from faults.ways.case import Case, case_of
from faults.ways.known import not_yet
from faults.ways.runner import differences

LIMIT = 240  # seconds for one way; one that takes longer hangs


def seeds(first: int, cases: int) -> list[int]:
    """The seeds of so many ways."""
    return [first * 1_000_000 + number for number in range(cases)]


class Hangs(BaseException):
    """A way took too long."""


@contextmanager
def limited() -> Iterator[None]:
    """Raises Hangs in this thread where it takes too long."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"it hangs after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def a_server() -> Iterator[None]:
    """PostgreSQL, where there is one on this machine."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import pytest
    import servers  # type: ignore[import-not-found]

    try:
        with servers.postgres() as server:
            sources.POSTGRES = server.url
            yield
    except pytest.skip.Exception as why:
        print(f"without PostgreSQL: {why}")
        yield


@contextmanager
def a_cluster() -> Iterator[None]:
    """A cluster of Ray, with two nodes at addresses of this machine."""
    from faults.ray_cluster import Cluster

    with Cluster() as cluster:
        runner.RAY = cluster.address
        try:
            yield
        finally:
            runner.RAY = ""


def shown(case: Case, found: list[str]) -> str:
    again = f"python3 dev.py {'ray ' if runner.RAY else ''}ways --only {case.seed}"
    return f"{case}\n" + "".join(f"  ✗ {each}\n" for each in found) + f"  again: {again}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py ways", description="Whole ways, drawn, against the model.")
    parser.add_argument("--cases", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, help="of the whole; a fresh one where it is left out")
    parser.add_argument("--only", type=int, help="the one way with this seed")
    parser.add_argument("--times", type=int, default=1, help="how often, with --only")
    parser.add_argument("--go-on", action="store_true", help="count what differs, and do not stop at the first")
    parser.add_argument("--slow", action="store_true", help="show what took long")
    parser.add_argument(
        "--ray", action="store_true", help="the workers of all of them are on a cluster of this machine"
    )
    asked = parser.parse_args()
    seed = SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    way = partial(case_of, elsewhere=asked.ray)
    todo = [asked.only] * asked.times if asked.only is not None else seeds(seed, asked.cases)
    print(f"{len(todo)} ways, --seed {seed}" if asked.only is None else way(asked.only), flush=True)
    differ, known, began = 0, Counter[str](), time.monotonic()
    with a_server(), a_cluster() if asked.ray else nullcontext():
        for number, each in enumerate(todo):
            case, start = way(each), time.monotonic()
            try:
                with limited():
                    found = differences(case)
            except Hangs as hangs:
                found = [str(hangs)]
            if asked.slow and time.monotonic() - start > 2:
                print(f"{time.monotonic() - start:.1f} s\n{case}", flush=True)
            reason = not_yet(case)
            if found and reason:
                known[reason] += 1
            elif found:
                differ += 1
                print(shown(case, found), flush=True)
                if not asked.go_on:
                    break
            if (number + 1) % 100 == 0:
                print(f"{number + 1} done, {differ} differ, {time.monotonic() - began:.0f} s", flush=True)
    for reason, times in known.items():
        print(f"known, {times} times: {reason}")
    print(f"{number + 1} ways gone, {differ} differ, {time.monotonic() - began:.0f} s")
    sys.stdout.flush()
    if differ:
        sys.exit(1)


if __name__ == "__main__":
    main()
