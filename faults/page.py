"""FAULTS.md from the results."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from faults.adapters import MODULES
from faults.results import Results
from faults.scenario import Scenario, Verdict
from faults.scenarios import scenarios

MARK = "<!-- table -->"
ASKED = [each for each in Verdict if each not in (Verdict.NOTHING_TO_ASK, Verdict.NOT_HERE)]
SHORT = {Verdict.PASS: "pass", Verdict.NOT_OFFERED: "–", Verdict.NOTHING_TO_ASK: "n/a", Verdict.NOT_HERE: "not run"}


def write_page(results: Results, path: str) -> None:
    """Put the page into a file, below its mark."""
    file = Path(path)
    head = file.read_text(encoding="utf-8").split(MARK)[0]
    file.write_text(f"{head}{MARK}\n\n{page(results)}", encoding="utf-8")


def write_figure(path: str, name: str, figure: str) -> None:
    """Keep a figure of another program, and put it into the page too."""
    results = Results.load()
    results.figures[name] = figure
    results.save()
    write_page(results, path)


def page(results: Results) -> str:
    """Everything below the mark: figures, counts, the table, the reasons."""
    columns = [name for name in MODULES if name in results.cells]
    parts = [head(results), counts(results, columns)]
    for group, rows in groupby(scenarios(), key=lambda each: each.group):
        parts.append(table(group, list(rows), results, columns))
    parts.append(reasons(results, columns))
    return "\n\n".join(parts) + "\n"


def head(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    figures = "".join(f"\n- {name}: {figure}" for name, figure in sorted(results.figures.items()))
    return f"{versions}.\n{figures}".rstrip()


def counts(results: Results, columns: list[str]) -> str:
    """How often each verdict, and of how many scenarios that could be asked."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for verdict in [Verdict.PASS, *(each for each in ASKED if each is not Verdict.PASS)]:
        found = [sum(results.verdict(column, each.name) is verdict for each in scenarios()) for column in columns]
        lines.append(f"| {verdict.value} | " + " | ".join(map(str, found)) + " |")
    asked = [sum(results.verdict(column, each.name) in ASKED for each in scenarios()) for column in columns]
    lines.append("| of | " + " | ".join(map(str, asked)) + " |")
    return "\n".join(lines)


def table(group: str, rows: list[Scenario], results: Results, columns: list[str]) -> str:
    lines = [f"## {group}", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [shown(results.verdict(column, row.name)) for column in columns]
        lines.append(f"| **{row.name}**: {row.fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    return SHORT.get(verdict, f"**{verdict.value}**")


def reasons(results: Results, columns: list[str]) -> str:
    """What was seen, for each cell that is no pass."""
    lines = ["## What was seen"]
    for column in columns:
        found = [
            f"- {each.name}: {verdict.value}, {why}"
            for each in scenarios()
            if (verdict := results.verdict(column, each.name)) not in (None, Verdict.PASS)
            and (why := results.why(column, each.name).replace("<", "‹").replace("|", "/"))
        ]
        if found:
            lines.append("\n".join([f"**{column}**", "", *found]))
    return "\n\n".join(lines)
