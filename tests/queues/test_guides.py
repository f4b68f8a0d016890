"""The programs in docs/redis.md and docs/kafka.md, run as they stand there but for the server's address."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from pathlib import Path

from queues.waiting import until

from taktline import line
from taktline.kafka import KafkaMessage, publish, subscribe

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "import runpy; runpy.run_module('taktline', run_name='__main__')"
ORDERS = [(f"customer {n % 3}", [{"amount": n, "each": 2}]) for n in range(30)]


def programs(page, there, here):
    found = re.findall(r"```python title=(\S+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return {name: code.replace(there, here) for name, code in found}


def command(page, *places):
    """The arguments of the page's only command; each pair of `places` there and here."""
    (said,) = re.findall(r"^    taktline (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    for there, here in places:
        assert there in said
        said = said.replace(there, here)
    return shlex.split(said)


def steps(page):
    """A file of steps of the page's worker: all that stands before its run."""
    return programs(page, "", "")["worker.py"].partition("report = ")[0]


def totals_in(folder):
    with sqlite3.connect(folder / "totals.sqlite") as table:
        return [total for (total,) in table.execute("SELECT total FROM orders ORDER BY rowid")]


class TestRedis:
    def test_the_worker_prices_orders_until_it_is_told_to_stop(self, redis_server, redis_client, program):
        for customer, rows in ORDERS:
            redis_client.xadd("orders", {"customer": customer, "rows": json.dumps(rows)})
        worker = program(programs("redis.md", "redis://localhost/0", redis_server.url)["worker.py"])
        until(lambda: redis_client.xlen("priced") == 30, worker)
        worker.terminate()
        said, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
        assert "30 in · 30 out" in said
        assert [fields["total"] for _, fields in redis_client.xrange("priced")] == [str(2 * n) for n in range(30)]

    def test_a_journal_makes_it_once(self, redis_server, redis_client, program, tmp_path):
        code = programs("redis.md", "redis://localhost/0", redis_server.url)["once.py"]
        for day in range(2):
            for _, rows in ORDERS:
                redis_client.xadd("totals", {"rows": json.dumps(rows)})
            once = program(code)
            _, errors = once.communicate(timeout=60)
            assert once.returncode == 0, errors
            assert totals_in(tmp_path) == [*range(0, 60, 2)] * (day + 1)

    def test_each_process_takes_a_shard(self, redis_server, redis_client, program):
        code = programs("redis.md", "redis://localhost/0", redis_server.url)["shards.py"]
        sender = program(code, "send")
        _, errors = sender.communicate(timeout=60)
        assert sender.returncode == 0, errors
        assert sum(redis_client.xlen(f"orders:{shard}") for shard in range(4)) == 700
        for worker in [program(code, "work") for _ in range(4)]:
            _, errors = worker.communicate(timeout=120)
            assert worker.returncode == 0, errors
        for shard in range(4):
            (group,) = redis_client.xinfo_groups(f"orders:{shard}")
            assert (group["pending"], group["lag"] or 0) == (0, 0)

    def test_the_command_prices_orders_until_it_is_told_to_stop(self, redis_server, redis_client, program, tmp_path):
        (tmp_path / "steps.py").write_text(steps("redis.md"))
        for customer, rows in ORDERS:
            redis_client.xadd("orders", {"customer": customer, "rows": json.dumps(rows)})
        worker = program(COMMAND, *command("redis.md", ("redis://localhost/0", redis_server.url)))
        until(lambda: redis_client.xlen("priced") == 30, worker)
        worker.terminate()
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
        assert [fields["total"] for _, fields in redis_client.xrange("priced")] == [str(2 * n) for n in range(30)]


class TestKafka:
    def test_the_worker_prices_orders_until_it_is_told_to_stop(self, kafka_topics, program):
        orders, priced = kafka_topics(), kafka_topics()
        line(lambda row: KafkaMessage(json.dumps(row[1]).encode(), row[0].encode())).run(
            ORDERS, publish(orders.url), how="loop"
        )
        code = programs("kafka.md", "kafka://localhost:9092/orders", orders.url)["worker.py"]
        worker = program(code.replace("kafka://localhost:9092/priced", priced.url))
        source = subscribe(priced.url, group="look", limit=30)
        found = list(line(lambda message: (message.key.decode(), message.json()["total"]))(source, how="loop"))
        until(lambda: orders.committed("pricing") == 30, worker)
        worker.terminate()
        said, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
        assert "30 in · 30 out" in said
        for customer in range(3):
            assert [total for key, total in found if key == f"customer {customer}"] == list(range(2 * customer, 60, 6))

    def test_a_journal_makes_it_once(self, kafka_topics, program, tmp_path):
        topic = kafka_topics()
        code = programs("kafka.md", "kafka://localhost:9092/totals", topic.url)["once.py"]
        for day in range(2):
            rows = [KafkaMessage(json.dumps(rows).encode()) for _, rows in ORDERS]
            line(lambda row: row).run(rows, publish(topic.url, config={"partitioner": "consistent"}), how="loop")
            once = program(code)
            _, errors = once.communicate(timeout=60)
            assert once.returncode == 0, errors
            there = totals_in(tmp_path)
            assert there == [*range(0, 60, 2)] * (day + 1)

    def test_the_command_prices_orders_until_it_is_told_to_stop(self, kafka_broker, kafka_topics, program, tmp_path):
        orders, priced = kafka_topics(), kafka_topics()
        (tmp_path / "steps.py").write_text(steps("kafka.md"))
        rows = (KafkaMessage(json.dumps(rows).encode(), b"k") for _, rows in ORDERS)
        line(lambda row: row).run(rows, publish(orders.url), how="loop")
        both = f"kafka://{kafka_broker.address},{kafka_broker.address}/{orders.name}"
        places = ("kafka://one:9092,two:9092/orders", both), ("kafka://one:9092/priced", priced.url)
        worker = program(COMMAND, *command("kafka.md", *places))
        source = subscribe(priced.url, group="look", limit=30)
        found = list(line(lambda message: message.json()["total"])(source, how="loop"))
        assert sorted(found) == list(range(0, 60, 2))
        until(lambda: orders.committed("pricing") == 30, worker)
        worker.terminate()
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
