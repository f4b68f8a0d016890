"""The comparison: equality first, then figures; whatever cannot run says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from crowded import crowded
from pyarrow import parquet

import taktline
from taktline import LineError, batch, expand, keep, line, serial
from taktline._compare import comparing, contestants
from taktline._compare.table import Row, _closing, _ties


def test_all_techniques_are_compared_and_identical():
    flow = line(abs, keep(lambda n: n % 3), expand(lambda n: [n] * 2), batch(lambda ns: [n + 1 for n in ns], size=10))
    said = []
    table = flow.compare(range(-50, 50), rounds=2, workers=2, progress=said.append)
    assert [row.problem for row in table.rows] == [""] * 8
    assert table.rows[0].speed_up == 1.0
    assert all(row.seconds > 0 and (row.peak_memory > 0 or not row.measured) for row in table.rows)
    assert "identical in all rows" in str(table)
    assert json.loads(table.to_json())["records"] == 100
    assert table.to_markdown().count("\n| ") == 9
    turns = [each.split(": ")[1] for each in said if each.startswith("round")]
    assert turns == [row.technique for row in table.rows if row.measured] * 2


def test_the_prediction_stands_beside_the_measurement_with_its_error():
    table = line(abs).compare(range(500), rounds=1, workers=2, reference=False)
    for row in table.rows[:4]:
        assert row.predicted is not None
        assert row.error == pytest.approx((row.predicted - row.seconds) / row.seconds)
    elsewhere = table.rows[-1]
    assert (elsewhere.technique, elsewhere.measured) == ("line on 8 cores (predicted)", False)
    assert "%)" in str(table)


def test_ties_are_called_ties():
    best, same, slower = (
        Row(name, False, seconds=seconds, spread=0.01)
        for name, seconds in (("line", 1.0), ("pool", 1.015), ("loop", 2.0))
    )
    assert [_ties(row, [best, same, slower], "line") for row in (best, same, slower)] == [False, True, False]


def test_a_comparison_says_that_other_programs_had_the_cores():
    with crowded():
        table = line(lambda n: sum(range(n))).compare([2_000] * 4_000, rounds=1, workers=2)
    assert "Other programs took" in table.doubt
    for shown in (str(table), table.to_markdown(), table._repr_html_()):
        assert table.doubt in " ".join(shown.split())


def test_in_one_round_what_is_clearly_slower_than_the_loop_runs_once(monkeypatch):
    timed, real = [], comparing._time
    monkeypatch.setattr(comparing, "SLOW", 0.0)
    monkeypatch.setattr(comparing, "_time", lambda score, some: timed.append(score.contestant.how) or real(score, some))
    table = line(lambda n: n + 1).compare(range(2_000), rounds=1, workers=2, reference=False, predictions=False)
    assert "loop" in timed
    assert "queues" not in timed
    assert all(row.seconds > 0 and row.identical for row in table.rows)


def test_processes_of_the_standard_librarys_pool_end_without_a_word(capfd):
    """They are ended by SIGTERM, and have the handler of whoever started them."""
    before = signal.signal(signal.SIGTERM, lambda *_: exec("raise KeyboardInterrupt"))
    try:
        table = line(lambda n: lambda: n).compare(range(20), rounds=1, workers=2, predictions=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert any("Pool.imap" in row.technique and row.problem.startswith("fails: ") for row in table.rows)
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_steps_over_arrays_are_compared_too():
    halves = batch(lambda ns: ns / 2, form="numpy")
    rounded = batch(lambda table: table["half"].round(), form="pandas", like=lambda row: float(round(row["half"])))
    flow = line(halves, batch(lambda ns: ns + 1, form="numpy"), lambda n: {"half": n}, rounded)
    assert all(row.identical for row in flow.compare(range(100), rounds=1, workers=2).rows)


def test_a_technique_that_gives_other_results_is_shown_as_differing():
    seen = []

    def counted(n):
        seen.append(n)
        return len(seen)

    table = line(counted).compare(range(200), rounds=1, workers=2, predictions=False)
    problems = {row.technique: row.problem for row in table.rows}
    assert "differs from the loop at result" in problems["line, batched (2)"]


def test_arrays_nan_and_hostile_values_can_be_compared():
    flow = line(lambda n: (np.arange(n), float("nan")))
    assert all(row.identical for row in flow.compare(range(20), rounds=1, workers=2, predictions=False).rows)


def test_values_that_nothing_tells_apart_are_not_called_different():
    table = line(lambda n: lambda: n).compare(range(20), rounds=1, workers=2, reference=False, predictions=False)
    assert table.rows[0].problem == "cannot be compared: result 0 has no == and no equal pickle"


def test_what_cannot_run_somewhere_says_so_and_the_rest_runs():
    held = threading.Lock()
    table = line(lambda n: held.locked() or n, serial(abs)).compare(range(20), rounds=1, workers=2, predictions=False)
    rows = {row.technique: row for row in table.rows}
    assert rows["loop"].problem == ""
    assert "LineError" in rows["line, batched (2)"].problem


def test_the_limit_says_what_it_leaves_out():
    table = line(abs).compare(iter(range(1000)), limit=10, rounds=1, reference=False, predictions=False)
    assert table.records == 10
    assert "first 10 records" in str(table)
    table = line(abs).compare(range(1000), limit=10, rounds=1, reference=False, predictions=False)
    assert "990 were left out" in str(table)


def test_wrong_numbers_are_refused():
    with pytest.raises(LineError, match="rounds=0"):
        line(abs).compare([1], rounds=0)


# --- tables ---


@pytest.fixture
def orders(tmp_path, monkeypatch):
    """The path of four row groups of 500 rows, with what records have no type for. Each is a table."""
    monkeypatch.setattr("taktline._io.parquet.TOGETHER", (1, 1))
    n = np.arange(2000)
    table = pa.table(
        {
            "n": pa.array(n, pa.int32()),
            "half": pa.array(np.where(n % 7, n / 2, np.nan)),
            "word": pa.array([f"w{i % 5}" if i % 11 else None for i in range(2000)]),
        }
    )
    parquet.write_table(table, tmp_path / "orders.parquet", row_group_size=500)
    return str(tmp_path / "orders.parquet")


def typed(frame):
    assert frame["n"].dtype == "int32"
    frame["twice"] = frame["n"] * 2
    return frame


def over_tables(*steps):
    return line(*(batch(step, form="pandas") for step in steps))


def problems(table):
    return {row.technique: row.problem for row in table.rows}


def test_what_steps_get_as_tables_is_compared_as_tables(orders, tmp_path, monkeypatch):
    monkeypatch.setattr(contestants, "LOOP_SECONDS", 0.0)
    flow = line(batch(typed, form="pandas"), keep(lambda frame: frame["n"] % 3 > 0, form="pandas"))
    table = flow.compare(taktline.read(orders), rounds=1, workers=2)
    assert set(problems(table).values()) == {""}
    assert list(problems(table)) == [
        "loop", "one process, batched", "pool (2)", "queues, 2 processes", "line, batched (2)",
        "multiprocessing.Pool.imap (a table a chunk)", "multiprocessing queues, a process a step",
        "line on 8 cores (predicted)",
    ]  # fmt: skip
    assert [row.reckoned_from for row in table.rows] == [16] + [None] * 7
    assert table.records == 2000
    assert all(row.predicted is not None for row in table.rows[1:5])
    table.to_html(tmp_path / "table.html")
    for text in (str(table), table.to_markdown(), (tmp_path / "table.html").read_text()):
        assert "≈" in text
        assert "its first 16 rows" in text
    assert json.loads(table.to_json())["rows"][0]["reckoned_from"] == 16


def test_the_limit_counts_in_whole_row_groups(orders):
    options = {"rounds": 1, "workers": 2, "reference": False, "predictions": False}
    table = over_tables(typed).compare(taktline.read(orders), limit=501, **options)
    assert (table.records, "first 1,000 of 2,000 rows" in table.left_out) == (1000, True)
    frame = pd.DataFrame({"n": np.arange(100, dtype="int32")})
    assert over_tables(typed).compare(frame, limit=30, **options).records == 30


def test_columns_that_differ_are_shown_as_differing(orders):
    def who(frame):
        return frame.assign(who=os.getpid())

    table = over_tables(typed, who).compare(
        taktline.read(orders), rounds=1, workers=2, reference=False, predictions=False
    )
    assert problems(table)["one process, batched"] == ""
    assert problems(table)["line, batched (2)"] == "differs from one process at result 0"


def test_rows_that_fail_or_kill_are_left_out(orders):
    def fussy(frame):
        if (frame["n"] == 1234).any():
            raise ValueError("such a row")
        if (frame["n"] == 321).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return frame

    options = {"rounds": 1, "workers": 2, "reference": False, "predictions": False}
    table = over_tables(fussy).compare(taktline.read(orders), on_error="skip", **options)
    assert (table.records, set(problems(table).values())) == (1999, {""})
    assert "2 fail" in table.left_out
    with pytest.raises(taktline.WorkerDied):
        over_tables(fussy).compare(taktline.read(orders), **options)


def test_records_behind_tables_are_compared_too(orders):
    flow = line(batch(typed, form="pandas"), lambda row: row["twice"])
    table = flow.compare(taktline.read(orders), rounds=1, workers=2, reference=False, predictions=False)
    assert set(problems(table).values()) == {""}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_nothing_is_not_compared(on_error):
    with pytest.raises(LineError, match="there is nothing to compare: the source has no records"):
        line(abs).compare([], on_error=on_error)


def test_where_nothing_was_left_of_the_records_it_says_why():
    def fails(n):
        os.kill(os.getpid(), 9)

    with pytest.raises(LineError, match=r"there is nothing to compare: 2 fail, and give no result"):
        line(fails).compare([1, 2], on_error="skip")


def test_a_way_of_the_standard_library_that_takes_less_is_named():
    ours, theirs = Row("loop", False, seconds=2.0), Row("queues of theirs", True, seconds=1.0)
    said = "Stay with the loop: no technique is faster on these records."
    assert _closing([ours, theirs], "loop") == f"{said} queues of theirs, here for reference, is 2.0 times as fast."
    assert _closing([ours, replace(theirs, seconds=1.99)], "loop") == said


INTERRUPTED = """
import os, signal, sys, traceback
from taktline import line

where = sys.argv[1]

def ctrl_c():  # as a terminal sends it, where what a handler raises is lost
    files = [os.path.basename(frame.filename) for frame in traceback.extract_stack()]
    if "popen_fork.py" in files and ("pool.py" in files) == (where == "pool"):
        os.killpg(0, signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=ctrl_c)
try:
    line(abs, str).compare(range(2000), rounds=1, workers=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("where", ["pool", "queues"])
def test_ctrl_c_while_the_standard_librarys_processes_start_ends_it_and_them(where):
    made = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where], start_new_session=True, timeout=120, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (made.stdout, made.stderr, made.returncode) == ("interrupted\n", "", 0)
