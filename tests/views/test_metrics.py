"""The names of metrics are a contract, and what /metrics says is what Prometheus reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from taktline import line
from taktline.views.metrics import LONG, OTHERS, RUN_METRICS, STEP_METRICS, STEPS, Rising, prometheus_text, values

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "taktline_records_read_total", "taktline_records_delivered_total", "taktline_records_failed_total",
    "taktline_records_skipped_total", "taktline_records_retried_total", "taktline_records_in_flight", "taktline_workers",
    "taktline_workers_ended_total", "taktline_batch_size", "taktline_memory_bytes", "taktline_still_seconds",
    "taktline_source_length", "taktline_source_backlog", "taktline_source_lag_seconds", "taktline_source_refused",
    "taktline_step_records_total", "taktline_step_failed_total", "taktline_step_busy_seconds_total",
    "taktline_step_waiting_seconds_total", "taktline_step_blocked_seconds_total",
}  # fmt: skip


def snapshot(*steps, name=None, **options):
    run = line(*steps, name=name)(range(100), progress=False, **options)
    list(run)
    return run.snapshot()


def test_no_name_is_renamed_or_dropped():
    assert {each.prometheus for each in (*RUN_METRICS, *STEP_METRICS)} == NAMES


def test_the_page_lists_all_of_them():
    told = re.findall(
        r"^\| `(taktline\S+)` \| `(\w+)` \| (\w+) \| (\S+) \| (.+) \|$", (DOCS / "metrics.md").read_text(), re.M
    )
    assert told == [
        (each.name, each.prometheus, each.kind, each.unit, each.help) for each in (*RUN_METRICS, *STEP_METRICS)
    ]


def test_board_and_alerts_ask_for_no_other_names_and_each_alert_has_its_runbook():
    board = json.loads((DOCS / "metrics/grafana.json").read_text())
    asked = [each["expr"] for panel in board["panels"] for each in panel["targets"]]
    rules = (DOCS / "metrics/alerts.yml").read_text()
    found = {name for text in (*asked, rules) for name in re.findall(r"\btaktline_\w+", text)}
    assert found - {"taktline_stalled"} <= NAMES
    heads = set(re.findall(r"^### (\w+)$", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    alerts = re.findall(r"alert: (\w+)", rules)
    assert heads == {*alerts}
    assert re.findall(r"runbook_url: \"docs/metrics.md#(\w+)\"", rules) == [each.lower() for each in alerts]


def test_prometheus_reads_what_the_run_has_counted():
    parser = pytest.importorskip("prometheus_client.parser")
    run = snapshot(abs, str, name='or"ders\\ in\n2 lines', how="line", workers=2)
    families = {each.name: each for each in parser.text_string_to_metric_families(prometheus_text(run))}
    told = {
        (sample.name, sample.labels.get("step", "")): (sample.value, sample.labels["line"])
        for family in families.values() for sample in family.samples
    }  # fmt: skip
    assert all(line == run.name for _, line in told.values())
    assert told["taktline_records_read_total", ""][0] == 100
    assert told["taktline_step_records_total", "str"][0] == 100
    assert told["taktline_step_busy_seconds_total", "abs"][0] == run.steps[0].busy
    assert families["taktline_records_read"].type == "counter"
    assert families["taktline_workers"].type == "gauge"
    assert {name for name, _ in told} == NAMES - {"taktline_source_backlog", "taktline_source_lag_seconds"}


def test_labels_are_bounded():
    many = [abs] * (STEPS + 30)
    labels = [labels for metric, labels, _ in values(snapshot(*many, name="n" * 5_000)) if metric in STEP_METRICS]
    assert len({each["step"] for each in labels}) == STEPS + 1
    assert OTHERS in {each["step"] for each in labels}
    assert {len(each["line"]) for each in labels} == {LONG}
    whole = {metric: value for metric, labels, value in values(snapshot(*many)) if labels.get("step") == OTHERS}
    assert next(value for metric, value in whole.items() if metric.name == "taktline.step.records") == 30 * 100


def test_a_counter_never_goes_back():
    run = snapshot(abs, str)
    rising = Rising()
    less = replace(run, steps=tuple(replace(step, busy=step.busy / 2) for step in run.steps))
    assert prometheus_text(run, rising=rising) == prometheus_text(less, rising=rising) != prometheus_text(less)
