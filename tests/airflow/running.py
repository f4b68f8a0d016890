"""An Airflow at work: its API server, DAG processor, scheduler and, where asked for, triggerer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import psutil
from conftest import HOME, PORT

PATIENCE = 240.0  # seconds until something that must come has not come


def wait_for(what, condition):
    """The first true value of `condition`; fails where none comes."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}\n{logs()}"
        time.sleep(0.05)
    return value


def logs():
    return "\n".join(f"--- {path}\n{path.read_text()[-4000:]}" for path in sorted((HOME / "logs").rglob("*.log")))


def own_processes():
    """Every process that has this Airflow's home in its environment, without this one."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == str(HOME) and process.pid != os.getpid():
                found.add(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            pass
    return found


def answers():
    """Whether the API server does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v2/version", timeout=20) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def api(method, path, body):
    """One change by Airflow's API, as its pages make it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/api/v2/{path}", json.dumps(body).encode(), method=method,
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token()}"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        raise AssertionError(f"{method} {path}: {refused.code} {refused.read().decode()}\n{logs()}") from refused


def token(role="ADMIN"):
    """What a user of this role has after the login."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return SimpleAuthManager().generate_jwt(SimpleAuthManagerUser(username="somebody", role=role))


def page(path, token=None, cookie=None):
    """Status and text of one of the server's pages, as a browser with this cookie or a program with this token gets it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {"Cookie": f"_token={cookie}"} if cookie else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers=headers), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@contextmanager
def started(*more, **environment):
    """API server, DAG processor, scheduler and `more`, which know of no DAG yet; all ended at the end, and nothing of them
    left."""
    commands = {
        "api-server": ("--host", "127.0.0.1", "--port", str(PORT), "--workers", "1"),
        "dag-processor": (),
        "scheduler": ("--skip-serve-logs",),
        **dict.fromkeys(more, ("--skip-serve-logs",)),
    }
    for left in HOME.glob("airflow.db*"):  # DAGs of other tests: the scheduler would run them, too
        left.unlink()
    shutil.copy(HOME / "empty.db", HOME / "airflow.db")
    shutil.rmtree(HOME / "logs", ignore_errors=True)
    (HOME / "logs").mkdir()
    processes = []
    try:
        for name, arguments in commands.items():
            with open(HOME / "logs" / f"{name}.log", "w") as log:
                command = [sys.executable, "-m", "airflow", name, *arguments]
                processes.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=HOME, start_new_session=True, env=os.environ | environment
                    )
                )
        wait_for("the API server", answers)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    wait_for("the end of all processes", lambda: not own_processes())
