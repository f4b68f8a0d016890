"""One Airflow for these tests: its own home folder and metadata database, everything on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
HOME = Path(tempfile.mkdtemp(prefix="taktline-airflow-"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = free_port()

# Airflow reads its settings when it is imported: they must be there before any test module is.
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(HERE / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__EXECUTOR="LocalExecutor",
    AIRFLOW__CORE__PARALLELISM="2",
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="False",  # a login is asked for
    AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{PORT}/execution/",
    AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{PORT}",
    AIRFLOW__API_AUTH__JWT_SECRET="for these tests alone, on loopback, 64 characters or some more ..",
    AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="1",
    AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="60",  # as on a busy machine
    AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY="1",
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="20",
    AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="2",
    AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK="False",
    AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="3600",
    AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
    TAKTLINE_TEST_DATA=str(HOME / "data"),
    NO_COLOR="1",
)


def airflow(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command of Airflow's, with its output."""
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HOME, **options)


ONE_RUN = """
import sys
from airflow.utils.types import DagRunType

DagRunType.generate_run_id = lambda kind, *, suffix: f"{kind.value}__{sys.argv[4]}"
from airflow.__main__ import main

main()
"""


def run_of(dag: str, day: str, *arguments: str, **options: Any) -> str:
    """The log of a DAG's run for a day by `airflow dags test`. A second one for the same day is the same DAG run, as it is
    when its tasks were cleared: Airflow would call it after the time."""
    command = [sys.executable, "-c", ONE_RUN, "dags", "test", dag, day, *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HOME, **options)
    return ended.stdout


class Metadata:
    """What Airflow's database says."""

    def rows(self, query: str, *values: Any) -> list[Any]:
        with sqlite3.connect(HOME / "airflow.db", timeout=30) as database:
            return database.execute(query, values).fetchall()

    def states(self, dag: str) -> dict[str, str]:
        """The state of each task of the DAG's only run; mapped ones by task and index."""
        found = self.rows("select task_id, map_index, state from task_instance where dag_id = ?", dag)
        return {f"{task}[{index}]" if index >= 0 else task: state for task, index, state in found}

    def xcom(self, dag: str, task: str, key: str = "return_value") -> Any:
        """What a task handed on."""
        ((value,),) = self.rows("select value from xcom where dag_id = ? and task_id = ? and key = ?", dag, task, key)
        return json.loads(value) if isinstance(value, str) else value


@pytest.fixture(scope="session", autouse=True)
def home():
    """Airflow's home with its database; gone at the end."""
    (HOME / "data").mkdir()
    made = airflow("db", "migrate")
    assert made.returncode == 0, made.stdout
    shutil.copy(HOME / "airflow.db", HOME / "empty.db")
    yield HOME
    shutil.rmtree(HOME)


@pytest.fixture
def data(home):
    """The folder that the DAGs under test read from and write to."""
    return home / "data"


@pytest.fixture(scope="session")
def metadata():
    return Metadata()
