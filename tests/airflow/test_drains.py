"""Drains of a queue into a file: what they took does not come again, so no other try, and no "clear", may put less there."""

from __future__ import annotations

import json
import os

import pytest
import servers
from conftest import run_of

redis = pytest.importorskip("redis")
DAG = """
import os
from airflow.sdk import dag, task
from taktline import line
from taktline.redis import subscribe

def checked(message):
    if message.text("n") == os.environ.get("REFUSED"):
        raise ValueError("refused")
    return {"n": int(message.text("n"))}

@dag("NAME", schedule=None)
def drained():
    @task.taktline(sink="FOLDER/{{ task.task_id }}.jsonl", journal=JOURNAL)
    def drain():
        return line(checked), subscribe("SERVER/orders", group="drain", sole=True, idle=0.3)

    @task
    def behind(report):
        print(f"behind: {report['records_out']} of {report['sink']}")

    behind(drain())

drained()
"""


@pytest.fixture
def queue():
    with servers.redis_server() as server:
        yield server.url, redis.Redis.from_url(server.url)


def run(folder, queue, journal, day="2026-01-01", **environment):
    """One run of the DAG, or the same one once more, as it is after "clear"; its log."""
    dags = folder / "dags"
    dags.mkdir(exist_ok=True)
    text = (
        DAG.replace("NAME", folder.name)
        .replace("FOLDER", str(folder))
        .replace("SERVER", queue[0])
        .replace("JOURNAL", repr(journal))
    )
    (dags / "drained.py").write_text(text)
    environment |= {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    return run_of(folder.name, day, env=os.environ | environment)


def add(queue, *numbers):
    for n in numbers:
        queue[1].xadd("orders", {"n": n})


def written(folder):
    path = folder / "drain.jsonl"
    return [json.loads(text)["n"] for text in path.read_text().splitlines()] if path.exists() else None


def test_a_drain_that_is_cleared_keeps_what_it_has_written(tmp_path, queue, metadata):
    add(queue, 1, 2, 3)
    log = run(tmp_path, queue, True)
    assert written(tmp_path) == [1, 2, 3], log
    first = metadata.xcom(tmp_path.name, "drain")
    add(queue, 4)
    log = run(tmp_path, queue, True)
    assert written(tmp_path) == [1, 2, 3], log
    assert "what it took from its queue does not come again" in log
    assert metadata.states(tmp_path.name) == {"drain": "success", "behind": "success"}, log
    assert metadata.xcom(tmp_path.name, "drain") == first
    assert "behind: 3 of " in log
    (tmp_path / "drain.jsonl").unlink()  # as the log says
    log = run(tmp_path, queue, True)
    assert written(tmp_path) == [4], log
    add(queue, 5)
    log = run(tmp_path, queue, True, day="2026-01-02")  # another DAG run is another drain
    assert written(tmp_path) == [5], log
    assert not list(tmp_path.glob("*.journal"))


def test_a_half_written_file_that_is_gone_ends_the_task_and_its_loss_is_told(tmp_path, queue, metadata):
    add(queue, 1, 2, 3)
    run(tmp_path, queue, True, REFUSED="3")
    (tmp_path / ".drain.jsonl.part").unlink()
    log = run(tmp_path, queue, True)
    assert metadata.states(tmp_path.name)["drain"] == "failed", log
    assert "The results of 2 records were in it alone" in log
    assert written(tmp_path) is None


def test_another_run_goes_on_with_the_journal_of_a_queue_that_is_a_file(tmp_path, queue):
    add(queue, 1, 2, 3)
    run(tmp_path, queue, f"{tmp_path}/one.journal", REFUSED="3")
    log = run(tmp_path, queue, f"{tmp_path}/one.journal", day="2026-01-02")
    assert written(tmp_path) == [1, 2, 3], log
