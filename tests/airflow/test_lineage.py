"""What Airflow's assets and OpenLineage are told of a task."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest
from conftest import airflow

pytest.importorskip("airflow.providers.openlineage")


@pytest.fixture(scope="module")
def told(home):
    """The DAG `traced`, run once; the events that OpenLineage was told, of ends of tasks."""
    data, log = home / "data", home / "lineage.jsonl"
    (data / "traced.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    for name, count in (("lot-a", 60), ("lot-b", 41)):
        (data / f"{name}.jsonl").write_text('{"n": 1}\n' * count)
    with closing(sqlite3.connect(data / "traced.db")) as database, database:
        database.execute("CREATE TABLE numbers (n INTEGER)")
        database.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(10)])
        database.execute("CREATE TABLE more (n INTEGER PRIMARY KEY)")
    transport = json.dumps({"type": "file", "log_file_path": str(log), "append": True})
    more = {"AIRFLOW__OPENLINEAGE__TRANSPORT": transport, "AIRFLOW__OPENLINEAGE__NAMESPACE": "test"}
    done = airflow("dags", "test", "traced", env=os.environ | more)
    events = [json.loads(each) for each in log.read_text().splitlines()]
    ends = {each["job"]["name"]: each for each in events if each["eventType"] in ("COMPLETE", "FAIL")}
    assert ends.keys() >= {f"traced.{task}" for task in ("fixed", "by_template", "by_function", "fails")}, done.stdout
    return ends


def ends_of(event):
    """Each end with its count."""
    found = []
    for end, facets, name in (
        ("inputs", "inputFacets", "inputStatistics"),
        ("outputs", "outputFacets", "outputStatistics"),
    ):
        found.append(
            [
                (each["namespace"], each["name"], each.get(facets, {}).get(name, {}).get("rowCount"))
                for each in event[end]
            ]
        )
    return found


def test_lineage_has_both_ends_with_counts(told, data):
    read = ("file", f"{data}/traced.jsonl", 100)
    assert ends_of(told["traced.fixed"]) == [[read], [("file", f"{data}/traced-fixed.jsonl", 50)]]
    assert ends_of(told["traced.by_template"]) == [[read], [("file", f"{data}/traced-traced.jsonl", 50)]]
    assert ends_of(told["traced.into_a_folder"])[1] == [("file", f"{data}/traced-out", 101)]
    assert ends_of(told["traced.into_a_folder"])[0][0][:2] == ("file", str(data))


def test_lineage_of_a_database_has_query_and_table(told, data):
    event = told["traced.by_function"]
    assert event["job"]["facets"]["sql"]["query"] == "SELECT n FROM numbers"
    assert ends_of(event) == [[], [("file", f"{data}/traced.db: more", 10)]]


def test_of_a_failed_task_what_it_read_alone(told, data):
    event = told["traced.fails"]
    assert event["eventType"] == "FAIL"
    assert ends_of(event) == [[("file", f"{data}/traced.jsonl", 1)], []]


def test_events_of_assets_have_counts_also_by_an_alias(told, data, metadata):
    query = "select a.name, a.uri, e.extra from asset_event e join asset a on a.id = e.asset_id"
    said = {name: (uri, json.loads(extra)) for name, uri, extra in metadata.rows(query)}
    counts = {"records_in": 100, "records_out": 50, "failed": 50}
    assert said[f"file://{data}/traced-fixed.jsonl"][1].items() >= counts.items()
    assert said["told"][1].items() >= counts.items()
    by_alias = [(uri, extra) for uri, extra in said.values() if uri == f"file://{data}/traced-traced.jsonl"]
    assert [{name: extra[name] for name in counts} for _, extra in by_alias] == [counts]
    assert f"file://{data}/traced-none.jsonl" not in said
