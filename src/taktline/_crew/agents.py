"""The crew of workers on several machines, as the caller has it: an agent on each starts and watches the workers there.

A worker has a place at one agent. It is known there by a number that none has had before, so that nothing that is heard
late is taken for somebody else's. Where an agent is lost its workers are: they may still be at work, and nobody is to blame.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import ceil
from time import monotonic, perf_counter
from typing import Any

from taktline._crew import agents_words as told
from taktline._crew import contract, helper, launcher, protocol, starts
from taktline._crew.callers_side import CallersSide, Tell, why_broken
from taktline._crew.contract import PLAIN_ORDERS, Crew, Heard, Orders, WorkerPlace
from taktline._crew.reach import opens_files, reached
from taktline._recipe.steps import Step
from taktline._schedule.sizing import far_aim
from taktline._segment.batch import Batch
from taktline._signals import pass_on
from taktline._wire.channel import Channel, Frame, new_poll
from taktline.errors import LineError, WorkersCannotStart

LOOK_AGAIN = 0.5  # seconds of waiting after which it is looked whether the helper lives
GRACE = 1.0  # seconds more than agents that the helper may take to end
SAYS = 4  # agents that are named in the report


class HelperProcess:
    """The helper's process, as the caller has it."""

    def __init__(self, site: told.Site) -> None:
        self.process = launcher.Process()
        try:
            self.process.launch(boot=helper.BOOT)
            self.channel = Channel(self.process.socket, blocking=False, most=helper.ARENA_BYTES)
            self.channel.send(told.SITE, 0, pickle.dumps(tuple(site)))
        except BaseException:
            self.process.close()
            self.process.kill()
            raise
        self._poll, self._select = new_poll()
        self._process = os.getpid()
        self._places: list[int] = []  # not known
        self._granted = False
        self.ends_where = ""  # when it does so by itself, in words

    @property
    def is_ours(self) -> bool:
        """Whether it is this process's, and not that of the one that was forked."""
        return self._process == os.getpid() and not self.channel.ended

    def places(self) -> list[int]:
        """How many workers there are places for, on each machine. Waits for it; raises what the helper has failed with."""
        while not self._places:
            self._hear()
        return self._places

    def want(self, wants: Sequence[told.Want], *, plain: bool) -> None:
        """Say what lanes need, and whether there are `plain` ones, which need nothing. Waits until that is granted; raises
        LineError where no machine has it."""
        self.channel.send(told.WANT, 0, pickle.dumps((plain, [tuple(want) for want in wants])))
        while not self._granted:
            self._hear()

    def _hear(self) -> None:
        """Before there are agents."""
        self.flush()
        self.poll(LOOK_AGAIN)
        while not (self._granted and self._places) and (message := self.channel.receive()) is not None:
            kind, note = message.kind, message.note
            del message
            self.channel.release()
            if kind == told.PLACES:
                self._places = pickle.loads(note)
            elif kind == told.GRANTED:
                self._granted = True
            elif kind == told.FAILED:
                self.close()
                raise failed(note)
        if self.channel.ended:
            raise self.failure()

    def __del__(self) -> None:
        if getattr(self, "_process", 0) == os.getpid():
            self.close()

    def poll(self, seconds: float) -> None:
        """Wait until there is something to be had, or to be sent on."""
        wanted = self._select.POLLIN | (self._select.POLLOUT if self.channel.backed_up else 0)
        self._poll.register(self.channel.fileno(), wanted)
        self._poll.poll(seconds * 1000)

    def flush(self) -> None:
        """Send on what is waiting."""
        try:
            self.channel.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            self.channel.give_up_sending()

    def failure(self) -> BaseException:
        """What to say of one that has ended by itself."""
        self.process.wait(1.0)
        return WorkersCannotStart(
            f"the helper process that reaches the other machines has ended (exit code {self.process.poll()})"
            f"{self.ends_where}. With a journal the run goes on from where it is: run it again"
        )

    def close(self) -> None:
        """End it, and with it all agents. May be called again."""
        self.process.kill()
        self.process.close()
        self.channel.close()

    def abandon(self) -> None:
        """In a fork of the caller's process."""
        self.channel.abandon()
        self.process.abandon()


def failed(note: bytes) -> BaseException:
    """What the helper says that nothing will come of."""
    name, text = pickle.loads(note)
    return LineError(text) if name == LineError.__name__ else WorkersCannotStart(text)


def site(maker: str, of: dict[str, Any], lost_after: float) -> told.Site:
    """Where agents are to be, for a helper that has this process's modules."""
    return told.Site(maker, of, lost_after, [str(entry) for entry in sys.path])


class _Reached:
    """An agent that has come."""

    def __init__(self, number: int, joined: told.HasJoined) -> None:
        self.number = number
        self.slots = joined.slots  # workers of a lane that have a place here
        self.where = joined.where
        self.serves = joined.serves
        self.workers: dict[int, int] = {}  # that are here: the lanes of them
        self._by_lane: Counter[int] = Counter()
        self.since = monotonic()  # it has had something to do, or come

    def takes(self, known: int, lane: int) -> None:
        """A worker has its place here."""
        self.workers[known] = lane
        self._by_lane[lane] += 1

    def loses(self, known: int) -> None:
        """A worker has no place here any more."""
        if (lane := self.workers.pop(known, None)) is not None:
            self._by_lane[lane] -= 1

    def of_lane(self, lane: int) -> int:
        """How many workers of a lane are here."""
        return self._by_lane[lane]


class _Placed:
    """A worker that has a place."""

    def __init__(self, number: int, lane: int, agent: _Reached, known: int) -> None:
        self.number = number
        self.lane = lane
        self.agent = agent
        self.known = known  # its number there
        self.has: dict[int, tuple[int, Batch]] = {}  # seq: the attempt, and the batch as it was sent
        self.ready = False
        self.unheard = False  # it was ended in the middle of what it says
        self.memory = 0


class AgentCrew(Crew):
    """The crew. `segments` are the steps of each lane that has workers, None for the others; `workers`: how many there will
    be of the largest lane, on how many `places`. `start_within`: seconds in which there must be an agent.

    Raises LineError, naming the step, where a step cannot be carried over to a worker."""

    def __init__(
        self, segments: Sequence[tuple[Step, ...] | None], *, helper: HelperProcess, goes_on: bool, workers: int, most: int,
        seeds: Sequence[tuple[int, int, int] | None], setup: Callable[[], object] | None = None,
        tell: Tell = lambda reasons, missed: None, places: int, start_within: float = 60.0, idle_after: float | None = None,
    ) -> None:  # fmt: skip
        self._helper = helper
        self._wants = {
            lane: told.Want(lane, steps[0].name, dict(steps[0].resources), steps[0].workers or 1)
            for lane, steps in enumerate(segments) if steps and steps[0].resources
        }  # fmt: skip
        plain = any(steps and lane not in self._wants for lane, steps in enumerate(segments))
        try:
            self._side = CallersSide(
                segments, goes_on=goes_on, most=most, seeds=seeds, set_up=setup, tell=tell, elsewhere=True
            )
            self._side.pack()
            self._opens_files = opens_files(reached(self._side.steps), setup)
            helper.want([*self._wants.values()], plain=plain)
        except BaseException:
            helper.close()
            raise
        self._limited = any(step.timeout for step in self._side.steps)
        self._builds = any(step.maker is not None for step in self._side.steps)
        self._most = most
        self.batch_seconds = far_aim(workers)
        self._share = max(1.0, workers / max(1, places))  # workers of a lane for each place
        self._failure: BaseException | None = None  # what the helper has ended with
        self._tell = tell
        self._start_within = start_within
        self._idle_after = idle_after
        self._next_look = 0.0  # for agents that have nothing to do
        self._resting: Counter[int] = Counter()  # whom agents serve that were let go: how many
        # Whom no agent serves, since when: a lane with needs of its own, or ANY_LANE.
        self._unserved = dict.fromkeys([*self._wants, *([told.ANY_LANE] if plain else [])], monotonic())
        self._agents: dict[int, _Reached] = {}
        self._workers: dict[int, _Placed] = {}
        self._by_known: dict[int, _Placed] = {}
        self._waiting: dict[int, int] = {}  # workers without a place: their lanes
        self._states: dict[int, Any] = {}
        self._known = 0
        self._has = b""  # pickled: what tells whether a machine has what parts of the source name
        self._untold: list[Heard] = []
        self._unclosed: list[BaseException] = []
        self._told_where = self._abandoned = self._ending = False
        starts.crews.add(self)

    def look_first(self, has: Callable[[], bool]) -> None:
        self._has = pickle.dumps(has)

    # --- who is where ---

    def start(self, worker: int, lane: int) -> None:
        self._side.around()  # as they are now
        if (agent := self._place(lane)) is None:
            self._waiting[worker] = lane
            self._untold.append(contract.Withdrawn(worker))
            return
        self._start_at(agent, worker, lane)

    def _place(self, lane: int) -> _Reached | None:
        """The agent that has the most room for a worker of this lane."""
        serves = self._served_as(lane)
        free = [
            each for each in self._agents.values() if each.serves == serves and each.of_lane(lane) < self._room(each)
        ]
        return min(free, key=lambda each: (each.of_lane(lane) / self._room(each), len(each.workers)), default=None)

    def _served_as(self, lane: int) -> int:
        return lane if lane in self._wants else told.ANY_LANE

    def _room(self, agent: _Reached) -> int:
        """Workers of a lane that an agent takes: its places, or more where more workers are wanted than there are places."""
        return ceil(agent.slots * self._share) if agent.serves == told.ANY_LANE else agent.slots

    def _start_at(self, agent: _Reached, worker: int, lane: int) -> None:
        self._known += 1
        member = _Placed(worker, lane, agent, self._known)
        self._workers[worker] = self._by_known[self._known] = member
        agent.takes(self._known, lane)
        self._say(agent, told.START, self._known, told.LANE.pack(lane, worker))

    def _give_places(self) -> None:
        for worker, lane in list(self._waiting.items()):
            if (agent := self._place(lane)) is not None:
                del self._waiting[worker]
                self._start_at(agent, worker, lane)

    def _forget(self, member: _Placed) -> None:
        self._by_known.pop(member.known, None)
        member.agent.loses(member.known)
        self._states.pop(member.known, None)
        if self._workers.get(member.number) is member:
            del self._workers[member.number]

    # --- what they are told ---

    def _say(
        self, agent: _Reached, kind: int, seq: int = 0, note: bytes = b"", parts: Sequence[Any] = (), *, later: bool = False
    ) -> None:  # fmt: skip
        try:
            self._helper.channel.send(kind, seq, told.AGENT.pack(agent.number) + note, parts, later=later)
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)  # `wait` tells

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        self._side.prepare(batch, lane, apart=apart)

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        if self._abandoned:
            starts.not_in_a_fork()
        if (member := self._workers.get(worker)) is None:
            return
        note, parts = self._side.seal(batch, member.lane, orders)
        member.has[seq] = attempt, batch
        member.agent.since = monotonic()
        self._say(
            member.agent, told.LOAD, seq, told.WORKER_ATTEMPT.pack(member.known, attempt) + note, parts, later=True
        )

    def more(self, worker: int, seq: int) -> None:
        if (member := self._workers.get(worker)) is not None:
            self._say(member.agent, told.MORE, seq, told.WORKER_ATTEMPT.pack(member.known, 0))

    def end(self, worker: int) -> None:
        if (member := self._workers.get(worker)) is not None:
            self._forget(member)
            self._say(member.agent, told.END, member.known)

    def kill(self, worker: int) -> None:
        if (member := self._workers.get(worker)) is not None:
            self._say(member.agent, told.KILL, member.known)

    def ask(self, workers: Iterable[int]) -> None:
        by_agent: dict[int, list[int]] = {}
        for worker in workers:
            if (member := self._workers.get(worker)) is not None:
                by_agent.setdefault(member.agent.number, []).append(member.known)
        for number, known in by_agent.items():
            self._say(self._agents[number], told.ASK, 0, pickle.dumps(known))

    # --- what is heard of them ---

    def wait(self, seconds: float) -> list[Heard]:
        if self._abandoned:
            starts.not_in_a_fork()
        helper = self._helper
        helper.flush()
        helper.poll(0.0 if self._untold else min(seconds, LOOK_AGAIN))
        began = perf_counter()
        channel = helper.channel
        while (message := channel.receive()) is not None:
            self._heard(message)
            del message  # it may refer to the arena
            channel.release()
        helper.flush()
        if channel.ended:
            self._untold.append(contract.Broken(0, self._failure or helper.failure()))
        self._look_around()
        heard, self._untold = self._untold, []
        if heard:
            self.seconds += perf_counter() - began
        return heard

    def _look_around(self) -> None:
        now = monotonic()
        if self._waiting:
            self._give_places()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_AGAIN
        for serves, since in self._unserved.items():
            if now - since > self._start_within:
                self._unserved[serves] = now
                self._untold.append(contract.Broken(0, self._nobody_for(serves)))
        if self._idle_after is not None:
            self._let_go(now, self._idle_after)
        if self._resting:
            self._bring_back()

    def _nobody_for(self, serves: int) -> WorkersCannotStart:
        if serves == told.ANY_LANE:
            what = f"no machine has had a place for a worker for {self._start_within:g} s"
        else:
            want = self._wants[serves]
            what = f"{want}, and no machine has had that free for {self._start_within:g} s"
        return WorkersCannotStart(f"{what}. See whether the cluster is up, or give it longer with start_within=")

    def _let_go(self, now: float, idle_after: float) -> None:
        """Agents that have had nothing to do for so long free their machines: all but one, which is there for what comes."""
        by_number = {member.agent.number for member in self._workers.values() if member.has or not member.ready}
        for agent in list(self._agents.values()):
            if agent.number in by_number:
                agent.since = now
            others = sum(each.serves == agent.serves for each in self._agents.values())
            if now - agent.since < idle_after or others == 1:
                continue
            self._tell([f"{agent.where} was let go: it had nothing to do for {idle_after:g} s"], [])
            self._say(agent, told.LET_GO, note=told.SECONDS.pack(self._closes_within()))
            del self._agents[agent.number]
            self._resting[agent.serves] += 1
            for known in list(agent.workers):
                member = self._by_known[known]
                self._forget(member)
                self._waiting[member.number] = member.lane
                self._untold.append(contract.Withdrawn(member.number))

    def _bring_back(self) -> None:
        """Where all workers that have a place have more than they can do, and others have none."""
        for serves in list(self._resting):
            lanes = {lane for lane in self._waiting.values() if self._served_as(lane) == serves}
            placed = [member for member in self._workers.values() if member.lane in lanes]
            if lanes and all(len(member.has) > 1 for member in placed):
                self._resting[serves] -= 1
                self._resting += Counter()  # without those that are none
                try:
                    self._helper.channel.send(told.BRING, 0, told.LANES.pack(serves), later=True)
                except (BrokenPipeError, ConnectionResetError) as error:
                    pass_on(error)  # `wait` tells

    def _heard(self, message: Frame) -> None:
        kind = message.kind
        if kind == told.FAILED:
            self._failure = failed(message.note)
            return
        (number,) = told.AGENT.unpack_from(message.note)
        note = message.note[told.AGENT.size :]
        if kind == told.ANSWER:
            self._came(message, note)
        elif kind == told.SAID:
            self._said(self._agents.get(number), message.seq, note[0], note[1:])
        elif kind == told.HEARD:
            for name, fields in pickle.loads(note):
                self._happened(getattr(contract, name)(*fields))
        elif kind == told.BLIND:
            if number in self._agents:
                self._untold.append(contract.Blind(contract.NOBODY, self._agents[number].where))
        elif kind == told.STATES:
            self._states.update(pickle.loads(note))
        elif kind == told.JOINED:
            self._joins(number, told.HasJoined(*pickle.loads(note)))
        elif kind == told.LEFT and number in self._agents:
            self._leaves(self._agents.pop(number), note.decode())

    def _joins(self, number: int, joined: told.HasJoined) -> None:
        agent = self._agents[number] = _Reached(number, joined)
        self._unserved.pop(joined.serves, None)
        parts = [self._side.around(), *self._side.setups]
        equip = told.Equip(self._limited, self._most, self._closes_within(), self._has)
        self._say(agent, told.EQUIP, 0, pickle.dumps(tuple(equip)), parts)
        if self._told_where:
            self._tell([f"{joined.where} has come"], [])
        self._give_places()

    def _leaves(self, agent: _Reached, why: str) -> None:
        self._tell([f"{agent.where} was lost: {why}; what it had at work went elsewhere"], [])
        for known in list(agent.workers):
            if (member := self._by_known.get(known)) is not None:
                self._forget(member)
                self._untold.append(contract.Lost(member.number, f"{agent.where}: {why}"))
        if all(each.serves != agent.serves for each in self._agents.values()):
            self._unserved[agent.serves] = monotonic()

    def _happened(self, event: Heard) -> None:
        """An event of one agent, whose worker is called by its number there."""
        if (member := self._by_known.get(event.worker)) is None:
            if (
                type(event) is contract.Broken
            ):  # of one that was replaced, or let go: what was built could not be closed
                self._untold.append(event)
            return
        event = event._replace(worker=member.number)
        if type(event) is contract.StartFailed:
            self._forget(member)
            member.agent.slots = min(member.agent.slots, member.agent.of_lane(member.lane))  # no more than it has
            if self._place(member.lane) is not None:
                self.start(member.number, member.lane)
                return
        elif type(event) is contract.Ended:
            self._forget(member)
        elif type(event) is contract.Spoiled:
            del member.has[event.seq]
        self._untold.append(event)
        if type(event) is contract.Ready:
            member.ready = True
            self._say_where()

    def _say_where(self) -> None:
        """Once all have a place that have one: the report is to say where."""
        if not self._told_where:
            self._told_where = True
            names = [each.where for each in self._agents.values()]
            more = f", and {len(names) - SAYS} more" if len(names) > SAYS else ""
            self._tell([f"workers run on {', '.join(names[:SAYS])}{more}"], [])

    def _said(self, agent: _Reached | None, known: int, kind: int, note: bytes) -> None:
        if kind in (protocol.NEED, protocol.WANT, protocol.MODULE):
            if agent is not None:
                self._say(agent, told.GIVE, known, parts=self._side.gives(kind, note))
        elif kind == protocol.BROKEN:
            error, member = why_broken(note), self._by_known.get(known)
            if member is not None:
                error.add_note(f"on {member.agent.where}")
            self._untold.append(contract.Broken(contract.NOBODY if member is None else member.number, error))
        else:
            self._side.hears(kind, note)

    def _came(self, message: Frame, note: bytes) -> None:
        """What came of a batch; where it cannot be read back as a whole it is to go again, each result by itself."""
        known, attempt, memory, kind = told.CAME.unpack_from(note)
        member = self._by_known.get(known)
        if member is None or member.unheard:
            return
        member.memory = memory
        seq, last = message.seq, kind == protocol.DONE
        _, sent = member.has.pop(seq) if last else member.has[seq]
        came = self._side.open(
            member.number, seq, attempt, member.lane, sent, note[told.CAME.size :], message.parts,
            partial(self._helper.channel.buffers, message), last=last,
        )  # fmt: skip
        if came is not None:
            self._untold.append(came)
        elif last:
            self._untold.append(contract.Spoiled(member.number, seq, attempt))
        else:  # what of it has come is not known any more
            member.unheard = True
            self.kill(member.number)

    # --- what is known of them ---

    def look(self) -> dict[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        return {
            n: self._states[each.known][:2] if each.known in self._states else (None, None)
            for n, each in self._workers.items()
        }

    def describe(self, worker: int) -> contract.WorkerState:
        member = self._workers.get(worker)
        if member is None or member.known not in self._states:
            return super().describe(worker)
        pid, state, stack = self._states[member.known][2]
        where = f"on {member.agent.where}"
        return contract.WorkerState(pid, f"{state}, {where}" if state else where, stack)

    def where(self, worker: int) -> str:
        member = self._workers.get(worker)
        return member.agent.where if member is not None else ""

    def holds(self, worker: int) -> int:
        member = self._workers.get(worker)
        return member.memory if member is not None else 0

    # --- the end ---

    def close(self, *, gently: bool) -> None:
        """`gently` takes up to `closing` seconds, and a moment. An agent that cannot be reached is given up on as ever."""
        helper, first = self._helper, not self._ending
        self._ending = True
        try:
            if first and not (helper.channel.ended or helper.channel.torn):
                self._leave(gently=gently or self._opens_files)
        finally:
            self._workers.clear()
            helper.close()

    def _closes_within(self) -> float:
        """Seconds that workers may take to close what was built for them: for a moment, where nothing was."""
        return self.closing if self._builds else Crew.closing

    def _leave(self, *, gently: bool) -> None:
        channel, seconds = self._helper.channel, self._closes_within() if gently else 0.0
        until = monotonic() + seconds + helper.LEAVE_SECONDS + GRACE
        try:
            channel.send(told.LEAVE, 0, told.SECONDS.pack(seconds) if gently else b"")
        except (BrokenPipeError, ConnectionResetError) as error:
            pass_on(error)
            return
        while not channel.ended and (left := until - monotonic()) > 0:
            self._helper.poll(min(left, LOOK_AGAIN))
            self._helper.flush()
            while (message := channel.receive()) is not None:
                note = message.note[told.AGENT.size :]
                if message.kind == told.HEARD:
                    self._unclosed += [
                        fields[1] for name, fields in pickle.loads(note) if name == contract.Broken.__name__
                    ]
                elif message.kind == told.SAID:
                    if note[0] == protocol.BROKEN:
                        self._unclosed.append(why_broken(note[1:]))
                    else:
                        self._side.hears(note[0], note[1:])
                del message
                channel.release()

    def unclosed(self) -> Sequence[BaseException]:
        return self._unclosed

    def abandon(self) -> None:
        """In a fork of this process: neither the helper nor the workers are its own."""
        self._abandoned = True
        self._workers.clear()
        self._helper.abandon()

    def descriptors(self) -> Iterator[int]:
        """What is open here to keep the helper alive; but for its channel."""
        yield self._helper.process.lifeline
