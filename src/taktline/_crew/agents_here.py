"""Agents that are processes of this machine: for tests of what several machines need, where there is one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import MappingProxyType

from taktline._crew import agent, launcher
from taktline._crew import agents_words as told
from taktline._crew.agents_words import Parcel
from taktline._crew.devices import VISIBLE_DEVICES
from taktline._crew.helper import ARENA_BYTES, AgentLink, Placement
from taktline._signals import pass_on
from taktline._wire.channel import Channel
from taktline.errors import LineError, WorkersCannotStart

TRIES = 3  # agents in a row that end before they have said anything


class AgentProcess(AgentLink):
    """An agent in a process of its own. `places`: for so many workers it has devices, which `environment` names. Raises
    OSError where the system gives none."""

    def __init__(
        self, *, slots: int, where: str, lost_after: float, serves: int = told.ANY_LANE, places: int = 0,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.slots = slots
        self.serves = serves
        self.where = where
        self.has_spoken = False
        self._process = launcher.Process()
        self._beats, theirs = socket.socketpair()
        self._beats.setblocking(False)
        with theirs:
            boot = agent.BOOT.format(lost_after=lost_after, places=places)
            self._process.launch(theirs.fileno(), boot=boot, environment=environment)
        self._channel = Channel(self._process.socket, blocking=False, most=ARENA_BYTES)

    def fileno(self) -> int:
        """What is to be polled for what it says."""
        return self._channel.fileno()

    @property
    def backed_up(self) -> bool:
        """Whether something waits to be sent."""
        return self._channel.backed_up

    def tell(self, message: Parcel) -> None:
        self._channel.send(*message, later=True)

    def flush(self) -> None:
        """Send on what it was told, as far as it takes it."""
        try:
            self._channel.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            self._channel.give_up_sending()

    def hear(self) -> Sequence[Parcel]:
        heard = []
        self.flush()
        while (message := self._channel.receive()) is not None:
            heard.append(Parcel(message.kind, message.seq, message.note, self._channel.keep(message)))
            del message
            self._channel.release()
        self.has_spoken = self.has_spoken or bool(heard)
        return heard

    def beat(self) -> bool:
        try:
            self._beats.send(b".")
            return bool(self._beats.recv(4096))
        except OSError as error:  # nothing there; or it has ended, which is seen elsewhere
            pass_on(error)
            return False

    def gone(self) -> str:
        if self._process.poll() is None and not self._channel.ended:
            return ""
        code = self._process.poll()
        return "it has ended" if code is None else f"it has ended with exit code {code}"

    @property
    def is_unheard(self) -> bool:
        """Whether it has ended since it has heard nothing for too long; asked of one that is gone."""
        return self._process.wait(1.0) and self._process.poll() == agent.UNHEARD_EXIT_CODE

    def end(self) -> None:
        self._process.kill()
        self._process.close()
        self._channel.close()
        self._beats.close()


class _Spot:
    """Where an agent is to be: on a machine that is made up, which has things of its own."""

    def __init__(
        self, machine: int, slots: int, serves: int = told.ANY_LANE, takes: Mapping[str, float] | None = None,
        gpus: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.machine = machine
        self.slots = slots
        self.serves = serves
        self.takes = takes or {}
        self.agent: AgentProcess | None = None
        self.gpus = gpus  # of the machine, those that are reserved
        self.environment = (
            {VISIBLE_DEVICES[0]: ",".join(map(str, gpus)), "TAKTLINE_OWN": VISIBLE_DEVICES[0]} if gpus else {}
        )
        self.rests = False  # nothing was to be done there for long


class Here(Placement):
    """So many agents on this machine; another one takes the place of one that is gone. `has`: what each of them is to have as
    if it were a machine by itself."""

    def __init__(
        self, wake: Callable[[], None], *, lost_after: float, agents: int, slots: int, has: Sequence[Mapping[str, float]] = ()
    ) -> None:  # fmt: skip
        self._lost_after = lost_after
        self._slots = slots
        self._has = has or [{}] * agents
        self.places = [slots] * agents
        self._spots: list[_Spot] = []
        self._vain = 0

    def want(self, wants: Sequence[told.Want], *, plain: bool) -> None:
        for want in wants:
            left = want.workers
            for machine, has in enumerate(self._has):
                taken = [spot.takes for spot in self._spots if spot.machine == machine]
                if slots := min(left, told.fits(has, taken, want.needs)):
                    takes = {name: amount * slots for name, amount in want.needs.items()}
                    first = sum(len(spot.gpus) for spot in self._spots if spot.machine == machine)
                    gpus = range(first, first + ceil(takes.get("GPU", 0)))
                    self._spots.append(_Spot(machine, slots, want.lane, takes, gpus))
                    left -= slots
            if left:
                have = "; ".join(told.in_words(each) or "nothing" for each in self._has)
                raise LineError(f"{want}, and there is room for {want.workers - left}. The agents have: {have}")
        if plain:
            self._spots += [_Spot(machine, self._slots) for machine in range(len(self._has))]

    def come(self) -> Sequence[AgentLink]:
        came: list[AgentLink] = []
        for spot in self._spots:
            one = spot.agent
            if one is not None and one.has_spoken:
                self._vain = 0
            if not spot.rests and (one is None or one.gone() or one.fileno() < 0):
                self._vain += 1
                if self._vain > TRIES * len(self._spots) + len(self._spots):
                    raise WorkersCannotStart("agents end again and again before they have said anything")
                spot.agent = new = AgentProcess(
                    slots=spot.slots, where=f"agent {spot.machine + 1} on {os.uname().nodename}",
                    lost_after=self._lost_after, serves=spot.serves, places=len(spot.gpus) and spot.slots,
                    environment=spot.environment,
                )  # fmt: skip
                came.append(new)
        return came

    def let_go(self, agent: AgentLink) -> None:
        for spot in self._spots:
            spot.rests = spot.rests or spot.agent is agent

    def bring(self, serves: int) -> None:
        spot = next((spot for spot in self._spots if spot.rests and spot.serves == serves), None)
        if spot is not None:
            spot.rests = False

    def descriptors(self) -> Sequence[tuple[int, bool]]:
        there = [spot.agent for spot in self._spots if spot.agent is not None and spot.agent.fileno() >= 0]
        return [(one.fileno(), one.backed_up) for one in there]

    def close(self) -> None:
        for spot in self._spots:
            if spot.agent is not None:
                spot.agent.end()
