"""What it costs that a record is the run's own before the next one is read: python -m benchmarks.ownership [--rounds 9]

A generator of fresh dicts goes through a step of some 4 µs with two workers, in turn: as it is; without the look; and with
each record in a pickle of its own, as would be safe without a look. Ratios of the medians, and of the processor time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import Any

from benchmarks.anew import anew

RECORDS = 300_000
WAYS = ("as it is", "no look", "each in a pickle of its own", "held by the source")


def fresh(count: int, fields: int) -> Iterator[dict[str, Any]]:
    if fields <= 2:
        for n in range(count):
            yield {"id": n, "name": "amber"}
    else:
        for n in range(count):
            yield {"id": n, "name": "amber", "amount": n * 1.5, "city": "Bern", "paid": True}


def held(count: int, fields: int) -> Iterator[dict[str, Any]]:
    for record in fresh(count, fields):
        kept = record
        yield kept


def work(record: dict[str, Any]) -> int:
    total = 0
    for k in range(70):
        total += k * record["id"]
    return total


def once(way: str, fields: int) -> tuple[float, float]:
    """Seconds a record, on the clock and of all processors, with its start left out."""
    import pickle

    from taktline import line
    from taktline._run import ownership

    if way == "no look":

        def all_own(records: Iterator[Any], taken: list[Any]) -> int:
            taken.extend(records)
            return ownership.OWN

        ownership.take = all_own
    elif way == WAYS[2]:

        def alone(records: Iterator[Any], taken: list[Any]) -> int:
            for record in records:
                taken.append(_Packed(pickle.dumps(record, 5)))
            return ownership.OWN

        ownership.take = alone
    source = held if way == WAYS[3] else fresh
    run = line(work)(source(RECORDS, fields), how="line", workers=2, progress=False)
    results = iter(run)
    next(islice(results, 20_000, None))
    began = perf_counter()
    for _ in results:
        pass
    seconds = perf_counter() - began
    return seconds / (RECORDS - 20_000) * 1e9, run.report.cpu_seconds / RECORDS * 1e9


class _Packed:
    """A record as bytes, which a worker reads back by itself."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        import pickle

        return pickle.loads, (self.data,)


def main() -> None:
    from benchmarks.ownership import once  # by a name that another process can import

    parser = argparse.ArgumentParser(prog="python -m benchmarks.ownership")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for fields in (2, 5):
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for turn in range(given.rounds):
            print(f"{fields} fields, round {turn + 1}", file=sys.stderr, flush=True)
            for way in (*WAYS[turn % 4 :], *WAYS[: turn % 4]):
                taken[way].append(anew(once, way, fields))
        base = [statistics.median(each) for each in zip(*taken["no look"], strict=True)]
        for way, times in taken.items():
            clock, cpu = (statistics.median(each) for each in zip(*times, strict=True))
            print(
                f"{fields} fields, {way:<28} {clock:6.0f} ns a record, {clock / base[0]:.3f}; "
                f"processors {cpu:6.0f} ns, {cpu / base[1]:.3f}"
            )


if __name__ == "__main__":
    main()
