"""Promise: whole ways, drawn anew each time, give what the model in plain Python says (`python3 dev.py ways` runs more)."""

from __future__ import annotations

import importlib.util
import random

import pytest

from faults.ways import sources
from faults.ways.__main__ import seeds, shown
from faults.ways.case import case_of
from faults.ways.known import not_yet
from faults.ways.runner import differences

WAYS, SHARES = 300, 10
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
