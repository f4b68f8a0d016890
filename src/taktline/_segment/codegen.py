"""Steps as one small function: a loop with one line a step, so that the failing line of a traceback names the step.

Measured on four trivial steps: one fused loop takes 165 ns a record, chained `map` objects 190 to 225.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from types import CodeType, FrameType, TracebackType
from typing import Any

from taktline._excerpts import excerpt
from taktline._recipe.steps import Role, Step
from taktline._segment import policies
from taktline._segment.frames import UNKNOWN_ARGUMENT, argument_of, local_of
from taktline.errors import NotAwaited

DEEP = 12  # loops in one another in one function; Python takes 20 blocks, and code that is indented a hundred times
LONG = 32  # calls in one another in one expression; Python's own parser takes some 90
SAID = 4096  # results that are counted together
ARGUMENTS = "out, froms, counts, ns, clock"

Code = tuple[list[str], dict[int, int]]  # lines, and the step of each line that belongs to one


class Compiled:
    """The code for some scalar steps in one form, and which of its lines belongs to which step."""

    def __init__(self, steps: Sequence[Step], form: str) -> None:
        self._steps = tuple(steps)
        lines, self._first = FORMS[form](steps)  # line: step position
        refusal = policies.Refusal([step.name for step in steps])
        namespace: dict[str, Any] = {
            "__name__": "taktline",  # what a warning about a step's caller is about
            "plain": refusal.plain, "refuse": refusal, "timed": _timed,
        }  # fmt: skip
        exec(compile("\n".join(lines), f"<taktline {form}>", "exec"), namespace)
        self.run: Callable[..., Any] = namespace["run"]
        made = [each for name, each in namespace.items() if name.startswith(("run", "rest"))]
        self._codes: set[CodeType] = {each.__code__ for each in made}

    def culprit(self, error: BaseException) -> tuple[int | None, TracebackType | None]:
        """The position of the step that raised `error` (None: no step did), and the traceback from its own code on."""
        tb = error.__traceback__
        while tb is not None:
            inner = tb.tb_next
            if tb.tb_frame.f_code in self._codes and (inner is None or inner.tb_frame.f_code not in self._codes):
                return self._first.get(tb.tb_lineno), policies.own(inner)
            tb = inner
        return None, None

    def given(self, error: BaseException) -> str:
        """An excerpt of what the step was given that raised `error`; empty where that cannot be told."""
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code not in self._codes:
            tb = tb.tb_next
        while tb is not None and tb.tb_next is not None and tb.tb_next.tb_frame.f_code in self._codes:
            tb = tb.tb_next
        step = self._first.get(tb.tb_lineno) if tb is not None else None
        if tb is None or step is None or isinstance(error, NotAwaited):  # which is about what it returned
            return ""
        local = local_of(tb.tb_frame)
        if self._steps[step].role is Role.EXPAND or "x" not in local:  # x may be what came of it, or there is none
            value = argument_of(local.get(f"s{step}"), policies.own(tb.tb_next))
            return "" if value is UNKNOWN_ARGUMENT else excerpt(value)
        return excerpt(local["x"])

    def raised(self, error: BaseException) -> BaseException:
        """What a step raised: a StopIteration has become a RuntimeError where it left the generator that steps are in."""
        cause = error.__cause__
        if isinstance(error, RuntimeError) and isinstance(cause, StopIteration) and self.culprit(cause)[0] is not None:
            return cause
        return error

    def step_in(self, frame: FrameType) -> int | None:
        """The position of the step at which this code is; None where the frame is not of this code."""
        return self._first.get(frame.f_lineno, 0) if frame.f_code in self._codes else None


def _names(steps: Sequence[Step], first: int = 0) -> str:
    return ", ".join(f"s{n}" for n in range(first, len(steps)))


def _levels(steps: Sequence[Step]) -> list[int]:
    """Where to go on in a function of its own, so that in none there are too many loops in one another: step positions,
    from the first to one past the last."""
    cuts, deep = [0], 0
    for n, step in enumerate(steps):
        if step.role is Role.EXPAND:
            deep += 1
            if deep > DEEP:
                cuts.append(n)
                deep = 1
    return [*cuts, len(steps)]


class _Writer:
    """Lines at some depth, and the steps that they belong to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.where: dict[int, int] = {}
        self.pad = ""

    def add(self, text: str, step: int | None = None) -> None:
        self.lines.append(self.pad + text)
        if step is not None:
            self.where[len(self.lines)] = step

    def keep(self, step: int) -> None:
        """What a predicate said of x: it stands in y. A coroutine is true, whatever it would say."""
        self.add("if y is not True:", step)
        self.add("    if not y: continue", step)
        self.add(f"    if y.__class__ not in plain: refuse(y, {step})", step)


def _loop(steps: Sequence[Step], *, origins: bool, timed: bool) -> Code:
    """`run(records, origins, out, froms, counts, ns, clock, s0…)`: appends results to `out`; `counts[n]` and `ns[n]` are
    added up for each step, the counts only behind a step that changes the number of records.

    With an `expand` it is a generator, which yields now and then: what is in `out` may be taken away there, and it is to be
    sent how many results may come until it yields again. That is counted down by what counts the last step's results
    anyhow: so it costs a test a result, some 5 ns where one takes 30 to 60 (benchmarks/expanding.py)."""
    w, cuts = _Writer(), _levels(steps)
    expands = origins and any(step.role is Role.EXPAND for step in steps)
    looks = expands and len(cuts) == 2
    for level, (first, last) in enumerate(pairwise(cuts)):
        counted = [n for n in range(first, last) if timed or steps[n].role is not Role.MAP]
        w.pad = ""
        if level:
            w.add(f"def rest{level}(x, origin, {ARGUMENTS}, {_names(steps, first)}):")
            # Once, so that a filter can go on with the next: so deep nobody minds the nanoseconds.
            w.pad = "    "
            w.add("for x in (x,):")
        else:
            w.add(f"def run(records, origins, {ARGUMENTS}, {_names(steps)}):")
            w.pad = "    "
            if looks:
                w.add("left = told = 1")
            if counted:
                w.add(" = ".join(f"c{n}" for n in counted) + " = 0")
                w.add("try:")
                w.pad += "    "
            w.add("for x, origin in zip(records, origins):" if origins else "for x in records:")
        w.pad += "    "
        for n in range(first, last):
            count = f"counts[{n}] += 1" if level else f"c{n} += 1"
            if looks and not timed and n == counted[-1]:
                count = "left -= 1"
            _step(w, n, steps[n].role, count, timed=timed)
        if last < len(steps):
            origin = "origin" if origins or level else "None"
            go_on = "yield from " if expands else ""
            w.add(f"{go_on}rest{level + 1}(x, {origin}, {ARGUMENTS}, {_names(steps, last)})")
        else:
            w.add("out.append(x)")
            if origins:
                w.add("froms.append(origin)")
            if expands and level:
                w.add("if not len(out) & 7: yield")
            elif expands:
                if timed:  # there what is counted is what each step was given
                    w.add("left -= 1")
                w.add("if not left: left = yield; told += left")
        if counted and not level:
            w.pad = "    "
            w.add("finally:")
            for n in counted:
                count = "told - left" if looks and not timed and n == counted[-1] else f"c{n}"
                w.add(f"    counts[{n}] += {count}")
    return w.lines, w.where


def _step(w: _Writer, n: int, role: Role, count: str, *, timed: bool) -> None:
    """One step on x. Where it is timed, what it returned is looked at too: nobody waits for a coroutine."""
    if timed:
        w.add(f"{count}; t = clock()")
    if role is Role.MAP:
        w.add(f"x = s{n}(x)", n)
        if timed:
            w.add(f"ns[{n}] += clock() - t")
            w.add(f"if x.__class__ not in plain: refuse(x, {n})", n)
        return
    w.add(f"y = s{n}(x)", n)
    if role is Role.KEEP:
        if timed:
            w.add(f"ns[{n}] += clock() - t")
        w.keep(n)
    else:
        if timed:  # the time inside a lazy result is counted to the step too
            w.add(f"if y.__class__ not in plain: refuse(y, {n})", n)
            w.add(f"ns[{n}] += clock() - t")
            w.add(f"y = timed(y, ns, {n}, clock)", n)
        w.add("for x in y:", n)
        w.pad += "    "
    if not timed:
        w.add(count)


def _timed(values: Iterable[Any], ns: list[int], step: int, clock: Callable[[], int]) -> Iterator[Any]:
    """The values, as lazily as they come; the time that they take is added up."""
    began = clock()
    each = iter(values)
    while True:
        try:
            value = next(each)
        except StopIteration:
            return
        finally:
            ns[step] += clock() - began
        yield value
        began = clock()


def _lazy(steps: Sequence[Step], *, counted: bool) -> Code:
    """`run(phases, failed, tally, s0…)`: a generator that gives ready results as they are, and results of records else.

    `phases` gives pairs (ready results or None, records or None). It is the innermost loop of the in-process
    technique: exactly the user's loop with a `yield`. Measured 1.05 of a loop that appends to a list, over four
    trivial steps, where anything that buffers results takes 1.07 to 1.13. `failed(error, read, record)` must raise;
    `tally(read, given)` is called at the end. Only the counted form counts, the other says -1.
    """
    read, given = ("read", "given") if counted else ("-1", "-1")
    w, cuts = _Writer(), _levels(steps)
    for line in (f"def run(phases, failed, tally, {_names(steps)}):", "    read = given = 0", "    record = None",
                 "    try:", "        for ready, records in phases:", "            if ready is not None:",
                 "                for result in ready: yield result", "                continue", "            try:",
                 "                for record in records:"):  # fmt: skip
        w.add(line)
    w.pad = " " * 20
    if counted:
        w.add("read += 1")
        w.add("x = record")
        if len(cuts) > 2:
            _lazy_steps(w, steps, 0, cuts[1])
            w.add(f"for x in rest1(x, {_names(steps, cuts[1])}):")
            w.pad += "    "
        else:
            _lazy_steps(w, steps, 0, len(steps))
        w.add("given += 1")
        w.add("yield x")
    else:
        _in_one_another(w, len(steps))
    w.pad = ""
    for line in ("            except BaseException as error:", f"                failed(error, {read}, record)",
                 "    finally:", "        phases = ready = records = None",  # the source, which a traceback must not keep
                 f"        tally({read}, {given})"):  # fmt: skip
        w.add(line)
    for level, (first, last) in enumerate(pairwise(cuts[1:]), 1):
        w.pad = ""
        w.add(f"def rest{level}(x, {_names(steps, first)}):")
        w.pad = "    "
        w.add("for x in (x,):")
        w.pad += "    "
        _lazy_steps(w, steps, first, last)
        w.add(f"yield from rest{level + 1}(x, {_names(steps, last)})" if last < len(steps) else "yield x")
    return w.lines, w.where


WATCHED = "ns, counts, clock, gave, took"


def _watched(steps: Sequence[Step]) -> Code:
    """`run(records, ns, counts, clock, gave, took, s0…)`: a generator of results, as lazy as the loop itself, that adds up
    what each step is given and takes. `gave(x)` is called before a result is handed over, `took()` after that, until `gave`
    says that enough is known of this record: what else comes of it costs what it costs in the loop, and is counted by
    `took(number)`, which gives 0."""
    w, cuts = _Writer(), _levels(steps)
    for level, (first, last) in enumerate(pairwise(cuts)):
        w.pad = ""
        name, values = (f"rest{level}", "x") if level else ("run", "records")
        w.add(f"def {name}({values}, {WATCHED}, {_names(steps, first)}):")
        w.pad = "    "
        w.add("untimed = 0")
        w.add("try:")
        w.pad += "    "
        w.add("for x in (x,):" if level else "for x in records:")
        w.pad += "    "
        w.add("t = clock(); on = True")
        ends = [_watched_step(w, n, steps[n].role) for n in range(first, last)]
        if last < len(steps):
            w.add(f"yield from rest{level + 1}(x, {WATCHED}, {_names(steps, last)})")
            w.add("t = clock()")
        else:
            w.add("if on:")
            w.add("    on = gave(x)")
            w.add("    yield x")
            w.add("    took(); t = clock()")
            w.add("else:")
            w.add("    untimed += 1")
            w.add(f"    if untimed >= {SAID}: untimed = took(untimed)")
            w.add("    yield x")
        w.pad = ""
        for end in reversed(ends):
            if end:
                w.add(end)
        w.add("    finally:")
        w.add("        took(untimed)")
    return w.lines, w.where


def _watched_step(w: _Writer, n: int, role: Role) -> str:
    """One step on x; the line that goes behind all that follows from what it gave."""
    spent = f"    u = clock(); ns[{n}] += u - t; t = u"
    given, end = "x" if role is Role.MAP else "y", ""
    w.add("if on:")
    w.add(f"    counts[{n}] += 1")
    w.add(f"{given} = s{n}(x)", n)
    if role is not Role.KEEP:
        w.add("if on:")
        w.add(f"    if {given}.__class__ not in plain: refuse({given}, {n})", n)
    if role is Role.EXPAND:
        end = f"{w.pad}if on:\n{w.pad}{spent}"
        w.add("for x in y:", n)
        w.pad += "    "
    w.add("if on:")
    w.add(spent)
    if role is Role.KEEP:
        w.keep(n)
    return end


def _lazy_steps(w: _Writer, steps: Sequence[Step], first: int, last: int) -> None:
    for n in range(first, last):
        if steps[n].role is Role.MAP:
            w.add(f"x = s{n}(x)", n)
        elif steps[n].role is Role.KEEP:
            w.add(f"y = s{n}(x)", n)
            w.keep(n)
        else:
            w.add(f"for x in s{n}(x):", n)
            w.pad += "    "


def _in_one_another(w: _Writer, count: int) -> None:
    """Nested calls need no local variable; each call has a line of its own for the traceback. No variable here is called x,
    which is what a step was given (`given`): between calls in one another nothing tells that."""
    given = "record"
    for first in range(0, count, LONG):
        last = min(first + LONG, count)
        w.add("yield (" if last == count else "so_far = (")
        for n in reversed(range(first, last)):
            w.add(f"s{n}(", n)
        w.add(f"{given}{')' * (last - first)})")
        given = "so_far"


FORMS: dict[str, Callable[[Sequence[Step]], Code]] = {
    "plain": lambda steps: _loop(steps, origins=False, timed=False),
    "traced": lambda steps: _loop(steps, origins=True, timed=False),
    "timed": lambda steps: _loop(steps, origins=True, timed=True),
    "lazy": lambda steps: _lazy(steps, counted=False),  # only for steps that are all one in, one out
    "watched": _watched,
    "counted": lambda steps: _lazy(steps, counted=True),
}
