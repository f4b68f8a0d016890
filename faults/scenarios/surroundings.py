"""Bad surroundings: little room, other threads, forks, signals."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pwd
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Complete, CompleteOr, Ends, FailsAt, Output, Scenario, Source, Told
from faults.scenarios.records import BAD, numbers
from faults.steps import Hoard, InAFolder, KeepsAlarm, Log, Pace, Say, Seeds, SignalCaller, TakeLock

GROUP = "Surroundings"
FEW = 200
PROCESSES = frozenset({"workers"})  # threads share what these steps change
PLAIN = Job(numbers, (steps.same, steps.double))


def few() -> range:
    """Records for steps that take some milliseconds each."""
    return numbers()[:FEW]


# --- what is done to the caller before the run ---


def lock_is_held() -> None:
    """A thread of the caller holds a lock while workers start, as threads of logging, gRPC and others do."""
    has = threading.Event()

    def hold() -> None:
        with steps.HELD:
            has.set()
            time.sleep(3)

    threading.Thread(target=hold, daemon=True).start()
    has.wait()


def limited(what: int, to: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (to, to))


def few_processes() -> None:
    """A user with nothing and no right to a process more."""
    nobody = pwd.getpwnam("nobody")
    if os.getuid() == 0:
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def without_standard_streams() -> None:
    """As daemons are started: the next files that are opened get their numbers."""
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def children_ignored() -> None:
    """Then the system collects children itself, and waiting for them fails."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def interrupted_all_the_time() -> None:
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)


def clock_jumps() -> None:
    """`time.time` goes an hour forth and back at each call."""
    real, calls = time.time, iter(range(10**9))
    time.time = lambda: real() + (3_600 if next(calls) % 2 else -3_600)


def folder_is_gone() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir(os.getcwd())


def log_file() -> None:
    logging.basicConfig(filename="log.txt", format="%(message)s")


# --- where it is run from ---

Run = Callable[[], None]


def in_another_thread(run: Run) -> None:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def in_four_threads(run: Run) -> None:
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_pool_worker(run: Run) -> str | None:
    """In a daemonic process, as a worker of multiprocessing.Pool and a task of some schedulers is."""
    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    process.join()
    return f"unclear error: the process ended with {process.exitcode}" if process.exitcode else None


def again_in_a_fork(run: Run) -> str | None:
    """Once here, then in a process that is forked from here."""
    run()
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return f"unclear error: the process ended with {process.exitcode}" if process.exitcode else None


def forking(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """In the middle of the run the program starts another process, which outlives the run."""
    for result in results:
        got.append(result)
        if len(got) == 200:
            bystander()


def bystander() -> None:
    """A process of the program's own, with a copy of all that is open; the guard lets it be."""
    pid = os.fork()
    if pid == 0:
        time.sleep(12)
        os._exit(0)
    steps.note(f"bystander {pid}")


def log_is_whole(run: Run) -> str | None:
    run()
    with open("log.txt", encoding="utf-8") as file:
        lines = sorted(line.strip() for line in file)
    wanted = sorted(f"record {n}" for n in numbers() if n % 100 == 0)
    return None if lines == wanted else f"silent loss: {len(lines)} of {len(wanted)} lines of the log"


SCENARIOS = [
    Scenario(
        name="a lock is held while workers start",
        fault="by a thread of the caller, for three seconds; steps take it too: all results",
        job=Job(numbers, (TakeLock(), steps.double)),
        prepare=lock_is_held,
        expect=Complete(),
    ),
    Scenario(
        name="64 file descriptors", fault="no more may be open in a process: all results", job=PLAIN,
        prepare=limited(resource.RLIMIT_NOFILE, 64), expect=Complete(),
    ),
    Scenario(
        name="8 file descriptors", fault="too few: all results, or one error that speaks of open files", job=PLAIN,
        prepare=limited(resource.RLIMIT_NOFILE, 8), expect=CompleteOr(("open files",)),
    ),
    Scenario(
        name="no more processes", fault="a user who may not start any: all results, or one error", job=PLAIN,
        prepare=few_processes, expect=CompleteOr(()),
    ),
    Scenario(
        name="a record that wants too much memory", fault="MemoryError in a step, under a limit of 4 GB: as itself",
        job=Job(numbers, (steps.same, Hoard(BAD), steps.double)),
        prepare=limited(resource.RLIMIT_AS, 4 << 30), expect=FailsAt(BAD, ("MemoryError",), named=False),
    ),
    Scenario(
        name="64 MB of shared memory", fault="200 records of 2 MB: all results",
        job=Job(lambda: [2_000] * 200, (steps.kilobytes, len)),
        shared_memory=64_000_000, expect=Complete(),
    ),
    Scenario(
        name="64 MB of shared memory, large results", fault="40 results of 10 MB: all of them",
        job=Job(lambda: [10_000] * 40, (steps.kilobytes,)), look=len,
        shared_memory=64_000_000, expect=Complete(),
    ),
    Scenario(
        name="no standard streams", fault="the program runs with 0, 1 and 2 closed, as daemons do: all results",
        job=PLAIN, prepare=without_standard_streams, expect=Complete(),
    ),
    Scenario(
        name="children are ignored", fault="SIGCHLD is ignored in the program: all results", job=PLAIN,
        prepare=children_ignored, expect=Complete(),
    ),
    Scenario(
        name="a signal every 5 ms", fault="a timer's, with a handler that does nothing: all results",
        job=Job(numbers, (Pace(), steps.double)), prepare=interrupted_all_the_time, expect=Complete(),
    ),
    Scenario(
        name="a clock that jumps", fault="time.time goes an hour forth and back: all results", job=PLAIN,
        prepare=clock_jumps, expect=Complete(),
    ),
    Scenario(
        name="the current folder is gone", fault="deleted before the run: all results", job=PLAIN,
        prepare=folder_is_gone, expect=Complete(),
    ),
    Scenario(
        name="steps that print", fault="a line a record to standard output: each arrives, whole, and nothing else",
        job=Job(numbers, (Say(), steps.double)), expect=Output(tuple(f"record {n}" for n in numbers())),
    ),
    Scenario(
        name="steps that change the folder", fault="each record for a while, and back: all results",
        job=Job(few, (InAFolder(), steps.double)), needs=PROCESSES, expect=Complete(),
    ),
    Scenario(
        name="steps that seed a generator", fault="random.seed for each record: each has its own number",
        job=Job(few, (Seeds(), steps.double)), needs=PROCESSES, expect=Complete(),
    ),
    Scenario(
        name="steps that limit themselves by a signal", fault="a handler and a timer for each record: all results",
        job=Job(few, (KeepsAlarm(), steps.double)), needs=PROCESSES, expect=Complete(),
    ),
    Scenario(
        name="steps that log", fault="the caller has a log file: the 20 lines of steps are in it, each once",
        job=Job(numbers, (Pace(), Log(), steps.double)), prepare=log_file, drive=log_is_whole, expect=Complete(),
    ),
    Scenario(
        name="in another thread", fault="the run is driven from a thread that is not the main one: all results",
        job=PLAIN, drive=in_another_thread, expect=Complete(),
    ),
    Scenario(
        name="four runs at once in threads", fault="all results in each",
        job=Job(numbers, (Pace(0.0002), steps.double)), drive=in_four_threads, expect=Complete(),
    ),
    Scenario(
        name="inside a daemonic process", fault="which may not have children of multiprocessing's: all results",
        job=PLAIN, drive=in_a_pool_worker, expect=Complete(),
    ),
    Scenario(
        name="a run inside a step", fault="each of four records starts a run of its own: all results",
        job=Job(lambda: [3, 4, 5, 6], (steps.Inside(),)), expect=Complete(),
    ),
    Scenario(
        name="after a fork", fault="a run in the program, then one in a fork of it: all results in both",
        job=PLAIN, drive=again_in_a_fork, expect=Complete(),
    ),
    Scenario(
        name="the program forks in the middle", fault="the fork keeps copies of all that is open: all results, no hang",
        job=Job(numbers, (Pace(), steps.double)), consume=forking, expect=Complete(),
    ),
    Scenario(
        name="SIGKILL to a caller that has forked",
        fault="the fork keeps copies of all that is open and lives on: the workers end all the same",
        job=Job(numbers, (Pace(), SignalCaller(400, signal.SIGKILL), steps.double)),
        consume=forking, compared=False, expect=Ends((-signal.SIGKILL,)),
    ),
]  # fmt: skip
