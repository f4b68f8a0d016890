"""The numbers of a run as metrics: their names, kinds and units, which are a contract, and Prometheus' text of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from taktline._observe.snapshot import NodeCount, Report, Snapshot, StepCount

COUNTER, GAUGE = "counter", "gauge"
STEPS = 50  # of a line that are told apart; those behind them are together under OTHERS
NODES = 100  # that are told apart: those that worked first; an autoscaler may bring ever new ones
OTHERS = "(others)"
LONG = 100  # characters of a label
SUFFIX = {"s": "_seconds", "By": "_bytes"}  # by unit, in Prometheus


class Metric(NamedTuple):
    """One number of a run, of each of its steps, or of each node."""

    name: str  # as OpenTelemetry has it
    kind: str
    unit: str
    help: str
    of: Callable[[Any], float | None]  # of a Snapshot, a StepCount or a NodeCount; None: not known

    @property
    def prometheus(self) -> str:
        """The name that Prometheus has for it, whether it comes by OpenTelemetry's exporter or from here."""
        return f"{self.name.replace('.', '_')}{SUFFIX.get(self.unit, '')}{'_total' * (self.kind == COUNTER)}"


RUN_METRICS = (
    Metric("taktline.records.read", COUNTER, "{record}", "Records read.", lambda s: s.records_in - s.resumed_at),
    Metric("taktline.records.delivered", COUNTER, "{record}", "Results delivered.", lambda s: s.records_out),
    Metric("taktline.records.failed", COUNTER, "{record}", "Records that failed.", lambda s: s.failed),
    Metric("taktline.records.skipped", COUNTER, "{record}", "Records left out because they failed.", lambda s: s.skipped),
    Metric("taktline.records.retried", COUNTER, "{try}", "Further tries of steps with retries.", lambda s: s.retried),
    Metric("taktline.records.in_flight", GAUGE, "{record}", "Records read and not yet delivered.", lambda s: s.in_flight),
    Metric("taktline.workers", GAUGE, "{worker}", "Workers; 0 where the caller's process does it.", lambda s: s.workers),
    Metric("taktline.workers.ended", COUNTER, "{worker}", "Workers that ended early.", lambda s: s.workers_ended),
    Metric("taktline.batch_size", GAUGE, "{record}", "Records of the newest batch.", lambda s: s.batch_size),
    Metric("taktline.memory", GAUGE, "By", "Memory of the whole process tree, at the last look.", lambda s: s.memory),
    Metric("taktline.still", GAUGE, "s", "Since anything was done, while there is something to do.", lambda s: s.still),
    Metric("taktline.source.length", GAUGE, "{record}", "Records the source has.", lambda s: s.total),
    Metric("taktline.source.backlog", GAUGE, "{record}", "Records that wait in a live source.", lambda s: s.backlog),
    Metric("taktline.source.lag", GAUGE, "s", "How long the oldest of them waits.", lambda s: s.lag),
    Metric("taktline.source.refused", GAUGE, "1", "1 while a live source gives no records.", lambda s: int(bool(s.refused))),
)  # fmt: skip
STEP_METRICS = (
    Metric("taktline.step.records", COUNTER, "{record}", "Records a step was given.", lambda s: s.records),
    Metric("taktline.step.failed", COUNTER, "{record}", "Records that failed in a step.", lambda s: s.failed),
    Metric("taktline.step.busy", COUNTER, "s", "Time in a step's own code, over all workers.", lambda s: s.busy),
    Metric("taktline.step.waiting", COUNTER, "s", "Time that its workers had no input.", lambda s: s.waiting),
    Metric("taktline.step.blocked", COUNTER, "s", "Time that its workers could not hand on.", lambda s: s.blocked),
)
NODE_METRICS = (
    Metric("taktline.node.workers", GAUGE, "{worker}", "Workers that are on a node.", lambda n: n.workers),
    Metric("taktline.node.records", COUNTER, "{record}", "Records a node was given.", lambda n: n.records),
    Metric("taktline.node.batches", COUNTER, "{batch}", "Batches that came back from a node.", lambda n: n.batches),
    Metric("taktline.node.busy", COUNTER, "s", "Time its workers were at batches.", lambda n: n.busy),
)
# Of each batch, and so only where somebody listens (taktline.otel).
BATCH_SECONDS = ("taktline.batch.duration", "s", "Time of a batch in its steps.")
BATCH_RECORDS = ("taktline.batch.records", "{record}", "Records of a batch.")

Labels = dict[str, str]


def values(run: Snapshot | Report) -> Iterator[tuple[Metric, Labels, float]]:
    """All numbers that are known, each with its labels: the line, and of a step or a node its name."""
    line, lives = {"line": _label(run.name)}, isinstance(run, Snapshot)
    for metric in RUN_METRICS:
        value = metric.of(run) if metric.kind == COUNTER or lives else None
        if value is not None:
            yield metric, line, value
    for name, steps in _together(run.steps, STEPS).items():
        for metric in STEP_METRICS:
            yield metric, {**line, "step": name}, sum(metric.of(step) or 0 for step in steps)
    for name, nodes in _together(run.nodes, NODES).items():
        for metric in NODE_METRICS:
            here = lives or metric.kind == COUNTER  # once the run has ended nobody is there
            yield metric, {**line, "node": name}, sum(metric.of(node) or 0 for node in nodes) if here else 0


def _together(counts: Sequence[StepCount | NodeCount], most: int) -> dict[str, list[StepCount | NodeCount]]:
    """By label: those of one name, and those behind the first ones, are summed."""
    found: dict[str, list[StepCount | NodeCount]] = {}
    for n, each in enumerate(counts):
        found.setdefault(_label(each.name) if n < most else OTHERS, []).append(each)
    return found


def key(metric: Metric, labels: Labels) -> tuple[str, ...]:
    """Which number of one run this is."""
    return metric.name, *labels.values()


def _label(name: str) -> str:
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"


class Rising:
    """The highest value of each counter so far. How the time of steps that run as one is shared out among them is reckoned
    anew each time, and a counter that goes back would be taken for one that began anew."""

    def __init__(self) -> None:
        self._highest: dict[tuple[str, ...], float] = {}

    def of(self, metric: Metric, labels: Labels, value: float) -> float:
        """The value to tell."""
        which = key(metric, labels)
        self._highest[which] = value = max(value, self._highest.get(which, value))
        return value


def prometheus_text(
    run: Snapshot, more: dict[str, tuple[str, float]] | None = None, rising: Rising | None = None
) -> str:
    """The numbers in Prometheus' text format 0.0.4. `more`: further gauges of the line, by name: their help and value.
    `rising`: what was told of the run before."""
    families: dict[str, list[str]] = {}
    for metric, labels, value in values(run):
        name = metric.prometheus
        if rising is not None and metric.kind == COUNTER:
            value = rising.of(metric, labels, value)
        _sample(families, name, metric.kind, metric.help, labels, value)
    for name, (help, value) in (more or {}).items():
        _sample(families, name, GAUGE, help, {"line": _label(run.name)}, value)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _sample(families: dict[str, list[str]], name: str, kind: str, help: str, labels: Labels, value: float) -> None:
    family = families.setdefault(name, [f"# HELP {name} {help}", f"# TYPE {name} {kind}"])
    said = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
    family.append(f"{name}{{{said}}} {value!r}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
