"""Each kind of error has a long form, which the page shows too."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from taktline import LineError, errors
from taktline._observe.pages import PAGE_WIDTH
from taktline.cli import explaining
from taktline.cli.commands import run_main

PAGE = Path(__file__).parents[2] / "docs/errors.md"


def test_each_error_has_one_and_no_other_has():
    known = {(each.code, name) for name, each in vars(errors).items()
             if isinstance(each, type) and issubclass(each, errors.TaktlineError)}  # fmt: skip
    told = {(each.code, each.name) for each in explaining.explanations()}
    assert told == known | {("TK200", "An exception of a step")}
    assert all(
        "**What happened.**" in each.text and "**What to do.**" in each.text for each in explaining.explanations()
    )


def test_the_page_shows_the_same_text():
    assert explaining.text().strip() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["TK310", "tk310", "310", "WorkerDied", "workerdied", "taktline.WorkerDied"])
def test_codes_and_classes_are_both_names(name):
    assert explaining.explanation_of(name).name == "WorkerDied"


@pytest.mark.parametrize(("name", "near"), [("TK31", "TK310"), ("WorkerDead", "WorkerDied"), ("steperor", "StepError")])
def test_a_typo_is_answered_with_the_nearest(name, near):
    with pytest.raises(LineError, match=f"did you mean '{near}'"):
        explaining.explanation_of(name)


def test_the_command_tells_each_by_code_and_by_class_without_a_network(capsys, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    for each in explaining.explanations():
        for name in {each.code, each.name} - {"An exception of a step"}:
            assert run_main(["explain", name]) == 0
            said = capsys.readouterr().out
            assert said.split() == [each.code, *each.name.split(), *each.text.split()]
            assert all(len(line) <= PAGE_WIDTH for line in said.splitlines())


def test_the_command_lists_all():
    def told(*arguments):
        command = [sys.executable, "-m", "taktline", "explain", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert told("StepTimeout").stdout.startswith("TK330 StepTimeout\n\n**What happened.** A record took longer")
    assert len(told().stdout.splitlines()) == len([*explaining.explanations()])
    wrong = told("zzz")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "`taktline explain` lists all of them" in wrong.stderr
