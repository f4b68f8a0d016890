"""Sources and sinks by Airflow's connections: moto's S3 server, a PostgreSQL server and SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest
import servers
from conftest import airflow

NUMBERS = [*range(100)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, home):
    """The DAG, run once: its folder, its log, and what lies in the store."""
    s3fs = pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("connections")
    (folder / "in.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in NUMBERS))
    (folder / "few.csv").write_text("n\n7\n")
    with closing(sqlite3.connect(folder / "few.db")) as database, database:
        database.execute("CREATE TABLE few (n INTEGER)")
        database.execute("INSERT INTO few VALUES (7)")
    with servers.object_store() as url, servers.postgres() as server:
        store = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=url)
        store.mkdir("base-bucket")
        keys = {"login": "test", "password": "test", "extra": {"endpoint_url": url, "region_name": "us-east-1"}}
        base = {
            "conn_type": "postgres", "login": "taktline", "password": "hunter2", "schema": "postgres",
            "extra": {"application_name": "orders", "cursor": "dictcursor"}, "host": str(server.folder),
        }  # fmt: skip
        environment = os.environ | {
            "TAKTLINE_TEST_DATA": str(folder),
            "AIRFLOW_CONN_STORE": json.dumps({"conn_type": "aws", **keys}),
            "AIRFLOW_CONN_BASE": json.dumps(base),
            "AIRFLOW_CONN_LITE": json.dumps({"conn_type": "sqlite", "host": str(folder / "few.db")}),
        }
        log = airflow("dags", "test", "connections", env=environment).stdout
        yield folder, log, {path: store.cat(path) for path in store.find("base-bucket")}


def numbers(data):
    return [json.loads(text)["n"] for text in data.splitlines()]


def test_each_task_ends_as_it_should(ran, metadata):
    states = metadata.states("connections")
    assert states.pop("unknown") == "failed", ran[1]
    assert set(states.values()) == {"success"}, ran[1]
    assert "there is no Airflow connection 'nobody'" in ran[1]


def test_objects_are_written_and_read(ran):
    folder, _, there = ran
    doubled = [n * 2 for n in NUMBERS]
    again = [n * 4 for n in NUMBERS]
    assert numbers(there["base-bucket/a.jsonl"]) == numbers(there["base-bucket/b.jsonl"]) == doubled
    assert numbers((folder / "get.jsonl").read_bytes()) == again
    assert numbers((folder / "pattern.jsonl").read_bytes()) == again * 2
    assert numbers((folder / "objects.jsonl").read_bytes()) == again * 2
    assert numbers(there["base-bucket/out/files.jsonl"]) == doubled + again
    assert numbers(there["base-bucket/out/journaled.jsonl"]) == doubled


def test_a_file_is_read_as_the_task_says(ran):
    assert numbers((ran[0] / "typed.jsonl").read_bytes()) == [14]


def test_tables_are_written_and_read(ran):
    folder, *_ = ran
    assert numbers((folder / "query.jsonl").read_bytes()) == [n * 4 for n in range(5)]
    assert numbers((folder / "lite.jsonl").read_bytes()) == [14]


def test_nothing_is_left_beside(ran):
    folder, *_ = ran
    assert not list((folder / "journals").iterdir())
    assert not [path for path in folder.rglob("*") if path.name.endswith((":", ".part"))]
