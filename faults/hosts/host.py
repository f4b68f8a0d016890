"""A host, as far as one machine can play it: a process below which all that it starts stays, killed and frozen as one, with
folders of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

SET_CHILD_SUBREAPER = 36  # prctl(2)
TASK = "airflow worker -- "  # how the process of a task is called
STILL = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
PATIENCE = 240.0  # seconds for what must end; tasks that are at work go on to their end before


class Host:
    """A command in a session of its own, with its own TMPDIR, home and working folder, which outlive it as a disk does."""

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._command = command
        self._environment = dict(environment)
        for name in ("tmp", "home", "work"):
            (folder / name).mkdir(parents=True)
            self._environment[{"tmp": "TMPDIR", "home": "HOME", "work": "AIRFLOW_HOME"}[name]] = str(folder / name)
        self._running: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def up(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def tasks(self) -> int:
        """How many of Airflow's tasks are at work on it, by what they call themselves."""
        if not self.up or self.frozen:
            return 0
        assert self._running is not None
        return sum(called(process).startswith(TASK) for process in all_of(self._running.pid))

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "faults.hosts.host", *self._command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        self.frozen = False

    def kill(self) -> int:
        """As a power cut: how many processes it had."""
        assert self._running is not None
        killed = stop(self._running.pid)
        send(killed, signal.SIGKILL)
        self._running.wait()
        psutil.wait_procs(killed)
        self._close()
        return len(killed)

    def freeze(self) -> None:
        assert self._running is not None
        stop(self._running.pid)
        self.frozen = True

    def thaw(self) -> None:
        assert self._running is not None
        send(all_of(self._running.pid), signal.SIGCONT)
        self.frozen = False

    def end(self) -> bool:
        """Ask it to end, once its tasks are done; whether it did, with all its processes."""
        assert self._running is not None
        self._running.terminate()
        try:
            self._running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self._close()
        return True

    def _close(self) -> None:
        assert self._running is not None
        assert self._running.stdin is not None
        self._running.stdin.close()

    def left(self) -> list[Path]:
        """What lies in its folder for temporary files."""
        return sorted((self.folder / "tmp").rglob("*"))


def all_of(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def stop(pid: int) -> list[psutil.Process]:
    """Stop a process and all below it; they start no others from then on."""
    while True:
        found = all_of(pid)
        moving = [process for process in found if status(process) not in STILL]
        if not moving:
            return found
        send(moving, signal.SIGSTOP)
        time.sleep(0.002)  # until the kernel has done it


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each. One may be gone by then: it ends with another one that has just had the signal, or on being gone
    on with."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def called(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)


def main(command: list[str]) -> int:
    """Run a command, and stay until it and all that it has started have ended: its exit code. Whoever started this is gone
    where the input ends: then all ends with it."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    first = os.posix_spawn(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(first, signal.SIGTERM))
    Thread(target=_end_with_input, daemon=True).start()
    code = 0
    while True:
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            return code
        if pid == first:
            code = os.waitstatus_to_exitcode(ended)


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    send(psutil.Process().children(recursive=True), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
