"""The numbers of a run as text for people, with the standard library only. Takes plain dicts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from taktline._excerpts import harmless
from taktline._observe.measures import bottleneck, cost, duration, many, rate, size
from taktline._working_folder import working_folder

PAGE_WIDTH = 80  # columns
NARROWEST, WIDEST = 40, 100  # that sentences are folded to
NODES = 8  # that are told of one by one
_FLAG = re.compile(r"(?<!\S)(--[a-z][a-z-]*) (?=\w)")
PASTED_FACTS = ("retry", "resume")  # facts that stay on one line, to be copied


def report_text(report: dict[str, Any], width: int = PAGE_WIDTH, said: Callable[[str], str] = str) -> str:
    """A Report as some lines of text for a terminal of so many columns. `said`: what becomes of its words."""
    facts = [(name, said(text)) for name, text in report_facts(report) if text]
    lines = (f" {name:<8} {text if name in PASTED_FACTS else folded(text, width=width)}" for name, text in facts)
    return harmless("\n".join(lines), keep="\n")


def report_facts(report: dict[str, Any], *, anywhere: bool = False) -> list[tuple[str, str]]:
    """What a Report says, by name. `anywhere`: what is to be pasted says in which folder, also where that is this one."""
    seconds = report["seconds"]
    head = "done" if report["complete"] else "stopped"
    counts = f"{report['records_in']:,} in · {report['records_out']:,} out"
    for what in ("skipped", "retried"):
        if report[what]:
            counts += f" · {report[what]:,} {what}"
    if report["dead_lettered"]:
        counts += f" · {report['dead_lettered']:,} dead-lettered ({report['dead_letters']})"
    elif report["failed"] and not report["skipped"]:
        counts += f" · {report['failed']:,} failed"
    if report["resumed_at"] and report["records_in"] > report["resumed_at"]:
        counts += f" · resumed at record {report['resumed_at']:,}"
    speed = rate((report["records_in"] - report["resumed_at"]) / seconds) if seconds else ""
    resume = ""
    if report["journal"] and not report["complete"]:
        same = _pasted(report, report.get("command", ""), anywhere)
        resume = same or f"run it again with journal={report['journal']!r} to go on"
    used = f"{report['cpu_utilisation']:.0%} of {many(report['cores'], 'core')} · peak {size(report['peak_memory'])}"
    workers = many(report["workers"], "worker") if report["workers"] else "this process"
    steps = " · ".join(f"{step['name']} {cost(step['ns_per_record'])}" for step in report["steps"])
    verdict = report["verdict"]
    following = f"Then {bottleneck(verdict['next'])} is next." if verdict["next"] else ""
    return [
        (head, f"{counts}   {duration(seconds)} · {speed}"),
        ("error", (report.get("error") or "").partition("\n")[0]),
        ("left", left_of(report)),
        ("cpu", f"{used} · {report['how']}, {workers}"),
        ("steps", steps),
        ("nodes", nodes_of(report)),
        ("verdict", " ".join(filter(None, (verdict.get("doubt"), verdict["evidence"], verdict["action"], following)))),
        ("why", "; ".join(report["reasons"])),
        ("note", "; ".join(report.get("notes", ()))),
        ("retry", _pasted(report, report.get("retry", ""), anywhere)),
        ("resume", resume),
    ]


def _pasted(report: dict[str, Any], command: str, anywhere: bool) -> str:
    """A command, with the way into the folder that its paths begin in; none is needed in that folder."""
    folder = report.get("folder", "")
    if not command.startswith("taktline ") or not folder or (folder == working_folder() and not anywhere):
        return command
    return f"cd {shlex.quote(folder)} && {command}"


def nodes_of(report: dict[str, Any]) -> str:
    """The other machines that a run has workers on, and how busy they are; empty where there are none."""
    nodes, seconds = sorted(report.get("nodes") or (), key=lambda each: str(each["name"])), report["seconds"]
    said = []
    for each in nodes[:NODES]:
        busy = (
            f" busy {min(1.0, each['busy'] / (seconds * each['workers'])):.0%}" if seconds and each["workers"] else ""
        )
        there = f"{many(each['workers'], 'worker')}{busy}" if each["workers"] else "no workers at the end"
        said.append(f"{each['name']}: {many(each['records'], 'record')}, {there}")
    return "; ".join([*said, *([f"{len(nodes) - NODES} more"] if len(nodes) > NODES else [])])


def left_of(report: dict[str, Any]) -> str:
    """What a run that ended early has left, and how long that takes; empty where nothing is known of it."""
    total, seconds = report.get("total"), report.get("left")
    if report["complete"] or total is None or total <= report["records_in"]:
        return ""
    about = "about " if report.get("reckoned") else ""
    takes = f": about {duration(seconds)} more at this pace" if seconds is not None else ""
    return f"{total - report['records_in']:,} of {about}{total:,} records{takes}"


def plan_text(plan: dict[str, Any], width: int = PAGE_WIDTH, said: Callable[[str], str] = str) -> str:
    """A Plan as text for a terminal of so many columns: what was measured, what to do, why, and the times on this and other
    machines, as many as fit. `said`: what becomes of its words."""
    lines = [f" {name:<8} {folded(said(text), width=width)}" for name, text in plan_facts(plan) if text]
    header, rows = plan_table(plan)
    if rows:
        widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
        columns = _that_fit(widths, width, needed={0, *(n for n, name in enumerate(header) if name.endswith(", here"))})
        lines += [" " + "  ".join(row[n].ljust(widths[n]) for n in columns).rstrip() for row in [header, *rows]]
    return harmless("\n".join(lines), keep="\n")


def _that_fit(widths: list[int], width: int, needed: set[int]) -> list[int]:
    """The columns of a table that a terminal has room for: those that are needed, and of the others the first."""
    columns = list(range(len(widths)))
    while sum(widths[n] + 2 for n in columns) > width and (more := [n for n in columns if n not in needed]):
        columns.remove(more[-1])
    return columns


def plan_facts(plan: dict[str, Any]) -> list[tuple[str, str]]:
    about = "about " if plan.get("reckoned") else ""
    known = plan["length_known"] or about
    length = f"of {about}{plan['records']:,}" if known else f"length unknown, times are for {plan['records']:,}"
    failed = f", {plan['failed']:,} of them failed" if plan["failed"] else ""
    counts = f"{plan['tried']:,} records tried{failed}, {length}" if plan["tried"] else "no records"
    facts = [("plan", f"{plan['name']} · {counts} · {many(plan['cores'], 'core')}")]
    if plan["tried"] <= plan["failed"]:  # nothing is known of the costs
        return [*facts, *_words(plan)]
    for n, step in enumerate(plan["steps"]):
        spread = f" ± {step['spread']:.0%}" if step["spread"] is not None else ""
        waits = f", waits {1 - step['computing']:.0%} of it" if step["computing"] < 0.5 else ""
        facts.append(("steps" if n == 0 else "", f"{step['name']} {cost(step['ns_per_record'])}{spread}{waits}"))
    facts += [
        ("moving", f"a record {cost(plan['move_in_ns'])} ({size(plan['size_in'])}), its result "
         f"{cost(plan['move_out_ns'])} ({size(plan['size_out'])}); reading {cost(plan['read_ns'])}; workers start in "
         f"{duration(plan['start_up'])}"),
        ("doubt", plan.get("doubt", "")), ("do", _to_do(plan)), *_words(plan), *_on_machines(plan),
    ]  # fmt: skip
    return facts


def _on_machines(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """With how many machines the line takes how long, and what would be next."""
    said = []
    for each in plan.get("machines") or ():
        nodes, cores = each["machines"], each["workers"] // each["machines"]
        limit = {"hub": "the hub", "source": "the source", "start-up": "their start"}.get(
            each["bottleneck"], each["bottleneck"]
        )
        said.append(f"{many(nodes, 'node')} of {many(cores, 'core')}: about {duration(each['seconds'])}, then {limit}")
    return [("nodes" if n == 0 else "", text) for n, text in enumerate(said)]


def _words(plan: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        *(("why" if n == 0 else "", reason) for n, reason in enumerate(plan["reasons"])),
        *(("advice" if n == 0 else "", advice) for n, advice in enumerate(plan["advice"])),
    ]


def _to_do(plan: dict[str, Any]) -> str:
    if not plan["workers"]:
        return f"loop: everything in this process · about {duration(plan['seconds'])}"
    segments = " | ".join(" + ".join(segment) for segment in plan["segments"])
    return (
        f"{plan['how']}: {segments} · {many(plan['workers'], 'worker')} · batches of some {plan['batch_size']:,} · "
        f"about {duration(plan['seconds'])}"
    )


def plan_table(plan: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Predicted times: a row a technique, a column a machine; below them what limits the line on each."""
    known = plan["tried"] > plan["failed"]
    found = {(each["how"], each["cores"]): each for each in plan["predictions"] if known}
    machines = sorted({cores for _, cores in found})
    here = plan["cores"]
    header = ["predicted", *(many(n, "core") + (", here" if n == here else "") for n in machines)]
    techniques = [how for how in ("loop", "pool", "queues", "line") if (how, here) in found]
    rows = [[how, *(duration(found[how, n]["seconds"]) for n in machines)] for how in techniques]
    if "line" in techniques:
        line = [found["line", n] for n in machines]
        rows += [
            ["  its cpu", *(f"{each['cpu_utilisation']:.0%}" for each in line)],
            ["  memory", *(size(each["memory"]) for each in line)],
            ["  limit", *(_short(each["bottleneck"]) for each in line)],
        ]
    return header, rows


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def check_text(check: dict[str, Any], width: int = PAGE_WIDTH, said: Callable[[str], str] = str) -> str:
    """A Check as text for a terminal of so many columns. `said`: what becomes of its words."""
    head = f"checked {many(check['records'], 'record')} through {check['line']}"
    lines = [f" {folded(head, 9, width)}"]
    lines += [f"  {folded(each, 4, width)}" for each in check["path"]]
    lines += [finding_text(finding, width, said) for finding in check["findings"]]
    if check["fine"]:
        of_what = "a run" if check["record"] is None else f"record {check['record']:,}"
        why = (
            f"nothing stands in the way of {of_what}" if check["records"] else "there are no records: no step was tried"
        )
        lines.append(f" fine    {why}")
    return harmless("\n".join(lines), keep="\n")


def finding_text(finding: dict[str, Any], width: int = PAGE_WIDTH, said: Callable[[str], str] = str) -> str:
    """One thing that a check has found."""
    step, index = finding["step"], finding["index"]
    where = "line" if not step else step if finding["kind"] == "reading" else f"step {step!r}"
    where += f", record {index:,}" if index is not None else ""
    kind, says = "advice" if finding["advice"] else "found", folded(f"{where}: {said(finding['says'])}", 9, width)
    return f" {kind:<7} {says}\n         next: {folded(said(finding['next']), 15, width)}"


COMPARISON_HEADS = ("technique", "runtime", "cpu", "speed-up", "memory", "first result", "predicted")


def comparison_text(comparison: dict[str, Any], width: int = PAGE_WIDTH) -> str:
    """A Comparison as a table for a terminal of so many columns: where not all of it fits, the predictions stand below."""
    wide = _table_lines(comparison, [cells_of(row) for row in comparison["rows"]], COMPARISON_HEADS, width, short=False)
    if any(len(line) > width for line in wide):
        rows = [(_fitting(row["technique"]), *cells_of(row)[1:-1]) for row in comparison["rows"]]
        narrow = _narrow_lines(comparison, rows, width)
        guesses = [
            f"{_fitting(row['technique'])} {cells_of(row)[-1]}" for row in comparison["rows"] if _is_guessed(row)
        ]
        guessed = f"predicted: {', '.join(guesses)}"
        told = [f" {folded(guessed, indent=1, width=width)}"] if guesses else []
        wide = [*narrow, *told]
    above_it = [f" {folded(text, indent=1, width=width)}" for text in above(comparison)]
    closing = f" {folded(comparison['closing'], indent=1, width=width)}"
    return harmless("\n".join([*above_it, *wide, closing]), keep="\n")


def _narrow_lines(comparison: dict[str, Any], rows: list[tuple[str, ...]], width: int) -> list[str]:
    """The table without predictions, and without the columns that there is no room for."""
    header = (*COMPARISON_HEADS[:-2], "first")
    for left_out in ((), ("first",), ("first", "memory"), ("first", "memory", "cpu")):
        kept = [n for n, name in enumerate(header) if name not in left_out]
        cells = [tuple(row[n] for n in kept) for row in rows]
        lines = _table_lines(comparison, cells, tuple(header[n] for n in kept), width, short=True)
        if all(len(line) <= width for line in lines):
            break
    return lines


def _table_lines(
    comparison: dict[str, Any], rows: list[tuple[str, ...]], header: tuple[str, ...], width: int, *, short: bool
) -> list[str]:
    widths = [max(len(cells[n]) for cells in [header, *rows]) for n in range(len(header))]
    lines = [" " + "  ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)).rstrip()]
    referring = False
    for row, cells in zip(comparison["rows"], rows, strict=True):
        if row["reference"] and not referring:
            referring = True
            lines.append(" ── for reference ──")
        text = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        mark = mark_of(row, comparison)
        mark = mark[:4].rstrip() if short else mark
        problem = row["problem"]
        lines.append(
            f" {text}{mark}"
            if not problem
            else f" {cells[0].ljust(widths[0])}  {folded(problem, widths[0] + 3, width)}"
        )
    return lines


def _fitting(technique: str) -> str:
    """A technique's name without what else is said of a reference."""
    return technique.partition(" (")[0] if "a chunk" in technique else technique.partition(", a process")[0]


def _is_guessed(row: dict[str, Any]) -> bool:
    return row["predicted"] is not None and not row["problem"]


def mark_of(row: dict[str, Any], comparison: dict[str, Any]) -> str:
    if row["technique"] == comparison["fastest"]:
        return "   ◄ fastest"
    return "   ◄ a tie" if row["tie"] else ""


def comparison_markdown(comparison: dict[str, Any]) -> str:
    """A Comparison as a Markdown table."""
    heads = (*COMPARISON_HEADS, "results")
    lines = [*above(comparison), "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in comparison["rows"]:
        cells = [*cells_of(row), results_of(row) + mark_of(row, comparison)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return harmless("\n".join([*lines, "", comparison["closing"], ""]), keep="\n")


def results_of(row: dict[str, Any]) -> str:
    return row["problem"] or ("identical" if row["measured"] else "-")


def above(comparison: dict[str, Any]) -> list[str]:
    title = (
        f"{comparison['records']:,} records · {many(comparison['steps'], 'step')} · "
        f"{many(comparison['cores'], 'core')} · {many(comparison['rounds'], 'round')}, taken in turn"
    )
    same = "results identical in all rows" if all(not row["problem"] for row in comparison["rows"]) else ""
    reckoned = next((row["reckoned_from"] for row in comparison["rows"] if row.get("reckoned_from")), 0)
    about = f"≈ the loop is reckoned from its first {reckoned:,} rows: it gives each of them to the steps alone"
    told = (title, same, comparison["left_out"], about if reckoned else "", comparison.get("doubt", ""))
    return [each for each in told if each]


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    if row["problem"]:
        return (row["technique"], "-", "-", "-", "-", "-", "-")
    runtime, speed_up = duration(row["seconds"]), f"{row['speed_up']:.1f} ×"
    if not row["measured"]:
        return (row["technique"], runtime, "-", speed_up, "-", "-", "-")
    if row.get("reckoned_from"):
        runtime = f"≈ {runtime}"
    elif row["spread"] is not None:
        runtime += f" ± {_spread(row['spread'], row['seconds'])}"
    guess = "-"
    if row["predicted"] is not None:
        guess = f"{duration(row['predicted'])} ({row['error']:+.0%})"
    return (
        row["technique"], runtime, f"{row['cpu_utilisation']:.0%}", speed_up, size(row["peak_memory"]),
        duration(row["first_result"]), guess,
    )  # fmt: skip


def _spread(spread: float, seconds: float) -> str:
    """A spread in the unit and with the digits of the time it belongs to."""
    if seconds < 0.0995:
        return f"{spread * 1e3:.1f}"
    return f"{spread:.2f}" if seconds < 99.95 else duration(spread)


def folded(text: str, indent: int = 10, width: int = PAGE_WIDTH) -> str:
    """Lines no wider than a terminal, and no wider than is good to read; those after the first are indented."""
    import textwrap

    room = min(max(width, NARROWEST), WIDEST) - indent
    held = _FLAG.sub("\\1\xa0", text)  # a flag stays with its value
    parts = (textwrap.wrap(part, room, break_long_words=False, break_on_hyphens=False) for part in held.split("\n"))
    return ("\n" + " " * indent).join(line for part in parts for line in part or [""]).replace("\xa0", " ")
