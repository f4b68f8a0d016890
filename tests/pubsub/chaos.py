"""Kills workers and subscribers at random while messages with ordering keys go through, and looks at what came of it.

    python -m pubsub.chaos --messages 100000 --keys 50 --kills 60      (in tests/, with src/ on the path)

What must hold: every message's result is in the sink; each key's results are in order, whichever of the subscribers has made
them and repeats after a kill apart; no message was acknowledged before its result was in the sink. Exit code 1, and what is
wrong, where one does not.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pubsub.emulator import check_loopback
from pubsub.server import Server

TOPIC, SUBSCRIPTION = "projects/chaos/topics/t", "projects/chaos/subscriptions/s"
SECOND = 0.1  # how long a second of a lease lasts here, so that what a killed subscriber had comes again soon
LOT = 40  # messages of a key in one request: keys are mixed
WINDOW = 5 * LOT  # messages: a subscriber has some keys, and leaves the others to others


@dataclass
class Outcome:
    """What happened. `wrong` is empty where all that was promised held."""

    messages: int
    killed: dict[str, int] = field(default_factory=lambda: {"a worker": 0, "a subscriber": 0, "SIGTERM": 0})
    results: int = 0
    turns: int = 0  # results that another subscriber has made than the one before
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    def __str__(self) -> str:
        how = ", ".join(f"{name} {count}×" for name, count in self.killed.items())
        return (
            f"{self.messages:,} messages, {self.kills} kills ({how}), {self.results - self.messages:,} results more than "
            f"messages, {self.turns:,} turns of the subscribers, {self.seconds:.0f} s: "
            + ("all held" if not self.wrong else "\n".join(["WRONG", *self.wrong]))
        )


class Sink:
    """The file of results as the server sees it: what is in it is safe."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self.rows: list[tuple[int, str, int, str]] = []  # process, key, number in the key, message id
        self.ids: set[str] = set()
        self.pids: set[int] = set()

    def look(self) -> None:
        *rows, self._rest = (self._rest + self._file.read()).split(b"\n")
        for row in rows:
            pid, key, n, message = row.decode().split(",")
            self.rows.append((int(pid), key, int(n), message))
            self.ids.add(message)
            self.pids.add(int(pid))


def run(messages: int, keys: int, kills: int, seed: int, subscribers: int = 2) -> Outcome:
    """Send so many messages through so many subscribers, with so many kills on the way."""
    outcome, dice, began = Outcome(messages), random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server(second=SECOND) as server, emulator_at(server.address):
        path = Path(folder, "results")
        path.touch()
        sink = Sink(path)

        def acknowledged(ids: list[str]) -> None:
            sink.look()
            outcome.wrong += [
                f"message {id} was acknowledged before its result was safe" for id in ids if id not in sink.ids
            ]

        server.on_acknowledge = acknowledged
        send(messages, keys)
        moments = sorted(dice.randrange(messages * 4 // 5) for _ in range(kills))
        with Subscribers(path, subscribers, outcome) as team:
            while server.left(SUBSCRIPTION) and not outcome.wrong:
                team.replace_those_that_ended()
                due = moments[0] if moments else messages
                server.until(
                    lambda due=due: team.has_lost_one() or (len(server.acknowledged) >= due and team.at_work(sink)), 5
                )
                if moments and len(server.acknowledged) >= due and (at_work := team.at_work(sink)):
                    moments.pop(0)
                    kill(dice.choice(at_work), dice, outcome)
            team.end()
        sink.look()
    outcome.results, outcome.seconds = len(sink.rows), time.monotonic() - began
    outcome.turns = sum(before[0] != row[0] for before, row in pairwise(sink.rows))
    outcome.wrong += list(out_of_order(sink.rows, messages, keys))
    return outcome


class Subscribers:
    """So many at once. One that is killed has another in its place."""

    def __init__(self, path: Path, count: int, outcome: Outcome) -> None:
        self._path, self._count, self._outcome = path, count, outcome
        self._running: list[subprocess.Popen[bytes]] = []

    def replace_those_that_ended(self) -> None:
        for each in self._running:
            if each.poll() not in (None, 0, -signal.SIGKILL):
                self._outcome.wrong.append(f"a subscriber ended with {each.returncode}")
        self._running = [each for each in self._running if each.poll() is None]
        self._running += [start(self._path) for _ in range(self._count - len(self._running))]

    def has_lost_one(self) -> bool:
        return any(each.poll() is not None for each in self._running)

    def at_work(self, sink: Sink) -> list[subprocess.Popen[bytes]]:
        """Those with results: a kill of another one would only meet the start of a process."""
        return [each for each in self._running if each.pid in sink.pids and each.poll() is None]

    def end(self) -> None:
        for each in self._running:
            each.send_signal(signal.SIGTERM)
        for each in self._running:
            if each.wait(60) not in (0, -signal.SIGKILL, -signal.SIGTERM):  # the last before it had begun
                self._outcome.wrong.append(f"a subscriber ended with {each.returncode}")

    def __enter__(self) -> Subscribers:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@contextmanager
def emulator_at(address: str) -> Iterator[None]:
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    os.environ["PUBSUB_EMULATOR_HOST"] = address
    try:
        check_loopback()
        yield
    finally:
        if before is None:
            del os.environ["PUBSUB_EMULATOR_HOST"]
        else:
            os.environ["PUBSUB_EMULATOR_HOST"] = before


def send(messages: int, keys: int) -> None:
    """Number k of key j is message k * keys + j of all."""
    from google.auth.credentials import AnonymousCredentials
    from google.pubsub_v1 import PublisherClient, SubscriberClient

    publisher = PublisherClient(credentials=AnonymousCredentials())
    publisher.create_topic(request={"name": TOPIC})
    with SubscriberClient(credentials=AnonymousCredentials()) as subscriber:
        subscriber.create_subscription(
            {"name": SUBSCRIPTION, "topic": TOPIC, "enable_message_ordering": True}, retry=None
        )
    for first in range(0, messages, keys * LOT):
        for key in range(keys):
            numbers = range(first + key, min(messages, first + keys * LOT), keys)
            lot = [{"data": str(n // keys).encode(), "ordering_key": f"key {key}"} for n in numbers]
            if lot:
                publisher.publish(request={"topic": TOPIC, "messages": lot})
    publisher.transport.close()


def start(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pubsub.chaos", "--subscriber", path], env=environment())


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def kill(subscriber: subprocess.Popen[bytes], dice: random.Random, outcome: Outcome) -> None:
    """Kill one of its workers, or itself, or ask it to end."""
    what = dice.choice(list(outcome.killed))
    if what == "a worker":
        workers = children(subscriber.pid)
        if workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
    elif what == "a subscriber":
        subscriber.kill()
        subscriber.wait()
    else:
        subscriber.send_signal(signal.SIGTERM)
        subscriber.wait(60)
    outcome.killed[what] += 1


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def out_of_order(rows: list[tuple[int, str, int, str]], messages: int, keys: int) -> Iterator[str]:
    """What is wrong with the results: one is missing, one came before its time, or a process went back."""
    furthest: dict[str, int] = {}
    last: dict[tuple[int, str], int] = {}
    for pid, key, n, _ in rows:
        if n > furthest.get(key, -1) + 1:
            yield f"{key}: number {n} came right after {furthest.get(key)}"
        if n <= last.get((pid, key), -1):
            yield f"{key}: number {n} came after {last[pid, key]} in one process"
        furthest[key] = max(n, furthest.get(key, -1))
        last[pid, key] = n
    for number in range(keys):
        expected = len(range(number, messages, keys)) - 1
        if furthest.get(f"key {number}", -1) != expected:
            yield f"key {number}: ended at {furthest.get(f'key {number}')}, not at {expected}"


def subscribe_until_told(path: str) -> None:
    """The subscriber: runs until SIGTERM. Results are in the file when the write has returned."""
    from taktline import line
    from taktline.pubsub import intake, subscribe

    check_loopback()
    intake.EXTEND *= SECOND
    out = os.open(path, os.O_WRONLY | os.O_APPEND)
    pid = os.getpid()

    def step(message):  # type: ignore[no-untyped-def]
        time.sleep(0.0005)  # so that a kill meets some messages under way
        return f"{message.ordering_key},{int(message.data)},{message.id}"

    line(step).run(
        subscribe(SUBSCRIPTION, lease=10), lambda row: os.write(out, f"{pid},{row}\n".encode()), how="line", workers=2,
        window=WINDOW,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subscribers", type=int, default=2, help="at once")
    parser.add_argument("--subscriber", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.subscriber:
        subscribe_until_told(given.subscriber)
        return
    outcome = run(given.messages, given.keys, given.kills, given.seed, given.subscribers)
    print(outcome)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
