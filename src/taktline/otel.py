"""Runs as metrics and spans of OpenTelemetry, by its own API: `pip install 'taktline[otel]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline._observe.versions import versions
from taktline.abc import Observer
from taktline.errors import LineError
from taktline.views.metrics import (
    BATCH_RECORDS,
    BATCH_SECONDS,
    COUNTER,
    NODE_METRICS,
    RUN_METRICS,
    STEP_METRICS,
    Labels,
    Metric,
    Rising,
    key,
    values,
)

EVENTS = 100  # of a span


class Telemetry(Observer):
    """Tells OpenTelemetry of a run: counters, gauges and two histograms of batches about four times a second, and one span.

    Give it as `observer=`; it may hear several runs, one after the other. `meter_provider` and `tracer_provider`: where to;
    by default the program's own, so that configuration chooses an SDK and its exporters. Without an SDK nothing is told.
    Everything is recorded in the caller's process: what forked workers record an SDK loses. Names and labels are those of
    docs/metrics.md; no value of a record is among them. Raises LineError where the API is not installed.

    >>> from taktline import line
    >>> line(abs).run(range(-9, 0), observer=Telemetry()).records_out
    9
    """

    def __init__(self, meter_provider: Any = None, tracer_provider: Any = None) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise LineError("telemetry needs the package opentelemetry-api: pip install 'taktline[otel]'") from error
        version = versions()["taktline"]
        meter = metrics.get_meter("taktline", version, meter_provider=meter_provider)
        self._tracer = trace.get_tracer("taktline", version, tracer_provider=tracer_provider)
        self._failed = trace.Status(trace.StatusCode.ERROR)
        make: Any = {COUNTER: meter.create_counter, "gauge": meter.create_gauge}
        self._told: dict[str, Any] = {
            each.name: make[each.kind](each.name, each.unit, each.help)
            for each in (*RUN_METRICS, *STEP_METRICS, *NODE_METRICS)
        }
        self._seconds = meter.create_histogram(*BATCH_SECONDS)
        self._records = meter.create_histogram(*BATCH_RECORDS)
        self._line: Labels = {}
        self._before: dict[tuple[str, ...], float] = {}  # what was told of each counter
        self._rising = Rising()
        # Seconds and records of batches, told some at a time: an SDK takes 9 µs a value so, and 55 alone, its code out of the
        # processor's caches by then.
        self._done: list[tuple[float, int]] = []
        self._span: Any = None
        self._left = EVENTS

    def begins(self, run: Any) -> None:
        self._before, self._rising, self._done = {}, Rising(), []
        self._left = EVENTS
        self._line = {"line": next(labels for _, labels, _ in values(run))["line"]}
        self._span = self._tracer.start_span("taktline.run", attributes={"taktline.line": self._line["line"]})
        self._tell(run)

    def heard(self, at: float, event: Any, actions: Sequence[Any]) -> None:
        what = type(event).__name__
        if what == "Done" and event.work is not None:
            self._done.append((event.work.seconds, event.work.records))
        elif what in ("Died", "Overran"):
            self._event("worker ended", {"taktline.worker": event.worker + 1})
        elif what == "WorkerLost":
            self._event("worker lost", {"taktline.worker": event.worker + 1})
        elif what == "Moved":
            self._event("moved", {"taktline.to": event.how})

    def looked(self, at: float, run: Any) -> None:
        self._tell(run)

    def ends(self, report: Any) -> None:
        self._tell(report)
        for metric in RUN_METRICS:
            if metric.name in ("taktline.records.in_flight", "taktline.workers", "taktline.still"):
                self._told[metric.name].set(0, self._line)
        said = {
            "taktline.how": report.how, "taktline.complete": report.complete, "taktline.records.read": report.records_in,
            "taktline.records.delivered": report.records_out, "taktline.records.failed": report.failed,
            "taktline.seconds": report.seconds, "taktline.cpu_seconds": report.cpu_seconds,
            "taktline.peak_memory": report.peak_memory, "taktline.bottleneck": report.verdict.bottleneck,
        }  # fmt: skip
        if report.error:
            said["error.type"] = report.error.partition(":")[0]
            self._span.set_status(self._failed)
        self._span.set_attributes(said)
        self._span.end()

    def _tell(self, run: Any) -> None:
        done, self._done = self._done, []
        for seconds, _ in done:
            self._seconds.record(seconds, self._line)
        for _, records in done:
            self._records.record(records, self._line)
        for metric, labels, value in values(run):
            if metric.kind != COUNTER:
                self._told[metric.name].set(value, labels)
            elif more := self._more(metric, labels, value):
                self._told[metric.name].add(more, labels)

    def _more(self, metric: Metric, labels: Labels, value: float) -> float:
        """What a counter has grown by."""
        which = key(metric, labels)
        highest = self._rising.of(metric, labels, value)
        grown = highest - self._before.get(which, 0)
        self._before[which] = highest
        return grown

    def _event(self, name: str, said: dict[str, Any]) -> None:
        if self._left:
            self._left -= 1
            self._span.add_event(name, said)
