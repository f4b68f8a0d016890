"""Servers of queues, and programs around their consumers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import servers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program in a folder of its own; ended with the test."""
    running = []

    def started(code: str, *arguments: object) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests")])}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    pytest.importorskip("redis")
    with servers.redis_server() as server:
        yield server


@pytest.fixture
def redis_client(redis_server: Any) -> Iterator[Any]:
    """Of a server that has nothing."""
    import redis

    with redis.Redis.from_url(redis_server.url, decode_responses=True, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """The thread that gives signs of life ends with the run."""
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("taktline-redis")]


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Any]:
    pytest.importorskip("confluent_kafka")
    with servers.kafka_broker() as broker:
        yield broker


class Topic:
    """A topic of two partitions."""

    def __init__(self, broker: Any, name: str) -> None:
        self._broker, self.name = broker, name
        self.url = f"kafka://{broker.address}/{name}"
        broker.create(name, 2)

    def committed(self, group: str | None = None) -> int:
        """Messages that the group has committed; the one of the topic's name where none is named."""
        committed: int = self._broker.committed(self.name, group or self.name, 2)
        return committed


@pytest.fixture
def kafka_topics(kafka_broker: Any) -> Callable[[], Topic]:
    """Makes new ones."""
    return lambda: Topic(kafka_broker, f"t{uuid4().hex[:12]}")


@pytest.fixture
def topic(kafka_topics: Callable[[], Topic]) -> Topic:
    return kafka_topics()
