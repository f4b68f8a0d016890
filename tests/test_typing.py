"""What type checkers see of a line: no fault in right lines, the planted ones in wrong lines, and the options by name."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest

import taktline
from taktline import LineError
from taktline._recipe.options import Options, RunOptions
from taktline._recipe.steps import StepOptions

LISTS = Path(__file__).parent / "typed"
CHECKERS = {"mypy": ["mypy", "--config-file=", "--strict", "--no-error-summary", "--cache-dir"], "pyright": ["pyright"]}
ERROR = re.compile(r"(\w+)\.py:(\d+)(?::\d+)?:? (?:- )?error")


@pytest.fixture(scope="module", params=CHECKERS)
def found(request, tmp_path_factory):
    """The checker, and the lines at which it finds errors, by file."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    command = [sys.executable, "-m", *CHECKERS[request.param]]
    command += [str(tmp_path_factory.mktemp("cache"))] * (request.param == "mypy")
    done = subprocess.run(
        [*command, "right.py", "wrong.py"], cwd=LISTS, capture_output=True, text=True, check=False,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )  # fmt: skip
    errors = {(name, int(number)) for name, number in ERROR.findall(done.stdout)}
    assert any(name == "wrong" for name, _ in errors), done.stdout + done.stderr
    return request.param, errors


def test_no_checker_takes_fault_with_a_right_line(found):
    _, errors = found
    assert sorted(number for name, number in errors if name == "right") == []


def test_the_planted_faults_are_found_and_those_that_are_not_are_known(found):
    checker, errors = found
    lines = enumerate((LISTS / "wrong.py").read_text().splitlines(), 1)
    planted = {number: text.rsplit("  # ", 1)[1] for number, text in lines if "  # " in text}
    wanted = {number for number, who in planted.items() if who in (checker, "both")}
    assert sorted(number for name, number in errors if name == "wrong") == sorted(wanted)


ALARMS = {
    "call-overload",
    "arg-type",
    "misc",
    "attr-defined",
    "reportArgumentType",
    "reportCallIssue",
    "reportOperatorIssue",
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_manual_shows_no_form_that_alarms(checker, tmp_path):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    root = Path(__file__).parents[1]
    pages = [page for page in (root / "README.md", *(root / "docs").glob("*.md")) if ">>> " in page.read_text()]
    for page in pages:
        examples = doctest.DocTestParser().get_examples(page.read_text())
        text = "".join(each.source for each in examples if not each.exc_msg)
        (tmp_path / f"{page.stem.lower()}_page.py").write_text(text)
    options = {
        "mypy": ["--ignore-missing-imports", "--check-untyped-defs"],
        "pyright": ["--pythonpath", sys.executable],
    }
    command = [sys.executable, "-m", checker, *options[checker], "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "_page.py" in done.stdout or "no issues" in done.stdout, done.stdout + done.stderr
    said = [
        line for line in done.stdout.splitlines() if any(f"[{code}]" in line or f"({code})" in line for code in ALARMS)
    ]
    assert len(pages) > 3
    assert said == []


def test_the_keywords_of_a_run_are_its_options():
    assert get_type_hints(RunOptions) == get_type_hints(Options)


def test_what_a_type_checker_allows_is_what_the_check_at_the_door_does():
    from dataclasses import fields

    for field in fields(Options):
        if choices := getattr(field.metadata["check"], "choices", None):
            assert get_args(get_type_hints(RunOptions)[field.name]) == choices


def test_the_keywords_of_a_step_are_those_that_step_takes():
    from taktline._recipe import steps

    parameters = list(inspect.signature(taktline.step).parameters.values())[1:-1]
    hints = get_type_hints(StepOptions)
    assert [each.name for each in parameters] == list(hints)
    assert set(hints["kind"].__args__) == set(steps.KINDS)
    assert set(get_args(steps.Form)) == set(steps.FORMS)


def test_the_keywords_of_compare_and_check_are_those_that_they_take():
    from taktline._check import check
    from taktline._compare.comparing import compare
    from taktline._recipe.options import CheckOptions, CompareOptions

    for function, keywords in ((compare, CompareOptions), (check, CheckOptions)):
        assert list(inspect.signature(function).parameters)[2:] == list(get_type_hints(keywords))


@pytest.mark.parametrize("builder", ["step", "batch", "keep", "expand", "serial", "line"])
def test_an_option_that_a_builder_does_not_have_is_answered_with_the_nearest_that_it_has(builder):
    with pytest.raises(LineError, match=rf"{builder}\(\) does not take nam=; did you mean 'name'\? It takes .*name="):
        getattr(taktline, builder)(abs, nam="x")
    with pytest.raises(LineError, match=rf"{builder}\(\) does not take colour=\. It takes "):
        getattr(taktline, builder)(abs, colour="x")


def test_methods_make_the_lines_that_line_makes():
    flow = taktline.line(int, name="numbers").keep(bool).expand(lambda n: [n, -n]).batch(sorted, 2).then(abs)
    same = taktline.line(
        int, taktline.keep(bool), taktline.expand(lambda n: [n, -n]), taktline.batch(sorted, 2), abs, name="numbers"
    )
    assert (flow.name, repr(flow).count(",")) == ("numbers", repr(same).count(","))
    assert list(flow(["2", "0", "1"])) == list(same(["2", "0", "1"])) == [2, 2, 1, 1]
    assert list(taktline.line(int).then(taktline.line(abs, str))(["-1"])) == ["1"]


def test_generic_classes_are_the_same_at_run_time():
    assert get_origin(taktline.Line[str, int]) is taktline.Line
    assert get_origin(taktline.Run[int]) is taktline.Run
    assert get_origin(taktline.Step[str, int]) is taktline.Step
