"""`check`: each kind of trouble is found, with its record and step, and sound lines are fine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import taktline
from taktline import LineError, batch, expand, keep, line, per_worker, serial, step


def found(flow, records, **options):
    """What a check finds beside advice: kind, step and record."""
    report = flow.check(records, **options)
    assert report.fine == (not [finding for finding in report.findings if not finding.advice])
    return [(finding.kind, finding.step, finding.index) for finding in report.findings if not finding.advice]


def changes(row):
    row["n"] = row["n"] * 2 + 1
    return row


def tidies(row):
    row["name"] = row["name"].strip()
    return row


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, n):
        self.calls += 1
        return n + self.calls


def fussy(n):
    if n == 7:
        raise ValueError("seven, of all")
    return n


def deadly(n):
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


rows = [{"n": n, "name": f" {n} "} for n in range(12)]
draw = random.Random(1)


@pytest.mark.parametrize(
    ("flow", "records", "finds"),
    [
        (line(abs, keep(lambda n: n % 2), expand(lambda n: [n, n]), str), range(20), []),
        (line(tidies), rows, []),
        (line(serial(Counter())), range(20), []),
        (line(changes), rows, [("changes", "changes", 0)]),
        (line(step(lambda n: draw.random(), name="luck")), range(20), [("unequal", "luck", 0)]),
        (line(per_worker(Counter)), range(20), [("unequal", "Counter", 0)]),
        (line(abs, fussy), range(20), [("fails", "fussy", 7)]),
        (line(step(lambda n: [n] if n < 3 else lambda: n, name="made")), range(20), [("pickle", "made", 3)]),
        (line(step(deadly, name="deadly")), range(20), [("dies", "deadly", 5)]),
        (line(step(lambda n: os.getpid(), name="who")), range(5), [("workers", "", None)]),
        (line(batch(lambda ns: [n - min(ns) for n in ns], name="least")), range(20), [("forms", "least", 1)]),
        (line(batch(lambda ns: ns / 2, form="numpy", like=lambda n: n // 2, name="half")), range(3), [("forms", "half", 0)]),
        (line(batch(lambda ns: ns * 2, form="numpy", like=lambda n: n * 2)), range(20), []),
        (line(per_worker(open, "no such file")), range(5), [("build", "", None), ("build", "open", None)]),
    ],
)  # fmt: skip
def test_it_finds_what_a_run_would_meet(flow, records, finds):
    assert found(flow, records) == finds


def test_a_step_that_cannot_travel_is_found():
    held = threading.Lock()
    flow = line(step(lambda n: held.locked() or n, name="locked"))
    assert found(flow, range(5)) == [("carry", "locked", None)]


def test_a_tolerance_is_heeded():
    def third(verify):
        return line(batch(lambda ns: ns * (1 / 3), form="numpy", like=lambda n: n / 3, verify=verify, name="third"))

    assert found(third(1e-12), range(100)) == []
    assert found(third(False), range(100)) == [("forms", "third", 5)]


def test_batches_that_are_handed_over_in_parts_are_worth_a_hint():
    report = line(batch(lambda xs: xs, form="numpy", name="same")).check([1, 2.5] * 20)
    assert report.fine
    (finding,) = [finding for finding in report.findings if finding.kind == "apart"]
    assert "was handed 40 batches where 1 would do" in finding.says


def test_one_record_is_shown_after_each_step():
    report = line(abs, str, name="both").check(range(-10, 0), record=4)
    assert (report.records, report.path) == (1, ("abs: 6", "str: '6'"))
    assert "checked 1 record through both\n  abs: 6\n" in str(report)
    with pytest.raises(LineError, match="the source has no record 10"):
        line(abs).check(range(10), record=10)


def test_what_a_check_is_asked_must_make_sense():
    with pytest.raises(LineError, match="limit=0"):
        line(abs).check([], limit=0)
    with pytest.raises(LineError, match="record=-1"):
        line(abs).check([], record=-1)

    def broken():
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        line(abs).check(broken())
    assert found(line(abs), broken(), limit=1) == []


def test_records_of_the_caller_stay_as_they_are():
    mine = [{"n": 1, "name": " a "}]
    line(tidies, changes).check(mine)
    assert mine == [{"n": 1, "name": " a "}]


def test_the_command_says_it_in_sentences_and_by_its_exit_code(tmp_path):
    (tmp_path / "steps.py").write_text(
        "def parse(row):\n    print('working')\n    return int(row['n'])\ndef half(n):\n    return 10 / n\n"
    )
    (tmp_path / "in.jsonl").write_text('{"n": "1"}\n{"n": "2"}\n{"n": "0"}\n{"n": "0"}\n')

    def taktline(*arguments):
        command = [sys.executable, "-m", "taktline.cli.commands", "check", *arguments, "--in", "in.jsonl"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    fine = taktline("steps.py:parse")
    assert (fine.returncode, "fine    nothing stands in the way" in fine.stdout) == (0, True), fine.stderr
    bad = taktline("steps.py:parse,half", "--json")
    assert bad.returncode == 1, bad.stderr
    (finding,) = [each for each in json.loads(bad.stdout)["findings"] if not each["advice"]]
    assert (finding["kind"], finding["step"], finding["index"]) == ("fails", "half", 2)
    one = taktline("steps.py:parse,half", "--record", "2")
    assert one.returncode == 1
    assert "step 'half', record 2: it fails: ZeroDivisionError: division by zero" in one.stdout
    assert "parse: 0" in one.stdout
    assert taktline("steps.py:pars").returncode == 2


async def one_more(n):
    await asyncio.sleep(0)
    return n + 1


async def ones_more(numbers):
    await asyncio.sleep(0)
    return [n + 1 for n in numbers]


async def two_more_behind_ten(n):
    return n + 1 + (n > 10)


def test_steps_that_wait_are_looked_at_too():
    fine = line(one_more, keep(one_more), batch(ones_more, 10, like=one_more), batch(ones_more, tasks=4))
    assert found(fine, range(30)) == []
    assert found(line(batch(ones_more, 10, like=two_more_behind_ten)), range(30)) == [("forms", "ones_more", 11)]


def test_a_step_that_returns_none_for_every_record_is_found():
    def forgets(n):
        n + 1

    (found,) = line(forgets, repr).check(range(5)).findings
    assert (found.kind, found.step, found.advice) == ("none", "forgets", False)
    assert line(abs, forgets).check(range(5)).fine  # it may do something with the record
    assert not line(lambda n: None if n else n).check(range(5)).findings


# --- tables ---


@pytest.fixture
def orders(tmp_path):
    """Three row groups of 20 rows, with a column of a type that records do not have."""
    table = pa.table({"n": pa.array(range(60), pa.int32()), "half": pa.array([n / 2 for n in range(60)])})
    parquet.write_table(table, tmp_path / "orders.parquet", row_group_size=20)
    return taktline.read(tmp_path / "orders.parquet")


def typed(frame):
    assert frame["n"].dtype == "int32"
    return frame.assign(twice=frame["n"] * 2)


def fussy_frame(frame):
    if (frame["n"] == 37).any():
        raise ValueError("of all rows")
    return frame


def deadly_frame(frame):
    if (frame["n"] == 25).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return frame


@pytest.mark.parametrize(
    ("steps", "finds"),
    [
        ([batch(typed, form="pandas"), keep(lambda frame: frame["twice"] % 3 > 0, form="pandas")], []),
        ([batch(typed, form="pandas"), lambda row: row["twice"]], []),
        ([batch(lambda table: table.drop_columns("half"), form="arrow")], []),
        ([batch(typed, form="pandas"), batch(fussy_frame, form="pandas", name="fussy")], [("fails", "fussy", 37)]),
        ([batch(deadly_frame, form="pandas", name="deadly")], [("dies", "deadly", 25)]),
        ([batch(lambda f: f.assign(n=f["n"] - f["n"].min()), form="pandas", name="least")], [("forms", "least", 1)]),
        ([batch(lambda f: f.assign(who=os.getpid()), form="pandas", name="who")], [("workers", "", None)]),
        ([batch(typed, form="pandas", like=lambda row: {**row, "twice": row["n"]}, name="like")], [("forms", "like", 1)]),
    ],
)  # fmt: skip
def test_of_tables_it_finds_what_a_run_would_meet(steps, finds, orders):
    assert found(line(*steps), orders) == finds


def test_chance_in_columns_is_found(orders):
    drawn = np.random.default_rng(1)
    flow = line(batch(lambda frame: frame.assign(luck=drawn.random(len(frame))), form="pandas", name="luck"))
    assert ("forms", "luck", 0) in found(flow, orders)


def test_one_row_of_a_table_is_shown_after_each_step(orders):
    report = line(batch(typed, form="pandas"), lambda row: row["twice"]).check(orders, record=41)
    assert report.fine
    assert [step.partition(": ")[2] for step in report.path] == ["{'n': 41, 'half': 20.5, 'twice': 82}", "82"]


def test_so_many_rows_are_looked_at(orders):
    frame = pd.DataFrame({"n": np.arange(100, dtype="int32")})
    assert line(batch(typed, form="pandas")).check(orders, limit=25).records == 25
    assert line(batch(typed, form="pandas")).check(frame, limit=25).records == 25
