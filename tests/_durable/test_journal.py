"""The journal: what was noted is there again, damage is found, and a new one is whole or not there."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline._durable import fingerprint, journal
from taktline._durable.entries import DONE, JOURNAL_PAGE, Checkpoint, Entry
from taktline._durable.journal import SIZE, SLOT, Journal
from taktline.errors import ResumeError, SinkError

PRINTS = {"the source": ["list", 3], "step 'parse'": "abc"}


def written(path, entries, *, counted=0):
    made = Journal(str(path), PRINTS)
    for entry in entries:
        made.write(entry)
    made.count(counted)
    made.close()


ENTRIES = [Entry(Checkpoint(records=n, results=2 * n, delivered=2 * n), {"bytes": 10 * n}) for n in range(1, 6)]


def test_what_was_noted_last_is_there_again(tmp_path):
    for count in range(6):
        written(tmp_path / f"j{count}", ENTRIES[:count], counted=11)
        again = Journal(str(tmp_path / f"j{count}"), PRINTS)
        assert again.entry == (ENTRIES[count - 1] if count else Entry())
        assert again.delivered == 11
        assert again.resumed
        again.close()


def test_a_state_stays_whole_until_an_entry_tells_of_the_next_one(tmp_path):
    states = [bytes([n]) * size for n, size in enumerate([10, 5_000, 10, 20_000, 0, 300, 1 << 20, 7])]
    made, before = Journal(str(tmp_path / "j"), PRINTS), None
    for n, state in enumerate(states):
        where = made.keep(state)
        assert made.keep(state) == where
        if before is not None:
            assert made.kept(before) == states[n - 1]
        made.kept(where)
        made.write(Entry(Checkpoint(records=n, state=where)))
        before = where
    made.close()
    assert os.stat(tmp_path / "j").st_size < SIZE + (2 << 20)  # one beside the other, not one behind the other
    again = Journal(str(tmp_path / "j"), PRINTS)
    assert again.kept(again.entry.mark.state) == states[-1]
    os.truncate(tmp_path / "j", SIZE)
    with pytest.raises(ResumeError, match="state of its serial steps"):
        again.kept(again.entry.mark.state)
    again.close()


def test_its_size_never_changes(tmp_path):
    written(tmp_path / "j", ENTRIES * 20)
    assert os.stat(tmp_path / "j").st_size == SIZE
    assert os.stat(tmp_path / "j").st_blocks * 512 >= SIZE  # allocated, not only promised
    assert os.listdir(tmp_path) == ["j"]


@pytest.fixture(scope="module")
def whole_ones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for count in range(6):
        written(folder / str(count), ENTRIES[:count], counted=2 * count)
    return [(folder / str(count)).read_bytes() for count in range(6)]


@settings(max_examples=120, deadline=None)
@given(data=st.data(), count=st.integers(0, 5))
def test_damage_costs_at_most_the_last_entry_or_is_told(tmp_path_factory, whole_ones, data, count):
    path = tmp_path_factory.getbasetemp() / "damaged.journal"
    whole = bytearray(whole_ones[count])
    places = st.one_of(
        st.integers(0, 400),
        st.integers(JOURNAL_PAGE, JOURNAL_PAGE + 8),
        st.integers(2 * JOURNAL_PAGE, 2 * JOURNAL_PAGE + 300),
        st.integers(2 * JOURNAL_PAGE + SLOT, 2 * JOURNAL_PAGE + SLOT + 300),
        st.integers(0, SIZE - 1),
    )
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        junk = data.draw(st.one_of(st.binary(min_size=1, max_size=20), st.just(bytes(600))))
        whole[at : at + len(junk)] = junk
    path.write_bytes(whole[:SIZE])
    try:
        again = Journal(str(path), PRINTS)
    except ResumeError:
        return
    assert again.entry in [Entry(), *ENTRIES][max(0, count - 1) : count + 1]
    with suppress(ResumeError):
        assert again.delivered == 2 * count
    again.close()


@pytest.mark.parametrize("at", [0, JOURNAL_PAGE])
def test_damage_is_told_with_what_to_do(tmp_path, whole_ones, at):
    path = tmp_path / "j"
    path.write_bytes(whole_ones[3][:at] + b"\xff" * 8 + whole_ones[3][at + 8 :])
    with pytest.raises(ResumeError, match="delete the journal to run from the start"):
        print(Journal(str(path), PRINTS).delivered)


def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "orders.jsonl").write_text("precious\n")
    with pytest.raises(ResumeError, match="is no journal"):
        Journal(str(tmp_path / "orders.jsonl"), PRINTS)
    assert (tmp_path / "orders.jsonl").read_text() == "precious\n"


def test_other_prints_are_refused_until_it_is_done(tmp_path):
    written(tmp_path / "j", ENTRIES)
    with pytest.raises(ResumeError, match="differs in step 'parse' and option x"):
        Journal(str(tmp_path / "j"), {**PRINTS, "step 'parse'": "abd", "option x": 1})
    written(tmp_path / "j", [Entry(ENTRIES[4].mark, None, DONE)])
    fresh = Journal(str(tmp_path / "j"), {**PRINTS, "option x": 1})
    assert not fresh.resumed
    assert fresh.entry == Entry()
    fresh.close()


def test_a_full_disk_is_met_before_anything_runs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SinkError, match="cannot be used: No space left on device"):
        Journal(str(tmp_path / "j"), PRINTS)
    assert os.listdir(tmp_path) == []


def test_a_position_too_large_is_told(tmp_path):
    made = Journal(str(tmp_path / "j"), PRINTS)
    with pytest.raises(SinkError, match="position is too large"):
        made.write(Entry(Checkpoint(), "x" * SLOT))
    made.close()


@given(st.integers(0, (1 << 40) - 1), st.integers(0, 63))
def test_a_bit_that_flips_in_the_count_is_found(count, bit):
    word = journal._checked(count) ^ 1 << bit
    assert word != journal._checked(word & (1 << 40) - 1)


# --- fingerprints ---

offset = 3


def shift(n):
    return n + offset


def calls_shift(n):
    return shift(n)


@pytest.mark.process
def test_code_has_the_same_fingerprint_in_another_process(tmp_path):
    import subprocess
    import sys

    (tmp_path / "made.py").write_text(
        "import functools\n"
        "class Model:\n    def __init__(self, k): self.k = k\n    def __call__(self, n): return n in {'a', 'b', self.k}\n"
        "def helper(n): return n\n"
        "def work(n, m=2):\n    return helper(n) in {'x', 'y', 'z'} or [q for q in (1, 2)]\n"
        "things = [work, Model, Model('c'), functools.partial(work, m=3), Model('c').__call__, len, str.upper]\n"
    )
    code = "from made import things; from taktline._durable.fingerprint import of_code; print([of_code(t) for t in things])"
    seen = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "PYTHONHASHSEED": seed}
        seen.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(seen) == 1
    assert len(set(eval(seen.pop()))) == 7


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda n: n + 1", "lambda n: n + 2"),
        ("lambda n: n.a", "lambda n: n.b"),
        ("lambda n, m=1: n", "lambda n, m=2: n"),
        ("(lambda k: lambda n: n + k)(1)", "(lambda k: lambda n: n + k)(2)"),
        ("lambda n: [x + 1 for x in n]", "lambda n: [x + 2 for x in n]"),
        ("__import__('functools').partial(pow, 1)", "__import__('functools').partial(pow, 2)"),
        ("int", "float"),
        ("[].append", "len"),
    ],
)
def test_a_change_in_the_code_changes_the_fingerprint(one, other):
    assert fingerprint.of_code(eval(one)) == fingerprint.of_code(eval(one))
    assert fingerprint.of_code(eval(one)) != fingerprint.of_code(eval(other))


def test_a_function_that_is_called_counts_too():
    before = fingerprint.of_code(calls_shift)
    kept, shift.__code__ = shift.__code__, (lambda n: n - offset).__code__
    try:
        assert fingerprint.of_code(calls_shift) != before
    finally:
        shift.__code__ = kept
    assert fingerprint.of_code(calls_shift) == before
