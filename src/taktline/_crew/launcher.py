"""Starts a worker as a plain subprocess: no main guard, no re-import of `__main__`, also inside a daemonic process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

# Thread pools of numeric libraries, one in each worker, would fight for the cores.
ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
BOOT = "import sys; sys.path.insert(0, sys.argv.pop()); from taktline._crew.worker import main; main()"


class Process:
    """A started worker: its process, the hub's end of its socket, and the hub's end of its lifeline."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None, sock: socket.socket, lifeline: int) -> None:
        self.pid = pid
        self.socket = sock
        self._popen = popen
        self._lifeline = lifeline
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self._code is None:
            if self._popen is not None:
                self._code = self._popen.poll()
            else:
                self._code = self._wait(os.WNOHANG)
        return self._code

    def wait(self, seconds: float) -> bool:
        """Whether it ended within the time."""
        from time import monotonic, sleep

        end = monotonic() + seconds
        pause = 0.0005
        while self.poll() is None:
            if monotonic() >= end:
                return False
            sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def kill(self) -> None:
        """End it now and collect it."""
        if self.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            if self._popen is not None:
                self._code = self._popen.wait()
            else:
                self._code = self._wait(0)

    def descriptors(self) -> list[int]:
        """What a fork of this process must not keep open."""
        return [self._lifeline] if self._lifeline >= 0 else []

    def close(self) -> None:
        """Let go of the lifeline; with it the process ends, if it has not yet."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _wait(self, flags: int) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, flags)
        except ChildProcessError:  # somebody else collected it: how it ended is lost
            return self._code if self._code is not None else -signal.SIGKILL
        return os.waitstatus_to_exitcode(status) if pid else None


def launch(board: int) -> Process:
    """A worker in a fresh interpreter, which gets the descriptor `board` too. Raises OSError where the system gives none."""
    here, there, ours, theirs = _ends()
    # Ctrl-C on a terminal reaches all of its processes: a worker that is not ready for it yet gets it later.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        root = str(Path(__file__).resolve().parents[2])
        popen = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", BOOT,  # type: ignore[attr-defined]
             str(there.fileno()), str(theirs), str(board), root],
            pass_fds=(there.fileno(), theirs, board), stdin=subprocess.DEVNULL, env=_environment(),
        )  # fmt: skip
    except BaseException:
        here.close()
        os.close(ours)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        os.close(theirs)
    return Process(popen.pid, popen, here, ours)


def fork(work: Callable[[socket.socket, int], NoReturn], strangers: list[int]) -> Process:
    """A worker forked from this process, which shares its memory. `strangers`: descriptors that it must not keep,
    the hub's ends of other workers' sockets and lifelines: with them it would keep those workers alive."""
    here, there, ours, theirs = _ends()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        for descriptor in (here.fileno(), ours, *strangers):
            os.close(descriptor)
        here.detach()
        try:
            work(there, theirs)
        finally:
            os._exit(70)  # only reached when even the worker's own end failed
    there.close()
    os.close(theirs)
    return Process(pid, None, here, ours)


def _ends() -> tuple[socket.socket, socket.socket, int, int]:
    here, there = socket.socketpair()
    try:
        theirs, ours = os.pipe()
    except BaseException:
        here.close()
        there.close()
        raise
    return here, there, ours, theirs


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    for name in ONE_THREAD:
        env.setdefault(name, "1")
    return env
