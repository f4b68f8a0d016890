"""What a report suggests, whole, so that it can be pasted: how dead letters are run again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from taktline._files import beside
from taktline._recipe.steps import Step
from taktline._signals import pass_on


def retry(steps: tuple[Step, ...], letters: str) -> str:
    """What runs the dead letters in a file again: a command, where one can reach the line by a name; else Python, for where
    the line is.

    >>> retry((), "failed.jsonl")
    "[letter.record for letter in taktline.read_dead_letters('failed.jsonl')]"
    """
    if target := _target(steps):
        return shlex.join(("taktline", "retry", letters, target, "--out", beside(letters)))
    records = f"letter.record for letter in taktline.read_dead_letters({letters!r})"
    name = _name_in(sys.modules["__main__"], steps)
    return f"list({name}({records}))" if name else f"[{records}]"


def _target(steps: tuple[Step, ...]) -> str:
    """The TARGET of a command that names these steps; empty where there is none."""
    for module in _modules(steps):
        if (place := _place(module)) and (name := _name_in(module, steps) or _names_in(module, steps)):
            return f"{place}:{name}"
    return ""


def _modules(steps: tuple[Step, ...]) -> Iterator[ModuleType]:
    """Those that a line of these steps may be defined in."""
    for name in dict.fromkeys([*(getattr(step.fn, "__module__", None) for step in steps), "__main__"]):
        if isinstance(module := sys.modules.get(name or ""), ModuleType):
            yield module


def _place(module: ModuleType) -> str:
    """What a command calls a module that it can load without running somebody's program once more; empty if none."""
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or (module.__name__ == "__main__" and not _is_guarded(file)):
        return ""
    if module.__package__:
        spec = module.__spec__
        return str(module.__name__ if module.__name__ != "__main__" or spec is None else spec.name)
    inside = os.path.relpath(file)
    return str(file) if inside.startswith(os.pardir) else inside


def _is_guarded(script: str) -> bool:
    """Whether the script's own line that is at work stands behind `if __name__ == "__main__":`."""
    import ast

    frame = sys._getframe()
    while frame.f_code.co_name != "<module>" or frame.f_globals.get("__name__") != "__main__":
        if frame.f_back is None:
            return False
        frame = frame.f_back
    try:
        with open(script, "rb") as file:
            body = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError) as error:  # it is another file by now
        pass_on(error)
        return False
    at_work = next((each for each in body if each.lineno <= frame.f_lineno <= (each.end_lineno or 0)), None)
    return isinstance(at_work, ast.If) and "__name__" in ast.unparse(at_work.test)


def _name_in(module: Any, steps: tuple[Step, ...]) -> str:
    """What a module calls the line of these steps."""
    for name, value in list(vars(module).items()):
        if type(value).__name__ == "Line" and getattr(value, "steps", None) is steps and name.isidentifier():
            return str(name)
    return ""


def _names_in(module: ModuleType, steps: tuple[Step, ...]) -> str:
    """Its functions that make the same line, in order; empty where one has options, or is nowhere by its name."""
    names = [getattr(step.fn, "__name__", "") for step in steps]
    plain = all(step == Step(step.fn, step.name) and vars(module).get(name) is step.fn
                for step, name in zip(steps, names, strict=True))  # fmt: skip
    return ",".join(names) if names and plain else ""
