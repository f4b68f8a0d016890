"""Counter-check of the verdict: each line is run, its advice taken, and the gain held against the predicted one.

python3 dev.py bench verdict [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.work import spin
from taktline import Report, line, serial

WITHIN = 0.15  # share by which the gain may miss the prediction


@dataclass(frozen=True)
class Case:
    """`before` is run, `after` is the same with the advice taken; `expected` is the bottleneck."""

    expected: str
    before: Callable[[], tuple[Report, float]]
    after: Callable[[], tuple[Report, float]]


def timed(steps: tuple[Any, ...], source: Callable[[], Any], consume: float = 0.0, **options: Any):
    """A run of these steps, and who takes the results spends `consume` seconds on each."""

    def go() -> tuple[Report, float]:
        began = perf_counter()
        run = line(*steps)(source(), progress=False, **options)
        if consume:
            for _ in run:
                time.sleep(consume)
        else:
            deque(run, maxlen=0)
        return run.report, perf_counter() - began

    return go


def slowly(count: int, seconds: float) -> Iterator[int]:
    for n in range(count):
        time.sleep(seconds)
        yield n


def waits(n: int) -> int:
    time.sleep(0.004)
    return n


def small(n: int) -> int:
    return n + 1


def giant(n: int) -> int:
    for _ in range(2_000 if n == 0 else 1):
        spin(7)
    return n


def parts(n: int) -> int:
    """The same work, with the giant split into its parts."""
    return spin(7)


def stored(n: int) -> int:
    for _ in range(6_000):
        pass
    return n


def half_stored(n: int) -> int:
    for _ in range(3_000):
        pass
    return n


def cases() -> list[Case]:
    line2: dict[str, Any] = {"how": "line", "workers": 2}
    spins = range(3_000)
    return [
        Case(
            "spin", timed((spin,), lambda: spins, how="line", workers=1),
            timed((spin,), lambda: spins, **line2),
        ),
        Case("spin", timed((spin,), lambda: spins, how="loop"), timed((spin,), lambda: spins, **line2)),
        Case(
            "source", timed((small,), lambda: slowly(1_500, 0.001), **line2), timed((small,), lambda: range(1_500), **line2),
        ),
        Case(
            "sink", timed((small,), lambda: range(1_500), consume=0.001, **line2),
            timed((small,), lambda: range(1_500), **line2),
        ),
        Case(
            "too small batches", timed((small,), lambda: range(60_000), batch_size=1, **line2),
            timed((small,), lambda: range(60_000), **line2),
        ),
        Case(
            "hub", timed((small,), lambda: range(3_000_000), **line2),
            timed((small,), lambda: range(3_000_000), how="loop"),
        ),
        Case(
            "start-up", timed((stored,), lambda: range(300), **line2), timed((stored,), lambda: range(300), how="loop"),
        ),
        Case(
            "stored", timed((small, serial(stored)), lambda: range(20_000), **line2),
            timed((small, serial(half_stored)), lambda: range(20_000), **line2),
        ),
        Case(
            "one giant record", timed((giant,), lambda: range(400), **line2),
            timed((parts,), lambda: range(2_399), **line2),
        ),
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py bench verdict")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    print("| bottleneck | advice | predicted gain | gain | |", "|---|---|---|---|---|", sep="\n")
    for case in cases():
        before, after = [], []
        for _ in range(given.rounds):
            report, seconds = case.before()
            before.append(seconds)
            after.append(case.after()[1])
        verdict = report.verdict
        gain = statistics.median(before) / statistics.median(after)
        predicted = verdict.gain or float("nan")
        found = (
            verdict.bottleneck if verdict.bottleneck == case.expected else f"{verdict.bottleneck}, not {case.expected}"
        )
        close = "met" if abs(predicted / gain - 1) <= WITHIN else "missed"
        print(f"| {found} | {verdict.action} | {predicted:.2f} | {gain:.2f} | {close} |", flush=True)


if __name__ == "__main__":
    main()
