"""Runs every contestant over every work, in turn, and prints medians as ratios to the plain loop.

python3 dev.py bench [--rounds 5] [--only TEXT] [--write BENCHMARKS.md]
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Any

from benchmarks.work import Work, works
from taktline import __version__, line

WORKERS = 2
CHUNKS = (1_000, 100, 10)  # of Pool.imap and ProcessPoolExecutor.map: the best of them counts
GOALS = {
    ("200,000 JSON", "line"): 0.58,
    ("4,000 records", "line"): 0.53,
    ("1,000,000", "auto"): 1.05,
    ("1,500 arrays", "auto"): 1.05,
}


def loop(work: Work) -> Iterator[Any]:
    """The loop that people write; over the arrays one that does not keep 1.5 GB of results, as nobody would."""
    results: list[Any] = []
    if len(work.steps) == 1:
        (a,) = work.steps
        for record in work.records():
            results.append(a(record))
    elif len(work.steps) == 3:
        a, b, c = work.steps
        for record in work.records():
            yield c(b(a(record)))
    else:
        a, b, c, d = work.steps
        for record in work.records():
            results.append(d(c(b(a(record)))))
    yield from results


def ours(how: str) -> Callable[[Work], Iterator[Any]]:
    return lambda work: iter(line(*work.steps)(work.records(), how=how, workers=WORKERS))


def pool(chunk: int) -> Callable[[Work], Iterator[Any]]:
    def run(work: Work) -> Iterator[Any]:
        with multiprocessing.get_context("fork").Pool(WORKERS) as workers:
            yield from workers.imap(work.chain, work.records(), chunk)

    return run


def executor(chunk: int) -> Callable[[Work], Iterator[Any]]:
    def run(work: Work) -> Iterator[Any]:
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as workers:
            yield from workers.map(work.chain, work.records(), chunksize=chunk)

    return run


def contestants(work: Work) -> dict[str, Callable[[Work], Iterator[Any]]]:
    found: dict[str, Callable[[Work], Iterator[Any]]] = {"loop": loop, "auto": ours("auto"), "line": ours("line")}
    for chunk in CHUNKS:
        if chunk * WORKERS <= work.length:
            found[f"Pool.imap {chunk}"] = pool(chunk)
            found[f"ProcessPoolExecutor.map {chunk}"] = executor(chunk)
    return found


def measured(run: Callable[[Work], Iterator[Any]], work: Work) -> tuple[float, float, int]:
    """Seconds in all, seconds to the first result, and how many results there were."""
    began = perf_counter()
    results = run(work)
    next(results)
    first = perf_counter() - began
    count = 1 + sum(1 for _ in results) if "arrays" in work.name else 1 + len(list(results))
    return perf_counter() - began, first, count


def best(times: dict[str, list[float]], family: str) -> tuple[str, float] | None:
    found = {name: statistics.median(took) for name, took in times.items() if name.startswith(family)}
    return min(found.items(), key=lambda each: each[1]) if found else None


def table(rounds: int, only: str) -> str:
    lines = [
        "| work | loop | auto | line | best Pool.imap | best ProcessPoolExecutor.map | first result, auto − loop |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for work in works():
        if only not in work.name:
            continue
        names = contestants(work)
        times: dict[str, list[float]] = {name: [] for name in names}
        firsts: dict[str, list[float]] = {name: [] for name in names}
        for each in range(rounds):
            for name, run in names.items():
                print(f"{work.name}: round {each + 1} of {rounds}, {name}", file=sys.stderr)
                seconds, first, count = measured(run, work)
                assert count == work.length, (name, count)
                times[name].append(seconds)
                firsts[name].append(first)
        base = statistics.median(times["loop"])
        cells = [work.name, f"{base:.2f} s"]
        for how in ("auto", "line"):
            ratio = statistics.median(times[how]) / base
            goal = next(
                (goal for (start, which), goal in GOALS.items() if work.name.startswith(start) and which == how), None
            )
            cells.append(f"{ratio:.3f}" + (f" (goal {goal})" if goal else ""))
        for family in ("Pool.imap", "ProcessPoolExecutor.map"):
            found = best(times, family)
            cells.append(f"{found[1] / base:.2f}, chunks of {found[0].split()[1]}" if found else "-")
        # The loop hands its results over at its end; its first one is there after one record's work.
        one = perf_counter()
        work.chain(next(iter(work.records())))
        one = perf_counter() - one
        cells.append(f"{(statistics.median(firsts['auto']) - one) * 1e3:.1f} ms")
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="works whose name has this in it")
    parser.add_argument("--write", metavar="FILE", help="put the table into this file, below its marker")
    given = parser.parse_args()
    head = (
        f"taktline {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{WORKERS} workers, medians of {given.rounds} rounds taken in turn; loop = 1"
    )
    text = f"{head}\n\n{table(given.rounds, given.only)}\n"
    print(text)
    if given.write:
        with open(given.write, encoding="utf-8") as file:
            kept = file.read().split("<!-- table -->")[0]
        with open(given.write, "w", encoding="utf-8") as file:
            file.write(f"{kept}<!-- table -->\n\n{text}")


if __name__ == "__main__":
    main()
