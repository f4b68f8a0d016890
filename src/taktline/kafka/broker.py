"""A Kafka broker: how its URL is read, how it is reached, and what it means that it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taktline.errors import LineError, SinkError, SourceError

CALL_SECONDS = 10.0  # seconds a request may take

Trouble = type[SourceError] | type[SinkError]
Config = Mapping[str, Any] | str | None


@dataclass(frozen=True, slots=True)
class TopicUrl:
    """What a URL names: a topic, and brokers to ask first.

    >>> url = TopicUrl.parsed("kafka://one:9092,two:9092/orders?group=g")
    >>> url.brokers, url.topic, str(url)
    ('one:9092,two:9092', 'orders', 'kafka://one:9092,two:9092/orders')
    """

    brokers: str
    topic: str

    @classmethod
    def parsed(cls, url: str) -> TopicUrl:
        """Raises LineError."""
        found = re.fullmatch(r"kafka://([^/?#@]+)/([\w.-]+)(?:\?[^#]*)?", url) if isinstance(url, str) else None
        if found is None:
            raise LineError(
                'a topic is named so: "kafka://HOST:PORT/TOPIC", as in kafka://localhost:9092/orders; '
                "passwords go into config="
            )
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"kafka://{self.brokers}/{self.topic}"


def config_of(given: Config) -> dict[str, Any]:
    """Settings of librdkafka, from a mapping or a file with a `name=value` a line. Raises LineError."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise LineError(f"config={given!r} cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals:
                raise LineError(f"{given}:{number} is no setting: write name=value, as in sasl.username=me")
            found[name.strip()] = value.strip()
    return found


def connect(kind: str, url: TopicUrl, config: dict[str, Any], trouble: Trouble) -> Any:
    """A "Consumer" or "Producer", once the broker has said that there is this topic; close it, or flush it."""
    try:
        import confluent_kafka
    except ImportError as error:
        raise LineError(f"Kafka needs confluent-kafka: pip install 'taktline[kafka]' ({error})") from error
    settings = {
        "bootstrap.servers": url.brokers, "client.id": "taktline", "socket.timeout.ms": int(1000 * CALL_SECONDS),
        "allow.auto.create.topics": False,
        "log_level": 0,  # what matters comes as errors; the library would print the rest into the user's terminal
        **config,
    }  # fmt: skip
    try:
        client = getattr(confluent_kafka, kind)(settings)
    except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
        raise LineError(f"the settings for {url} are refused: {told(error)}") from error
    try:
        found = client.list_topics(url.topic, timeout=CALL_SECONDS).topics[url.topic].error
    except confluent_kafka.KafkaException as error:
        raise explained(error.args[0], url, trouble) from error
    if found is not None:
        raise explained(found, url, trouble)
    return client


def told(error: BaseException) -> str:
    """What an exception of the library says."""
    inner = error.args[0] if error.args else error
    return inner.str() if hasattr(inner, "str") else str(error)


def passes(error: Any) -> bool:
    """Whether a failed request may succeed later."""
    from confluent_kafka import KafkaError

    return error.retriable() or error.code() in {
        KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._WAIT_COORD,
        KafkaError._RESOLVE, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._DESTROY_BROKER,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
    }  # fmt: skip


def moved(error: Any) -> bool:
    """Whether it says that partitions go to others just now: a rebalance tells of it."""
    from confluent_kafka import KafkaError

    return error.code() in {
        KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID, KafkaError._ASSIGNMENT_LOST, KafkaError._STATE, KafkaError._NO_OFFSET,
    }  # fmt: skip


def explained(error: Any, url: TopicUrl, trouble: Trouble) -> Exception:
    """What it means that a request failed."""
    from confluent_kafka import KafkaError

    code, name = error.code(), error.name()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return trouble(f"there is no topic {url.topic!r} at {url.brokers}; create it, or mend the name")
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return trouble(f"the broker of {url} refuses the user or password that config= gives: {error.str()}")
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
        return trouble(f"no permission for {url}: {error.str()}. Grant it to this user, or give another one by config=")
    if code == KafkaError.UNKNOWN_MEMBER_ID:
        return trouble(
            f"the group that reads {url} has members, so the broker refuses commits for fixed partitions; give partitions= a "
            "group of their own"
        )
    if passes(error):
        return trouble(
            f"{url} cannot be reached; is the broker running, and the address right? ({name}: {error.str()})"
        )
    return trouble(f"Kafka refused a request for {url}: {name}: {error.str()}")
