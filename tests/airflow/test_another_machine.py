"""A task whose machine goes down goes on with on another one: journal, output and dead letters are in the store alone. A
machine is a folder for temporary files, a home and a working directory."""

from __future__ import annotations

import json
import os

import pytest
import servers
from conftest import run_of

DAG = """
from airflow.sdk import dag
from taktline.airflow import TaktlineOperator

@dag("moved_HOW", schedule=None)
def moved():
    for how in ["HOW"]:
        TaktlineOperator(
            task_id=how, target="moved_steps.py:check", source="s3://store@BUCKET/in.jsonl", sink=f"s3://store@BUCKET/out/{how}.jsonl",
            journal="s3://store@BUCKET/journals/{{ task.task_id }}.journal", dead_letters=f"s3://store@BUCKET/failed/{how}.jsonl",
            how=how, workers=2, batch_size=20,
        )

moved()
"""
STEPS = """
import os, signal
from taktline._durable import stored
from taktline._run import checkpointer

checkpointer.STORED = 0  # as after some seconds
stored.LEASE = 4.0  # which the second machine waits for: `dags test` counts no tries
os.environ.setdefault("TASK", str(os.getpid()))  # where the DAG is parsed; steps run there, or in workers of it

def check(record):
    if record["n"] == 1500 and os.environ["MACHINE"] == "first":
        os.kill(int(os.environ["TASK"]), signal.SIGKILL)
    if record["n"] % 500 == 7:
        raise ValueError("seven")
    return {**record, "text": "é" * (record["n"] % 9)}
"""


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_task_goes_on_on_another_machine(tmp_path, metadata, how):
    s3fs = pytest.importorskip("s3fs")
    bucket = f"shop-{how}"  # the stores of one process share their buckets
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/moved.py").write_text(DAG.replace("HOW", how).replace("BUCKET", bucket))
    (tmp_path / "dags/moved_steps.py").write_text(STEPS)
    with servers.object_store() as url:
        store = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=url)
        store.mkdir(bucket)
        store.pipe(f"{bucket}/in.jsonl", "".join(json.dumps({"n": n}) + "\n" for n in range(2000)).encode())
        keys = {"login": "test", "password": "test", "extra": {"endpoint_url": url, "region_name": "us-east-1"}}
        logs = []
        for machine in ("first", "second"):
            temporary = tmp_path / machine
            temporary.mkdir()
            logs.append(
                run_of(
                    f"moved_{how}", "2026-01-01", env=os.environ | {
                        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"), "MACHINE": machine,
                        "AIRFLOW_CONN_STORE": json.dumps({"conn_type": "aws", **keys}), "TMPDIR": str(temporary),
                    },
                )
            )  # fmt: skip
            there = sorted(store.find(bucket))
            if machine == "first":
                assert any(
                    path == f"{bucket}/journals/{how}.moved_{how}.{how}.manual__2026-01-01.journal" for path in there
                ), logs[0]
                assert f"{bucket}/out/{how}.jsonl" not in there
        assert metadata.states(f"moved_{how}") == {how: "success"}, logs[1]
        assert 0 < metadata.xcom(f"moved_{how}", how)["resumed_at"] <= 1500
        kept = [n for n in range(2000) if n % 500 != 7]
        assert store.cat(f"{bucket}/out/{how}.jsonl").decode().splitlines() == [
            json.dumps({"n": n, "text": "é" * (n % 9)}, ensure_ascii=False) for n in kept
        ]
        letters = store.cat(f"{bucket}/failed/{how}.jsonl").splitlines()
        assert [json.loads(text)["index"] for text in letters] == [7, 507, 1007, 1507]
        assert there == [f"{bucket}/failed/{how}.jsonl", f"{bucket}/in.jsonl", f"{bucket}/out/{how}.jsonl"]
        assert store.list_multipart_uploads(bucket) == []
        assert not [path for path in tmp_path.glob("*/*") if path.name.endswith((".part", ".journal"))]
