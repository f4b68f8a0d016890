"""A topic as a sink."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from time import monotonic, sleep
from typing import Any

from taktline.abc import Resumable
from taktline.errors import SinkError
from taktline.pubsub.client import (
    CALL_SECONDS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    check_name,
    check_there,
    connect,
    explained,
    passes,
)
from taktline.pubsub.message import Message
from taktline.queues.published import Published, bytes_of

# Of one publish request; the limits are 1000 messages and 10 MB, with what surrounds them.
REQUEST_MESSAGES, REQUEST_BYTES = 1000, 9_000_000
PARALLEL = 32  # publish requests under way


def publish(topic: str, *, patience: float = 60.0, endpoint: str | None = None, credentials: Any = None) -> Resumable:
    """A topic ("projects/PROJECT/topics/NAME") as a sink; each result a Message, bytes, or str.

    Returns from a write when the server has confirmed all of it, so a source's messages are acknowledged after that.
    Messages of one ordering key are published in order: after a failure that passes, the key goes on where it stopped;
    `patience`: seconds until a failure counts as one that does not. What was published stays, also when the run fails; a
    run that goes on from a journal publishes again what was published after the journal's last mark. `credentials`: of
    google.auth; those of the environment where it is None.

    Raises LineError for a wrong name; the run raises SinkError where the topic cannot be written to.

    >>> publish("projects/p/topics/scored").describe()
    'projects/p/topics/scored'
    """
    check_name(topic, "topic")
    return Topic(topic, patience, endpoint, credentials)


class Topic(Published):
    """A topic. Nothing is left to commit when a write has returned."""

    def __init__(self, name: str, patience: float, endpoint: str | None, credentials: Any = None) -> None:
        self._name = name
        self._patience = patience
        self._endpoint = endpoint
        self._credentials = credentials
        self._client: Any = None

    def describe(self) -> str:
        return self._name

    def open(self) -> None:
        self._client = connect("PublisherClient", self._endpoint, SinkError, self._credentials)
        try:
            check_there(self._client.get_topic, "topic", self._name, SinkError)
        except BaseException:
            self.suspend()
            raise

    def write(self, results: Sequence[Any]) -> None:
        queues = _by_key(results)
        until, pause = None, FIRST_PAUSE
        while queues:
            passing = self._round(queues)
            if passing is None:
                until, pause = None, FIRST_PAUSE
                continue
            until = until or monotonic() + self._patience
            if monotonic() > until:
                raise explained(passing, "topic", self._name, SinkError) from passing
            sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _round(self, queues: dict[str, deque[list[Any]]]) -> Exception | None:
        """One request of each key, at once; those that are confirmed leave the queues. A failure that may pass."""
        import grpc
        from google.api_core.exceptions import from_grpc_error

        passing: Exception | None = None
        for key, call in [(key, self._start(lots[0])) for key, lots in islice(queues.items(), PARALLEL)]:
            try:
                call.result()
            except grpc.RpcError as error:
                # The lot stays at the head of its key: nothing overtakes it.
                passing = from_grpc_error(error)
                if not passes(passing):
                    raise explained(passing, "topic", self._name, SinkError) from error
                continue
            queues[key].popleft()
            if not queues[key]:
                del queues[key]
        return passing

    def _start(self, messages: list[Any]) -> Any:
        from google.pubsub_v1.types import PublishRequest

        route = (("x-goog-request-params", f"topic={self._name}"),)
        request = PublishRequest(topic=self._name, messages=messages)
        return self._client.transport.publish.future(request, timeout=CALL_SECONDS, metadata=route)

    def suspend(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.transport.close()


def _by_key(results: Sequence[Any]) -> dict[str, deque[list[Any]]]:
    """Lots of messages, none too large for a request, queued up by ordering key: a request may have one key only."""
    from google.pubsub_v1.types import PubsubMessage

    queues: dict[str, deque[list[Any]]] = {}
    sizes: dict[str, int] = {}  # bytes in the last lot of each key
    for at, result in enumerate(results):
        message = result if isinstance(result, Message) else Message(bytes_of(result, "Message", at))
        key, attributes = message.ordering_key, dict(message.attributes)
        size = len(message.data) + sum(len(name) + len(value) for name, value in attributes.items()) + 100
        lots = queues.setdefault(key, deque([[]]))
        if lots[-1] and (len(lots[-1]) == REQUEST_MESSAGES or sizes[key] + size > REQUEST_BYTES):
            lots.append([])
            sizes[key] = 0
        lots[-1].append(PubsubMessage(data=message.data, attributes=attributes, ordering_key=key))
        sizes[key] = sizes.get(key, 0) + size
    return queues


publish.__module__ = "taktline.pubsub"
