"""What a run, a plan and a comparison say as text: every fact that they have, in lines that fit, and none that they lack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made
import pytest
from made import FAR, FAULTY, LINE, LOOP, POOL, comparison

from taktline._observe import pages
from taktline._observe.snapshot import NodeCount


def report(**more: Any) -> dict[str, Any]:
    return made.report(**more).to_dict()


def facts(**more: Any) -> dict[str, str]:
    return dict(pages.report_facts(report(**more)))


def test_a_report_says_what_was_done_how_fast_by_whom_and_where_the_time_went():
    text = pages.report_text(report(reasons=("workers pay",), notes=("another Python", "another host")))
    assert text.splitlines()[:3] == [
        " done     2,000 in · 1,990 out   2.00 s · 1.0 k/s",
        " cpu      75% of 2 cores · peak 214 MB · line, 2 workers",
        " steps    parse 250.0 µs/rec · score 1.5 ms/rec",
    ]
    assert " why      workers pay" in text
    assert " note     another Python; another host" in text
    assert " ".join(text.split()).count("A cheaper 'score' helps. Then 'parse' is next.") == 1


def test_no_line_is_wider_than_a_terminal_but_what_is_to_be_pasted():
    long = "word " * 60
    retry = "taktline retry " + "x" * 100
    text = pages.report_text(report(reasons=(long,), error=f"{long}\nthe rest of it", retry=retry))
    assert [line for line in text.splitlines() if len(line) > pages.PAGE_WIDTH] == [f" retry    {retry}"]
    assert "the rest of it" not in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"skipped": 3, "failed": 3}, " · 3 skipped"),
        ({"retried": 1_200}, " · 1,200 retried"),
        ({"failed": 4}, " · 4 failed"),
        ({"failed": 4, "dead_lettered": 4, "dead_letters": "bad.jsonl"}, " · 4 dead-lettered (bad.jsonl)"),
        ({"resumed_at": 1_500}, " · resumed at record 1,500"),
        ({"resumed_at": 2_000}, ""),  # there was nothing left to do
        ({}, ""),
    ],
)
def test_what_became_of_records_is_said_where_there_are_such(more, says):
    head = facts(**more)["done"].partition("   ")[0]
    assert head == f"2,000 in · 1,990 out{says}"


def test_a_run_that_took_no_time_has_no_rate_and_one_that_was_resumed_that_of_its_own_records():
    assert facts(seconds=0.0)["done"].endswith("0.0 ms · ")
    assert facts(resumed_at=1_000)["done"].endswith("2.00 s · 500.0 /s")


def test_without_workers_all_of_it_was_in_this_process():
    assert facts(workers=0, how="loop", cores=1)["cpu"] == "75% of 1 core · peak 214 MB · loop, this process"


def test_the_machines_of_a_run_are_told_with_how_busy_they_were_and_the_first_of_many_alone():
    used, left = NodeCount("10.0.0.7", 4, 1_000, 10, busy=6.0), NodeCount("10.0.0.8", 0, 1, 1, busy=0.1)
    assert facts(nodes=(used, left))["nodes"] == (
        "10.0.0.7: 1,000 records, 4 workers busy 75%; 10.0.0.8: 1 record, no workers at the end"
    )
    assert facts(nodes=(used,), seconds=0.0)["nodes"].endswith("4 workers")
    assert facts(nodes=(used,) * (pages.NODES + 2))["nodes"].endswith("busy 75%; 2 more")
    assert facts()["nodes"] == ""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"complete": True, "total": 5_000}, ""),
        ({"complete": False}, ""),
        ({"complete": False, "total": 2_000}, ""),
        ({"complete": False, "total": 5_000}, "3,000 of 5,000 records"),
        ({"complete": False, "total": 5_000, "left": 30.0}, "3,000 of 5,000 records: about 30.0 s more at this pace"),
        ({"complete": False, "total": 5_000, "reckoned": True}, "3,000 of about 5,000 records"),
    ],
)
def test_what_is_left_is_said_of_a_run_that_ended_early_where_it_is_known(more, says):
    assert facts(**more)["left"] == says


def test_what_goes_on_after_a_run_can_be_pasted_where_the_reader_is(monkeypatch):
    given = {"complete": False, "journal": "orders.journal", "folder": "/data/my orders"}
    command = given | {"command": "taktline run score.py"}
    monkeypatch.setattr(pages, "working_folder", lambda: "/data/my orders")
    assert facts(**given)["resume"] == "run it again with journal='orders.journal' to go on"
    assert facts(**command)["resume"] == "taktline run score.py"
    there = dict(pages.report_facts(report(**command), anywhere=True))
    assert there["resume"] == "cd '/data/my orders' && taktline run score.py"
    monkeypatch.setattr(pages, "working_folder", lambda: "/home")
    assert facts(**command)["resume"] == there["resume"]
    assert facts(**command | {"complete": True})["resume"] == ""
    assert facts(**command | {"journal": None})["resume"] == ""
    assert facts(retry="retry(flow, 'bad.jsonl')")["retry"] == "retry(flow, 'bad.jsonl')"  # Python: for any folder


def test_nothing_that_steers_a_terminal_comes_out_of_a_report():
    text = pages.report_text(report(error="\x1b[2Jgone", reasons=("a\x07bell",)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[2Jgone" in text


def test_sentences_are_folded_to_the_terminal_but_not_wider_than_is_good_to_read_and_a_flag_stays_with_its_value():
    text = "let them be left out with --on-error skip, or kept with --dead-letters failed.jsonl\n  next    mend it"
    assert pages.folded(text, 2, 40).split("\n") == [
        "let them be left out with",
        "  --on-error skip, or kept with",
        "  --dead-letters failed.jsonl",
        "    next    mend it",
    ]
    for width, most in ((300, pages.WIDEST), (10, pages.NARROWEST)):
        assert most - len("word ") < max(map(len, pages.folded("word " * 90, 4, width).split("\n"))) <= most


# --- plans and checks ---


def plan(**facts: Any) -> dict[str, Any]:
    cores = (1, 2, 4, 8, 64)
    predicted = [
        {"how": how, "cores": n, "seconds": 1e4 / n, "cpu_utilisation": 0.9, "memory": 5e7 * n, "bottleneck": "parse"}
        for how in ("loop", "line")
        for n in cores
    ]
    return {
        "name": "parse", "tried": 100, "failed": 0, "records": 1_000, "length_known": True, "cores": 2,
        "steps": [{"name": "parse", "ns_per_record": 100.0, "spread": 0.1, "computing": 1.0}], "move_in_ns": 10.0,
        "move_out_ns": 10.0, "size_in": 9, "size_out": 9, "read_ns": 5.0, "start_up": 0.1, "workers": 0, "seconds": 2.0,
        "reasons": ("give on_error=\"skip\"",), "advice": (), "predictions": predicted,
    } | facts  # fmt: skip


@pytest.mark.parametrize(("width", "machines"), [(200, 5), (72, 5), (60, 4), (40, 2), (20, 1)])
def test_a_plan_shows_as_many_machines_as_fit_and_this_one_whatever_does(width, machines):
    lines = pages.plan_text(plan(), width, said=str.upper).splitlines()
    (header,) = [each for each in lines if each.startswith(" predicted")]
    assert header.count("core") == machines
    assert "2 cores, here" in header
    assert all(len(each) <= max(width, pages.NARROWEST) for each in lines)
    assert ' why      GIVE ON_ERROR="SKIP"' in lines


def test_a_plan_for_nothing_says_that_there_is_nothing():
    text = pages.plan_text(plan(tried=0, reasons=("there are no records",)))
    assert text == " plan     parse · no records · 2 cores\n why      there are no records"


def found(**facts: Any) -> dict[str, Any]:
    finding = {"kind": "fails", "step": "parse", "index": 1_048, "says": "it fails", "next": "mend it", "advice": False}
    return finding | facts


def check(*findings: dict[str, Any], **facts: Any) -> dict[str, Any]:
    fine = all(each["advice"] for each in findings)
    return {"line": "parse", "records": 2_000, "findings": findings, "path": (), "record": None, "fine": fine} | facts


def test_a_check_says_of_each_thing_where_it_is_and_what_to_do():
    reading = found(kind="reading", step="(reading)", index=None)
    text = pages.check_text(check(found(), reading, found(step="", index=None, advice=True)), said=str.upper)
    assert text.splitlines() == [
        " checked 2,000 records through parse",
        " found   step 'parse', record 1,048: IT FAILS", "         next: MEND IT",
        " found   (reading): IT FAILS", "         next: MEND IT",
        " advice  line: IT FAILS", "         next: MEND IT",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "nothing stands in the way of a run"),
        ({"records": 1, "record": 1_048}, "nothing stands in the way of record 1,048"),
        ({"records": 0}, "there are no records: no step was tried"),
    ],
)
def test_a_check_that_found_nothing_says_of_what_that_holds(facts, says):
    assert pages.check_text(check(**facts)).splitlines()[1:] == [f" fine    {says}"]


def test_the_way_of_one_record_is_folded_too_and_steers_no_terminal():
    lines = pages.check_text(check(path=("parse: " + "word " * 30, "a\x07bell")), 60).splitlines()
    assert all(len(each) <= 60 for each in lines)
    assert lines[1].startswith("  parse: word")
    assert lines[2].startswith("    word")
    assert "  a\\x07bell" in lines


# --- comparisons ---


def test_a_comparison_is_a_table_with_the_fastest_and_the_ties_marked():
    lines = pages.comparison_text(comparison(LOOP, LINE, POOL, FAR).to_dict(), width=200).splitlines()
    assert lines[0] == " 1,000 records · 2 steps · 2 cores · 3 rounds, taken in turn"
    assert lines[1] == " results identical in all rows"
    assert lines[2].split() == ["technique", "runtime", "cpu", "speed-up", "memory", "first", "result", "predicted"]
    assert " ".join(lines[3].split()) == "loop 2.00 s ± 0.01 50% 1.0 × 30 MB 1.0 ms 2.20 s (+10%)"
    assert lines[4].endswith("0.90 s (-10%)   ◄ fastest")
    assert lines[5] == " ── for reference ──"
    assert lines[6].endswith("   ◄ a tie")
    assert " ".join(lines[7].split()) == "line on 8 cores (predicted) 0.25 s - 8.0 × - - -"
    assert lines[8] == " line is 2.0 times the loop."


@pytest.mark.parametrize("width", [80, 100])
def test_where_not_all_of_it_fits_the_predictions_stand_below_the_table(width):
    text = pages.comparison_text(comparison(LOOP, LINE, POOL, FAR).to_dict(), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "predicted: loop 2.20 s (+10%), line 0.90 s (-10%)" in " ".join(text.split())
    assert "a chunk of 64" not in text
    assert " ◄" in text


@pytest.mark.parametrize(("width", "columns"), [(70, 6), (56, 5), (48, 4), (38, 3), (10, 3)])
def test_a_comparison_leaves_out_the_columns_that_a_narrow_terminal_has_no_room_for(width, columns):
    lines = pages.comparison_text(comparison(LOOP, LINE).to_dict(), width).splitlines()
    (header,) = [each for each in lines if each.startswith(" technique")]
    assert header.split() == ["technique", "runtime", "cpu", "speed-up", "memory", "first"][:columns] or (
        header.split() == ["technique", "runtime", "speed-up"]
    )
    assert len(header.split()) == columns
    assert all(len(each) <= max(width, pages.NARROWEST) for each in lines)


def test_nothing_is_said_below_where_nothing_was_predicted():
    rows = [replace(row, predicted=None) for row in (LOOP, LINE, POOL)]
    assert "predicted" not in pages.comparison_text(comparison(*rows).to_dict(), width=60)


def test_a_row_without_times_says_why_and_the_results_are_not_called_identical():
    text = pages.comparison_text(comparison(LOOP, FAULTY).to_dict())
    assert "identical" not in text
    assert FAULTY.problem in " ".join(text.split())
    table = pages.comparison_markdown(comparison(LOOP, FAULTY).to_dict())
    assert f"| queues | - | - | - | - | - | - | {FAULTY.problem} |" in table


def test_markdown_has_a_row_a_technique_and_keeps_its_columns():
    odd = replace(LINE, technique="line | of two")
    table = pages.comparison_markdown(comparison(LOOP, odd, FAR, fastest="line | of two").to_dict())
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert [line.rpartition(" | ")[2] for line in rows[2:]] == ["identical |", "identical   ◄ fastest |", "- |"]
    assert r"line \| of two" in table


def test_times_that_are_reckoned_say_so_and_have_no_spread():
    reckoned = replace(LOOP, reckoned_from=500)
    text = pages.comparison_text(comparison(reckoned, LINE, doubt="Other programs had the cores.").to_dict(), width=200)
    assert "≈ 2.00 s  " in text
    assert "≈ the loop is reckoned from its first 500 rows" in text
    assert "Other programs had the cores." in text


def test_one_round_has_no_spread():
    (row,) = comparison(replace(LOOP, spread=None)).to_dict()["rows"]
    assert pages.cells_of(row)[1] == "2.00 s"


@pytest.mark.parametrize(
    ("seconds", "spread", "says"),
    [(0.05, 0.0012, "50.0 ms ± 1.2"), (2.0, 0.0149, "2.00 s ± 0.01"), (150.0, 75.0, "2 m 30 s ± 75.0 s")],
)
def test_a_spread_has_the_unit_of_its_time(seconds, spread, says):
    (row,) = comparison(replace(LOOP, seconds=seconds, spread=spread)).to_dict()["rows"]
    assert pages.cells_of(row)[1] == says
