"""Promise: whole ways, drawn anew each time, give what the model in plain Python says (`python3 dev.py ways` runs more)."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace

import pytest

from faults.ways import runner, sources
from faults.ways.__main__ import seeds, shown
from faults.ways.case import Case, case_of
from faults.ways.known import not_yet
from faults.ways.runner import differences
from faults.ways.sinks import SINKS, Target
from faults.ways.sources import SOURCES, Origin
from faults.ways.steps import FAULTS, KINDS, Spec

WAYS, SHARES = 300, 10  # other ones each time
SEED = random.SystemRandom().randrange(1_000_000)
ALL = seeds(SEED, WAYS)


@pytest.fixture(scope="module", autouse=True)
def _a_server(request):
    """PostgreSQL, where there is one."""
    if importlib.util.find_spec("psycopg") is not None:
        try:
            sources.POSTGRES = request.getfixturevalue("postgres_server").url
        except pytest.skip.Exception:
            pass  # the ways go by SQLite then
    yield
    sources.POSTGRES = ""


@pytest.mark.parametrize("share", range(SHARES))
def test_what_comes_of_a_whole_way_is_what_the_model_says(share):
    differ = []
    for seed in ALL[share::SHARES]:
        case = case_of(seed)
        print("again: python3 dev.py ways --only", seed)
        if (found := differences(case)) and not not_yet(case):
            differ.append(shown(case, found))
    assert not differ, "\n" + "\n".join(differ)


def test_a_seed_draws_the_same_way_again_and_all_that_is_in_the_tables_is_drawn():
    cases = [case_of(seed) for seed in seeds(1, 2_000)]
    assert cases[::40] == [case_of(seed) for seed in seeds(1, 2_000)[::40]]
    drawn = {case.origin.kind for case in cases} | {case.target.kind for case in cases}
    drawn |= {step.kind for case in cases for step in case.steps} | {case.journal for case in cases}
    drawn |= {case.origin.fault for case in cases} | {step.fault for case in cases for step in case.steps}
    assert {*SOURCES, *SINKS, *KINDS, *FAULTS, "goes on after SIGKILL", "goes on after the mend"} <= drawn
    assert {fault for about in SOURCES.values() for fault in about.faults} <= drawn


@pytest.mark.parametrize("spoiled", ["results", "error", "counts", "letters"])
def test_what_differs_from_the_model_is_seen(spoiled, monkeypatch):
    origin, steps = Origin("list", 50), (Spec("map", "odd", 3, 1, fault="raises Boom", at=frozenset({17, 23})),)
    goes_on = Case(1, origin, steps, Target("loop"), {"how": "loop"}, letters="jsonl")
    case = replace(goes_on, letters="") if spoiled == "error" else goes_on
    assert differences(case) == []

    run = runner._Run.go

    def spoil(self):
        came = run(self)
        if spoiled == "results":
            came.results.pop()
        elif spoiled == "error":
            came.error.index += 1
        elif spoiled == "counts":
            came.counts["records_in"] -= 1
        else:
            came.letters.pop()
        return came

    monkeypatch.setattr(runner._Run, "go", spoil)
    assert len(differences(case)) == 1
