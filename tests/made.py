"""Reports and comparisons, made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taktline import Comparison, Report, StepCount, Verdict
from taktline._compare.table import Row

STEPS = (
    StepCount("parse", 2_000, busy=0.5, waiting=0.25, blocked=0.0, ns_per_record=250_000.0),
    StepCount("score", 1_000, busy=1.5, waiting=0.25, blocked=0.1, ns_per_record=1_500_000.0),
)
VERDICT = Verdict("score", "'score' takes 75% of the busy time.", "A cheaper 'score' helps.", 1.5, "parse")

LOOP = Row("loop", False, 2.0, 0.01, 0.5, 1.0, 30_000_000, 0.001, predicted=2.2, error=0.1)
LINE = Row("line", False, 1.0, 0.02, 1.0, 2.0, 90_000_000, 0.02, predicted=0.9, error=-0.1)
POOL = Row("Pool.imap (multiprocessing, a chunk of 64)", True, 1.01, 0.02, 1.0, 1.98, 80_000_000, 0.02, tie=True)
FAULTY = Row("queues", False, problem="results differ from the loop's at record 7: 1.0 and 1")
FAR = Row("line on 8 cores (predicted)", False, 0.25, None, speed_up=8.0, measured=False)


def report(**facts: Any) -> Report:
    """A run of two seconds over 2,000 records in two workers, but for these facts."""
    usual = {
        "name": "orders", "how": "line", "workers": 2, "batch_size": 64, "records_in": 2_000, "records_out": 1_990,
        "failed": 0, "skipped": 0, "retried": 0, "seconds": 2.0, "first_result": 0.01, "cpu_seconds": 3.0,
        "cpu_utilisation": 0.75, "cores": 2, "peak_memory": 214_000_000, "complete": True, "steps": STEPS,
        "verdict": VERDICT,
    }  # fmt: skip
    return Report(**usual | facts)


def comparison(*rows: Row, **facts: Any) -> Comparison:
    """These techniques side by side, `line` as the fastest, but for these facts."""
    found = Comparison(1_000, 2, 2, 3, "", rows, "line", "line is 2.0 times the loop.", ("parse", "score"))
    return replace(found, **facts)
