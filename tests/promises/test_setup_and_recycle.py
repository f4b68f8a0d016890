"""Promise: `setup=` is called once in each process before its first record; `recycle=` replaces workers and loses nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from taktline import LineError, WorkerDied, line, per_worker, serial, step

WAYS = [("loop", "launch"), ("auto", "launch"), ("line", "launch"), ("line", "fork"), ("pool", "launch")]
ready: list[int] = []


def set_up():
    ready.append(os.getpid())


def seen(n):
    return n, len(ready), ready[-1] == os.getpid()


async def seen_async(n):
    return seen(n)


@pytest.fixture(autouse=True)
def nothing_ready():
    yield
    ready.clear()


@pytest.mark.parametrize(("how", "start"), WAYS)
@pytest.mark.parametrize("what", [seen, step(seen, tasks=3), seen_async])
def test_setup_is_called_once_in_each_process_before_its_first_record(how, start, what):
    assert list(line(what)(range(20), how=how, start=start, workers=2, setup=set_up)) == [
        (n, 1, True) for n in range(20)
    ]


def test_setup_is_called_in_the_callers_process_where_records_come_there_and_not_else():
    list(line(seen)(range(5), how="line", workers=1, start="launch", setup=set_up))
    assert not ready
    list(line(seen, serial(lambda one: one))(range(5), how="line", workers=1, start="launch", setup=set_up))
    assert ready == [os.getpid()]


def test_what_setup_makes_in_a_script_is_there_for_its_steps_and_raises_no_alarm(tmp_path):
    (tmp_path / "script.py").write_text(
        "import threading, warnings, helping\nfrom taktline import line\nwarnings.simplefilter('error', RuntimeWarning)\n"
        "conn = None\ndef open_it():\n    global conn\n    conn = threading.Lock()\n    helping.conn = conn\n"
        "def use(n):\n    with conn: return n, helping.conn is conn\n"
        "for how in ('loop', 'line'):\n"
        "    print(list(line(use)([1], how=how, workers=1, start='launch', setup=open_it)))\n"
        "    conn = None\n"
    )
    (tmp_path / "helping.py").write_text("conn = None\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[(1, True)]\n" * 2, done.stderr


@pytest.mark.parametrize(("how", "start"), WAYS)
def test_what_setup_raises_reaches_the_caller_as_itself(how, start):
    def fails():
        raise KeyError("no connection")

    with pytest.raises(KeyError, match="no connection") as caught:
        list(line(seen)(range(5), how=how, start=start, workers=1, setup=fails))
    assert any("setup=" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"setup": 3}, "function without arguments"),
        ({"recycle": 0}, "whole number of at least 1"),
        ({"recycle": True}, "whole number of at least 1"),
        ({"recycle": "50%"}, "1GB"),
        ({"recycle": "many"}, "1GB"),
        ({"recycle": 10, "how": "loop"}, 'how="loop" has none'),
    ],
)
def test_wrong_use_is_refused(options, says):
    with pytest.raises(LineError, match=says):
        line(abs)(range(3), **options)


class Counting:
    """Says in which process it is, and how many records it has seen there; leaks, and closes when its worker ends."""

    def __init__(self, closed):
        self.closed, self.seen, self.held = closed, 0, []

    def __call__(self, n):
        self.seen += 1
        self.held.append(bytearray(2_000_000))
        return n, os.getpid(), self.seen

    def close(self):
        with open(self.closed, "a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_a_worker_is_replaced_after_so_many_records_and_nothing_is_lost_or_run_twice(tmp_path, start):
    closed = tmp_path / "closed"
    run = line(per_worker(Counting, closed))(range(60), how="line", workers=2, batch_size=2, recycle=6, start=start)
    results = list(run)
    assert [n for n, _, _ in results] == list(range(60))
    processes = {pid for _, pid, _ in results}
    assert len(processes) >= 9
    assert max(count for _, _, count in results) <= 6
    assert sum(1 for _, _, count in results if count == 1) == len(processes)
    assert processes <= {int(each) for each in closed.read_text().split()}
    assert run.report.steps[0].records == 60


def test_a_worker_is_replaced_past_so_many_bytes(tmp_path):
    if sys.platform != "linux":
        pytest.skip("the system does not tell how much memory a process holds")
    counted = line(per_worker(Counting, tmp_path / "closed"))
    results = list(counted(range(200), how="line", workers=1, batch_size=5, start="launch", recycle="150MB"))
    assert [n for n, _, _ in results] == list(range(200))
    assert 2 <= len({pid for _, pid, _ in results}) <= 20


def test_steps_that_wait_and_records_that_kill_go_with_replaced_workers(tmp_path):
    async def waits(n):
        await asyncio.sleep(0)
        return n, os.getpid()

    results = list(line(waits)(range(50), how="line", batch_size=5, recycle=10, start="launch"))
    assert [n for n, _ in results] == list(range(50))
    assert len({pid for _, pid in results}) >= 3

    def deadly(n):
        if n == 13:
            os.abort()
        return n

    kept = list(
        line(deadly)(range(40), how="line", workers=2, batch_size=3, recycle=6, on_error="keep", start="launch")
    )
    assert [n for n in kept if isinstance(n, int)] == [n for n in range(40) if n != 13]
    assert isinstance(kept[13].error, WorkerDied)


def test_the_command_has_both(tmp_path):
    (tmp_path / "steps.py").write_text(
        "ready = []\ndef make(): ready.append(1)\ndef look(text): return f'{text} {len(ready)}'\n"
    )
    (tmp_path / "in.txt").write_text("a\nb\n")
    command = [
        sys.executable, "-m", "taktline", "run", "steps.py:look", "--in", "in.txt", "--out", "-", "--out-format", "text",
        "--quiet", "--setup", "steps.py:make", "--recycle", "1",
    ]  # fmt: skip
    for how in ("auto", "line"):
        done = subprocess.run([*command, "--how", how], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stdout == "a 1\nb 1\n", done.stderr
    done = subprocess.run(
        [*command, "--setup", "steps.py:mak"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "did you mean 'make'?" in done.stderr
