"""The helper: a process beside the caller's that reaches the agents, so that what that takes, such as a cluster's own library
with its threads, lives and dies apart from the caller. It passes messages on, listens for beats, and says who has come and
who is lost. It ends with the caller, and the agents end with it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from time import monotonic, sleep
from typing import NoReturn

from taktline._crew import agents_words as told
from taktline._crew.agent import be_left_alone
from taktline._crew.agents_words import Parcel
from taktline._crew.worker import hold
from taktline._signals import pass_on
from taktline._wire.channel import Channel, new_poll
from taktline.errors import TaktlineError, WorkersCannotStart

BOOT = "import sys; sys.path.insert(0, sys.argv.pop()); from taktline._crew.helper import main; main()"
ARENA_BYTES = 1 << 28  # bytes of an arena of the way to the caller
LOOK = 0.5  # seconds between two looks for agents that have come
STARTING = 60.0  # seconds more that an agent may take for its first answer
LEAVE_SECONDS = 1.5  # that agents may take to end, beside what workers may take to close what was built for them
SHORTLY = 0.05  # seconds of waiting while they do


class AgentLink(ABC):
    """The way to one agent. What is told to one that is gone is lost."""

    slots = 1
    where = ""
    serves = told.ANY_LANE
    has_spoken = False  # something was heard of it; beats are not

    @abstractmethod
    def tell(self, message: Parcel) -> None:
        """Send it a message, in order. Does not wait for it."""

    @abstractmethod
    def hear(self) -> Sequence[Parcel]:
        """What it has said since. Does not wait for anything."""

    @abstractmethod
    def beat(self) -> bool:
        """Send it a beat, and say whether one has come back since the last time. Called in a thread of its own; does not
        wait."""

    @abstractmethod
    def gone(self) -> str:
        """Why it is gone; empty as long as nothing says that it is."""

    @abstractmethod
    def end(self) -> None:
        """End it at once, as far as it can be reached, and let go of it. May be called again."""


class Placement(ABC):
    """Where agents are. It is made with `wake`, which is to be called, from any thread, where there is something to be heard,
    and `lost_after`."""

    places: Sequence[int] = (1,)
    """For so many workers there is room on each machine, once all agents have come."""

    @abstractmethod
    def want(self, wants: Sequence[told.Want], *, plain: bool) -> None:
        """What some lanes need, and whether there are others, which need nothing: told once, before anybody comes. Raises
        LineError where it cannot be had, and is not to be waited for."""

    @abstractmethod
    def let_go(self, agent: AgentLink) -> None:
        """This one has had nothing to do for long, and ends: its machine is free, and no other one starts there."""

    @abstractmethod
    def bring(self, serves: int) -> None:
        """There is more to do: one more in the place of those that were let go."""

    @abstractmethod
    def come(self) -> Sequence[AgentLink]:
        """Agents that have come since the last time: asked every LOOK seconds. Raises what ends the run, WorkersCannotStart
        where no agent can be had."""

    @abstractmethod
    def descriptors(self) -> Sequence[tuple[int, bool]]:
        """What is to be polled besides; and whether something waits to be sent there."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


def main() -> NoReturn:
    """Entry of the helper's process; its descriptors are the arguments."""
    descriptor, lifeline = map(int, sys.argv[1:3])
    hold(lifeline)
    be_left_alone()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.path.pop(0)
    Helper(Channel(socket.socket(fileno=descriptor), blocking=False, most=ARENA_BYTES)).live()


class Beats:
    """How many times in a row each agent was listened for in vain; times are counted and no clock is asked, so that what
    was frozen here is not held against them. One that has said nothing yet is still starting, and may take longer.

    >>> beats = Beats(lost_after=10)
    >>> [beats.lost(1, came=False, has_spoken=True) for _ in range(10)].index(True)
    9
    """

    def __init__(self, lost_after: float) -> None:
        self._missed: dict[int, int] = {}
        self._starting = int(STARTING / lost_after * told.BEATS_TILL_LOST)

    def lost(self, number: int, *, came: bool, has_spoken: bool) -> bool:
        """Whether this agent is given up, which is said once; `came`: its answer to a beat, since the last time."""
        missed = self._missed.get(number, -self._starting) + 1
        self._missed[number] = missed = 0 if came else max(1, missed) if has_spoken else missed
        return missed == told.BEATS_TILL_LOST


class Helper:
    """One helper's life. `channel`: to the caller."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._placement: Placement | None = None
        self._lost_after = 10.0
        self._agents: dict[int, AgentLink] = {}
        self._number = 0  # of the newest agent
        self._unheard: queue.SimpleQueue[int] = queue.SimpleQueue()  # agents that have missed too many beats
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._next_look = 0.0
        self._wanted = False  # it is known what for
        self._closing: dict[int, tuple[AgentLink, float]] = {}  # agents that were let go: until when they may take

    def live(self) -> NoReturn:
        """Pass on what is said until told to leave, or the caller is gone."""
        code = 0
        try:
            while not self._channel.ended:
                self._hear_caller()
                if self._placement is not None:
                    self._look()
                    self._hear_agents()
                self._channel.flush()
                self._wait()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the caller is gone
        except BaseException as error:
            code = 1
            self._tell_failure(error)
        finally:
            for agent in self._all().values():
                agent.end()
            if self._placement is not None:
                self._placement.close()
            os._exit(code)

    def _all(self) -> dict[int, AgentLink]:
        """Also those that were let go."""
        return {**self._agents, **{number: agent for number, (agent, _) in list(self._closing.items())}}

    def wake(self) -> None:
        """End the wait: there is something to be heard. From any thread."""
        try:
            os.write(self._wake, b".")
        except BlockingIOError as error:  # it is awake
            pass_on(error)

    def _wait(self, seconds: float = LOOK) -> None:
        poll, select = new_poll()
        poll.register(self._woken, select.POLLIN)
        there = self._placement.descriptors() if self._placement is not None else ()
        for descriptor, backed_up in (*there, (self._channel.fileno(), self._channel.backed_up)):
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if backed_up else 0))
        poll.poll(seconds * 1000)
        try:
            os.read(self._woken, 4096)
        except BlockingIOError as error:
            pass_on(error)

    def _hear_caller(self) -> None:
        channel = self._channel
        while (message := channel.receive()) is not None:
            if message.kind == told.SITE:
                self._begin(told.Site(*pickle.loads(message.note)))
            elif message.kind == told.LEAVE:
                self._leave(message.note)
            elif message.kind == told.WANT:
                self._want(*pickle.loads(message.note))
            elif message.kind == told.LET_GO:
                self._let_go(message.note)
            elif message.kind == told.BRING:
                assert self._placement is not None
                self._placement.bring(*told.LANES.unpack(message.note))
            else:
                (number,) = told.AGENT.unpack_from(message.note)
                if (agent := self._agents.get(number)) is not None:
                    note = message.note[told.AGENT.size :]
                    agent.tell(Parcel(message.kind, message.seq, note, channel.keep(message)))
            del message
            channel.release()

    def _begin(self, site: told.Site) -> None:
        sys.path[:] = site.path
        module, _, name = site.maker.partition(":")
        self._lost_after = site.lost_after
        self._placement = getattr(import_module(module), name)(self.wake, lost_after=site.lost_after, **site.of)
        self._channel.send(told.PLACES, 0, pickle.dumps([*self._placement.places]))
        threading.Thread(target=self._beat, name="taktline beat", daemon=True).start()

    def _want(self, plain: bool, wants: Sequence[tuple[int, str, dict[str, float], int]]) -> None:
        assert self._placement is not None
        self._placement.want([told.Want(*each) for each in wants], plain=plain)
        self._wanted = True
        self._channel.send(told.GRANTED, 0)

    def _let_go(self, note: bytes) -> None:
        (number,), seconds = told.AGENT.unpack_from(note), note[told.AGENT.size :]
        if (agent := self._agents.pop(number, None)) is None:
            return
        assert self._placement is not None
        agent.tell(Parcel(told.CLOSE, 0, seconds, []))
        self._closing[number] = agent, _until(seconds)
        self._placement.let_go(agent)

    def _beat(self) -> NoReturn:
        """Beats of all agents."""
        beats = Beats(self._lost_after)
        while True:
            for number, agent in self._all().items():
                if beats.lost(number, came=agent.beat(), has_spoken=agent.has_spoken):
                    self._unheard.put(number)
                    self.wake()
            sleep(self._lost_after / told.BEATS_TILL_LOST)

    def _look(self) -> None:
        assert self._placement is not None
        if monotonic() < self._next_look or not self._wanted:
            return
        self._next_look = monotonic() + LOOK
        for agent in self._placement.come():
            self._number += 1
            self._agents[self._number] = agent
            joined = told.HasJoined(agent.slots, agent.where, agent.serves)
            self._say(told.JOINED, self._number, pickle.dumps(tuple(joined)))

    def _hear_agents(self) -> None:
        for number, agent in list(self._agents.items()):
            if gone := self._hear(number, agent):
                self._lose(number, gone)
        for number, (agent, until) in list(self._closing.items()):
            if self._hear(number, agent) or monotonic() > until:
                agent.end()
                del self._closing[number]
        while not self._unheard.empty():
            number = self._unheard.get()
            if number in self._agents:
                self._lose(number, f"nothing was heard of it for {self._lost_after:g} s")
            elif number in self._closing:
                self._closing.pop(number)[0].end()

    def _hear(self, number: int, agent: AgentLink) -> str:
        """Pass on what it says; why it is gone, if it is."""
        gone = agent.gone()  # before the last of what it says
        for message in agent.hear():
            note = told.AGENT.pack(number) + message.note
            self._channel.send(message.kind, message.seq, note, message.parts, later=True)
        return gone

    def _lose(self, number: int, why: str) -> None:
        agent = self._agents.pop(number)
        agent.end()
        self._say(told.LEFT, number, why.encode())
        self._next_look = 0.0

    def _say(self, kind: int, number: int, note: bytes) -> None:
        self._channel.send(kind, 0, told.AGENT.pack(number) + note, later=True)

    def _tell_failure(self, error: BaseException) -> None:
        known = isinstance(error, TaktlineError)
        text = str(error) if known else "".join(traceback.format_exception(error))
        name = type(error).__name__ if known else WorkersCannotStart.__name__
        try:
            self._channel.block(True)
            self._channel.send(told.FAILED, 0, pickle.dumps((name, text)))
        except (BrokenPipeError, ConnectionResetError) as gone:
            pass_on(gone)

    def _leave(self, seconds: bytes) -> NoReturn:
        """End all agents: in their own time, for so long at most, or at once. One that is not heard any more has none."""
        for agent in self._agents.values():
            agent.tell(Parcel(told.CLOSE, 0, seconds, []))
        until, left = _until(seconds), self._all()
        while left and monotonic() < until:
            for number, agent in list(left.items()):
                if self._hear(number, agent):
                    del left[number]
            while not self._unheard.empty():
                left.pop(self._unheard.get(), None)
            if left:
                self._wait(SHORTLY)
            self._channel.flush()
        for agent in self._all().values():
            agent.end()
        if self._placement is not None:
            self._placement.close()
        os._exit(0)


def _until(seconds: bytes) -> float:
    """When agents are to have ended whose workers have so long, packed, to close what was built for them."""
    return monotonic() + LEAVE_SECONDS + (told.SECONDS.unpack(seconds)[0] if seconds else 0.0)
