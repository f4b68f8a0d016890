"""Promise: in bad surroundings a run ends in complete output or one clear error, and leaves nothing behind.

Each case is a program of its own, under the limit itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import taktline

BEGIN = """
import os, resource, sys, taktline
from taktline import line
def limit(name, most):
    resource.setrlimit(getattr(resource, name), (most, most))
def big(n):
    return bytes(300_000)
"""
END = """
def processes():
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found |= set(file.read().split())
    return found
print("left", *processes())
"""
ROOT = Path(taktline.__file__).parent
# Said by CPython 3.11 itself, and nothing is wrong: where a bytearray finds no memory, it looks at a count not yet set.
NO_MEMORY = "SystemError: deallocated bytearray object has exported buffers\n"


def says(code: str, *, under: Sequence[str] = (), **settings: Any) -> list[str]:
    """What `code` prints, run between BEGIN and END: it must end, leave no process, and say nothing on standard error."""
    command = [*under, sys.executable, "-c", BEGIN + textwrap.dedent(code) + END]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)
    assert done.stderr.replace(NO_MEMORY, "") == ""
    assert done.stdout.endswith("left\n"), done.stdout
    return done.stdout.splitlines()[:-1]


# --- limits of the system ---


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize(
    ("how", "limit", "workers"),
    [
        ("line", 'limit("RLIMIT_NOFILE", 64)', 2),
        ("auto", 'limit("RLIMIT_NOFILE", 64)', 2),
        ("queues", 'limit("RLIMIT_FSIZE", 100_000)', 2),  # no arena of that size can be had
        ("line", 'limit("RLIMIT_NOFILE", 18)', 3),  # not all workers, or no arena for them
    ],
)
def test_under_a_limit_all_results_come(how, limit, workers, start):
    code = f"""
        {limit}
        print(list(line(big, len)(range(60), how={how!r}, workers={workers}, start={start!r})) == [300_000] * 60)
    """
    assert says(code) == ["True"]


def test_fewer_workers_than_asked_for_do_the_work_and_the_report_says_so():
    code = """
        limit("RLIMIT_NOFILE", 14)
        report = line(abs).run(range(100), how="line", workers=8, start="fork")
        print(report.records_out)
        print([reason for reason in report.reasons if "fewer workers than asked for" in reason])
    """
    out, reasons = says(code)
    assert out == "100"
    assert "Too many open files" in reasons


NO_WORKERS = [
    'limit("RLIMIT_NOFILE", 7)',
    'sys.executable = "/nowhere/python"',
    "sys.executable = no_python",
]


@pytest.mark.parametrize("limit", NO_WORKERS)
def test_where_no_worker_can_start_the_error_says_why_and_auto_stays_with_the_loop(limit, tmp_path):
    (tmp_path / "python").symlink_to("/bin/true")
    code = f"""
        import time
        no_python = {str(tmp_path / "python")!r}
        list(line(abs)([1], how="line", workers=1, start="launch"))  # so that all that the error needs is loaded
        {limit}
        try:
            list(line(abs)(range(60), how="line", workers=2, start="launch"))
        except taktline.WorkersCannotStart as error:
            print(error)
        run = line(abs, lambda n: time.sleep(0.003) or n)(range(60), workers=2, start="launch")
        print(list(run) == list(range(60)))
    """
    text, complete = says(code)
    assert complete == "True"
    assert ("Too many open files" if "NOFILE" in limit else 'start="fork"') in text


def test_a_limit_on_processes():
    if os.getuid() != 0:
        pytest.skip("needs root, to become a user to whom the limit applies")
    code = """
        for start in ("launch", "fork"):  # what is needed is loaded now: that user may not be able to read it
            list(line(abs)(range(60), how="line", workers=2, start=start))
        os.setgid(65534); os.setuid(65534)
        limit("RLIMIT_NPROC", 0)
        for start in ("launch", "fork"):
            try:
                list(line(abs)(range(60), how="line", workers=2, start=start))
            except taktline.WorkersCannotStart as error:
                print(error)
        print(list(line(abs)(range(60))) == list(range(60)))
    """
    first, second, complete = says(code)
    assert first == second
    assert "Resource temporarily unavailable" in first
    assert complete == "True"


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_a_limit_on_memory_ends_in_all_results_or_one_error_that_says_so(start):
    code = f"""
        import numpy
        arrays = [numpy.zeros(1_000_000) for _ in range(10)]
        list(line(abs)([1], how="line", workers=1))
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        limit("RLIMIT_AS", now + 60_000_000)
        try:
            print(sum(len(each) for each in line(lambda a: a + 1)(arrays, how="line", workers=2, start={start!r})))
        except (taktline.StepError, MemoryError) as error:
            print("memory" in (str(error) + repr(error.__notes__)).lower())
    """
    assert says(code) in (["10000000"], ["True"])


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_memory_that_runs_out_in_a_step_fails_its_record(start):
    code = f"""
        def hungry(n):
            return len(bytearray(1 << 60)) if n == 7 else n
        got = []
        try:
            for n in line(hungry)(range(20), how="line", workers=2, start={start!r}):
                got.append(n)
        except MemoryError as error:
            print(got, error.__notes__[0].splitlines()[0])
    """
    assert says(code) == [f"{list(range(7))} at record 7 in step 'hungry'"]


def test_a_small_shared_memory_folder_is_not_used():
    small = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "sh", "-c", small], capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    code = """
        for result in line(lambda n: bytes(20_000_000))(range(6), how="line", workers=2):
            assert os.listdir("/dev/shm") == []
        print("done")
    """
    assert says(code, under=["unshare", "-m", "sh", "-c", f'{small} && exec "$@"', "sh"]) == ["done"]


# --- files ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.getuid() != 0 or not shutil.which("mount") or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_a_full_disk_at_the_sink(how, small_disk):
    code = f"""
        try:
            line(str).run(range(200_000), taktline.write({str(small_disk / "out.txt")!r}), how={how!r}, workers=2)
        except taktline.SinkError as error:
            print(error)
    """
    (text,) = says(code)
    assert "out.txt' cannot be written: No space left on device" in text
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_limit_on_the_size_of_a_file_at_the_sink(how, tmp_path):
    code = f"""
        limit("RLIMIT_FSIZE", 100_000)
        try:
            line(str).run(range(200_000), taktline.write("out.txt"), how={how!r}, workers=2)
        except taktline.SinkError as error:
            print(error)
    """
    (text,) = says(code, cwd=tmp_path)
    assert "out.txt' cannot be written: File too large" in text
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_full_device_as_standard_output(how):
    command = [sys.executable, "-m", "taktline.cli.commands", "run", "builtins:str", "--how", how]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--in", "-", "--out", "-"], input="1\n2\n", stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("No space left on device") == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_fork_of_the_caller_leaves_its_file_alone(tmp_path):
    code = """
        def forks(n):
            if n == 5 and os.fork() == 0:
                sys.exit(0)
            return str(n)
        sink = taktline.write("out.txt")
        try:
            line(forks).run(range(10), sink, how="loop")
        except taktline.StepError:  # in the fork
            del sink
            sys.stdout = open(os.devnull, "w")
        else:
            os.wait()
    """
    assert says(code, cwd=tmp_path) == []
    assert (tmp_path / "out.txt").read_text() == "".join(f"{n}\n" for n in range(10))
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_folder_that_cannot_be_written_to(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code = f"""
        try:
            line(str).run(range(20), taktline.write({str(small_disk / "out.txt")!r}), how="line", workers=2)
        except taktline.TaktlineError as error:
            print(error)
    """
    (text,) = says(code)
    assert "cannot be written to" in text


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_a_sink_that_raises_ends_the_run_and_its_workers(how):
    code = f"""
        taken = []
        def sink(result):
            if result == 300_000 and len(taken) == 40:
                raise OSError(28, "no room")
            taken.append(result)
        try:
            line(big, len).run(range(100), sink, how={how!r}, workers=2)
        except taktline.SinkError as error:
            print(error, error.at, len(taken), type(error.__cause__).__name__)
    """
    (text,) = says(code)
    assert "the sink failed on result 40: OSError: [Errno 28] no room" in text
    assert text.endswith("40 40 OSError")


# --- the process itself ---


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(closed, start, tmp_path):
    code = f"""
        os.chdir({str(tmp_path)!r})
        def loud(n):
            if {">" not in closed}:
                print("noise")
            os.write(1, b"noise" * 100) if {">" in closed and start == "launch"} else None
            return bytes(40_000)
        for how in ("line", "queues"):
            assert [*line(loud, len)(range(40), how=how, workers=2, start={start!r})] == [40_000] * 40
        with open("done", "w"):
            pass
    """
    (tmp_path / "program.py").write_text(BEGIN + textwrap.dedent(code))
    subprocess.run(f"exec '{sys.executable}' program.py {closed}", shell=True, cwd=tmp_path, timeout=60, stderr=None)
    assert (tmp_path / "done").exists()


WORKS = """
        for start in ("launch", "fork"):
            for how in ("pool", "line"):
                assert list(line(big, len)(range(20), how=how, workers=2, start=start)) == [300_000] * 20
        print("done")
"""


def test_without_home_and_with_nowhere_for_temporary_files(tmp_path):
    odd = {name: value for name, value in os.environ.items() if name not in ("HOME", "PATH", "LANG")}
    assert says(WORKS, env={**odd, "TMPDIR": str(tmp_path / "nowhere")}) == ["done"]


def test_in_a_folder_that_is_gone(tmp_path):
    code = f"""
        os.rmdir({str(tmp_path / "gone")!r})
        {WORKS}
    """
    (tmp_path / "gone").mkdir()
    assert says(code, cwd=tmp_path / "gone") == ["done"]


def test_files_that_are_called_like_pythons_modules_do_no_harm(tmp_path):
    for name in ("pickle", "socket", "random", "logging", "taktline"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name} was loaded')")
    folder = tmp_path / "program"
    folder.mkdir()
    works = textwrap.dedent(WORKS.replace("\n        ", "\n"))
    (folder / "program.py").write_text(f"{BEGIN}\nos.chdir({str(tmp_path)!r})\n{works}")
    done = subprocess.run(
        [sys.executable, str(folder / "program.py")], capture_output=True, text=True, timeout=60, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["/nowhere", "relative", str(ROOT.parent)])},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_clock_that_jumps_changes_nothing():
    code = """
        import random, time
        def jumping():
            return random.choice((0.0, 1e9, 4e9, -5.0))
        time.time = jumping
        time.time_ns = lambda: int(jumping())
        def jumps(n):
            time.time = jumping
            return n
        seen = []
        for how in ("loop", "line", "auto"):
            report = line(jumps).run(range(3_000), seen.append, how=how, workers=2, progress=lambda snapshot: None)
            assert 0 <= report.seconds < 60
        print(len(seen))
    """
    assert says(code) == ["9000"]


def test_nothing_reads_the_wall_clock_to_measure_time():
    wall = re.compile(r"\btime\.time\b|\btime_ns\(|import time$|from time import .*\btime\b|datetime\.now")
    rooms = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in ("cli", "_durable")]
    # When a run began is told to people, parts are named by it, and messages carry a server's time, from which they wait.
    for name in ("_run/meter.py", "_io/rolling.py", "pubsub/intake.py", "kafka/topic.py"):
        rooms.remove(ROOT / name)
    assert not [str(path) for path in rooms if wall.search(path.read_text())]


# --- other processes, threads and loops ---


def test_a_fork_of_the_caller_leaves_the_run_alone():
    code = """
        import gc
        built = []
        class Here:
            def __call__(self, n): return n
            def close(self): built.append(os.getpid())
        run = line(big, taktline.serial(taktline.per_worker(Here)), len)(range(200), how="line", workers=2)
        results = [next(run)]
        for ending in (lambda: sys.exit(0), lambda: run.close(), lambda: list(run)):
            child = os.fork()
            if child == 0:
                sys.stdout = open(os.devnull, "w")
                try:
                    ending()
                    gc.collect()
                except taktline.LineError as error:
                    os._exit(3 if "belongs to the process that started it" in str(error) else 4)
                assert not built
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status))
        results += run
        print(len(results), built == [os.getpid()])
    """
    assert says(code) == ["0", "0", "3", "200 True"]


def test_a_fork_that_lives_on_does_not_keep_workers_alive_without_their_caller():
    code = """
import os, signal, sys, time
from taktline import line
run = line(lambda n: (n, os.getpid()), lambda pair: pair)(range(10**9), how="line", workers=2, batch_size=1)
pids = set()
while len(pids) < 2:
    pids.add(next(run)[1])
child = os.fork()
if child == 0:
    os.read(0, 1)  # until whoever started the program has looked
    os._exit(0)
print(*pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    from promises.test_nothing_left_behind import gone

    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        workers = set(map(int, caller.stdout.readline().split()))
        caller.wait()
        assert len(workers) == 2
        assert gone(workers)


def test_a_run_may_outlive_the_thread_that_began_it():
    code = """
        import threading
        run = line(abs)(range(500), how="line", workers=2)
        results = []
        thread = threading.Thread(target=lambda: results.extend(next(run) for _ in range(100)))
        thread.start()
        thread.join()
        results += run
        print(results == list(range(500)))
    """
    assert says(code) == ["True"]


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_inside_an_asyncio_loop(start):
    code = f"""
        import asyncio, signal
        async def inside(n):
            return n + 1
        def signalled(n):
            if {start!r} == "fork":
                os.kill(os.getpid(), signal.SIGUSR1)  # the worker's own affair: the caller's loop must not hear of it
            return asyncio.run(inside(n))
        async def main():
            heard = []
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.append, "a worker's signal")
            print(list(line(signalled)(range(50), how="line", workers=2, start={start!r})) == list(range(1, 51)))
            for _ in range(9):  # turns of the loop, in which it would hear
                await asyncio.sleep(0)
            print(heard)
        asyncio.run(main())
    """
    assert says(code) == ["True", "[]"]


def test_forked_workers_of_two_runs_do_not_keep_each_other_alive():
    code = """
        first = line(abs)(range(10**9), how="line", workers=1, start="fork")
        next(first)
        second = line(abs)(range(10**9), how="line", workers=1, start="fork")
        next(second)
        held = processes()
        first.close()
        print(len(held), len(processes()))
        second.close()
    """
    assert says(END.replace('print("left", *processes())', "") + textwrap.dedent(code)) == ["2 1"]


def test_lines_inside_daemonic_processes_and_inside_steps_of_forked_workers():
    code = """
        def nested(n):
            return sum(line(abs)(range(n), how="line", workers=1, start="fork"))
        print(list(line(nested)([3, 4, 5], how="line", workers=2, start="fork")))
    """
    assert says(code) == ["[3, 6, 10]"]


# --- what the interpreter and its libraries are told ---

MIXED = """
    import asyncio
    from taktline import batch, expand, keep, step
    async def waits(n):
        await asyncio.sleep(0)
        return n
    def half(n):
        return n // 2
    flow = line(half, keep(lambda n: n % 3), waits, expand(lambda n: (n, -n)), batch(lambda some: [n + 1 for n in some], 7))
    loop = [each + 1 for n in (m // 2 for m in range(900)) if n % 3 for each in (n, -n)]
    for how in ("auto", "pool", "queues", "line"):
        assert list(flow(range(900), how=how, workers=2, start=start)) == loop
    assert [len(each) for each in line(big)(range(9), how="line", workers=2, start=start)] == [300_000] * 9
"""
REFUSING = """
    import ctypes, struct
    def refuse(*calls):
        # A filter of the kernel's own: these system calls fail with EPERM, here and in all processes started from here.
        code = [(0x20, 0, 0, 0)]  # load the call's number
        for left, call in zip(range(len(calls), 0, -1), calls):
            code.append((0x15, left, 0, call))
        code += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]  # allow; EPERM
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
        header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0, ctypes.get_errno()
    refuse(MEMFD_CREATE, SCHED_GETAFFINITY)
    for refused in (lambda: os.memfd_create("x"), lambda: os.sched_getaffinity(0)):
        try:
            refused()
        except PermissionError:
            continue
        raise AssertionError("it was not refused")
"""
CALLS = {"x86_64": (319, 204), "aarch64": (279, 123)}  # numbers of memfd_create and sched_getaffinity


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_system_calls_that_a_sandbox_refuses_change_no_result(start):
    numbers = CALLS.get(os.uname().machine)
    if sys.platform != "linux" or numbers is None:
        pytest.skip("the numbers of the system calls are not known here")
    refusing = REFUSING.replace("MEMFD_CREATE", str(numbers[0])).replace("SCHED_GETAFFINITY", str(numbers[1]))
    assert says(f"start = {start!r}\n{textwrap.dedent(refusing)}{textwrap.dedent(MIXED)}") == []


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("flags", [["-bb"], ["-OO"], ["-I"], ["-W", "error"]], ids=" ".join)
def test_the_interpreters_own_switches_change_no_result(flags, start):
    code = f"{BEGIN}start = {start!r}\n{textwrap.dedent(MIXED).replace('assert ', 'same = ')}{END}"
    code = code.replace("same = list(flow", "assert list(flow")
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("left\n", "")


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("late", [False, True], ids=["patched first", "patched after a run"])
def test_a_library_that_patches_sockets_and_processes_changes_no_result(late, start):
    pytest.importorskip("eventlet")
    patch = "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n"
    first = 'list(line(half)(range(99), how="line", workers=1))\n' if late else ""
    before = f"def half(n):\n    return n // 2\n{first}"
    # asyncio does not bear such a patch, and a fork inherits it.
    mixed = textwrap.dedent(MIXED).replace("waits, ", "") if start == "fork" else textwrap.dedent(MIXED)
    assert says(f"{before}{patch}start = {start!r}\n{mixed}") == []
