"""What users import: one table, which checkers, pickles and type hints agree with."""

from __future__ import annotations

import ast
import pickle
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

import taktline
import taktline.testing
from taktline import Hanging, NodeCount, _public, abc, errors, line, read_dead_letters

SOURCE = Path(taktline.__file__)
MODULES = (taktline, abc, taktline.testing)


def test_each_public_name_is_there_under_that_name():
    for name in taktline.__all__:
        value = getattr(taktline, name)
        assert (value.__module__, value.__qualname__) == ("taktline", name)
        assert pickle.loads(pickle.dumps(value)) is value


def test_type_checkers_see_the_table():
    (block,) = (each for each in ast.parse(SOURCE.read_text()).body if isinstance(each, ast.If))
    imported = [each for each in block.body if isinstance(each, ast.ImportFrom)]
    assert {(alias.asname, each.module) for each in imported for alias in each.names} == {*_public.HOME.items()}


def test_each_error_is_public():
    known = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert {each.__name__ for each in known if each.__module__.startswith("taktline")} <= {*taktline.__all__}


PUBLIC = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}
# Of steps and runs, which builders and lines make.
MADE_BY_US = {("taktline.Run.__init__", "options")} | {
    (f"taktline.Step{made}", argument) for made in ("", ".__init__") for argument in ("maker", "role", "gives")
}


def signatures(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A public thing, and the methods and properties of a class, each with its name."""
    yield name, value
    for called, part in vars(value).items() if isinstance(value, type) else ():
        part = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
        ours = callable(part) and getattr(part, "__module__", "").startswith("taktline")
        if ours and (not called.startswith("_") or called in ("__init__", "__call__", "__iter__")):
            yield f"{name}.{called}", part


def classes(hint: Any) -> set[type]:
    """The classes that a hint is of."""
    parts = typing.get_args(hint) or (hint if isinstance(hint, list | tuple) else ())
    found = {each for part in parts for each in classes(part)}
    return found | {each for each in (hint, typing.get_origin(hint)) if isinstance(each, type)}


@pytest.mark.parametrize("name", PUBLIC)
def test_type_hints_are_found_and_name_what_is_public(name):
    """Whoever writes a function around one of ours can annotate it."""
    known = {id(each) for each in PUBLIC.values()}
    private = set()
    for called, value in signatures(name, PUBLIC[name]):
        if callable(value):
            for argument, hint in typing.get_type_hints(value).items():
                ours = {each for each in classes(hint) if each.__module__.startswith("taktline")}
                private |= {(called, argument) for each in ours if id(each) not in known} - MADE_BY_US
    assert not private


def doubled(n: int) -> int:
    """A step."""
    return 2 * n


def fails_at_three(n: object) -> object:
    """A step that is not always done."""
    if n == 3 or not isinstance(n, int):
        raise ValueError("not this one")
    return n


def made(folder: Path) -> list[object]:
    """One of each thing that a line gives besides results."""
    flow, fails = line(doubled), line(fails_at_three)
    run = flow(range(100), how="loop")
    run.to_list()
    plan = flow.plan(range(100))
    failing = fails.plan(range(100), on_error="skip")
    check = fails.check(range(20))
    comparison = flow.compare(range(20), rounds=1, workers=1)
    letters = folder / "failed.jsonl"
    fails.run([*range(4), (n for n in "abc")], dead_letters=letters)
    kept = read_dead_letters(letters)
    report = run.report
    return [
        run.snapshot(), report, report.verdict, *report.steps, plan, failing, *plan.steps, *failing.failures,
        *plan.predictions, comparison, *comparison.rows, check, *check.findings, NodeCount("there", 2, 100, 4, 0.5),
        Hanging(0, 1, None, (0, 9), None, "stopped", ""), *kept, kept[-1].record,
    ]  # fmt: skip


@pytest.mark.process
def test_what_a_line_gives_goes_through_pickle(tmp_path):
    values = made(tmp_path)
    given = {name for name in taktline.__all__ if is_dataclass(getattr(taktline, name))} - {"Step"}
    assert {type(value).__name__ for value in values} == given - {"Failed"}  # whose error is equal to itself alone
    for value in values:
        assert pickle.loads(pickle.dumps(value)) == value
