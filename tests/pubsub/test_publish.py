"""A topic as a sink: confirmed before the source is acknowledged, keys in order also over failures."""

from __future__ import annotations

import pytest

from taktline import LineError, SinkError, line
from taktline.pubsub import Message, publish, subscribe, topic


def received(name: str, count: int) -> list[Message]:
    return list(line(lambda message: message)(subscribe(name, limit=count), how="loop"))


def keyed(n: int) -> Message:
    return Message(str(n).encode(), {"n": str(n)}, ordering_key=f"k{n % 7}")


def test_results_arrive_with_data_attributes_and_key(any_bus):
    name, subscription = any_bus.make()
    report = line(lambda each: each).run([Message(b"a", {"x": "1"}, "k"), b"b", "c"], publish(name), how="loop")
    assert report.records_out == 3
    found = {m.data: (dict(m.attributes), m.ordering_key) for m in received(subscription, 3)}
    assert found == {b"a": ({"x": "1"}, "k"), b"b": ({}, ""), b"c": ({}, "")}


def test_keys_keep_their_order_and_go_on_after_a_failure(bus):
    name, subscription = bus.make(enable_message_ordering=True)

    def of_key_3(request):
        return request.messages[0].ordering_key == "k3"

    bus.server.fail("Publish", "UNAVAILABLE", times=3, when=of_key_3)
    line(keyed).run(range(2000), publish(name), how="line", workers=2)
    found = received(subscription, 2000)
    for key in range(7):
        assert [int(m.data) for m in found if m.ordering_key == f"k{key}"] == list(range(key, 2000, 7))


def test_large_and_many_results_are_split_into_requests_that_are_allowed(bus):
    name, subscription = bus.make()
    sizes = [4_000_000, 4_000_000, 4_000_000, *[10] * 2500]
    sink = publish(name)
    sink.begin("a run")
    sink.write([bytes(size) for size in sizes])
    sink.commit()
    assert bus.server.calls["Publish"] == 4
    assert sorted(len(m.data) for m in received(subscription, len(sizes))) == sorted(sizes)


def test_a_message_is_acknowledged_after_its_result_was_published(bus):
    came_in, source = bus.make(enable_message_ordering=True)
    goes_out, _ = bus.make()
    bus.send(came_in, range(200), key="k")
    published: list[int] = []
    early: list[str] = []
    bus.server.on_acknowledge = lambda ids: early.extend(id for id in ids if len(published) < int(id))

    class Counted(topic.Topic):
        def write(self, results):
            super().write(results)
            published.extend(results)

    line(lambda message: message.data).run(
        subscribe(source, limit=200), Counted(goes_out, 5, None), how="line", workers=1
    )
    assert len(published) == 200
    assert not early
    assert bus.server.left(source) == 0


def test_a_result_that_is_refused_gives_its_message_back(bus):
    came_in, source = bus.make()
    goes_out, subscription = bus.make()
    bus.send(came_in, range(3))
    bus.server.fail("Publish", "PERMISSION_DENIED")
    with pytest.raises(SinkError, match=r"no permission to use the topic .* roles/pubsub.publisher"):
        line(lambda message: message.data).run(subscribe(source), publish(goes_out), how="loop")
    assert bus.server.acknowledged == []
    assert bus.server.until(lambda: bus.server.out(source) == 0)
    assert bus.server.left(source) == 3
    assert bus.server.left(subscription) == 0


def test_a_failure_that_does_not_pass_ends_the_run(bus):
    name, _ = bus.make()
    bus.server.fail("Publish", "UNAVAILABLE", times=1000)
    with pytest.raises(SinkError, match=r"the topic .* cannot be reached"):
        line(str).run([1], publish(name, patience=0.1))


def test_a_result_that_is_no_message(bus):
    name, _ = bus.make()
    with pytest.raises(SinkError, match="a result of type dict cannot be published"):
        line(lambda n: {"n": n}).run([1], publish(name), how="loop")


def test_an_unknown_topic_is_said_before_anything_is_read(any_bus):
    read = []

    def source():
        read.append(1)
        yield 1

    with pytest.raises(SinkError, match=r"there is no topic 'projects/test/topics/none'; create it"):
        line(str).run(source(), publish("projects/test/topics/none"))
    assert not read


def test_no_emulator(monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(SinkError, match=r"the topic .* cannot be reached; is the emulator running"):
        line(str).run([1], publish("projects/p/topics/t"))


def test_a_name_that_is_no_topic():
    with pytest.raises(LineError, match="'orders' is no topic"):
        publish("orders")
