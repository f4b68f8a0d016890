"""What a result of `expand` costs in a segment, by how many a record gives: `python -m benchmarks.expanding`.

The least of many short runs is taken, so that what else the machine does hardly shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter_ns

from taktline import expand
from taktline._recipe.steps import as_step
from taktline._segment.batch import Batch
from taktline._segment.segment import TIMED_EVERY, Segment

RESULTS = 6_000  # a batch
RUNS = 200


def cost(per: int, *, lazily: bool) -> float:
    """Nanoseconds a result where a record gives so many, from a list that is there or from a generator."""

    def lazy(_: int) -> Iterator[int]:
        yield from range(per)

    there = list(range(per))
    segment = Segment([as_step(expand(lazy if lazily else lambda _: there))], goes_on=False)
    segment.make()
    batch, least = Batch(list(range(RESULTS // per))), float("inf")
    for _ in range(RUNS):
        segment.batches = TIMED_EVERY + 1  # none of its records is timed
        began = perf_counter_ns()
        segment.run(batch)
        least = min(least, perf_counter_ns() - began)
    return least / RESULTS


def main() -> None:
    """Print the table."""
    for name, lazily in (("list", False), ("generator", True)):
        costs = ", ".join(f"{cost(per, lazily=lazily):.0f} ns at {per:,}" for per in (1, 3, 100, RESULTS))
        print(f"{name:<10} {costs}")


if __name__ == "__main__":
    main()
