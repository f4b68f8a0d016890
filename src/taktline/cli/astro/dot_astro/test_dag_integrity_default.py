"""Whether Airflow can import every DAG file. `astro dev parse` and `astro deploy` run this file.

Connections, variables and environment variables are the deployment's; while a file is imported here, each that is asked
for has a stand-in.
"""

import os
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import BaseHook, Connection, Variable

PROJECT = Path(__file__).parents[1]
DAG_FILES = sorted((PROJECT / "dags").rglob("*.py"))
EXCEPTIONS = (PROJECT / ".astro" / "dag_integrity_exceptions.txt").read_text().splitlines()


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """What asks the deployment gets an answer without it."""

    def variable(key, default=None, deserialize_json=False, **_):
        return default if default is not None else {} if deserialize_json else f"variable {key}"

    def environment(key, default=None):
        return os.environ.get(key) or default or f"environment variable {key}"

    monkeypatch.setattr(Variable, "get", variable)
    monkeypatch.setattr(BaseHook, "get_connection", lambda conn_id, *_: Connection(conn_id=conn_id))
    monkeypatch.setattr(os, "getenv", environment)


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_file_imports(path):
    if str(path.relative_to(PROJECT)) in EXCEPTIONS:
        pytest.skip("named in .astro/dag_integrity_exceptions.txt")
    for error in DagBag(path).import_errors.values():
        pytest.fail(error, pytrace=False)
