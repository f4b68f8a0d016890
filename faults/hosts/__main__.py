"""Tasks of a real Airflow on two hosts of Celery, which are killed and frozen at random; all that they write is in S3.

python3 dev.py hosts [--tasks 20] [--kills 30] [--seed N]

The database is PostgreSQL, the broker Redis, the store moto's S3 server, all on this machine; they and the scheduler stay up.
A host is killed with all its processes and started again, or stopped (SIGSTOP) and gone on with (SIGCONT), often when Airflow
has given its tasks to the other one. Where all tasks are done before that was done as often as asked for, they run once more.

Each output must be byte for byte that of an undisturbed loop, each dead letter be there once, no journal, part or open upload
be left in the store, and nothing in the hosts' folders for temporary files. Exit code 1, and what is wrong, where not.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.brokers import NoServer
from faults.hosts.cluster import BUCKET, DAG, DAGS, HEARTBEAT_TIMEOUT, Cluster, cluster
from faults.hosts.host import Host
from faults.starting import patient_starts
from taktline import write
from taktline.cli.target import line_of

APART = 12.0  # seconds between two kills on average: some meet tasks at work, some those that are starting
DOWN = 15.0  # seconds until a host that was killed is there again, at most
FROZEN = (2.0, 2.5 * HEARTBEAT_TIMEOUT)  # seconds: some are back before Airflow misses them, some long after
FREEZE_SHARE = 0.5
IDLE_SHARE = 0.02  # of the looks at a host without a task that harm it all the same
LIMIT = 900.0  # seconds behind the last kill in which the tasks must end
LOOK = 0.5  # seconds
RECORDS, TAKES = 3000, 0.006  # a task's, and seconds for each: as long as some kills are apart
SIZES = (3000, 200)  # random bytes in a record: output of several parts in the store, or of one
FOREIGN = ("pymp-", "tmp")  # what Python and Airflow themselves leave where they are killed


@dataclass
class Toll:
    """What was done, and what came of it. `wrong` is empty where all held."""

    tasks: int
    done: Counter[str] = field(default_factory=Counter)  # kills and freezes
    processes: int = 0  # that were killed
    rounds: int = 0
    tries: int = 0
    resumed: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = ", ".join(f"{name} {count}×" for name, count in sorted(self.done.items()))
        held = "\n".join(["WRONG", *self.wrong[:30]]) if self.wrong else "every output whole, nothing left"
        return (
            f"{self.rounds} × {self.tasks} tasks on two hosts ({what}; {self.processes} processes killed), "
            f"{self.tries} tries, {self.resumed} outputs gone on with, {self.seconds:.0f} s: {held}"
        )


class Chaos:
    """The hosts of a cluster, and what happens to them."""

    def __init__(self, made: Cluster, toll: Toll, kills: int, chance: random.Random) -> None:
        self._made, self._toll, self._kills, self._chance = made, toll, kills, chance
        self._due: dict[int, float] = {}  # when a host is back
        self._next = 0.0

    @property
    def over(self) -> bool:
        return self._toll.done.total() >= self._kills

    def go_on(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for number, host in enumerate(self._made.hosts):
            if number in self._due:
                if now >= self._due[number]:
                    self._back(host)
                    del self._due[number]
            elif not host.up:
                raise RuntimeError(f"{host.folder.name} has ended by itself:\n{self._made.logs()}")
        if now >= self._next and not self.over:
            number = self._chance.randrange(len(self._made.hosts))
            if number not in self._due and (self._made.hosts[number].tasks() or self._chance.random() < IDLE_SHARE):
                self._due[number] = now + self._harm(self._made.hosts[number])
                self._next = now + self._chance.expovariate(1 / APART)

    def _harm(self, host: Host) -> float:
        """Seconds until it is back."""
        if self._chance.random() < FREEZE_SHARE:
            self._toll.done["frozen"] += 1
            host.freeze()
            return self._chance.uniform(*FROZEN)
        self._toll.done["killed"] += 1
        self._toll.processes += host.kill()
        return self._chance.uniform(0, DOWN)

    @staticmethod
    def _back(host: Host) -> None:
        if host.frozen:
            host.thaw()
        else:
            host.start()

    def all_back(self) -> None:
        for number in list(self._due):
            self._back(self._made.hosts[number])
        self._due.clear()
        self._next = 0.0


def sources(made: Cluster, tasks: int) -> list[tuple[bytes, list[int]]]:
    """Put what the tasks read into the store; what each of them must give, and the places of what fails, by the loop."""
    flow, due = line_of(f"{DAGS / 'steps.py'}:flow"), []
    with tempfile.TemporaryDirectory() as folder:
        out, failed = Path(folder, "out.jsonl"), Path(folder, "failed.jsonl")
        for task in range(tasks):
            rows = [{"n": n, "task": task, "size": SIZES[task // 4 % 2], "takes": TAKES} for n in range(RECORDS)]
            made.store.pipe(f"{BUCKET}/in/{task}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
            still = ({**row, "takes": 0} for row in rows)
            flow.run(still, write(out), dead_letters=str(failed), how="loop")
            due.append((out.read_bytes(), indexes(failed.read_bytes())))
            failed.unlink()
    return due


def indexes(letters: bytes) -> list[int]:
    return [json.loads(text)["index"] for text in letters.splitlines()]


def one_round(made: Cluster, chaos: Chaos, toll: Toll, *, show: bool) -> str:
    """All tasks, until they are done: the name of the run. Raises RuntimeError where they do not end."""
    run = f"round{toll.rounds}"
    made.airflow("dags", "trigger", DAG, "--run-id", run)
    began, told = time.monotonic(), ""
    until = began + LIMIT
    while True:
        chaos.go_on()
        ((state,),) = made.rows("select state from dag_run where run_id = %s", run)
        if state in ("success", "failed"):
            break
        if not chaos.over:
            until = time.monotonic() + LIMIT
        if time.monotonic() > until:
            raise RuntimeError(f"the tasks do not end: {states(made, run)}\n{made.logs()}")
        if show and (now := f"{dict(toll.done)} {dict(states(made, run))}") != told:
            told = now
            print(f"{time.monotonic() - began:6.0f} s {now}", file=sys.stderr, flush=True)
        time.sleep(LOOK)
    if state == "failed":
        toll.wrong.append(f"{run}: {dict(states(made, run))}")
    return run


def states(made: Cluster, run: str) -> Counter[str]:
    return Counter(str(state) for (state,) in made.rows("select state from task_instance where run_id = %s", run))


def check(made: Cluster, run: str, due: list[tuple[bytes, list[int]]], toll: Toll) -> None:
    """Look at what a run has made, and take it away."""
    for task, (out, failed) in enumerate(due):
        there = {name: f"{BUCKET}/{run}/{name}/task{task}.jsonl" for name in ("out", "failed")}
        for name, path in there.items():
            if not made.store.exists(path):
                toll.wrong.append(f"{run}: there is no {path}")
                continue
            found = made.store.cat(path)
            if name == "out" and found != out:
                toll.wrong.append(f"{path}: {differs(found, out)}")
            if name == "failed" and indexes(found) != failed:
                toll.wrong.append(f"{path}: {indexes(found)}, due are {failed}")
            made.store.rm(path)
    for path in made.store.find(BUCKET):
        if not path.startswith(f"{BUCKET}/in/"):
            toll.wrong.append(f"{run}: {path} is left")
    for upload in made.store.list_multipart_uploads(BUCKET):
        toll.wrong.append(f"{run}: an upload of {upload['Key']} is open")
    tries = [count for (count,) in made.rows("select try_number from task_instance where run_id = %s", run)]
    toll.tries += sum(tries)
    reports = made.rows("select value from xcom where run_id = %s and key = 'return_value'", run)
    toll.resumed += sum(_facts(value)["resumed_at"] > 0 for (value,) in reports)


def _facts(value: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    return facts


def differs(found: bytes, due: bytes) -> str:
    have, want = found.splitlines(), due.splitlines()
    first = next((n for n, (one, other) in enumerate(zip(have, want, strict=False)) if one != other), "none")
    return f"{len(have)} lines, due are {len(want)}; the first other line is {first}"


@patient_starts()
def run_chaos(tasks: int, kills: int, seed: int, *, show: bool = False) -> Toll:
    """So many kills and freezes. Raises NoServer, and RuntimeError where Airflow does not start or the tasks do not end."""
    chance, toll = random.Random(seed), Toll(tasks)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder, cluster(Path(folder), tasks) as made:
        due = sources(made, tasks)
        chaos = Chaos(made, toll, kills, chance)
        while not chaos.over or not toll.rounds:
            run = one_round(made, chaos, toll, show=show)
            chaos.all_back()
            for host in made.hosts:  # first tries that were frozen end before it is looked at what they have done
                if not host.end():
                    toll.wrong.append(f"{run}: {host.folder.name} does not end")
            toll.rounds += 1
            check(made, run, due, toll)
            for host in made.hosts:
                host.start()
        for host in made.hosts:
            host.kill()
            left = [path for path in host.left() if not path.name.startswith(FOREIGN)]
            toll.wrong += [f"{path} is left" for path in left]
    toll.seconds = time.monotonic() - began
    return toll


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py hosts")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        toll = run_chaos(given.tasks, given.kills, given.seed, show=True)
    except NoServer as none:
        sys.exit(str(none))
    print(f"\n{toll}")
    sys.exit(1 if toll.wrong else 0)


if __name__ == "__main__":
    main()
