"""Batch steps get as many records a call as they ask for, or as make their calls worth it: calls are counted, not timed."""

from __future__ import annotations

import math
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline import batch, expand, keep, line, serial, step
from taktline._schedule.sizing import MAX_BATCH_RECORDS, Calls, Sizing
from taktline.abc import Live

CALL = 0.01  # seconds of a call, as much as a batch should take if it were work


def slow(log, size=None, **options):
    """A batch step that takes as long for one record as for many, and writes down how many it got."""

    def ask(records):
        with open(log, "a") as file:
            file.write(f"{len(records)}\n")
        threading.Event().wait(CALL)  # stands for a call over the network; nothing depends on how long it takes
        return records

    return batch(ask, size, **options)


def calls_of(log):
    return [int(count) for count in log.read_text().split()] if log.exists() else []


def cpu(records):
    return records


@pytest.mark.parametrize("how", ["line", "auto"])
@pytest.mark.parametrize("kind", ["process", "inline", "thread", "serial"])
def test_a_batch_step_gets_the_size_that_it_asks_for(tmp_path, how, kind):
    log = tmp_path / "calls"
    ask = serial(slow(log, 100)) if kind == "serial" else slow(log, 100, kind=kind)
    assert list(line(step(abs), ask, str)(range(400), how=how, workers=2)) == [str(n) for n in range(400)]
    assert len(calls_of(log)) <= 4 + 2  # some sources are read one by one at their beginning
    assert calls_of(log).count(100) >= 3


@pytest.mark.parametrize("how", ["line", "auto"])
def test_a_batch_step_that_asks_for_no_size_gets_as_many_as_make_its_calls_worth_it(tmp_path, how):
    log = tmp_path / "calls"
    assert list(line(slow(log))(range(2_000), how=how, workers=2)) == list(range(2_000))
    assert len(calls_of(log)) < 100
    assert max(calls_of(log)) > 50


@pytest.mark.parametrize(("sizes", "unit"), [((100, 40), 200), ((100, 64), 100), ((30, None), 30)])
def test_the_calls_of_several_steps_are_full(tmp_path, sizes, unit):
    logs = [tmp_path / str(n) for n in range(len(sizes))]
    flow = line(*(slow(log, size) for log, size in zip(logs, sizes, strict=True)))
    assert list(flow(iter(range(1_202)), how="line", workers=2)) == list(range(1_202))
    for log, size in zip(logs, sizes, strict=True):
        if size is not None:
            assert calls_of(log).count(size) >= (1_200 // unit - 2) * unit // size // 2


def test_an_expand_before_it_makes_any_number_so_that_lines_begin_with_one_record():
    first = next(iter(line(expand(lambda n: range(n, n + 1_000)), batch(cpu, 1_000))(ProbesNothing(), how="line")))
    assert first == 0


class ProbesNothing:
    """A source that fails where more than a few records are read before the first result."""

    def __iter__(self):
        for n in range(1_000):
            if n > 600:
                raise AssertionError("read too far ahead")
            yield n


def test_the_first_result_of_a_line_without_sizes_needs_one_record_alone(tmp_path):
    log = tmp_path / "calls"
    run = line(slow(log))(range(1_000), how="line", workers=1)
    assert next(iter(run)) == 0
    assert calls_of(log)[0] == 1
    run.close()


@pytest.mark.parametrize("window", [7, 1_000])
def test_the_window_holds_for_calls_too(tmp_path, window):
    log, read = tmp_path / "calls", []

    def source():
        for n in range(300):
            read.append(n)
            yield n

    ahead = [len(read) - n for n in line(slow(log, 100))(source(), how="line", workers=2, window=window)]
    assert max(ahead) <= window
    assert max(calls_of(log)) <= min(100, window)


class Trickle(Live):
    """Records that come in threes, as long as a batch of `most` may wait for more."""

    def __init__(self, total):
        self.left, self.waiting, self.asked = total, 0, []

    def take(self, most, seconds):
        if not self.left and not self.waiting:
            return None
        self.asked.append(most)
        came = min(3, self.left)
        self.left -= came
        self.waiting += came
        if self.waiting < most and self.left:
            return []
        given, self.waiting = min(most, self.waiting), self.waiting - min(most, self.waiting)
        return list(range(given))

    def close(self):
        pass


@pytest.mark.parametrize("how", ["line", "auto"])
def test_a_live_source_is_asked_for_whole_calls(tmp_path, how):
    log, source = tmp_path / "calls", Trickle(600)
    line(slow(log, 100)).run(source, how=how, workers=2)
    assert min(source.asked) == 100
    assert calls_of(log) == [100] * 6


def test_the_verdict_names_calls_that_are_too_small_whatever_their_reason(tmp_path):
    def verdict(source=range(400), size=100, before=(), **options):
        log = tmp_path / os.urandom(4).hex()
        return line(*before, slow(log, size)).run(source, **options).verdict

    for options, says in [
        ({"how": "loop"}, 'how="line"'), ({"how": "pool"}, 'how="line"'), ({"how": "queues"}, 'how="line"'),
        ({"how": "line", "batch_size": 5}, "batch_size"), ({"how": "line", "window": 40}, "window=400"),
    ]:  # fmt: skip
        found = verdict(source=range(200), workers=2, **options)
        assert found.bottleneck == "too small batches", options
        assert says in found.action
    thinned = verdict(source=range(2_000), before=[keep(lambda n: n % 50 == 0)], how="line", workers=2)
    assert thinned.bottleneck == "too small batches"
    assert "Few records reach it" in thinned.action
    assert verdict(how="line", workers=2).bottleneck != "too small batches"


# --- the controller alone ---


@given(st.floats(0, 1.0), st.floats(1e-6, 0.1), st.integers(1, 4))
@settings(deadline=None)
def test_calls_take_the_smaller_part_of_the_time_within_twenty_batches(call, each, flight):
    sizing, sizes = Sizing(), []
    for at in range(20 * flight):
        sizes.append(sizing.next())
        if at >= flight - 1:
            done = sizes[at - flight + 1]
            sizing.learn(done, call + done * each, 0)
            sizing.learn_calls(0, done, call + done * each)
    assert sizes[0] == 1
    last = max(sizes[-2 * flight :])  # now and then a batch is smaller, to learn
    assert last == MAX_BATCH_RECORDS or call <= 0.3 * (call + last * each) + each
    # and no more is waited for than that asks for, or some milliseconds of work
    assert last * each <= max(0.012, 4.5 * call, 2 * each)


def test_one_dear_batch_at_the_beginning_is_not_taken_for_what_a_call_costs():
    calls = Calls()
    for seconds in [2.0, *[0.001] * 12]:
        calls.learn(calls.wanted, seconds * calls.wanted if seconds == 0.001 else seconds)
    assert calls.wanted <= 4


def test_records_that_get_dearer_make_batches_smaller_again():
    calls = Calls()
    for each in [1e-5] * 10 + [1e-2] * 20:
        calls.learn(calls.wanted, 0.01 + calls.wanted * each)
    assert calls.wanted <= 10


@given(st.integers(1, 5_000), st.integers(1, 8), st.sampled_from([10, 100, 999]))
def test_the_last_calls_are_full_too(length, workers, size):
    sizing, left, sizes = Sizing(unit=size, least=size), length, []
    while left:
        sizes.append(min(left, sizing.next(left, workers)))
        sizing.learn(sizes[-1], 0.01 * math.ceil(sizes[-1] / size), 0)
        left -= sizes[-1]
    assert all(each % size == 0 for each in sizes[:-1])
