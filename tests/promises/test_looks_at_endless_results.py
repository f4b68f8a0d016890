"""Promises: what only looks at a line comes to an end where a record gives endlessly many results, and says so."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap

import pytest

from taktline import batch, expand, keep, line, serial, step


def large(n):
    return (bytes(10_000_000) for _ in itertools.count())


def nearly(n):
    return range(9_999)


async def waits(n):
    for k in itertools.count():
        yield k


LINES = {
    "expand": (expand(itertools.count),),
    "nothing comes of it": (expand(itertools.count), keep(lambda n: False)),
    "nested": (expand(itertools.count), expand(itertools.count)),
    "not endless, but nearly": (expand(nearly), expand(nearly), expand(nearly), keep(lambda n: False)),
    "one of several": (expand(lambda n: [n] * 3 if n < 7 else itertools.count()), abs),
    "batch": (expand(itertools.count), batch(lambda values: values, size=7)),
    "serial": (serial(abs), expand(itertools.count), serial(abs)),
    "with options": (step(expand(itertools.count), retries=2, backoff=0.0),),
    "waits": (expand(waits),),
    "large": (expand(large),),
}
ONES = ("expand", "nested", "not endless, but nearly", "one of several")


@pytest.mark.parametrize("steps", LINES.values(), ids=LINES)
def test_a_check_ends_and_says_that_it_looked_at_the_first_results(steps):
    found = line(*steps).check(itertools.count(5), limit=3)
    assert any(each.kind == "cut" and each.advice for each in found.findings), str(found)
    assert found.fine, str(found)


PLANNED = [name for name in LINES if name not in ("serial", "batch")]


@pytest.mark.parametrize("steps", [LINES[name] for name in PLANNED], ids=PLANNED)
def test_a_plan_ends_and_says_which_record_gives_too_much(steps, monkeypatch):
    monkeypatch.setattr("taktline._run.trial.GIVEN", 2_000)
    found = line(*steps).plan(itertools.count(5))
    record = 2 if steps is LINES["one of several"] else 0
    assert any(each.startswith(f"record {record} gives endlessly many results") for each in found.advice), str(found)


@pytest.mark.parametrize("steps", [LINES[name] for name in ONES], ids=ONES)
def test_a_comparison_ends_and_says_what_was_left_out(steps, monkeypatch):
    monkeypatch.setattr("taktline._compare.subject.GIVEN", 500)
    found = line(*steps).compare(itertools.count(5), limit=20, rounds=1, reference=False, predictions=False)
    record = 2 if steps is LINES["one of several"] else 0
    assert f"record {record} gives endlessly many results" in found.left_out
    assert found.records == record + 1
    assert not any(row.problem for row in found.rows), str(found)


def test_a_generator_that_is_slow_is_looked_at_for_some_seconds_only(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("taktline._segment.first_results.perf_counter", lambda: float(next(ticks)))  # a second a look
    found = line(expand(itertools.count)).compare([1], rounds=1, reference=False, predictions=False)
    assert "gives endlessly many results" in found.left_out
    assert not any(row.problem for row in found.rows), str(found)


def test_lines_that_give_few_results_are_looked_at_whole():
    flow = line(expand(lambda n: range(n % 5)), expand(lambda n: [n] * 2))
    assert not flow.check(range(100)).findings or all(each.kind != "cut" for each in flow.check(range(100)).findings)
    assert flow.compare(range(100), rounds=1, reference=False, predictions=False).left_out == ""
    assert not any("endlessly" in each for each in flow.plan(range(100)).advice)


def test_the_commands_come_to_an_end_too(tmp_path):
    (tmp_path / "steps.py").write_text(
        textwrap.dedent("""
            import itertools
            from taktline import expand, line
            flow = line(expand(lambda text: itertools.count()))
        """)
    )
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    for name in ("plan", "check", "compare"):
        command = [
            sys.executable,
            "-m",
            "taktline",
            name,
            "steps.py:flow",
            "--in",
            "in.txt",
            *(["--rounds", "1"] if name == "compare" else []),
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert "endlessly" in ended.stdout or "looked at" in ended.stdout
