"""Starts a worker as a plain subprocess: no main guard, no re-import of `__main__`, also inside a daemonic process."""

from __future__ import annotations

# The calls of the system: a worker looks at who takes signals by those of `signal`.
import _signal  # type: ignore[import-not-found]
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from taktline._crew import library_limits
from taktline._crew.template import LOST_EXIT_CODE, Template
from taktline._signals import pass_on
from taktline._wire.arena import pipe, socket_pair
from taktline.errors import WorkersCannotStart

if TYPE_CHECKING:
    import subprocess  # 2 ms, which forked workers do not need

# Nothing of what a worker imports is garbage: to look for some would take 2 ms of its 35.
BOOT = (
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv.pop()); from taktline._crew.worker import main; main()"
)
ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
NO_SUCH_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR)
# On virtual machines inside of others an exec was seen to fail with EFAULT, about once in 10,000 on a busy machine,
# although all its arguments lie where they should. Nothing has happened then, and the next one goes through.
STARTS = 5
LOOKS = 100  # a millisecond apart
_NAMES = re.compile(r"(?i)python|pypy|ython|py(\.exe)?$")  # also such as hython and mayapy
Started = TypeVar("Started")


class Process:
    """A worker's process, the hub's end of its socket, and the hub's end of its lifeline: empty at first. Whoever has it
    starts one in it and can end that, wherever the start was interrupted."""

    def __init__(self) -> None:
        self.pid = 0  # not known
        self.socket: Any = None
        self._lifeline: io.FileIO | None = None
        self._parent: subprocess.Popen[bytes] | Template | None = None  # knows how it ended
        self._code: int | None = None

    def launch(self, *more: int, boot: str = BOOT, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start a worker, or what `boot` says, in a fresh interpreter, which gets the descriptors `more` too, and has this
        in its environment besides. Raises OSError where the system gives none, WorkersCannotStart where there is no
        interpreter."""
        there, theirs = self._ends()
        descriptors = there.fileno(), theirs.fileno(), *more
        # Ctrl-C on a terminal reaches all of its processes: a worker that is not ready for it yet gets it later.
        before = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            _signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._parent = _started(boot, descriptors, environment)
            self.pid = self._parent.pid
        except BaseException as error:
            _end_unheard_of(boot, descriptors)
            pass_on(error)
            if isinstance(error, OSError) and error.errno in NO_SUCH_PROGRAM:
                raise _no_interpreter(error) from error
            raise
        finally:
            _signal.pthread_sigmask(signal.SIG_SETMASK, before)
            there.close()
            theirs.close()

    def fork(self, template: Template, lane: int, number: int, board: int) -> None:
        """Start a worker with this number, for this lane, forked from the template. Raises OSError where none can be
        started. One that nobody got to know ends with its lifeline, and the template collects it."""
        there, theirs = self._ends()
        try:
            self.pid = template.fork([there.fileno(), theirs.fileno(), board], lane, number)
            self._parent = template
        finally:
            there.close()
            theirs.close()

    def _ends(self) -> tuple[Any, io.FileIO]:
        """The worker's ends of a socket and of a lifeline; the others are kept here."""
        self.socket, there = socket_pair()
        theirs, self._lifeline = pipe()
        return there, theirs

    @property
    def lifeline(self) -> int:
        """The descriptor of our end; -1 once it is closed."""
        return -1 if self._lifeline is None or self._lifeline.closed else self._lifeline.fileno()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self._code is None:
            self._code = self._ended(wait=False)
        return self._code

    def _ended(self, *, wait: bool) -> int | None:
        parent = self._parent
        if isinstance(parent, Template):
            return parent.code(self.pid, wait=wait)
        if parent is None:
            return LOST_EXIT_CODE
        return parent.wait() if wait else parent.poll()

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
            except ProcessLookupError as error:
                pass_on(error)
            self._code = self._ended(wait=True)

    def abandon(self) -> None:
        """In a fork of the caller's process: it is not this process's worker, so that its end must not be waited for."""
        self.close()
        self._code = 0
        if self._parent is not None and not isinstance(self._parent, Template):
            self._parent.returncode = 0

    def close(self) -> None:
        """Let go of the socket and the lifeline; with that the process ends, if it has not yet. May be called again."""
        if self.socket is not None:
            self.socket.close()
        if self._lifeline is not None:
            self._lifeline.close()


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


def _started(boot: str, descriptors: Sequence[int], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """An interpreter that becomes what `boot` says with these descriptors."""
    import subprocess

    # -P: a file of the current folder must not stand in for a module of Python's.
    command = [
        interpreter(), *subprocess._args_from_interpreter_flags(), "-P", "-c", boot,  # type: ignore[attr-defined]
        *map(str, descriptors), ROOT,
    ]  # fmt: skip
    settings: dict[str, Any] = {
        "pass_fds": descriptors, "stdin": subprocess.DEVNULL, "stdout": _if_open(1, subprocess.DEVNULL),
        "stderr": _if_open(2, subprocess.DEVNULL),
        "env": {**library_limits.environment(), **environment},
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


def _no_interpreter(error: OSError) -> WorkersCannotStart:
    return WorkersCannotStart(
        f"workers are started with sys.executable, and that is {sys.executable!r}: {error.strerror}. Where Python "
        'is part of another program, set sys.executable to a Python of the same version, or use start="fork"'
    )


def _end_unheard_of(boot: str, descriptors: Sequence[int]) -> None:
    """End a worker that was started with these descriptors while a signal's handler raised: `subprocess` tells of none then.
    Its own descriptor of the board has the same number as ours, which no other worker of this process has."""
    wanted = [os.fsencode(each) for each in (boot, *map(str, descriptors), ROOT)]
    for task in os.listdir("/proc/self/task"):
        try:
            children = _content(f"/proc/self/task/{task}/children").split()
        except FileNotFoundError as error:  # that thread has ended meanwhile
            pass_on(error)
            continue
        for pid in map(int, children):
            if _command(pid)[-len(wanted) :] == wanted:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _command(pid: int) -> list[bytes]:
    command = b""
    try:
        for _ in range(LOOKS):  # a process that is becoming another program has none for a moment
            if command := _content(f"/proc/{pid}/cmdline").rstrip(b"\0"):
                break
            sleep(0.001)
    except FileNotFoundError as error:  # somebody has collected it meanwhile
        pass_on(error)
    return command.split(b"\0")


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _if_open(descriptor: int, closed: int) -> int | None:
    """What a worker gets as its standard output or error: the caller's, or `closed` where there is none."""
    try:
        os.fstat(descriptor)
    except OSError as error:
        pass_on(error)
        return closed
    return None
