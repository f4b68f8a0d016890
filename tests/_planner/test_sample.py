"""What is learnt from the first records, on costs that are given."""

from __future__ import annotations

import pickle
import threading

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


def test_lots_without_records_say_nothing_and_without_moving_few_records_are_enough():
    sampling = Sampling(moving=False)
    sampling.learn([], [], read=1.0, work=1.0, cpu=1.0)
    sampling.learn_table(0, 0, given=0, read=1.0, work=1.0, cpu=1.0)
    assert (sampling.records, sampling.done) == (0, False)
    sampling.learn([0] * sample.RECORDS, [], read=0.0, work=0.1, cpu=0.1)
    assert sampling.done


def test_a_table_costs_the_copies_of_its_results_alone():
    sampling = Sampling(moving=True)
    sampling.learn_table(1_000, 80_000, given=0, read=0.1, work=0.5, cpu=0.5)
    assert not sampling.done  # the first one may have imported
    sampling.learn_table(2_000, 160_000, given=0, read=0.1, work=0.2, cpu=0.1)
    assert (sampling.done, sampling.table, sampling.work_ns) == (True, 2_000, 100_000.0)
    costs = sampling.costs(0.25)
    assert (costs.pack_in, costs.pack_out, costs.unpack_out) == (
        0.0,
        160_000 * sample.COPY_NS / 1_000,
        80 * sample.COPY_NS,
    )
    assert (costs.work, costs.here, costs.computing) == (75_000.0, 25_000.0, 0.5)


def test_a_table_in_memory_costs_the_copies_of_its_rows_too():
    sampling = Sampling(moving=True)
    sampling.learn_table(1_000, 80_000, given=40_000, read=0.0, work=0.5, cpu=0.5)
    costs = sampling.costs(0.0)
    assert (costs.pack_in, costs.unpack_in) == (costs.pack_out / 2, costs.unpack_out / 2)
    assert costs.pack_in == 2 * 40 * sample.COPY_NS


def test_records_timed_one_by_one_are_enough_once_there_are_many():
    sampling = Sampling(moving=True, singly=True)
    for _ in range(sample.SINGLY):
        assert not sampling.done
        sampling.learn([1], [1], read=0.0, work=1e-6, cpu=1e-6)
    assert sampling.done


def test_records_that_are_heavy_to_move_are_believed_after_a_second_look(monkeypatch):
    monkeypatch.setattr(sample, "moving", lambda values, *, exact: (9e6, 0.0, 1e7, ""))
    sampling = Sampling(moving=True)
    for looks in range(sample.HEAVY):
        assert (sampling.done, looks < sample.HEAVY) == (False, True)
        sampling.learn([1], [1], read=0.0, work=1e-4, cpu=1e-4)
    assert sampling.done


def test_what_the_sink_makes_of_results_counts_as_work():
    sampling = learned([(100, 1_000.0)])
    sampling.taken(1e-4)
    assert sampling.costs(0.0).work == pytest.approx(2_000.0)


def test_what_cannot_be_moved_is_an_obstacle():
    class Stuck:
        def __reduce__(self):
            raise RuntimeError("stays here")

    sampling = Sampling(moving=True)
    sampling.learn([Stuck()], [1], read=0.0, work=1e-4, cpu=1e-4)
    assert sampling.obstacle == "a record cannot be sent between processes: RuntimeError: stays here"
    assert sampling.costs(0.0).obstacle == sampling.obstacle


def test_what_is_moved_is_measured_both_ways_and_large_buffers_are_reckoned():
    packing, unpacking, size, why = sample.moving([b"%0100d" % n for n in range(10)])
    assert (packing > 0, unpacking > 0, size > 100, why) == (True, True, True, "")
    large = bytearray(sample.LARGE + 1)
    packing, unpacking, size, why = sample.moving([large], exact=False)
    assert (size > sample.LARGE, why) == (True, "")


def test_the_copies_of_large_buffers_are_reckoned_from_their_bytes():
    """Buffers that travel beside their pickle, as those of arrays do."""

    class Large:
        def __reduce_ex__(self, protocol):
            return bytearray, (pickle.PickleBuffer(bytearray(4 * sample.LARGE)),)

    packing, unpacking, size, why = sample.moving([Large()], exact=False)
    assert (size > 4 * sample.LARGE, why) == (True, "")
    assert unpacking == size * sample.COPY_NS < packing


def not_here():
    raise OSError("not here")


class Stuck:
    def __reduce__(self):
        return not_here, ()


def test_why_something_cannot_be_moved_is_said_whoever_finds_it_out():
    assert sample.moving([threading.Lock()])[3].startswith("TypeError: cannot pickle")
    assert sample.moving([Stuck()]) == (0.0, 0.0, 0.0, "OSError: not here")


def test_what_comes_after_enough_was_learnt_is_counted_and_changes_no_cost():
    sampling = learned([(1_000, 1_000.0)] * 3)
    assert sampling.done
    costs, records = sampling.costs(0.0), sampling.records
    sampling.learn([0] * 50, [0] * 50, read=0.0, work=9.0, cpu=9.0)
    assert sampling.records == records + 50
    assert sampling.costs(0.0) == costs._replace(records=records + 50)
