"""Snapshot, Report and Verdict, made by hand: how they show themselves."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import made
import pytest

from taktline import Snapshot, StepCount, Verdict
from taktline._observe import web


def test_a_snapshot_is_one_line_and_plain_values():
    step = StepCount("score", 10, busy=1.5, waiting=0.25, blocked=0.0, ns_per_record=1.5e8)
    snapshot = Snapshot("orders", "line", 2, 64, 1.5, 1_200, 1_100, 3, 97, None, 5_000, (step,))
    assert repr(snapshot) == "<Snapshot 'orders': 1,200 of 5,000 records, 3 failed, 1.5 s>"
    assert repr(replace(snapshot, total=None)) == "<Snapshot 'orders': 1,200 records, 3 failed, 1.5 s>"
    assert json.loads(json.dumps(snapshot.to_dict()))["steps"][0]["name"] == "score"


def test_a_verdict_reads_as_sentences_and_leaves_out_what_it_does_not_say():
    verdict = Verdict("score", "'score' takes all of it.", "A cheaper 'score' helps.")
    assert str(verdict) == "'score' takes all of it. A cheaper 'score' helps."
    more = replace(verdict, next="parse", doubt="0.20 s is too short to judge.")
    assert str(more) == f"0.20 s is too short to judge. {verdict} Then 'parse' is next."
    for name, words in (("hub", "the caller's process"), ("source", "the source"), ("sink", "the sink")):
        assert str(replace(more, next=name)).endswith(f"Then {words} is next.")


def test_a_report_says_whether_the_run_is_done_and_is_json_of_its_fields():
    report = made.report()
    assert repr(report) == "<Report 'orders': done, 2,000 in, 1,990 out, 0 failed, 2 s>"
    assert repr(replace(report, complete=False)) == "<Report 'orders': stopped, 2,000 in, 1,990 out, 0 failed, 2 s>"
    assert json.loads(report.to_json()) == json.loads(json.dumps(report.to_dict()))
    assert str(report).startswith(" done     2,000 in · 1,990 out   2.00 s")


def test_a_report_writes_itself_as_the_page_that_a_notebook_shows(tmp_path):
    report = made.report()
    report.to_html(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert report._repr_html_() in page
    assert page == web.html_page("orders", web.report_html(json.loads(report.to_json())))


@pytest.fixture
def cell(monkeypatch):
    """What a notebook's cell is given to show; IPython itself is asked in tests/views."""
    shown: list[dict[str, str]] = []
    display = SimpleNamespace(display=lambda bundle, raw: shown.append(bundle))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.delitem(sys.modules, "taktline.views.notebook", raising=False)
    return shown


def test_a_notebook_shows_a_report_as_text_and_as_a_page(cell):
    report = made.report()
    report._ipython_display_()
    assert cell == [{"text/plain": str(report), "text/html": report._repr_html_()}]


@pytest.mark.parametrize("there", [True, False])
def test_a_report_that_the_runs_own_output_has_become_is_not_shown_twice(there, cell, monkeypatch):
    notebook = SimpleNamespace(is_shown=lambda report: there)
    monkeypatch.setitem(sys.modules, "taktline.views.notebook", notebook)
    made.report()._ipython_display_()
    assert len(cell) == (not there)
