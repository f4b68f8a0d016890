"""Who listens to a run hears all that happens in it, in order, and nothing where it is told to nobody."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from taktline import LineError, batch, expand, line, serial
from taktline._schedule import events
from taktline.abc import Observer


class Ears(Observer):
    def __init__(self):
        self.all = []
        self.times = []
        self.began = self.ended = None

    def begins(self, run):
        self.began = run

    def heard(self, at, event, actions):
        self.times.append(at)
        self.all += [event, *actions]

    def looked(self, at, run):
        self.times.append(at)

    def ends(self, report):
        assert self.ended is None
        self.ended = report

    def kinds(self):
        return [type(each).__name__ for each in self.all]


def of_an_expand(n):
    return range(n % 3)


@pytest.mark.parametrize("how", ["loop", "pool", "queues", "line", "auto"])
@pytest.mark.parametrize("steps", [(abs,), (abs, serial(str)), (expand(of_an_expand), abs), (batch(list),)])
def test_all_records_are_heard_of_in_every_lane(how, steps):
    ears = Ears()
    run = line(*steps)(range(200), how=how, workers=2, observer=[ears], progress=False)
    results = list(run)
    assert ears.began.records_in == 0
    assert ears.ended == run.report
    assert ears.ended.records_out == len(results)
    assert ears.times == sorted(ears.times)
    done = [each.work for each in ears.all if type(each).__name__ == "Done"]
    first = [work for work in done if work.steps[0][0] == run.report.steps[0].name]
    if "Split" not in ears.kinds():
        assert sum(work.records for work in first) == 200
    assert all(abs(sum(share for _, share in work.steps) - 1) < 1e-9 for work in done)
    if how in ("pool", "queues", "line"):
        assert ears.kinds()[0] == "Begin"
        assert sum(each.records for each in ears.all if type(each) is events.Read) == 200


def test_a_death_and_what_follows_are_heard(tmp_path):
    def dies_once(n):
        if n == 50 and not os.path.exists(tmp_path / "died"):
            open(tmp_path / "died", "w").close()
            os._exit(3)
        return n

    ears = Ears()
    assert list(line(dies_once)(range(100), how="line", workers=2, observer=ears)) == list(range(100))
    at = ears.kinds().index("Died")
    assert "Start" in ears.kinds()[at:]
    assert ears.all[at].cause.code == 3


def test_a_failed_run_ends_too_and_what_an_observer_raises_ends_the_run():
    ears = Ears()
    with pytest.raises(ZeroDivisionError):
        line(lambda n: 1 // n).run([1, 0], observer=ears)
    assert not ears.ended.complete

    class Raises(Observer):
        def heard(self, at, event, actions):
            raise KeyError("of an observer")

    for how in ("loop", "line"):
        with pytest.raises(KeyError, match="of an observer"):
            line(abs).run(range(9), how=how, observer=Raises())
    with pytest.raises(LineError, match="observer="):
        line(abs)([1], observer=print)


def test_the_page_lists_all_events_with_their_fields():
    page = (Path(__file__).parents[2] / "docs/extending.md").read_text()
    listed = {}
    for row in re.findall(r"^\| (?:`\w+`|) ?\|.*\|$", page[page.index("| event |") :], re.MULTILINE):
        cells = [re.findall(r"`(\w+)`", cell) for cell in row.strip("|").split("|")]
        listed |= {name[0]: fields for name, fields in zip(cells[::2], cells[1::2], strict=True) if name}
    known = {
        name: list(each._fields) for name, each in vars(events).items() if hasattr(each, "_fields") and name != "Work"
    }
    assert listed == known


def test_the_log_of_a_program_hears_of_runs_where_it_has_asked(caplog, tmp_path):
    line(abs).run(range(9))
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="taktline"):
        line(abs, name="of the log").run(range(9), how="line", workers=2)
    said = [each.getMessage() for each in caplog.records]
    assert said[0] == "of the log: begins, 9 records"
    assert said[-1].startswith("of the log: done, 9 in, 9 out, 0 failed, ")
    assert any(isinstance(each, logging.NullHandler) for each in logging.getLogger("taktline").handlers)


def test_the_log_tells_of_workers_that_are_replaced(caplog):
    with caplog.at_level(logging.INFO, logger="taktline"):
        line(abs).run(range(90), how="line", workers=1, batch_size=10, recycle=30)
    assert any("has done enough, and is replaced" in each.getMessage() for each in caplog.records)
