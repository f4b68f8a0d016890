"""The code of the guides: each block whose first line names a file becomes that file, and its DAGs run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
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
    orders = [{"id": n, "amount": n % 5, "price": n / 10, "paid": n % 3 > 0} for n in range(2000)]
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


def test_the_function_in_place_of_a_file(written, metadata):
    log = run(written, "events")
    assert metadata.states("events") == {"fetch": "success", "store": "success"}, log
    assert (written / "data" / "events.jsonl").read_text().splitlines() == [
        '{"kind": "in", "amount": 3}',
        '{"kind": "out", "amount": 5}',
    ]
