"""A consumer group of a topic: kills, rebalances, brokers that go away; on a broker that speaks Kafka's protocol."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from queues.waiting import until

from taktline import LineError, SourceError, line, read, write
from taktline.kafka import KafkaMessage, publish, subscribe
from taktline.testing import check_live

LEASE = 1  # second: as the broker of the tests takes it


def send(url, texts, key=None):
    line(lambda text: KafkaMessage(text.encode(), key)).run(texts, publish(url), how="loop")


def text_of(message):
    return message.value.decode()


def settled(source):
    """A source that has its partitions once it is open. The broker of the tests never gets over a member that leaves its
    group while it joins."""
    opened = source.open

    def open(window, memory):
        opened(window, memory)
        source._ask_for_partitions()
        while not source._standing:
            source._arrived(source._consumer.consume(1, 0.1))

    source.open = open
    return source


def lose(source):
    """As the library tells it, where the group has done without this consumer."""
    source._lost(source._consumer, source._consumer.assignment())


def test_it_is_a_live_source(topic):
    check_live(
        lambda: settled(subscribe(topic.url, group=topic.name, lease=LEASE)),
        lambda texts: send(topic.url, texts, b"k"), text_of, lose=lose,
    )  # fmt: skip
    assert topic.committed() == 160


def test_fixed_partitions_are_a_live_source(topic):
    check_live(
        lambda: subscribe(topic.url, group=topic.name, partitions=[0, 1]), lambda texts: send(topic.url, texts, b"k"), text_of
    )  # fmt: skip
    assert topic.committed() == 140


def test_a_drain_ends_and_the_command_reads_a_url(topic, tmp_path):
    send(topic.url, map(str, range(300)), b"k")
    (tmp_path / "steps.py").write_text("def price(message):\n    return {'text': message.value.decode()}\n")
    command = [sys.executable, "-m", "taktline", "run", "steps.py:price", "--out", "out.jsonl"]
    done = subprocess.run(
        [*command, "--in", f"{topic.url}?group={topic.name}&idle=0.5&lease={LEASE}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == [str(n) for n in range(300)]
    assert topic.committed() == 300


def test_a_message_that_is_taken_tells_where_it_is_from(topic):
    sent = KafkaMessage(b"{", b"ann", {"kind": b"order"})
    line(lambda each: each).run([sent], publish(topic.url), how="loop")
    (message,) = line(lambda message: message)(subscribe(topic.url, group=topic.name, limit=1, lease=LEASE))
    assert (message.value, message.key, message.headers, message.offset) == (b"{", b"ann", {"kind": b"order"}, 0)
    assert message.topic == topic.name
    with pytest.raises(ValueError, match=f"message {topic.name}/{message.partition}/0 is not JSON"):
        message.json()


def test_a_batch_waits_for_more_until_it_is_full_or_its_time_is_over(topic):
    source: Any = subscribe(topic.url, group=topic.name, partitions=[0, 1], wait=3600)
    source.open(None, 1 << 20)
    send(topic.url, [*"abc"], b"k")
    until(lambda: source.take(5, 0.25) == [] and len(source._fetched) == 3)
    send(topic.url, [*"defg"], b"k")
    taken = []
    until(lambda: taken.extend(source.take(5, 0.25)) or taken)
    assert [*map(text_of, taken)] == [*"abcde"]
    source.safe(5, [])
    source.close()
    source = subscribe(topic.url, group=topic.name, partitions=[0, 1], wait=0.01, idle=1)
    assert [*map(text_of, (each for each in source))] == [*"fg"]
    source.close()


def test_a_drain_that_ends_with_its_window_full_says_so(topic, tmp_path):
    send(topic.url, map(str, range(30)), b"k")
    source = subscribe(topic.url, group=topic.name, partitions=[0, 1], idle=0.5)
    with pytest.warns(RuntimeWarning, match=r"has taken 20 messages, .* what is left waits for the next run"):
        line(lambda message: {"text": text_of(message)}).run(
            source, write(tmp_path / "out.jsonl"), how="line", window=20
        )
    assert topic.committed() == 20


def test_it_tells_how_long_messages_wait(topic):
    send(topic.url, map(str, range(10)), b"k")
    source = subscribe(topic.url, group=topic.name, partitions=[0, 1])
    assert source.health() == (None, None, "")
    source.open(None, 1 << 20)
    taken = []
    until(lambda: taken.extend(source.take(1, 0.25)) or taken)
    before = source.health()
    assert before.lag > 0
    assert before.backlog == 9
    assert before.refused == ""
    source.safe(1, [])
    assert source.health().lag == 0
    source.close()


# --- kills ---

CONSUMER = """
import os, signal, sys, time
from taktline import line
from taktline.kafka import subscribe

url, slow, options = sys.argv[1], float(sys.argv[2]), eval(sys.argv[3])
out = os.open("results", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def step(message):
    time.sleep(slow)
    return message.value.decode()

line(step).run(
    subscribe(url, group=url.rpartition("/")[2], **options),
    lambda text: os.write(out, f"{os.getpid()} {text}\\n".encode()), how=(sys.argv[4:] or ["loop"])[0], workers=1,
)
"""


def results(folder):
    path = folder / "results"
    return [row.split() for row in path.read_text().splitlines()] if path.exists() else []


def test_others_get_what_a_killed_consumer_had(topic, program, tmp_path):
    texts = [str(n) for n in range(1000)]
    send(topic.url, texts, b"k")
    first = program(CONSUMER, topic.url, 0.001, f"dict(lease={LEASE})")
    until(lambda: len(results(tmp_path)) > 100, first)
    first.kill()
    second = program(CONSUMER, topic.url, 0, f"dict(lease={LEASE})")
    until(lambda: topic.committed() == 1000, second)
    assert list(dict.fromkeys(text for _, text in results(tmp_path))) == texts  # at least once, the first ones in order
    second.terminate()
    assert second.wait(60) == 0


@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_goes_to_another_consumer_is_delivered_there_alone(topic, program, tmp_path, how):
    for n in range(20):
        send(topic.url, [f"{n} {m}" for m in range(100)], str(n).encode())
    first = program(CONSUMER, topic.url, 0.01, f"dict(lease={LEASE})", how)
    until(lambda: len(results(tmp_path)) > 100, first)
    second = program(CONSUMER, topic.url, 0.01, f"dict(lease={LEASE})", how)
    until(lambda: len({pid for pid, *_ in results(tmp_path)}) == 2, second)  # partitions have moved amid the work
    until(lambda: topic.committed() == 2000, second)
    furthest = {}
    for _, key, n in results(tmp_path):
        assert int(n) == furthest.get(key, -1) + 1  # each once, in order
        furthest[key] = int(n)
    assert set(furthest.values()) == {99}
    for process in (first, second):
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


class Away:
    """A consumer whose broker has given it partitions and does not answer any more."""

    def committed(self, partitions, timeout):
        from confluent_kafka import KafkaError, KafkaException

        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_a_broker_that_is_away_when_it_has_given_partitions_is_told_as_such(topic):
    from confluent_kafka import TopicPartition

    source: Any = subscribe(topic.url, group=topic.name)
    source.open(None, 1 << 20)
    given = [TopicPartition(topic.name, 0)]
    with pytest.raises(SourceError, match="cannot be reached; is the broker running"):
        source._given_partitions(Away(), given)
    source.close()
    source._given_partitions(Away(), given)  # while it is closed nobody asks any more


KILLS = """
import os, signal, sys
from taktline import line
from taktline.kafka import subscribe

out = os.open("results", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def step(message):
    if message.value == b"bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return message.value.decode()

line(step).run(
    subscribe(sys.argv[1], group="g", lease=6, partitions=[0], idle=0.3, deliveries=3),
    lambda text: os.write(out, f"- {text}\\n".encode()), how="loop", dead_letters="failed.jsonl",
)
"""


MOCK = """
import sys
from confluent_kafka import Producer

mock = Producer({"test.mock.num.brokers": 1})
broker = mock.list_topics("poison", timeout=10).brokers[1]
for text in sys.argv[1:]:
    mock.produce("poison", text, b"k", partition=0)
mock.flush()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


def test_a_message_that_kills_its_consumers_goes_to_the_dead_letters(program, tmp_path):
    """The count is in the metadata of commits, which the broker of the other tests does not keep; librdkafka's own does."""
    pytest.importorskip("confluent_kafka")
    texts = [*map(str, range(20)), "bad", *map(str, range(20, 40))]
    url = f"kafka://{program(MOCK, *texts).stdout.readline().strip()}/poison"
    codes = []
    while not codes or codes[-1]:
        process = program(KILLS, url)
        _, errors = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert len(codes) < 10
        assert process.returncode in (0, -signal.SIGKILL), errors
    assert codes.count(-signal.SIGKILL) >= 3  # two before it goes alone may have been counted for others
    (letter,) = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert "3 consumers were killed before it was committed" in json.dumps(letter)
    assert {text for _, text in results(tmp_path)} == {*texts} - {"bad"}


# --- exactly once ---

JOURNAL = """
import os, signal, sys
from taktline import line, write_sql
from taktline.kafka import subscribe
from taktline.kafka.topic import KafkaTopic

url, dies = sys.argv[1], int(sys.argv[2])
told = KafkaTopic.safe

def safe(self, records, skipped):
    if dies and records > dies:
        os.kill(os.getpid(), signal.SIGKILL)  # the table and the journal have them, the broker does not know
    told(self, records, skipped)

KafkaTopic.safe = safe

def step(message):
    return {"text": message.value.decode()}

line(step).run(
    subscribe(url, group=url.rpartition("/")[2], partitions=[0, 1], idle=0.5), write_sql("sqlite:///out.db", "t"),
    journal="j", how="loop",
)
"""


def test_with_a_journal_fixed_partitions_deliver_each_message_once(topic, program, tmp_path):
    texts = [str(n) for n in range(500)]
    send(topic.url, texts[:400], b"k")
    process = program(JOURNAL, topic.url, 10)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert topic.committed() < 400
    send(topic.url, texts[400:], b"k")
    for _ in range(2):  # the second time nothing is there
        process = program(JOURNAL, topic.url, 0)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with sqlite3.connect(tmp_path / "out.db") as table:
        assert [text for (text,) in table.execute("SELECT text FROM t ORDER BY rowid")] == texts
    assert topic.committed() == 500


# --- wrong use ---


def test_a_topic_that_is_not_there_is_told(kafka_broker):
    with pytest.raises(SourceError, match=r"there is no topic 'nowhere' at .*; create it, or mend the name"):
        line(str).run(subscribe(f"kafka://{kafka_broker.address}/nowhere", group="g"), print)


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("kafka://localhost:9092", {"group": "g"}, "a topic is named so"),
        ("kafka://me:secret@localhost:9092/t", {"group": "g"}, "passwords go into config="),
        ("kafka://localhost:9092/t", {"group": ""}, "group='': give a name"),
        ("kafka://localhost:9092/t", {"group": "g", "lease": 0.1}, "lease=0.1: give at least 1"),
        ("kafka://localhost:9092/t", {"group": "g", "start": "0"}, "start='0': choose one of 'earliest', 'latest'"),
        ("kafka://localhost:9092/t", {"group": "g", "partitions": []}, "give some numbers, from 0 on"),
        ("kafka://localhost:9092/t", {"group": "g", "config": "no.such.file"}, "config='no.such.file' cannot be read"),
    ],
)
def test_wrong_settings_are_refused_at_once(url, options, told):
    with pytest.raises(LineError, match=told):
        subscribe(url, **options)


def test_a_setting_that_the_library_does_not_have_is_refused(kafka_broker, tmp_path):
    (tmp_path / "client.properties").write_text("# of the cluster\nsasl.usrname=me\n")
    url = f"kafka://{kafka_broker.address}/t"
    with pytest.raises(LineError, match=r"sasl\.usrname"):
        line(str).run(subscribe(url, group="g", config=str(tmp_path / "client.properties")), print)


def test_wrong_urls_are_refused_at_once():
    with pytest.raises(LineError, match="Name a consumer group in the URL"):
        read("kafka://localhost:9092/t")
    with pytest.raises(LineError, match="partitions='a': give numbers"):
        read("kafka://localhost:9092/t?group=g&partitions=a")


def test_nothing_begins_where_there_is_no_broker(monkeypatch):
    pytest.importorskip("confluent_kafka")
    from taktline.kafka import broker

    monkeypatch.setattr(broker, "CALL_SECONDS", 0.5)
    with pytest.raises(SourceError, match=r"kafka://127.0.0.1:1/t cannot be reached; is the broker running"):
        line(str).run(subscribe("kafka://127.0.0.1:1/t", group="g"), print)
