"""taktline: plain step functions become an ordered, batched, multi-process factory line.

>>> from taktline import line
>>> list(line(int, lambda n: n * n)(["1", "2", "3"]))
[1, 4, 9]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taktline._public import HOME

if TYPE_CHECKING:  # for type checkers and editors, which run nothing; a test holds it equal to the table
    from taktline._check import Check as Check
    from taktline._check import Finding as Finding
    from taktline._compare.table import Comparison as Comparison
    from taktline._compare.table import Row as Row
    from taktline._durable.dead_letters import DeadLetter as DeadLetter
    from taktline._durable.dead_letters import Unkept as Unkept
    from taktline._durable.dead_letters import read_dead_letters as read_dead_letters
    from taktline._io.rows import read as read
    from taktline._io.sql import read_sql as read_sql
    from taktline._io.sql import write_sql as write_sql
    from taktline._io.writing import write as write
    from taktline._line import Line as Line
    from taktline._line import line as line
    from taktline._observe.snapshot import NodeCount as NodeCount
    from taktline._observe.snapshot import Report as Report
    from taktline._observe.snapshot import Snapshot as Snapshot
    from taktline._observe.snapshot import StepCount as StepCount
    from taktline._observe.snapshot import Verdict as Verdict
    from taktline._planner.advise import FailedStep as FailedStep
    from taktline._planner.advise import Plan as Plan
    from taktline._planner.advise import PlannedStep as PlannedStep
    from taktline._planner.whatif import Prediction as Prediction
    from taktline._ray.cluster import ray as ray
    from taktline._recipe.options import CheckOptions as CheckOptions
    from taktline._recipe.options import CompareOptions as CompareOptions
    from taktline._recipe.options import RunOptions as RunOptions
    from taktline._recipe.options import defaults as defaults
    from taktline._recipe.steps import Step as Step
    from taktline._recipe.steps import batch as batch
    from taktline._recipe.steps import expand as expand
    from taktline._recipe.steps import keep as keep
    from taktline._recipe.steps import per_worker as per_worker
    from taktline._recipe.steps import serial as serial
    from taktline._recipe.steps import step as step
    from taktline._run.run import Run as Run
    from taktline.errors import BatchLengthError as BatchLengthError
    from taktline.errors import Failed as Failed
    from taktline.errors import FormError as FormError
    from taktline.errors import FormsDiffer as FormsDiffer
    from taktline.errors import Hanging as Hanging
    from taktline.errors import InUse as InUse
    from taktline.errors import LineError as LineError
    from taktline.errors import NotAwaited as NotAwaited
    from taktline.errors import OutputLost as OutputLost
    from taktline.errors import ResultsTooLarge as ResultsTooLarge
    from taktline.errors import ResumeError as ResumeError
    from taktline.errors import SinkError as SinkError
    from taktline.errors import SourceError as SourceError
    from taktline.errors import SourceNotFound as SourceNotFound
    from taktline.errors import Stalled as Stalled
    from taktline.errors import StepError as StepError
    from taktline.errors import StepTimeout as StepTimeout
    from taktline.errors import TakenOver as TakenOver
    from taktline.errors import TaktlineError as TaktlineError
    from taktline.errors import WorkerDied as WorkerDied
    from taktline.errors import WorkersCannotStart as WorkersCannotStart

__version__ = "0.1.0"
__all__ = sorted(HOME)


def __getattr__(name: str) -> Any:
    """A public name is imported when it is first asked for."""
    if name in HOME:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(HOME[name]), name)
        return value
    raise AttributeError(f"module 'taktline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
