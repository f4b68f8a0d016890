"""Messages of a queue through consumers that are killed at random, while it is looked at what becomes of them.

python3 dev.py queues --broker redis|kafka [--messages 100000] [--kills 40] [--keys 50] [--seed N]

Half of the kills are in each of two ways:

group     two consumers of one group, results into a file one by one. At least once: every result is there, and the first
          of each message comes in the order of its key; those that were under way at a kill are there again.
journal   a consumer for each shard or partition, with a journal and a table. Exactly once: the table has each message
          once, in the order of its key.

Killed are consumers, workers of theirs, and some are asked to end by SIGTERM; each is started again. Exit code 1, and what
is wrong, where something of this does not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.brokers import KafkaBroker, RedisServer
from faults.chaos import alive, children
from faults.starting import patient_starts
from taktline import line, write_sql
from taktline.abc import Live

SHARDS = 2  # and as many consumers
GROUP = "chaos"
STEP = 0.0003  # seconds a message takes, so that a kill meets some under way
LIMIT = 120.0  # seconds in which nothing moves, after which it hangs
LOOK = 0.05  # seconds between two looks at the results
ENDINGS = (0, -signal.SIGKILL, -signal.SIGTERM)  # the last where it was asked to end before it had begun
WAYS = ("group", "journal")


@dataclass
class Toll:
    """What was done in one way, and what came of it. `wrong` is empty where all held."""

    broker: str
    way: str
    messages: int
    killed: Counter[str] = field(default_factory=Counter)
    results: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        how = ", ".join(f"{name} {count}×" for name, count in sorted(self.killed.items()))
        promise = "exactly once" if self.way == "journal" else "at least once"
        again = self.results - self.messages
        held = "\n".join(["WRONG", *self.wrong[:20]]) if self.wrong else "nothing lost, keys in order"
        return (
            f"{self.broker}, {self.way} ({promise}): {self.messages:,} messages, {self.killed.total()} kills ({how}), "
            f"{again:,} results again, {self.seconds:.0f} s: {held}"
        )


# --- the two brokers ---


class RedisQueue:
    """Shards of a stream."""

    name = "redis"

    def __init__(self) -> None:
        import redis

        self._server = RedisServer(keeps=False)
        self._server.start()
        self.url = f"{self._server.url}/orders"
        self._client = redis.Redis.from_url(self._server.url, protocol=2)

    def send(self, messages: int, keys: int) -> None:
        """Number n of key k is message n * keys + k of all."""
        from taktline.redis import publish

        rows = ({"key": str(n % keys), "n": str(n // keys)} for n in range(messages))
        line(_itself).run(rows, publish(self.url, shards=SHARDS, key="key"), how="loop")

    def left(self) -> int:
        """Messages that are not acknowledged."""
        left = 0
        for shard in range(SHARDS):
            name = f"orders:{shard}"
            for group in self._client.xinfo_groups(name) or [{"pending": 0, "lag": self._client.xlen(name)}]:
                left += group["pending"] + (group["lag"] or 0)
        return left

    def close(self) -> None:
        self._client.close()
        self._server.__exit__()

    @staticmethod
    def source(url: str, shard: int | None) -> Live:
        """What one consumer reads: a shard that is free, or this one."""
        from taktline.redis import subscribe

        if shard is None:
            return subscribe(url, group=GROUP, shards=SHARDS, lease=1)
        return subscribe(f"{url}:{shard}", group=GROUP, sole=True, lease=1)

    @staticmethod
    def parsed(message: Any) -> tuple[int, int]:
        return int(message.fields["key"]), int(message.fields["n"])


class KafkaQueue:
    """Partitions of a topic."""

    name = "kafka"

    def __init__(self) -> None:
        self._broker = KafkaBroker()
        self._broker.start()
        self._broker.create("orders", SHARDS)
        self.url = f"kafka://{self._broker.address}/orders"
        self._sent = 0

    def send(self, messages: int, keys: int) -> None:
        """As above."""
        from taktline.kafka import KafkaMessage, publish

        rows = (KafkaMessage(str(n // keys).encode(), str(n % keys).encode()) for n in range(messages))
        line(_itself).run(rows, publish(self.url), how="loop")
        self._sent = messages

    def left(self) -> int:
        """Messages that are not committed."""
        return self._sent - self._broker.committed("orders", GROUP, SHARDS)

    def close(self) -> None:
        self._broker.__exit__()

    @staticmethod
    def source(url: str, shard: int | None) -> Live:
        """What one consumer reads: what the group gives it, or this partition."""
        from taktline.kafka import subscribe

        return subscribe(url, group=GROUP, lease=2, partitions=None if shard is None else [shard])

    @staticmethod
    def parsed(message: Any) -> tuple[int, int]:
        return int(message.key), int(message.value)


QUEUES: dict[str, type[RedisQueue] | type[KafkaQueue]] = {"redis": RedisQueue, "kafka": KafkaQueue}


def _itself(record: Any) -> Any:
    return record


# --- a consumer, which is killed ---


def consume(broker: str, url: str, way: str, shard: int, folder: str) -> None:
    """Until SIGTERM."""
    queue = QUEUES[broker]
    os.chdir(folder)

    def step(message: Any) -> dict[str, int]:
        time.sleep(STEP)
        key, n = queue.parsed(message)
        return {"key": key, "n": n}

    if way == "journal":
        sink = write_sql(f"sqlite:///{folder}/{shard}.db", "results")
        line(step).run(queue.source(url, shard), sink, how="line", workers=1, journal=f"{shard}.journal")
        return
    out, pid = os.open("results", os.O_WRONLY | os.O_APPEND | os.O_CREAT), os.getpid()

    def written(row: dict[str, int]) -> None:
        os.write(out, f"{pid},{row['key']},{row['n']}\n".encode())

    line(step).run(queue.source(url, None), written, how="line", workers=1)


# --- the killing ---


class Consumers:
    """Two of them at work, each started again when it has ended."""

    def __init__(self, queue: Any, way: str, folder: Path, toll: Toll) -> None:
        self._arguments = ["--broker", queue.name, "--consume", queue.url, way, str(folder)]
        self._folder, self._toll = folder, toll
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Those that are not at work. Raises nothing: one that ended by itself is told in the toll."""
        for shard in range(SHARDS):
            process = self._running.get(shard)
            if process is not None and process.poll() is None:
                continue
            if process is not None and process.returncode not in ENDINGS:
                self._toll.wrong.append(f"a consumer ended with {process.returncode}: {self._said(shard)}")
            with open(self._folder / f"err{shard}", "ab") as errors:
                command = [sys.executable, "-m", "faults.queues", *self._arguments, "--shard", str(shard)]
                self._running[shard] = subprocess.Popen(command, stderr=errors)

    def _said(self, shard: int) -> str:
        return (self._folder / f"err{shard}").read_text()[-1_500:]

    def kill(self, chance: random.Random) -> bool:
        """One of them, a worker of one, or ask one to end; whether there was one."""
        process = self._running[chance.randrange(SHARDS)]
        what = chance.choice(["a consumer", "a consumer", "a worker", "SIGTERM"])
        if what == "a worker":
            if not (workers := [pid for pid in children(process.pid) if alive(pid)]):
                return False
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
        elif what == "SIGTERM":
            process.terminate()
            process.wait(LIMIT)
        else:
            process.kill()
            process.wait()
        self._toll.killed[what] += 1
        return True

    def end(self) -> None:
        """Ask all to end; what is under way is finished."""
        for process in self._running.values():
            process.terminate()
        for shard, process in self._running.items():
            try:
                if process.wait(LIMIT) not in ENDINGS:
                    self._toll.wrong.append(f"a consumer ended with {process.returncode}: {self._said(shard)}")
            except subprocess.TimeoutExpired:
                self._toll.wrong.append("a consumer did not end at SIGTERM")
                process.kill()
                process.wait()

    def kill_all(self) -> None:
        """On the way out."""
        for process in self._running.values():
            process.kill()
            process.wait()


def results(way: str, folder: Path) -> list[tuple[int, int]]:
    """Key and number of each result, in the order in which they were written."""
    if way == "group":
        path = folder / "results"
        rows = path.read_text().splitlines() if path.exists() else []
        return [(int(key), int(n)) for _, key, n in (row.split(",") for row in rows)]
    found = []
    for path in sorted(folder.glob("*.db")):
        with sqlite3.connect(path) as table:
            found += table.execute("SELECT key, n FROM results ORDER BY rowid").fetchall()
    return found


def count(way: str, folder: Path) -> int:
    """How many results there are."""
    if way == "group":
        path = folder / "results"
        return path.read_bytes().count(b"\n") if path.exists() else 0
    found = 0
    for path in folder.glob("*.db"):
        with suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{path}?mode=ro", uri=True) as table:
            found += table.execute("SELECT count(*) FROM results").fetchone()[0]
    return found


def wrong_with(rows: Sequence[tuple[int, int]], messages: int, keys: int, *, once: bool) -> Iterator[str]:
    """What does not hold: one is missing, came before its time, or, where it must not, again."""
    furthest: dict[int, int] = {}
    for key, n in rows:
        before = furthest.get(key, -1)
        if n > before + 1:
            yield f"key {key}: number {n} came right after {before}"
        if once and n <= before:
            yield f"key {key}: number {n} came after {before}"
        furthest[key] = max(n, before)
    for key in range(keys):
        expected = len(range(key, messages, keys)) - 1
        if furthest.get(key, -1) != expected:
            yield f"key {key}: ended at {furthest.get(key, -1)}, not at {expected}"


@patient_starts()
def run(
    broker: str, way: str, messages: int, kills: int, keys: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Toll:
    """So many messages with so many kills, in one way."""
    toll, chance, began = Toll(broker, way, messages), random.Random(seed), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="queues-")))
        queue = QUEUES[broker]()
        stack.callback(queue.close)
        queue.send(messages, keys)
        consumers = Consumers(queue, way, folder, toll)
        stack.callback(consumers.kill_all)
        moments = sorted(chance.randrange(messages * 9 // 10) for _ in range(kills))
        there, moved = 0, time.monotonic()
        while not toll.wrong:
            consumers.start()
            now, news = time.monotonic(), count(way, folder)
            if news > there:
                there, moved = news, now
            elif now > moved + LIMIT:
                toll.wrong.append(f"nothing moves any more; {queue.left():,} messages are left")
            if moments and there > moments[0] and consumers.kill(chance):
                moments.pop(0)
                tell(f"{there:,} results, {toll.killed.total()} kills")
            elif not moments and there >= messages and queue.left() == 0:
                break
            time.sleep(LOOK)
        consumers.end()
        rows = results(way, folder)
    toll.results, toll.seconds = len(rows), time.monotonic() - began
    toll.wrong += wrong_with(rows, messages, keys, once=way == "journal")
    return toll


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py queues", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--broker", choices=sorted(QUEUES), required=True)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--keys", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--consume", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.consume:
        url, way, folder = given.consume
        consume(given.broker, url, way, given.shard, folder)
        return
    print(f"seed {given.seed}", file=sys.stderr, flush=True)

    def tell(text: str) -> None:
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

    wrong = False
    for at, way in enumerate(WAYS):
        kills = given.kills // 2 + (given.kills % 2 if at == 0 else 0)
        toll = run(given.broker, way, given.messages, kills, given.keys, given.seed + at, tell)
        print(f"\r{toll}", flush=True)
        wrong = wrong or bool(toll.wrong)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
