"""A topic as a sink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline.abc import Resumable
from taktline.errors import LineError, SinkError
from taktline.kafka.broker import Config, TopicUrl, config_of, connect, explained
from taktline.kafka.message import KafkaMessage
from taktline.queues.published import Published, bytes_of

POLL = 0.1  # seconds of waiting after which Python may look at signals


def publish(url: str, *, patience: float = 60.0, config: Config = None) -> Resumable:
    """A topic ("kafka://HOST:PORT/TOPIC") as a sink; each result a KafkaMessage, bytes, or str.

    Returns from a write when all replicas in sync have confirmed all of it. Messages of one key go to one partition, the one
    that Kafka's own clients choose, in order and each once, also where a request had to be made again. What was published
    stays, also when the run fails; a run that goes on from a journal publishes again what was published after the journal's
    last mark.

    patience: seconds until a broker that cannot be reached counts as gone. config: more settings of librdkafka, as a mapping
    or a file with a `name=value` a line, such as those for SASL and TLS.

    Raises LineError for wrong settings; the run raises SinkError where the topic cannot be written to.

    >>> publish("kafka://localhost:9092/priced").describe()
    'kafka://localhost:9092/priced'
    """
    place = TopicUrl.parsed(url)
    if patience < 0:
        raise LineError(f"patience={patience!r}: give at least 0")
    return KafkaSink(place, patience, config_of(config))


class KafkaSink(Published):
    """A topic. Nothing is left to commit when a write has returned."""

    def __init__(self, url: TopicUrl, patience: float, config: dict[str, Any]) -> None:
        self._url, self._patience, self._config = url, patience, config
        self._producer: Any = None
        self._failed: tuple[int, Any] | None = None  # result and error of the first one that was not confirmed

    def describe(self) -> str:
        return str(self._url)

    def open(self) -> None:
        settings = {
            "enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random", "linger.ms": 5,
            "message.timeout.ms": max(1, int(1000 * self._patience)), "compression.type": "lz4",
        }  # fmt: skip
        self._producer = connect("Producer", self._url, settings | self._config, SinkError)

    def write(self, results: Sequence[Any]) -> None:
        from confluent_kafka import KafkaException

        producer, self._failed = self._producer, None
        for at, result in enumerate(results):
            message = result if isinstance(result, KafkaMessage) else KafkaMessage(bytes_of(result, "KafkaMessage", at))

            def confirmed(error: Any, _: Any, at: int = at) -> None:
                if error is not None and self._failed is None:
                    self._failed = at, error

            while True:
                try:
                    producer.produce(
                        self._url.topic, message.value, message.key, headers=list(message.headers.items()),
                        on_delivery=confirmed,
                    )  # fmt: skip
                    break
                except BufferError:  # its queue is full
                    producer.poll(POLL)
                except KafkaException as error:
                    raise explained(error.args[0], self._url, SinkError) from error
        while len(producer):
            producer.poll(POLL)
        if self._failed is not None:
            raise explained(self._failed[1], self._url, SinkError)

    def suspend(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()  # what an error or Ctrl-C has left
            producer.flush(0)


publish.__module__ = "taktline.kafka"
