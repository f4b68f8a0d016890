"""The programs in docs/pubsub.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pubsub.bus import Bus
from pubsub.server import Server

from taktline import line
from taktline.pubsub import subscribe

if TYPE_CHECKING:
    from pubsub.warehouse import Warehouse

ROOT = Path(__file__).parents[2]
PROGRAMS = dict(re.findall(r"```python title=(\S+)\n(.*?)```", (ROOT / "docs/pubsub.md").read_text(), re.DOTALL))
ORDERS = [(f"customer {n % 3}", [{"amount": n, "each": 2}]) for n in range(30)]


@pytest.fixture
def shop(bus: Bus) -> Server:
    """Orders are in; every program has its subscription."""
    for name in ("orders", "totals", "nightly"):
        bus.make_as(f"projects/shop/topics/{name}", f"projects/shop/subscriptions/{name}", enable_message_ordering=True)
        for customer, rows in ORDERS:
            bus.send(f"projects/shop/topics/{name}", [json.dumps(rows)], key=customer)
    bus.make_as("projects/shop/topics/priced", "projects/shop/subscriptions/priced", enable_message_ordering=True)
    return bus.server


@contextmanager
def start(program: str, folder: Path, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """`before`: lines before those of the guide."""
    loopback = "from pubsub.emulator import check_loopback\ncheck_loopback()\n"
    (folder / program).write_text(loopback + before + PROGRAMS[program])
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, program], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()  # where a test failed it would be waited for


def test_the_worker_prices_orders_until_it_is_told_to_stop(shop, tmp_path):
    with start("worker.py", tmp_path) as process:
        assert shop.until(lambda: shop.left("projects/shop/subscriptions/orders") == 0)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "30 in · 30 out" in said
    priced = list(
        line(lambda m: (m.ordering_key, m.json()["total"]))(subscribe("projects/shop/subscriptions/priced", limit=30))
    )
    for customer in range(3):
        assert [total for key, total in priced if key == f"customer {customer}"] == list(range(2 * customer, 60, 6))


def test_results_that_come_twice_are_stored_once(shop, tmp_path):
    name = "projects/shop/subscriptions/totals"
    for _ in range(2):
        with start("once.py", tmp_path) as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert shop.left(name) == 0
        shop.send_again(name, shop.acknowledged[:5])
    rows = sqlite3.connect(tmp_path / "totals.sqlite").execute("SELECT total FROM orders").fetchall()
    assert sorted(total for (total,) in rows) == list(range(0, 60, 2))


def test_the_nightly_job_ends_by_itself(shop, tmp_path):
    with start("nightly.py", tmp_path) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert said.splitlines() == ["1"] * 30 + ["30 orders"]


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    pytest.importorskip("google.cloud.bigquery_storage_v1")
    from pubsub.warehouse import Warehouse

    with Warehouse() as found:
        yield found


def start_into(warehouse: Warehouse, folder: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    return start("warehouse.py", folder, f"from pubsub.warehouse import reach\nreach({warehouse.address!r})\n")


def test_rows_are_in_a_table_before_their_messages_are_acknowledged(shop, warehouse, tmp_path):
    orders = "projects/shop/subscriptions/orders"
    with start_into(warehouse, tmp_path) as process:
        warehouse.took = process.kill
        process.communicate(timeout=60)
    assert shop.left(orders) == 30
    warehouse.took = lambda: None
    assert shop.until(lambda: shop.streams(orders) == 0)  # or the one that was killed would be given them once more
    shop.expire(orders)
    with start_into(warehouse, tmp_path) as process:
        assert shop.until(lambda: shop.left(orders) == 0)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    rows = warehouse.tables["projects/shop/datasets/sales/tables/totals"]
    assert len(rows) > 30
    assert sorted({row["id"]: row["total"] for row in rows}.values()) == list(range(0, 60, 2))


def test_rows_that_the_table_refuses_end_the_run_and_their_messages_are_given_back(shop, warehouse, tmp_path):
    warehouse.refuses = "no column total"
    with start_into(warehouse, tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no column total" in errors
    orders = "projects/shop/subscriptions/orders"
    assert (shop.left(orders), shop.out(orders)) == (30, 0)
