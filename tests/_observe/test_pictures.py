"""The pictures of a page, read back from their HTML: what is drawn is what the figures say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from drawn import Element, read
from hypothesis import given
from hypothesis import strategies as st
from present import present

from taktline._observe import pictures

SECONDS = st.floats(0, 1e4)


def step(name: str, busy: float, waiting: float = 0.0, blocked: float = 0.0) -> dict[str, Any]:
    return {"name": name, "busy": busy, "waiting": waiting, "blocked": blocked}


def shares(bar: Element) -> dict[str, float]:
    """By name, the width of each part of a bar in per cent."""
    widths = {}
    for part in bar.all("span"):
        name = part.attributes["title"].rpartition(" ")[0]
        widths[name] = float(present(re.search(r"width:([\d.]+)%", part.attributes["style"]))[1])
    return widths


def bar_of(report: dict[str, Any]) -> Element:
    (bar,) = read(pictures.where_the_time_went(report)).all("div", "bar")
    return bar


def test_the_time_of_workers_is_what_their_steps_took_and_what_they_waited():
    steps = [step("parse", 2.0, 1.0, 0.5), step("score", 12.0, 1.0, 0.5)]
    report = {"steps": steps, "seconds": 10.0, "workers": 2, "spent": {"no_core": 7.0}}
    bar = bar_of(report)
    # of the 17 s in which they had something to do they had no core for 7, whatever it was
    had = 10 / 17
    assert shares(bar) == pytest.approx(
        {
            "parse": 10 * had, "score": 60 * had, "waiting": 10.0, "blocked": 5.0, "no core": 35.0,
            "moving and the rest": 15 * had,
        },
        abs=0.01,
    )  # fmt: skip
    assert bar.attributes["aria-label"].startswith("parse 6%; score 35%; waiting 10%")
    assert "The time of 2 workers, 20.0 s in all." in read(pictures.where_the_time_went(report)).text


def test_steps_have_their_share_of_a_bar_where_workers_waited_for_a_core_longer_than_steps_were_at_work():
    report = {"steps": [step("score", 4.0)], "seconds": 5.0, "workers": 1, "spent": {"no_core": 4.0}}
    assert shares(bar_of(report)) == pytest.approx(
        {"score": 16.0, "no core": 80.0, "moving and the rest": 4.0}, abs=0.01
    )


def test_the_time_of_one_process_is_what_source_steps_and_sink_took():
    report = {
        "steps": [step("score", 4.0)], "seconds": 10.0, "workers": 0, "spent": {"reading": 1.0, "consuming": 3.0},
    }  # fmt: skip
    assert shares(bar_of(report)) == pytest.approx(
        {"score": 40.0, "source": 10.0, "sink": 30.0, "moving and the rest": 20.0}
    )
    assert "The time of this process" in read(pictures.where_the_time_went(report)).text


@given(
    st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=12), SECONDS, st.integers(0, 4),
    st.dictionaries(st.sampled_from(["no_core", "reading", "consuming"]), SECONDS),
)  # fmt: skip
def test_the_parts_of_the_bar_are_the_whole_of_it_whatever_was_measured(measured, seconds, workers, spent):
    steps = [step(f"s{n}", *each) for n, each in enumerate(measured)]
    widths = shares(bar_of({"steps": steps, "seconds": seconds, "workers": workers, "spent": spent}))
    assert sum(widths.values()) == pytest.approx(100, abs=1.5) or not widths


def test_a_name_stands_in_its_part_where_there_is_room_for_it_and_is_escaped():
    report = {"steps": [step("<b>", 9.0), step("tiny", 0.1)], "seconds": 10.0, "workers": 1, "spent": {}}
    bold, tiny, _ = bar_of(report).all("span")
    assert (bold.text, tiny.text) == ("<b>", "")
    assert tiny.attributes["title"] == "tiny 1.0%"


def test_the_dearest_steps_have_colours_of_their_own():
    busy = [1.0] * 4 + [9.0] * pictures.MOST_STEPS
    found = pictures.step_colours([f"s{n}" for n in range(len(busy))], busy)
    assert found[:4] == ["#888"] * 4
    assert found[4:] == list(pictures.COLOURS)


# --- over time ---


def over_time(points: list[list[float]], seconds: float = 4.0, **more: Any) -> dict[str, Any]:
    history = {"points": points, "marks": more.pop("marks", []), "more_marks": more.pop("more_marks", 0)}
    return {"seconds": seconds, "history": history} | more


def curve(row: Element) -> list[tuple[float, float]]:
    """Its points: from the left, in thousandths of the run, and from the bottom, as a share of its highest value."""
    (line,) = row.all("polyline")
    pairs = (pair.split(",") for pair in line.attributes["points"].split())
    return [(float(x), (40 - float(y)) / 38) for x, y in pairs]


def plots(report: dict[str, Any]) -> dict[str, Element]:
    """By what they show."""
    rows = read(pictures.over_time(report)).all("div", "row")
    return {row.all("title")[0].text.partition(" over time")[0]: row for row in rows if row.all("polyline")}


def test_throughput_is_the_records_between_two_points():
    points = [[1.0, 100, 0, 0, 0, 0, 0], [2.0, 300, 0, 0, 0, 0, 0], [4.0, 300, 0, 0, 0, 0, 0]]
    found = plots(over_time(points, resumed_at=50))
    assert list(found) == ["records a second"]  # nothing else was ever more than 0
    speeds = curve(found["records a second"])
    assert speeds == [(0, pytest.approx(0.25)), (250, pytest.approx(0.25)), (500, 1.0), (1000, 0.0)]
    assert "at most 200.0 /s, 0.0 /s at the end" in found["records a second"].all("title")[0].text


def test_what_holds_until_it_changes_is_drawn_as_steps_and_memory_as_a_slope():
    points = [[1.0, 1, 0, 2, 10, 500, 0], [2.0, 2, 0, 4, 10, 1_000, 3]]
    found = plots(over_time(points))
    assert list(found) == ["records a second", "workers", "batch size", "memory", "failed"]
    assert curve(found["workers"]) == [(0, 0.5), (250, 0.5), (500, 0.5), (500, 1.0)]
    assert curve(found["memory"]) == [(0, 0.5), (250, 0.5), (500, 1.0)]
    assert "≤ 1 kB" in found["memory"].text


def test_what_happened_is_marked_in_each_plot_and_listed():
    points = [[1.0, 1, 0, 1, 1, 1, 0], [4.0, 2, 0, 1, 1, 1, 0]]
    report = over_time(points, marks=[[2.0, "died", "worker <1> died"]], more_marks=1_234)
    for row in plots(report).values():
        (mark,) = row.all("line")
        assert mark.attributes["x1"] == mark.attributes["x2"] == "500"
        assert mark.text == "worker <1> died"
    assert [item.text for item in read(pictures.over_time(report)).all("li")] == [
        "2.00 s: worker <1> died", "1,234 more",
    ]  # fmt: skip


def test_a_run_without_two_points_has_no_course():
    assert pictures.over_time(over_time([[1.0, 1, 0, 1, 1, 1, 0]])) == ""
    assert pictures.over_time({"seconds": 1.0}) == ""


# --- who did what ---

NAMES, COLOURS = ["parse", "score"], ["#111111", "#222222"]


def rects(row: Element) -> list[tuple[str, int, int]]:
    return [
        (each.attributes["fill"], int(each.attributes["x"]), int(each.attributes["width"])) for each in row.all("rect")
    ]


def test_a_row_has_each_stretch_of_work_in_the_colour_of_its_step():
    history = {"rows": [[None, [[0, 3], [-1, 1]]], [0, [[-1, 1], [1, 2], [0, 1]]]], "cell_seconds": 0.25}
    page = read(pictures.who_did_what([("", history, 1.0)], NAMES, COLOURS))
    here, worker = (row for row in page.all("div", "row") if row.all("svg"))
    assert rects(here) == [("#111111", 0, 3)]
    assert rects(worker) == [("#222222", 1, 2), ("#111111", 3, 1)]
    assert here.all("title")[0].text == "this process: at work in 75% of the time"
    assert worker.all("title")[0].text == "worker 1: at work in 75% of the time"
    assert [item.text for item in page.all("li")] == NAMES
    assert "Looked at every 0.25 s." in page.text


def test_several_runs_stand_below_each_other_with_their_titles_and_only_steps_that_worked_in_the_key():
    first = {"rows": [[None, [[1, 2]]]], "cell_seconds": 0.001}
    second = {"rows": [[n, [[1, 2]]] for n in range(pictures.MOST_ROWS + 3)], "cell_seconds": 0.5}
    page = read(pictures.who_did_what([("loop", first, 1.0), ("pool", {}, 1.0), ("line", second, 2.0)], NAMES, COLOURS))
    titles = [each.text for each in page.all("p") if each.attributes.get("class") != "soft"]
    assert titles == ["loop", "line"]  # nothing is known of the pool
    assert len([row for row in page.all("div", "row") if row.all("svg")]) == 1 + pictures.MOST_ROWS
    assert "3 more workers." in page.text
    assert [item.text for item in page.all("li")] == ["score"]
    assert "Looked at every 1.0 ms to 0.50 s." in page.text


def test_where_nobody_was_looked_at_there_is_no_diagram():
    assert pictures.who_did_what([("", {}, 1.0)], NAMES, COLOURS) == ""


# --- what if ---


def points(*seconds: float, here: int = 0, limits: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    names = limits or ("score",) * len(seconds)
    return [
        {"cores": 1 << n, "seconds": each, "bottleneck": name, "here": n == here}
        for n, (each, name) in enumerate(zip(seconds, names, strict=True))
    ]


def test_each_number_of_cores_is_a_dot_and_this_runs_own_is_the_larger_one():
    report = {"what_if": points(8.0, 4.0, 2.0, here=1, limits=("score", "score", "source"))}
    page = read(pictures.what_if(report))
    dots = page.all("span", "dot")
    assert [dot.text for dot in dots] == ["8.00 s", "4.00 s", "2.00 s"]
    assert ["here" in dot.attributes["class"] for dot in dots] == [False, True, False]
    assert [dot.attributes["style"] for dot in dots] == [
        "left:0.0%;top:10.0%", "left:50.0%;top:55.0%", "left:100.0%;top:77.5%",
    ]  # fmt: skip
    assert "Bottleneck: 'score', from 4 cores on the source. The larger dot is this run, on 2 cores." in page.text


@pytest.mark.parametrize("found", [[], points(1.0)])
def test_one_number_of_cores_makes_no_picture(found):
    assert pictures.what_if({"what_if": found}) == ""


# --- the bars of a comparison ---


def row(technique: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"technique": technique, "seconds": seconds, "spread": None, "problem": "", "measured": True} | more


def test_bars_are_as_long_as_the_times_and_the_fastest_has_a_mark_beside_its_colour():
    rows = [
        row("loop", 3.0, spread=1.0), row("line", 1.0), row("far", 0.5, measured=False),
        row("queues", 0.0, problem="they differ"), row("rows", 90.0, reckoned_from=500),
    ]  # fmt: skip
    page = read(pictures.bars(rows, "line"))
    bars = page.all("rect")
    assert [int(each.attributes["width"]) for each in bars] == [750, 250, 125]
    assert len({each.attributes["fill"] for each in bars}) == 3
    (whisker,) = page.all("line")
    assert (whisker.attributes["x1"], whisker.attributes["x2"]) == ("500", "1000")
    assert page.text.count("◄ fastest") == 1
    assert "line · 1.00 s ◄ fastest" in page.text


def test_where_nothing_was_timed_there_are_no_bars():
    assert pictures.bars([row("queues", 0.0, problem="they differ"), row("rows", 9.0, reckoned_from=5)], "") == ""


# --- tables ---


def test_numbers_stand_right_in_a_table_and_what_is_in_cells_is_shown_as_it_is():
    (table,) = read(pictures.table(("step", "records"), [("<parse>", "1,000")], [1])).all("table")
    assert [cell.text for cell in table.all("th")] == ["step", "records"]
    assert [(cell.text, cell.attributes.get("class")) for cell in table.all("td")] == [
        ("<parse>", None),
        ("1,000", "n"),
    ]
    (facts,) = read(pictures.table((), [("a", "b")])).all("table")
    assert (facts.attributes["class"], facts.all("th")) == ("facts", [])
    assert read(pictures.section("T & U", "<p>x</p>", note="n")).text == "T & Uxn"
