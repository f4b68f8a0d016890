"""The comparison: equality first, then figures; whatever cannot run says so."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from taktline import LineError, batch, expand, keep, line, serial
from taktline._compare import Row, _ties


def test_all_techniques_are_compared_and_identical():
    flow = line(abs, keep(lambda n: n % 3), expand(lambda n: [n] * 2), batch(lambda ns: [n + 1 for n in ns], size=10))
    said = []
    table = flow.compare(range(-50, 50), rounds=2, workers=2, progress=said.append)
    assert [row.problem for row in table.rows] == [""] * 7
    assert table.rows[0].speed_up == 1.0
    assert all(row.seconds > 0 and (row.peak_memory > 0 or not row.measured) for row in table.rows)
    assert "identical in all rows" in str(table)
    assert json.loads(table.to_json())["records"] == 100
    assert table.to_markdown().count("\n| ") == 8
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
