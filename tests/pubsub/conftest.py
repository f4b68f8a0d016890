"""Servers for the tests: Google's pstest where it can be built, and our own, which knows more of the protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.pubsub_v1")

from google.auth.credentials import AnonymousCredentials
from google.pubsub_v1 import PublisherClient, SubscriberClient
from pubsub import emulator
from pubsub.server import Server

PROJECT = "projects/test"


class Bus:
    """Topics and subscriptions on the server that the tests use."""

    def __init__(self, server: Server | None) -> None:
        emulator.check_loopback()
        self._server = server
        self._publisher = PublisherClient(credentials=AnonymousCredentials())
        self._subscriber = SubscriberClient(credentials=AnonymousCredentials())
        self._count = 0

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    def make(self, **options: Any) -> tuple[str, str]:
        """A new topic, and a subscription to it."""
        self._count += 1
        topic, subscription = f"{PROJECT}/topics/t{self._count}", f"{PROJECT}/subscriptions/s{self._count}"
        self._publisher.create_topic(request={"name": topic})
        self._subscriber.create_subscription(
            {"name": subscription, "topic": topic, "ack_deadline_seconds": 10, **options}, retry=None
        )
        return topic, subscription

    def send(self, topic: str, data: Iterable[Any], key: str = "") -> None:
        """Publish these, as text."""
        messages = [{"data": str(one).encode(), "ordering_key": key, "attributes": {"kind": "test"}} for one in data]
        for at in range(0, len(messages), 1000):
            self._publisher.publish(request={"topic": topic, "messages": messages[at : at + 1000]})

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.transport.close()


@pytest.fixture(scope="session")
def pstest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not emulator.can_build_pstest():
        pytest.skip("pstest needs Debian's golang-go and golang-google-cloud-dev")
    return emulator.build_pstest(tmp_path_factory.mktemp("pstest"))


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """On our own server."""
    with Server() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        found = Bus(server)
        yield found
        found.close()


@pytest.fixture(params=["own", "pstest"])
def any_bus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """On each server."""
    if request.param == "own":
        yield request.getfixturevalue("bus")
        return
    with emulator.running(request.getfixturevalue("pstest")) as address:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        found = Bus(None)
        yield found
        found.close()


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """The threads that keep leases end with the run."""
    yield
    end = time.monotonic() + 10
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("taktline-pubsub")]:
        assert time.monotonic() < end, left
        time.sleep(0.01)
