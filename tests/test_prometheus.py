"""The board and the alerts, asked of a real Prometheus that scrapes the page of a real run."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from taktline import line, step
from taktline._crew.machines import agents_here
from taktline.abc import Health, Live
from taktline.cli.serving import HealthPage

METRICS = Path(__file__).parents[1] / "docs/metrics"
WINDOW = "5s"  # in the place of what Grafana and the rules take


@pytest.fixture(scope="module")
def programs():
    """Debian's prometheus and promtool."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if None in found:
        pytest.skip("no Prometheus on this machine: install Debian's package prometheus")
    return found


class Feed(Live):
    """Gives a record every few milliseconds until it is over."""

    def __init__(self):
        self.over = threading.Event()
        self.count = 0

    def take(self, most, seconds):
        if self.over.wait(0.005):
            return None
        self.count += 1
        return [self.count]

    def health(self):
        return Health(backlog=100 - self.count % 50, lag=2.5)


tried = set()


def parse(n):
    if n not in tried and n % 7 == 0:
        tried.add(n)
        raise OSError("once")
    return n


def score(n):
    if n % 5 == 0:
        raise ValueError("five")
    return sum(range(1_000)) and n


@contextmanager
def scraped(programs, folder):
    """A Prometheus that scrapes a run; its address."""
    feed = Feed()
    run = line(step(parse, retries=2, backoff=0), score, name="orders")(
        feed, on=agents_here(2), on_error="skip", progress=False
    )
    thread = threading.Thread(target=lambda: [None for _ in run])
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with closing(HealthPage("0", 300.0)) as health:
        health.watch(run.snapshot)
        target = health.url.removeprefix("http://").rstrip("/")
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n"
            f"rule_files: [{METRICS / 'alerts.yml'}]\n"
            f"scrape_configs: [{{job_name: taktline, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        thread.start()
        server = subprocess.Popen(
            [programs[0], f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)
            feed.over.set()
            thread.join(60)


def asked(url, path, **parameters):
    """What the server answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def queries():
    """All that the board and the rules ask; of a rule what is held against its limit."""
    board = json.loads((METRICS / "grafana.json").read_text())
    for panel in board["panels"]:
        for each in panel["targets"]:
            yield f"{panel['title']}: {each['legendFormat']}", each["expr"].replace("$line", ".*")
    for rule in yaml.safe_load((METRICS / "alerts.yml").read_text())["groups"][0]["rules"]:
        yield rule["alert"], re.sub(r"\s(>|==)\s[\d.]+$", "", rule["expr"])


def test_each_query_of_the_board_and_of_the_alerts_gives_data(programs, tmp_path):
    missing = dict(queries())
    pause = threading.Event()
    with scraped(programs, tmp_path) as url:
        while missing:  # the test's own timeout ends it, and says what is missing
            for name, query in list(missing.items()):
                query = query.replace("$__rate_interval", WINDOW).replace("[15m]", f"[{WINDOW}]")
                found = asked(url, "query", query=query)
                if found is not None and any(each["value"][1] != "NaN" for each in found["result"]):
                    del missing[name]
            pause.wait(0.5)
        rules = asked(url, "rules")["groups"][0]["rules"]
        assert {each["health"] for each in rules} <= {"ok", "unknown"}
        assert next(each for each in rules if each["name"] == "TaktlineDown")["state"] == "inactive"


def test_the_rules_are_ones(programs):
    done = subprocess.run([programs[1], "check", "rules", METRICS / "alerts.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


ALERTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="taktline", instance="a"}}', values: '0x60'}}
      - {{series: 'taktline_stalled{{line="l"}}', values: '1x60'}}
      - {{series: 'taktline_source_refused{{line="l"}}', values: '1x60'}}
      - {{series: 'taktline_source_lag_seconds{{line="l"}}', values: '400x60'}}
      - {{series: 'taktline_records_failed_total{{line="l"}}', values: '0+2x60'}}
      - {{series: 'taktline_records_read_total{{line="l"}}', values: '0+100x60'}}
      - {{series: 'taktline_workers_ended_total{{line="l"}}', values: '0+1x60'}}
    alert_rule_test:
"""
SUMMARIES = {
    "TaktlineDown": ("job: taktline, instance: a", "page", "a does not answer"),
    "TaktlineStalled": ("line: l", "page", "l gets nothing done, though there is something to do"),
    "TaktlineRefused": ("line: l", "page", "l gets no records from its source"),
    "TaktlineFailing": ("line: l", "ticket", "more than 1 % of the records of l fail"),
    "TaktlineLags": ("line: l", "ticket", "l is more than five minutes behind its source"),
    "TaktlineWorkersEnd": ("line: l", "ticket", "workers of l end again and again"),
}


def test_each_alert_fires_when_it_is_to(programs, tmp_path):
    text = ALERTS.format(rules=METRICS / "alerts.yml")
    for name, (labels, severity, summary) in SUMMARIES.items():
        text += (
            f"      - {{eval_time: 50m, alertname: {name}, exp_alerts: [{{exp_labels: {{{labels}, severity: {severity}}}, "
            f"exp_annotations: {{summary: '{summary}', runbook_url: 'docs/metrics.md#{name.lower()}'}}}}]}}\n"
        )
    (tmp_path / "test.yml").write_text(text)
    done = subprocess.run([programs[1], "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
