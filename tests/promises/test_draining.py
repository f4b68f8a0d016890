"""Promise: the first SIGTERM lets a live source's run end well, the second one ends it at once, whoever wrote the source."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from taktline import line
from taktline.abc import Live

PROGRAM = """
import signal, sys, time
from taktline import line
from taktline.abc import Live

how, mode = sys.argv[1:]

class Numbers(Live):
    drain = 0.05 if mode == "late" else None
    taken = 0
    said = 0
    closed = False
    def take(self, most, seconds):
        some = list(range(self.taken, self.taken + min(most, 5)))
        self.taken += len(some)
        return some
    def safe(self, records, skipped):
        self.said = records
    def close(self):
        self.closed = True

def work(n):
    if mode != "well" and n == 30:
        print("at work", flush=True)
        while True:
            time.sleep(3600)
    return n

source, results = Numbers(), []

def sink(n):
    results.append(n)
    if mode == "well" and n == 20:
        print("at work", flush=True)
        sys.stdin.readline()

before = signal.getsignal(signal.SIGTERM)
try:
    if mode == "well" and how == "loop":
        for n in line(work)(source, how=how):  # in a loop of the caller's own, too
            sink(n)
    else:
        report = line(work).run(source, sink, how=how, workers=2)
        assert report.complete
finally:
    assert signal.getsignal(signal.SIGTERM) == before
    assert source.closed
    assert results == list(range(len(results)))
    assert source.said in (len(results), len(results) - 1), (source.said, len(results))
    print("taken" if mode != "well" else source.taken - len(results), source.said <= len(results), flush=True)
"""


def start(how, mode):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_the_first_sigterm_finishes_what_was_taken(how):
    with start(how, "well") as process:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate("go on\n", timeout=120)
    assert process.returncode == 0, errors
    assert said == "0 True\n"


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("mode", ["again", "late"])
def test_the_second_sigterm_ends_the_run_at_once_and_so_does_the_end_of_its_time(how, mode):
    with start(how, mode) as process:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        if mode == "again":
            while process.poll() is None:  # two signals that come at once are one
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
        said, errors = process.communicate(timeout=120)
    assert said == "taken True\n", errors
    # One more may have met the program behind its run, and ended it as the system does.
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM if mode == "again" else 0), errors


class Few(Live):
    def __init__(self):
        self._left = [1, 2, 3]

    def take(self, most, seconds):
        return [self._left.pop(0)] if self._left else None


def test_a_run_in_a_thread_leaves_signals_alone():
    before, results = signal.getsignal(signal.SIGTERM), []
    seen = []
    thread = threading.Thread(
        target=lambda: results.extend(
            n for n in line(abs)(Few()) if seen.append(signal.getsignal(signal.SIGTERM)) is None
        )
    )
    thread.start()
    thread.join()
    assert results == [1, 2, 3]
    assert set(seen) == {before}


def test_a_signal_reaches_who_had_it_before_once_the_run_was_closed_by_another_thread():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        run = line(abs)(Few())
        assert next(run) == 1
        thread = threading.Thread(target=run.close)
        thread.start()
        thread.join()
        signal.raise_signal(signal.SIGTERM)
        assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
