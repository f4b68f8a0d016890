"""The project that `taktline init --astro` writes, in this Airflow: its own tests pass, and its DAG works."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import airflow as installed
import pytest
from conftest import airflow

from taktline.cli.commands import run_main

pytestmark = pytest.mark.skipif(
    installed.__version__.startswith("3.1."), reason="the project is for the image that its Dockerfile names"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("astro") / "orders"
    assert run_main(["init", "--astro", str(folder)]) == 0
    return folder


@pytest.fixture
def environment(project, tmp_path):
    """As in the image: the project is the working folder, and on the path. No variable of its own is set; what it puts
    among the temporary files is this test's."""
    return os.environ | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "PYTHONPATH": str(project),
        "TMPDIR": str(tmp_path),
    }


@pytest.mark.parametrize("tests", [".astro/test_dag_integrity_default.py", "tests"])
def test_its_own_tests_pass(tests, project, environment):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=project, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout


def test_its_parse_test_finds_a_broken_dag(project, environment):
    broken = project / "dags" / "broken.py"
    broken.write_text("import no_such_module  # of an Airflow DAG\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".astro/test_dag_integrity_default.py"]
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    broken.unlink()
    assert run.returncode == 1
    assert "No module named 'no_such_module'" in run.stdout


def test_its_nightly_dag_works(project, environment, tmp_path, metadata):
    done = airflow("dags", "test", "nightly_orders", env=environment)
    assert metadata.states("nightly_orders") == {"score": "success", "tell": "success"}, done.stdout
    orders = [json.loads(text) for text in (project / "include/data/orders.jsonl").read_text().splitlines()]
    (scored,) = (tmp_path / "orders").glob("*.jsonl")
    assert [json.loads(text)["id"] for text in scored.read_text().splitlines()] == [
        order["id"] for order in orders if order["paid"]
    ]
    assert [path.suffix for path in sorted((tmp_path / "orders").iterdir())] == [".html", ".jsonl"]


def test_its_drain_dag_works(project, environment, tmp_path, metadata, monkeypatch):
    from pubsub.bus import Bus  # of tests/pubsub: needs the client library, which the other tests here do not
    from pubsub.server import Server

    with Server() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        bus = Bus(server)
        topic, subscription = bus.make()
        bus.send(topic, range(3000))
        settings = json.dumps({"subscription": subscription, "idle": 1})
        environment |= {"PUBSUB_EMULATOR_HOST": server.address}
        done = airflow("dags", "test", "drain_events", "--conf", settings, env=environment)
        assert metadata.states("drain_events") == {"drain": "success"}, done.stdout
        assert server.left(subscription) == 0
        bus.close()
    drained, noted = sorted((tmp_path / "events").iterdir(), key=lambda path: path.name.startswith("."))
    assert noted.name.endswith(".journal.done")  # for when the task is cleared
    assert [json.loads(text)["text"] for text in drained.read_text().splitlines()] == [str(n) for n in range(3000)]
