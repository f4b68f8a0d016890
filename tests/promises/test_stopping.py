"""Promise: a run that is told to stop delivers what is in flight, and can go on later; told twice, it stops now."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from model import Counted

from taktline import keep, line, step, write
from taktline._run import checkpointer

HOWS = ["loop", "pool", "queues", "line", "auto"]


@pytest.mark.parametrize("options", [{}, {"on_error": "skip"}, {"journal": "j"}], ids=str)
@pytest.mark.parametrize("how", HOWS)
def test_what_was_read_is_delivered_and_nothing_more(tmp_path, monkeypatch, how, options):
    monkeypatch.chdir(tmp_path)
    source, got = Counted(), []
    run = line(abs, keep(lambda n: True))(source, how=how, workers=2, window=200, **options)
    for result in run:
        got.append(result)
        if result == 100:
            run.stop()
            read = source.read
    assert got == list(range(source.read))
    assert source.read - read <= 200
    assert not run.report.complete


@pytest.mark.parametrize("how", ["loop", "auto"])
def test_a_loop_that_is_cheap_stops_too(how):
    run = line(abs)(itertools.count(), how=how, progress=False)
    timer = threading.Timer(0.3, run.stop)
    timer.start()
    for at, result in enumerate(run):  # noqa: B007
        pass
    assert result == at


def test_stopping_before_the_first_and_after_the_last_record():
    early = line(abs)(range(5))
    early.stop()
    assert list(early) == []
    assert not early.report.complete
    late = line(abs)(range(5), how="loop")
    assert list(late) == list(range(5))
    late.stop()
    assert late.report.complete


class Stopping:
    """A step in the caller's process that stops the newest run when a record comes by."""

    run: Any = None

    def __init__(self, number):
        self.number = number

    def __call__(self, n):
        if n == self.number:
            Stopping.run.stop()
        return n


def begun(flow, records, **options):
    Stopping.run = flow(records, workers=2, window=200, **options)
    return Stopping.run


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_file_of_a_stopped_run_is_not_made_or_waits_for_the_next(tmp_path, how):
    flow, out = line(step(Stopping(500), kind="inline"), abs), write(tmp_path / "out.jsonl")
    report = begun(flow, range(2000), how=how).drain(out)
    assert not report.complete
    assert os.listdir(tmp_path) == []

    journal = tmp_path / "j"
    report = begun(flow, range(2000), how=how, journal=journal).drain(out)
    assert not report.complete
    assert "run it again with journal=" in str(report)
    assert sorted(os.listdir(tmp_path)) == [".out.jsonl.part", ".out.jsonl.part.journal", "j"]
    assert (tmp_path / ".out.jsonl.part").read_text() == "".join(f"{n}\n" for n in range(report.records_out))

    whole = begun(flow, range(2000), how=how, journal=journal).drain(out)
    assert whole.complete
    assert whole.resumed_at == report.records_in
    assert (tmp_path / "out.jsonl").read_text() == "".join(f"{n}\n" for n in range(2000))
    assert sorted(os.listdir(tmp_path)) == ["j", "out.jsonl"]


@pytest.fixture
def ctrl_c():
    """Where these tests are started in the background, the shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", ["loop", "line"])
def test_ctrl_c_in_the_library_keeps_what_the_journal_needs(tmp_path, how):
    def interrupted(n):
        if n == 300 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return n

    flow = line(step(interrupted, kind="inline", name="once"), abs)
    options = {"how": how, "workers": 2, "window": 100, "journal": tmp_path / "j"}
    with pytest.raises(KeyboardInterrupt):
        flow.run(range(1000), write(tmp_path / "out.jsonl"), **options)
    assert sorted(os.listdir(tmp_path)) == [".out.jsonl.part", ".out.jsonl.part.journal", "j", "once"]
    flow.run(range(1000), write(tmp_path / "out.jsonl"), **options)
    assert (tmp_path / "out.jsonl").read_text() == "".join(f"{n}\n" for n in range(1000))


RAN = []


def interrupted_at_300(n):
    RAN.append(n)
    if n == 300 and RAN.count(300) == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return n


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("into", ["a file", "the caller's loop"])
@pytest.mark.parametrize("every", [0, 1000])
def test_after_ctrl_c_in_a_step_of_the_loop_nothing_is_missing_and_nothing_runs_again(
    tmp_path, monkeypatch, into, every
):
    monkeypatch.setattr(checkpointer, "EVERY", every)
    RAN.clear()
    got = []

    def run():
        flow, options = line(interrupted_at_300), {"how": "loop", "journal": tmp_path / "j"}
        if into == "a file":
            flow.run(range(1000), write(tmp_path / "out.jsonl"), **options)
            got.extend(map(int, (tmp_path / "out.jsonl").read_text().split()))
        else:
            got.extend(flow(range(1000), **options))

    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert got == list(range(1000))
    assert [*range(301), *range(300, 1000)] == RAN


# --- the command ---

STEPS = """
import os, time
def wait_at_40(n):
    if n == 40 and not os.path.exists("go"):
        print("reached", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
    return n
def stuck(n):
    if n == 40 and not os.path.exists("go"):
        print("stuck", flush=True)
        time.sleep(100)
    return n
def told(n):
    print("got", n, flush=True)
    return n
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(3000)))
    return tmp_path


def start(folder, *arguments):
    command = [sys.executable, "-u", "-m", "taktline.cli.commands", "run", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def line_with(stream, what):
    """Read until a line says so."""
    for text in stream:
        if what in text:
            return text
    raise AssertionError(f"{what!r} never came")


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_one_signal_finishes_what_is_in_flight(folder, number, code, name, how):
    target = ["steps.py:wait_at_40", "--in", "in.jsonl", "--out", "out.jsonl", "--how", how, "--workers", "2"]
    command = [*target, "--window", "64", "--journal", "run.journal"]
    process = start(folder, *command)
    line_with(process.stdout, "reached")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it: the workers get it too
    else:
        process.send_signal(number)
    line_with(process.stderr, f"{name}, stopping: ")
    (folder / "go").touch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert f"stopped by {name}; the same command goes on from here" in errors
    assert "Traceback" not in errors
    part = (folder / ".out.jsonl.part").read_text()
    assert part == "".join(f"{n}\n" for n in range(part.count("\n")))
    assert 41 <= part.count("\n") <= 40 + 64
    again = start(folder, *command, "--json")
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert json.loads(errors)["resumed_at"] == part.count("\n")
    assert (folder / "out.jsonl").read_text() == (folder / "in.jsonl").read_text()


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_second_signal_stops_a_stuck_step_at_once(folder, journal, how):
    target = ["steps.py:stuck", "--in", "in.jsonl", "--out", "out.jsonl", "--how", how, "--workers", "2"]
    command = [*target, *(["--journal", "run.journal"] if journal else [])]
    process = start(folder, *command)
    line_with(process.stdout, "stuck")
    process.send_signal(signal.SIGINT)
    line_with(process.stderr, "once more: at once")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert not (folder / "out.jsonl").exists()
    (folder / "go").touch()
    if not journal:
        assert "no output file was made\n  next    with --journal FILE" in errors
        assert sorted(os.listdir(folder)) == ["go", "in.jsonl", "steps.py"]
        return
    again = start(folder, *command)
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert (folder / "out.jsonl").read_text() == (folder / "in.jsonl").read_text()


def test_a_second_signal_stops_a_source_that_gives_nothing(folder):
    command = ["steps.py:told", "--in", "-", "--out", "out.jsonl", "--how", "loop", "--journal", "run.journal"]
    process = start(folder, *command)
    process.stdin.write("1\n2\n")
    process.stdin.flush()
    line_with(process.stdout, "got 2")
    process.send_signal(signal.SIGINT)
    line_with(process.stderr, "once more: at once")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdin.close()
    left = [".out.jsonl.part", ".out.jsonl.part.journal", "in.jsonl", "run.journal", "steps.py"]
    assert sorted(os.listdir(folder)) == left
