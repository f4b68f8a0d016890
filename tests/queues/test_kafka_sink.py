"""A topic as a sink; on a broker that speaks Kafka's protocol."""

from __future__ import annotations

from collections import defaultdict

import pytest

from taktline import SinkError, line
from taktline.kafka import KafkaMessage, publish, subscribe
from taktline.testing import check_sink


def there(topic):
    source = subscribe(topic.url, group="look", partitions=[0, 1], idle=0.2)
    return list(line(lambda message: message)(source, how="loop"))


def test_it_is_a_sink(kafka_topics):
    made, came = {}, defaultdict(list)

    def sink(name):
        if name not in made:
            made[name] = kafka_topics()
        return publish(made[name].url)

    def read(name):
        came[name] += [message.value.decode() for message in there(made[name])]
        return sorted(came[name], key=int)

    check_sink(sink, read, [str(n) for n in range(40)], undone=False)


def test_messages_of_one_key_stay_in_order(topic):
    rows = [KafkaMessage(str(n).encode(), f"k{n % 7}".encode()) for n in range(700)]
    line(lambda each: each).run(rows, publish(topic.url), how="loop")
    by_key, partitions = defaultdict(list), defaultdict(set)
    for message in there(topic):
        by_key[message.key].append(int(message.value))
        partitions[message.key].add(message.partition)
    assert all(found == list(range(k, 700, 7)) for k, found in enumerate(by_key[f"k{k}".encode()] for k in range(7)))
    assert all(len(of) == 1 for of in partitions.values())


def test_what_cannot_be_published_is_named(topic):
    with pytest.raises(SinkError, match=r"of type dict cannot be published\n.*\n.* it a KafkaMessage, bytes or str"):
        line(dict).run([{}], publish(topic.url), how="loop")


def test_a_message_that_the_broker_does_not_take_is_told(topic):
    with pytest.raises(SinkError, match="MSG_SIZE_TOO_LARGE"):
        line(bytes).run([5_000_000], publish(topic.url), how="loop")


def test_a_topic_that_is_not_there_is_told(kafka_broker):
    with pytest.raises(SinkError, match="there is no topic 'nowhere'"):
        line(str).run([1], publish(f"kafka://{kafka_broker.address}/nowhere"), how="loop")
