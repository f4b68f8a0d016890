"""One job from file to file with a journal, while its workers and its caller are killed at random moments.

python3 dev.py chaos [--kills 200] [--records 100000] [--seed N] [--write FAULTS.md]

Each caller that is killed is started again with the same command. The output must be the loop's, byte for byte. Where
the job is done before all kills were, it begins anew.
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

from faults.starting import patient_starts
from taktline import expand, keep, line, read, write

WORK = 40_000  # rounds for each record: enough for the job to last as long as the kills do
APART = 0.35  # seconds between two kills on average; starting alone takes about as long, so some hit that
CALLER_SHARE = 0.25  # of the kills that are tried; those of workers find none while a caller starts
PATIENCE = 30.0  # seconds for workers to end with their caller
LIMIT = 900.0  # seconds of the whole; a job that hangs ends here


# --- the job ---


def spin(row: dict[str, int]) -> dict[str, int]:
    """Takes time and changes nothing, so the loop's output can be had without it."""
    for _ in range(WORK):
        pass
    return row


def compute(row: dict[str, int]) -> dict[str, int]:
    return {**row, "value": row["n"] * 1_103_515_245 % 2_147_483_647}


def wanted(row: dict[str, int]) -> bool:
    return row["value"] % 5 != 0


def parts(row: dict[str, int]) -> list[dict[str, int]]:
    return [{**row, "part": part} for part in range(row["value"] % 3)]


STEPS = line(compute, keep(wanted), expand(parts))
LONG = line(spin, STEPS)


def job(folder: str) -> None:
    """What is killed: started again it must go on where it was."""
    os.chdir(folder)
    LONG.run(read("in.jsonl"), write("out.jsonl"), how="line", workers=2, journal="run.journal")


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
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The job's caller, ended on the way out."""
    with open(folder / "err", "ab") as errors:
        caller = subprocess.Popen([sys.executable, "-m", "faults.chaos", "--job", str(folder)], stderr=errors)
    try:
        yield caller
    finally:
        caller.kill()
        caller.wait()


def one_caller(folder: Path, kills: int, chance: random.Random, toll: Toll) -> bool:
    """A caller's life, until it is killed or has done its job: whether it has. Raises where it fails by itself."""
    with running(folder) as caller:
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
                caller.send_signal(signal.SIGKILL)
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


def compare(folder: Path, expected: bytes, toll: Toll) -> None:
    """Count what the output has too little, too much, and in the wrong place."""
    found = (folder / "out.jsonl").read_bytes()
    if found != expected:
        have, due = Counter(found.splitlines()), Counter(expected.splitlines())
        toll.lost += (due - have).total()
        toll.twice += sum(count for text, count in (have - due).items() if text in due)
        toll.other += sum(count for text, count in (have - due).items() if text not in due) or have == due
    toll.left += len({path.name for path in folder.iterdir()} - {"in.jsonl", "out.jsonl", "run.journal", "err"})


@patient_starts()
def chaos(kills: int, records: int, seed: int, *, show: bool = False) -> Toll:
    """So many kills. Raises where the job fails or hangs; the toll says what became of the output."""
    chance, toll = random.Random(seed), Toll(records)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(records)), encoding="utf-8")
        STEPS.run(read(str(folder / "in.jsonl")), write(str(folder / "loop.jsonl")), how="loop")
        expected = (folder / "loop.jsonl").read_bytes()
        (folder / "loop.jsonl").unlink()
        while toll.workers + toll.callers < kills or not toll.jobs:
            while not one_caller(folder, kills, chance, toll):
                if show:
                    print(f"\r{toll}", end="", file=sys.stderr, flush=True)
            toll.jobs += 1
            compare(folder, expected, toll)
            (folder / "out.jsonl").unlink()
            (folder / "run.journal").unlink(missing_ok=True)
    return toll


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py chaos")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--write", metavar="FILE", help="put the figures into this file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job(given.job)
        return
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    toll = chaos(given.kills, given.records, given.seed, show=True)
    print(f"\n{toll}")
    if given.write:
        from faults.page import write_figure

        write_figure(given.write, "chaos", f"{toll}; the output is {'' if toll.clean else 'NOT '}the loop's")
    sys.exit(0 if toll.clean else 1)


if __name__ == "__main__":
    main()
