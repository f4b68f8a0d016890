"""The brain: which batch goes where, when to start a worker, what to deliver, when to stop. Events in, actions out.

It knows no process, clock or file. `README.md` beside this file walks through one example.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

from taktline._schedule.events import (
    Action,
    BatchSpoiled,
    Begin,
    Condemn,
    Died,
    Done,
    Drop,
    Emit,
    Event,
    Exhausted,
    GiveUp,
    More,
    Overran,
    PartDone,
    Read,
    Retire,
    RunHere,
    Send,
    Split,
    Start,
    Stop,
    Took,
    WorkerLost,
    WorkerReady,
    WorkerUnplaced,
    Worn,
)
from taktline._schedule.window import PARTS_AHEAD, Limits, Window

WORKER_BATCHES = 2  # batches a worker holds: one at work and one waiting, so that a round trip costs it no time
BLAME = 2  # careful deaths at the same record that make it the culprit; once may be somebody else's signal
VAIN = 3  # deaths a worker may die in a row, all workers together, while nothing gets done and no record is at fault


class Lane(NamedTuple):
    """A segment as the schedule sees it; 0 workers: the caller's process, in order. `ahead`: batches a worker may hold."""

    workers: int
    ahead: int = WORKER_BATCHES


class _Worker:
    """One worker, and the batches it has, oldest first."""

    __slots__ = ("away", "bit", "free", "has", "lane", "ready", "worn")

    def __init__(self, lane: int, bit: int) -> None:
        self.lane = lane
        self.bit = bit  # by which it is known among those of its lane
        self.free: int | None = None  # among which of them it is: by how many batches it has; None: it takes none
        self.ready = False
        self.away = False  # there is no place for it
        self.worn = False  # it gets no more
        self.has: list[int] = []


class Machine:
    """Drives batches through lanes. Feed it events with `on`; do the actions it answers with, in order."""

    def __init__(self, lanes: tuple[Lane, ...], limits: Limits, *, ordered: bool = True) -> None:
        self.window = Window(limits, ordered)
        self.exhausted = False
        self._lanes = lanes
        self._waiting: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in lanes]  # heaps of places and seqs
        # Of lanes in the caller's process: heaps of what is still to come there, and what is at work.
        self._turns: dict[int, list[tuple[tuple[int, ...], int]]] = {
            n: [] for n, lane in enumerate(lanes) if not lane.workers
        }
        self._running: dict[int, int] = {}
        self._workers = [_Worker(n, 1 << w) for n, lane in enumerate(lanes) for w in range(lane.workers)]
        self._first = [sum(lane.workers for lane in lanes[:n]) for n in range(len(lanes))]  # worker of a lane
        # Of each lane, by how many batches they have: the workers that take one more, a bit each. To find the one with the
        # least to do among 2,048 takes as long as among two, and none is looked at that has not changed.
        self._free = [[0] * lane.ahead for lane in lanes]
        self._where: dict[int, int] = {}  # seq: the lane it is in
        self._asking: dict[int, tuple[int | None, int]] = {}  # seq: who has it, and its parts that were not answered
        self._stopping: set[int] = set()  # workers
        self._careful: set[int] = set()
        self._blame: dict[tuple[int, int, int], int] = {}  # lane, seq, position: deaths
        self._vain = 0
        self._answers: dict[type, Callable[[Any], list[Action]]] = {
            Begin: self._begin, WorkerReady: self._ready, Read: self._read, Exhausted: self._exhausted, Done: self._done,
            PartDone: self._part, BatchSpoiled: self._spoiled, Died: self._died, Overran: self._overran, Worn: self._worn,
            WorkerLost: self._lost, WorkerUnplaced: self._unplaced, Took: self._took,
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
        if self._lanes[0].workers and not any(self._free[0]):
            return 0
        return self.window.room()

    @property
    def next_seq(self) -> int:
        """The number of the batch that comes next."""
        return self.window.next_seq

    def holding(self, worker: int) -> list[int]:
        """The batches this worker has, the one at work first."""
        return self._workers[worker].has

    @property
    def at_work(self) -> bool:
        """Whether any worker has a batch, or is still getting ready."""
        return any(worker.has or not (worker.ready or worker.away) for worker in self._workers)

    def _begin(self, _: Begin) -> list[Action]:
        return [Start(w, worker.lane) for w, worker in enumerate(self._workers)]

    def _ready(self, event: WorkerReady) -> list[Action]:
        worker = self._workers[event.worker]
        worker.ready, worker.away = True, False
        self._sort(event.worker)
        return self._dispatch(worker.lane)

    def _read(self, event: Read) -> list[Action]:
        seq = self.window.read(event.records, event.size)
        self._will_come(seq, 0)
        return self._enter(seq, 0)

    def _exhausted(self, _: Exhausted) -> list[Action]:
        self.exhausted = True
        return []

    def _took(self, event: Took) -> list[Action]:
        self.window.take(event.seq)
        return self._answer_parts() if self._asking else []

    def _part(self, event: PartDone) -> list[Action]:
        self._vain = 0
        seq, lane = event.seq, self._where[event.seq]
        _, asked = self._asking.get(seq, (None, 0))
        self._asking[seq] = event.worker, asked + 1
        self._sort(event.worker)
        if self._is_dropped(seq):  # a worker stands still with it until it is stopped, or the run ends
            return self._clear_the_way(lane)
        part = self.window.split(seq, event.size)
        self._will_come(part, lane + 1)
        return [
            Split(seq, part),
            *self._onward(part, lane, event.size),
            *self._answer_parts(),
            *self._clear_the_way(lane),
        ]

    def _answer_parts(self) -> list[Action]:
        """Let those go on for whose parts there is room again."""
        actions: list[Action] = []
        for seq in sorted(self._asking, key=self.window.place):
            worker, asked = self._asking[seq]
            if not asked or self._is_dropped(seq) or not self.window.may_split(seq, ahead=worker is not None):
                continue
            self._asking[seq] = worker, 0
            self._sort(worker)
            actions += [More(seq, self._where[seq], worker)] * (asked if worker is not None else 1)
        return actions

    def _clear_the_way(self, lane: int) -> list[Action]:
        """Stop a worker of this lane that stands still with a part, where an earlier batch needs a worker: else neither
        would ever go on."""
        actions: list[Action] = []
        waiting = self._waiting[lane][:1]
        for seq, (w, _) in self._asking.items():
            if w is None or not self._stands_still(seq) or w in self._stopping or self._where[seq] != lane:
                continue
            place = self.window.place(seq)
            earlier = waiting if waiting and waiting[0][0] < place and self._free_worker(lane) is None else []
            if earlier or any(self.window.place(other) < place for other in self._workers[w].has):
                self._stopping.add(w)
                actions.append(Stop(w))
        return actions

    def _stands_still(self, seq: int) -> bool:
        """Whether whoever has this batch waits with a part of it."""
        return seq in self._asking and self._asking[seq][1] >= PARTS_AHEAD

    def _onward(self, seq: int, lane: int, size: int) -> list[Action]:
        """Into the next lane, or out."""
        if lane + 1 < len(self._lanes):
            return self._enter(seq, lane + 1)
        self._where.pop(seq, None)
        return [Emit(ready) for ready in self.window.finish(seq, size)]

    def _will_come(self, seq: int, lane: int) -> None:
        for here, turns in self._turns.items():
            if here >= lane:
                heapq.heappush(turns, (self.window.place(seq), seq))

    def _done(self, event: Done) -> list[Action]:
        self._vain = 0
        seq, lane = event.seq, self._where[event.seq]
        if event.worker is not None:
            self._workers[event.worker].has.remove(seq)
        else:
            self._running.pop(lane, None)
        self._asking.pop(seq, None)
        self._sort(event.worker)
        if self._is_dropped(seq):
            return [*self._forget(seq), *self._retired(event.worker), *self._dispatch(lane)]
        self._careful.discard(seq)
        actions: list[Action] = []
        if event.failed:
            actions += self._end_at(seq)
        actions += self._onward(seq, lane, event.size)
        if self._asking:
            actions += self._answer_parts()
        return actions + self._retired(event.worker) + self._dispatch(lane)

    def _spoiled(self, event: BatchSpoiled) -> list[Action]:
        self._workers[event.worker].has.remove(event.seq)
        self._asking.pop(event.seq, None)
        self._sort(event.worker)
        lane = self._where[event.seq]
        if self._is_dropped(event.seq):
            return [*self._forget(event.seq), *self._retired(event.worker), *self._dispatch(lane)]
        if not event.unread:
            self._careful.add(event.seq)
        return [*self._retired(event.worker), *self._enter(event.seq, lane)]

    def _worn(self, event: Worn) -> list[Action]:
        self._workers[event.worker].worn = True
        self._sort(event.worker)
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
        if event.worker in self._stopping:
            return self._replace(event.worker, [])
        self._vain += 1
        # Where a batch has records, each is condemned before long; so without a limit such deaths end, too.
        if self._vain > VAIN * len(self._workers) and (event.empty or not held):
            return [GiveUp(event.worker, event.cause)]
        return self._replace(event.worker, self._suspect(held[0], event) if held else [])

    def _lost(self, event: WorkerLost) -> list[Action]:
        return self._replace(event.worker, [])

    def _unplaced(self, event: WorkerUnplaced) -> list[Action]:
        return self._replace(event.worker, [], away=True)

    def _overran(self, event: Overran) -> list[Action]:
        seq, position = event.mark
        if seq not in self._workers[event.worker].has:  # it was done with it before it ended
            return self._replace(event.worker, [])
        self._vain = 0
        sure = event.exact or seq in self._careful
        self._careful.add(seq)
        return self._replace(event.worker, self._blamed(seq, position, event.tries, event.cause) if sure else [])

    def _replace(self, w: int, actions: list[Action], *, away: bool = False) -> list[Action]:
        """After `actions`, another worker in the place of one that has ended; what it had goes out again. `away`: there is no
        place for one, and it is started by itself once there is."""
        worker = self._workers[w]
        held, worker.has = worker.has, []
        worker.ready = worker.worn = False
        worker.away = away
        self._sort(w)
        self._stopping.discard(w)
        for seq in held:
            self._asking.pop(seq, None)
            if self._is_dropped(seq):
                actions += self._forget(seq)
            else:
                heapq.heappush(self._waiting[worker.lane], (self.window.place(seq), seq))
        starts = [] if away else [Start(w, worker.lane)]
        return [*actions, *starts, *self._dispatch(worker.lane)]

    def _suspect(self, seq: int, death: Died) -> list[Action]:
        """The oldest batch of a dead worker was at work: go carefully; condemn a record that kills repeatedly."""
        if death.empty or seq not in self._careful:
            self._careful.add(seq)
            return []
        # No mark from a careful worker: it died while it unpacked the first record.
        position = death.mark[1] if death.mark is not None and death.mark[0] == seq else 0
        return self._blamed(seq, position, BLAME, death.cause)

    def _blamed(self, seq: int, position: int, most: int, cause: Any) -> list[Action]:
        """One more death by this record; after so many it is condemned."""
        where = (self._where[seq], seq, position)
        self._blame[where] = self._blame.get(where, 0) + 1
        if self._blame[where] < most:
            return []
        del self._blame[where]
        self._vain = 0
        return [Condemn(seq, position, cause)]

    def _enter(self, seq: int, lane: int) -> list[Action]:
        self._where[seq] = lane
        heapq.heappush(self._waiting[lane], (self.window.place(seq), seq))
        return self._dispatch(lane)

    def _dispatch(self, lane: int) -> list[Action]:
        """Hand the oldest waiting batches of this lane to whoever is free."""
        waiting, actions = self._waiting[lane], list[Action]()
        if not self._lanes[lane].workers:
            return self._in_turn(lane)
        while waiting and (w := self._free_worker(lane)) is not None:
            _, seq = heapq.heappop(waiting)
            self._workers[w].has.append(seq)
            self._sort(w)
            actions.append(Send(seq, lane, w, seq in self._careful))
        if waiting and self._asking:
            actions += self._clear_the_way(lane)
        return actions

    def _in_turn(self, lane: int) -> list[Action]:
        """Run what comes next in the caller's process; what is behind it only when it is done, as it may end the run."""
        waiting, turns, actions = self._waiting[lane], self._turns[lane], list[Action]()
        while lane not in self._running:
            while turns and turns[0][1] not in self._where:  # forgotten
                heapq.heappop(turns)
            if not waiting or waiting[0] != turns[0]:
                break
            heapq.heappop(turns)
            _, seq = heapq.heappop(waiting)
            self._running[lane] = seq
            actions.append(RunHere(seq, lane))
        return actions

    def _free_worker(self, lane: int) -> int | None:
        """The worker with the least to do that takes one more batch."""
        for free in self._free[lane]:
            if free:
                return self._first[lane] + (free & -free).bit_length() - 1
        return None

    def _sort(self, w: int | None) -> None:
        """Have a worker that has changed among those that it belongs to now."""
        if w is None:
            return
        worker = self._workers[w]
        holds = len(worker.has)
        takes_more = worker.ready and not worker.worn and holds < self._lanes[worker.lane].ahead
        if takes_more and holds and (self._careful or self._asking):
            takes_more = self._takes_beside(worker.has)
        free = holds if takes_more else None
        if free != worker.free:
            if worker.free is not None:
                self._free[worker.lane][worker.free] ^= worker.bit
            if free is not None:
                self._free[worker.lane][free] |= worker.bit
            worker.free = free

    def _takes_beside(self, held: list[int]) -> bool:
        """Whether one that has these batches may get another: neither beside a suspect one, nor behind a part with which it
        stands still."""
        return not (self._careful.intersection(held) or (self._asking and any(self._stands_still(seq) for seq in held)))

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
        if lane is not None and (entry := (self.window.place(seq), seq)) in self._waiting[lane]:
            self._waiting[lane].remove(entry)
            heapq.heapify(self._waiting[lane])
        self._careful.discard(seq)
        self._asking.pop(seq, None)
        self.window.take(seq)
        return [Drop(seq)]

    def _is_dropped(self, seq: int) -> bool:
        return self.window.beyond(seq)
