"""Reports, plans and comparisons as HTML: a fragment with its own styles, for notebooks, and a whole file of plain dicts."""

from __future__ import annotations

import time
from typing import Any

from taktline._observe import pages, pictures
from taktline._observe.measures import cost, duration
from taktline._observe.pictures import escaped, section, table

SHORT = 0.5  # seconds of a run, below which its shares are not to be judged by


def report_html(report: dict[str, Any]) -> str:
    """A Report as an HTML fragment."""
    names = [step["name"] for step in report["steps"]]
    colours = pictures.step_colours(names, [step["busy"] for step in report["steps"]])
    told = {name: text for name, text in pages.report_facts(report, anywhere=True) if text}
    apart = ("steps", "verdict", "error", *pages.PASTED_FACTS)
    facts = [[name, text] for name, text in told.items() if name not in apart]
    wrong = f'<p class="wrong"><strong>{escaped(report["error"])}</strong></p>' if report.get("error") else ""
    steps = [
        [
            step["name"], f"{step['records']:,}", duration(step["busy"]), duration(step["waiting"]),
            duration(step["blocked"]), cost(step["ns_per_record"]),
        ]
        for step in report["steps"]
    ]  # fmt: skip
    return _fragment(
        f"<h3>{escaped(report['name'])}</h3>{wrong}{table((), facts)}{_suggested(told)}",
        section("Verdict", f"<p>{escaped(told.get('verdict', ''))}</p>"),
        pictures.where_the_time_went(report), pictures.over_time(report),
        pictures.who_did_what([("", report.get("history") or {}, report["seconds"])], names, colours),
        pictures.what_if(report),
        section("Steps", table(("step", "records", "busy", "waiting", "blocked", "a record"), steps, range(1, 6))),
        _failures(report), _about(report),
    )  # fmt: skip


def _suggested(told: dict[str, str]) -> str:
    """What goes on after the run, to be copied."""
    says = {"retry": "To run the dead letters again:", "resume": "To go on where it stopped:"}
    return "".join(
        f"<p>{says[name]}</p><pre>{escaped(told[name])}</pre>" for name in pages.PASTED_FACTS if name in told
    )


def _failures(report: dict[str, Any]) -> str:
    found = report.get("failures") or ()
    if not found:
        return ""
    rows = [
        [
            each["step"],
            each["reason"],
            f"{each['records']:,}",
            "; ".join(f"{n:,}: {shown}" for n, shown in each["examples"]),
        ]
        for each in found
    ]
    return section("Failures", table(("step", "reason", "records", "such as record"), rows))


def _about(report: dict[str, Any]) -> str:
    """What was run, where and when."""
    said = [
        *((name, report.get(name) or "") for name in ("command", "source", "sink", "folder", "host")),
        *((name, _local(report.get(name))) for name in ("started", "ended")),
        ("options", ", ".join(f"{name}={value}" for name, value in (report.get("options") or {}).items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in (report.get("versions") or {}).items())),
    ]
    return section("What was run", table((), [list(each) for each in said if each[1]]))


def _local(seconds: float | None) -> str:
    return "" if not seconds else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def plan_html(plan: dict[str, Any]) -> str:
    """A Plan as an HTML fragment."""
    header, rows = pages.plan_table(plan)
    facts = [list(fact) for fact in pages.plan_facts(plan) if fact[1]]
    return _fragment(f"<h3>{escaped(plan['name'])}</h3>{table((), facts)}{table(header, rows)}")


def comparison_html(comparison: dict[str, Any]) -> str:
    """A Comparison as an HTML fragment: its table, the times as bars, and the time diagram of each technique."""
    rows = [
        [*pages.cells_of(row), pages.results_of(row) + pages.mark_of(row, comparison)] for row in comparison["rows"]
    ]
    above = "".join(f"<p>{escaped(line)}</p>" for line in pages.above(comparison))
    names = comparison.get("step_names") or ()
    colours = pictures.step_colours(names, comparison.get("busy") or [0.0] * len(names))
    diagrams = [
        (row["technique"], row["history"], row["history"]["seconds"])
        for row in comparison["rows"]
        if row.get("history")
    ]
    return _fragment(
        f"{above}{table((*pages.COMPARISON_HEADS, 'results'), rows)}<p><strong>{escaped(comparison['closing'])}</strong></p>",
        pictures.bars(comparison["rows"], comparison["fastest"]), pictures.who_did_what(diagrams, names, colours),
    )  # fmt: skip


def _fragment(*inside: str) -> str:
    return f'<div class="tl"><style>{pictures.STYLE}</style>{"".join(inside)}</div>'


def html_page(title: str, fragment: str) -> str:
    """One whole HTML file without outside assets."""
    style = "body{margin:0;padding:1.5rem 1rem;color-scheme:light dark;background:#fff}.tl{margin:0 auto}" + (
        "@media(prefers-color-scheme:dark){body{background:#15181c}}@media print{body{background:#fff}}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>{fragment}</body></html>\n"
    )
