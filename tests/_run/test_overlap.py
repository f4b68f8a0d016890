"""How much two threads are tried with, and that what they did is counted."""

from __future__ import annotations

import time

import pytest

from taktline import line
from taktline._planner.choose import Sample
from taktline._run.overlap import records_for

CHEAP, DEAR = 1_000.0, 1e9  # nanoseconds of work a record


def sample(work: float, unpack_out: float) -> Sample:
    return Sample(8, 50, work, 1.0, 0, 500, 500, 500, unpack_out)


@pytest.mark.parametrize(
    ("work", "unpack_out", "records"),
    [(CHEAP, 100.0, 5_000), (CHEAP, 250_000.0, 4), (CHEAP, 5e6, 1), (DEAR, 100.0, 1), (CHEAP, 0.0, 5_000)],
)
def test_large_results_are_not_piled_up_to_try_threads(work, unpack_out, records):
    assert records_for(sample(work, unpack_out)) == records


@pytest.mark.parametrize("records", range(14, 40))
def test_what_two_threads_did_is_counted_wherever_the_records_end(records):
    flow = line(lambda n: time.sleep(0.004))
    run = flow(range(records), how="auto", workers=2)
    list(run)
    assert run.report.steps[0].records == records
