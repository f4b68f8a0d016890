"""The pages of runs, plans and comparisons, read back from their HTML. What they look like: test_in_browser.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import made
import pytest
from drawn import Element, read
from made import LINE, LOOP, comparison

from taktline._observe import web


def report(**more: Any) -> dict[str, Any]:
    return made.report(**more).to_dict()


def sections(page: Element) -> dict[str, Element]:
    """By title."""
    return {each.all("h3")[0].text: each for each in page.all("section")}


def cells(element: Element) -> list[list[str]]:
    return [[cell.text for cell in row.all("td")] for row in element.all("tr") if row.all("td")]


def test_a_page_of_a_run_says_what_its_text_says():
    page = read(web.report_html(report(reasons=("workers pay",))))
    assert page.all("h3")[0].text == "orders"
    told = dict(cells(page.all("table", "facts")[0]))
    assert told["why"] == "workers pay"
    assert told["done"].startswith("2,000 in · 1,990 out")
    found = sections(page)
    assert "A cheaper 'score' helps." in found["Verdict"].text
    assert cells(found["Steps"]) == [
        ["parse", "2,000", "0.50 s", "0.25 s", "0.0 ms", "250.0 µs/rec"],
        ["score", "1,000", "1.50 s", "0.25 s", "0.10 s", "1.5 ms/rec"],
    ]
    assert not {"Failures", "Over time", "Who did what when"} & {*found}  # nothing is known of those


def test_what_ended_a_run_stands_at_the_top_and_what_goes_on_after_it_can_be_copied():
    page = read(web.report_html(report(error="OSError: <full>", retry="retry it", complete=False, journal="j")))
    (wrong,) = page.all("p", "wrong")
    assert wrong.text == "OSError: <full>"
    assert [each.text for each in page.all("pre")] == ["retry it", "run it again with journal='j' to go on"]
    assert not read(web.report_html(report())).all("pre")


def test_failures_are_shown_with_the_records_that_failed_first():
    failures = (
        {"step": "parse", "reason": "ValueError: x", "records": 1_200, "examples": [[7, "'a'"], [1_009, "'b'"]]},
    )
    found = sections(read(web.report_html(report(failures=failures))))
    assert cells(found["Failures"]) == [["parse", "ValueError: x", "1,200", "7: 'a'; 1,009: 'b'"]]


def test_what_was_run_is_told_where_it_is_known(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    web.time.tzset()
    known = {
        "source": "orders.csv", "host": "here", "started": 86_400.0, "options": {"workers": "2", "on_error": "'skip'"},
        "versions": {"Python": "3.13.0"},
    }  # fmt: skip
    found = sections(read(web.report_html(report(**known))))
    assert cells(found["What was run"]) == [
        ["source", "orders.csv"], ["host", "here"], ["started", "1970-01-02 00:00:00 UTC"],
        ["options", "workers=2, on_error='skip'"], ["versions", "Python 3.13.0"],
    ]  # fmt: skip


def test_a_page_of_a_comparison_has_a_row_a_technique_its_bars_and_the_diagrams_that_were_kept():
    history = {"rows": [[None, [[0, 1], [1, 3]]]], "cell_seconds": 0.5, "seconds": 2.0}
    page = read(web.comparison_html(comparison(replace(LOOP, history=history), LINE, busy=(0.5, 1.5)).to_dict()))
    loop, line = cells(page.all("table")[0])
    assert (loop[0], loop[-1]) == ("loop", "identical")
    assert (line[0], line[-1]) == ("line", "identical   ◄ fastest")
    assert page.all("strong")[0].text == "line is 2.0 times the loop."
    found = sections(page)
    assert len(found["How long each takes"].all("rect")) == 2
    assert found["Who did what when"].all("p")[0].text == "loop"
    assert [item.text for item in found["Who did what when"].all("li")] == ["parse", "score"]


@pytest.mark.parametrize("busy", [(), (0.5, 1.5)])
def test_a_comparison_without_diagrams_is_a_page_too(busy):
    page = read(web.comparison_html(comparison(LOOP, LINE, busy=busy).to_dict()))
    assert list(sections(page)) == ["How long each takes"]


def test_a_page_is_whole_by_itself():
    text = web.html_page("<orders>", web.report_html(report()))
    page = read(text.removeprefix("<!doctype html>"))
    assert page.all("title")[0].text == "<orders>"
    assert not page.all("script")
    assert not page.all("link")
    assert "http" not in text
    assert "src=" not in text
