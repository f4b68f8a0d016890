"""A step that was mended and "clear", as people do it: the task goes on, and what was set aside is not set aside twice."""

from __future__ import annotations

import json
import os

import pytest
from conftest import run_of

DAG = """
from airflow.sdk import dag
from taktline.airflow import TaktlineOperator

@dag(schedule=None, params={"if_changed": "continue", "workers": 1})
def mended():
    for name, given in {
        "by_default": {},
        "by_params": {"if_changed": "{{ params.if_changed }}", "workers": "{{ params.workers }}"},
    }.items():
        TaktlineOperator(
            task_id=name, target="steps.py:check", source="FOLDER/in.jsonl", sink=f"FOLDER/out/{name}.jsonl",
            journal="FOLDER/journals/{{ task.task_id }}.journal", batch_size=10, how="line", **given,
        )
    TaktlineOperator(
        task_id="set_aside", target="steps.py:check", source="FOLDER/in.jsonl", sink="FOLDER/out/set_aside.jsonl",
        journal=True, dead_letters="FOLDER/failed.jsonl", workers=1,
    )

mended()
"""
STEPS = """
def check(record):
    if record["n"] == 1500 and not MENDED:
        raise ValueError("fifteen hundred")
    return {**record, "by": MENDED}

MENDED = False
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(2000)))
    (tmp_path / "dags/mended.py").write_text(DAG.replace("FOLDER", str(tmp_path)))
    (tmp_path / "dags/steps.py").write_text(STEPS)
    return tmp_path


def run(folder, *arguments):
    """One run of the DAG: after the first time its tasks are cleared, and run again."""
    environment = os.environ | {"AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags")}
    return run_of("mended", "2026-01-01", *arguments, env=environment)


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_mended_step_and_clear(folder, metadata):
    log = run(folder)
    assert metadata.states("mended") == {"by_default": "failed", "by_params": "failed", "set_aside": "success"}, log
    (folder / "dags/steps.py").write_text(STEPS.replace("MENDED = False", "MENDED = True"))
    log = run(folder)
    assert metadata.states("mended") == {"by_default": "success", "by_params": "success", "set_aside": "success"}, log
    for name in ("by_default", "by_params"):
        records = read(folder / f"out/{name}.jsonl")
        assert [record["n"] for record in records] == [*range(2000)]
        ways = [record["by"] for record in records]
        assert ways == sorted(ways)
        assert set(ways) == {False, True}, "what was delivered stays, and the mended step goes on behind it"
    assert metadata.xcom("mended", "by_params")["workers"] == 1
    # All of a task that had ended well runs again, with what its steps are now.
    assert {record["by"] for record in read(folder / "out/set_aside.jsonl")} == {True}
    assert not list((folder / "journals").iterdir())


def test_what_is_gone_with_a_machine_is_made_again(folder, metadata):
    run(folder)
    (folder / "dags/steps.py").write_text(STEPS.replace("MENDED = False", "MENDED = True"))
    (part,) = (folder / "out").glob(".by_default.jsonl.part")
    part.unlink()
    log = run(folder)
    assert metadata.states("mended")["by_default"] == "success", log
    records = read(folder / "out/by_default.jsonl")
    assert [record["n"] for record in records] == [*range(2000)]
    assert {record["by"] for record in records} == {True}


def test_dead_letters_of_a_task_begun_anew_are_not_doubled(folder):
    for _ in range(2):
        run(folder)
        (letter,) = read(folder / "failed.jsonl")
        assert (letter["index"], letter["message"]) == (1500, "fifteen hundred")


def test_if_changed_by_conf(folder, metadata):
    run(folder)
    (folder / "dags/steps.py").write_text(STEPS.replace("MENDED = False", "MENDED = True"))
    run(folder, "--conf", json.dumps({"if_changed": "restart"}))
    assert {record["by"] for record in read(folder / "out/by_params.jsonl")} == {True}
