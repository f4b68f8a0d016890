"""Runs one scenario with one adapter in a process group of its own, and sees what is left behind. Linux.

python -m faults.guard ADAPTER SCENARIO [--limit SECONDS]      prints the verdict as one line of JSON

Orphans of the run become this process's children (a subreaper's), so none can get out of sight. Where this user may
have a mount namespace, the run has a /dev/shm of its own: what others leave in theirs is not taken for the run's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faults.job import WORKS_ELSEWHERE
from faults.scenario import Scenario, Seen, Told, Verdict
from faults.scenarios import scenario
from faults.starting import patient_starts
from faults.steps import ATTEMPT, NOTES

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 5.0  # seconds in which everything has to be gone after the end; some libraries tidy up in the background
LOOK = 0.02  # seconds between two looks at the run
LOOK_AT_MEMORY = 0.2  # it takes longer
SET_SUBREAPER = 36  # of prctl
NEW_MOUNTS = 0x00020000  # of unshare
PRIVATE_EVERYWHERE = 0x4000 | (1 << 18)  # of mount: recursive, private
SHARED_MEMORY = 1 << 30  # bytes of /dev/shm, unless a scenario makes it smaller


@dataclass(frozen=True)
class Result:
    """The verdict on one run."""

    adapter: str
    scenario: str
    verdict: Verdict
    why: str
    seconds: float

    def to_json(self) -> str:
        return json.dumps(self.__dict__ | {"verdict": self.verdict.value})


class NotHere(Exception):
    """This machine cannot do the fault."""


def own_mounts() -> bool:
    """A mount namespace for this process and all below it, if this user may have one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, ctypes.c_ulong(PRIVATE_EVERYWHERE), None) == 0)


def mount_memory(at: Path, size: int) -> bool:
    """A file system in memory at a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(at), b"tmpfs", ctypes.c_ulong(0), f"size={size},mode=1777".encode())
    return bool(done == 0)


def descendants() -> dict[int, str]:
    """All processes below this one that have not ended, with what they are."""
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                parents[int(entry)], states[int(entry)] = int(parent), state
    found: dict[int, str] = {}
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and pid != above and states[pid] not in "ZX":
            with suppress(OSError):
                program, *rest = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                found[pid] = " ".join([os.path.basename(program), *rest])[:60].strip()
    return found


def held(pids: list[int]) -> int:
    """Bytes that these processes hold; what they share counts once."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(rollup.split("\nPss:")[1].split()[0]) * 1024
    return total


def collect() -> None:
    """Take the exit codes of orphans that ended."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            os.waitpid(-1, os.WNOHANG)


class Guard:
    """One run: its folder, its surroundings, its end."""

    def __init__(self, adapter: str, what: Scenario, folder: Path, limit: float) -> None:
        self.adapter = adapter
        self.what = what
        self.folder = folder
        self.limit = limit
        self.work, self.temporary, self.logs = folder / "work", folder / "tmp", folder / "logs"
        self.peak = 0

    def surroundings(self) -> None:
        """Folders, and file systems of the run's own. Raises NotHere."""
        for path in (self.work, self.temporary, self.logs):
            path.mkdir(mode=0o777)
            path.chmod(0o777)  # a scenario may change its user
        ctypes.CDLL(None).prctl(SET_SUBREAPER, 1, 0, 0, 0)
        own = own_mounts() and mount_memory(Path("/dev/shm"), self.what.shared_memory or SHARED_MEMORY)
        if not own and (self.what.disk or self.what.shared_memory):
            raise NotHere("no mount namespace for this user")
        if self.what.disk is not None:
            (self.work / "disk").mkdir()
            mount_memory(self.work / "disk", self.what.disk)

    def attempt(self, number: int) -> Seen:
        """Start the caller and see it end, or end it at the limit."""
        told = self.logs / f"told-{number}"
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "TMPDIR": str(self.temporary),
            NOTES: str(self.logs / "notes"),
            ATTEMPT: str(number),
        }
        before = self.entries()
        began = time.monotonic()
        with open(self.logs / "out", "wb") as out, open(self.logs / "err", "wb") as err:
            caller = subprocess.Popen(
                [sys.executable, "-m", "faults.caller", self.adapter, self.what.name, str(told)],
                cwd=self.work, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            ended = self.wait(caller, began + self.limit)
            seconds = time.monotonic() - began
            left = self.left(before) if ended else []
            kill_all()
            if not ended:
                caller.wait()
        output, errors = ((self.logs / name).read_text(errors="replace") for name in ("out", "err"))
        tellings = [Told(**json.loads(line)) for line in told.read_text().splitlines()] if told.exists() else []
        return Seen(ended, caller.returncode, seconds, tellings, left, output, errors, self.beyond(), self.work)

    def beyond(self) -> str:
        """How the run went beyond all bounds."""
        if self.what.most_memory is not None and self.peak > self.what.most_memory:
            return f"over {self.what.most_memory / 1e6:,.0f} MB"
        return "reads an endless source for ever" if "endless" in self.notes() else ""

    def notes(self) -> list[str]:
        path = self.logs / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def wait(self, caller: subprocess.Popen[bytes], end: float) -> bool:
        """Whether it ended in time, and in the memory that it may take."""
        look = 0.0
        while caller.poll() is None:
            if time.monotonic() > end:
                return False
            if self.what.most_memory is not None and time.monotonic() > look:
                look = time.monotonic() + LOOK_AT_MEMORY
                self.peak = max(self.peak, held(list(descendants())))
                if self.peak > self.what.most_memory:
                    return False
            time.sleep(LOOK)
        return True

    def entries(self) -> set[str]:
        """What may be left: shared memory and temporary files."""
        return {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")} | {
            f"temporary file {name}" for name in os.listdir(self.temporary)
        }

    def bystanders(self) -> set[int]:
        """Processes that the program started for its own purposes."""
        return {int(line.split()[1]) for line in self.notes() if line.startswith("bystander ")}

    def left(self, before: set[str]) -> list[str]:
        """What is still there when patience is over."""
        end = time.monotonic() + PATIENCE
        while True:
            collect()
            running = [f"process {name}" for pid, name in descendants().items() if pid not in self.bystanders()]
            found = running + sorted(self.entries() - before)
            if not found or time.monotonic() > end:
                return found
            time.sleep(LOOK)


def kill_all() -> None:
    """End everything below this process."""
    while found := descendants():
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        collect()
        time.sleep(LOOK)


def verdict(what: Scenario, seen: Seen) -> tuple[Verdict, str]:
    """Of what was expected and of what is left, the worse."""
    if seen.beyond:
        return Verdict.UNBOUNDED, seen.beyond
    found = what.expect.judge(seen)
    if not seen.left:
        return found
    return min(found, (Verdict.LEFT, ", ".join(seen.left)[:200]), key=lambda each: list(Verdict).index(each[0]))


def run(name: str, what: Scenario, limit: float | None = None) -> Result:
    """All attempts of one scenario with one adapter; the last is judged."""
    from faults.adapters import adapter

    offers = adapter(name).offers
    if missing := what.needs - offers:
        kind = Verdict.NOTHING_TO_ASK if WORKS_ELSEWHERE in missing else Verdict.NOT_OFFERED
        return Result(name, what.name, kind, "", 0.0)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o755)
    try:
        guard = Guard(name, what, folder, limit or what.limit)
        guard.surroundings()
        for number in range(1, what.attempts + 1):
            seen = guard.attempt(number)
            if number == what.attempts:
                break
            if what.first_code not in (None, seen.exit_code):
                why = f"the first attempt ended with {seen.exit_code}, not {what.first_code}"
                return Result(name, what.name, Verdict.UNCLEAR, why, seen.seconds)
            if not seen.ended:
                return Result(name, what.name, Verdict.HANG, "no end of the first attempt", seen.seconds)
            if seen.left:
                return Result(name, what.name, Verdict.LEFT, ", ".join(seen.left), seen.seconds)
            if what.between is not None:
                what.between(guard.work)
        found, why = verdict(what, seen)
        return Result(name, what.name, found, why, seen.seconds)
    except NotHere as reason:
        return Result(name, what.name, Verdict.NOT_HERE, str(reason), 0.0)
    finally:
        kill_all()
        if what.disk is not None:
            ctypes.CDLL(None).umount2(os.fsencode(folder / "work" / "disk"), 2)
        shutil.rmtree(folder, ignore_errors=True)


@patient_starts()
def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # through all that tidies up
    parser = argparse.ArgumentParser(prog="python -m faults.guard")
    parser.add_argument("adapter")
    parser.add_argument("scenario")
    parser.add_argument("--limit", type=float)
    asked = parser.parse_args()
    print(run(asked.adapter, scenario(asked.scenario), asked.limit).to_json())


if __name__ == "__main__":
    main()
