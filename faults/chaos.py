"""One job from file to file with a journal, while its workers and its caller are killed at random moments.

python3 dev.py chaos [--kills 200] [--records 100000] [--seed N] [--write FAULTS.md] [--job lines | parquet | … | folders]

Each caller that is killed, alone or with all that it has started, is started again with the same command. The output must
be byte for byte what it is where nobody disturbs the job (`chaos_jobs.py`): of lines the loop's. Where the job is done
before all kills were, it begins anew. `--job folders`: each job that writes a folder of parts, with so many kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from faults.chaos_jobs import FOLDERS, JOBS, Job, content, make_source, rows, take_away
from faults.starting import patient_starts

APART = 0.35  # seconds between two kills on average; starting alone takes about as long, so some hit that
CALLER_SHARE = 0.25  # of the kills that are tried; those of workers find none while a caller starts
TOGETHER = 0.5  # of the callers, with all processes of their group
PATIENCE = 30.0  # seconds for workers to end with their caller
LIMIT = 900.0  # seconds of the whole; a job that hangs ends here


# --- the killing ---


@dataclass
class Toll:
    """What was done, and what came of it."""

    records: int
    workers: int = 0  # killed
    callers: int = 0
    gave_up: int = 0  # callers that ended with an error, as their workers were killed again and again while starting
    jobs: int = 0  # carried to their end
    lost: int = 0  # lines
    twice: int = 0
    other: int = 0  # lines that the loop does not have, or in another place
    left: int = 0  # processes that outlive their caller, or files after the end

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.other or self.left)

    def __str__(self) -> str:
        again = f"; {self.gave_up} callers gave up, as their workers died while starting" if self.gave_up else ""
        return (
            f"{self.workers + self.callers} kills ({self.workers} of workers, {self.callers} of the caller{again}) in "
            f"{self.jobs} job{'s' * (self.jobs != 1)} of {self.records:,} records: {self.lost} lost, {self.twice} twice, "
            f"{self.other} wrong, {self.left} left behind"
        )


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def running(name: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The job's caller, ended on the way out."""
    with open(folder / "err", "ab") as errors:
        command = [sys.executable, "-m", "faults.chaos", "--job", name, "--here", str(folder)]
        caller = subprocess.Popen(command, stderr=errors, start_new_session=True)
    try:
        yield caller
    finally:
        caller.kill()
        caller.wait()


def one_caller(name: str, folder: Path, kills: int, chance: random.Random, toll: Toll) -> bool:
    """A caller's life, until it is killed or has done its job: whether it has. Raises where it fails by itself."""
    with running(name, folder) as caller:
        while True:
            over = toll.workers + toll.callers >= kills
            with suppress(subprocess.TimeoutExpired):
                if code := caller.wait(LIMIT if over else chance.expovariate(1 / APART)):
                    errors = (folder / "err").read_text()
                    if "WorkersCannotStart" not in errors.splitlines()[-1]:
                        raise RuntimeError(f"the job ended with {code}:\n{errors[-2_000:]}")
                    toll.gave_up += 1
                return not code
            if over:
                raise RuntimeError(f"the job hangs, with nobody killing any more: {toll}")
            workers = children(caller.pid)
            if chance.random() < CALLER_SHARE:
                (os.killpg if chance.random() < TOGETHER else os.kill)(caller.pid, signal.SIGKILL)
                caller.wait()
                toll.callers += 1
                toll.left += sum(not gone(pid) for pid in workers)
                return False
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    toll.workers += 1


def gone(pid: int) -> bool:
    """Whether a process ends. Two seconds are promised; a busy machine may take longer to start a worker, so as to end."""
    end = time.monotonic() + PATIENCE
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def compare(job: Job, folder: Path, due: Expected, toll: Toll) -> None:
    """Count what the output has too little, too much, and in the wrong place."""
    if content(job, folder) != due.files:
        have = Counter(rows(job, folder))
        toll.lost += (due.rows - have).total()
        toll.twice += sum(count for text, count in (have - due.rows).items() if text in due.rows)
        toll.other += sum(count for text, count in (have - due.rows).items() if text not in due.rows)
        toll.other += have == due.rows
    toll.left += len({path.name for path in folder.iterdir()} - {job.source, job.out, "run.journal", "err"})


class Expected(NamedTuple):
    """What a job writes that nobody disturbs."""

    files: dict[str, bytes]
    rows: Counter[str]


def expected(job: Job, folder: Path) -> Expected:
    job.before(folder)
    job.run(folder, disturbed=False)
    due = Expected(content(job, folder), Counter(rows(job, folder)))
    take_away(job, folder)
    return due


@patient_starts()
def chaos(kills: int, records: int, seed: int, *, name: str = "lines", show: bool = False) -> Toll:
    """So many kills in a job. Raises where it fails or hangs; the toll says what became of the output."""
    chance, toll, job = random.Random(seed), Toll(records), JOBS[name]
    with tempfile.TemporaryDirectory(prefix="chaos-") as at:
        folder = Path(at)
        make_source(job, folder, records)
        due = expected(job, folder)
        while toll.workers + toll.callers < kills or not toll.jobs:
            job.before(folder)
            while not one_caller(name, folder, kills, chance, toll):
                if show:
                    print(f"\r{name}: {toll}", end="", file=sys.stderr, flush=True)
            toll.jobs += 1
            compare(job, folder, due, toll)
            take_away(job, folder)
            (folder / "run.journal").unlink(missing_ok=True)
    return toll


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py chaos")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--write", metavar="FILE", help="put the figures into this file")
    parser.add_argument("--job", choices=(*JOBS, "folders"), default="lines", help="what is written")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        JOBS[given.job].run(Path(given.here), disturbed=True)
        return
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    tolls = {}
    for name in FOLDERS if given.job == "folders" else (given.job,):
        tolls[name] = chaos(given.kills, given.records, given.seed, name=name, show=True)
        print(f"\n{name}: {tolls[name]}", flush=True)
    if given.write:
        from faults.page import write_figure

        for name, toll in tolls.items():
            told = f"{toll}; the output is {'' if toll.clean else 'NOT '}that of a run that nobody disturbs"
            write_figure(given.write, "chaos" if name == "lines" else f"chaos: {name}", told)
    sys.exit(0 if all(toll.clean for toll in tolls.values()) else 1)


if __name__ == "__main__":
    main()
