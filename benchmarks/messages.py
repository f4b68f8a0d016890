"""Pub/Sub: messages a second of a line, beside what people write with the client library's callback.

    python -m benchmarks.messages [--messages 20000] [--keys 50] [--rounds 3]

All rows read the same messages from one server in memory (tests/pubsub/server.py, a process of its own), which takes a core
for itself part of the time: the ratio in one run is what counts. Rows take turns. The work is a step of some 0.1 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from pubsub.emulator import check_loopback, running  # noqa: E402

TOPIC = "projects/bench/topics/t"


def work(data: bytes) -> str:
    """Parse, and spend some 0.1 ms of this process."""
    order = json.loads(data)
    digest = data
    for _ in range(150):
        digest = hashlib.sha256(digest).digest()
    return f"{order['key']},{order['n']},{digest.hex()}"


def a_line(name: str, count: int, workers: int) -> list[str]:
    from taktline import line
    from taktline.pubsub import subscribe

    results: list[str] = []
    line(lambda message: work(message.data)).run(
        subscribe(name, limit=count), results.append, how="line", workers=workers
    )
    return results


def threads_in_callback(name: str, count: int, workers: int) -> list[str]:
    return callback(name, count, lambda data, done: done(work(data)))


def pool_in_callback(name: str, count: int, workers: int) -> list[str]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:  # not forked beside a connection
        return callback(
            name, count, lambda data, done: pool.submit(work, data).add_done_callback(lambda f: done(f.result()))
        )


def callback(name: str, count: int, handle: Callable[[bytes, Callable[[str], None]], object]) -> list[str]:
    """As in the client library's guide; `handle` gives the result to `done`, which acknowledges."""
    from google.cloud.pubsub_v1 import SubscriberClient

    results: list[str] = []
    complete = threading.Event()

    def received(message: Any) -> None:
        def done(result: str) -> None:
            results.append(result)
            message.ack()
            if len(results) >= count:
                complete.set()

        handle(message.data, done)

    with SubscriberClient() as client:
        stream = client.subscribe(name, received)
        complete.wait()
        stream.cancel()
        stream.result()
    return results


ROWS: dict[str, Callable[[str, int, int], list[str]]] = {
    "line": a_line,
    "subscribe(callback), threads": threads_in_callback,
    "subscribe(callback), process pool": pool_in_callback,
}


def prepare(messages: int, keys: int, subscriptions: list[str]) -> None:
    """Topic, subscriptions, and the messages, mixed by key."""
    from google.auth.credentials import AnonymousCredentials
    from google.pubsub_v1 import PublisherClient, SubscriberClient

    publisher = PublisherClient(credentials=AnonymousCredentials())
    publisher.create_topic(request={"name": TOPIC})
    with SubscriberClient(credentials=AnonymousCredentials()) as client:
        for name in subscriptions:
            client.create_subscription({"name": name, "topic": TOPIC, "enable_message_ordering": keys > 0}, retry=None)
    lot = 40
    for first in range(0, messages, max(1, keys) * lot):
        for key in range(max(1, keys)):
            numbers = range(first + key, min(messages, first + max(1, keys) * lot), max(1, keys))
            sent = [
                {"data": json.dumps({"key": key, "n": n}).encode(), "ordering_key": f"k{key}" if keys else ""}
                for n in numbers
            ]
            if sent:
                publisher.publish(request={"topic": TOPIC, "messages": sent})
    publisher.transport.close()


def in_order(results: list[str]) -> bool:
    """Whether the results of each key are in order."""
    last: dict[str, int] = {}
    for result in results:
        key, n, _ = result.split(",")
        if int(n) < last.get(key, -1):
            return False
        last[key] = int(n)
    return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=50, help="ordering keys; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    names = {
        (row, n): f"projects/bench/subscriptions/{at}-{n}" for n in range(given.rounds) for at, row in enumerate(ROWS)
    }
    seconds: dict[str, list[float]] = {row: [] for row in ROWS}
    order = dict.fromkeys(ROWS, True)
    with running(sys.executable, "-m", "pubsub.server") as address:
        os.environ["PUBSUB_EMULATOR_HOST"] = address
        check_loopback()
        prepare(given.messages, given.keys, list(names.values()))
        for (row, _), name in names.items():
            began = time.perf_counter()
            results = ROWS[row](name, given.messages, given.workers)
            seconds[row].append(time.perf_counter() - began)
            assert len(set(results)) == given.messages, f"{row} lost messages"
            order[row] = order[row] and in_order(results)
    base = statistics.median(seconds["subscribe(callback), threads"])
    print(
        f" {given.messages:,} messages · {given.keys} keys · {given.workers} workers · {given.rounds} rounds, in turn"
    )
    print(f" {'':36}{'messages/s':>12}{'ratio':>8}   order of each key")
    for row, spent in seconds.items():
        middle = statistics.median(spent)
        kept = "kept" if order[row] else "lost"
        print(f" {row:36}{given.messages / middle:12,.0f}{base / middle:7.1f} ×   {kept}")


if __name__ == "__main__":
    main()
