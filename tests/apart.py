"""All tests, each file in a pytest of its own, as many at once as there are cores and one, as they wait now and then.

    python -m tests.apart [--jobs N] [--whole] [arguments of pytest, files and folders among them]

Of files that have many cases of a kind (tests/conftest.py says which) a third is drawn where no file is named; the seed is
told, and `--draw SEED` draws the same. `--whole` runs all of them.

A worker that is launched looks at every module that its caller has imported, and imports the user's own among them. In one
pytest for all files these are the other hundred test files with all that they need, at every start of a worker; by itself a
file pays for what it needs. Exit code: 0 when all passed.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TOGETHER = ("docs", "src", "tests/pubsub")  # short ones, or with a server that is dear to make
FIRST = ("test_whole_ways.py", "test_fault_suite.py", "test_faults.py")  # take minutes: the others fill in beside them
NOTHING = 5  # pytest's exit code where no test is asked for
SLOWEST = 20


@dataclass
class Ended:
    """What came of one file."""

    name: str
    code: int
    seconds: float
    cpu: float  # of pytest and what it waited for
    output: str
    counts: dict[str, int]
    slowest: list[tuple[float, str]]


def files(asked: list[str]) -> Iterator[str]:
    """What is run by itself: test files, and a few folders; the longest files of promises first, as they take longest."""
    if not asked:
        yield from ("tests/pubsub",)
        asked = ["tests", *(each for each in TOGETHER if each != "tests/pubsub"), "README.md"]
    found = [
        path for each in asked if (ROOT / each).is_dir() and each not in TOGETHER for path in tests_in(ROOT / each)
    ]
    found.sort(key=lambda path: (path.name not in FIRST, "promises" not in path.parts, -path.stat().st_size))
    yield from (str(path.relative_to(ROOT)) for path in found)
    yield from (each for each in asked if each in TOGETHER or not (ROOT / each).is_dir())


def tests_in(folder: Path) -> list[Path]:
    """The test files under a folder that are run by themselves."""
    apart = [ROOT / each for each in (*TOGETHER, "tests/airflow", "tests/clusters")]
    return [path for path in folder.rglob("test_*.py") if not any(path.is_relative_to(other) for other in apart)]


def run(name: str, arguments: list[str]) -> Ended:
    """One file in a pytest of its own, with a folder of its own for what is temporary."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))  # short: a socket's path has 107 bytes at most
    folder.chmod(0o1777)  # as /tmp, since some tests run as another user
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", name, *arguments]
    began = time.monotonic()
    try:
        pytest = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert pytest.stdout
        output = pytest.stdout.read()
        _, status, used = os.wait4(pytest.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        pytest.returncode = code
        counts, slowest = told(report)
        return Ended(name, code, time.monotonic() - began, used.ru_utime + used.ru_stime, output, counts, slowest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def told(report: Path) -> tuple[dict[str, int], list[tuple[float, str]]]:
    """How many tests passed, failed and so on, and how long each took."""
    if not report.exists():
        return {}, []
    suite = ElementTree.parse(report).getroot()[0]
    counts = {name: int(suite.get(name, 0)) for name in ("failures", "errors", "skipped")}
    counts["passed"] = int(suite.get("tests", 0)) - sum(counts.values())
    return counts, [(float(case.get("time", 0)), case.get("name", "")) for case in suite.iter("testcase")]


def show(ended: Ended) -> None:
    """A line a file; all of it where something failed."""
    counts = ", ".join(f"{count} {name}" for name, count in ended.counts.items() if count) or "nothing"
    print(f"{ended.seconds:6.1f} s {ended.cpu:6.1f} cpu  {ended.name}: {counts}", flush=True)
    if ended.code not in (0, NOTHING):
        print(ended.output, flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.apart", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) + 1, help="files at once")
    parser.add_argument("--draw", metavar="SEED", help="of files with many cases: those that this draws")
    parser.add_argument("--whole", action="store_true", help="all cases of all files")
    options, arguments = parser.parse_known_args()
    asked = [each for each in arguments if (ROOT / each).exists()]
    arguments = [each for each in arguments if each not in asked]
    seed = options.draw or (None if asked or options.whole else str(secrets.randbelow(1_000_000)))
    if seed is not None:
        print(f"of files with many cases a third, drawn with --draw {seed}", flush=True)
    began, all_ended = time.monotonic(), []
    with ThreadPoolExecutor(options.jobs) as threads:
        drawn = [] if seed is None else ["--draw", seed]
        given = {name: [*arguments, *(drawn if name.startswith("tests") else [])] for name in files(asked)}
        for done in as_completed([threads.submit(run, name, more) for name, more in given.items()]):
            all_ended.append(done.result())
            show(all_ended[-1])
    for line in sorted({line for each in all_ended for line in re.findall(r"^SKIPPED.*", each.output, re.MULTILINE)}):
        print(line)
    print("slowest:")
    for seconds, test, name in sorted(((s, t, each.name) for each in all_ended for s, t in each.slowest))[
        : -SLOWEST - 1 : -1
    ]:
        print(f"{seconds:6.1f} s  {name}::{test}")
    failed = [each.name for each in all_ended if each.code not in (0, NOTHING)]
    totals = {
        name: sum(each.counts.get(name, 0) for each in all_ended)
        for name in ("passed", "failures", "errors", "skipped")
    }
    print(", ".join(f"{count} {name}" for name, count in totals.items()), f"in {time.monotonic() - began:.0f} s")
    if failed:
        print("failed:", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
