"""What a report says of the machine around the run, and of what is left where the run ended early."""

from __future__ import annotations

from time import perf_counter

from crowded import crowded

from taktline import line
from taktline._observe.verdict import NOISE, SHORT
from taktline._recipe.options import Options
from taktline._recipe.plan import here
from taktline._recipe.steps import as_step
from taktline._run.meter import Meter


def spins(n):
    began = perf_counter()
    while perf_counter() - began < 0.002:
        pass
    return n


def test_other_programs_on_the_cores_are_told_and_put_the_verdict_in_doubt():
    with crowded():
        report = line(spins).run(range(500), how="loop", progress=False)
    assert report.seconds > SHORT
    assert report.others > NOISE
    assert f"Other programs took {report.others:.0%} of the cores" in str(report)
    assert report.to_dict()["verdict"]["doubt"] == report.verdict.doubt


def test_a_short_run_is_said_to_be_one():
    report = line(abs).run(range(-9, 0), progress=False)
    assert "is too short to judge" in report.verdict.doubt
    assert report.verdict.doubt in " ".join(str(report).split())


def test_a_run_that_is_stopped_tells_what_is_left():
    run = line(abs)(range(10_000), how="loop", progress=False)
    for n, _ in enumerate(run):
        if n == 4_000:
            run.stop()
    report = run.report
    assert (report.complete, report.total) == (False, 10_000)
    assert report.left == report.seconds * (10_000 - report.records_in) / report.records_in
    assert f"{10_000 - report.records_in:,} of 10,000 records: about " in str(report)
    assert report.to_dict()["left"] == report.left
    done = line(abs).run(range(10), progress=False)
    assert (done.total, done.left) == (10, None)


def test_machines_stand_in_the_order_in_which_something_has_come_from_them():
    meter = Meter("test", here((as_step(abs),)), Options(), None)
    meter.machines = lambda: ["a", "b", "z"]
    meter.came_from("z", 1, 1.0)
    meter.came_from("b", 1, 1.0)
    meter.came_from("z", 1, 1.0)
    assert [(each.name, each.records) for each in meter.snapshot().nodes] == [("z", 2), ("b", 1), ("a", 0)]
