"""Kafka: a topic that a consumer group reads as a source, a topic as a sink.

Offsets are committed only behind results that are safe in the sink. `docs/kafka.md` is the guide.

    from taktline import line
    from taktline.kafka import publish, subscribe

    orders = subscribe("kafka://localhost:9092/orders", group="pricing")
    line(parse, price).run(orders, publish("kafka://localhost:9092/priced"))

The client library (`pip install 'taktline[kafka]'`) is loaded when a run begins. Its connections and threads belong to the
caller's process and end with the run; workers never see them.
"""

from taktline.kafka.message import KafkaMessage
from taktline.kafka.sink import publish
from taktline.kafka.topic import subscribe
from taktline.kafka.url import read, write

__all__ = ["KafkaMessage", "publish", "read", "subscribe", "write"]
