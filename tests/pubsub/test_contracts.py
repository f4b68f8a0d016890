"""A subscription and a topic do what `taktline.abc` asks of any live source and any sink."""

from __future__ import annotations

from collections import defaultdict

from taktline import line
from taktline.pubsub import publish, subscribe
from taktline.testing import check_live, check_sink


def test_a_subscription_is_a_live_source(any_bus):
    topic, subscription = any_bus.make(enable_message_ordering=True)
    check_live(
        lambda: subscribe(subscription, wait=0), lambda texts: any_bus.send(topic, texts, key="k"),
        lambda message: message.data.decode(), ordered=False,
    )  # fmt: skip


def test_a_topic_is_a_sink(bus):
    made: dict[str, tuple[str, str]] = {}
    came: dict[str, list[str]] = defaultdict(list)

    def sink(name):
        if name not in made:
            made[name] = bus.make()
        return publish(made[name][0])

    def read(name):
        source = subscribe(made[name][1], idle=0.2)
        came[name] += line(lambda message: message.data.decode())(source, how="loop")
        return sorted(came[name], key=int)

    check_sink(sink, read, [str(n) for n in range(40)], undone=False)
