"""The health page of a run: well while there is nothing to do, not well where it is stalled or refused."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from present import present

from taktline import LineError, line
from taktline.abc import Health, Live
from taktline.cli.serving import HealthPage, address

SECRET = "4111 1111 1111 1111"


def asked(url):
    """Code, headers and body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@contextmanager
def serving(run, stall=300.0):
    with closing(HealthPage("0", stall)) as health:
        health.watch(run if callable(run) else run.snapshot)
        yield health.url


@pytest.fixture
def done():
    run = line(abs, str, name="<orders>")(range(-100, 0), progress=False, how="loop")
    list(run)
    return run


@pytest.mark.parametrize(("said", "found"), [("8080", ("127.0.0.1", 8080)), ("localhost:1", ("127.0.0.1", 1)),
                                             ("0.0.0.0:8080", ("0.0.0.0", 8080)), ("[::]:80", ("::", 80))])  # fmt: skip
def test_a_port_alone_is_this_machine_alone(said, found):
    assert address(said) == found


@pytest.mark.parametrize("said", ["", "http", "8080:", "99999", "orders.example:80", "::1:80", "0.0.0.0", "-1"])
def test_what_is_no_address_is_refused(said):
    with pytest.raises(LineError, match="give a port"):
        address(said)


def test_a_port_that_somebody_has_is_refused():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(LineError, match="Name another port"):
        HealthPage(str(taken.getsockname()[1]), 300)


def test_the_three_paths_and_no_other(done):
    with serving(done) as url:
        code, headers, page = asked(url)
        assert code == 200
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "&lt;orders&gt;" in page
        assert "<script" not in page
        assert "100" in page
        code, headers, body = asked(f"{url}healthz?verbose=1")
        assert (code, json.loads(body)["status"], json.loads(body)["read"]) == (200, "ok", 100)
        code, headers, body = asked(f"{url}metrics")
        assert code == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'taktline_records_read_total{line="<orders>"} 100' in body
        assert 'taktline_stalled{line="<orders>"} 0.0' in body
        assert asked(f"{url}steps.py")[0] == 404


def test_prometheus_reads_it(done):
    parser = pytest.importorskip("prometheus_client.parser")
    with serving(done) as url:
        families = {each.name for each in parser.text_string_to_metric_families(asked(f"{url}metrics")[2])}
    assert {"taktline_records_read", "taktline_step_busy_seconds", "taktline_stalled"} <= families


def test_a_run_that_has_nothing_to_do_is_well_and_one_that_stands_still_is_not(done):
    idle = done.snapshot()
    with serving(lambda: replace(idle, seconds=1e6, still=0.0)) as url:
        assert asked(f"{url}healthz")[0] == 200
    with serving(lambda: replace(idle, still=149.0)) as url:
        assert asked(f"{url}healthz")[0] == 200
    with serving(lambda: replace(idle, still=151.0)) as url:
        code, _, body = asked(f"{url}healthz")
        assert (code, json.loads(body)["status"]) == (503, "stalled")
        assert 'taktline_stalled{line="<orders>"} 1.0' in asked(f"{url}metrics")[2]
    with serving(lambda: replace(idle, still=1e9), stall=None) as url:
        assert asked(f"{url}healthz")[0] == 200
    with serving(lambda: replace(idle, refused="ServiceUnavailable since 7 s")) as url:
        code, _, body = asked(f"{url}healthz")
        assert (code, json.loads(body)["status"]) == (503, "refused")


class Feed(Live):
    """Gives what is put in, and says how it stands."""

    def __init__(self):
        self.records, self.standing, self.over = [], Health(), False
        self.asked = threading.Event()

    def take(self, most, seconds):
        some, self.records = self.records[:most], self.records[most:]
        self.asked.wait(0.01)
        return some or ([] if not self.over else None)

    def health(self):
        self.asked.set()
        return self.standing


def waits_for(gate, text):
    gate.wait(60)
    return text


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_live_run_is_well_while_idle_and_stands_still_with_a_record_at_work(how):
    feed, gate = Feed(), threading.Event()
    run = line(lambda text: waits_for(gate, text))(feed, how=how, start="threads", workers=1, progress=False)
    out = []
    thread = threading.Thread(target=lambda: out.extend(run))
    thread.start()
    try:
        with serving(run, stall=2.0) as url:
            assert feed.asked.wait(60)
            feed.standing = Health(backlog=7, lag=2.5)
            until(lambda: "taktline_source_backlog{line=" in asked(f"{url}metrics")[2])
            assert "} 2.5" in next(
                s for s in asked(f"{url}metrics")[2].splitlines() if s.startswith("taktline_source_lag")
            )
            assert asked(f"{url}healthz")[0] == 200
            feed.standing = Health(refused="ServiceUnavailable")
            until(lambda: asked(f"{url}healthz")[0] == 503)
            feed.standing = Health()
            until(lambda: asked(f"{url}healthz")[0] == 200)
            feed.records.append("record")
            until(lambda: json.loads(asked(f"{url}healthz")[2])["status"] == "stalled")
            gate.set()
            until(lambda: asked(f"{url}healthz")[0] == 200)
            feed.over = True
            thread.join(60)
            assert out == ["record"]
    finally:
        gate.set()
        feed.over = True
        thread.join(60)


def until(holds):
    """Ask until it holds; a test's own timeout ends it."""
    pause = threading.Event()
    while not holds():
        pause.wait(0.05)


def test_the_command_serves_and_shows_no_value_of_a_record(tmp_path):
    (tmp_path / "steps.py").write_text(
        "import os, time\n"
        "def parse(row):\n    return row['card']\n"
        "def check(card):\n"
        "    while not os.path.exists('go'): time.sleep(0.01)\n"
        "    if card == 'no': raise ValueError(f'no such card: {card}')\n"
        "    return card\n"
    )
    (tmp_path / "in.jsonl").write_text(f'{{"card": "{SECRET}"}}\n' * 50 + '{"card": "no"}\n')
    command = [
        sys.executable, "-m", "taktline", "run", "steps.py:parse,check", "--in", "in.jsonl", "--out", "out.jsonl", "--serve",
        "0", "--on-error", "skip", "--how", "line", "--workers", "2",
    ]  # fmt: skip
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        told = running.stderr.readline()
        url = present(re.search(r"http://127\.0\.0\.1:\d+/", told))[0]
        until(lambda: json.loads(asked(f"{url}healthz")[2]).get("in_flight", 0) > 0)
        pages = [asked(f"{url}{path}")[2] for path in ("", "healthz", "metrics")]
        (tmp_path / "go").touch()
        rest = running.communicate(timeout=120)[1]
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 3, rest
    assert not any(SECRET in page or "no such card" in page for page in pages)
    assert 'step="check"' in pages[2]


def test_a_wrong_address_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "in.jsonl").write_text("{}\n")
    (tmp_path / "steps.py").write_text("def parse(row):\n    return row\n")
    command = [
        sys.executable,
        "-m",
        "taktline",
        "run",
        "steps.py:parse",
        "--in",
        "in.jsonl",
        "--out",
        "o.jsonl",
        "--serve",
        "x",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--serve 'x': give a port" in done.stderr
    assert not (tmp_path / "o.jsonl").exists()
