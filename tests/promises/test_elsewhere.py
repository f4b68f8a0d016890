"""Promise: of what a live source has lost to others no result arrives, where it can be told which those are; and before it
loses any, what was delivered can be made safe."""

from __future__ import annotations

import json

import pytest
from table import Table

from taktline import batch, expand, keep, line
from taktline.abc import Live

HOWS = ["line", "pool", "queues"]


class Shared(Live):
    """Numbers up to `count`; others have got those of `gone` by the time that results come."""

    def __init__(self, count, gone=()):
        self._count, self._gone, self.told, self.taken = count, {*gone}, 0, 0

    def take(self, most, seconds):
        first, self.taken = self.taken, min(self._count, self.taken + most)
        return [*range(first, self.taken)] or None

    def elsewhere(self, first, records):
        return [index for index in range(first, first + records) if index in self._gone]

    def safe(self, records, skipped):
        assert records >= self.told
        self.told = records


ODD = range(1, 100, 2)
EVEN = [*range(0, 100, 2)]
LINES = {
    "a map": (line(abs), EVEN),
    "keep": (line(keep(lambda n: n % 3)), [n for n in EVEN if n % 3]),
    "expand": (line(expand(lambda n: [n, n])), [n for n in EVEN for _ in range(2)]),
    "a batch": (line(batch(list, size=7)), EVEN),
    "two segments": (line(abs, batch(list, size=7), keep(lambda n: n % 4)), [n for n in EVEN if n % 4]),
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", LINES)
def test_what_others_have_got_gives_no_result_and_all_is_told_to_be_safe(how, name):
    flow, expected = LINES[name]
    source, results = Shared(100, ODD), []
    report = flow.run(source, results.append, how=how, workers=2, batch_size=10)
    assert results == expected
    assert source.told == 100
    assert "50 records went to other consumers while they were under way" in " ".join(report.notes)


@pytest.mark.parametrize("how", HOWS)
def test_a_failure_of_what_others_have_got_is_theirs(how, tmp_path):
    def fails(n):
        if n % 10 in (4, 5):
            raise ValueError(n)
        return n

    source, results = Shared(100, ODD), []
    letters = tmp_path / "failed.jsonl"
    report = line(fails).run(source, results.append, how=how, workers=2, batch_size=10, dead_letters=letters)
    assert results == [n for n in EVEN if n % 10 != 4]
    assert [json.loads(row)["index"] for row in letters.read_text().splitlines()] == [*range(4, 100, 10)]
    assert report.failed == 10


def test_one_that_ends_the_run_ends_it_all_the_same():
    source, results = Shared(100, [*range(50, 100)]), []
    with pytest.raises(ZeroDivisionError):
        line(lambda n: 100 // (n - 70)).run(source, results.append, how="line", workers=2, batch_size=20)
    assert len(results) == 50


def test_where_it_cannot_be_told_which_result_is_of_which_record_all_arrive():
    source, results = Shared(100, ODD), []
    many = expand(lambda some: [n for n in some for _ in range(2)], form="list", size=10)
    line(many).run(source, results.append, how="line", workers=2, batch_size=10)
    assert results == [n for n in range(100) for _ in range(2)]


@pytest.mark.parametrize("how", ["loop", *HOWS, "auto"])
def test_what_is_delivered_can_be_made_safe_before_others_get_the_rest(how):
    sink, seen = Table(), []

    class Losing(Shared):
        def take(self, most, seconds):
            self.settle()
            seen.append((self.told, len(sink.saved), len(sink.rows)))
            return super().take(min(most, 10), seconds)

    source = Losing(200)
    line(abs).run(source, sink, how=how, workers=2)
    assert all(told == saved == written for told, saved, written in seen)
    assert source.told == 200
    assert source.settle is None
