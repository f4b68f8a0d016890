"""What `@task.taktline` takes for its source, and where its sink comes to be."""

from __future__ import annotations

import json

import pytest
from conftest import airflow

FIRST, SECOND = [{"n": n, "rest": "-"} for n in range(10)], [{"n": n, "rest": "+"} for n in range(20)]


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def arguments(home):
    """The DAG `arguments`, run once; its log."""
    for name, records in (("first", FIRST), ("second", SECOND)):
        (home / "data" / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return airflow("dags", "test", "arguments").stdout


def test_all_end_well(arguments, metadata):
    assert set(metadata.states("arguments").values()) == {"success"}, arguments


def test_the_source_is_the_first_parameter_and_not_the_first_keyword(arguments, data):
    assert read(data / "made/by/name/by_name.jsonl") == [{"n": n} for n in range(10)]


def test_a_parameter_that_airflow_fills_in_is_no_source_and_a_default_is_one(arguments, data):
    assert read(data / "made/behind_context.jsonl") == FIRST


def test_what_is_said_to_be_the_source_wins(arguments, data):
    assert read(data / "made/said.jsonl") == SECOND
    assert read(data / "made/returned.jsonl") == FIRST


def test_mapped_functions_keep_what_is_partial(arguments, data):
    assert read(data / "made/mapped/first-of-function.jsonl") == FIRST
    assert read(data / "made/mapped/second-of-function.jsonl") == SECOND
    assert read(data / "made/mapped/0.jsonl") == [{"n": n} for n in range(10)]
    assert read(data / "made/mapped/1.jsonl") == [{"n": n} for n in range(20)]
