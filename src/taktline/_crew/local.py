"""Worker processes on this machine: starts them, carries batches to them, tells what came back and who has ended."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import monotonic_ns, perf_counter
from types import FrameType
from typing import Any, NoReturn

from taktline._crew import contract, envelope, launcher, limits, said, starts, surroundings, words
from taktline._crew import weight as weights
from taktline._crew.contract import PLAIN, Crew, Heard, Orders, Place
from taktline._crew.random_streams import all_generators, own_streams
from taktline._crew.template import Template
from taktline._observe import memory
from taktline._recipe.steps import Step
from taktline._segment import guard
from taktline._segment.batch import Batch
from taktline._signals import pass_on
from taktline._wire import board as boards
from taktline._wire import carry, identity
from taktline._wire.board import Board
from taktline._wire.channel import Channel, Message, new_poll
from taktline._wire.homes import stand_ins
from taktline.errors import DAMAGED, LineError, WorkersCannotStart

SOON = 0.02  # seconds of waiting after which the clock is looked at, where steps have a time limit
LOOK_AGAIN = 0.5  # seconds: a dead worker whose own children keep its socket open is noticed by then
GRACE = 1.0  # seconds a worker may take for its close() once the line has ended


class _Member:
    """One worker as this side sees it."""

    def __init__(self, process: launcher.Process, channel: Channel, board: Board, lane: int) -> None:
        self.process = process
        self.channel = channel
        self.board = board
        self.lane = lane
        self.asked = 0  # what poll was told to watch
        self.until = 0.0  # of one that is leaving: when its time is up
        self.has: dict[int, tuple[int, Batch]] = {}  # seq: the attempt, and the batch as it was sent
        self.began: boards.Place | None = None  # the value it has begun last, as far as it goes carefully and says so
        self.overran: boards.Place | None = None  # the value that took too long, for which it was ended
        self.unheard = False  # it was ended in the middle of what it says

    def close(self) -> None:
        """End it, and let go of all that leads to it. May be called again."""
        self.process.kill()
        self.channel.close()
        self.process.close()
        self.board.close()


class Local(Crew):
    """The crew of processes on this machine. `segments` are the steps of each lane that has workers, None for the others;
    `seeds`, where set, are what Segment takes, one a lane. `start`: "fork", "launch", or "auto", which forks where that
    is shown to be safe; `beside`: why it is not, by what else the run has.

    Raises LineError, naming the step, where a step cannot be carried over to a worker.
    """

    def __init__(
        self, segments: Sequence[tuple[Step, ...] | None], *, goes_on: bool, start: str, most: int,
        seeds: Sequence[tuple[int, int, int] | None], setup: Callable[[], object] | None = None,
        tell: Callable[[list[str], list[str]], None] = lambda reasons, missed: None, beside: str = "",
    ) -> None:  # fmt: skip
        _not_while_importing()
        self._segments = segments
        self._steps = [step for steps in segments for step in steps or ()]
        self._seeds = seeds
        self._goes_on = goes_on
        self._most = most
        self._set_up = setup
        self._tell = tell
        self._around: surroundings.Caller | None = None
        self._automatic = start == "auto"
        self.forks = start != "launch"
        self._template: Template | None = None
        self._generators: list[Any] = []
        self._setups: list[bytes] = []
        self._heavy: list[str] = []  # what of it is large, in words
        if self.forks:
            identity.look()
            found, self._generators = starts.look(self._steps)
            if self._automatic and (found := beside or found):
                self.launch_because(found)
        else:
            self._pack()
        self._limited = any(step.timeout for step in self._steps)
        self._first = [steps[0].name if steps else "" for steps in segments]
        self._last = [steps[-1].name if steps else "" for steps in segments]
        self._onward = [bool(behind) for behind in (*segments[1:], None)]  # what comes of a lane goes to workers again
        self._untold: list[Heard] = []
        self._members: dict[int, _Member] = {}
        self._by_descriptor: dict[int, int] = {}
        self._unsent: set[int] = set()  # workers with batches to flush
        self._poll, self._select = new_poll()
        self._abandoned = False
        self._ending = False  # workers were told to stop
        self._newest = launcher.Process()  # ended too, wherever its start was interrupted
        self._leaving = 0  # the newest number, below 0, of one that was told to end while the run goes on
        starts.crews.add(self)

    def start(self, worker: int, lane: int) -> None:
        try:
            self._start(worker, lane)
        except (WorkersCannotStart, OSError) as error:
            pass_on(error)
            self._untold.append(contract.StartFailed(worker, error))

    def _start(self, worker: int, lane: int) -> None:
        if self.forks and (self._template is None or self._template.lost):
            self._make_template()
        member = self._started(worker, lane)
        if not self.forks:
            if self._around is None:  # for all workers of this run, whenever they start
                self._around = surroundings.Caller(
                    self._steps, [self._set_up] if self._set_up else [], limits.environment()
                )
                self._tell(*self._around.first())
                self._tell(self._heavy, [])
            self._send(member, words.SETUP, note=b"%d" % worker, parts=[self._setups[lane], self._around.packed])

    def _started(self, worker: int, lane: int) -> _Member:
        board = Board()
        self._newest = process = launcher.Process()
        try:
            if self.forks:
                assert self._template is not None
                process.fork(self._template, lane, worker, board.descriptor)
            else:
                process.launch(board.descriptor)
            channel = Channel(process.socket, blocking=False, most=self._most)
            member = self._members[worker] = _Member(process, channel, board, lane)
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
        member.until = perf_counter() + GRACE
        self._send(member, words.STOP)

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        pack = envelope.pack_each if apart else envelope.pack
        pack(batch, self._first[lane], goes_on=self._goes_on)

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN) -> None:
        if self._abandoned:
            starts.not_in_a_fork()
        if (member := self._members.get(worker)) is None:
            return
        note, parts = envelope.seal(batch, self._first[member.lane], orders, goes_on=self._goes_on)
        member.has[seq] = attempt, batch
        member.channel.send(words.LOAD, seq, note, parts, later=True)
        self._unsent.add(worker)

    def more(self, worker: int, seq: int) -> None:
        if (member := self._members.get(worker)) is not None:
            self._send(member, words.MORE, seq)

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
                member.process.kill()

    def look(self) -> dict[int, tuple[Place | None, Place | None]]:
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
                self._signal(worker, words.ASK)

    def describe(self, worker: int) -> contract.Worker:
        if (member := self._members.get(worker)) is None:
            return super().describe(worker)
        pid = member.process.pid
        return contract.Worker(pid, _STATES.get(_state(pid), ""), member.board.stack())

    def holds(self, worker: int) -> int:
        member = self._members.get(worker)
        return memory.held_by(member.process.pid) if member is not None else 0

    def kill(self, worker: int) -> None:
        self._signal(worker, signal.SIGKILL)

    def pids(self) -> list[int]:
        return [member.process.pid for member in self._members.values()]

    def close(self, *, gently: bool) -> None:
        """`gently` takes up to GRACE seconds. Called again where a signal's handler has raised in it, it goes on, and no
        longer gently."""
        self._by_descriptor.clear()
        if gently and not self._ending:
            self._ending = True
            speaking = [each for each in self._members.values() if not (each.channel.ended or each.channel.torn)]
            self._poll, self._select = new_poll()
            for member in speaking:
                member.asked = 0
                self._send(member, words.STOP)
                self._watch(member)
            self._last_words(speaking)
        for worker, member in list(self._members.items()):
            member.close()
            self._members.pop(worker, None)
        self._newest.kill()
        self._newest.close()
        if self._template is not None:
            self._template.close()

    def abandon(self) -> None:
        """In a fork of this process: the workers are not its own, and what keeps them alive must not stay open in it."""
        members, self._members = list(self._members.values()), {}
        self._abandoned = True
        for member in members:
            member.channel.abandon()
            member.process.abandon()
            member.board.close()
        self._newest.abandon()
        if self._template is not None:
            self._template.abandon()

    def descriptors(self) -> Iterator[int]:
        """What is open here to keep workers alive, and to have more of them; but for their channels."""
        yield from (member.process.lifeline for member in list(self._members.values()))
        if self._template is not None:
            yield self._template.fileno()

    def launch_because(self, why: str) -> None:
        """Workers are launched, for this reason. Raises LineError where a step cannot be carried over to them."""
        self.forks = False
        self.why = f"workers are launched: {why}"
        try:
            self._pack()
        except WorkersCannotStart as error:
            raise WorkersCannotStart(f"{error.message}. Workers are not forked by themselves here: {why}") from None

    def _last_words(self, members: list[_Member]) -> None:
        """Hear what workers that were told to stop still say, until they are gone or the time is up."""
        end = perf_counter() + GRACE
        speaking = {member.channel.fileno(): member for member in members}
        while speaking and (left := end - perf_counter()) > 0:
            for descriptor, what in self._poll.poll(left * 1000):
                member = speaking[descriptor]
                if what & self._select.POLLOUT:
                    self._flush(member)
                while (message := member.channel.receive()) is not None:
                    if message.kind in ASIDE:
                        ASIDE[message.kind](message.note)
                    del message
                    member.channel.release()
                if member.channel.ended:
                    self._poll.unregister(descriptor)
                    del speaking[descriptor]
        for member in members:
            member.process.wait(max(0.0, end - perf_counter()))

    def _make_template(self) -> None:
        """The process that workers are forked from; where that turns out not to be safe, they are launched."""
        if self._automatic and (found := starts.why_not_here()):
            self.launch_because(found)
            return
        self._generators = all_generators(self._generators)
        self._template = Template(self._life, self._prepare)
        left = starts.threads_left()
        if left and self._automatic:
            self._template.close()
            self.launch_because(left)
        elif left:
            self.doubts = left
            warnings.warn(
                f'start="fork" is not safe here: {left}, and what belongs to it may hang there. Use start="launch", or '
                '"auto", which looks for this',
                RuntimeWarning,
                stacklevel=2,
            )
        elif self._automatic:
            self.why = (
                "workers are forked: no other thread runs here, and the steps reach nothing that two must not share"
            )

    def _prepare(self) -> None:
        """In the template, before the first worker."""
        limits.set_by_call()
        if self._automatic:  # what was asked for shares what it shares
            starts.let_go_of_pipes()

    def _life(self, sock: Any, lifeline: int, board: int, lane: int, number: int) -> NoReturn:
        """What a forked worker does."""
        from taktline._crew import worker

        own_streams(self._generators)
        steps = self._segments[lane]
        assert steps is not None
        segment = worker.segment_of(steps, goes_on=self._goes_on, seed=self._seeds[lane], most=self._most)
        worker.forked(sock, lifeline, Board(board), segment, self._most, number, self._set_up)

    def _pack(self) -> None:
        launcher.interpreter()
        stand_ins(anew=True)  # a name may have got another file since the last run
        identity.look()
        self._setups = [
            self._setup(steps, seed) if steps else b"" for steps, seed in zip(self._segments, self._seeds, strict=True)
        ]

    def _setup(self, steps: tuple[Step, ...], seed: tuple[int, int, int] | None) -> bytes:
        try:
            file = io.BytesIO()
            weight = weights.pack(steps, (steps, self._set_up), file)  # in one: they share their globals
            segment = file.getvalue()
        except Exception as error:
            pass_on(error)
            found = carry.which_function([*(step.name for step in steps), "setup="], [*steps, self._set_up])
            name, why = found if found is not None else (steps[0].name, error)
            raise LineError(
                f"step {name!r} cannot be carried over to a worker process: {type(why).__name__}: {why}. "
                'Build what it needs in the worker with per_worker(), keep the step here with kind="inline", '
                'or share this process\'s memory with start="fork"'
            ) from why
        if weight.size > weights.NOTED:
            self._heavy.append(str(weight))
        setup = words.Setup(
            path=[str(entry) for entry in sys.path], argv=list(sys.argv), stand_ins=stand_ins(), segment=segment,
            goes_on=self._goes_on, most=self._most, seed=seed,
        )  # fmt: skip
        return pickle.dumps(tuple(setup))

    def _signal(self, worker: int, number: int) -> None:
        member = self._members.get(worker)
        if member is not None and member.process.poll() is None:
            os.kill(member.process.pid, number)

    def _send(
        self, member: _Member, kind: int, seq: int = 0, note: bytes = b"", parts: Sequence[carry.Bytes] = ()
    ) -> None:
        try:
            member.channel.send(kind, seq, note, parts)
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            return  # it has died; `wait` reads what it still said, and tells
        self._watch(member)

    def _flush(self, member: _Member) -> None:
        try:
            member.channel.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            member.channel.give_up_sending()
        self._watch(member)

    def _watch(self, member: _Member) -> None:
        wanted = self._select.POLLIN | (self._select.POLLOUT if member.channel.backed_up else 0)
        if member.asked != wanted:
            self._poll.register(member.channel.fileno(), wanted)
            member.asked = wanted

    def _hear(self, worker: int, member: _Member) -> None:
        channel = member.channel
        while (message := channel.receive()) is not None:
            kind = message.kind
            if (kind == words.DONE or kind == words.PART) and not member.unheard:
                self._open(worker, member, message)
            elif kind == words.NEED:
                self._give(member, message)
            elif kind == words.WANT and self._around is not None:
                given = self._around.give(message.note)
                self._send(member, words.GIVE, parts=[given] if given is not None else [])
            elif kind == words.DIFFERS and self._around is not None:
                self._tell(*self._around.differing(message.note))
            elif kind in ASIDE:
                ASIDE[kind](message.note)
            elif kind == words.BEGAN:
                member.began = boards.Place(message.seq, *words.POSITION.unpack(message.note))
            elif kind == words.READY:
                self._untold.append(contract.Ready(worker))
            elif kind == words.SPOILED:
                self._untold.append(contract.Spoiled(worker, message.seq, member.has.pop(message.seq)[0]))
            elif kind == words.BROKEN:
                self._untold.append(contract.Broken(worker, _why_broken(words.Broken(*pickle.loads(message.note)))))
            del message  # it may refer to the arena
            channel.release()
        if channel.ended and self._members.get(worker) is member:
            self._lose(worker, member)

    def _open(self, worker: int, member: _Member, message: Message) -> None:
        """What came of a batch; where it cannot be read back as a whole it is to go again, each result by itself."""
        seq, last = message.seq, message.kind == words.DONE
        attempt, sent = member.has.pop(seq) if last else member.has[seq]
        figures, count, outcome = envelope.open_note(message.note)
        lane = member.lane
        try:
            batch, newest = envelope.open_answer(
                count, outcome, message.parts, partial(member.channel.buffers, message), sent, self._last[lane],
                goes_on=self._goes_on, onward=self._onward[lane],
            )  # fmt: skip
        except envelope.Unreadable:
            if last:
                self._untold.append(contract.Spoiled(worker, seq, attempt))
            else:  # what of it has come is not known any more
                member.unheard = True
                self.kill(worker)
            return
        size = sum(map(len, message.parts))
        self._untold.append(contract.Came(worker, seq, attempt, batch, size, figures, last, newest))

    def _lose(self, worker: int, member: _Member) -> None:
        self._by_descriptor.pop(member.channel.fileno(), None)
        self._poll.unregister(member.channel.fileno())
        member.channel.close()
        damaged = member.channel.damaged
        # One that closed its socket goes on: nothing it does counts any more.
        if damaged or not member.process.wait(GRACE):
            member.process.kill()
        member.process.close()
        code = member.process.poll() if not damaged else DAMAGED
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

    def _give(self, member: _Member, message: Message) -> None:
        module, name = pickle.loads(message.note)
        thing = getattr(sys.modules.get(module), name, None)
        self._send(member, words.GIVE, parts=[carry.pack_functions(thing, root=thing)] if thing is not None else [])


CRASHES = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}  # these leave a stack
_STATES = {
    "T": "stopped by a signal; SIGCONT lets it go on",
    "t": "held by a debugger",
    "D": "waiting for the system, such as for a disk",
}


def _told(place: boards.Place | None) -> Place | None:
    if place is None:
        return None
    return Place(*place) if place.position != boards.ANY else Place(place.seq, None, *place[2:])


def _why_broken(broken: words.Broken) -> BaseException:
    carried = carry.CarriedError(*broken.error)
    if broken.built:
        error = carry.unpack_error(carried, step="(building the steps)", trace=broken.traceback)
        error.add_note("in the worker:\n    " + broken.traceback.rstrip().replace("\n", "\n    "))
        return error
    if carried.type_name == WorkersCannotStart.__name__:
        return WorkersCannotStart(f"a worker could not load the steps: {carried.text}")
    return WorkersCannotStart(
        f"a worker could not load the steps: {carried.type_name}: {carried.text}. "
        "What the steps import must be importable in a fresh interpreter with the same sys.path.\n"
        + broken.traceback.rstrip()
    )


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
        caught, blocked = (int(masks[name], 16) >> (words.ASK - 1) & 1 for name in ("SigCgt", "SigBlk"))
    except (OSError, KeyError, ValueError) as error:
        pass_on(error)
        return True
    return bool(caught and not blocked)


ASIDE = {words.SAID: said.heard, words.LOGGED: surroundings.heard_log, words.WARNED: surroundings.heard_warning}


def _not_while_importing() -> None:
    """Raises WorkersCannotStart in a worker that is still importing what its steps need."""
    if not guard.loading:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    module = frame.f_globals.get("__name__") if frame is not None else None
    raise WorkersCannotStart(
        f"module {module!r} runs a line when it is imported, and each worker imports it: so each would start workers that "
        'start workers. Put the run into a function, or behind if __name__ == "__main__"'
    )
