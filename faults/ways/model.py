"""What must come out of a drawn way: the plain loop, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faults.ways.sinks import SINKS
from faults.ways.sources import Broken
from faults.ways.steps import FAULTS, SERIAL, Befallen, Spec, Stuck, built, plain
from taktline import line
from taktline._recipe.plan import block_of_lists
from taktline._recipe.steps import Role
from taktline._segment.batch import READING_STEP
from taktline.errors import Failed

if TYPE_CHECKING:
    from faults.ways.case import Case


@dataclass
class Lost:
    """A record that fails."""

    index: int
    step: str
    errors: tuple[str, ...]  # what it may end in
    record: Any
    partial: list[Any]  # what it gave before
    takes_all: bool  # that may be gone with its process


@dataclass
class Ending:
    """An error that may end the run."""

    errors: tuple[str, ...]
    index: int | None = None  # of a record, with its step
    step: str = ""
    line: int | None = None  # of the source
    at: int | None = None  # of the sink's result


@dataclass
class Wanted:
    """What must come of a way."""

    refused: str = ""  # why nothing may start
    results: list[Any] = field(default_factory=list)  # in order, up to the ending
    endings: list[Ending] = field(default_factory=list)  # it is one of these; none: it ends well
    fewer: int = 0  # so many of the last results may be missing; -1: any
    records: int | None = None  # read; None: not known, as it was read ahead
    lost: list[Lost] = field(default_factory=list)  # records that fail and do not end the run
    early: bool = False  # the caller leaves: what else was done by then is not known


def refused(case: Case) -> str:
    """Why the library must refuse this way before anything starts; empty where it must not."""
    sink, options, live = SINKS[case.target.kind], case.options, case.origin.kind.startswith("live")
    serial = any(step.kind in SERIAL for step in case.steps)
    if "recycle" in options and options["how"] == "loop":
        return "there are no workers to replace"
    if options.get("start") == "threads" and {"recycle", "seed"} & options.keys():
        return "threads share the generators, and cannot be replaced"
    if "seed" in options and (why := _seed_refused(case, live or case.origin.kind == "async")):
        return why
    if options.get("on_error") == "keep" and sink.make is not None and sink.refuses and Failed not in sink.takes:
        return "the sink has no place for the records that fail"
    if case.journal is None:
        return ""
    if not options.get("ordered", True):
        return "a journal needs order"
    if any(step.kind == "serial without state kept" for step in case.steps):
        return "its state would be lost"
    if live and serial:
        return "a live source does not give its records again"
    if case.origin.kind == "async" and serial:
        return "nor does an async one"
    if case.target.kind in ("table", "parquet", "arrow"):
        return "the sink cannot go on"
    if (live or case.origin.kind == "async") and sink.make is None:
        return "a live source keeps its place by itself"
    return ""


def _seed_refused(case: Case, live: bool) -> str:
    steps, options = line(*built(case.steps)).steps, case.options
    if any(spec.by for spec in case.steps):
        return "which keys go together is not always the same"
    if options["how"] != "loop" and any(step.kind == "thread" and step.waits for step in steps):
        return "threads share the generators"
    batches = [step for step in steps if step.role is Role.BATCH]
    if any(step.size is None for step in batches):
        return "the lists have no size"
    block = block_of_lists(steps)
    if batches and (options.get("window", block) < block or options.get("batch_size", block) % block):
        return "the lists are cut"
    return "the lists are not the same again" if batches and (live or case.journal is not None) else ""


def through(value: Any, steps: list[tuple[Spec, Any]]) -> Iterator[Any]:
    """The user's loop, for one value."""
    if not steps:
        yield value
        return
    (spec, fn), *rest = steps
    try:
        made = fn(value)
    except Befallen as befallen:
        raise _At(spec, befallen.fault) from None
    if spec.role == "keep":
        if made:
            yield from through(value, rest)
    elif spec.role == "expand":
        for inner in made:
            yield from through(inner, rest)
    else:
        yield from through(made, rest)


class _At(Exception):
    def __init__(self, spec: Spec, fault: str) -> None:
        self.spec, self.fault = spec, fault


def reaching(case: Case, place: int) -> list[Any]:
    """The values that the step at this place is given, where nothing goes wrong."""
    sizes = case.origin.sizes(range(case.origin.count))
    steps = [(spec, plain(spec, sizes)) for spec in case.steps[:place]]
    return [value for index in range(case.origin.count) for value in through(case.origin.record(index), steps)]


def wanted(case: Case, broken: Broken | None) -> Wanted:
    """What must come of this way. `broken`: how its source ends."""
    if why := refused(case):
        return Wanted(refused=why)
    out = Wanted()
    by_key = any(spec.by for spec in case.steps)
    unread: Broken | None = None
    if broken is not None and broken.text is not None and case.goes_on:
        unread, broken = broken, None
    count = case.origin.count if broken is None else broken.records
    if unread is not None and unread.last:
        count = unread.records + 1
    if by_key and broken is not None and count:  # the last key has not come whole
        count = case.origin.key_begins(count - 1)
    indexes = list(range(count))
    sizes = case.origin.sizes(each for each in indexes if unread is None or each != unread.records)
    steps = [(spec, plain(spec, sizes)) for spec in case.steps]
    if not case.ordered and broken is not None and not by_key:  # parts of a file behind it may have been read by then
        indexes += range(count + 1, case.origin.count)
    first_of_all: list[Ending] = []
    for index in indexes:
        record = case.origin.record(index)
        results: list[Any] = []
        if unread is not None and index == unread.records:
            out.lost.append(Lost(index, READING_STEP, unread.errors, unread.text, [], takes_all=False))
            if case.options.get("on_error") == "keep":
                out.results.append(Failed(index, unread.text, READING_STEP, ValueError()))
            continue
        try:
            for result in through(case.origin.record(index), steps):
                results.append(result)
        except _At as at:
            fault = FAULTS[at.fault]
            errors = fault.errors
            lost = Lost(index, at.spec.name, errors, record, results, fault.takes_all)
            first_of_all.append(Ending(errors, index, at.spec.name))
            if case.goes_on:
                out.lost.append(lost)
                if case.options.get("on_error") == "keep":
                    out.results.append(Failed(index, record, at.spec.name, ValueError()))
                continue
            out.results += results
            if not out.endings:
                out.endings.append(first_of_all[-1])
                out.fewer = len(results) if fault.takes_all else 0
                if case.ordered:
                    break
                continue
        else:
            out.results += results
    if broken is not None and (not out.endings or not case.ordered or broken.fewer):
        out.endings.append(Ending(broken.errors, line=broken.line))
        out.fewer = -1 if broken.fewer else out.fewer
    if not case.ordered and out.endings:
        # Whatever came of others may be out before; any of the errors may be the first.
        out.endings = first_of_all * (not case.goes_on) + out.endings
        out.fewer = -1
    if not out.endings or out.endings[0].step == "":
        out.records = count
    if broken is not None and (broken.fewer or not case.ordered):
        out.records = None
    _into(case, out)
    return out


def _into(case: Case, out: Wanted) -> None:
    """What the sink makes of it."""
    target, sink = case.target, SINKS[case.target.kind]
    at = len(out.results)
    if target.fault in ("is left", "is stopped"):
        if target.at <= at:
            out.early, out.records = True, None
            if target.fault == "is left" and case.ordered:
                out.results = out.results[: target.at]
                if out.fewer != -1:  # nor has what is read a page at a time failed by then
                    out.endings, out.fewer = [], 0
            else:
                out.fewer = -1
        return
    if target.fault == "raises":
        at = target.at
    elif sink.refuses:
        fits = sink.takes or {"as text": str, "as row": dict, "as it is": (int, str, dict)}[sink.shape]
        bad = (n for n, r in enumerate(out.results) if not isinstance(r, fits) or sink.cannot(r))  # type: ignore[arg-type]
        at = next(bad, at)
    if at < len(out.results):
        # Results behind it may have been made by then, or have failed.
        failing = Ending(("SinkError",), at=at if case.ordered else None)
        first = target.fault == "raises" and case.ordered and out.fewer != -1
        out.endings = [failing] if first else [failing, *out.endings]
        out.results = out.results[:at] if case.ordered else out.results
        out.fewer = -1 if out.fewer == -1 or not case.ordered or sink.refuses else 0
        out.records = None


def stuck(case: Case) -> bool:
    """Whether a result is of a kind that cannot go between processes."""
    return any(isinstance(value, Stuck) for value in reaching(case, len(case.steps)))
