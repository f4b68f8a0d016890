"""Who had a core and who had none, read from a made /proc: the same on every system, and nothing where there is none."""

from __future__ import annotations

import os
import threading

import pytest

from taktline._observe import cores


@pytest.fixture
def proc(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "PROC", str(tmp_path))
    return tmp_path


def test_time_in_the_queue_for_a_core_is_added_up_over_processes(proc):
    for pid, text in ((7, "900000000 1500000000 12\n"), (8, "1 500000000 3\n"), (9, "")):
        (proc / str(pid)).mkdir()
        (proc / str(pid) / "schedstat").write_text(text)
    assert cores.queued([7, 8, 9, 10]) == 2.0  # 9 has nothing to tell, 10 is gone
    assert cores.queued([]) == 0


def test_all_cores_are_busy_with_what_is_neither_idle_nor_waiting_for_a_disk(proc, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.get, raising=False)
    (proc / "stat").write_text("cpu  100 20 30 9999 8888 4 5 6 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert cores.busy() == pytest.approx((100 + 20 + 30 + 4 + 5 + 6) / 100)


@pytest.mark.parametrize("text", [None, "cpu  many of them\n", ""])
def test_a_system_that_does_not_tell_is_not_taken_for_one_that_is_idle(text, proc):
    if text is not None:
        (proc / "stat").write_text(text)
    assert cores.busy() is None


def test_without_the_posix_calls_nothing_is_known(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert cores.busy() is None
    monkeypatch.setattr(cores, "resource", None)
    assert cores.pauses() == 0


def test_who_waits_for_another_thread_gives_its_core_away():
    pytest.importorskip("resource")
    (asked, ask), (answered, answer) = os.pipe(), os.pipe()

    def echoes():
        while some := os.read(asked, 1):
            os.write(answer, some)

    before, thread = cores.pauses(), threading.Thread(target=echoes)
    thread.start()
    for _ in range(100):
        os.write(ask, b"x")
        os.read(answered, 1)
    paused = cores.pauses() - before
    os.close(ask)
    thread.join()
    for end in (asked, answered, answer):
        os.close(end)
    assert paused > 0


def test_what_others_had_is_what_was_busy_beside_this_program(proc, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.get, raising=False)
    monkeypatch.setattr(cores, "CORES", 2)
    (proc / "stat").write_text("cpu  1000 0 0 0 0 0 0 0 0 0\n")
    assert cores.had_by_others(6.0, cpu=1.0, seconds=2.0) == pytest.approx((10 - 6 - 1) / 4)
    assert cores.had_by_others(0.0, cpu=0.0, seconds=2.0) == 1.0
    assert cores.had_by_others(None, cpu=1.0, seconds=2.0) == 0.0
    others = cores.Others()
    others.add(0.1, 0.9)
    assert others.share == 0.0  # too short to tell
    others.add(0.3, None)
    assert others.share == pytest.approx(0.09 / 0.4)
    with others.beside():
        pass
    assert 0.0 < others.share <= 0.09 / 0.4
