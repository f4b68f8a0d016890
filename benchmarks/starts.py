"""How long the library and the command take to begin.

python3 dev.py bench starts [--rounds 20]

Each start is a process of its own, and all take turns; best of the rounds, since what else runs only makes them longer. The
rows "python" and "click" tell how much of it is not ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from time import perf_counter

STARTS = {  # what is started, and how many milliseconds it may take
    "python": (["-c", "pass"], None),
    "click": (["-c", "import click"], None),
    "import taktline": (["-c", "import taktline"], 60),
    "taktline --help": (["-m", "taktline", "--help"], 150),
    "taktline run --help": (["-m", "taktline", "run", "--help"], 150),
}


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python3 dev.py bench starts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args(arguments).rounds
    best = dict.fromkeys(STARTS, float("inf"))
    for _ in range(rounds):
        for name, (command, _) in STARTS.items():
            began = perf_counter()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            best[name] = min(best[name], perf_counter() - began)
    print("| start | ms | goal | |\n|---|---|---|---|")
    for name, (_, goal) in STARTS.items():
        found = "" if goal is None else "met" if 1000 * best[name] <= goal else "missed"
        print(f"| {name} | {1000 * best[name]:.0f} | {goal or ''} | {found} |")
