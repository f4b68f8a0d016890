"""What users import: one table, which checkers, pickles and type hints agree with."""

from __future__ import annotations

import ast
import pickle
import typing
from pathlib import Path

import pytest

import taktline
from taktline import _public, errors, line

SOURCE = Path(taktline.__file__)


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


@pytest.mark.parametrize("name", taktline.__all__)
def test_type_hints_are_found(name):
    typing.get_type_hints(getattr(taktline, name))


@pytest.mark.parametrize(
    "name", [name for name in taktline.__all__ if name != "Line"]
)  # it loads what it names when used
def test_type_hints_of_methods_are_found(name):
    value = getattr(taktline, name)
    if isinstance(value, type):
        for method in vars(value).values():
            if callable(method) and getattr(method, "__module__", "").startswith("taktline"):
                typing.get_type_hints(method)


def made() -> dict[str, object]:
    """One of each thing that a line gives besides results."""
    flow = line(str)
    run = flow(range(100), how="loop")
    list(run)
    return {
        "Snapshot": run.snapshot(), "Report": run.report, "Verdict": run.report.verdict,
        "Plan": flow.plan(range(100)), "Comparison": flow.compare(range(20), rounds=1, workers=1),
        "Check": flow.check(range(20)),
    }  # fmt: skip


@pytest.mark.process
def test_what_a_line_gives_goes_through_pickle():
    for name, value in made().items():
        assert type(value).__name__ == name
        assert pickle.loads(pickle.dumps(value)) == value
