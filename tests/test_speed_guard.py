"""What the hub does for a batch is counted, not timed: so this holds on any machine, however busy it is.

When a change makes a count rise on purpose, the bounds here are the place to say so.
"""

from __future__ import annotations

import sys
from collections import Counter

from taktline import line
from taktline._planner import whatif
from taktline._planner.costs import Costs, Move, StepCost
from taktline._recipe import plan as plans
from taktline._recipe.steps import as_step

BATCHES = 400
CALLS = 215  # of Python and C functions a batch, in the caller's process: 206 were counted when this was written
SYSTEM = {
    "send",
    "sendmsg",
    "sendall",
    "recv",
    "recv_into",
    "recvmsg",
    "poll",
    "select",
    "read",
    "write",
    "mmap",
    "ftruncate",
}
SYSTEM_CALLS = 4  # a batch: 1.3 were counted, since several batches cross in one


def counted(records: int, batch_size: int) -> Counter[str]:
    """Calls of each function while all batches but the first go through two workers."""
    calls: Counter[str] = Counter()

    def note(frame, event, argument):
        if event == "call":
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            calls[argument.__name__] += 1

    run = line(abs)(range(records), how="line", workers=2, batch_size=batch_size, progress=False, start="fork")
    results = iter(run)
    next(results)
    sys.setprofile(note)
    try:
        for _ in results:
            pass
    finally:
        sys.setprofile(None)
    return calls


def test_a_batch_takes_a_bounded_number_of_calls_in_the_hub():
    # Looks that found nothing depend on the workers' pace; they are bounded by the next test. The fewest of some runs count.
    calls = min((counted(BATCHES * 100, 100) for _ in range(6)), key=Counter.total)
    assert calls.total() / BATCHES < CALLS, calls.most_common(15)


def test_a_batch_takes_a_few_system_calls():
    calls = counted(BATCHES * 100, 100)
    assert sum(calls[name] for name in SYSTEM) / BATCHES < SYSTEM_CALLS, {name: calls[name] for name in SYSTEM}


def test_records_cost_the_hub_no_call_of_their_own():
    """Ten times the records in as many batches: the same calls, but for pauses of the workers."""
    few, many = counted(BATCHES * 20, 20).total(), counted(BATCHES * 200, 200).total()
    assert many < few + BATCHES * 100


def test_a_prediction_simulates_a_few_thousand_batches_however_many_records_there_are(monkeypatch):
    steps = 0
    advance = whatif._Cores.advance

    def counting(self):
        nonlocal steps
        steps += 1
        advance(self)

    monkeypatch.setattr(whatif._Cores, "advance", counting)
    costs = Costs((1,) * 200, 50, (StepCost("abs", (20_000.0,) * 200),), (Move(500, 500, 50),) * 2, 20_050)
    whatif.predict(costs, plans.pool([as_step(abs)], 64), records=100_000_000, cores=64)
    assert steps < 60_000
