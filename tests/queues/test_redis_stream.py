"""A consumer group of a Redis stream: kills, freezes, servers that go away; on a real server."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from time import time

import pytest
import servers
from queues.waiting import until

from taktline import LineError, SourceError, batch, line, read, write
from taktline.abc import Health
from taktline.redis import RedisMessage, subscribe
from taktline.testing import check_live


@pytest.fixture
def url(redis_server, redis_client):
    return f"{redis_server.url}/orders"


def send(client, texts, stream="orders"):
    with client.pipeline() as requests:
        for text in texts:
            requests.xadd(stream, {"data": text})
        requests.execute()


def left(client, stream="orders"):
    """Messages that are not acknowledged, and those that nobody has had."""
    (group,) = client.xinfo_groups(stream) or [{"pending": -1, "lag": -1}]
    return group["pending"], group["lag"]


def deliveries(client):
    return [row["times_delivered"] for row in client.xpending_range("orders", "g", "-", "+", 1000)]


# --- the contract ---


def lose(source, client):
    """As if it had been frozen until others had taken over what it had."""
    lease = source._lease
    lease._renewed -= 2 * lease._seconds
    if lease._sole:
        client.set(lease.key("sole"), "another", px=2000)
        until(lambda: lease.lost)
    ids = [row["message_id"] for row in client.xpending_range("orders", "g", "-", "+", 1000)]
    client.xclaim("orders", "g", "another", 0, ids, justid=True)


@pytest.mark.parametrize("options", [{}, {"sole": True}, {"consumer": "me"}, {"delete": True}], ids=str)
def test_it_is_a_live_source(url, redis_client, options):
    check_live(
        lambda: subscribe(url, group="g", lease=1, **options), lambda texts: send(redis_client, texts), RedisMessage.text,
        lose=lambda source: lose(source, redis_client),
    )  # fmt: skip
    assert left(redis_client) == (0, 0)
    there = {consumer["name"] for consumer in redis_client.xinfo_consumers("orders", "g")}
    assert there == {"another", "taktline:given back"}  # and no source of these
    assert redis_client.xlen("orders") == (0 if "delete" in options else redis_client.xlen("orders"))


def test_what_is_given_back_was_not_delivered(url, redis_client):
    send(redis_client, "abc")
    for _ in range(3):
        source = subscribe(url, group="g")
        source.open(None, 1 << 20)
        assert len(source.take(3, 0.25)) == 3
        assert deliveries(redis_client) == [1, 1, 1]
        source.close()
        assert deliveries(redis_client) == [0, 0, 0]


def test_a_drain_ends_and_the_command_reads_a_url(url, redis_client, tmp_path):
    send(redis_client, map(str, range(300)))
    (tmp_path / "steps.py").write_text("def price(message):\n    return {'text': message.text()}\n")
    command = [sys.executable, "-m", "taktline", "run", "steps.py:price", "--out", "out.jsonl"]
    done = subprocess.run(
        [*command, "--in", f"{url}?group=g&idle=0.5"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == [str(n) for n in range(300)]
    assert left(redis_client) == (0, 0)


def test_the_command_rolls_files_and_nothing_is_lost_where_it_is_killed(url, redis_client, tmp_path):
    (tmp_path / "steps.py").write_text(
        "import time\n\ndef price(message):\n    time.sleep(0.002)\n    return {'n': message.text()}\n"
    )
    command = [sys.executable, "-m", "taktline", "run", "steps.py:price", "--in", f"{url}?group=g&lease=1", "--quiet"]
    send(redis_client, map(str, range(600)))

    def rows():
        return [json.loads(row)["n"] for path in tmp_path.glob("out/part-*") for row in path.read_text().splitlines()]

    for kill, enough in ((signal.SIGKILL, 100), (signal.SIGTERM, 300), (signal.SIGTERM, 600)):
        process = subprocess.Popen(
            [*command, "--out", "out/", "--out-format", "jsonl", "--roll", "0.2", "--rows", "50"], cwd=tmp_path, text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        until(lambda enough=enough: len({*rows()}) >= enough, process)
        process.send_signal(kill)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (0 if kill == signal.SIGTERM else -kill), errors
    assert {*rows()} == {str(n) for n in range(600)}
    assert left(redis_client) == (0, 0)


def test_a_batch_waits_for_more_until_it_is_full_or_its_time_is_over(url, redis_client):
    source = subscribe(url, group="g", wait=3600)
    source.open(None, 1 << 20)
    send(redis_client, "abc")
    assert source.take(5, 0.25) == []
    send(redis_client, "defg")
    assert [message.text() for message in source.take(5, 0.25)] == [*"abcde"]
    assert source.take(5, 0) == []
    source.safe(5, [])
    source.close()
    source = subscribe(url, group="g", wait=0.01)
    source.open(None, 1 << 20)
    taken = []
    until(lambda: taken.extend(source.take(5, 0.25)) or taken)
    assert [(message.text(), message.deliveries) for message in taken] == [("f", 1), ("g", 1)]
    source.safe(2, [])
    source.close()


@pytest.mark.parametrize("how", ["line", "auto"])
def test_a_batch_step_gets_full_batches_where_they_may_wait(url, redis_client, how):
    send(redis_client, map(str, range(50)))
    together = batch(lambda messages: [len(messages)] * len(messages), size=10)
    assert list(line(together)(subscribe(url, group="g", wait=3600, limit=50), workers=2, how=how)) == [10] * 50


def test_a_drain_that_ends_with_its_window_full_says_so(url, redis_client, tmp_path):
    send(redis_client, map(str, range(30)))
    source = subscribe(url, group="g", idle=0.3)
    with pytest.warns(RuntimeWarning, match=r"has taken 20 messages, .* what is left waits for the next run"):
        line(lambda message: {"text": message.text()}).run(source, write(tmp_path / "out.jsonl"), how="line", window=20)
    assert left(redis_client) == (0, 10)


def test_limit_and_seconds_end_it(url, redis_client):
    send(redis_client, "abcde")
    assert list(line(RedisMessage.text)(subscribe(url, group="g", limit=2))) == ["a", "b"]
    assert left(redis_client) == (0, 3)
    assert list(line(RedisMessage.text)(subscribe(url, group="g", seconds=0.5))) == ["c", "d", "e"]


def test_a_group_may_begin_behind_what_is_there(url, redis_client):
    send(redis_client, "abc")
    assert list(line(RedisMessage.text)(subscribe(url, group="new", start="$", idle=0.2))) == []


def test_a_message_that_is_taken_tells_where_it_is_from(url, redis_client):
    redis_client.xadd("orders", {"customer": "ann", "data": "{"}, id="7-1")
    (message,) = line(lambda message: message)(subscribe(url, group="g", limit=1))
    assert (message.id, message.stream, message.deliveries) == ("7-1", "orders", 1)
    with pytest.raises(ValueError, match="field 'data' of message '7-1' is not JSON"):
        message.json()


# --- kills ---

CONSUMER = """
import os, signal, sys, time
from taktline import line
from taktline.redis import subscribe

url, slow, options = sys.argv[1], float(sys.argv[2]), eval(sys.argv[3])
out = os.open("results", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def step(message):
    time.sleep(slow)
    return message.text()

line(step).run(subscribe(url, group="g", **options), lambda text: os.write(out, f"{text}\\n".encode()), how="loop")
"""


def results(folder):
    path = folder / "results"
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("options", ["dict(lease=1)", "dict(lease=1, sole=True)", "dict(lease=1, shards=1)"])
def test_others_get_what_a_killed_consumer_had(url, redis_client, program, tmp_path, options):
    stream = "orders:0" if "shards" in options else "orders"
    texts = [str(n) for n in range(300)]
    send(redis_client, texts, stream)
    first = program(CONSUMER, url, 0.001, options)
    until(lambda: len(results(tmp_path)) > 20, first)
    first.kill()
    second = program(CONSUMER, url, 0, options)
    until(lambda: left(redis_client, stream) == (0, 0), second)
    found = list(dict.fromkeys(results(tmp_path)))  # at least once,
    assert sorted(found, key=int) == texts
    assert found == texts or options == "dict(lease=1)"  # and in order where one alone is at work
    second.terminate()
    assert second.wait(60) == 0


def test_a_consumer_with_a_name_has_at_once_what_it_had(url, redis_client, program, tmp_path):
    send(redis_client, map(str, range(50)))
    first = program(CONSUMER, url, 3600, "dict(consumer='pod-0', lease=3600)")
    until(lambda: left(redis_client)[0] > 0 if redis_client.xinfo_groups("orders") else False, first)
    first.kill()
    source = subscribe(url, group="g", consumer="pod-0", idle=0.2, lease=3600)
    assert list(line(RedisMessage.text)(source)) == [str(n) for n in range(50)]


def test_two_of_one_name_are_told(url, redis_client):
    first, second = (subscribe(url, group="g", consumer="me", lease=1) for _ in range(2))
    first.open(None, 1 << 20)
    first.take(1, 0)
    second.open(None, 1 << 20)
    second.take(1, 0)
    with pytest.raises(SourceError, match=r"another consumer named 'me' reads .*: each needs a name of its own"):
        until(lambda: first.take(1, 0) is None)
    first.close()
    second.close()


def test_one_that_was_frozen_is_not_the_only_one_any_more(url, redis_client, program, tmp_path):
    texts = [str(n) for n in range(2000)]
    send(redis_client, texts)
    frozen = program(CONSUMER, url, 0.001, "dict(lease=1, sole=True)")
    until(lambda: len(results(tmp_path)) > 20, frozen)
    frozen.send_signal(signal.SIGSTOP)
    second = program(CONSUMER, url, 0, "dict(lease=1, sole=True)")
    until(lambda: left(redis_client) == (0, 0), second)
    frozen.send_signal(signal.SIGCONT)
    _, errors = frozen.communicate(timeout=60)
    assert frozen.returncode != 0
    assert "another consumer has taken over" in errors
    assert list(dict.fromkeys(results(tmp_path))) == texts


def test_the_sole_one_alone_is_given_messages(url, redis_client):
    send(redis_client, "abc")
    first, second = (subscribe(url, group="g", sole=True) for _ in range(2))
    first.open(None, 1 << 20)
    second.open(None, 1 << 20)
    assert [message.text() for message in first.take(2, 0.25)] == ["a", "b"]
    assert second.take(2, 0) == []
    first.safe(1, [])
    first.close()
    assert [message.text() for message in second.take(5, 0.25)] == ["b"]  # what was given back, before what is new
    assert [message.text() for message in second.take(5, 0.25)] == ["c"]
    second.close()


KILLS = """
import os, signal, sys
from taktline import line
from taktline.redis import subscribe

out = os.open("results", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def step(message):
    if message.text() == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return message.text()

line(step).run(
    subscribe(sys.argv[1], group="g", consumer="me", idle=0.3, deliveries=3),
    lambda text: os.write(out, f"{text}\\n".encode()), how="loop", dead_letters="failed.jsonl",
)
"""


def test_a_message_that_kills_its_consumers_goes_to_the_dead_letters(url, redis_client, program, tmp_path):
    texts = [*map(str, range(20)), "bad", *map(str, range(20, 40))]
    send(redis_client, texts)
    codes = []
    while not codes or codes[-1]:
        process = program(KILLS, url)
        process.communicate(timeout=60)
        codes.append(process.returncode)
        assert len(codes) < 10
    assert codes == [-signal.SIGKILL] * 3 + [0]
    (letter,) = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert "was delivered 3 times, and each time its consumer was killed" in json.dumps(letter)
    assert set(results(tmp_path)) == {*texts} - {"bad"}
    assert left(redis_client) == (0, 0)


def test_without_dead_letters_the_run_names_the_message_that_kills(url, redis_client):
    redis_client.xadd("orders", {"data": "bad"}, id="7-0")
    redis_client.xgroup_create("orders", "g", id="0")
    redis_client.xreadgroup("g", "gone", {"orders": ">"})
    redis_client.xclaim("orders", "g", "gone", 0, ["7-0"], idle=10**6, retrycount=5)
    with pytest.raises(SourceError, match=r"message '7-0' of .* was delivered 5 times"):
        list(line(RedisMessage.text)(subscribe(url, group="g", idle=0.2)))
    assert left(redis_client) == (1, 0)
    assert line(RedisMessage.text).run(subscribe(url, group="g", idle=0.2), [].append, on_error="skip").records_out == 0
    assert left(redis_client) == (0, 0)


# --- exactly once ---

JOURNAL = """
import os, signal, sys
from taktline import line, write_sql
from taktline.redis import subscribe
from taktline.redis.stream import RedisStream

url, dies = sys.argv[1], int(sys.argv[2])
told = RedisStream.safe

def safe(self, records, skipped):
    if dies and records > dies:
        os.kill(os.getpid(), signal.SIGKILL)  # the table and the journal have them, Redis does not know
    told(self, records, skipped)

RedisStream.safe = safe

def step(message):
    return {"text": message.text()}

line(step).run(
    subscribe(url, group="g", sole=True, lease=1, idle=1), write_sql("sqlite:///out.db", "t"), journal="j", how="loop"
)
"""


def test_with_a_journal_the_sole_consumer_delivers_each_message_once(url, redis_client, program, tmp_path):
    texts = [str(n) for n in range(500)]
    send(redis_client, texts[:400])
    process = program(JOURNAL, url, 10)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert left(redis_client)[0] > 0
    send(redis_client, texts[400:])
    for _ in range(2):  # the second time nothing is there
        process = program(JOURNAL, url, 0)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with sqlite3.connect(tmp_path / "out.db") as table:
        assert [text for (text,) in table.execute("SELECT text FROM t ORDER BY rowid")] == texts
    assert left(redis_client) == (0, 0)


# --- the server goes away ---


def test_it_goes_on_when_the_server_comes_back(program, tmp_path):
    import redis

    with servers.redis_server(keeps=True) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        texts = [str(n) for n in range(1000)]
        send(client, texts)
        consumer = program(CONSUMER, f"{server.url}/orders", 0.001, "{}")
        for there in (100, 500):
            until(lambda there=there: len(results(tmp_path)) > there, consumer)
            server.kill()
            server.start()
        until(lambda: len(results(tmp_path)) >= 1000 and left(client) == (0, 0), consumer)
        assert results(tmp_path) == texts  # what was under way comes once, as nobody was killed
        consumer.terminate()
        assert consumer.wait(60) == 0


def test_a_drain_does_not_end_well_while_the_server_is_away():
    with servers.redis_server() as server:
        source = subscribe(f"{server.url}/orders", group="g", idle=0.5)
        source.open(None, 1 << 20)
        assert source.take(1, 0) == []
        server.kill()
        with pytest.raises(SourceError, match="cannot be reached; is the server running"):
            until(lambda: source.take(1, 0.25) is None)
        server.start()
        source.close()


def test_a_group_that_is_gone_is_told(url, redis_client):
    source = subscribe(url, group="g")
    source.open(None, 1 << 20)
    source.take(1, 0)
    redis_client.xgroup_destroy("orders", "g")
    with pytest.raises(SourceError, match=r"the consumer group of .* is gone"):
        source.take(1, 0)
    source.close()


def test_nothing_begins_where_there_is_no_server():
    with pytest.raises(SourceError, match=r"redis://127.0.0.1:1/0/orders cannot be reached; is the server running"):
        line(str).run(subscribe("redis://127.0.0.1:1/0/orders", group="g"), print)


def test_a_key_that_is_no_stream_is_told(url, redis_client):
    redis_client.set("orders", "1")
    with pytest.raises(SourceError, match="is no stream: its key holds something else"):
        line(str).run(subscribe(url, group="g"), print)


# --- wrong use ---


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("redis://localhost/orders", {"group": "g"}, "a stream is named so"),
        ("redis://localhost/0/orders", {"group": ""}, "group='': give a name"),
        ("redis://localhost/0/orders", {"group": "g", "lease": 0.1}, "lease=0.1: give at least 1"),
        ("redis://localhost/0/orders", {"group": "g", "idle": -1}, "idle=-1: give at least 0"),
        ("redis://localhost/0/orders", {"group": "g", "shards": 0}, "shards=0: give at least 1"),
        ("redis://localhost:x/0/orders", {"group": "g"}, "the address of the Redis server is none"),
    ],
)
def test_wrong_settings_are_refused_at_once(url, options, told):
    with pytest.raises(LineError, match=told):
        subscribe(url, **options)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "Name a consumer group in the URL"),
        ("?group=g&idel=5", "there is no option 'idel' for redis://; did you mean 'idle'?"),
        ("?group=g&idle=soon", "idle='soon' is not a number"),
        ("?group=g&sole=perhaps", "sole='perhaps' is not true or false"),
    ],
)
def test_wrong_urls_are_refused_at_once(query, told):
    with pytest.raises(LineError, match=told.replace("?", r"\?")):
        read(f"redis://localhost/0/orders{query}")


def test_a_password_is_not_shown():
    shown = subscribe("redis://me:hunter2@localhost/0/orders", group="g").describe()
    assert shown == "redis://localhost:6379/0/orders"


def test_workers_are_not_forked_beside_a_connection(url):
    with pytest.raises(LineError, match='start="launch"'):
        line(str)(subscribe(url, group="g"), start="fork")


def test_a_file_is_safe_when_it_is_whole(url, redis_client, tmp_path):
    send(redis_client, map(str, range(10)))

    def step(message):
        assert left(redis_client)[0] > 0
        return {"text": message.text()}

    line(step).run(subscribe(url, group="g", idle=0.3), write(tmp_path / "out.jsonl"), how="loop")
    assert left(redis_client) == (0, 0)


def test_its_health_tells_how_long_the_oldest_message_waits(url, redis_client):
    redis_client.xadd("orders", {"data": "old"}, id=f"{int(time() * 1000) - 60_000}-0")
    source = subscribe(url, group="g")
    assert source.health() == Health()
    source.open(None, 1 << 20)
    assert source.health() == Health(lag=0.0)
    assert len(source.take(1, 0.25)) == 1
    assert 60 <= source.health().lag < 3_600
    source.safe(1, [])
    assert source.health() == Health(lag=0.0)
    source.close()
