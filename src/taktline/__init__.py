"""taktline: plain step functions become an ordered, batched, multi-process factory line.

>>> from taktline import line
>>> list(line(int, lambda n: n * n)(["1", "2", "3"]))
[1, 4, 9]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taktline._line import Line, line
from taktline._recipe.steps import Step, batch, expand, keep, per_worker, serial, step
from taktline.errors import (
    BatchLengthError,
    Failed,
    FormError,
    FormsDiffer,
    Hanging,
    LineError,
    NotAwaited,
    OutputLost,
    ResultsTooLarge,
    ResumeError,
    SinkError,
    SourceError,
    Stalled,
    StepError,
    StepTimeout,
    TaktlineError,
    WorkerDied,
    WorkersCannotStart,
)

if TYPE_CHECKING:
    from taktline._check import Check, Finding
    from taktline._compare import Comparison
    from taktline._durable.dead_letters import DeadLetter, read_dead_letters
    from taktline._io.rows import read, write
    from taktline._io.sql import read_sql, write_sql
    from taktline._observe.snapshot import Report, Snapshot, Verdict
    from taktline._planner.advise import Plan
    from taktline._planner.whatif import Prediction
    from taktline._run.run import Run

__version__ = "0.1.0"

_ON_FIRST_USE = {
    "Check": "taktline._check",
    "Comparison": "taktline._compare",
    "DeadLetter": "taktline._durable.dead_letters",
    "Finding": "taktline._check",
    "Plan": "taktline._planner.advise",
    "Prediction": "taktline._planner.whatif",
    "Report": "taktline._observe.snapshot",
    "Run": "taktline._run.run",
    "Snapshot": "taktline._observe.snapshot",
    "Verdict": "taktline._observe.snapshot",
    "read": "taktline._io.rows",
    "read_dead_letters": "taktline._durable.dead_letters",
    "read_sql": "taktline._io.sql",
    "write": "taktline._io.rows",
    "write_sql": "taktline._io.sql",
}

__all__ = [
    "BatchLengthError",
    "Check",
    "Comparison",
    "DeadLetter",
    "Failed",
    "Finding",
    "FormError",
    "FormsDiffer",
    "Hanging",
    "Line",
    "LineError",
    "NotAwaited",
    "OutputLost",
    "Plan",
    "Prediction",
    "Report",
    "ResultsTooLarge",
    "ResumeError",
    "Run",
    "SinkError",
    "Snapshot",
    "SourceError",
    "Stalled",
    "Step",
    "StepError",
    "StepTimeout",
    "TaktlineError",
    "Verdict",
    "WorkerDied",
    "WorkersCannotStart",
    "batch",
    "expand",
    "keep",
    "line",
    "per_worker",
    "read",
    "read_dead_letters",
    "read_sql",
    "serial",
    "step",
    "write",
    "write_sql",
]


def __getattr__(name: str) -> Any:
    """What only some programs need is imported when it is first asked for."""
    if name in _ON_FIRST_USE:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_ON_FIRST_USE[name]), name)
        return value
    raise AttributeError(f"module 'taktline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
