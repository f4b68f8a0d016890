"""The brain: which batch goes where, when to start a worker, what to deliver, when to stop. Events in, actions out.

It knows no process, clock or file. `README.md` beside this file walks through one example.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

from taktline._schedule.events import (
    Action,
    Begin,
    Condemn,
    Died,
    Done,
    Drop,
    Emit,
    Event,
    Exhausted,
    GiveUp,
    Overran,
    Read,
    Ready,
    Retire,
    Run,
    Send,
    Spoiled,
    Start,
    Took,
    Worn,
)
from taktline._schedule.window import Limits, Window

AHEAD = 2  # batches a worker holds: one at work and one waiting, so that a round trip costs it no time
BLAME = 2  # careful deaths at the same record that make it the culprit; once may be somebody else's signal
VAIN = 3  # deaths a worker may die in a row, all workers together, while nothing gets done and no record is at fault


class Lane(NamedTuple):
    """A segment as the schedule sees it; 0 workers: the caller's process, in order. `ahead`: batches a worker may hold."""

    workers: int
    ahead: int = AHEAD


class _Worker:
    """One worker, and the batches it has, oldest first."""

    __slots__ = ("has", "lane", "ready", "worn")

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.ready = False
        self.worn = False  # it gets no more
        self.has: list[int] = []


class Machine:
    """Drives batches through lanes. Feed it events with `on`; do the actions it answers with, in order."""

    def __init__(self, lanes: tuple[Lane, ...], limits: Limits, *, ordered: bool = True) -> None:
        self.window = Window(limits, ordered)
        self.exhausted = False
        self._lanes = lanes
        self._waiting: list[list[int]] = [[] for _ in lanes]  # heaps of seq
        self._turn = [0] * len(lanes)  # of a lane in the caller's process: the seq that comes next
        self._workers = [_Worker(n) for n, lane in enumerate(lanes) for _ in range(lane.workers)]
        self._crews = [[w for w, worker in enumerate(self._workers) if worker.lane == n] for n in range(len(lanes))]
        self._where: dict[int, int] = {}  # seq: the lane it is in
        self._careful: set[int] = set()
        self._blame: dict[tuple[int, int, int], int] = {}  # lane, seq, position: deaths
        self._vain = 0
        self._answers: dict[type, Callable[[Any], list[Action]]] = {
            Begin: self._begin, Ready: self._ready, Read: self._read, Exhausted: self._exhausted, Done: self._done,
            Spoiled: self._spoiled, Died: self._died, Overran: self._overran, Worn: self._worn, Took: self._took,
        }  # fmt: skip

    def on(self, event: Event) -> list[Action]:
        """What to do now that this has happened."""
        return self._answers[type(event)](event)

    @property
    def over(self) -> bool:
        """Whether everything that will be delivered has been taken."""
        return self.window.ended or (self.exhausted and self.window.empty)

    def room(self) -> int:
        """How many records to read now, at most; 0: none, something else must happen first."""
        if self.exhausted or self.window.last is not None or self._waiting[0]:
            return 0
        if self._crews[0] and self._free_worker(0) is None:
            return 0
        return self.window.room()

    def holding(self, worker: int) -> list[int]:
        """The batches this worker has, the one at work first."""
        return self._workers[worker].has

    @property
    def at_work(self) -> bool:
        """Whether any worker has a batch, or is still getting ready."""
        return any(worker.has or not worker.ready for worker in self._workers)

    def _begin(self, _: Begin) -> list[Action]:
        return [Start(w, worker.lane) for w, worker in enumerate(self._workers)]

    def _ready(self, event: Ready) -> list[Action]:
        worker = self._workers[event.worker]
        worker.ready = True
        return self._dispatch(worker.lane)

    def _read(self, event: Read) -> list[Action]:
        return self._enter(self.window.read(event.records, event.size), 0)

    def _exhausted(self, _: Exhausted) -> list[Action]:
        self.exhausted = True
        return []

    def _took(self, event: Took) -> list[Action]:
        self.window.take(event.seq)
        return []

    def _done(self, event: Done) -> list[Action]:
        self._vain = 0
        seq, lane = event.seq, self._where[event.seq]
        if event.worker is not None:
            self._workers[event.worker].has.remove(seq)
        if self._is_dropped(seq):
            return [*self._forget(seq), *self._retired(event.worker), *self._dispatch(lane)]
        self._careful.discard(seq)
        actions: list[Action] = []
        if event.failed:
            actions += self._end_at(seq)
        if lane + 1 < len(self._lanes):
            actions += self._enter(seq, lane + 1)
        else:
            del self._where[seq]
            actions += [Emit(ready) for ready in self.window.finish(seq, event.size)]
        return actions + self._retired(event.worker) + self._dispatch(lane)

    def _spoiled(self, event: Spoiled) -> list[Action]:
        self._workers[event.worker].has.remove(event.seq)
        lane = self._where[event.seq]
        if self._is_dropped(event.seq):
            return [*self._forget(event.seq), *self._retired(event.worker), *self._dispatch(lane)]
        self._careful.add(event.seq)
        return [*self._retired(event.worker), *self._enter(event.seq, lane)]

    def _worn(self, event: Worn) -> list[Action]:
        self._workers[event.worker].worn = True
        return self._retired(event.worker)

    def _retired(self, w: int | None) -> list[Action]:
        """A worker that has done enough and has nothing left makes way for another one, as long as there is more to do."""
        if w is None:
            return []
        worker = self._workers[w]
        if not worker.worn or worker.has or (self.exhausted and not self._where):
            return []
        worker.worn = worker.ready = False
        return [Retire(w, worker.lane)]

    def _died(self, event: Died) -> list[Action]:
        held = self._workers[event.worker].has
        self._vain += 1
        # Where a batch has records, each is condemned before long; so without a limit such deaths end, too.
        if self._vain > VAIN * len(self._workers) and (event.empty or not held):
            return [GiveUp(event.worker)]
        return self._replace(event.worker, self._suspect(held[0], event) if held else [])

    def _overran(self, event: Overran) -> list[Action]:
        seq, position = event.mark
        if seq not in self._workers[event.worker].has:  # it was done with it before it ended
            return self._replace(event.worker, [])
        self._vain = 0
        sure = event.exact or seq in self._careful
        self._careful.add(seq)
        return self._replace(event.worker, self._blamed(seq, position, event.tries) if sure else [])

    def _replace(self, w: int, actions: list[Action]) -> list[Action]:
        """After `actions`, another worker in the place of one that has ended; what it had goes out again."""
        worker = self._workers[w]
        held, worker.has, worker.ready, worker.worn = worker.has, [], False, False
        for seq in held:
            if self._is_dropped(seq):
                actions += self._forget(seq)
            else:
                heapq.heappush(self._waiting[worker.lane], seq)
        return [*actions, Start(w, worker.lane), *self._dispatch(worker.lane)]

    def _suspect(self, seq: int, death: Died) -> list[Action]:
        """The oldest batch of a dead worker was at work: go carefully; condemn a record that kills repeatedly."""
        if death.empty or seq not in self._careful:
            self._careful.add(seq)
            return []
        # No mark from a careful worker: it died while it unpacked the first record.
        position = death.mark[1] if death.mark is not None and death.mark[0] == seq else 0
        return self._blamed(seq, position, BLAME)

    def _blamed(self, seq: int, position: int, most: int) -> list[Action]:
        """One more death by this record; after so many it is condemned."""
        where = (self._where[seq], seq, position)
        self._blame[where] = self._blame.get(where, 0) + 1
        if self._blame[where] < most:
            return []
        del self._blame[where]
        self._vain = 0
        return [Condemn(seq, position)]

    def _enter(self, seq: int, lane: int) -> list[Action]:
        self._where[seq] = lane
        heapq.heappush(self._waiting[lane], seq)
        return self._dispatch(lane)

    def _dispatch(self, lane: int) -> list[Action]:
        """Hand the oldest waiting batches of this lane to whoever is free."""
        waiting, actions = self._waiting[lane], list[Action]()
        if not self._crews[lane]:
            while waiting and waiting[0] == self._turn[lane]:
                self._turn[lane] += 1
                actions.append(Run(heapq.heappop(waiting), lane))
            return actions
        while waiting and (w := self._free_worker(lane)) is not None:
            seq = heapq.heappop(waiting)
            self._workers[w].has.append(seq)
            actions.append(Send(seq, lane, w, seq in self._careful))
        return actions

    def _free_worker(self, lane: int) -> int | None:
        """The ready worker with the least to do; one with a suspect batch gets nothing beside it."""
        best, least = None, self._lanes[lane].ahead
        for w in self._crews[lane]:
            worker = self._workers[w]
            if (
                worker.ready
                and not worker.worn
                and len(worker.has) < least
                and not (self._careful and self._careful.intersection(worker.has))
            ):
                best, least = w, len(worker.has)
        return best

    def _end_at(self, seq: int) -> list[Action]:
        """The run ends with this batch: forget the later ones that nobody works on."""
        actions: list[Action] = []
        at_work = {held for worker in self._workers for held in worker.has}
        for later in self.window.end_at(seq):
            if later not in at_work:
                actions += self._forget(later)
        return actions

    def _forget(self, seq: int) -> list[Action]:
        lane = self._where.pop(seq, None)
        if lane is not None and seq in self._waiting[lane]:
            self._waiting[lane].remove(seq)
            heapq.heapify(self._waiting[lane])
        self._careful.discard(seq)
        self.window.take(seq)
        return [Drop(seq)]

    def _is_dropped(self, seq: int) -> bool:
        return self.window.ordered and self.window.last is not None and seq > self.window.last
