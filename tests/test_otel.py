"""Runs as OpenTelemetry has them, by the real SDK: every number is recorded in the caller's process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from taktline import LineError, line
from taktline._crew.machines import agents_here
from taktline.otel import EVENTS, Telemetry
from taktline.views.metrics import RUN_METRICS, STEP_METRICS

metrics = pytest.importorskip("opentelemetry.sdk.metrics")
export = pytest.importorskip("opentelemetry.sdk.metrics.export")
trace = pytest.importorskip("opentelemetry.sdk.trace")
spans_to = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


class Heard:
    """A meter and a tracer that keep what they are told."""

    def __init__(self):
        self._reader = export.InMemoryMetricReader()
        self._spans = in_memory.InMemorySpanExporter()
        tracing = trace.TracerProvider()
        tracing.add_span_processor(spans_to.SimpleSpanProcessor(self._spans))
        self.telemetry = Telemetry(metrics.MeterProvider([self._reader]), tracing)

    @property
    def spans(self):
        return self._spans.get_finished_spans()

    def points(self, of="step"):
        """The newest points, by name and this label."""
        found = self._reader.get_metrics_data()
        return {
            (metric.name, point.attributes.get(of, "")): point
            for resource in found.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
            for point in metric.data.data_points
        }  # fmt: skip


def parse(n):
    return 1 // (n - 700)


@pytest.fixture
def heard():
    return Heard()


@pytest.mark.parametrize("how", ["loop", "auto", "pool", "queues", "line"])
def test_the_numbers_are_those_of_the_report(how, heard):
    flow = line(abs, parse, name="orders")
    report = flow.run(range(2_000), how=how, workers=2, on_error="skip", observer=heard.telemetry, progress=False)
    points = heard.points()
    for metric in RUN_METRICS:
        if metric.kind == "counter" and (value := metric.of(report)):
            assert points[metric.name, ""].value == value
    for step in report.steps:
        for metric in STEP_METRICS:
            if value := metric.of(step):
                told = points[metric.name, step.name].value
                # A counter does not go back, and is a sum of what came to it at each look.
                assert told > value * (1 - 1e-9) if metric.unit == "s" else told == value
    assert points["taktline.records.failed", ""].value == 1
    assert points["taktline.records.in_flight", ""].value == 0
    if how not in ("pool", "queues"):
        assert points["taktline.batch.records", ""].sum == 2_000
    (span,) = heard.spans
    assert span.name == "taktline.run"
    assert span.attributes["taktline.line"] == "orders"
    assert span.attributes["taktline.records.read"] == 2_000
    assert span.attributes["taktline.seconds"] == report.seconds
    assert span.status.is_unset


def test_a_failed_run_has_the_errors_type_and_no_value_of_a_record(heard):
    def refuses(row):
        raise ValueError(f"no such card: {row['card']}")

    with pytest.raises(ValueError):
        line(refuses).run([{"card": "4111 1111"}], observer=heard.telemetry, progress=False)
    (span,) = heard.spans
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == "ValueError"
    assert "4111" not in span.to_json()


def test_one_telemetry_hears_several_runs_one_after_the_other(heard):
    for _ in range(3):
        line(abs, name="orders").run(range(100), observer=heard.telemetry, progress=False)
    assert len(heard.spans) == 3
    assert heard.points()["taktline.records.read", ""].value == 300


def test_workers_that_end_are_counted_and_a_spans_events_are_bounded(heard, tmp_path):
    def dies(n):
        if n % 100 == 50 and not os.path.exists(tmp_path / str(n)):
            open(tmp_path / str(n), "w").close()
            os._exit(3)
        return n

    report = line(dies).run(range(400), how="line", workers=1, batch_size=10, observer=heard.telemetry, progress=False)
    assert report.workers_ended == 4
    assert heard.points()["taktline.workers.ended", ""].value == 4
    (span,) = heard.spans
    assert [event.name for event in span.events] == ["worker ended"] * 4
    assert len(span.events) <= EVENTS


def test_each_node_has_its_numbers_and_nobody_is_there_at_the_end(heard):
    def source():
        while sum(node.records > 0 for node in run.snapshot().nodes) < 2:
            yield -1

    run = line(abs)(source(), on=agents_here(2), batch_size=10, observer=heard.telemetry, progress=False)
    assert {*run} == {1}
    points = heard.points(of="node")
    for node in run.report.nodes:
        assert points["taktline.node.records", node.name].value == node.records > 0
        assert points["taktline.node.busy", node.name].value == node.busy
        assert points["taktline.node.workers", node.name].value == 0


def test_without_an_sdk_nothing_is_told_and_without_the_api_it_says_what_to_install(monkeypatch):
    assert line(abs).run(range(9), observer=Telemetry(), progress=False).records_out == 9
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(LineError, match=r"pip install 'taktline\[otel\]'"):
        Telemetry()


def test_the_command_tells_a_program_that_was_set_up_by_its_environment(tmp_path):
    (tmp_path / "steps.py").write_text("def parse(row):\n    return row\n")
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n' * 50)
    program = (
        "import sys\nfrom opentelemetry.sdk.trace import TracerProvider\nfrom opentelemetry import trace\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider(); trace.set_tracer_provider(provider)\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "from taktline.cli.commands import run_main\nsys.exit(run_main(sys.argv[1:]))\n"
    )
    asked = ["run", "steps.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--otel"]
    done = subprocess.run([sys.executable, "-c", program, *asked], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"taktline.records.read": 50' in done.stdout


def test_nothing_of_it_is_loaded_where_it_is_not_asked_for():
    code = "import sys; from taktline import line; list(line(abs)(range(9))); print('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
