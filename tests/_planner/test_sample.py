"""What is learnt from the first records, on costs that are given."""

from __future__ import annotations

import pytest

from taktline._planner import sample
from taktline._planner.sample import Sampling


def learned(lots):
    """Lots of so many records, with nanoseconds of work a record."""
    sampling = Sampling(moving=True)
    for count, work in lots:
        if sampling.done:
            break
        records = list(range(count))
        sampling.learn(records, records, read=0.0, work=count * work / 1e9, cpu=count * work / 1e9)
    return sampling


def test_one_odd_lot_does_not_decide_alone():
    """The last lot was held up: with the one before it, which has half as many records, it weighs two thirds."""
    lots = [(1, 400.0)] * 32 + [(2**n, 400.0) for n in range(1, 11)] + [(2048, 700.0)]
    costs = learned(lots).costs(0.0)
    assert costs.work == (1024 * 400.0 + 2048 * 700.0) / 3072


def test_costs_that_differ_from_record_to_record_are_their_mean():
    """All lots have one record here: the newest alone would say a hundred times too much or half as much."""
    lots = [(1, 1_600_000.0 if n % 16 == 8 else 16_000.0) for n in range(64)]
    sampling = learned(lots)
    told = [work for _, work in lots[1 : sampling.records]]
    assert sampling.costs(0.0).work == pytest.approx(sum(told) / len(told))


def test_the_first_record_may_import_what_the_others_use():
    assert learned([(1, 9e6)] + [(1, 1e6)] * 40).costs(0.0).work == pytest.approx(1e6)


def test_moving_is_looked_at_with_as_many_values_as_there_are_in_the_end(monkeypatch):
    """A call costs as much as many small values, so a look at one of them says too much."""
    monkeypatch.setattr(sample, "moving", lambda values, *, exact: (10_000 / len(values) + 10, 0.0, 8.0, ""))
    sampling = learned([(1, 30_000.0)] * 32 + [(2, 30_000.0), (4, 30_000.0), (8, 30_000.0), (17, 30_000.0)])
    assert sampling.done
    assert sampling.costs(0.0).pack_in == 10_000 / 17 + 10


def test_the_lesser_of_two_looks_counts(monkeypatch):
    looks = iter([9_000.0, 5_000.0, 90.0] * 100)
    monkeypatch.setattr(sample, "moving", lambda values, *, exact: (next(looks), 0.0, 8.0, ""))
    sampling = learned([(64, 30_000.0)])
    assert sampling.costs(0.0).pack_in == 90.0


def test_the_first_packing_may_import_what_the_others_use(monkeypatch):
    looks = iter([4_000_000.0])
    monkeypatch.setattr(sample, "moving", lambda values, *, exact: (next(looks, 500.0), 0.0, 8.0, ""))
    costs = learned([(1, 400_000.0)] * 40).costs(0.0)
    assert (costs.pack_in, costs.pack_out) == (500.0, 500.0)


def test_large_values_with_little_work_are_believed_after_a_second_look(monkeypatch):
    looks = []
    monkeypatch.setattr(sample, "moving", lambda values, *, exact: looks.append(values) or (900_000.0, 0.0, 8.0, ""))
    sampling = learned([(1, 30_000.0)] * 40)
    assert (sampling.records, len(looks)) == (2, 4)


def test_a_first_packing_that_takes_long_is_not_what_a_record_costs(monkeypatch):
    """As where it imports what packs them: more than all records of a look may take."""
    looks = []

    def moving(values, *, exact=True):
        looks.append(len(values))
        return (2e6 if len(looks) == 1 else 40_000.0 if len(values) == 1 else 100.0), 100.0, 10.0, ""

    monkeypatch.setattr(sample, "moving", moving)
    sampling = Sampling(moving=True)
    sampling.learn(["record"] * 512, ["result"] * 512, read=0.0, work=0.02, cpu=0.02)
    sampling.learn(["record"] * 512, ["result"] * 512, read=0.0, work=0.02, cpu=0.02)
    assert sampling.costs(0.0).pack_in < 1_000
