"""How much memory processes hold, read from a made /proc: the same on every system, and nothing where there is none."""

from __future__ import annotations

import mmap
import os

import pytest

from taktline._observe import memory


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """Writes a file of a process there."""
    monkeypatch.setattr(memory, "PROC", str(tmp_path))

    def writes(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return writes


def test_what_processes_hold_together_is_the_sum_of_their_shares(proc):
    proc("7/smaps_rollup", "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:  300 kB\nPss_Dirty:  20 kB\n")
    proc("8/smaps_rollup", "Rss:  9000 kB\nPss:  41 kB\n")
    proc("9/smaps_rollup", "")  # of a process that has no memory of its own, as one of the kernel
    assert memory.held([7, 8, 9, 10]) == (300 + 41) * 1024  # 10 is gone
    assert memory.held([]) == 0


def test_pages_of_a_process_are_counted_in_full(proc):
    proc("7/statm", "5000 1200 300 1 0 900 0\n")
    assert memory.held_by(7) == 1200 * mmap.PAGESIZE
    assert memory.held_by(8) == 0


def test_all_that_a_process_has_started_is_found_whichever_thread_did_it(proc):
    proc("7/task/7/children", "8 9 ")
    proc("7/task/70/children", "10 ")
    proc("9/task/9/children", "11 ")
    proc("11/task/11/children", "")
    assert sorted(memory.tree(7)) == [7, 8, 9, 10, 11]  # of 8 and 10 nothing can be told: they have ended
    assert memory.tree(12) == [12]


def test_where_the_system_does_not_tell_what_this_process_holds_it_is_the_most_that_it_has_held(proc):
    assert memory.held_here() == memory.peak_of_this_process() > 1 << 20
    proc(f"{os.getpid()}/statm", "5000 3 300 1 0 900 0\n")
    assert memory.held_here() == 3 * mmap.PAGESIZE


def test_the_peak_is_bytes_whatever_unit_the_system_counts_in(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    in_kilobytes = memory.peak_of_this_process()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    in_bytes = memory.peak_of_this_process()
    assert in_kilobytes >= 1024 * in_bytes > 0
    monkeypatch.setattr(memory, "resource", None)
    assert memory.peak_of_this_process() == 0
