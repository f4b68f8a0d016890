"""Airflow with the CeleryExecutor: a scheduler, a database and a broker, which nothing happens to, and hosts for tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from faults.brokers import RedisServer, free_port
from faults.hosts.host import Host
from faults.stores import PostgresServer, object_store

DAGS = Path(__file__).parent / "dags"
DAG = "nightly"
AT_ONCE = 4  # tasks on a host
HEARTBEAT_TIMEOUT = 20  # seconds without one, after which Airflow tries a task again
VISIBILITY_TIMEOUT = 40  # seconds after which the broker gives a message that nobody has acknowledged to somebody else
START_LIMIT = 300.0  # seconds
PARTS = ("api-server", "dag-processor", "scheduler")
BUCKET = "nights"  # no other one in the same process, where all stores have the same


@dataclass
class Cluster:
    """What is at work. `store`: s3fs, as the tasks have it."""

    folder: Path
    environment: dict[str, str]
    database: str
    hosts: list[Host]
    store: Any

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What Airflow's database says."""
        with psycopg.connect(self.database) as database:
            found: list[Any] = database.execute(query, values).fetchall()
            return found

    def airflow(self, *arguments: str) -> str:
        """One command of Airflow's; what it says. Raises RuntimeError where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=self.environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} has failed:\n{done.stdout[-4_000:]}")
        return done.stdout

    def wait_for(self, what: str, condition: Callable[[], Any]) -> None:
        until = time.monotonic() + START_LIMIT
        while not condition():
            if time.monotonic() > until:
                raise RuntimeError(f"waited in vain for {what}:\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of those of all parts."""
        paths = [*self.folder.glob("*.log"), *(host.folder / "log" for host in self.hosts)]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3_000:]}" for path in paths if path.exists())


@contextmanager
def cluster(folder: Path, tasks: int, hosts: int = 2) -> Iterator[Cluster]:
    """All of it, below a folder. Raises NoServer where a server is not installed."""
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        broker = stack.enter_context(RedisServer())
        url = stack.enter_context(object_store())
        others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment = others | settings(folder, server.url, broker, url) | {"TASKS": str(tasks)}
        made = Cluster(folder, environment, server.url, [], store_at(url))
        for number in range(hosts):
            name = f"host{number}"
            # Without --celery-hostname: by the provider of Airflow 3.1 workers take tasks then, and never run them
            # (apache/airflow#59707).
            command = [
                sys.executable, "-m", "airflow", "celery", "worker", "--concurrency", str(AT_ONCE),
                "--skip-serve-logs", "--without-mingle", "--without-gossip",
            ]  # fmt: skip
            made.hosts.append(Host(folder / name, command, environment))
        made.airflow("db", "migrate")
        stack.enter_context(parts(made))
        made.wait_for("the DAG", lambda: made.rows("select 1 from dag where dag_id = %s", DAG))
        try:
            for host in made.hosts:
                host.start()
            yield made
        finally:
            for host in made.hosts:
                if host.up:
                    host.kill()


@contextmanager
def parts(made: Cluster) -> Iterator[None]:
    """The scheduler and what belongs to it."""
    port = made.environment["AIRFLOW__API__PORT"]
    more = {
        "api-server": ("--host", "127.0.0.1", "--port", port, "--workers", "1"),
        "scheduler": ("--skip-serve-logs",),
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name in PARTS:
            command = [sys.executable, "-m", "airflow", name, *more.get(name, ())]
            with open(made.folder / f"{name}.log", "wb") as log:
                started.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=made.folder, env=made.environment, start_new_session=True
                    )
                )
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def settings(folder: Path, database: str, broker: RedisServer, store: str) -> dict[str, str]:
    """What Airflow is told by the environment, on each host the same."""
    port = str(free_port())
    keys = {"login": "test", "password": "test", "extra": {"endpoint_url": store, "region_name": "us-east-1"}}
    sqlalchemy = database.replace("postgresql://", "postgresql+psycopg2://")
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__PARALLELISM": "100",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__MAX_CONSECUTIVE_FAILED_DAG_RUNS_PER_DAG": "0",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API_AUTH__JWT_SECRET": "for this experiment alone, on loopback, 64 characters or more ..",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlalchemy,
        "AIRFLOW__CELERY__BROKER_URL": broker.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{sqlalchemy}",
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW_CONN_STORE": json.dumps({"conn_type": "aws", **keys}),
        "NO_COLOR": "1",
    }


def store_at(url: str) -> Any:
    """The store, with its bucket."""
    import s3fs

    store = s3fs.S3FileSystem(
        key="test", secret="test", endpoint_url=url, use_listings_cache=False, skip_instance_cache=True
    )
    store.mkdir(BUCKET)
    return store
