"""The schedule alone, under random orders of events: deaths, losses, time limits, hangs and early stops. No process, no
clock.

python3 dev.py simulate [--runs 1000000] [--seed N]

Each life must end in complete ordered output or in the defined end, never stuck and never over the window.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

from taktline._schedule import events
from taktline._schedule.machine import Lane, Machine
from taktline._schedule.window import ENDLESS_CREDITS, PARTS_AHEAD, Limits

STEPS = 20_000  # events of a life; one that has not ended by then is stuck
LET_GO = 0.05  # how often machines may be let go
HANG = 0.03  # share of the records that hang for ever


class World:
    """Random hands for the machine: it holds what a hub and its workers would, and nothing decides in it but chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.splits = chance.random() < 0.4  # whether what comes of a batch may come in parts
        self.lanes = tuple(Lane(chance.choice([0, 1, 1, 2, 3])) for _ in range(chance.randint(1, 3)))
        self.in_parts = [self.splits and chance.random() < 0.7 for _ in self.lanes]
        self.window = chance.choice([None, chance.randint(1, 40)])
        self.ordered = chance.random() < 0.8
        self.length = chance.choice([0, 1, chance.randint(0, 60)])
        self.enough = chance.choice([ENDLESS_CREDITS, chance.randint(1, 40)])
        limits = Limits(self.window, chance.randint(1, 4 if self.splits else 12), 1 << 40, self.enough)
        self.machine = Machine(self.lanes, limits, ordered=self.ordered)
        self.fails = self.some(0.02)
        self.poison = self.somewhere(0.02)  # record: the lane in which it kills its worker
        self.slow = self.somewhere(0.02)  # record: the lane in which it takes too long each time
        self.hangs = self.somewhere(HANG) if chance.random() < 0.3 else {}  # record: the lane in which it hangs
        self.tries = chance.randint(1, 3)  # for a record that takes too long
        self.stops_at = chance.randint(0, 20) if chance.random() < 0.3 else None  # results taken before the stop
        self.death = chance.choice([0.0, 0.05, 0.3])
        self.loss = chance.choice([0.0, 0.0, 0.05, 0.3])
        self.crowded = chance.choice([0.0, 0.0, 0.5])  # how often there is no place for a worker
        self.batches: dict[int, list[int]] = {}
        self.failed_in: set[int] = set()  # batches that end in a failure
        self.condemned: set[int] = set()
        self.read = 0
        self.gone = 0  # records read that will never be taken as results: cut off, condemned or dropped
        self.taken: list[int] = []
        self.ready: list[int] = []  # seqs to be taken
        self.starting: set[int] = set()
        self.away: set[int] = set()  # workers without a place
        self.at: dict[int, list[tuple[int, int, bool]]] = {}  # worker: batches, oldest first
        self.hung: set[int] = set()  # workers
        self.asked: dict[int, int] = {}  # worker: parts of the batch at work that were not answered
        self.now: int | None = None  # the batch of which a part is told
        self.head: list[int] = []  # the records of that part
        self.parts = self.stops = 0
        self.deaths_to_come: list[int] = []  # workers that were told to stop
        self.seq = 0
        self.events = 0
        self.deaths = 0
        self.losses = 0
        self.withdrawn = self.let_goes = 0
        self.overran = 0
        self.gave_up = False
        self.stalled = False
        self.stopped = False
        self.ended_by: int | None = None

    def some(self, share: float) -> set[int]:
        return {n for n in range(self.length) if self.chance.random() < share}

    def somewhere(self, share: float) -> dict[int, int]:
        lanes = [n for n, lane in enumerate(self.lanes) if lane.workers]
        return {n: self.chance.choice(lanes) for n in self.some(share)} if lanes else {}

    def live(self) -> None:
        self.tell(events.Begin())
        while self.ended_by is None and not self.gave_up and (self.ready or not self.machine.over):
            choices = self.choices()
            if not choices and self.hung:
                self.stall()
                return
            assert choices, "stuck: nothing can happen any more"
            self.chance.choice(choices)()
            self.events += 1
            assert self.events < STEPS, "runs for ever"

    def choices(self) -> list[Callable[[], None]]:
        machine = self.machine
        found: list[Callable[[], None]] = []
        if self.ready:
            found += [self.take] * 2
        if machine.room():
            found.append(self.read_batch)
        if self.stops_at is not None and not self.stopped and len(self.taken) >= self.stops_at:
            found.append(self.stop)
        found += [self.stop_one] * bool(self.deaths_to_come)
        found += [lambda w=w: self.get_ready(w) for w in self.starting]
        found += [lambda w=w: self.find_place(w) for w in self.away]
        for worker, batches in self.at.items():
            if batches and worker not in self.hung and self.asked.get(worker, 0) < PARTS_AHEAD:
                found += [lambda w=worker: self.work(w)] * 3
        if self.death and self.chance.random() < self.death:
            found += [lambda w=w: self.die(w, None) for w in {*self.at, *self.starting}]
        if self.loss and self.chance.random() < self.loss:
            found += [lambda w=w: self.be_lost(w) for w in {*self.at, *self.starting}]
        if self.crowded and self.chance.random() < LET_GO:
            found += [lambda w=w: self.let_go(w) for w in self.at if w not in self.hung]
        return found

    def read_batch(self) -> None:
        room = self.machine.room()
        count = min(room, self.chance.randint(1, 7), self.length - self.read)
        if count:
            self.batches[self.seq] = list(range(self.read, self.read + count))
            self.seq += 1
            bound = self.ordered or not self.splits  # the rest of a batch may be taken before one of its parts
            assert not bound or self.read - len(self.taken) - self.gone < self.enough, "read on where it was enough"
            self.read += count
            if self.window is not None and bound:
                assert self.read - len(self.taken) - self.gone <= self.window, "over the window"
            self.tell(events.Read(count, count))
        if self.read == self.length:
            self.tell(events.Exhausted())

    def stop(self) -> None:
        """The caller wants no more read; what was read is still delivered."""
        self.stopped = True
        self.length = self.read
        self.tell(events.Exhausted())

    def stop_one(self) -> None:
        worker = self.deaths_to_come[0]
        self.die(worker, None)

    def stall(self) -> None:
        """Only hung workers are left: the machine must know which, and with what."""
        self.stalled = True
        assert self.machine.at_work
        for worker in self.hung:
            assert self.machine.holding(worker)[0] == self.at[worker][0][0]

    def find_place(self, worker: int) -> None:
        self.away.discard(worker)
        self.starting.add(worker)

    def be_lost(self, worker: int) -> None:
        self.losses += 1
        self.lose(worker)
        self.tell(events.WorkerLost(worker))

    def let_go(self, worker: int) -> None:
        """Its machine is let go, whatever it was given just now."""
        self.let_goes += 1
        self.lose(worker)
        self.away.add(worker)
        self.tell(events.WorkerUnplaced(worker))

    def get_ready(self, worker: int) -> None:
        self.starting.discard(worker)
        if self.chance.random() < self.crowded:
            self.withdrawn += 1
            self.away.add(worker)
            self.tell(events.WorkerUnplaced(worker))
            return
        self.at[worker] = []
        self.tell(events.WorkerReady(worker))

    def work(self, worker: int) -> None:
        seq, lane, careful = self.at[worker][0]
        if self.split(seq, lane, worker):
            return
        for position, record in enumerate(self.batches[seq]):
            if record in self.condemned:
                continue
            if self.poison.get(record) == lane:
                self.die(worker, (seq, position) if careful else None)
                return
            if self.slow.get(record) == lane:
                self.overrun(worker, record, (seq, position))
                return
            if self.hangs.get(record) == lane:
                self.hung.add(worker)
                return
        self.at[worker].pop(0)
        self.asked.pop(worker, None)
        if self.chance.random() < 0.02:  # it has done enough
            self.tell(events.Worn(worker))
        self.come_through(seq, worker)

    def split(self, seq: int, lane: int, worker: int | None) -> bool:
        """By chance let some records go on before the others of their batch; whether it was so."""
        if not self.in_parts[lane] or self.chance.random() < 0.3:
            return False
        records = self.batches[seq]
        bad = [n for n, record in enumerate(records) if record in self.fails or any(
            record in each for each in (self.poison, self.slow, self.hangs, self.condemned))]  # fmt: skip
        count = self.chance.randint(0, min(bad, default=len(records)))
        if not count:
            return False
        if worker is not None:
            self.asked[worker] = self.asked.get(worker, 0) + 1
        self.parts += 1
        self.now, self.head, self.batches[seq] = seq, records[:count], records[count:]
        self.tell(events.PartDone(seq, worker, count))
        if self.head:  # it comes after the end
            self.gone += len(self.head)
            self.head = []
        return True

    def run_here(self, seq: int, lane: int) -> None:
        if seq in self.batches and not self.split(seq, lane, None):
            self.come_through(seq, None)

    def come_through(self, seq: int, worker: int | None) -> None:
        if self.chance.random() < 0.01 and worker is not None:
            self.tell(events.BatchSpoiled(seq, worker, self.chance.random() < 0.5))
            return
        for position, record in enumerate(self.batches[seq]):
            if record in self.fails:
                self.cut(seq, position)
                break
        self.tell(events.Done(seq, worker, len(self.batches[seq]), seq in self.failed_in))

    def cut(self, seq: int, position: int) -> None:
        self.gone += len(self.batches[seq]) - position
        del self.batches[seq][position:]
        self.failed_in.add(seq)

    def die(self, worker: int, mark: tuple[int, int] | None) -> None:
        self.deaths += 1
        empty = bool(self.at.get(worker)) and not self.batches[self.at[worker][0][0]]
        self.lose(worker)
        self.tell(events.Died(worker, mark, empty))

    def overrun(self, worker: int, record: int, mark: tuple[int, int]) -> None:
        self.overran += 1
        if self.chance.random() < 0.1:  # it came back in time after all, just before its worker was ended
            del self.slow[record]
            self.work(worker)
            if worker not in self.at or worker in self.hung or any(seq == mark[0] for seq, _, _ in self.at[worker]):
                return
        self.lose(worker)
        self.tell(events.Overran(worker, mark, self.chance.random() < 0.5, self.tries))

    def lose(self, worker: int) -> None:
        self.at.pop(worker, None)
        self.asked.pop(worker, None)
        self.starting.discard(worker)
        self.hung.discard(worker)
        self.deaths_to_come = [other for other in self.deaths_to_come if other != worker]

    def take(self) -> None:
        seq = self.ready.pop(0)
        self.taken += self.batches[seq]
        if seq in self.failed_in:
            self.ended_by = seq  # the hub raises here, and asks nothing more
            return
        self.tell(events.Took(seq))

    def tell(self, event: events.Event) -> None:
        for action in self.machine.on(event):
            match action:
                case events.Start(worker, _):
                    self.starting.add(worker)
                case events.Retire(worker, _):
                    assert not self.at[worker], "retired with batches"
                    self.lose(worker)
                    self.starting.add(worker)
                case events.Send(seq, lane, worker, careful):
                    assert worker in self.at, "sent to a worker that is not ready"
                    self.at[worker].append((seq, lane, careful))
                case events.RunHere(seq, lane) | events.More(seq, lane, None):
                    self.run_here(seq, lane)
                case events.More(_, _, int(worker)):
                    self.asked[worker] -= 1
                case events.Split(seq, part):
                    assert seq == self.now
                    self.batches[part], self.head = self.head, []
                    self.seq = part + 1
                case events.Stop(worker):
                    assert self.asked[worker] == PARTS_AHEAD, "stopped though it could go on"
                    self.stops += 1
                    self.deaths_to_come.append(worker)
                case events.Emit(seq):
                    self.ready.append(seq)
                case events.Drop(seq):
                    self.gone += len(self.batches.pop(seq))
                case events.Condemn(seq, position):
                    self.condemn(seq, position)
                case events.GiveUp(_):
                    self.gave_up = True

    def condemn(self, seq: int, position: int) -> None:
        record = self.batches[seq][position]
        if record in self.poison or record in self.slow:
            self.condemned.add(record)
        self.cut(seq, position)

    def check(self) -> None:
        """The results are the model's: all records up to the first one that fails."""
        if not self.ordered:
            assert len(set(self.taken)) == len(self.taken), "twice"
            if self.ended_by is None and not self.stalled:
                assert sorted(self.taken) == list(range(self.length)), "lost"
            return
        # A worker may be killed by chance at the same record repeatedly, which condemns it like poison.
        assert self.taken == list(range(len(self.taken))), "out of order"
        if self.stalled:
            return
        if self.ended_by is None:
            assert len(self.taken) == self.length, "lost"
        elif not self.death:
            bad = self.fails | {*self.poison} | {*self.slow} | ({*self.hangs} if self.hung else set())
            assert len(self.taken) == min(bad, default=self.length), "ended too early or too late"


@dataclass
class Totals:
    """What happened in all lives together."""

    lives: int = 0
    events: int = 0
    deaths: int = 0
    losses: int = 0
    withdrawn: int = 0
    let_goes: int = 0
    overran: int = 0
    stalled: int = 0
    stopped: int = 0
    gave_up: int = 0
    parts: int = 0
    stops: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, each.name):,} {each.name.replace('_', ' ')}" for each in fields(self))


def simulate(runs: int, seed: int) -> Totals:
    """So many random lives. Raises AssertionError, with a note how to repeat it, where one ends wrongly."""
    totals = Totals()
    for run in range(runs):
        world = World(random.Random(f"{seed}:{run}"))
        try:
            world.live()
            if not world.gave_up:
                world.check()
        except AssertionError as error:
            error.add_note(f"repeat with World(random.Random('{seed}:{run}')).live()")
            raise
        totals.lives += 1
        totals.events += world.events
        totals.deaths += world.deaths
        totals.losses += world.losses
        totals.withdrawn += world.withdrawn
        totals.let_goes += world.let_goes
        totals.overran += world.overran
        totals.stalled += world.stalled
        totals.stopped += world.stopped
        totals.gave_up += world.gave_up
        totals.parts += world.parts
        totals.stops += world.stops
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py simulate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    print(f"all ended as they must: {simulate(given.runs, given.seed)}")


if __name__ == "__main__":
    main()
