"""An agent: the workers of one machine, for a caller that may be on another one. It starts and watches them as the crew of
that machine does, and passes on what is said; it opens no batch and knows no step.

It ends with its helper, and where it has not heard from it for some time: its workers end with it.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from taktline._crew import agents_words as told
from taktline._crew import contract, launcher, protocol
from taktline._crew.devices import Devices
from taktline._crew.members import Member, WorkerProcesses
from taktline._crew.worker import hold
from taktline._signals import pass_on
from taktline._wire.board import Board
from taktline._wire.channel import Channel, Frame, new_poll
from taktline.errors import WorkersCannotStart

BOOT = "import sys; sys.path.insert(0, sys.argv.pop()); from taktline._crew.agent import main; main({lost_after}, {places})"
MEMORY = 1 << 28  # bytes of an arena of the way to the helper
UNHEARD_EXIT_CODE = 73  # exit code of an agent that has not heard from its helper for too long
LOOK = 0.05  # seconds after which workers that were asked have told where they are


def main(lost_after: float, places: int) -> NoReturn:
    """Entry of an agent's process; its descriptors are the arguments. `lost_after`: seconds that it may go unheard. `places`:
    for so many workers devices are reserved; 0: none are."""
    descriptor, lifeline, beat = map(int, sys.argv[1:4])
    hold(lifeline)
    be_left_alone()
    sys.path.pop(0)
    threading.Thread(target=listen, args=(beat, lost_after), name="taktline beat", daemon=True).start()
    Agent(Channel(socket.socket(fileno=descriptor), blocking=False, most=MEMORY), Devices(places)).live()


def be_left_alone() -> None:
    """Ctrl-C reaches the whole foreground group: the caller decides what becomes of its run."""
    signal.signal(signal.SIGINT, lambda number, frame: None)  # unlike SIG_IGN, children do not inherit this
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def listen(descriptor: int, lost_after: float) -> NoReturn:
    """Answer the helper's beats. What was frozen in between misses none: it counts the times that it has waited."""
    poll, select = new_poll()
    poll.register(descriptor, select.POLLIN)
    missed = 0
    while missed < told.BEATS_TILL_LOST:
        if not poll.poll(lost_after / told.BEATS_TILL_LOST * 1000):
            missed += 1
            continue
        missed = 0
        try:
            beats = os.read(descriptor, 4096)
            os.write(descriptor, beats[:1])
        except OSError as error:
            pass_on(error)
            beats = b""
        if not beats:
            break
    os._exit(UNHEARD_EXIT_CODE)


class Agent:
    """One agent's life. `channel`: to the helper."""

    def __init__(self, channel: Channel, devices: Devices) -> None:
        self._channel = channel
        self._devices = devices
        self._workers: _Workers | None = None
        self._asked: list[int] = []  # workers that tell where they are

    def live(self) -> NoReturn:
        """Pass on what is said until told to end, or the helper is gone."""
        code = 0
        try:
            while not self._channel.ended:
                while (message := self._channel.receive()) is not None:
                    kind = message.kind
                    if kind == told.CLOSE:
                        self._close(message.note)
                    self._do(kind, message)
                    del message
                    self._channel.release()
                if not self._channel.ended:
                    self._wait()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the helper is gone
        except BaseException:
            code = 1
            raise
        finally:
            if self._workers is not None:
                self._workers.close(gently=False)
            if code == 0:
                os._exit(0)
        raise AssertionError

    def _wait(self) -> None:
        if self._workers is None:
            poll, select = new_poll()
            poll.register(self._channel.fileno(), select.POLLIN)
            poll.poll()
            return
        heard = self._workers.wait(LOOK if self._asked else 60.0)
        if heard:
            self._tell_heard(heard)
        if self._asked:
            self._tell_states()
        self._channel.flush()
        self._workers.watch(self._channel)

    def _tell_heard(self, heard: Sequence[contract.Heard]) -> None:
        events = [(type(each).__name__, tuple(each)) for each in heard]
        self._channel.send(told.HEARD, 0, pickle.dumps(events), later=True)

    def _close(self, seconds: bytes) -> NoReturn:
        """`seconds`: packed, that workers may take; empty: none."""
        if self._workers is not None:
            if seconds:
                (self._workers.closing,) = told.SECONDS.unpack(seconds)
            self._workers.close(gently=bool(seconds))
            self._tell_heard([contract.Broken(contract.NOBODY, error) for error in self._workers.unclosed()])
        self._channel.block(True)
        self._channel.flush()
        os._exit(0)

    def _do(self, kind: int, message: Frame) -> None:
        if kind == told.EQUIP:
            around, *setups = [bytes(part) for part in message.parts]
            equip = told.Equip(*pickle.loads(message.note))
            self._workers = _Workers(self._channel, equip, self._devices, around, [_here(setup) for setup in setups])
            self._workers.watch(self._channel)
            if equip.has and not pickle.loads(equip.has)():
                self._channel.send(told.BLIND, later=True)
            return
        workers = self._workers
        if workers is None:
            return
        if kind == told.LOAD:
            worker, attempt = told.WORKER_ATTEMPT.unpack_from(message.note)
            workers.load(worker, message.seq, attempt, message.note[told.WORKER_ATTEMPT.size :], message.parts)
        elif kind == told.MORE:
            workers.more(told.WORKER_ATTEMPT.unpack(message.note)[0], message.seq)
        elif kind == told.START:
            workers.start(message.seq, *told.LANE.unpack(message.note))
        elif kind == told.END:
            workers.end(message.seq)
        elif kind == told.KILL:
            workers.kill(message.seq)
        elif kind == told.GIVE:
            workers.give(message.seq, [bytes(part) for part in message.parts])
        elif kind == told.ASK:
            self._asked = pickle.loads(message.note)
            workers.ask(self._asked)

    def _tell_states(self) -> None:
        assert self._workers is not None
        places = self._workers.look()
        states = {n: (*places[n], tuple(self._workers.describe(n))) for n in self._asked if n in places}
        self._asked = []
        self._channel.send(told.STATES, 0, pickle.dumps(states), later=True)


class _Workers(WorkerProcesses):
    """The workers of an agent. `setups`: for a worker of each lane."""

    def __init__(
        self, channel: Channel, equip: told.Equip, devices: Devices, around: bytes, setups: list[bytes]
    ) -> None:
        super().__init__(most=equip.most, limited=equip.limited)
        self._up = channel
        self._devices = devices
        self._around = around
        self._setups = setups
        self.closing = equip.closing
        self._watched = 0
        self._left: dict[int, int] = {}  # workers that are to end: the numbers that they have here since

    def watch(self, channel: Channel) -> None:
        """Let `wait` end where there is something to be had of, or to be sent on, this channel."""
        wanted = self._select.POLLIN | (self._select.POLLOUT if channel.backed_up else 0)
        if wanted != self._watched:
            self._poll.register(channel.fileno(), wanted)
            self._watched = wanted

    def _begin(self, process: launcher.Process, worker: int, lane: int, board: Board) -> None:
        process.launch(board.descriptor, environment=self._devices.environment(worker, self._members))

    def start(self, worker: int, lane: int, number: int) -> None:
        """Start a worker, which is called by this number where people see it."""
        try:
            member = self._started(worker, lane)
        except (WorkersCannotStart, OSError) as error:
            pass_on(error)
            self._untold.append(contract.StartFailed(worker, OSError(str(error))))
            return
        self._send(member, protocol.SETUP, note=b"%d" % number, parts=[self._setups[lane], self._around])

    def load(self, worker: int, seq: int, attempt: int, note: bytes, parts: Sequence[memoryview]) -> None:
        """Give it a batch, which lies in the arena of the way to the helper: from there to the worker's it is copied once."""
        if (member := self._members.get(worker)) is not None:
            member.has[seq] = attempt, None
            member.channel.send(protocol.LOAD, seq, note, parts, later=True, borrowed=True)
            self._unsent.add(worker)

    def give(self, worker: int, parts: list[bytes]) -> None:
        """What it asked for."""
        if (member := self._members.get(self._left.get(worker, worker))) is not None:
            self._send(member, protocol.GIVE, parts=parts)

    def end(self, worker: int) -> None:
        super().end(worker)
        self._left[worker] = self._leaving

    def _heard(self, worker: int, member: Member, message: Frame) -> None:
        kind = message.kind
        if kind not in (protocol.DONE, protocol.PART):
            known = worker if worker >= 0 else next(old for old, new in self._left.items() if new == worker)
            self._up.send(told.SAID, known, bytes([kind]) + message.note, later=True)
            return
        last = kind == protocol.DONE
        attempt, _ = member.has.pop(message.seq) if last else member.has[message.seq]
        note = told.CAME.pack(worker, attempt, self.holds(worker), kind) + message.note
        self._up.send(told.ANSWER, message.seq, note, message.parts, later=True, borrowed=True)

    def _aside(self, message: Frame) -> None:
        self._up.send(told.SAID, 0, bytes([message.kind]) + message.note, later=True)


def _here(setup: bytes) -> bytes:
    """A setup with this machine's folders of modules behind those of the caller's that are here, too."""
    if not setup:
        return setup
    given = protocol.Setup(*pickle.loads(setup))
    there = [each for each in given.path if not os.path.isabs(each) or os.path.exists(each)]
    own: list[Any] = [each for each in sys.path if each not in there]
    return pickle.dumps(tuple(given._replace(path=[*there, *own])))
