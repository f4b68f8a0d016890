"""The names of metrics are a contract, and what /metrics says is what Prometheus reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from taktline import NodeCount, line
from taktline.views.metrics import (
    LONG,
    NODE_METRICS,
    NODES,
    OTHERS,
    RUN_METRICS,
    STEP_METRICS,
    STEPS,
    Rising,
    prometheus_text,
    values,
)

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "taktline_records_read_total", "taktline_records_delivered_total", "taktline_records_failed_total",
    "taktline_records_skipped_total", "taktline_records_retried_total", "taktline_records_in_flight", "taktline_workers",
    "taktline_workers_ended_total", "taktline_batch_size", "taktline_memory_bytes", "taktline_still_seconds",
    "taktline_source_length", "taktline_source_backlog", "taktline_source_lag_seconds", "taktline_source_refused",
    "taktline_step_records_total", "taktline_step_failed_total", "taktline_step_busy_seconds_total",
    "taktline_step_waiting_seconds_total", "taktline_step_blocked_seconds_total", "taktline_node_workers",
    "taktline_node_records_total", "taktline_node_batches_total", "taktline_node_busy_seconds_total",
}  # fmt: skip
NODES_ALONE = {each.prometheus for each in NODE_METRICS}  # where workers are on other machines


def snapshot(*steps, name=None, **options):
    run = line(*steps, name=name)(range(100), progress=False, **options)
    list(run)
    return run.snapshot()


def test_no_name_is_renamed_or_dropped():
    assert {each.prometheus for each in (*RUN_METRICS, *STEP_METRICS, *NODE_METRICS)} == NAMES


def test_the_page_lists_all_of_them():
    told = re.findall(
        r"^\| `(taktline\S+)` \| `(\w+)` \| (\w+) \| (\S+) \| (.+) \|$", (DOCS / "metrics.md").read_text(), re.M
    )
    assert told == [
        (each.name, each.prometheus, each.kind, each.unit, each.help)
        for each in (*RUN_METRICS, *STEP_METRICS, *NODE_METRICS)
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
    assert {name for name, _ in told} == NAMES - {
        "taktline_source_backlog",
        "taktline_source_lag_seconds",
        *NODES_ALONE,
    }


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


def on_nodes(*names):
    """A run that had workers on these nodes; each has worked on ten records."""
    return replace(snapshot(abs), nodes=tuple(NodeCount(name, 2, 10, 1, 1.0) for name in names))


def test_nodes_are_told_apart_and_there_are_so_many_of_them_at_most():
    names = [f"node {n}" for n in range(NODES + 20)]
    told = {
        (metric.name, labels["node"]): value
        for metric, labels, value in values(on_nodes(*names, "n" * 5_000)) if metric in NODE_METRICS
    }  # fmt: skip
    assert {node for _, node in told} == {*names[:NODES], OTHERS}
    assert told["taktline.node.records", names[0]] == 10
    assert told["taktline.node.workers", OTHERS] == 21 * 2
    (long,) = {labels["node"] for metric, labels, _ in values(on_nodes("n" * 5_000)) if metric in NODE_METRICS}
    assert len(long) == LONG


def test_each_node_has_a_counter_of_its_own_that_never_goes_back():
    run, rising = on_nodes("a", "b"), Rising()
    text = prometheus_text(run, rising=rising)
    less = replace(run, nodes=tuple(replace(node, busy=0.5) for node in run.nodes))
    assert prometheus_text(less, rising=rising) == text
    found = re.findall(r'^taktline_node_busy_seconds_total\{line=".+",node="(.)"\} (\S+)$', text, re.MULTILINE)
    assert found == [("a", "1.0"), ("b", "1.0")]


def test_once_a_run_has_ended_nobody_is_on_its_nodes():
    run = line(abs)(range(100), progress=False)
    list(run)
    report = replace(run.report, nodes=on_nodes("a").nodes)
    told = {metric.name: value for metric, _, value in values(report) if metric in NODE_METRICS}
    assert told == {
        "taktline.node.workers": 0, "taktline.node.records": 10, "taktline.node.batches": 1, "taktline.node.busy": 1.0
    }  # fmt: skip
