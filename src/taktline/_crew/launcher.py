"""Starts a worker as a plain subprocess: no main guard, no re-import of `__main__`, also inside a daemonic process."""

from __future__ import annotations

# The calls of the system: a worker looks at who takes signals by those of `signal`.
import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from taktline._crew import limits
from taktline._crew.template import Template
from taktline._wire.arena import above_standard
from taktline.errors import WorkersCannotStart

# Nothing of what a worker imports is garbage: to look for some would take 2 ms of its 35.
BOOT = (
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv.pop()); from taktline._crew.worker import main; main()"
)
NO_SUCH_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR)
# On virtual machines inside of others an exec was seen to fail with EFAULT, about once in 10,000 on a busy machine,
# although all its arguments lie where they should. Nothing has happened then, and the next one goes through.
STARTS = 5
_NAMES = re.compile(r"(?i)python|pypy|ython|py(\.exe)?$")  # also such as hython and mayapy
Started = TypeVar("Started")


class Process:
    """A started worker: its process, the hub's end of its socket, and the hub's end of its lifeline."""

    def __init__(
        self, pid: int, parent: subprocess.Popen[bytes] | Template, sock: socket.socket, lifeline: int
    ) -> None:  # fmt: skip
        self.pid = pid
        self.socket = sock
        self._parent = parent  # knows how it ended
        self.lifeline = lifeline
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self._code is None:
            parent = self._parent
            self._code = parent.code(self.pid, wait=False) if isinstance(parent, Template) else parent.poll()
        return self._code

    def wait(self, seconds: float) -> bool:
        """Whether it ended within the time."""
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
            parent = self._parent
            self._code = parent.code(self.pid, wait=True) if isinstance(parent, Template) else parent.wait()

    def abandon(self) -> None:
        """In a fork of the caller's process: it is not this process's worker, so that its end must not be waited for."""
        self.close()
        self._code = 0
        if isinstance(self._parent, subprocess.Popen):
            self._parent.returncode = 0

    def close(self) -> None:
        """Let go of the lifeline; with it the process ends, if it has not yet."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1


def interpreter() -> str:
    """The Python that workers are started with. Raises WorkersCannotStart where this program is none, and none is found:
    started once more it would do anything, such as start workers."""
    program = sys.executable
    if getattr(sys, "frozen", False) or "__compiled__" in vars(sys.modules["__main__"]):
        raise WorkersCannotStart(
            f"this program is frozen: {program!r} is no Python that a worker could be started with, it is the program. Use "
            'start="fork", or how="loop"'
        )
    if program and (
        _NAMES.search(os.path.basename(program)) or _NAMES.search(os.path.basename(os.path.realpath(program)))
    ):
        return program
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):  # Python is part of another program here
        found = os.path.join(prefix, "bin", version)
        if os.access(found, os.X_OK):
            return found
    raise WorkersCannotStart(
        f"workers are started with sys.executable, and that is {program!r}: by its name no Python, nor is there one in "
        f'{sys.prefix!r}. Set sys.executable to a Python of the same version, or use start="fork"'
    )


def launch(board: int) -> Process:
    """A worker in a fresh interpreter, which gets the descriptor `board` too. Raises OSError where the system gives none,
    WorkersCannotStart where there is no interpreter."""
    here, there, ours, theirs = _ends()
    # Ctrl-C on a terminal reaches all of its processes: a worker that is not ready for it yet gets it later.
    before = _signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        popen = _started(there.fileno(), theirs, board)
    except BaseException as error:
        here.close()
        os.close(ours)
        if isinstance(error, OSError) and error.errno in NO_SUCH_PROGRAM:
            raise WorkersCannotStart(
                f"workers are started with sys.executable, and that is {sys.executable!r}: {error.strerror}. Where Python "
                'is part of another program, set sys.executable to a Python of the same version, or use start="fork"'
            ) from error
        raise
    finally:
        _signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        os.close(theirs)
    return Process(popen.pid, popen, here, ours)


def _started(*descriptors: int) -> subprocess.Popen[bytes]:
    """An interpreter that becomes a worker with these descriptors."""
    root = str(Path(__file__).resolve().parents[2])
    # -P: a file of the current folder must not stand in for a module of Python's.
    command = [
        interpreter(), *subprocess._args_from_interpreter_flags(), "-P", "-c", BOOT,  # type: ignore[attr-defined]
        *map(str, descriptors), root,
    ]  # fmt: skip
    settings: dict[str, Any] = {
        "pass_fds": descriptors, "stdin": subprocess.DEVNULL, "stdout": _if_open(1), "stderr": _if_open(2),
        "env": limits.environment(),
    }  # fmt: skip
    return patiently(lambda: subprocess.Popen(command, **settings))


def patiently(start: Callable[[], Started]) -> Started:
    """What `start` returns, tried up to STARTS times where it fails with EFAULT."""
    for _ in range(STARTS - 1):
        try:
            return start()
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
    return start()


def fork(template: Template, lane: int, number: int, board: int) -> Process:
    """A worker with this number, for this lane, forked from the template. Raises OSError where none can be started."""
    here, there, ours, theirs = _ends()
    try:
        pid = template.fork([there.fileno(), theirs, board], lane, number)
    except BaseException:
        here.close()
        os.close(ours)  # a worker that nobody got to know ends with its lifeline
        raise
    finally:
        there.close()
        os.close(theirs)
    return Process(pid, template, here, ours)


def _ends() -> tuple[Any, Any, int, int]:
    """Both ends of a socket and of a lifeline."""
    # The system's own sockets, whatever a library such as eventlet has put in their place.
    here, there = (_socket.socket(fileno=above_standard(end.detach())) for end in _socket.socketpair())
    try:
        theirs, ours = map(above_standard, os.pipe())
    except BaseException:
        here.close()
        there.close()
        raise
    return here, there, ours, theirs


def _if_open(descriptor: int) -> int | None:
    """What a worker gets as its standard output or error: the caller's, or nothing where that is closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        return subprocess.DEVNULL
    return None
