"""Nothing breaks where a stream takes nothing but ASCII."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEPS = """
def parse(row):
    return row["n"]

def half(n):
    return 1 / (n - 90)
"""
ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}, "word": "naïve → {n}"}}\n' for n in range(100)), "utf-8")
    return tmp_path


def run(folder, environment, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, env=os.environ | environment)
    assert (done.stdout + done.stderr).isascii()
    assert b"Traceback" not in done.stderr
    assert b"UnicodeEncodeError" not in done.stdout + done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("environment", ASCII, ids=["ascii", "strict", "C"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "steps.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--report", "run.json", "--progress"), 0),
        (("run", "steps.py:parse,half", "--in", "in.jsonl", "--out", "out.jsonl"), 1),
        (("run", "steps.py:parse,half", "--in", "in.jsonl", "--out", "out.jsonl", "--on-error", "skip"), 3),
        (("check", "steps.py:parse,half", "--in", "in.jsonl"), 1),
        (("plan", "steps.py:parse", "--in", "in.jsonl"), 0),
        (("compare", "steps.py:parse", "--in", "in.jsonl", "--rounds", "1", "--export", "table.md"), 0),
        (("explain", "TK310"), 0),
        (("explain",), 0),
        (("--help",), 0),
        (("run", "--help"), 0),
        (("plan", "--help"), 0),
        (("check", "--help"), 0),
        (("retry", "--help"), 0),
        (("run", "steps.py:pärse", "--in", "in.jsonl", "--out", "out.jsonl"), 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_the_command_shows_plain_signs(environment, arguments, code, folder):
    found, _, said = run(folder, environment, "-m", "taktline", *arguments)
    assert found == code, said
    if "--report" in arguments:
        assert run(folder, environment, "-m", "taktline", "report", "run.json")[0] == 0


PROGRAM = """
from taktline import batch, line, keep
from taktline.errors import Failed
def half(n):
    return 1 / (n - 7)
flow = line(abs, half, name=None)
run = flow(range(5), progress=False)
print(run, flow, run.snapshot())
list(run)
report = run.report
print(report, repr(report), report.verdict)
print(flow.plan(range(100), progress=False))
print(flow.check(range(9), progress=False))
print(repr(flow.compare(range(3), rounds=1, progress=False)))
print(list(flow(["x" * 300], on_error="keep", progress=False)))
try:
    list(flow(["\\u20ac" * 300], progress=False))
except TypeError as error:
    print(ascii(error.__notes__))
try:
    line(abs, how=1)
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("environment", ASCII, ids=["ascii", "strict", "C"])
def test_what_a_program_prints_is_plain_too(environment, folder):
    assert run(folder, environment, "-c", PROGRAM)[0] == 0


def test_where_the_stream_can_show_them_signs_stay(folder):
    code, out, _ = subprocess_in_utf_8(folder, "-c", "from taktline import line; print(line(abs, abs).run([1]))")
    assert code == 0
    assert "·" in out


def subprocess_in_utf_8(folder, *command):
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, env=environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()
