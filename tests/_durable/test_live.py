"""A live source is told that results are safe only when they are, in rising order, and always told the end."""

from __future__ import annotations

import json
import os

import pytest
from table import Table

from taktline import OutputLost, ResumeError, SinkError, line, write
from taktline.abc import Live, Unread


class Messages(Live):
    """Some messages, with a note of what was told."""

    def __init__(self, count, seen=lambda: None):
        self._left = list(range(count))
        self.told = []
        self.skipped = []
        self.closed = 0
        self._seen = seen

    def take(self, most, seconds):
        taken, self._left = self._left[:most], self._left[most:]
        return taken or None

    def safe(self, records, skipped):
        self.told.append((records, self._seen()))
        self.skipped += skipped

    def close(self):
        self.closed += 1


def odd_fails(n):
    if n % 2:
        raise ValueError(n)
    return n


HOWS = ["loop", "line", "auto"]


@pytest.mark.parametrize("how", HOWS)
def test_a_callable_has_taken_them(how):
    got = []
    source = Messages(100, lambda: len(got))
    line(abs).run(source, got.append, how=how, workers=2)
    assert source.told[-1] == (100, 100)
    assert all(records <= taken for records, taken in source.told)
    assert [records for records, _ in source.told] == sorted(records for records, _ in source.told)
    assert source.closed == 1


@pytest.mark.parametrize("how", HOWS)
def test_rows_of_a_table_are_saved_first(how):
    table = Table()
    source = Messages(100, lambda: len(table.saved))
    line(abs).run(source, table, how=how, workers=2)
    assert source.told[-1] == (100, 100)
    assert all(records <= saved for records, saved in source.told)
    assert table.ended == "commit"


def test_a_file_is_safe_when_it_is_whole(tmp_path):
    source = Messages(100, lambda: os.listdir(tmp_path))
    line(abs).run(source, write(tmp_path / "out.jsonl"), how="loop")
    assert source.told == [(100, ["out.jsonl"])]
    assert source.closed == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_out_of_order_only_what_is_behind_all_others_is_safe(ordered):
    got = []
    source = Messages(200, lambda: sorted(got))
    line(abs).run(source, got.append, how="line", workers=2, batch_size=3, ordered=ordered)
    for records, taken in source.told:
        assert set(range(records)) <= set(taken)
    assert source.told[-1][0] == 200


def test_what_failed_without_a_dead_letter_is_told(tmp_path):
    source = Messages(10)
    line(odd_fails).run(source, how="loop", on_error="skip")
    assert source.skipped == [1, 3, 5, 7, 9]
    kept = Messages(10)
    line(odd_fails).run(kept, how="loop", dead_letters=tmp_path / "f.jsonl")
    assert kept.skipped == []
    assert kept.told[-1][0] == 10


def test_a_sink_that_fails_leaves_the_rest_untold():
    def sink(n):
        if n == 50:
            raise OSError("no")

    source = Messages(100)
    with pytest.raises(SinkError):
        line(abs).run(source, sink, how="loop")
    assert source.told[-1][0] == 50
    assert source.closed == 1


# --- a place that a journal keeps ---


class Queue(Messages):
    """Knows its messages again: they are numbers, and all below its place were delivered."""

    def __init__(self, left, dies_before=None):
        super().__init__(0)
        self._left = list(left)
        self._given = []
        self._dies_before = dies_before
        self.resumed = None

    def take(self, most, seconds):
        taken = super().take(most, seconds)
        self._given += taken or ()
        return taken

    def place(self, records):
        return self._given[records - 1] + 1 if records else self.resumed

    def resume(self, place):
        self.resumed = place
        self._left = [n for n in self._left if n >= place]

    def safe(self, records, skipped):
        if self._dies_before is not None and records >= self._dies_before:
            raise KeyboardInterrupt  # all is delivered and noted, and nobody is told
        super().safe(records, skipped)


def test_a_journal_keeps_the_place_of_a_source_that_tells_it(tmp_path):
    journal, table = tmp_path / "journal", Table()
    with pytest.raises(KeyboardInterrupt):
        line(abs).run(Queue(range(10), dies_before=10), table, journal=journal, how="loop")
    assert table.saved == [*range(10)]
    again = Queue(range(15))  # of which the first ten were never acknowledged
    line(abs).run(again, table, journal=journal, how="loop")
    assert again.resumed == 10
    assert table.saved == [*range(15)]
    assert again.told[-1][0] == 5


def test_a_table_of_messages_is_never_done(tmp_path):
    journal, table = tmp_path / "journal", Table()
    for first in (0, 10, 20):
        line(abs).run(Queue(range(first, first + 10)), table, journal=journal, how="loop")
    assert table.saved == [*range(30)]


# --- what was acknowledged does not come again ---


def refuses_three(n):
    if n == 3:
        raise ValueError("three")
    return n


def broken_off(tmp_path, **options):
    """A run into a file that fails at its fourth message: three are in the half-written file alone."""
    source = Queue(range(5))
    with pytest.raises(ValueError, match="three"):
        line(refuses_three).run(
            source, write(tmp_path / "out.jsonl"), journal=tmp_path / "journal", how="loop", **options
        )
    assert source.told[-1][0] == 3


@pytest.mark.parametrize("on_lost", ["refuse", "restart"])
@pytest.mark.parametrize("step", [refuses_three, abs])
def test_a_lost_file_of_acknowledged_messages_is_told_whatever_is_asked(tmp_path, on_lost, step):
    broken_off(tmp_path)
    (tmp_path / ".out.jsonl.part").unlink()
    sink, journal = write(tmp_path / "out.jsonl"), tmp_path / "journal"
    with pytest.raises(OutputLost, match=r"3 records were in it alone.*does not give them again") as told:
        line(step).run(Queue([3, 4]), sink, journal=journal, how="loop", if_changed="continue", on_lost=on_lost)
    assert told.value.records == 3
    journal.unlink()  # as the message says
    line(abs).run(Queue([3, 4]), write(tmp_path / "out.jsonl"), journal=journal, how="loop")
    assert (tmp_path / "out.jsonl").read_text() == "3\n4\n"


def test_results_of_acknowledged_messages_are_not_given_up_for_another_step(tmp_path):
    broken_off(tmp_path)
    given = {"journal": tmp_path / "journal", "how": "loop"}
    with pytest.raises(ResumeError, match="3 records are in its half-written output alone"):
        line(abs).run(Queue([3, 4]), write(tmp_path / "out.jsonl"), if_changed="restart", **given)
    line(abs).run(Queue([3, 4]), write(tmp_path / "out.jsonl"), if_changed="continue", **given)
    assert (tmp_path / "out.jsonl").read_text() == "0\n1\n2\n3\n4\n"


def test_dead_letters_of_acknowledged_messages_stay_where_a_run_begins_anew(tmp_path):
    letters, table = tmp_path / "failed.jsonl", Table()
    table.keyed = True
    given = {"journal": tmp_path / "journal", "dead_letters": letters, "how": "loop"}
    with pytest.raises(KeyboardInterrupt):
        line(refuses_three).run(Queue(range(5), dies_before=5), table, **given)
    line(abs).run(Queue([5, 6]), table, if_changed="restart", **given)
    assert [json.loads(text)["message"] for text in letters.read_text().splitlines()] == ["three"]


# --- messages that are not to be given to steps ---


class WithUnread(Messages):
    def take(self, most, seconds):
        taken = super().take(most, seconds)
        return taken and [Unread(f"number {n}", ValueError("kills")) if n == 7 else n for n in taken]


@pytest.mark.parametrize("how", HOWS)
def test_an_unread_message_is_a_failed_record(how, tmp_path):
    source, got = WithUnread(20), []
    report = line(abs).run(source, got.append, how=how, workers=2, dead_letters=tmp_path / "failed.jsonl")
    assert got == [n for n in range(20) if n != 7]
    assert report.failed == 1
    (letter,) = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert (letter["step"], letter["record"]) == ("(reading)", "number 7")
    assert source.told[-1][0] == 20


@pytest.mark.parametrize("how", HOWS)
def test_an_unread_message_ends_a_run_that_does_not_go_on(how):
    source, got = WithUnread(20), []
    with pytest.raises(ValueError, match="kills"):
        line(abs).run(source, got.append, how=how, workers=2)
    assert got == [*range(7)]
    assert source.told[-1][0] == 7
