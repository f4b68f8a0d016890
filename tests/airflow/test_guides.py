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

import taktline

DOCS = Path(__file__).resolve().parents[2] / "docs"
# What is elsewhere in a guide, as it is here: a cluster is two agents of this machine.
HERE = {
    "import taktline\n": "import taktline\nfrom taktline._crew.machines import agents_here\n",
    'taktline.ray("10.0.0.5:6379", nodes=16)': "agents_here(2)",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The guides' files, with folders of the test's own in place of /data and /shared."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("data", "shared"):
        (folder / name).mkdir()
    found = [
        (guide, *block)
        for guide in ("airflow.md", "machines.md")
        for block in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", (DOCS / guide).read_text(), re.DOTALL)
    ]
    for guide, path, code in found:
        code = code.replace("/data/", f"{folder}/data/").replace("/shared/", f"{folder}/shared/")
        for there, here in HERE.items() if guide == "machines.md" else ():
            assert there in code
            code = code.replace(there, here)
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(code)
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


def test_slices_of_the_files_as_mapped_tasks_over_several_machines(written, metadata):
    shared = written / "shared"
    (shared / "in").mkdir()
    for n in range(3):
        (shared / f"in/{n}.jsonl").write_text(
            "".join(f'{{"id": {n * 1000 + m}, "name": " {m} "}}\n' for m in range(1000))
        )
    log = run(written, "slices")
    assert metadata.states("slices") == {"files": "success", **{f"clean[{n}]": "success" for n in range(3)}}, log
    rows = list(taktline.read(f"{shared}/out/"))
    assert rows == [{"id": n * 1000 + m, "name": str(m), "slice": n} for n in range(3) for m in range(1000)]
