"""A Redis stream as a sink: contract, shards, and each result once whatever is killed; on a real server."""

from __future__ import annotations

import signal
from collections import defaultdict
from threading import Thread

import pytest
import servers
from queues.waiting import until

from taktline import LineError, SinkError, line
from taktline.redis import RedisMessage, publish
from taktline.testing import check_sink


@pytest.fixture
def url(redis_server, redis_client):
    return f"{redis_server.url}/out"


def there(client, stream="out"):
    return [fields["data"] for _, fields in client.xrange(stream)]


def test_it_is_a_sink(redis_server, redis_client):
    check_sink(
        lambda name: publish(f"{redis_server.url}/{name}"), lambda name: there(redis_client, name),
        [str(n) for n in range(40)], undone=False,
    )  # fmt: skip
    assert not redis_client.keys("taktline:*")  # no notes are left of runs that are done


def test_each_kind_of_result_becomes_fields(url, redis_client):
    results = ["text", b"bytes", {"n": 1, "half": 0.5, "name": "x"}, RedisMessage({"a": b"1", "data": b"2"})]
    line(lambda each: each).run(results, publish(url), how="loop")
    assert [fields for _, fields in redis_client.xrange("out")] == [
        {"data": "text"}, {"data": "bytes"}, {"n": "1", "half": "0.5", "name": "x"}, {"a": "1", "data": "2"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (7, "a result of type int cannot be added to a stream; end the line with a step that makes it a mapping"),
        ({"rows": []}, "the field 'rows' of a result cannot be added to a stream: it is of type list"),
        ({"right": True}, "it is of type bool"),
        ({}, "a result without any field"),
    ],
)
def test_what_cannot_be_added_is_named(url, result, told):
    with pytest.raises(SinkError, match=told):
        line(lambda each: each).run([result], publish(url), how="loop")


def test_messages_of_one_value_go_to_one_shard_in_order(redis_server, redis_client):
    rows = [{"customer": f"c{n % 7}", "data": str(n)} for n in range(200)]
    line(dict).run(rows, publish(f"{redis_server.url}/out", shards=4, key="customer"), how="loop")
    shards, numbers = defaultdict(set), []
    for shard in range(4):
        rows_there = [fields for _, fields in redis_client.xrange(f"out:{shard}")]
        for row in rows_there:
            shards[row["customer"]].add(shard)
        found = [int(row["data"]) for row in rows_there]
        assert found == sorted(found)
        numbers += found
    assert sorted(numbers) == list(range(200))
    assert all(len(of) == 1 for of in shards.values())
    with pytest.raises(SinkError, match="a result has no field 'customer', which tells to which shard it goes"):
        line(dict).run([{"n": 1}], publish(f"{redis_server.url}/out", shards=4, key="customer"), how="loop")


JOURNAL = """
import os, signal, sys
from taktline import line
from taktline.redis import publish
from taktline.redis.sink import RedisSink

url, dies = sys.argv[1], int(sys.argv[2])
save = RedisSink.save

def saved(self, mark):
    position = save(self, mark)
    if dies and self._client.xlen("out") > dies:
        os.kill(os.getpid(), signal.SIGKILL)  # Redis has them, the journal does not know
    return position

RedisSink.save = saved

def step(n):
    return str(n)

line(step).run(range(100_000), publish(url), journal="j", how="loop")
"""


def test_with_a_journal_each_result_is_there_once(url, redis_client, program):
    process = program(JOURNAL, url, 10)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert redis_client.xlen("out") < 100_000
    process = program(JOURNAL, url, 0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert there(redis_client) == [str(n) for n in range(100_000)]


def test_it_goes_on_when_the_server_comes_back():
    import redis

    with servers.redis_server(keeps=True) as server, redis.Redis.from_url(server.url, decode_responses=True) as client:

        def records():
            for n in range(4000):
                if n == 2000:
                    server.kill()
                    Thread(target=server.start).start()
                yield n

        line(str).run(records(), publish(f"{server.url}/out"), how="loop")
        until(lambda: client.ping())
        assert there(client) == [str(n) for n in range(4000)]


def test_a_server_that_stays_away_is_given_up():
    with servers.redis_server() as server:

        def records():
            yield from range(1500)
            server.kill()
            yield from range(1500)

        with pytest.raises(SinkError, match="cannot be reached; is the server running"):
            line(str).run(records(), publish(f"{server.url}/out", patience=0.1), how="loop")


def test_the_stream_is_cut(url, redis_client):
    line(str).run(range(5000), publish(url, most=100), how="loop")
    assert redis_client.xlen("out") < 1000


def test_a_key_that_is_no_stream_is_told(url, redis_client):
    redis_client.set("out", "1")
    with pytest.raises(SinkError, match="is no stream: the key 'out' holds a string"):
        line(str).run([1], publish(url), how="loop")


def test_wrong_settings_are_refused_at_once():
    with pytest.raises(LineError, match="most=0: give at least 1"):
        publish("redis://localhost/0/out", most=0)
    with pytest.raises(LineError, match="shards= and key= go together"):
        publish("redis://localhost/0/out", key="customer")
