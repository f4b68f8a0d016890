"""What workers counted, added up."""

from __future__ import annotations

from taktline._observe.counters import LaneCount


def test_a_step_has_the_share_of_the_time_that_its_timed_records_say():
    lane = LaneCount(("parse", "score"))
    lane.note(0, 4_000, 1_000, 500, 3_900, 2, [100, 50], [10, 10], [100, 600])
    parse, score = lane.steps()
    assert (parse.records, score.records) == (100, 50)
    assert (parse.busy * 1e9, score.busy * 1e9) == (1_000, 3_000)  # 100 records of 10 ns against 50 of 60
    assert (parse.ns_per_record, score.ns_per_record) == (10, 60)
    assert (score.waiting * 1e9, score.blocked * 1e9) == (750, 375)


def test_where_nothing_was_timed_all_steps_have_the_same_share():
    lane = LaneCount(("parse", "score"))
    lane.note(0, 4_000, 0, 0, 0, 0, [0, 0], [0, 0], [0, 0])
    assert [(each.busy * 1e9, each.ns_per_record) for each in lane.steps()] == [(2_000, 0.0), (2_000, 0.0)]


def test_what_a_worker_did_stays_when_another_has_its_number():
    lane = LaneCount(("parse",))
    lane.note(7, 1_000, 10, 20, 900, 1, [5], [1], [200])
    assert (lane.busy_of(7), lane.busy_of(8)) == (1_000, 0)
    lane.retire(7)
    lane.retire(7)
    assert lane.busy_of(7) == 0
    lane.note(7, 2_000, 1, 2, 1_800, 0, [6], [2], [500])
    assert lane.totals() == (3_000, 11, 22, 2_700, 1, [11], [3], [700])
