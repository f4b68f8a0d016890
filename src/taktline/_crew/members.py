"""Worker processes on this machine, whatever they run: starts and ends them, watches them, and carries messages.

What is in the messages is for who derives from it: the crew of this machine, and an agent, which passes them on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from time import monotonic_ns, perf_counter
from typing import Any

from taktline._crew import contract, launcher, protocol, starts
from taktline._crew.contract import Heard, WorkerPlace
from taktline._observe import memory
from taktline._signals import pass_on
from taktline._wire import board as boards
from taktline._wire import serialize
from taktline._wire.board import Board
from taktline._wire.channel import Channel, Frame, new_poll
from taktline.errors import DAMAGED_EXIT_CODE

SOON = 0.02  # seconds of waiting after which the clock is looked at, where steps have a time limit
LOOK_AGAIN = 0.5  # seconds: a dead worker whose own children keep its socket open is noticed by then
LONG = 60.0  # seconds of one wait
GRACE = 1.0  # seconds that a process may take to end


class Member:
    """One worker as this side sees it."""

    def __init__(self, process: launcher.Process, channel: Channel, board: Board, lane: int) -> None:
        self.process = process
        self.channel = channel
        self.board = board
        self.lane = lane
        self.asked = 0  # what poll was told to watch
        self.until = 0.0  # of one that is leaving: when its time is up
        self.has: dict[int, tuple[int, Any]] = {}  # seq: the attempt, and the batch as it was sent, where it is here
        self.began: boards.BoardPlace | None = (
            None  # the value it has begun last, as far as it goes carefully and says so
        )
        self.overran: boards.BoardPlace | None = None  # the value that took too long, for which it was ended
        self.closes = False  # it has built what it may have to close
        self.unheard = False  # it was ended in the middle of what it says

    def close(self) -> None:
        """End it, and let go of all that leads to it. May be called again."""
        self.process.kill()
        self.channel.close()
        self.process.close()
        self.board.close()


class WorkerProcesses:
    """The worker processes of one crew. `most`: bytes of an arena. `limited`: steps have a time limit."""

    def __init__(self, *, most: int, limited: bool) -> None:
        self.seconds = 0.0
        self._most = most
        self._limited = limited
        self._untold: list[Heard] = []
        self._members: dict[int, Member] = {}
        self._by_descriptor: dict[int, int] = {}
        self._unsent: set[int] = set()  # workers with batches to flush
        self._poll, self._select = new_poll()
        self.closing = GRACE  # seconds that workers may take to close what was built for them
        self._unclosed: list[BaseException] = []
        self._abandoned = False
        self._ending = False  # workers were told to stop
        self._newest = launcher.Process()  # ended too, wherever its start was interrupted
        self._leaving = 0  # the newest number, below 0, of one that was told to end while the run goes on
        starts.crews.add(self)

    # --- for who derives from it ---

    def _begin(self, process: launcher.Process, worker: int, lane: int, board: Board) -> None:
        """Start the process of this worker."""
        process.launch(board.descriptor)

    def _heard(self, worker: int, member: Member, message: Frame) -> None:
        """A message came that is not of the process itself."""
        raise NotImplementedError

    def _aside(self, message: Frame) -> None:
        """A worker that is to end has said this."""
        raise NotImplementedError

    # --- their life ---

    def _started(self, worker: int, lane: int) -> Member:
        board = Board()
        self._newest = process = launcher.Process()
        try:
            self._begin(process, worker, lane, board)
            channel = Channel(process.socket, blocking=False, most=self._most)
            member = self._members[worker] = Member(process, channel, board, lane)
            self._by_descriptor[channel.fileno()] = worker
            self._watch(member)
        except BaseException:
            process.close()
            process.kill()
            self._members.pop(worker, None)
            board.close()
            raise
        return member

    def end(self, worker: int) -> None:
        if worker not in self._members:
            return
        self._leaving -= 1
        # In one line: what a signal's handler raises before it or behind it loses no worker.
        member = self._members[self._leaving] = self._members.pop(worker)
        self._by_descriptor[member.channel.fileno()] = self._leaving
        member.until = perf_counter() + (self.closing if member.closes else GRACE)
        self._send(member, protocol.STOP)

    def more(self, worker: int, seq: int) -> None:
        if (member := self._members.get(worker)) is not None:
            self._send(member, protocol.MORE, seq)

    def wait(self, seconds: float) -> list[Heard]:
        if self._abandoned:
            starts.not_in_a_fork()
        while self._unsent:
            if (waiting := self._members.get(self._unsent.pop())) is not None:
                self._flush(waiting)
        if self._leaving:
            self._end_the_late()
        most = 0 if self._untold else SOON if self._limited else LOOK_AGAIN
        events = self._poll.poll(min(seconds, most) * 1000)
        began = perf_counter()
        for descriptor, what in events:
            worker = self._by_descriptor.get(descriptor)
            if worker is None:
                continue
            member = self._members[worker]
            if what & self._select.POLLOUT:
                self._flush(member)
            if what & ~self._select.POLLOUT:
                self._hear(worker, member)
        if not events and seconds > 0:
            for worker, member in list(self._members.items()):
                if member.process.poll() is not None:
                    self._hear(worker, member)
                    if self._members.get(worker) is member:
                        self._lose(worker, member)
        if self._limited:
            self._end_overdue()
        told, self._untold = self._untold, []
        if told:
            self.seconds += perf_counter() - began
        return told

    def _end_the_late(self) -> None:
        for worker, member in self._members.items():
            if worker < 0 and perf_counter() > member.until:
                member.until = inf
                member.process.kill()
                if member.closes:
                    self._untold.append(contract.Broken(worker, self._too_long()))

    def look(self) -> dict[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        return {
            worker: (_told(member.board.mark.get()), _told(member.board.seen.get()))
            for worker, member in self._members.items()
            if worker >= 0
        }

    def _end_overdue(self) -> None:
        """End the workers whose value takes longer than it may."""
        now_ns = monotonic_ns()
        for worker, member in self._members.items():
            mark = member.board.mark.get()
            late = worker >= 0 and mark is not None and 0 < mark.deadline_ns < now_ns
            if late and member.overran is None and member.process.poll() is None:  # it did not end by itself
                member.overran = mark
                self.kill(worker)

    def ask(self, workers: Iterable[int]) -> None:
        for worker in workers:
            member = self._members.get(worker)
            # The signal may belong to a step by now: who does not expect it from us would be ended by it.
            if member and member.board.seen.used and not member.board.taken.used and _hears(member.process.pid):
                self._signal(worker, protocol.ASK_SIGNAL)

    def describe(self, worker: int) -> contract.WorkerState:
        if (member := self._members.get(worker)) is None:
            return contract.WorkerState(0, "", "")
        pid = member.process.pid
        return contract.WorkerState(pid, _STATES.get(_state(pid), ""), member.board.stack())

    def holds(self, worker: int) -> int:
        member = self._members.get(worker)
        return memory.held_by(member.process.pid) if member is not None else 0

    def kill(self, worker: int) -> None:
        self._signal(worker, signal.SIGKILL)

    def pids(self) -> list[int]:
        return [member.process.pid for member in self._members.values()]

    def close(self, *, gently: bool) -> None:
        """`gently` takes up to `closing` seconds. Called again where a signal's handler has raised in it, it goes on, and no
        longer gently."""
        self._by_descriptor.clear()
        if (gently or _is_measured()) and not self._ending:
            self._ending = True
            speaking = [each for each in self._members.values() if not (each.channel.ended or each.channel.torn)]
            self._poll, self._select = new_poll()
            for member in speaking:
                member.asked = 0
                self._send(member, protocol.STOP)
                self._watch(member)
            self._last_words(speaking)
        for worker, member in list(self._members.items()):
            member.close()
            self._members.pop(worker, None)
        self._newest.kill()
        self._newest.close()

    def unclosed(self) -> Sequence[BaseException]:
        return self._unclosed

    def abandon(self) -> None:
        """In a fork of this process: the workers are not its own, and what keeps them alive must not stay open in it."""
        members, self._members = list(self._members.values()), {}
        self._abandoned = True
        for member in members:
            member.channel.abandon()
            member.process.abandon()
            member.board.close()
        self._newest.abandon()

    def descriptors(self) -> Iterator[int]:
        """What is open here to keep workers alive, but for their channels."""
        yield from (member.process.lifeline for member in list(self._members.values()))

    def _last_words(self, members: list[Member]) -> None:
        """Hear what workers that were told to stop still say, until they are gone or the time is up."""
        began = perf_counter()
        speaking = {member.channel.fileno(): member for member in members}
        while speaking:
            end = began + (self.closing if any(each.closes for each in speaking.values()) else GRACE)
            if (left := end - perf_counter()) <= 0:
                break
            for descriptor, what in self._poll.poll(min(left, LONG) * 1000):
                member = speaking[descriptor]
                if what & self._select.POLLOUT:
                    self._flush(member)
                while (message := member.channel.receive()) is not None:
                    self._aside(message)
                    del message
                    member.channel.release()
                if member.channel.ended:
                    self._poll.unregister(descriptor)
                    del speaking[descriptor]
        for member in members:
            member.process.wait(max(0.0, began + GRACE - perf_counter()))
        if any(member.closes for member in speaking.values()):
            self._unclosed.append(self._too_long())

    def _too_long(self) -> TimeoutError:
        return contract.closes_too_long(self.closing, "worker was ended")

    def _signal(self, worker: int, number: int) -> None:
        member = self._members.get(worker)
        if member is not None and member.process.poll() is None:
            os.kill(member.process.pid, number)

    def _send(
        self, member: Member, kind: int, seq: int = 0, note: bytes = b"", parts: Sequence[serialize.Bytes] = ()
    ) -> None:
        try:
            member.channel.send(kind, seq, note, parts)
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            return  # it has died; `wait` reads what it still said, and tells
        self._watch(member)

    def _flush(self, member: Member) -> None:
        try:
            member.channel.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            member.channel.give_up_sending()
        self._watch(member)

    def _watch(self, member: Member) -> None:
        wanted = self._select.POLLIN | (self._select.POLLOUT if member.channel.backed_up else 0)
        if member.asked != wanted:
            self._poll.register(member.channel.fileno(), wanted)
            member.asked = wanted

    def _hear(self, worker: int, member: Member) -> None:
        channel = member.channel
        while (message := channel.receive()) is not None:
            kind = message.kind
            if kind == protocol.BEGAN:
                member.began = boards.BoardPlace(message.seq, *protocol.POSITION.unpack(message.note))
            elif kind == protocol.READY:
                member.closes = bool(message.note)
                self._untold.append(contract.Ready(worker))
            elif kind == protocol.SPOILED:
                self._untold.append(contract.Spoiled(worker, message.seq, member.has.pop(message.seq)[0], there=True))
            else:
                self._heard(worker, member, message)
            del message  # it may refer to the arena
            channel.release()
        if channel.ended and self._members.get(worker) is member:
            self._lose(worker, member)

    def _lose(self, worker: int, member: Member) -> None:
        self._by_descriptor.pop(member.channel.fileno(), None)
        self._poll.unregister(member.channel.fileno())
        member.channel.close()
        damaged = member.channel.damaged
        # One that closed its socket goes on: nothing it does counts any more.
        if damaged or not member.process.wait(GRACE):
            member.process.kill()
        member.process.close()
        code = member.process.poll() if not damaged else DAMAGED_EXIT_CODE
        crashed = code is not None and -code in CRASHES
        # What was written into the socket was so before the next value began, wherever the worker is by now.
        mark, overran = member.board.mark.get() if not damaged else member.began, member.overran
        stack = member.board.stack() if crashed else ""
        member.board.close()
        del self._members[worker]
        if worker >= 0:
            # It may have gone on to the next value just before it was ended: then that one is not to blame.
            exact = mark is not None and overran is not None and mark[:3] == overran[:3]
            self._untold.append(contract.Ended(worker, code, _told(mark), overran is not None, exact, stack))


CRASHES = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}  # these leave a stack
_STATES = {
    "T": "stopped by a signal; SIGCONT lets it go on",
    "t": "held by a debugger",
    "D": "waiting for the system, such as for a disk",
}


def _told(place: boards.BoardPlace | None) -> WorkerPlace | None:
    if place is None:
        return None
    return WorkerPlace(*place) if place.position != boards.ANY_POSITION else WorkerPlace(place.seq, None, *place[2:])


def _state(pid: int) -> str:
    """The letter that Linux has for the state of a process; empty elsewhere."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError) as error:
        pass_on(error)
        return ""


def _hears(pid: int) -> bool:
    """Whether a process has a handler for the signal that asks, and has not blocked it, as far as the system tells."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = dict(entry.split(":", 1) for entry in file.read().splitlines() if entry.startswith("Sig"))
        caught, blocked = (int(masks[name], 16) >> (protocol.ASK_SIGNAL - 1) & 1 for name in ("SigCgt", "SigBlk"))
    except (OSError, KeyError, ValueError) as error:
        pass_on(error)
        return True
    return bool(caught and not blocked)


def _is_measured() -> bool:
    """Whether coverage.py looks on: what it saw in a worker is written when that ends by itself."""
    coverage = sys.modules.get("coverage")
    return coverage is not None and coverage.Coverage.current() is not None
