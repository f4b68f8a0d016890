"""The pictures of a page, as HTML with SVG in it: where the time went, what happened over time, who did what when, what if.

Each is drawn from plain values. What is drawn stretches to the page's width and its words do not, so they are HTML; each
drawing has a title, and no colour is the only sign of anything.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from taktline._excerpts import harmless
from taktline._observe.measures import bottleneck, duration, many, rate, size

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b0a300", "#7b61c4")
MOST_STEPS = 8  # that have a colour of their own
MOST_ROWS = 24  # of workers
OTHERS = {"waiting": "#c8ccd0", "blocked": "#9aa0a6", "no core": "#7d838a", "moving and the rest": "#e4e7ea"}
DARK = ";color:#202124;text-shadow:none"  # of letters on these
STYLE = """
.tl{overflow-wrap:anywhere}
.tl{font:14px/1.45 system-ui,sans-serif;color:#1b1f23;background:#fff;--line:#d0d7de;--soft:#57606a;--plot:#0072b2;
max-width:60rem}
.tl h2,.tl h3{margin:1.4em 0 .4em;font-size:1.05rem}.tl h1{font-size:1.3rem;margin:.2em 0}
.tl table{border-collapse:collapse;width:100%}.tl th,.tl td{text-align:left;vertical-align:top;padding:.2em .8em .2em 0;
border:0;background:none;overflow-wrap:anywhere}.tl thead th{border-bottom:1px solid var(--line)}.tl .n{text-align:right;
white-space:nowrap}.tl td:first-child,.tl th{white-space:nowrap}.tl table.facts{width:auto}
.tl .wide{overflow-x:auto}.tl .bar{display:flex;height:1.7rem;border-radius:3px;overflow:hidden}.tl .bar span{overflow:hidden;
white-space:nowrap;font-size:.8rem;line-height:1.7rem;text-align:center;color:#fff;text-shadow:0 0 3px #000}
.tl .key{display:flex;flex-wrap:wrap;gap:.2em 1.2em;margin:.4em 0;padding:0;list-style:none;font-size:.85rem}
.tl .key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.tl .row{display:grid;grid-template-columns:7rem 1fr;align-items:center;gap:.5rem;margin:.15rem 0;font-size:.85rem}
.tl svg{display:block;width:100%}.tl .axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.8rem}
.tl .plot{position:relative;border-left:1px solid var(--line);border-bottom:1px solid var(--line)}
.tl .dot{position:absolute;width:.7em;height:.7em;margin:-.35em;border-radius:50%;background:var(--plot)}
.tl .dot b{position:absolute;left:.9em;bottom:.3em;font-weight:400;font-size:.75rem;white-space:nowrap}
.tl .dot.here{background:#d55e00;width:1em;height:1em;margin:-.5em}.tl .dot.here b{left:1.2em}.tl .soft{color:var(--soft)}
.tl .fits{container-type:inline-size}.tl .fits .key{display:none}.tl .ticks{position:relative;height:1.3em;color:var(--soft)}
.tl .ticks span{position:absolute;white-space:nowrap;transform:translateX(-50%)}.tl .fits .inset{margin-right:4.5rem}
.tl pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0 1em;padding:.5em .7em;border:1px solid var(--line);
border-radius:3px;background:none;
color:inherit}.tl .wrong{border-left:4px solid #d33;padding-left:.7em}
@media(max-width:480px){.tl table:not(.facts) td:first-child{white-space:normal}
.tl .row{grid-template-columns:4.6rem 1fr}.tl .figures tr{display:grid;font-size:.75rem;
grid-template-columns:1.15fr 1fr .9fr .9fr 1.25fr}.tl .figures tr>*{padding-right:0}.tl .figures tr>:first-child{
grid-column:1/-1;white-space:normal;border:0}.tl .figures td:first-child{font-weight:600;padding-top:.5em}}
@container(max-width:46rem){.tl .fits .dot b{display:none}.tl .fits .key{display:flex}.tl .fits .inset{margin-right:1rem}}
@media(prefers-color-scheme:dark){.tl{color:#e6edf3;background:#15181c;--line:#3d444d;--soft:#9198a1;--plot:#56b4e9}}
@media print{.tl{color:#000;background:#fff}.tl section{break-inside:avoid}.tl *{print-color-adjust:exact}}
""".replace("\n", "")


def escaped(text: object) -> str:
    """A text as it may stand in a page."""
    return html.escape(harmless(str(text), keep="\n\t"))


def section(title: str, *inside: str, note: str = "") -> str:
    """A part of the page with its title."""
    more = f'<p class="soft">{escaped(note)}</p>' if note else ""
    return f"<section><h3>{escaped(title)}</h3>{''.join(inside)}{more}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; in the columns `numbers` stand numbers."""

    def cells(row: Sequence[str]) -> str:
        kinds = (' class="n"' if n in numbers else "" for n in range(len(row)))
        return "".join(f"<td{kind}>{escaped(text)}</td>" for kind, text in zip(kinds, row, strict=True))

    head = "".join(
        f'<th scope="col"{" class=n" if n in numbers else ""}>{escaped(name)}</th>' for n, name in enumerate(header)
    )
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    kind = ' class="figures"' if numbers else "" if header else ' class="facts"'
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="wide"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


class _Part(NamedTuple):
    name: str
    seconds: float
    colour: str


def step_colours(names: Sequence[str], busy: Sequence[float]) -> list[str]:
    """A colour for each step, the dearest ones' their own."""
    dearest = sorted(range(len(names)), key=lambda n: -busy[n])[:MOST_STEPS]
    own = dict(zip(sorted(dearest), COLOURS, strict=False))
    return [own.get(n, "#888") for n in range(len(names))]


def _fitting(part: _Part, whole: float) -> str:
    """Its name, where the bar has room for it on a narrow screen: some sixty letters."""
    return escaped(part.name) if part.seconds > whole * max(0.12, len(part.name) / 60) else ""


def where_the_time_went(report: dict[str, Any]) -> str:
    """One bar: each step's share of the time of all workers, then what else that went into."""
    parts = _parts(report)
    whole = sum(part.seconds for part in parts) or 1.0
    shown = [part for part in parts if part.seconds > 0.0005 * whole]
    said = "; ".join(f"{part.name} {part.seconds / whole:.0%}" for part in shown)
    bar = "".join(
        f'<span title="{escaped(part.name)} {part.seconds / whole:.1%}" style="width:{100 * part.seconds / whole:.2f}%;'
        f'background:{part.colour}{DARK if part.colour in OTHERS.values() else ""}">{_fitting(part, whole)}</span>'
        for part in shown
    )
    key = _key((part.colour, f"{part.name} {part.seconds / whole:.0%} · {duration(part.seconds)}") for part in shown)
    of = f"{report['workers']} workers" if report["workers"] else "this process"
    return section(
        "Where the time went", f'<div class="bar" role="img" aria-label="{escaped(said)}">{bar}</div>', key,
        note=f"The time of {of}, {duration(whole)} in all.",
    )  # fmt: skip


def _parts(report: dict[str, Any]) -> list[_Part]:
    steps, spent = report["steps"], report.get("spent") or {}
    colours = step_colours([step["name"] for step in steps], [step["busy"] for step in steps])
    whole = report["seconds"] * max(1, report["workers"])
    others = {}
    if report["workers"]:
        others = {name: sum(step[name] for step in steps) for name in ("waiting", "blocked")}
    active = max(0.0, whole - sum(others.values()))
    no_core = min(active, spent.get("no_core", 0.0))
    had = 1 - no_core / active if active else 1.0  # of all that was to be done: waiting for a core is no work
    parts = [_Part(step["name"], step["busy"] * had, colour) for step, colour in zip(steps, colours, strict=True)]
    if not report["workers"]:
        parts += [
            _Part("source", spent.get("reading", 0.0) * had, OTHERS["waiting"]),
            _Part("sink", spent.get("consuming", 0.0) * had, OTHERS["blocked"]),
        ]
    others["no core"] = no_core
    parts += [_Part(name, seconds, OTHERS[name]) for name, seconds in others.items()]
    rest = whole - sum(part.seconds for part in parts)
    return [*parts, _Part("moving and the rest", max(0.0, rest), OTHERS["moving and the rest"])]


def _key(entries: Iterable[tuple[str, str]]) -> str:
    each = "".join(f'<li><i style="background:{colour}"></i>{escaped(text)}</li>' for colour, text in entries)
    return f'<ul class="key">{each}</ul>'


def over_time(report: dict[str, Any]) -> str:
    """Throughput, workers, batch size and memory over time, and marks where something happened."""
    history = report.get("history") or {}
    points, end = history.get("points") or [], report["seconds"]
    if len(points) < 2:
        return ""
    marks = history.get("marks") or []
    times = [point[0] for point in points]
    speeds = [0.0] * len(points)
    for n in range(len(points)):
        at, done = (points[n - 1][0], points[n - 1][1]) if n else (0.0, report.get("resumed_at", 0))
        speeds[n] = max(0.0, points[n][1] - done) / max(1e-6, points[n][0] - at)
    drawn = [_plot("records a second", times, speeds, end, marks, rate)]
    for name, column, unit in (
        ("workers", 3, lambda n: f"{n:,.0f}"), ("batch size", 4, lambda n: f"{n:,.0f}"), ("memory", 5, size),
        ("failed", 6, lambda n: f"{n:,.0f}"),
    ):  # fmt: skip
        values = [float(point[column]) for point in points]
        if any(values):
            drawn.append(_plot(name, times, values, end, marks, unit, stays=name != "memory"))
    told = [f"{duration(at)}: {says}" for at, _, says in marks]
    if history.get("more_marks"):
        told.append(f"{history['more_marks']:,} more")
    listed = _key(("#d55e00", each) for each in told) if told else ""
    return section("Over time", *drawn, _time_axis(end), listed)


def _plot(
    name: str, times: Sequence[float], values: Sequence[float], end: float, marks: Sequence[Sequence[Any]], unit: Any,
    *, stays: bool = False,
) -> str:  # fmt: skip
    """One small drawing; `stays`: a value holds until the next one."""
    top, end = max(values) or 1.0, end or 1.0
    path: list[str] = []
    for n, (at, value) in enumerate(zip(times, values, strict=True)):
        x, y = 1000 * at / end, 40 - 38 * value / top
        path += [f"{x:.0f},{path[-1].split(',')[1]}"] if stays and n else []
        path += [f"0,{y:.1f}"] if not n else []
        path.append(f"{x:.0f},{y:.1f}")
    lines = "".join(
        f'<line x1="{1000 * at / end:.0f}" x2="{1000 * at / end:.0f}" y1="0" y2="40" stroke="#d55e00" stroke-dasharray="3"'
        f' vector-effect="non-scaling-stroke"><title>{escaped(says)}</title></line>'
        for at, _, says in marks
    )
    said = f"{name} over time, at most {unit(top)}, {unit(values[-1])} at the end"
    return (
        f'<div class="row"><span>{escaped(name)}<br><span class="soft">≤ {escaped(unit(max(values)))}</span></span>'
        f'<div class="plot"><svg viewBox="0 0 1000 40" height="40" preserveAspectRatio="none" role="img">'
        f"<title>{escaped(said)}</title>{lines}"
        f'<polyline points="{" ".join(path)}" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'vector-effect="non-scaling-stroke"/></svg></div></div>'
    )


def who_did_what(
    diagrams: Sequence[tuple[str, dict[str, Any], float]], names: Sequence[str], colours: Sequence[str]
) -> str:
    """The time diagram, a row a worker: which step when. Of several runs, each with its title, history and seconds."""
    drawn, there, widths = [], set(), []
    for title, history, seconds in diagrams:
        rows = history.get("rows") or []
        if not rows:
            continue
        drawn.append(f"<p>{escaped(title)}</p>" if title else "")
        drawn += [_row(worker, runs, names, colours) for worker, runs in rows[:MOST_ROWS]]
        if len(rows) > MOST_ROWS:
            drawn.append(f'<p class="soft">{len(rows) - MOST_ROWS} more workers.</p>')
        drawn.append(_time_axis(seconds))
        there |= {step for _, runs in rows for step, _ in runs if 0 <= step < len(names)}
        widths.append(history["cell_seconds"])
    if not drawn:
        return ""
    key = _key((colours[step], names[step]) for step in sorted(there))
    every = duration(min(widths)) + (f" to {duration(max(widths))}" if len({*widths}) > 1 else "")
    note = f"Looked at every {every}. Where steps are one function, they stand in it by their shares of the time."
    return section("Who did what when", *drawn, key, note=note)


def _time_axis(seconds: float) -> str:
    return (
        f'<div class="row"><span></span><div class="axis"><span>0 s</span><span>{duration(seconds)}</span></div></div>'
    )


def _row(worker: int | None, runs: Sequence[Sequence[int]], names: Sequence[str], colours: Sequence[str]) -> str:
    whole = sum(count for _, count in runs) or 1
    rects, at, busy = [], 0, 0
    for step, count in runs:
        if 0 <= step < len(colours):
            busy += count
            rects.append(f'<rect x="{at}" y="0" width="{count}" height="10" fill="{colours[step]}"/>')
        at += count
    name = "this process" if worker is None else f"worker {worker + 1}"
    return (
        f'<div class="row"><span>{name}</span><div class="plot"><svg viewBox="0 0 {whole} 10" height="16" '
        f'preserveAspectRatio="none" role="img" shape-rendering="crispEdges"><title>{name}: at work in {busy / whole:.0%} of '
        f"the time</title>{''.join(rects)}</svg></div></div>"
    )


def what_if(report: dict[str, Any]) -> str:
    """Cores and the time that the run would have taken, with this run's own point."""
    points = report.get("what_if") or []
    if len(points) < 2:
        return ""
    top = max(point["seconds"] for point in points)
    spots = []
    for n, point in enumerate(points):
        x, y = 100 * n / (len(points) - 1), 100 - 90 * point["seconds"] / top
        spots.append((x, y, point))
    path = " ".join(f"{10 * x:.0f},{y:.1f}" for x, y, _ in spots)
    dots = "".join(
        f'<span class="dot{" here" if point["here"] else ""}" style="left:{x:.1f}%;top:{y:.1f}%">'
        f"<b>{duration(point['seconds'])}</b></span>"
        for x, y, point in spots
    )
    ticks = "".join(f'<span style="left:{x:.1f}%">{point["cores"]}</span>' for x, _, point in spots)
    told = [
        ("#d55e00" if point["here"] else "var(--plot)", f"{many(point['cores'], 'core')}: {duration(point['seconds'])}")
        for _, _, point in spots
    ]
    said = "; ".join(text for _, text in told)
    here = next(point["cores"] for point in points if point["here"])
    limits: list[tuple[int, str]] = []
    for _, _, point in spots:
        if not limits or limits[-1][1] != point["bottleneck"]:
            limits.append((point["cores"], point["bottleneck"]))
    note = "Bottleneck: " + ", ".join(
        f"from {cores} cores on {bottleneck(name)}" if n else bottleneck(name) for n, (cores, name) in enumerate(limits)
    )
    note += f". The larger dot is this run, on {many(here, 'core')}."
    # The curve falls, so right above its dot a time is clear of it; where the times have no room beside each other they
    # are listed below.
    return section(
        "What if there were more cores",
        f'<div class="fits"><div class="row"><span>time</span><div class="inset"><div class="plot">{dots}'
        f'<svg viewBox="0 0 1000 100" height="120" preserveAspectRatio="none" role="img"><title>{escaped(said)}</title>'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
        f'</svg></div></div></div><div class="row"><span>cores</span><div class="inset"><div class="ticks">{ticks}</div>'
        f"</div></div>{_key(told)}</div>",
        note=note,
    )


def bars(rows: Sequence[dict[str, Any]], fastest: str) -> str:
    """The times of a comparison, with their spread; what is reckoned from a few records would dwarf them."""
    timed = [row for row in rows if not row["problem"] and not row.get("reckoned_from")]
    if not timed:
        return ""
    top = max(row["seconds"] + (row["spread"] or 0.0) for row in timed) or 1.0
    drawn = []
    for row in timed:
        long, spread = 1000 * row["seconds"] / top, 1000 * (row["spread"] or 0.0) / top
        colour = "#009e73" if row["technique"] == fastest else "#0072b2" if row["measured"] else "#9aa0a6"
        whisker = (
            f'<line x1="{long - spread:.0f}" x2="{long + spread:.0f}" y1="8" y2="8" stroke="currentColor" stroke-width="2" '
            'vector-effect="non-scaling-stroke"/>'
        )
        said = f"{row['technique']}: {duration(row['seconds'])}"
        mark = " ◄ fastest" if row["technique"] == fastest else ""
        drawn.append(
            f'<div style="margin:.5rem 0">{escaped(row["technique"])} · {duration(row["seconds"])}{mark}'
            f'<svg viewBox="0 0 1000 16" height="16" preserveAspectRatio="none" role="img"><title>{escaped(said)}</title>'
            f'<rect x="0" y="2" width="{long:.0f}" height="12" fill="{colour}"/>{whisker if spread else ""}</svg></div>'
        )
    return section("How long each takes", *drawn)
