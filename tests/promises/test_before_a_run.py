"""Promises: what tells of a run beforehand bears what the run bears, and tells of it: records that fail, kill or hang, lines
that are no records, sources that can be read but once."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest

import taktline
from taktline import LineError, WorkerDied, batch, expand, keep, line, read, serial, step
from taktline._run import ahead, trial
from taktline.abc import Live


def parse(row):
    return int(row["n"])


def inverse(n):
    return 1 / n


def deadly(n):
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def leaves(n):
    if n == 5:
        os._exit(7)
    return n


def hangs(n):
    return threading.Event().wait() if n == 5 else n


def interrupts(n):
    if n == 5:
        raise KeyboardInterrupt
    return n


def ends(n):
    if n == 5:
        sys.exit(4)
    return n


def rejects(n):
    raise ValueError(f"not {n}")


@pytest.fixture
def bad(tmp_path):
    """300 lines: two of them are no JSON, two numbers are none, and one is zero."""
    rows = ['{"n": %d}' % (n + 1) for n in range(300)]  # noqa: UP031  braces
    rows[100] = rows[200] = "{half"
    rows[17] = rows[250] = '{"n": "x"}'
    rows[40] = '{"n": 0}'
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


ALL_FIVE = [("parse", 2, 17), ("inverse", 1, 40), ("(reading)", 2, 100)]


def failures(plan):
    return [(each.step, each.records, each.first) for each in plan.failures]


# --- plan ---


def test_a_plan_goes_on_past_what_fails_and_counts_it(bad):
    plan = line(parse, inverse).plan(read(bad))
    assert (plan.tried, plan.failed, failures(plan)) == (300, 5, ALL_FIVE)
    text = " ".join(str(plan).split())
    assert "300 records tried, 5 of them failed" in text
    assert "2 in step 'parse', first record 17: ValueError: invalid literal" in text
    assert "record 40 in step 'inverse': ZeroDivisionError" in text
    assert "line 101, is no JSON" in text
    assert 'with on_error="raise" the run ends at record 17' in text
    assert plan.to_dict()["failures"][0]["first"] == 17


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_error": "skip"}, "the run goes on without them"),
        ({"on_error": "keep"}, "with a mark in the place of each"),
        ({"dead_letters": "failed.jsonl"}, "keeps them in 'failed.jsonl'"),
    ],
)
def test_a_plan_says_what_the_run_does_with_them(bad, options, says, monkeypatch):
    monkeypatch.chdir(bad.parent)
    plan = line(parse, inverse).plan(read(bad), **options)
    assert any(says in each for each in plan.advice)
    assert not any("the run ends" in each for each in plan.advice)
    assert os.listdir(bad.parent) == ["bad.jsonl"]


def test_steps_of_the_callers_process_are_tried_past_what_fails_too(bad):
    seen = []
    plan = line(serial(lambda row: seen.append(row) or parse(row)), serial(inverse)).plan(read(bad))
    assert (plan.tried, plan.failed) == (300, 5)
    assert [(each.records, each.first) for each in plan.failures] == [(2, 17), (1, 40), (2, 100)]
    assert plan.steps[0].ns_per_record > 0
    assert len(seen) >= 298


def test_what_a_failed_record_gave_before_is_no_part_of_a_plan():
    def three(n):
        yield n
        yield 10 // (n - 7)

    plan = line(serial(abs), expand(three), keep(lambda n: n < 50), str).plan(range(60))
    assert (plan.failed, plan.failures[0].first, plan.tried) == (1, 7, 60)


@pytest.mark.parametrize("step", [deadly, leaves, interrupts, ends])
def test_a_plan_survives_a_step_that_would_end_its_process(step):
    plan = line(step).plan(range(50))
    assert (plan.failed, plan.failures[0].step, plan.failures[0].first) == (1, step.__name__, 5)
    assert plan.tried > 5
    assert plan.steps


def test_an_interrupt_that_a_serial_step_raises_is_a_failure_of_the_step():
    plan = line(serial(interrupts)).plan(range(50))
    assert (plan.tried, failures(plan)) == (50, [("interrupts", 1, 5)])
    assert "KeyboardInterrupt" in plan.failures[0].error


def test_a_plan_comes_to_an_end_where_a_step_hangs(monkeypatch):
    monkeypatch.setattr(ahead, "HANGS_AFTER", 0.5)
    plan = line(hangs).plan(range(50))
    assert failures(plan) == [("hangs", 1, 5)]
    assert "for which a run would wait" in plan.failures[0].error
    monkeypatch.setattr(ahead, "HUNG", 1)
    all_of_them = line(lambda n: threading.Event().wait()).plan(itertools.count())
    assert any("the trial ended early" in each for each in all_of_them.advice)


def test_a_plan_of_records_that_all_fail_gives_no_times():
    plan = line(rejects).plan(range(40))
    assert (plan.tried, plan.failed) == (40, 40)
    assert "no record that was tried came through" in plan.reasons[0]
    assert " do " not in str(plan)
    assert "predicted" not in str(plan)


def test_a_plan_of_a_slow_source_comes_to_an_end(monkeypatch):
    monkeypatch.setattr(trial, "READING_SECONDS", 1e-9)
    plan = line(abs).plan(itertools.count())
    assert 0 < plan.tried < 1_000
    assert any(f"the {plan.tried:,} records that were read of it for this are used up" in each for each in plan.advice)


def test_of_standard_input_and_of_a_pipe_it_is_said_that_they_are_used_up(tmp_path):
    (tmp_path / "steps.py").write_text("def same(x):\n    return x\n")
    command = [sys.executable, "-m", "taktline", "plan", "steps.py:same", "--in"]
    rows = "".join(f"{n}\n" for n in range(30))
    done = subprocess.run(
        [*command, "-", "--in-format", "jsonl"], cwd=tmp_path, input=rows, capture_output=True, text=True, timeout=100
    )
    assert "the 30 records that were read" in " ".join(done.stdout.split()), done.stderr
    os.mkfifo(tmp_path / "in.jsonl")
    reading = subprocess.Popen(
        [*command, "in.jsonl"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with open(tmp_path / "in.jsonl", "w") as fifo:
        fifo.write(rows)
    out, errors = reading.communicate(timeout=100)  # it is not opened again, for which nobody would come
    assert "the 30 records that were read" in " ".join(out.split()), errors
    assert "used up" not in str(line(abs).plan(range(30)))


def test_dead_letters_that_a_run_would_refuse_are_refused_before_it_too(bad, monkeypatch):
    monkeypatch.chdir(bad.parent)
    (bad.parent / "config.jsonl").write_text('{"a": 1}\n')
    (bad.parent / "letters.jsonl").touch()
    for letters, says in (
        ("config.jsonl", "holds some"), ("bad.jsonl", "among what is read"), ("nowhere/d.jsonl", "there is no folder"),
    ):  # fmt: skip
        for looks in (line(parse).plan, line(parse).check):
            with pytest.raises(LineError, match=says):
                looks(read("bad.jsonl"), dead_letters=letters)
    list(line(parse)(read("bad.jsonl"), dead_letters="letters.jsonl", how="loop"))
    before = (bad.parent / "letters.jsonl").read_bytes()
    assert line(parse).plan(read("bad.jsonl"), dead_letters="letters.jsonl").failed == 4
    assert line(parse).check(read("bad.jsonl"), dead_letters="letters.jsonl").fine
    assert (bad.parent / "letters.jsonl").read_bytes() == before
    assert (bad.parent / "config.jsonl").read_text() == '{"a": 1}\n'


class Taken(Live):
    """Messages; what is taken and never told to be safe goes back when it is closed."""

    def __init__(self):
        self.opened = self.closed = 0
        self._left = list(range(1, 20))

    def open(self, window, memory):
        self.opened += 1

    def take(self, most, seconds):
        some, self._left = self._left[:most], self._left[most:]
        return some or None

    def close(self):
        self.closed += 1


def test_what_was_taken_of_a_live_source_goes_back():
    for looks in (
        lambda source: line(abs).plan(source).tried,
        lambda source: line(abs).check(source).records,
        lambda source: line(abs).compare(source, rounds=1, reference=False, predictions=False).records,
    ):
        source = Taken()
        assert looks(source) == 19
        assert (source.opened, source.closed) == (1, 1)


def looks_of(flow):
    return (
        flow.plan,
        flow.check,
        lambda source: flow.compare(source, rounds=1, reference=False, predictions=False),
    )


class Streamed:
    """Of a library that nobody here knows: each asks for a stream of its own."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, schema=None):
        return self.table.__arrow_c_stream__(schema)


@pytest.mark.parametrize("form", ["list", "arrow"])
def test_a_table_that_can_be_read_once_is_not_used_up_by_a_look(form):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"n": range(3_000)})
    flow = line(batch(lambda some: some, form=form))
    reader = table.to_reader(max_chunksize=500)
    for look in looks_of(flow):
        with pytest.raises(LineError, match=r"would use up its rows, since it can be read once: .*read_all\(\)"):
            look(reader)
    assert flow(reader).to_arrow().equals(table)
    streamed = Streamed(table)
    for look in looks_of(flow):
        look(streamed)
        assert flow(streamed).to_arrow().equals(table)


# --- check ---


def found(check, *, advice):
    return [(each.kind, each.step, each.index, each.records) for each in check.findings if each.advice == advice]


FIVE_FOUND = [("fails", "parse", 17, 2), ("fails", "inverse", 40, 1), ("reading", "(reading)", 100, 2)]


def test_a_check_goes_on_past_lines_that_are_no_records(bad):
    check = line(parse, inverse).check(read(bad))
    assert (check.records, check.fine, found(check, advice=False)) == (300, False, FIVE_FOUND)
    assert "bad.jsonl', line 101, is no JSON" in " ".join(str(check).split())
    assert "2 such records in all" in " ".join(str(check).split())
    assert 'with on_error="raise" the run ends' in " ".join(str(check).split())


@pytest.mark.parametrize("options", [{"on_error": "skip"}, {"on_error": "keep"}, {"dead_letters": "d.jsonl"}])
def test_what_the_run_goes_on_after_is_no_more_than_advice(bad, options, monkeypatch):
    monkeypatch.chdir(bad.parent)
    check = line(parse, inverse).check(read(bad), **options)
    assert check.fine
    assert [each for each in found(check, advice=True) if each[0] != "slower"] == FIVE_FOUND
    assert os.listdir(bad.parent) == ["bad.jsonl"]


def test_a_check_of_one_line_that_is_no_record_names_it(bad):
    check = line(parse).check(read(bad), record=100)
    assert (check.records, found(check, advice=False)) == (1, [("reading", "(reading)", 100, 1)])


def test_a_check_of_one_record_does_not_speak_of_speed(monkeypatch):
    monkeypatch.setattr("taktline._check.SLOWER", 0.0)
    monkeypatch.setattr("taktline._check.NOTICED", -1e9)
    assert any(each.kind == "slower" for each in line(abs).check(range(100)).findings)
    check = line(abs).check(range(100), record=4)
    assert not check.findings
    assert "nothing stands in the way of record 4" in str(check)
    assert not line(abs).check(range(3)).findings


@pytest.mark.parametrize("steps", [(interrupts,), (ends,), (serial(interrupts),), (serial(ends),)])
def test_a_check_survives_a_step_that_would_end_its_process(steps):
    check = line(*steps).check(range(60))
    assert [each[:3] for each in found(check, advice=False)] == [("fails", check.line, 5)]


def test_a_check_comes_to_an_end_where_a_step_hangs_and_looks_at_the_others(monkeypatch):
    monkeypatch.setattr(ahead, "HANGS_AFTER", 0.5)
    check = line(hangs, fussy).check(range(60))
    assert [each[:3] for each in found(check, advice=False)] == [("hangs", "hangs", 5), ("fails", "fussy", 33)]


def fussy(n):
    if n == 33:
        raise ValueError("not that one")
    return n


def test_setup_is_called_before_a_check_and_a_comparison():
    ready = []
    flow = line(step(lambda n: n + ready[0], name="needs it"))
    assert not found(flow.check(range(50), setup=lambda: ready.append(1)), advice=False)
    del ready[:]
    table = flow.compare(range(50), rounds=1, predictions=False, setup=lambda: ready.insert(0, 1))
    assert not any(row.problem for row in table.rows), str(table)


# --- compare ---


def test_a_comparison_leaves_out_what_fails_where_the_run_would(bad):
    table = line(parse, inverse).compare(read(bad), rounds=1, predictions=False, on_error="skip")
    assert table.records == 298
    assert not any(row.problem for row in table.rows), str(table)
    assert "5 fail, and give no result: 2 in step 'parse', first record 17" in table.left_out
    assert "line 101, is no JSON" in table.left_out
    with pytest.raises(taktline.SourceError, match="line 101"):
        line(parse, inverse).compare(read(bad), rounds=1)
    with pytest.raises(LineError, match="keep"):
        line(parse).compare([], on_error="keep")


@pytest.mark.parametrize("step", [deadly, leaves, interrupts, ends])
def test_a_comparison_survives_a_step_that_would_end_its_process(step):
    with pytest.raises((WorkerDied, taktline.StepError), match="record 5"):
        line(step).compare(range(50), rounds=1, predictions=False)
    table = line(step).compare(range(50), rounds=1, predictions=False, on_error="skip")
    assert table.records == 49
    assert not any(row.problem for row in table.rows), str(table)
    assert f"record 5 in step '{step.__name__}'" in table.left_out


async def waits(n):
    return fussy(n)


def test_a_comparison_awaits_what_is_to_be_awaited():
    table = line(waits).compare(range(60), rounds=1, predictions=False, on_error="skip")
    assert table.records == 60
    assert not any(row.problem for row in table.rows), str(table)


def test_a_comparison_ends_where_what_stands_between_two_steps_cannot_be_pickled():
    flow = line(step(lambda n: lambda: n, name="make"), step(lambda made: made(), name="call"))
    table = flow.compare(range(60), rounds=1, predictions=False)
    assert "cannot be pickled" in table.rows[-1].problem
    assert not table.rows[0].problem


# --- the command ---


def test_the_commands_go_on_past_bad_lines_as_the_run_does(bad):
    folder = bad.parent
    (folder / "steps.py").write_text("def parse(row):\n    return int(row['n'])\n")

    def taktline_(*arguments):
        command = [sys.executable, "-m", "taktline", *arguments, "steps.py:parse", "--in", "bad.jsonl"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    code, says = taktline_("plan")
    assert (code, "300 records tried, 4 of them failed" in says) == (0, True), says
    code, says = taktline_("plan", "--dead-letters", "failed.jsonl")
    assert (code, "keeps them in 'failed.jsonl'" in says) == (0, True), says
    code, says = taktline_("check")
    assert (code, "line 101, is no JSON" in says) == (1, True), says
    code, says = taktline_("check", "--on-error", "skip")
    assert (code, "line 101, is no JSON" in says) == (0, True), says
    code, says = taktline_("compare", "--rounds", "1")
    assert (code, "line 101, is no JSON" in says) == (1, True), says
    code, says = taktline_("compare", "--rounds", "1", "--on-error", "skip")
    assert (code, "line 101, is no JSON" in says) == (0, True), says
    assert sorted(os.listdir(folder)) == ["bad.jsonl", "steps.py"]
