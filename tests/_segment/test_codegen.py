"""Steps as one function: for lines of any length and depth, with the failing step named."""

from __future__ import annotations

import itertools
import sys

import pytest
from model import loop, outcome

from taktline import expand, keep, line
from taktline._recipe import plan
from taktline._recipe.steps import flatten


def plus(n):
    return "map", lambda x: x + n, lambda x: x + n


def fails(n):
    def check(x):
        if x % 100 == 50:
            raise ValueError(n, x)
        return x

    return "map", check, check


def even_or(n):
    return "keep", keep(lambda x: x % n < 2), lambda x: x % n < 2


def both(x):
    return (x, x + 1) if x % 7 == 0 else (x,)


def twice(_):
    return "expand", expand(both), both


LINES = {
    "200 steps": [plus(n) for n in range(200)],
    "1,000 steps": [plus(n % 3) for n in range(1_000)],
    "1,000 steps, one of which fails": [*map(plus, range(998)), fails(1), plus(1)],
    "30 expands": [twice(n) for n in range(30)],
    "30 expands, and what fails in them": [
        *map(twice, range(15)),
        fails(2),
        *map(twice, range(14)),
        fails(3),
        twice(0),
    ],
    "200 of all kinds": [kind(n) for n in range(2, 52) for kind in (plus, even_or, twice, plus)],
    "exactly as deep as one function": [twice(n) for n in range(12)] + [plus(1)],
    "one deeper": [twice(n) for n in range(13)] + [even_or(3)],
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *itertools.product(LINES, ["loop", "line"]), *itertools.product(["200 of all kinds"], ["auto", "pool", "queues"]),
        ("1,000 steps", "queues"),
    ],
)  # fmt: skip
def test_long_and_deep_lines_give_the_loops_answer_under_every_technique(kind, how):
    built = LINES[kind]
    flow = line(*(step for _, step, _ in built))
    records = range(1, 120)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)  # the model's loops stand in one another, a step each
    wanted = outcome(lambda: loop(built, records))
    sys.setrecursionlimit(limit)
    if kind == "200 of all kinds":
        assert wanted[0]
    assert outcome(lambda: flow(records, how=how, workers=2)) == wanted


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("at", [0, 11, 12, 13, 29])
def test_the_step_that_fails_is_named_however_deep_it_stands(at, how):
    def boom(x):
        if x == 40:
            raise KeyError(x)
        return [x]

    def unreadable(x):
        return None if x == 40 else [x]

    for bad, error in ((boom, KeyError), (unreadable, TypeError)):
        steps = [expand(lambda x: [x], name=f"no. {n}") for n in range(30)]
        steps[at] = expand(bad, name="bad")
        with pytest.raises(error) as caught:
            list(line(*steps)(range(100), how=how, workers=1))
        assert "at record 40 in step 'bad'" in caught.value.__notes__[0]
        report = line(*steps).run(range(100), how=how, workers=1, on_error="skip")
        assert (report.records_out, report.skipped) == (99, 1)
        assert {step.records for step in report.steps[: at + 1]} == {100}


def test_a_process_a_step_is_no_thousand_processes():
    steps = flatten([abs] * 1_000)
    queues = plan.queues(steps, 2)
    assert queues.workers <= plan.PROCESSES
    assert [step for segment in queues.segments for step in segment.steps] == list(steps)
    assert plan.queues(steps[:30], 2).workers == 30
