"""Topics and subscriptions for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.pubsub_v1 import PublisherClient, SubscriberClient
from pubsub.emulator import check_loopback
from pubsub.server import Server

PROJECT = "projects/test"


class Bus:
    """Topics and subscriptions on the server that the tests use."""

    def __init__(self, server: Server | None) -> None:
        check_loopback()
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
        return self.make_as(f"{PROJECT}/topics/t{self._count}", f"{PROJECT}/subscriptions/s{self._count}", **options)

    def make_as(self, topic: str, subscription: str, **options: Any) -> tuple[str, str]:
        """A topic, and a subscription to it, of these names."""
        request = {"name": subscription, "topic": topic, "ack_deadline_seconds": 10, **options}
        self._publisher.create_topic(request={"name": topic})
        self._subscriber.create_subscription(request, retry=None)
        return topic, subscription

    def send(self, topic: str, data: Iterable[Any], key: str = "") -> None:
        """Publish these, as text."""
        messages = [{"data": str(one).encode(), "ordering_key": key, "attributes": {"kind": "test"}} for one in data]
        for at in range(0, len(messages), 1000):
            self._publisher.publish(request={"topic": topic, "messages": messages[at : at + 1000]})

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.transport.close()
