"""One message of a topic, as steps see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """One message. Those that are received have all fields; to publish one, value, key and headers count.

    `timestamp` is in seconds since 1970 (UTC); 0 where the broker tells none.

    >>> KafkaMessage(b'{"n": 1}', key=b"customer 7").json()
    {'n': 1}
    """

    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    topic: str = ""
    partition: int = -1
    offset: int = -1
    timestamp: float = 0.0

    def json(self) -> Any:
        """The value, decoded from JSON. Raises ValueError that names the message.

        >>> KafkaMessage(b"x", topic="orders", partition=0, offset=17).json()
        Traceback (most recent call last):
        ...
        ValueError: message orders/0/17 is not JSON: Expecting value: line 1 column 1 (char 0)
        """
        try:
            return json.loads(self.value)
        except ValueError as error:
            raise ValueError(f"message {self.topic}/{self.partition}/{self.offset} is not JSON: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # A frozen dataclass with slots is pickled field by field through two Python functions; this is 3 times as fast.
        return KafkaMessage, (
            self.value, self.key, self.headers, self.topic, self.partition, self.offset, self.timestamp,
        )  # fmt: skip


def received(one: Any) -> KafkaMessage:
    """The message that the client library has read."""
    kind, milliseconds = one.timestamp()
    headers = {name: value or b"" for name, value in one.headers() or ()}
    return KafkaMessage(
        one.value() or b"", one.key(), headers, one.topic(), one.partition(), one.offset(),
        milliseconds / 1000 if kind else 0.0,
    )  # fmt: skip


KafkaMessage.__module__ = "taktline.kafka"
