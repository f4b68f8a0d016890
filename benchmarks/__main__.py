"""Runs every contestant over every work, in turn, and prints medians as ratios to the plain loop, beside the goals.

python3 dev.py bench [--rounds 5] [--only TEXT] [--tables peers,long,regret,files,hub,scale,waiting] [--write BENCHMARKS.md]
python3 dev.py bench hub         the hub alone over 8 to 2,048 workers that cost nothing
python3 dev.py bench article     the article's table
python3 dev.py bench tables      tables from file to file, beside hand-written code
python3 dev.py bench verdict     is the gain that a verdict predicts there when its advice was taken?
python3 dev.py bench views       what progress, a trace, metrics and the health page cost a run
python3 dev.py bench starts      how long the library and the command take to begin
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import taktline
from benchmarks import article, hub, starts, tables, verdict, views
from benchmarks.anew import anew
from benchmarks.peers import PEERS, WORKERS
from benchmarks.single import empty_batches, file_to_file, one_record
from benchmarks.waits import waits, waits_and_computes
from benchmarks.ways import HALVES, Turn, turn
from benchmarks.work import WORKS, generated_length
from faults.starting import patient_starts

GENERATED = 30  # lines
TECHNIQUES = ("loop", "pool", "queues", "line")
OURS = ("plain", "auto", "line", "line, launch", "line, threads")
SLOW = 3.0  # times the best, from which a contestant is not run again in the later rounds
ONE_BY_ONE = 10_000  # records up to which techniques are run that move one record at a time


class Goal(NamedTuple):
    """`what` of a work, as a ratio to `of`, should be `most` at most. "peer": the best of the others."""

    work: str  # how its name begins
    what: str
    of: str
    most: float


GOALS = (
    Goal("200,000 JSON", "line", "loop", 0.53),
    Goal("4,000 records", "line", "loop", 0.515),
    Goal("5,000 records", "line", "loop", 0.515),
    Goal("1,000,000 ints", "auto", "loop", 1.03),
    Goal("1,000,000 ints", "line", "loop", 1.15),
    Goal("1,500 arrays", "auto", "loop", 0.65),
    Goal("1,500 arrays", "line", "peer", 0.5),
    Goal("article's setting, lists", "line", "peer", 0.9),
    Goal("article's setting, one form", "line", "loop", 0.023),
    Goal("300,000 tuples", "auto", "loop", 1.03),
)
LONG_GOAL = 1.02  # of the time of the best of the others
FILES, FILES_CPU, HUB, FLAT = 0.52, 0.03, 20_000, 0.10
WAITING, MIXED = 0.025, 1.10
REGRET, REGRET_WORST, ERROR, ERROR_WORST = 1.02, 1.10, 0.05, 0.15


def in_turn(
    work: str, length: int, ways: list[str], rounds: int, *, plan: bool = False, seconds: float = 0.0
) -> list[Turn]:
    """Each way once a round, another one first each time: it pays for memory that the others find. After the first round
    only the best chunk size of a family goes on. `seconds`: what the loop takes, where the work is to be a longer one."""
    turns = []
    for number in range(rounds):
        say(f"{work}: round {number + 1} of {rounds}: {', '.join(ways)}")
        turns.append(Turn(*anew(turn, work, length, ways, plan, seconds)))
        ways = _worth_running(turns[0].times) if number == 0 else ways
        ways = [*ways[1:], ways[0]]
    return turns


def _worth_running(times: dict[str, tuple[float, float]]) -> list[str]:
    families: dict[str, str] = {}
    for name in times:
        family = name.split(" by ")[0]
        if family not in families or times[name][0] < times[families[family]][0]:
            families[family] = name
    best = min(times[name][0] for name in families.values())
    peers = sorted((name for name in families.values() if " by " in name), key=lambda name: times[name][0])
    slow = {name for name in peers[1:] if times[name][0] > SLOW * max(best, 0.5)}
    return [name for name in families.values() if name not in slow]


def median(turns: list[Turn], name: str, which: int = 0) -> float:
    return statistics.median(each.times[name][which] for each in turns)


# --- tables ---


def peers_table(rounds: int, only: str) -> Iterator[str]:
    yield (
        "| work | loop | auto | line | line, launch | line, threads | best of the others "
        "| first result, auto − loop's record | goals |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in WORKS:
        if only not in name:
            continue
        turns = in_turn(name, WORKS[name]().length, [*OURS, *others_of(name)], rounds)
        base = median(turns, "plain")
        took = {each: median(turns, each) / base for each in turns[-1].times}
        best = min((each for each in took if " by " in each), key=lambda each: took[each])
        took |= {"peer": took[best], "loop": 1.0}
        late = median(turns, "auto", 1) - statistics.median(each.one_record for each in turns)
        goals = [
            f"{goal.what} ≤ {goal.most}{'' if goal.of == 'loop' else ' of the best of the others'}: "
            f"{verdict_of(took[goal.what] / took[goal.of], goal.most)}"
            for goal in GOALS
            if name.startswith(goal.work)
        ]
        yield (
            f"| {name} | {base:.2f} s | {took['auto']:.3f} | {took['line']:.3f} | {took['line, launch']:.3f} | "
            f"{took['line, threads']:.3f} | {took['peer']:.3f} ({best}) | {late * 1e3:.1f} ms | {'; '.join(goals)} |"
        )


def others_of(name: str) -> list[str]:
    """The other libraries' ways that a work has, by chunk size."""
    work = WORKS[name]()
    return [f"{each} by {size}" for each in PEERS for size in work.chunks if size * WORKERS <= work.length]


def long_table(rounds: int, only: str) -> Iterator[str]:
    """The same works for some 10 s, beside the best three of the others, and beside what no way can be faster than."""
    yield "| work | loop | half each | auto | line | best of the others | auto, line / best of the others |"
    yield "|---|---|---|---|---|---|---|"
    for name in WORKS:
        if only not in name:
            continue
        length = WORKS[name]().length
        short = in_turn(name, length, ["plain", *others_of(name)], 1)
        seconds = median(short, "plain")
        ranked = sorted(_worth_running(short[0].times), key=lambda each: short[0].times[each][0])
        others = [each for each in ranked if " by " in each][:3]
        turns = in_turn(name, length, ["plain", HALVES, "auto", "line", *others], rounds, seconds=seconds)
        base = median(turns, "plain")
        took = {each: median(turns, each) / base for each in turns[-1].times}
        best = min((each for each in took if " by " in each), key=lambda each: took[each])
        goals = ", ".join(verdict_of(took[each] / took[best], LONG_GOAL) for each in ("auto", "line"))
        yield (
            f"| {name} | {base:.1f} s | {took[HALVES]:.3f} | {took['auto']:.3f} | {took['line']:.3f} | "
            f"{took[best]:.3f} ({best}) | {goals} |"
        )


def verdict_of(value: float, most: float) -> str:
    return f"{value:.3f}, {'met' if value <= most else 'missed'}"


def regret_table(rounds: int, only: str) -> Iterator[str]:
    """What auto takes beside the best technique, and how far the what-if is off, over all works and generated lines."""
    yield "| work | loop | pool | queues | line | auto / best | prediction of loop, of line |"
    yield "|---|---|---|---|---|---|---|"
    regrets: list[float] = []
    errors: list[float] = []
    for name in [*WORKS, *(f"generated line {seed}" for seed in range(GENERATED))]:
        if only not in name:
            continue
        seed = int(name.split()[-1]) if name not in WORKS else None
        length = generated_length(seed) if seed is not None else WORKS[name]().length
        # One record a batch takes minutes where a record is cheap; and it is never the best there.
        ways = ["auto", *(TECHNIQUES if length <= ONE_BY_ONE else ("loop", "line"))]
        turns = in_turn(name, length, ways, rounds, plan=True)
        took = {each: median(turns, each) for each in ways}
        regrets.append(took["auto"] / min(took.values()))
        off = [
            statistics.median(each.predicted[how] / each.times[how][0] - 1 for each in turns)
            for how in ("loop", "line")
        ]
        errors += map(abs, off)
        cells = [f"{took[how]:.2f} s" if how in took else "-" for how in TECHNIQUES]
        yield f"| {name} | {' | '.join(cells)} | {regrets[-1]:.3f} | {', '.join(f'{each:+.0%}' for each in off)} |"
    if regrets:
        yield ""
        yield (
            f"auto / best: median {verdict_of(statistics.median(regrets), REGRET)} (goal ≤ {REGRET}), worst "
            f"{verdict_of(max(regrets), REGRET_WORST)} (goal ≤ {REGRET_WORST}). Error of the what-if: median "
            f"{verdict_of(statistics.median(errors), ERROR)} (goal ≤ {ERROR}), worst "
            f"{verdict_of(max(errors), ERROR_WORST)} (goal ≤ {ERROR_WORST})."
        )


def files_table(rounds: int, only: str) -> Iterator[str]:
    """200,000 JSON lines from a file into a file, against the loop that does the same."""
    yield "| file to file | loop | line | goal | share of the CPU that is the caller's own |"
    yield "|---|---|---|---|---|"
    loop, took, share = (
        statistics.median(each) for each in zip(*(anew(file_to_file) for _ in range(rounds)), strict=True)
    )
    yield (
        f"| 200,000 JSON lines, 2 steps | {loop:.2f} s | {took / loop:.3f} | ≤ {FILES}: "
        f"{verdict_of(took / loop, FILES)} | {share:.1%}, goal < {FILES_CPU:.0%} |"
    )


def hub_table(rounds: int, only: str) -> Iterator[str]:
    """Batches a second through the hub, with steps that do nothing."""
    rate = statistics.median(anew(empty_batches) for _ in range(rounds))
    yield f"The hub alone, empty steps: {rate:,.0f} batches a second, goal ≥ {HUB:,}, {'met' if rate >= HUB else 'missed'}."


def scale_table(rounds: int, only: str) -> Iterator[str]:
    """What a record costs, from the first result on, and how much memory is held, in short and in long runs."""
    yield "| records | auto, ns a record | line, ns a record | auto, memory | line, memory |"
    yield "|---|---|---|---|---|"
    costs: dict[str, list[float]] = {"auto": [], "line": []}
    for count in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        held = {}
        for how, each in costs.items():
            found = [anew(one_record, how, count) for _ in range(rounds)]
            each.append(statistics.median(ns for ns, _ in found))
            held[how] = statistics.median(size for _, size in found) / 1e6
        yield (
            f"| {count:,} | {costs['auto'][-1]:,.0f} | {costs['line'][-1]:,.0f} | {held['auto']:.0f} MB | "
            f"{held['line']:.0f} MB |"
        )
    for how, each in costs.items():
        long = each[-3:]
        spread = max(long) / min(long) - 1
        yield ""
        yield f"{how}: from 100,000 records on within {spread:.0%} (goal: {FLAT:.0%}); before that the start weighs more."


def waiting_table(rounds: int, only: str) -> Iterator[str]:
    """Steps that wait, alone and beside steps that compute."""
    yield "| waiting | figure | goal |"
    yield "|---|---|---|"
    for threads, name in ((False, "async"), (True, "threads")):
        share = statistics.median(anew(waits, threads) for _ in range(rounds))
        met = verdict_of(share, WAITING)
        yield f"| 2,000 records of 5 ms, tasks=64, {name}; loop = 1 | {share:.4f} | ≤ {WAITING}: {met} |"
    found = [anew(waits_and_computes) for _ in range(rounds)]
    ratio = statistics.median(both / max(one, other) for one, other, both in found)
    one, other, both = (statistics.median(each) for each in zip(*found, strict=True))
    yield (
        f"| 4,000 records that wait 20 ms ({one:.2f} s) and compute 0.6 ms ({other:.2f} s); the larger = 1 | {ratio:.3f} "
        f"({both:.2f} s) | ≤ {MIXED}: {verdict_of(ratio, MIXED)} |"
    )


TABLES = {
    "peers": peers_table,
    "long": long_table,
    "regret": regret_table,
    "files": files_table,
    "hub": hub_table,
    "scale": scale_table,
    "waiting": waiting_table,
}


TITLES = {
    "peers": "Beside other libraries",
    "long": "The same works for ten seconds and more",
    "regret": "What auto chooses, and what is predicted",
    "files": "File to file",
    "hub": "The hub alone",
    "scale": "Short and long runs",
    "waiting": "Steps that wait",
}


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def on_clusters(arguments: list[str]) -> None:
    """`dev.py ray bench`, in an environment that has Ray."""
    from benchmarks import clusters

    clusters.main(arguments)


OTHERS: dict[str, Callable[[list[str]], int | None]] = {
    "article": article.main, "hub": hub.main, "ray": on_clusters, "tables": tables.main, "verdict": verdict.main,
    "views": views.main,
    "starts": starts.main,
}  # fmt: skip


@patient_starts()
def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        sys.exit(OTHERS[sys.argv[1]](sys.argv[2:]))
    parser = argparse.ArgumentParser(
        prog="python3 dev.py bench", epilog=f"also: {', '.join(f'bench {each}' for each in OTHERS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="works whose name has this in it")
    parser.add_argument("--tables", default=",".join(TABLES), help="which tables, comma between them")
    parser.add_argument("--write", metavar="FILE", help="put the tables into this file, below its marker")
    given = parser.parse_args()
    text = (
        f"taktline {taktline.__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {WORKERS} workers, medians of {given.rounds} rounds taken in turn; loop = 1\n"
    )
    for name in given.tables.split(","):
        text += f"\n## {TITLES[name]}\n\n"
        for row in TABLES[name](given.rounds, given.only):
            say(row)
            text += row + "\n"
    print(text)
    if given.write:
        file = Path(given.write)
        kept = file.read_text(encoding="utf-8").split("<!-- table -->")[0]
        file.write_text(f"{kept}<!-- table -->\n\n{text}", encoding="utf-8")
    return


if __name__ == "__main__":
    main()
