"""Runs the scenarios with the adapters that are installed, prints a verdict each, and puts the table into a file.

python3 dev.py faults [--only TEXT] [--adapters NAME ...] [--fast] [--unasked] [--jobs 2] [--write FAULTS.md]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from faults.adapters import MODULES, OURS, available
from faults.guard import ROOT, Result
from faults.page import write_page
from faults.results import Results
from faults.scenario import Scenario, Verdict
from faults.scenarios import scenarios
from faults.starting import patient_starts

AGAIN = 2  # times that a hang is tried again: a loaded machine is no hang
SPARE = 60.0  # seconds that a guard may take beyond the limits of its attempts


def guarded(adapter: str, what: Scenario, limit: float | None = None) -> Result:
    """One run under a guard, a process of its own: it adopts orphans and ends all that is left. `limit`: seconds."""
    command = [sys.executable, "-m", "faults.guard", adapter, what.name]
    command += ["--limit", str(limit)] if limit is not None else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=what.limit * what.attempts + SPARE)
    if done.returncode:
        raise RuntimeError(f"the guard of {what.name!r} with {adapter} failed:\n{done.stderr}")
    found = json.loads(done.stdout)
    return Result(**found | {"verdict": Verdict(found["verdict"])})


def settled(adapter: str, what: Scenario) -> Result:
    """The verdict; a hang is only one when it is seen again."""
    result = guarded(adapter, what)
    if result.verdict is not Verdict.HANG:
        return result
    others = [guarded(adapter, what) for _ in range(AGAIN)]
    hung = 1 + sum(each.verdict is Verdict.HANG for each in others)
    if hung > 1:
        return replace(result, why=f"in {hung} of {AGAIN + 1} runs no end within {what.limit:.0f} s")
    return replace(others[0], why=f"{others[0].why} (hung in 1 of {AGAIN + 1} runs)".strip())


def run_all(pairs: list[tuple[str, Scenario]], jobs: int) -> Iterator[Result]:
    """The verdicts, in the order of the pairs."""
    with ThreadPoolExecutor(jobs) as threads:
        yield from threads.map(lambda pair: settled(*pair), pairs)


def wanted(given: argparse.Namespace) -> list[tuple[str, Scenario]]:
    """What is asked for, and can be run here."""
    names = given.adapters or [name for name in MODULES if available(name)]
    for name in names:
        if name not in MODULES:
            sys.exit(f"there is no adapter {name!r}; there are {', '.join(MODULES)}")
        if not available(name):
            sys.exit(f"{MODULES[name]} is not installed here; python3 dev.py faults --rivals installs it")
    chosen = [
        each for each in scenarios() if given.only in f"{each.group}: {each.name}" and (each.fast or not given.fast)
    ]
    known = Results.load()
    return [(name, each) for each in chosen for name in names if not (given.unasked and known.verdict(name, each.name))]


@patient_starts()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py faults")
    parser.add_argument("--only", default="", help="scenarios whose group or name has this in it")
    parser.add_argument("--adapters", nargs="+", metavar="NAME", help=f"some of: {', '.join(MODULES)}")
    parser.add_argument("--fast", action="store_true", help="only the scenarios that run as a test")
    parser.add_argument("--unasked", action="store_true", help="only the cells that are empty in the table")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--write", metavar="FILE", help="keep the results, and put the table into this file")
    given = parser.parse_args()
    results, ours_failed = Results.load(), 0
    for result in run_all(wanted(given), given.jobs):
        print(f"{result.verdict.value:14} {result.seconds:5.1f} s  {result.adapter:24} {result.scenario}", flush=True)
        if result.why:
            print(f"{'':24}{result.why}", flush=True)
        results.add(result)
        ours_failed += result.adapter in OURS and result.verdict not in (
            Verdict.PASS, Verdict.NOTHING_TO_ASK, Verdict.NOT_HERE,
        )  # fmt: skip
    if given.write:
        results.save()
        write_page(results, given.write)
    sys.exit(1 if ours_failed else 0)


if __name__ == "__main__":
    main()
