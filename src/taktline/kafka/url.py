"""Topics as URLs, for `taktline.read`, `taktline.write` and the command; the scheme "kafka" leads here."""

from __future__ import annotations

from taktline.abc import Live, Resumable
from taktline.errors import LineError
from taktline.kafka.sink import publish
from taktline.kafka.topic import subscribe
from taktline.queues.options import options_of

_OF_READ = {
    "group": str, "partitions": str, "start": str, "idle": float, "limit": int, "seconds": float, "drain": float,
    "lease": float, "deliveries": int, "wait": float, "config": str,
}  # fmt: skip
_OF_WRITE = {"patience": float, "config": str}


def read(url: str) -> Live:
    """The messages of a topic; options of `subscribe` stand behind a "?".

    >>> read("kafka://localhost:9092/orders?group=pricing&partitions=0,1").describe()
    'kafka://localhost:9092/orders'
    """
    options = options_of(url, _OF_READ)
    if "group" not in options:
        raise LineError('whose messages? Name a consumer group in the URL: "kafka://HOST:9092/TOPIC?group=NAME"')
    if "partitions" in options:
        try:
            options["partitions"] = [int(each) for each in options["partitions"].split(",")]
        except ValueError:
            raise LineError(f"partitions={options['partitions']!r}: give numbers, as in partitions=0,1") from None
    return subscribe(url, **options)


def write(url: str) -> Resumable:
    """A topic to publish to; options of `publish` stand behind a "?".

    >>> write("kafka://localhost:9092/priced?patience=10").describe()
    'kafka://localhost:9092/priced'
    """
    return publish(url, **options_of(url, _OF_WRITE))
