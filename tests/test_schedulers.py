"""What docs/schedulers.md says: its programs are killed and begun again, its units and manifests looked at."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from queues.waiting import until

from taktline import read

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/schedulers.md").read_text()
FILES = dict(re.findall(r"```\w+ title=(\S+)\n(.*?)```", PAGE, re.DOTALL))
# Long enough that some of it is safe while most is to come, on a fast machine too: a mark is made each half second.
ORDERS = [{"id": n, "amount": n, "each": 2, "takes": 0.002} for n in range(3000)]
PRICED = [{"id": n, "total": 2 * n} for n in range(3000)]
UNITS = ["nightly-orders.service", "nightly-orders.timer", "orders-worker.service"]
MANIFESTS = ["job.yaml", "worker.yaml", "sharded.yaml"]


@pytest.fixture
def folder(tmp_path):
    """The files of the page, some orders, and a `taktline` on the path."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in ORDERS))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/taktline"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m taktline "$@"\n')
    for each in (command, tmp_path / "nightly.sh"):
        each.chmod(0o755)
    return tmp_path


def start(folder, *command, **variables):
    """A process group of its own, so that all of it can be killed."""
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")]), **variables,
    }  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill_amid(folder, journal, *command, **variables):
    """Kill all that the command has started, once some of it is delivered."""
    process = start(folder, *command, **variables)
    part = folder / f".{journal.removesuffix('.journal')}.jsonl.part"
    until(lambda: part.exists() and part.stat().st_size > 0, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def end_well(folder, *command, **variables):
    process = start(folder, *command, **variables)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, said + errors
    return said


def test_the_script_for_cron_goes_on_after_a_kill_and_does_nothing_beside_or_behind_it(folder):
    if shutil.which("flock") is None:
        pytest.skip("no flock: it is in Debian's package util-linux")
    command = ["./nightly.sh", "monday"]
    kill_amid(folder, "priced-monday.journal", *command)
    first = start(folder, *command)
    until(lambda: (folder / ".priced-monday.jsonl.part").exists(), first)
    end_well(folder, *command)  # beside it
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert list(read(folder / "priced-monday.jsonl")) == PRICED
    written = (folder / "priced-monday.jsonl").stat().st_mtime_ns
    end_well(folder, *command)  # behind it
    assert (folder / "priced-monday.jsonl").stat().st_mtime_ns == written


def test_a_run_beside_another_one_may_be_started_again_and_says_so_by_its_code(folder):
    long = [{"id": n, "amount": n, "each": 2, "takes": 600 if n == 50 else 0} for n in range(100)]
    (folder / "long.jsonl").write_text("".join(json.dumps(order) + "\n" for order in long))
    run = ["taktline", "run", "steps.py:price", "--in", "long.jsonl", "--quiet"]
    first = start(folder, *run, "--out", "priced.jsonl", "--journal", "priced.journal")
    until(lambda: (folder / ".priced.jsonl.part").exists(), first)
    for given in (["other.jsonl", "--journal", "priced.journal"], ["priced.jsonl", "--journal", "other.journal"]):
        second = start(folder, *run, "--out", *given)
        _, errors = second.communicate(timeout=120)
        assert (second.returncode, errors.count("TK110")) == (1, 1), errors
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_the_line_of_the_crontab_makes_the_nights_file(folder):
    if shutil.which("flock") is None:
        pytest.skip("no flock: it is in Debian's package util-linux")
    (command,) = re.findall(r"^    \*/10 0-5 \* \* \*  (.*)$", PAGE, re.MULTILINE)
    assert re.findall(r"(?<!\\)%", command) == []  # there cron would end it
    end_well(folder, "/bin/sh", "-c", command.replace("\\%", "%").replace("/srv/orders", str(folder)))
    (made,) = folder.glob("priced-????-??-??.jsonl")
    assert list(read(made)) == PRICED


def test_systemd_has_nothing_to_say_about_the_units(folder):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: install Debian's package systemd")
    for name in UNITS:
        text = FILES[name].replace("/srv/orders", str(folder)).replace("/usr/bin/python3", sys.executable)
        (folder / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *UNITS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if "orders" in line]
    assert not ours
    (folder / UNITS[0]).write_text("[Service]\nType=oneshot\nExecStart=/nowhere\n")  # it does look
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert "/nowhere" in done.stderr


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_manifests(name):
    yaml = pytest.importorskip("yaml")
    validate = pytest.importorskip("kubernetes_validate")
    for manifest in yaml.safe_load_all(FILES[name]):
        validate.validate(manifest, validate.latest_version(), strict=True)
        manifest["spec"]["replicaz"] = 1
        with pytest.raises(validate.ValidationError):  # it does look
            validate.validate(manifest, validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["worker.yaml", "sharded.yaml"])
def test_the_grace_period_is_longer_than_the_drain(name):
    yaml = pytest.importorskip("yaml")
    pod = next(yaml.safe_load_all(FILES[name]))["spec"]["template"]["spec"]
    (program,) = (each for each in pod["containers"][0]["command"] if each.endswith(".py"))
    drain = int(re.search(r"drain=(\d+)", FILES[program]).group(1))
    assert drain + 15 <= pod["terminationGracePeriodSeconds"]


def test_the_program_of_the_job_goes_on_after_a_kill(folder):
    command = [sys.executable, "nightly.py"]
    kill_amid(folder, "priced.journal", *command, DATA=str(folder))
    end_well(folder, *command, DATA=str(folder))
    assert list(read(folder / "priced.jsonl")) == PRICED
    assert "already done" in end_well(folder, *command, DATA=str(folder))


@pytest.fixture
def redis_client():
    redis = pytest.importorskip("redis")
    with servers.redis_server() as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.url = server.url
        yield client


def test_the_worker_says_that_it_is_alive_also_while_nothing_comes(folder, redis_client):
    worker = start(folder, sys.executable, "worker.py", QUEUE=redis_client.url, ALIVE=str(folder / "alive"))
    alive = folder / "alive"
    until(alive.exists, worker)
    for _ in range(3):
        before = alive.stat().st_mtime_ns
        until(lambda before=before: alive.stat().st_mtime_ns > before, worker)
    for order in ORDERS[:50]:
        redis_client.xadd("orders", {"data": json.dumps(order)})
    until(lambda: redis_client.exists("priced") and redis_client.xlen("priced") == 50, worker)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    startup, liveness = (
        [part.replace("/tmp/alive", str(alive)) for part in probe["exec"]["command"]] for probe in probes("worker.yaml")
    )
    for each in (startup, liveness):
        subprocess.run(each, check=True, cwd="/")
    os.utime(alive, (0, 0))
    assert subprocess.run(liveness, cwd="/").returncode == 1
    alive.unlink()
    assert subprocess.run(startup, cwd="/").returncode == 1


def probes(name):
    yaml = pytest.importorskip("yaml")
    (container,) = next(yaml.safe_load_all(FILES[name]))["spec"]["template"]["spec"]["containers"]
    return container["startupProbe"], container["livenessProbe"]


def test_the_sharded_worker_delivers_each_message_once(folder, redis_client):
    variables = {"QUEUE": redis_client.url, "DATA": str(folder), "SHARD": "3"}
    for order in ORDERS:
        redis_client.xadd("orders:3", {"data": json.dumps(order)})

    def there():
        if not (folder / "priced.sqlite").exists():
            return 0
        with sqlite3.connect(f"file:{folder / 'priced.sqlite'}?mode=ro", uri=True) as table:
            try:
                return table.execute("SELECT count(*) FROM priced").fetchone()[0]
            except sqlite3.OperationalError:
                return 0

    worker = start(folder, sys.executable, "sharded.py", **variables)
    until(lambda: there() > 100, worker)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    redis_client.delete(*redis_client.keys("taktline:{orders:3}:pricing:sole"))  # its lease has run out
    worker = start(folder, sys.executable, "sharded.py", **variables)
    until(lambda: there() >= len(ORDERS), worker)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    with sqlite3.connect(folder / "priced.sqlite") as table:
        assert table.execute("SELECT id, total FROM priced ORDER BY rowid").fetchall() == [
            (row["id"], row["total"]) for row in PRICED
        ]


# --- Dagster and Prefect, in an environment of their own ---


@pytest.mark.parametrize("name", ["dagster", "prefect"])
def test_others_go_on_after_a_kill(folder, name):
    interpreter = os.environ.get("TAKTLINE_SCHEDULERS")
    if interpreter is None:
        pytest.skip(f"{name} is not here: python3 dev.py schedulers sets up an environment that has it")
    home = str(folder / "home")
    variables = {
        "DAGSTER_HOME": home, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DAGSTER_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    os.mkdir(home)
    (folder / "home/dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    command = [interpreter, f"{name}_orders.py"]
    kill_amid(folder, "priced.journal", *command, **variables)
    end_well(folder, *command, **variables)
    assert list(read(folder / "priced.jsonl")) == PRICED
