"""The code of the guides: each block whose first line names a file becomes that file, and its DAGs run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import airflow

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "airflow.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The guide's files, with a folder of the test's own in place of /data."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "data").mkdir()
    for path, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(code.replace("/data/", f"{folder}/data/"))
    return folder


def run(folder, dag):
    environment = os.environ | {"AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags")}
    return airflow("dags", "test", dag, env=environment).stdout


def test_the_nightly_job(written, metadata):
    orders: list[dict[str, Any]] = [{"id": n, "amount": n % 5, "price": n / 10, "paid": n % 3 > 0} for n in range(2000)]
    orders[100]["amount"] = None
    data = written / "data"
    (data / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    log = run(written, "nightly_orders")
    assert metadata.states("nightly_orders")["score"] == "success", log
    assert "1,332 orders scored; " in log
    assert "1 dead-lettered" in log
    (scored,) = data.glob("scored-*.jsonl")
    assert [json.loads(text) for text in scored.read_text().splitlines()] == [
        {**order, "total": order["amount"] * order["price"]} for order in orders if order["paid"] and order["id"] != 100
    ]
    assert len(list(data.glob("failed-*.jsonl"))) == 1
    assert len(list((data / "reports").glob("*.html"))) == 1
    assert not list((data / "journals").iterdir())


def test_the_job_whose_retry_may_come_to_another_machine(written, metadata, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    with servers.object_store() as url:
        store = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=url)
        store.mkdir("shop")
        orders: list[dict[str, Any]] = [{"id": n, "amount": 2, "price": n / 10, "paid": True} for n in range(100)]
        orders[50]["amount"] = None
        store.pipe("shop/orders.jsonl", "".join(json.dumps(order) + "\n" for order in orders).encode())
        keys = {"login": "test", "password": "test", "extra": {"endpoint_url": url, "region_name": "us-east-1"}}
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "aws", **keys}))
        log = run(written, "nightly_anywhere")
        assert metadata.states("nightly_anywhere") == {"score": "success"}, log
        failed, _, scored = sorted(store.find("shop"))
        assert store.cat(scored).count(b"\n") == 99
        assert store.cat(failed).count(b"\n") == 1


def test_the_function_in_place_of_a_file(written, metadata):
    log = run(written, "events")
    assert metadata.states("events") == {"fetch": "success", "store": "success"}, log
    assert (written / "data" / "events.jsonl").read_text().splitlines() == [
        '{"kind": "in", "amount": 3}',
        '{"kind": "out", "amount": 5}',
    ]
