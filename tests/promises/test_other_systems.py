"""What is not Linux is not broken: where a system has no fork, no fcntl, no resource, no poll, the loop runs all the same,
and so do threads; worker processes are refused in one sentence. Tried by hiding those, in a Python of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HIDE = """
import asyncio, logging, os, select, selectors, shutil, signal, socket, subprocess, sys, tempfile, threading
for name in ("fcntl", "resource", "termios", "grp", "pwd", "tty", "pty", "_posixshmem"):
    sys.modules[name] = None
for module, names in {
    os: ("fork", "register_at_fork", "memfd_create", "geteuid", "getuid", "sysconf", "sched_getaffinity", "fchmod", "setsid",
         "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_ACCMODE", "MFD_CLOEXEC", "mkfifo", "waitid"),
    signal: ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGBUS", "SIGSTOP", "SIGCONT",
             "pthread_sigmask", "setitimer", "alarm"),
    select: ("epoll", "poll"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import taktline
from taktline import batch, expand, keep, line, per_worker, serial, step
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Runs a program on such a system; what it prints."""

    def run(program):
        path = tmp_path / "program.py"
        path.write_text(HIDE + textwrap.dedent(program))
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("options", ['how="loop"', "", 'on_error="skip"', 'how="line", start="threads", workers=2'])
def test_a_line_runs(elsewhere, options):
    program = f"""
    async def doubled(n): return 2 * n
    class Shifted:
        def __call__(self, n): return n + 1
    flow = line(int, keep(bool), expand(lambda n: [n, -n]), batch(list, 3), per_worker(Shifted), serial(abs), doubled,
                step(str, retries=1))
    run = flow(["1", "0", "2"], {options})
    print(list(run), run.report.records_in, bool(run.snapshot()), len(str(run.report)) > 100)
    """
    assert elsewhere(program) == "['4', '0', '6', '2'] 3 True True"


def test_the_loops_error_names_its_record(elsewhere):
    program = """
    try:
        list(line(lambda n: 6 // n)([1, 0], how="loop"))
    except ZeroDivisionError as error:
        print(error.__notes__[0].splitlines()[0][:11])
    print([type(each).__name__ for each in line(lambda n: 6 // n)([1, 0], how="loop", on_error="keep")])
    """
    assert elsewhere(program).split("\n") == ["at record 1", "['int', 'Failed']"]


@pytest.mark.parametrize("how", ["pool", "queues", "line"])
@pytest.mark.parametrize("start", ["auto", "fork", "launch"])
def test_worker_processes_are_refused_in_one_sentence_before_anything_is_read(elsewhere, how, start):
    program = f"""
    read = []
    try:
        line(abs)((read.append(n) for n in range(3)), how={how!r}, start={start!r}, workers=2)
    except taktline.WorkersCannotStart as error:
        print(error, read)
    """
    said = elsewhere(program)
    assert said.startswith("worker processes need a POSIX system, such as Linux, and this is ")
    assert 'run with how="loop"' in said
    assert said.endswith(" []")


def test_auto_stays_with_the_loop_where_work_is_dear(elsewhere):
    program = """
    run = line(lambda n: sum(range(200_000)) * 0 + n)(range(60), workers=2)
    print(list(run) == list(range(60)), run.report.workers, run.report.reasons[-1][:18])
    """
    assert elsewhere(program) in (
        "True 0 stay with the loop",
        "True 2 move to 2 threads:",
    )


def test_async_callers(elsewhere):
    program = """
    async def main():
        return [n async for n in line(int).stream(["1", "2"], how="loop")]
    print(asyncio.run(main()))
    """
    assert elsewhere(program) == "[1, 2]"
