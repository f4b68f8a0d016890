"""What a run in the caller's process has at once."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from taktline import batch, line
from taktline._run import loop

SIZE = 10


class Clock:
    """Time that passes in the steps alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 2), (0.001, 1)])
def test_results_of_full_calls_are_given_before_the_next_call_where_it_is_no_dearer(monkeypatch, seconds, calls):
    clock, made, most = Clock(), 0, 0
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(loop, name, clock)

    def doubled(records):
        nonlocal made
        made += 1
        clock.now += seconds
        return [2 * n for n in records]

    source = list(range(50 * SIZE))
    with line(batch(doubled, SIZE))(source, how="auto", workers=1) as run:
        for n, result in enumerate(run):
            assert result == 2 * n
            most = max(most, made - n // SIZE)
    assert most >= calls if calls > 1 else most == 1


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}, {"on_error": "keep"}], ids=str)
def test_where_nothing_is_to_be_decided_records_are_not_measured_one_by_one(options):
    calls: Counter[str] = Counter()

    def note(frame, event, argument):
        if event == "c_call":
            calls[argument.__name__] += 1

    records = 2_000
    with line(lambda n: n + 1)(range(records), how="loop", **options) as run:
        sys.setprofile(note)
        try:
            results = list(run)
        finally:
            sys.setprofile(None)
    assert results == list(range(1, records + 1))
    assert calls["process_time"] + calls["open"] < records / 4, calls.most_common(10)
