"""Whole ways with their workers on a real Ray cluster give what the model says (`python3 dev.py ray ways` runs more)."""

from __future__ import annotations

import random

import pytest

from faults.ways import runner
from faults.ways.__main__ import seeds, shown
from faults.ways.case import case_of
from faults.ways.known import not_yet
from faults.ways.runner import differences

WAYS, SHARES = 20, 4  # other ones each time
ALL = seeds(random.SystemRandom().randrange(1_000_000), WAYS)


@pytest.mark.parametrize("share", range(SHARES))
def test_what_comes_of_a_whole_way_over_a_cluster_is_what_the_model_says(share, cluster, monkeypatch):
    monkeypatch.setattr(runner, "RAY", cluster.address)
    differ = []
    for seed in ALL[share::SHARES]:
        case = case_of(seed, elsewhere=True)
        print("again: python3 dev.py ray ways --only", seed)
        if (found := differences(case)) and not not_yet(case):
            differ.append(shown(case, found))
    assert not differ, "\n" + "\n".join(differ)
