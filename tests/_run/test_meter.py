"""What a report says of the machine around the run, and of what is left where the run ended early."""

from __future__ import annotations

import signal
from time import perf_counter, sleep

import pytest
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


SLOW = 0.3  # seconds of which all but nothing is anything else in these runs


def breaks_off(n):
    if n == 6:
        sleep(SLOW)
        raise ValueError(n)
    return n


def is_interrupted(n):
    if n == 6:
        sleep(SLOW)
        signal.raise_signal(signal.SIGINT)
    return n


def ending(how):
    yield from range(7)
    sleep(SLOW)
    if how == "interrupt":
        signal.raise_signal(signal.SIGINT)
    raise ConnectionError


KINDS = {
    "list": lambda: list(range(10)),
    "iterator": lambda: iter([*range(10)]),
    "range": lambda: range(10),
    "generator": lambda: (n for n in range(10)),
}


def broken_off(run, drain):
    with pytest.raises((ValueError, ConnectionError, KeyboardInterrupt)):
        run.drain(None) if drain else run.to_list()
    return run.report


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [breaks_off, is_interrupted])
@pytest.mark.parametrize("how", ["loop", "auto"])
def test_the_time_in_which_a_step_ends_the_run_is_that_steps(how, step, kind, drain):
    run = line(abs, step, str)(KINDS[kind](), how=how, progress=False)
    report = broken_off(run, drain)
    assert report.verdict.bottleneck == step.__name__, report.verdict
    assert SLOW <= report.steps[1].busy <= report.seconds


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("way", ["error", "interrupt"])
@pytest.mark.parametrize("options", [{"how": "loop"}, {"how": "auto"}, {"how": "line", "workers": 1}])
def test_the_time_in_which_a_source_ends_the_run_is_the_sources(options, way, drain):
    report = broken_off(line(str)(ending(way), **options, progress=False), drain)
    assert SLOW <= report.spent["reading"] <= report.seconds
    assert options["how"] == "line" or report.verdict.bottleneck == "source", report.verdict


def test_the_time_of_a_long_lazy_run_is_that_of_the_step_that_ends_it():
    run = line(lambda n: is_interrupted(n if n < 6 else n - 20_000 + 6))(range(1_000_000), how="loop", progress=False)
    with pytest.raises(KeyboardInterrupt):
        run.drain(None)
    assert SLOW <= run.report.steps[0].busy <= run.report.seconds


def test_what_a_worker_has_not_given_back_when_the_run_is_ended_is_its_steps(tmp_path):
    begun = tmp_path / "begun"

    def hangs(n):
        begun.touch()
        sleep(60)

    run = line(hangs)(range(10), how="line", workers=1, batch_size=1, progress=lambda snapshot: interrupt(begun))
    with pytest.raises(KeyboardInterrupt):
        run.drain(None)
    assert run.report.steps[0].busy > 0
    assert run.report.verdict.bottleneck != "nothing"


def interrupt(begun):
    if begun.exists():
        signal.raise_signal(signal.SIGINT)
