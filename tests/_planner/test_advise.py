"""The plan in words, for costs that are given."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from taktline import LineError, serial, step
from taktline._planner import advise as advise_module
from taktline._planner.advise import LENGTH, Failures, Plan, Tried, advise, everywhere, what_becomes
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._recipe.steps import as_step

DEAR, CHEAP = 2e6, 300.0
ALL = advise_module.CORES
MEMORY = 1 << 30
RECORDS = 1_000  # few, so that they are soon simulated


HERE = Ways()


@pytest.fixture(autouse=True)
def no_large_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 64 cores would do takes long to be simulated: it is asked for where that is looked at."""
    monkeypatch.setattr(advise_module, "CORES", tuple(cores for cores in ALL if cores < 64))


def tried(*ns: float, steps=None, computing=1.0, move=0.0, size=100.0, lots=(1,) * 32, ways=HERE, **more: Any) -> Tried:
    """Steps of so many nanoseconds a record, of which some are there."""
    read = more.pop("read", 50.0)
    costs = Costs(
        lots, read, tuple(StepCost(f"s{n}", tuple(one * c for c in lots), computing) for n, one in enumerate(ns)),
        tuple(Move(move, move, size) for _ in range(len(ns) + 1)), read + sum(ns), ways,
    )  # fmt: skip
    facts: dict[str, Any] = {
        "total": RECORDS, "read": sum(lots), "tried": sum(lots), "one_shot": False, "failures": Failures(), "obstacle": "",
    }  # fmt: skip
    return Tried("test", steps or tuple(as_step(abs) for _ in ns), costs, **facts | more)


def planned(found: Tried, **options: Any) -> Plan:
    return advise(found, **{"cores": 4, "workers": 4, "window": None, "memory": MEMORY} | options)


def test_dear_steps_go_to_workers_as_one_segment():
    plan = planned(tried(DEAR, DEAR))
    assert (plan.how, plan.workers, plan.segments) == ("line", 4, (("abs", "abs"),))
    assert plan.reasons[0].startswith("move to 4 workers: ")
    assert "neighbouring steps run as one in the same worker" in plan.reasons[-1]
    assert plan.seconds < RECORDS * 2 * DEAR / 1e9 / 3


def test_cheap_steps_stay_with_the_loop_and_the_words_say_what_moving_costs():
    plan = planned(tried(CHEAP, move=2_000.0, total=10**8))
    assert (plan.how, plan.workers) == ("loop", 0)
    assert plan.reasons == ("stay with the loop: moving a record costs 8.06 µs, working on it 300 ns",)


@pytest.mark.parametrize(
    ("found", "options", "says"),
    [
        (tried(DEAR, obstacle="a record cannot be sent: a lock"), {}, "stay with the loop: a record cannot be sent: a lock"),
        (tried(DEAR), {"how": "pool"}, "how='pool' was asked for: "),
        (tried(DEAR), {"how": "queues"}, "how='queues' was asked for: "),
        (tried(DEAR, steps=(serial(abs),)), {}, "stay with the loop: all steps run in the caller's process"),
        (tried(DEAR), {"workers": 1}, "stay with the loop: there is one core to use"),
        (tried(DEAR, total=3), {}, "stay with the loop: 3 records are done before workers have started"),
        (tried(CHEAP, move=2_000.0, total=10**8, ways=Ways(slowdown=3.0)), {}, "work takes 3.0 times as long in workers"),
        (
            tried(DEAR, read=500_000.0, total=20_000), {"workers": 32, "cores": 64},
            "more than 4 workers gain nothing: reading the source",
        ),
        (tried(DEAR, carries="the steps carry 80 MB to each worker"), {}, "the steps carry 80 MB to each worker"),
    ],
)  # fmt: skip
def test_the_reason_is_said(found, options, says):
    assert any(each.startswith(says) for each in planned(found, **options).reasons), planned(found, **options).reasons


def test_what_workers_read_and_encode_themselves_passes_by_the_caller():
    found = tried(DEAR)
    costs = found.costs._replace(read_ns=40_000.0, cut=Move(50.0, 0.0, 20.0), encode=Move(3_000.0, 0.0, 10.0))
    plan = planned(found._replace(costs=costs))
    assert "workers read the source and encode the results themselves" in "; ".join(plan.reasons)


def test_without_records_nothing_is_predicted():
    empty = tried(DEAR, lots=())._replace(read=0)
    plan = planned(empty)
    assert plan.reasons == ("there are no records, so nothing can be said of the costs",)
    assert {each.seconds for each in plan.predictions} == {0.0}
    failed = empty._replace(read=9, tried=9)
    assert planned(failed).reasons == ("nothing can be said of the costs: no record that was tried came through",)


def test_a_step_that_waits_is_advised_to_wait_for_many_at_once():
    (says,) = planned(tried(5e6, computing=0.1)).advice
    assert says.startswith("'s0' waits 90% of its time: with step(s0, tasks=")
    assert planned(tried(5e6, steps=(serial(abs),), computing=0.1)).advice[0].startswith("'s0' waits 90%")


def test_a_record_that_gives_much_and_a_source_that_is_used_up_are_told():
    cut, used = planned(tried(DEAR, cut="record 7 gives more than was tried", one_shot=True)).advice
    assert cut == "record 7 gives more than was tried"
    assert "the 32 records that were read of it for this are used up" in used


def test_failures_are_counted_once_a_record_in_the_step_where_they_came_first():
    failures = Failures()
    failures.add(5, "parse", ValueError("bad"))
    failures.add(5, "score", KeyError("late"))
    failures.add(3, "parse", ValueError("worse"))
    failures.add(9, "parse", LineError("no\nsecond line"))
    failures.add(1, "(reading)", ValueError(""))
    assert [str(each) for each in failures.by_step()] == [
        "record 1 in reading: ValueError",
        "3 in step 'parse', first record 3: ValueError: worse",
    ]
    plan = planned(tried(DEAR, failures=failures, ended="a step hung"))
    assert (plan.failed, plan.failures) == (4, failures.by_step())
    counted, becomes, ended = plan.advice
    assert counted.startswith("4 of 32 tried records failed")
    assert "the run ends at record 1: mend it" in becomes
    assert ended.startswith("the trial ended early: a step hung.")


def test_what_becomes_of_failed_records_is_what_the_options_say():
    assert what_becomes("raise", "bad.jsonl") == "the run goes on, and keeps them in 'bad.jsonl'"
    assert what_becomes("skip", None).startswith("the run goes on without them")
    assert what_becomes("keep", None) == "the run goes on, with a mark in the place of each"
    assert 'with on_error="raise" the run ends: mend it' in what_becomes("raise", None)


def test_a_plan_tells_itself_as_text_json_and_html():
    plan = planned(tried(DEAR, CHEAP, total=None))
    assert repr(plan).startswith("<Plan 'test': line, 4 workers, about ")
    assert "length unknown" in str(plan)
    assert json.loads(plan.to_json())["segments"] == [["abs", "abs"]]
    assert "<h3>test</h3>" in plan._repr_html_()


def test_techniques_that_cannot_go_to_workers_are_left_out():
    found = tried(DEAR)
    assert {each.how for each in everywhere(found.costs, found.steps, 100, [1, 2], None, MEMORY, obstacle=True)} == {
        "loop"
    }


def test_a_step_with_a_resource_is_said_to_be_where_that_is_and_what_the_way_costs():
    steps = (as_step(abs), step(abs, name="model", workers=2, resources={"GPU": 1}), as_step(abs))
    found = tried(CHEAP, DEAR, CHEAP, steps=steps, move=500.0)
    (placed,) = (each for each in planned(found).reasons if "GPU" in each)
    assert placed == (
        "'model' has 2 workers with 1 GPU each: batches go there and on through the caller's process, 2.0 µs/rec"
    )


def test_the_text_of_a_plan_has_a_column_a_machine_and_what_limits_the_line_on_each(monkeypatch):
    monkeypatch.setattr(advise_module, "CORES", (1, 4, 64))
    found = tried(DEAR, read=500_000.0, total=20_000)
    named = found.costs.steps[0]._replace(name="a_step_of_a_long_name")
    text = str(planned(found._replace(costs=found.costs._replace(steps=(named,)))))
    header, *_, limit = (row for row in text.splitlines() if row.startswith((" predicted", "   limit")))
    assert re.split(r"  +", header.strip()) == [
        "predicted", "1 core", "4 cores, here", "64 cores",
    ]  # fmt: skip
    assert limit.split() == ["limit", "a_step_of_a_l…", "a_step_of_a_l…", "source"]


def test_the_text_of_a_plan_says_what_was_measured_of_each_step():
    text = str(planned(tried(5e6, CHEAP, computing=0.1, total=100)))
    assert "s0 5.0 ms/rec ± 0%, waits 90% of it" in text
    few = str(planned(tried(5e6, lots=(1,) * 8, total=100)))
    assert "s0 5.0 ms/rec\n" in few  # of so few records the spread says nothing
    failures = Failures()
    failures.add(3, "s0", ValueError("bad"))
    assert "32 records tried, 1 of them failed" in str(planned(tried(DEAR, failures=failures, total=100)))


def test_a_length_that_is_reckoned_is_said_to_be_about_right():
    plan = planned(tried(DEAR, total=None, about=300))
    assert (plan.records, plan.length_known, plan.reckoned) == (300, False, True)
    assert "of about 300" in str(plan)
    assert tried(DEAR, total=None).length == LENGTH


def test_a_plan_whose_costs_are_unknown_says_why_and_has_no_table():
    text = str(planned(tried(DEAR, lots=())._replace(read=0)))
    assert "why      there are no records" in text
    assert "predicted" not in text


def test_steps_of_the_callers_process_have_the_loop_alone_beside_them():
    text = str(planned(tried(DEAR, steps=(serial(abs),))))
    assert "\n loop " in text
    assert "\n line " not in text
    assert "loop: everything in this process" in text


def test_where_waiting_overlaps_in_the_callers_process_alone_the_advice_is_reckoned_for_that():
    """Records that cannot be sent are waited for by many tasks here: what workers would take is no matter."""
    waits, stays = (
        planned(tried(5e6, computing=0.1, obstacle=obstacle)).advice[0].rpartition("about ")[2]
        for obstacle in ("", "a record cannot be sent")
    )
    assert waits != stays


@pytest.mark.parametrize(
    ("bottleneck", "says"),
    [
        ("hub", "the caller's process, which packs records and unpacks results, is the bottleneck"),
        ("source", "reading the source is the bottleneck"),
        ("start-up", "the run is over before they have started"),
        ("waiting", "there are too few records for them"),
        ("score", "'score' is the bottleneck"),
    ],
)
def test_why_more_workers_gain_nothing_is_said_in_words(bottleneck, says):
    assert advise_module._limit(bottleneck) == says
