"""Promise: after the end, break, exception, close, or the caller's death, no process is left and nothing more is read."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
from model import Counted

from taktline import line, per_worker

LIMIT = 2.0  # seconds the promise allows


def children() -> set[int]:
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found |= set(map(int, file.read().split()))
    return found


def gone(pids: set[int]) -> bool:
    """Whether all of them have ended within the limit."""
    end = time.monotonic() + LIMIT
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


HOWS = ["pool", "queues", "line"]


@pytest.mark.parametrize("how", ["loop", *HOWS, "auto"])
def test_an_endless_source_is_read_no_further_than_the_window(how):
    source = Counted()
    with line(abs)(source, how=how, workers=2, window=50) as run:
        assert list(itertools.islice(run, 10)) == list(range(10))
        assert source.read <= 50


@pytest.mark.parametrize("how", HOWS)
def test_a_break_leaves_no_process(how):
    before = children()
    for result in line(abs)(itertools.count(), how=how, workers=2):
        started = children() - before
        if result == 20:
            break
    assert started
    assert gone(started)
    assert children() == before


@pytest.mark.parametrize("how", HOWS)
def test_an_exception_in_the_consumer_leaves_no_process(how):
    before = children()
    with pytest.raises(ZeroDivisionError):
        for result in line(abs)(itertools.count(), how=how, workers=2):
            1 // (result - 20)
    gc.collect()
    assert gone(children() - before)


def test_close_and_garbage_collection_leave_no_process():
    before = children()
    closed = line(abs)(itertools.count(), how="line", workers=2)
    assert next(closed) == 0
    closed.close()
    closed.close()
    assert children() == before
    dropped = line(abs)(itertools.count(), how="line", workers=2)
    assert next(dropped) == 0
    del dropped
    assert gone(children() - before)


def test_a_run_that_was_never_started_can_be_closed():
    before = children()
    line(abs)([1], how="line", workers=2).close()
    assert children() == before


def test_leaving_does_not_wait_for_a_stuck_step():
    before = children()
    began = time.monotonic()
    run = line(lambda n: n if n < 4 else time.sleep(60))(itertools.count(), how="line", workers=2, batch_size=1)
    assert next(run) == 0
    run.close()
    assert children() == before
    assert time.monotonic() - began < 30  # far from the step's 60 s; no claim about speed


def test_descriptors_are_given_back():
    list(line(abs)(range(10), how="line", workers=2))
    before = set(os.listdir("/proc/self/fd"))
    for how in HOWS:
        list(line(bytes, bytes)([100_000] * 10, how=how, workers=2))
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("step", ["time.sleep(60)", "sum(range(10**12))"])
def test_workers_die_with_a_killed_caller(start, step):
    code = f"""
import os, time
from taktline import line
def stuck(n):
    print(os.getpid(), flush=True)
    {step}
list(line(stuck)(range(100), how="line", workers=2, start={start!r}, batch_size=1))
"""
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    workers = {int(caller.stdout.readline()) for _ in range(2)}
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    assert gone(workers)


class Closing:
    """Says in a file when it is closed."""

    def __init__(self, folder):
        self.path = os.path.join(folder, f"closed-{os.getpid()}")

    def __call__(self, n):
        return n

    def close(self):
        with open(self.path, "w"):
            pass


def test_what_was_built_for_a_worker_is_closed(tmp_path):
    assert list(line(per_worker(Closing, str(tmp_path)))(range(100), how="line", workers=2)) == list(range(100))
    assert len(os.listdir(tmp_path)) == 2
