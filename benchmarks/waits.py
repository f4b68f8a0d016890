"""Steps that wait, alone and beside steps that compute. What they need is imported by workers, so it is little."""

from __future__ import annotations

import asyncio
import time
from time import perf_counter
from typing import Any

from taktline import line, step

WORKERS = 2
WAIT, LONG_WAIT = 0.005, 0.02  # seconds


async def waiting(n: int) -> int:
    await asyncio.sleep(WAIT)
    return n


async def waiting_long(n: int) -> int:
    await asyncio.sleep(LONG_WAIT)
    return n


def waiting_in_a_thread(n: int) -> int:
    time.sleep(WAIT)
    return n


def waits(threads: bool) -> float:
    """2,000 records of 5 ms, 64 at once, as a share of the loop's time, which is what their waiting adds up to."""
    _seconds((abs,), 3)  # what a process imports once
    some = step(waiting_in_a_thread if threads else waiting, tasks=64)
    return _seconds((some,), 2_000) / (2_000 * WAIT)


def computing(n: int) -> int:
    total = 0
    for k in range(22_000):
        total += k * n
    return total


def waits_and_computes() -> tuple[float, float, float]:
    """Seconds of 4,000 records that only wait, that only compute, and that do both: each is to take about as long."""
    _seconds((abs,), 3)
    some = step(waiting_long, tasks=64)
    return _seconds((some,), 4_000), _seconds((computing,), 4_000), _seconds((some, computing), 4_000)


def _seconds(steps: tuple[Any, ...], count: int) -> float:
    began = perf_counter()
    for _ in line(*steps)(range(count), how="line", workers=WORKERS, progress=False):
        pass
    return perf_counter() - began
