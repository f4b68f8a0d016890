"""At the end of a run every number is the same in all views, before it is rounded for people."""

from __future__ import annotations

import html
import json
import re

import pytest

from taktline import line
from taktline._observe import pages, web
from taktline._observe.measures import cost, duration, rate, size
from taktline.abc import Observer
from taktline.otel import Telemetry
from taktline.views import notebook
from taktline.views.metrics import RUN_METRICS, STEP_METRICS, prometheus_text

export = pytest.importorskip("opentelemetry.sdk.metrics.export")
sdk = pytest.importorskip("opentelemetry.sdk.metrics")


class Ears(Observer):
    report = None

    def ends(self, report):
        self.report = report


def parse(n):
    return sum(range(50)) and 1_000 // (n % 997)


def score(n):
    return n * 2


@pytest.mark.parametrize("how", ["loop", "auto", "pool", "queues", "line"])
def test_text_json_html_notebook_trace_and_metrics_tell_one_report(how, tmp_path, monkeypatch):
    reader, ears = export.InMemoryMetricReader(), Ears()
    run = line(parse, score, name="orders")(
        range(3_000), how=how, workers=2, on_error="skip", trace=tmp_path / "run.json", progress=False,
        observer=[ears, Telemetry(sdk.MeterProvider([reader]))],
    )  # fmt: skip
    list(run)
    report, snapshot = run.report, run.snapshot()
    assert report == ears.report == run.report
    facts = report.to_dict()
    assert json.loads(report.to_json()) == json.loads(json.dumps(facts))

    # The snapshot, and through it progress and Prometheus.
    for name in (
        "records_in",
        "records_out",
        "failed",
        "skipped",
        "retried",
        "seconds",
        "steps",
        "workers",
        "how",
        "total",
    ):
        assert getattr(snapshot, name) == getattr(report, name), name
    exposed = dict(re.findall(r"^(taktline\S+) (\S+)$", prometheus_text(snapshot), re.MULTILINE))
    for metric in RUN_METRICS:
        if metric.kind == "counter":
            assert float(exposed[f'{metric.prometheus}{{line="orders"}}']) == metric.of(report)
    for step in report.steps:
        for metric in STEP_METRICS:
            assert float(exposed[f'{metric.prometheus}{{line="orders",step="{step.name}"}}']) == metric.of(step)

    # OpenTelemetry, which is told what is more from time to time.
    told = {
        (metric.name, point.attributes.get("step", "")): point.value
        for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics
        for metric in scope.metrics for point in metric.data.data_points if hasattr(point, "value")
    }  # fmt: skip
    for metric in RUN_METRICS:
        if metric.kind == "counter":
            assert told.get((metric.name, ""), 0) == metric.of(report)
    for step in report.steps:
        assert told["taktline.step.records", step.name] == step.records
        assert told.get(("taktline.step.failed", step.name), 0) == step.failed

    # The trace's last mark.
    marks = [each for each in json.loads((tmp_path / "run.json").read_text()) if each["ph"] == "i"]
    last = marks[-1]
    assert last["args"] == {
        "verdict": str(report.verdict), "records_in": report.records_in, "records_out": report.records_out,
        "failed": report.failed,
    }  # fmt: skip
    assert last["ts"] == round(report.seconds * 1e6, 1)

    # What people read: each figure of the report, as it is written for people, stands in text and page.
    figures = [
        f"{report.records_in:,} in", f"{report.records_out:,} out", f"{report.skipped:,} skipped", duration(report.seconds),
        rate(report.records_in / report.seconds), f"{report.cpu_utilisation:.0%} of", size(report.peak_memory),
        *(f"{step.name} {cost(step.ns_per_record)}" for step in report.steps),
    ]  # fmt: skip
    written = " ".join(pages.report_text(facts).split())
    page = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", web.report_html(facts))).split())
    for figure in figures:
        assert figure in written, figure
    for step in report.steps:
        row = f"{step.name} {step.records:,} {duration(step.busy)} {duration(step.waiting)} {duration(step.blocked)}"
        assert f"{row} {cost(step.ns_per_record)}" in page
    for figure in figures[:-2]:
        assert figure in page, figure
    assert str(report) == pages.report_text(facts)

    # A notebook, which shows exactly these two.
    shown = []
    monkeypatch.setattr(notebook.Notebook, "_put", lambda self, data: shown.append(data))
    notebook.Notebook().end(None, report)
    assert shown == [{"text/plain": str(report), "text/html": report._repr_html_()}]
    report.to_html(tmp_path / "run.html")
    assert report._repr_html_() in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_run_that_failed_tells_the_same_everywhere_too(how, tmp_path):
    ears = Ears()
    run = line(parse, score)(
        range(100_000), how=how, workers=2, trace=tmp_path / "run.json", observer=ears, progress=False
    )
    with pytest.raises(ZeroDivisionError):
        list(run)
    report = run.report
    assert report == ears.report
    assert (report.complete, report.total) == (False, 100_000)
    assert report.error.startswith("ZeroDivisionError")
    last = [each for each in json.loads((tmp_path / "run.json").read_text()) if each["ph"] == "i"][-1]
    assert (last["name"], last["args"]["records_in"]) == ("stopped", report.records_in)
    for text in (str(report), report._repr_html_()):
        assert "ZeroDivisionError" in text
        assert f"{100_000 - report.records_in:,} of 100,000 records" in text
