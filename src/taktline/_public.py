"""The public names in one table. `taktline.__all__`, the import on first use and each `__module__` follow from it."""

from __future__ import annotations

from typing import Any, get_type_hints

BY_MODULE = {
    "_check": ("Check", "Finding"),
    "_compare.table": ("Comparison", "Row"),
    "_durable.dead_letters": ("DeadLetter", "Unkept", "read_dead_letters"),
    "_io.rows": ("read",),
    "_io.sql": ("read_sql", "write_sql"),
    "_io.writing": ("write",),
    "_line": ("Line", "line"),
    "_observe.snapshot": ("NodeCount", "Report", "Snapshot", "StepCount", "Verdict"),
    "_planner.advise": ("FailedStep", "Plan", "PlannedStep"),
    "_planner.whatif": ("Prediction",),
    "_recipe.options": ("CheckOptions", "CompareOptions", "RunOptions", "defaults"),
    "_recipe.steps": ("Step", "batch", "expand", "keep", "per_worker", "serial", "step"),
    "_ray.cluster": ("ray",),
    "_run.run": ("Run",),
    "errors": (
        "BatchLengthError",
        "Failed",
        "FormError",
        "FormsDiffer",
        "Hanging",
        "InUse",
        "LineError",
        "NotAwaited",
        "OutputLost",
        "ResultsTooLarge",
        "ResumeError",
        "SinkError",
        "SourceError",
        "SourceNotFound",
        "Stalled",
        "StepError",
        "StepTimeout",
        "TakenOver",
        "TaktlineError",
        "WorkerDied",
        "WorkersCannotStart",
    ),
}
HOME = {name: f"taktline.{module}" for module, names in BY_MODULE.items() for name in names}


def named(contents: dict[str, Any]) -> None:
    """Name the public part of a module, whose `globals()` these are, as users import it.

    Tracebacks show that name, and pickles look it up. Annotations are resolved here, since whoever resolves them later
    looks for their names in the package and not in the module they were written in.
    """
    for name in BY_MODULE[contents["__name__"].removeprefix("taktline.")]:
        value = contents[name]
        if isinstance(value, type) and (own := vars(value).get("__annotations__")):
            hints = get_type_hints(value, contents, include_extras=True)
            value.__annotations__ = {each: hints[each] for each in own}
        value.__module__ = "taktline"
