"""Promise: while a source blocks, what came of its earlier records is out, once it is known to block."""

from __future__ import annotations

import threading

import pytest

from taktline import line
from taktline._run import patience

PATIENCE = 60.0  # seconds: by then a result was held back


def records(delivered, bursts, known):
    """Bursts of records; the source goes on only when all results so far are out. `known`: it blocks a while first."""
    n = 0
    if known:
        threading.Event().wait(5 * patience.BLOCKED)
    for burst in bursts:
        for _ in range(burst):
            yield n
            n += 1
        assert delivered(n), f"the results of {n} records are held back"


class Out:
    """Counts what is out."""

    def __init__(self):
        self._count = 0
        self._changed = threading.Condition()

    def one(self):
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count):
        with self._changed:
            # The last result is taken when the next one is asked for: then the consumer is in the run again.
            return self._changed.wait_for(lambda: self._count >= count, PATIENCE)


@pytest.mark.parametrize("how", ["loop", "auto"])
def test_in_the_callers_process_nothing_is_ever_held_back(how):
    out = Out()
    for _ in line(abs)(records(out.wait_for, [1, 3, 20, 1, 1], known=False), how=how):
        out.one()


@pytest.mark.parametrize("how", ["line", "pool", "queues"])
@pytest.mark.parametrize("steps", [(abs,), (abs, str)])
def test_workers_results_are_out_before_a_source_that_blocks_is_asked_again(how, steps, monkeypatch):
    monkeypatch.setattr(patience, "SHARE", 1e6)  # however slow this machine is
    out = Out()
    for _ in line(*steps)(records(out.wait_for, [1] * 20, known=True), how=how, workers=2):
        out.one()


def test_a_source_that_computes_is_read_ahead(monkeypatch):
    read = []

    def computing():
        for n in range(200):
            sum(range(20_000))
            read.append(n)
            yield n

    monkeypatch.setattr(patience, "SHARE", 0.0)
    ahead = [len(read) - 1 - n for n in line(abs)(computing(), how="line", workers=2, batch_size=1)]
    assert max(ahead) > 1
