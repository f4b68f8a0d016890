"""The article's table, reproduced: four steps of mixed costs over the same records in its four ways, and the line's own.

python3 dev.py bench article [--records 100000] [--rounds 3]

The article reports, on 8 cores: loop 4 h 17 m at 15 % CPU, Pool 52 m at 85 %, a pipeline of queues 27 m at 90 %, the
same with batches 11 m at 95 %: about 23 times. At most 8 of these 23 are cores; the rest is vectorised work. So each
way is measured here with and without it, and the what-if tells the time of each on 8 cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from time import perf_counter
from typing import Any

from benchmarks.work import LISTS, SCALAR, Row, article_fused_steps, article_records, article_steps
from taktline import Line, Report, line
from taktline._observe.measures import duration

CORES = 8


def ways() -> list[tuple[str, Line, str]]:
    """The article's rows, then what a line makes of it: name, line, technique."""
    scalar, vectorised = line(*SCALAR), line(*article_steps())
    return [
        ("loop", scalar, "loop"),
        ("Pool: a record a task", scalar, "pool"),
        ("queues: a process a step", scalar, "queues"),
        ("batches, one form a step", vectorised, "line"),
        ("batches, one form for all steps", line(*article_fused_steps()), "line"),
    ]


def measured(flow: Line, how: str, records: list[Row]) -> tuple[float, Report, list[Any]]:
    run = flow(records, how=how)
    began = perf_counter()
    results = list(run)
    return perf_counter() - began, run.report, results


def one_process(records: list[Row], size: int = 1_000) -> list[Row]:
    """Vectorised, without any line: what of the gain is not cores."""
    found: list[Row] = []
    for at in range(0, len(records), size):
        values = records[at : at + size]
        for fn in LISTS:
            values = fn(values)
        found += values
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py bench article")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    records = article_records(given.records)
    expected = one_process(records[:1_000])
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in ways()}
    alone = []
    for turn in range(given.rounds):
        for name, flow, how in ways():
            print(f"round {turn + 1} of {given.rounds}: {name}", file=sys.stderr)
            seconds, report, results = measured(flow, how, records)
            assert results[:1_000] == expected, name
            rows[name].append((seconds, report.cpu_utilisation))
        began = perf_counter()
        one_process(records)
        alone.append(perf_counter() - began)
    print(table(records, rows, statistics.median(alone)))


def table(records: list[Row], rows: dict[str, list[tuple[float, float]]], alone: float) -> str:
    """The rows for this machine, and by what-if for a larger one."""
    base = statistics.median(seconds for seconds, _ in rows["loop"])
    found = [
        f"{len(records):,} records, 4 steps; medians; the last column is predicted",
        "",
        f"| way | runtime | cpu | loop = 1 | speed-up | on {CORES} cores |",
        "|---|---|---|---|---|---|",
    ]
    for name, flow, how in ways():
        seconds = statistics.median(took for took, _ in rows[name])
        cpu = statistics.median(share for _, share in rows[name])
        plan = flow.plan(records)
        there = next(each for each in plan.predictions if each.how == how and each.cores == CORES).seconds
        found.append(
            f"| {name} | {duration(seconds)} | {cpu:.0%} | {seconds / base:.3f} | {base / seconds:.1f} × | "
            f"{duration(there)}, {base / there:.1f} × |"
        )
    found.append(f"| vectorised, one process | {duration(alone)} | - | {alone / base:.3f} | {base / alone:.1f} × | - |")
    return "\n".join(found)


if __name__ == "__main__":
    main()
