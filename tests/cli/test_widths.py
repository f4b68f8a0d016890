"""What the command says fits the terminal that it says it on: sentences are folded there, and what is pasted stays whole."""

from __future__ import annotations

import re

import pytest
from views.screen import on_a_terminal

COMMAND = "import sys; from taktline.cli.commands import run_main; sys.exit(run_main(sys.argv[1:]))"
STEPS = """
def parse(row):
    return row

def price(row):
    return {**row, "price": 90 / (row["n"] - 90)}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "steps.py").write_text(STEPS)
    rows = (f'{{"n": {n}, "note": "some words about the record, of which there are many"}}\n' for n in range(100))
    (tmp_path / "in.jsonl").write_text("".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(columns, *command):
    """The lines that a command writes on a terminal so wide, and its exit code."""
    written, code = on_a_terminal(COMMAND, *command, columns=columns)
    lines = re.sub(r"\x1b\[\d*[A-Z]", "\n", re.sub(r"\x1b\[\d*m", "", written))
    return re.split(r"[\r\n]+", lines), code


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("plan", "steps.py:parse,price", "--in", "in.jsonl", "--on-error", "skip"), 0),
        (("check", "steps.py:parse,price", "--in", "in.jsonl"), 1),
        (("check", "steps.py:parse,price", "--in", "in.jsonl", "--record", "7"), 0),
        (("compare", "steps.py:parse", "--in", "in.jsonl", "--rounds", "1", "--limit", "9"), 0),
        (("run", "steps.py:parse,price", "--in", "in.jsonl", "--out", "out.jsonl", "--on-error", "skip"), 3),
        (("run", "steps.py:parse,price", "--in", "in.jsonl", "--out", "out.xyz"), 2),
        (("explain", "WorkerDied"), 0),
        (("--help",), 0),
        (("doctor",), 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_no_line_is_wider_than_the_terminal(columns, command, code, folder):
    lines, ended = said(columns, *command)
    assert ended == code, lines
    assert any(lines)
    assert not [each for each in lines if len(each) > columns and "taktline " not in each]


def test_a_flag_stays_with_its_value_and_what_is_pasted_in_one_line(folder):
    lines, code = said(60, "run", "steps.py:parse,price", "--in", "in.jsonl", "--out", "out.jsonl", "--how", "line")
    assert code == 1
    assert [each for each in lines if each.endswith(("--dead-letters", "--on-error"))] == []
    assert any(each.endswith("taktline check steps.py:parse,price --in in.jsonl --record 90") for each in lines)
    assert any(each.startswith("  at steps.py:6   return {**row") for each in lines)
    data_and_code = ("  at ", "  record ", "  given ", "  next    try this one: ")
    assert max(len(each) for each in lines if not each.startswith(data_and_code) and "taktline " not in each) <= 60


def test_a_saved_report_is_folded_to_the_terminal_too(folder):
    said(80, "run", "steps.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--report", "run.json")
    lines, code = said(60, "report", "run.json")
    assert code == 0
    assert any(each.startswith(" verdict") for each in lines)
    assert max(map(len, lines)) <= 60
