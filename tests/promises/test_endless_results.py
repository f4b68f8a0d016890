"""Promises: what `expand` makes of one record may be endless, or larger than memory: it streams, and the answer stays."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from killed import until_done

import taktline._run.watch
from taktline import (
    Failed,
    ResultsTooLarge,
    StepError,
    StepTimeout,
    WorkerDied,
    batch,
    expand,
    keep,
    line,
    serial,
    step,
    write,
)

HOWS = ["loop", "auto", "pool", "queues", "line"]


async def waits(n):
    return n


LINES = {
    "expand": (expand(itertools.count),),
    "after it": (expand(itertools.count), abs, keep(lambda n: n % 2)),
    "nested": (expand(itertools.count), expand(lambda n: [n] * 3)),
    "nested and endless": (expand(range), expand(itertools.count)),
    "batch": (expand(itertools.count), batch(lambda values: values, size=7), abs),
    "serial": (expand(itertools.count), serial(abs), abs),
    "serial, expand": (serial(abs), expand(itertools.count), serial(abs)),
    "inline": (step(expand(itertools.count), kind="inline"), abs),
    "waits": (expand(itertools.count), waits),
    "twice": (expand(itertools.count), serial(abs), expand(itertools.count)),
    "deep": (*(expand(lambda n: [n]) for _ in range(13)), expand(itertools.count)),
}


def plain(steps, record):
    """The loop, lazily."""
    values = iter([record])
    for each in steps:
        fn = getattr(each, "fn", each)
        role = getattr(getattr(each, "role", None), "value", "map")
        if role == "expand":
            values = itertools.chain.from_iterable(map(fn, values))
        elif role == "keep":
            values = filter(fn, values)
        elif role != "batch" and fn is not waits:
            values = map(fn, values)
    return values


@pytest.mark.parametrize(
    ("steps", "how"),
    [pytest.param(steps, how, id=f"{name}-{how}") for name, steps in LINES.items() for how in HOWS
     if (how == "line" or (how == "auto" and name != "waits")) or name in ("nested and endless", "twice")],
)  # fmt: skip
def test_the_first_of_endlessly_many_results_come(steps, how):
    expected = list(itertools.islice(plain(steps, 5), 1000))
    run = line(*steps)([5, 6, 7], how=how, workers=2)
    assert list(itertools.islice(run, 1000)) == expected
    run.close()


@pytest.mark.parametrize("how", ["loop", "auto", "line"])
def test_the_first_result_comes_before_the_second_is_there(how, tmp_path: Path):
    def one_by_one(n):
        yield n
        while not (tmp_path / "had").exists():
            yield n

    got = []
    for result in line(expand(one_by_one))([1, 2], how=how, workers=1):
        got.append(result)
        (tmp_path / "had").touch()
    assert got[0] == 1
    assert got[-1] == 2


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("steps", [(), (serial(abs), abs)], ids=["one lane", "three"])
def test_streams_of_several_records_at_once_are_whole_and_in_order(steps, ordered):
    def many(n):
        return ((n, k) for k in range(20_000 if n % 3 else 7))

    flow = line(expand(many)) if not steps else line(expand(many), serial(lambda pair: pair), lambda pair: pair)
    results = list(flow(range(12), how="line", workers=2, ordered=ordered, memory="4MB", batch_size=2))
    expected = [pair for n in range(12) for pair in many(n)]
    assert (results if ordered else sorted(results)) == expected


@pytest.mark.parametrize("how", HOWS)
def test_what_a_record_gave_before_it_failed_is_delivered_or_taken_back(how):
    def fails_late(n):
        for k in range(3000):
            if n == 3 and k == 2500:
                raise ValueError(n)
            yield n, k

    expected = [(n, k) for n in range(4) for k in range(2500 if n == 3 else 3000)]
    got = []
    with pytest.raises(ValueError):
        for result in line(expand(fails_late))(range(6), how=how, workers=2, memory="2MB"):
            got.append(result)
    assert got == expected
    flow = line(expand(fails_late))
    results = list(flow(range(6), how=how, workers=2, on_error="skip"))
    assert results == [(n, k) for n in range(6) if n != 3 for k in range(3000)]
    kept = list(flow(range(6), how=how, workers=2, on_error="keep"))
    assert [n for n, each in enumerate(kept) if isinstance(each, Failed)] == [9000]


@pytest.mark.parametrize("how", HOWS)
def test_results_that_may_have_to_be_taken_back_and_are_too_large_end_the_run_by_name(how, tmp_path: Path):
    flow = line(expand(lambda n: itertools.count() if n == 3 else [n]))
    got = []
    with pytest.raises(ResultsTooLarge, match="memory=") as caught:
        for result in flow(range(6), how=how, workers=2, memory="4MB", dead_letters=tmp_path / "letters.jsonl"):
            got.append(result)
    assert got == [0, 1, 2]
    assert "record 3" in caught.value.__notes__[0]
    assert not (tmp_path / "letters.jsonl").exists()


PEAK = """
    import os, sys, threading, time
    import taktline
    from taktline import line, expand
    flow = line(expand(lambda n: ({"id": k, "name": f"number {k}", "tags": [k, k]} for k in range(n))))
    count, how, sink = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    run = flow([count], how=how, workers=2, memory="16MB")
    if sink:
        report = run.drain(taktline.write(sink))
    else:
        assert sum(1 for _ in run) == count
        report = run.report
    print(report.peak_memory)
"""


@pytest.mark.parametrize(("how", "to_file"), [("line", True), ("auto", False)])
def test_one_record_that_gives_more_than_fits_stays_within_memory(how, to_file, tmp_path: Path):
    def peak(count):
        sink = str(tmp_path / "out.jsonl") if to_file else ""
        script = [sys.executable, "-c", textwrap.dedent(PEAK), str(count), how, sink]
        return int(subprocess.run(script, check=True, capture_output=True, text=True, timeout=120).stdout)

    # 200,000 such dicts take some 130 MB
    assert peak(200_000) - peak(1_000) < 70e6


@pytest.mark.parametrize(("how", "to_file"), [("pool", False), ("line", True)])
def test_a_death_in_the_middle_of_a_stream_costs_no_result_and_doubles_none(how, to_file, tmp_path: Path):
    def dies_once(n):
        for k in range(30_000):
            if (n, k) == (2, 20_000) and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield n * 100_000 + k

    flow, expected = line(expand(dies_once)), [n * 100_000 + k for n in range(4) for k in range(30_000)]
    options = {"how": how, "workers": 2, "memory": "2MB"}
    if to_file:
        flow.run(range(4), write(tmp_path / "out.jsonl"), **options)
        assert (tmp_path / "out.jsonl").read_text().split() == list(map(str, expected))
    else:
        assert list(flow(range(4), **options)) == expected


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_record_that_kills_in_the_middle_of_its_stream_is_named_behind_what_it_gave(on_error):
    def kills(n):
        for k in range(30_000):
            if (n, k) == (2, 20_000):
                os.kill(os.getpid(), signal.SIGKILL)
            yield n, k

    options = {"how": "line", "workers": 2, "memory": "64MB"}
    if on_error == "skip":
        results = list(line(expand(kills))(range(4), on_error="skip", **options))
        assert results == [(n, k) for n in (0, 1, 3) for k in range(30_000)]
        return
    got = []
    with pytest.raises(WorkerDied) as caught:
        for result in line(expand(kills))(range(4), **options):
            got.append(result)
    assert (caught.value.index, caught.value.step) == (2, "kills")
    assert got[:60_000] == [(n, k) for n in range(2) for k in range(30_000)]
    assert got[60_000:] == [(2, k) for k in range(len(got) - 60_000)]


def test_a_stream_that_goes_on_to_other_workers_goes_on_behind_what_it_gave_before_its_worker_died(tmp_path: Path):
    def gives(n):
        for k in range(60_000):
            if k == 40_000 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield k

    results = line(expand(gives), lambda k: k + 1)([0], how="queues", workers=2, memory="64MB")
    assert list(results) == list(range(1, 60_001))


def test_a_stream_that_gives_fewer_results_when_it_is_run_again_is_an_error_by_name(tmp_path: Path):
    def other(n):
        if (tmp_path / "died").exists():
            return
        for k in range(100_000):
            if k == 90_000:
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield k

    got = []
    with pytest.raises(StepError, match="fewer results"):
        for result in line(expand(other))([1], how="line", workers=1, memory="2MB"):
            got.append(result)
    assert got == list(range(len(got)))


@pytest.mark.parametrize("to_file", [False, True])
def test_a_stream_that_gives_other_results_when_it_is_run_again_is_an_error_by_name(to_file, tmp_path: Path):
    def other(n):
        again = (tmp_path / "died").exists()
        for k in range(100_000):
            if k == 90_000 and not again:
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"k": k, "again": again}

    got, options = [], {"how": "line", "workers": 1, "memory": "2MB"}
    with pytest.raises(StepError, match="other results"):
        if to_file:
            line(expand(other)).run([1], write(tmp_path / "out.jsonl"), **options)
        for result in line(expand(other))([1], **options):
            got.append(result)
    assert got == [{"k": k, "again": False} for k in range(len(got))]


def test_results_that_are_equal_when_they_are_made_again_are_no_other_results(tmp_path: Path):
    def equal(n):
        again = (tmp_path / "died").exists()
        for k in range(60_000):
            if k == 50_000 and not again:
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            names = {"a", "b", "c"} if again else {"c", "b", "a"}
            yield k, float("nan"), names, object.__new__(Opaque)

    results = list(line(expand(equal))([1], how="line", workers=1, memory="2MB"))
    assert [result[0] for result in results] == list(range(60_000))


class Opaque:
    """Without an == of its own."""


@pytest.mark.parametrize("how", ["loop", "auto", "line"])
@pytest.mark.parametrize("options", [{"retries": 2, "backoff": 0.0}, {"timeout": 60}], ids=["retries", "timeout"])
def test_what_may_have_to_be_made_again_is_held_within_memory_or_refused_by_name(how, options):
    calls = itertools.count()

    def counted(n):
        next(calls)
        return itertools.count() if n == 3 else iter(range(n))

    flow, got = line(step(expand(counted), **options)), []
    with pytest.raises(ResultsTooLarge, match="memory="):
        for result in flow(range(6), how=how, workers=1, memory="4MB"):
            got.append(result)
    assert got == [0, 0, 1]
    assert next(calls) in ((4, 5) if how == "loop" else range(6))  # no further try would give less


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_timeout_is_for_all_results_of_a_record(how):
    def slowly(n):
        while n:
            time.sleep(0.01)
            yield n

    got = []
    with pytest.raises(StepTimeout) as caught:
        for result in line(step(expand(slowly), timeout=0.3))([0, 5], how=how, workers=1):
            got.append(result)
    assert (got, caught.value.index) == ([], 1)


def test_a_record_that_gives_many_results_is_not_timed_at_each_of_them():
    """Nothing is asked of the clock behind the first results: they come as they come in the loop."""
    run = line(expand(range), abs)([200_000, 3], how="loop")
    asked, clock = itertools.count(), taktline._run.watch.process_time
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("taktline._run.watch.process_time", lambda: (next(asked), clock())[1])
        assert list(run) == [*range(200_000), 0, 1, 2]
    assert next(asked) < 2_000
    report = run.report
    assert (report.records_in, report.records_out) == (2, 200_003)
    assert [each.records for each in report.steps] == [2, 200_003]


RESUME = """
    import sys, time
    import taktline
    from taktline import line, expand
    def many(n):
        for k in range(60_000):
            if not k % 1000:
                time.sleep(0.005)
            yield n * 100_000 + k
    line(expand(many)).run(
        range(3), taktline.write("out.jsonl"), how=sys.argv[1], workers=2, memory="2MB", journal="run.journal"
    )
"""


@pytest.mark.parametrize("how", ["line", "loop"])
def test_a_run_killed_in_the_middle_of_a_record_goes_on_in_the_middle(how, tmp_path: Path):
    (tmp_path / "job.py").write_text(textwrap.dedent(RESUME))
    until_done(tmp_path, "job.py", how, kills=2)
    expected = [n * 100_000 + k for n in range(3) for k in range(60_000)]
    assert (tmp_path / "out.jsonl").read_text().split() == list(map(str, expected))


def test_leaving_a_stream_leaves_no_worker():
    run = line(expand(lambda n: ((n, os.getpid()) for _ in itertools.count())))([1, 2], how="line", workers=2)
    _, pid = next(iter(run))
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def counts(n):
    for k in itertools.count():
        yield k


async def counts_at_once(n):
    return itertools.count()


@pytest.mark.parametrize("fn", [counts, counts_at_once])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_step_that_waits_and_gives_endlessly_many_results_is_an_error_by_name(fn, on_error):
    with pytest.raises(ResultsTooLarge):
        list(line(expand(fn))([5], how="line", workers=1, memory="4MB", on_error=on_error))


def test_parts_that_come_behind_the_end_of_the_run_are_not_taken_for_others():
    def many(n):
        for k in range(60_000):
            if (n, k) == (2, 40_000):
                raise ValueError(n)
            yield n * 100_000 + k

    for _ in range(2):  # with two workers the second one is done with record 2, and goes on, before the first is with 1
        got = []
        with pytest.raises(ValueError, match="2"):
            for result in line(expand(many))(range(4), how="line", workers=2, memory="8MB", batch_size=1):
                got.append(result)
        assert got == [n * 100_000 + k for n in range(3) for k in range(40_000 if n == 2 else 60_000)]
