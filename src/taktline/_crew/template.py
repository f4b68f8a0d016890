"""The process that forked workers come from: a copy of the caller's, made once at the start, which does nothing since.

So all workers of a run have the same surroundings, also one that takes a dead one's place an hour later. It answers one
request at a time and runs no step. Its socket ends when the caller closes it or is gone, and so does it. Workers are its
children, so it also says how they ended; none of them has anything of another's, and nothing of theirs is open in it.
"""

from __future__ import annotations

# The calls of the system: a worker looks at who takes signals by those of `signal`.
import _signal  # type: ignore[import-not-found]
import _socket
import array
import errno
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from itertools import starmap
from time import sleep
from typing import Any, NoReturn

from taktline._signals import pass_on
from taktline._wire.arena import above_standard, socket_pair

REQUEST = struct.Struct("<QBqq")  # number of the request, what is asked for, two figures
ANSWER = struct.Struct("<Qq")  # number of the request, a figure
FORK, LOOK, WAIT = range(3)
LIVES = 1 << 32  # in the place of an exit code
INT = array.array("i").itemsize
READ = 1 << 12  # bytes of answers that are passed over at once
PATIENCE = 30.0  # seconds for an answer: a process of 100 GB is forked in one or two
LOST_EXIT_CODE = -signal.SIGKILL  # exit code of a worker of which nobody can tell any more how it ended

Life = Callable[[Any, int, int, int, int], NoReturn]


class Template:
    """The caller's end. `life(socket, lifeline, board, lane, number)` is what a worker does, its descriptors first;
    `prepare` is called once, before the first worker. Raises OSError where no process can be started."""

    def __init__(self, life: Life, prepare: Callable[[], None]) -> None:
        self.lost = False  # it does not answer: no worker comes from it any more
        self._number = 0
        self._began: list[int] = []  # its process id
        self._socket, there = socket_pair()
        self._process = os.getpid()
        try:
            self._begin(there, life, prepare)
            there.close()
            self._socket.settimeout(PATIENCE)
        except BaseException:
            there.close()
            self.close()
            raise

    def _begin(self, there: Any, life: Life, prepare: Callable[[], None]) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        # No handler of the caller's may run in the template; workers take back the mask that it is given here.
        mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            _signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            # C code alone: no handler of a signal that another thread takes raises between the fork and its place.
            self._began.extend(starmap(os.fork, [()]))
            if self._began == [0]:
                self._began.clear()
                self._socket.close()
                _Serving(there, life, mask).serve(prepare)
        finally:
            _signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """Its process id; 0 once it has ended."""
        return self._began[0] if self._began else 0

    def fileno(self) -> int:
        """The descriptor that it is reached by; -1 once it is closed."""
        return int(self._socket.fileno())

    def fork(self, descriptors: list[int], lane: int, number: int) -> int:
        """The process id of a new worker, which gets these descriptors. Raises OSError where there is none."""
        pid = self._ask(FORK, lane, number, descriptors)
        if pid is None:
            raise ChildProcessError(errno.ECHILD, "the process that workers are forked from is gone")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def code(self, pid: int, *, wait: bool) -> int | None:
        """How this worker ended: its exit code, negative for a signal. None while it lives, unless told to `wait`."""
        code = self._ask(WAIT if wait else LOOK, pid)
        if code is not None:
            return None if code == LIVES else code
        while _lives(pid):  # its parent is the system's first process now, which collects it
            if not wait:
                return None
            sleep(0.001)
        return LOST_EXIT_CODE

    def close(self) -> None:
        """End it, and all of its workers that nobody has heard the end of. May be called again."""
        if self._began:
            if not self.lost:
                self._let_it_end()
            self.lost = True
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError) as error:
                pass_on(error)  # else somebody has collected all children of this process
            self._began.clear()
        self._socket.close()

    def _let_it_end(self) -> None:
        """Wait until the template has collected its workers, which it alone can: one may have been started while a signal's
        handler raised here."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
            while self._socket.recv(READ):
                pass  # answers that nobody has taken
        except OSError as error:  # it is gone, or does not answer
            pass_on(error)

    def __del__(self) -> None:
        if getattr(self, "_process", 0) == os.getpid():  # no fork's, which has the original's
            self.close()

    def abandon(self) -> None:
        """In a fork of the caller's process: it belongs to the original, which must be able to end it."""
        self._socket.close()
        self.lost = True
        self._began.clear()

    def _ask(self, what: int, first: int, second: int = 0, descriptors: list[int] | None = None) -> int | None:
        """The figure in the answer; None where there is nobody to give one."""
        if self.lost:
            return None
        self._number += 1
        request = REQUEST.pack(self._number, what, first, second)
        try:
            passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            self._socket.sendmsg([request], passed)
            while answer := self._socket.recv(ANSWER.size, _socket.MSG_WAITALL):
                number, figure = ANSWER.unpack(answer)
                if number == self._number:  # else one that a signal's exception kept from being taken
                    return int(figure)
        except (TimeoutError, BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
        self.lost = True
        return None


class _Serving:
    """The template itself."""

    def __init__(self, control: Any, life: Life, mask: set[int]) -> None:
        self._control = control
        self._life = life
        self._mask = mask
        self._children: set[int] = set()  # not collected yet

    def serve(self, prepare: Callable[[], None]) -> NoReturn:
        try:
            prepare()
            while True:
                request, descriptors, whole = self._received()
                if not request:
                    break
                number, what, first, second = REQUEST.unpack(request)
                if what != FORK:
                    figure = _code(first, os.WNOHANG if what == LOOK else 0)
                    if figure != LIVES:
                        self._children.discard(first)
                elif not whole:
                    figure = -errno.EMFILE
                else:
                    figure = self._worker(descriptors, first, second)
                for descriptor in descriptors:
                    os.close(descriptor)
                self._control.sendall(ANSWER.pack(number, figure))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the caller is gone
        except BaseException:
            traceback.print_exc()
        finally:
            self._end_all()

    def _end_all(self) -> NoReturn:
        try:
            for pid in self._children:
                os.kill(pid, signal.SIGKILL)
            for pid in self._children:
                os.waitpid(pid, 0)
        finally:
            os._exit(0)

    def _received(self) -> tuple[bytes, list[int], bool]:
        """A request, the descriptors with it, and whether all of them found a place here."""
        request, extra, flags, _ = self._control.recvmsg(REQUEST.size, _socket.CMSG_SPACE(3 * INT))
        passed = array.array("i")
        for level, kind, content in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                passed.frombytes(content[: len(content) - len(content) % INT])
        return request, list(passed), not flags & _socket.MSG_CTRUNC and len(passed) == 3

    def _worker(self, descriptors: list[int], lane: int, number: int) -> int:
        try:
            pid = os.fork()
        except OSError as error:
            return -(error.errno or errno.EAGAIN)
        if pid:
            self._children.add(pid)
            return pid
        try:
            self._control.close()
            sock, lifeline, board = map(above_standard, descriptors)
            for descriptor in (sock, lifeline, board):
                os.set_inheritable(descriptor, False)
            for handled, ignored in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL)):
                signal.signal(handled, ignored)  # the worker says itself what it does at these
            _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._life(_socket.socket(fileno=sock), lifeline, board, lane, number)
        finally:
            os._exit(70)  # only reached when even the worker's own end failed


def _code(pid: int, flags: int) -> int:
    try:
        ended, status = os.waitpid(pid, flags)
    except ChildProcessError:
        return LOST_EXIT_CODE
    return os.waitstatus_to_exitcode(status) if ended else LIVES


def _lives(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0]:  # this process is the system's first one, as in a container
            return False
    except ChildProcessError as error:
        pass_on(error)
    try:
        os.kill(pid, 0)
    except ProcessLookupError as error:
        pass_on(error)
        return False
    return True
