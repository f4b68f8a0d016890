"""Promises: a step's retries and time limit hold also where it sits in C code; what hangs is named, what is slow is not."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import time

import pytest

from taktline import Failed, Stalled, StepTimeout, WorkerDied, batch, expand, line, per_worker, step

HOWS = ["pool", "queues", "line"]
EVERY = [*HOWS, "loop", "auto"]


def hangs_at(*records, hang):
    def check(n):
        if n in records:
            hang()
        return n

    return check


def sleep():
    time.sleep(600)


def hold_the_interpreter():
    sum(range(10**12))  # C code that neither gives the interpreter's lock away nor looks for signals


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def run_away():
    while True:
        pass


class Flaky:
    """Fails so many times for each record in a file, so that all processes count together."""

    def __init__(self, folder, failures):
        self.folder, self.failures = folder, failures

    def __call__(self, n):
        path = os.path.join(self.folder, str(n))
        with open(path, "ab") as file:
            tries = file.tell()
            file.write(b"x")
        if tries < self.failures:
            raise ConnectionError("not yet", n)
        return n


@pytest.mark.parametrize("how", EVERY)
def test_what_fails_for_a_while_is_tried_again_and_counted(how, tmp_path):
    run = line(step(Flaky(str(tmp_path), 2), retries=2, backoff=0.001))(range(20), how=how, workers=2)
    assert list(run) == list(range(20))
    assert run.report.retried == 40


@pytest.mark.parametrize("how", EVERY)
def test_after_the_last_try_the_exception_is_the_steps_own(how, tmp_path):
    flow = line(step(Flaky(str(tmp_path), 3), name="flaky", retries=2, backoff=0))
    with pytest.raises(ConnectionError) as caught:
        list(flow(range(20), how=how, workers=2, batch_size=5))
    assert caught.value.args == ("not yet", 0)
    assert (vars(caught.value)["__taktline__"].index, vars(caught.value)["__taktline__"].step) == (0, "flaky")


def test_a_list_that_fails_is_tried_again_whole(tmp_path):
    flaky = Flaky(str(tmp_path), 1)
    flow = line(batch(lambda numbers: [flaky(numbers[0]), *numbers[1:]], size=5, retries=1, backoff=0))
    run = flow(range(100), how="line", workers=2, batch_size=10)
    assert list(run) == list(range(100))
    assert run.report.retried == len(os.listdir(tmp_path)) < 30


@pytest.mark.parametrize(
    ("how", "hang"),
    [("line", hold_the_interpreter), ("line", stop), ("pool", run_away), ("queues", sleep), ("auto", sleep)],
)
def test_a_record_over_its_time_is_ended_and_named(how, hang):
    flow = line(abs, step(hangs_at(33, hang=hang), name="check", timeout=0.5))
    got = []
    with pytest.raises(StepTimeout) as caught:
        for result in flow(range(100), how=how, workers=2):
            got.append(result)
    assert got == list(range(33))
    assert (caught.value.index, caught.value.step, caught.value.seconds) == (33, "check", 0.5)
    assert vars(caught.value)["__taktline__"].index == 33


@pytest.mark.parametrize(
    ("before", "times"),
    [(abs, 1), (expand(lambda n: [n, n]), 2), (batch(list, size=7), 1)],
    ids=["map", "expand", "batch"],
)
def test_only_the_records_over_their_time_are_left_out(before, times):
    flow = line(before, step(hangs_at(0, 20, 21, 39, hang=sleep), timeout=0.3))
    run = flow(range(40), how="line", workers=2, batch_size=10, on_error="skip")
    results = list(run)
    assert results == [n for n in range(40) if n not in (0, 20, 21, 39) for _ in range(times)]
    assert run.report.skipped == 4


def test_a_list_over_its_time_is_tried_record_by_record():
    hangs = hangs_at(13, hang=sleep)
    flow = line(batch(lambda numbers: [hangs(n) for n in numbers], size=10, timeout=0.3))
    results = list(flow(range(30), how="line", workers=2, on_error="keep", batch_size=10))
    assert [r for r in results if not isinstance(r, Failed)] == [n for n in range(30) if n != 13]
    assert isinstance(results[13].error, StepTimeout)
    assert results[13].index == 13


def test_a_record_over_its_time_has_its_further_tries(tmp_path):
    flaky = Flaky(str(tmp_path), 1)

    def slow_at_first(n):
        if n == 5:
            try:
                return flaky(n)
            except ConnectionError:
                time.sleep(600)
        return n

    flow = line(step(slow_at_first, timeout=0.3, retries=1, backoff=0))
    assert list(flow(range(10), how="line", workers=2, batch_size=4)) == list(range(10))


def test_a_record_over_its_time_has_no_further_try_where_it_comes_from_another_worker(tmp_path):
    tries = tmp_path / "tries"

    def slow(n):
        if n == 5:
            with tries.open("a") as file:
                file.write("x")
            time.sleep(600)
        return n

    flow = line(step(abs, workers=1), step(slow, workers=1, timeout=0.3))
    results = list(flow(range(10), how="line", batch_size=10, on_error="skip"))
    assert results == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert tries.read_text() == "x"


@pytest.mark.parametrize("how", ["loop", "auto"])
def test_in_the_callers_process_a_late_record_is_noticed_when_it_comes_back(how):
    def slow(n):
        if n == 3:
            end = time.perf_counter() + 0.2
            while time.perf_counter() < end:
                pass
        return n

    with pytest.raises(StepTimeout) as caught:
        list(line(step(slow, timeout=0.1))(range(10), how=how, workers=1))
    assert caught.value.index == 3


@pytest.mark.parametrize(("how", "hang"), [("line", sleep), ("line", stop), ("pool", run_away), ("queues", sleep)])
def test_a_run_that_gets_nothing_done_names_record_step_and_stack(how, hang):
    flow = line(abs, step(hangs_at(33, hang=hang), name="check"))
    got = []
    with pytest.raises(Stalled) as caught:
        for result in flow(range(100), how=how, workers=2, stall=1.5):
            got.append(result)
    assert got == list(range(len(got)))
    (hanging,) = [each for each in caught.value.workers if each.records and each.records[0] <= 33 <= each.records[1]]
    assert hanging.pid
    if hang is stop:
        assert "stopped" in hanging.state
        assert "stopped" in str(caught.value)
    else:
        assert (hanging.index, hanging.step) == (33, "check")
        assert hang.__name__ in hanging.stack
        assert "in check" in str(caught.value)


def test_a_step_that_hangs_in_c_code_shows_its_stack_and_the_records_it_may_be_at():
    flow = line(hangs_at(13, hang=hold_the_interpreter))
    with pytest.raises(Stalled) as caught:
        list(flow(range(40), how="line", workers=2, batch_size=10, stall=1.5))
    (hanging,) = caught.value.workers
    assert hanging.records is not None
    assert hanging.records[0] <= 13 <= hanging.records[1]
    assert "hold_the_interpreter" in hanging.stack


def test_a_worker_that_hangs_while_it_is_built_is_named():
    with pytest.raises(Stalled, match="not ready yet") as caught:
        list(line(per_worker(time.sleep, 600))(range(4), how="line", workers=2, stall=1.5))
    assert len(caught.value.workers) == 2


def test_slow_records_in_a_large_batch_are_no_stall():
    def slow(n):
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
        return n

    # A batch lasts 1.5 s, three times what a stall may: each record moves on in a fifth of it.
    assert list(line(slow)(range(15), how="line", workers=1, batch_size=15, stall=0.5)) == list(range(15))


def test_a_crash_shows_where_it_was():
    def crash(n):
        if n == 7:
            ctypes.string_at(0)
        return n

    with pytest.raises(WorkerDied) as caught:
        list(line(crash)(range(20), how="line", workers=2))
    assert (caught.value.index, caught.value.signal) == (7, signal.SIGSEGV)
    assert "in crash" in "".join(caught.value.__notes__)


def take_default():
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def take_away():
    faulthandler.unregister(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def ignore():
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def handle():
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(9))


def handle_in_c():
    faulthandler.register(signal.SIGUSR2, os.open(os.devnull, os.O_WRONLY))


STALL = 2.4


@pytest.mark.parametrize(
    ("take", "steps"),
    [
        *((take, "plain") for take in (take_default, ignore, block, handle, handle_in_c)),
        (take_away, "async"),
    ],
)
def test_a_step_may_take_the_signal_that_asks_for_itself_and_be_slow(take, steps):
    def slow(n):
        if n == 0:
            take()
        time.sleep(STALL / 6)  # asked in it; all records of a batch together take longer than `stall`
        return n

    async def waits(n):
        return slow(n)

    flow = line(slow if steps == "plain" else step(waits, tasks=1))
    start = "launch" if take is handle else "auto"
    assert list(flow(range(8), how="line", workers=1, batch_size=8, stall=STALL, start=start)) == list(range(8))
