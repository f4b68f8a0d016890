"""The schedule alone, under random orders of events with deaths: complete ordered output or the defined end, always."""

from __future__ import annotations

import random

import pytest

from taktline._schedule import events
from taktline._schedule.machine import BLAME, Lane, Machine
from taktline._schedule.window import Limits

RUNS = 100_000  # some 25 seconds
STEPS = 20_000  # a run that has not ended by then is stuck


class World:
    """Random hands for the machine: it holds what a hub and its workers would, and nothing decides in it but chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lanes = tuple(Lane(chance.choice([0, 1, 1, 2, 3])) for _ in range(chance.randint(1, 3)))
        self.window = chance.choice([None, chance.randint(1, 40)])
        self.ordered = chance.random() < 0.8
        self.length = chance.choice([0, 1, chance.randint(0, 60)])
        self.machine = Machine(self.lanes, Limits(self.window, chance.randint(1, 12), 1 << 40), ordered=self.ordered)
        self.fails = {n for n in range(self.length) if chance.random() < 0.02}
        self.poison = {n: chance.randrange(len(self.lanes)) for n in range(self.length) if chance.random() < 0.02}
        self.death = chance.choice([0.0, 0.05, 0.3])
        self.batches: dict[int, list[int]] = {}
        self.failed_in: set[int] = set()  # batches that end in a failure
        self.condemned: set[int] = set()
        self.read = 0
        self.taken: list[int] = []
        self.ready: list[int] = []  # seqs to be taken
        self.starting: set[int] = set()
        self.at: dict[int, list[tuple[int, int, bool]]] = {}  # worker: batches, oldest first
        self.seq = 0
        self.events = 0
        self.deaths = 0
        self.gave_up = False
        self.ended_by: int | None = None

    def live(self) -> None:
        self.tell(events.Begin())
        while self.ended_by is None and not self.gave_up and (self.ready or not self.machine.over):
            choices = self.choices()
            assert choices, "stuck: nothing can happen any more"
            self.chance.choice(choices)()
            self.events += 1
            assert self.events < STEPS, "runs for ever"

    def choices(self):
        machine = self.machine
        found = []
        if self.ready:
            found += [self.take] * 2
        if machine.room():
            found.append(self.read_batch)
        found += [lambda w=w: self.get_ready(w) for w in self.starting]
        for worker, batches in self.at.items():
            if batches:
                found += [lambda w=worker: self.work(w)] * 3
        if self.death and self.chance.random() < self.death:
            found += [lambda w=w: self.die(w, None) for w in {*self.at, *self.starting}]
        return found

    def read_batch(self) -> None:
        room = self.machine.room()
        count = min(room, self.chance.randint(1, 7), self.length - self.read)
        if count:
            self.batches[self.seq] = list(range(self.read, self.read + count))
            self.seq += 1
            self.read += count
            if self.window is not None:
                assert self.read - len(self.taken) - self.dropped_from_view() <= self.window
            self.tell(events.Read(count, count))
        if self.read == self.length:
            self.tell(events.Exhausted())

    def dropped_from_view(self) -> int:
        """Records that were read and will never be taken as results: cut off or condemned ones in taken batches."""
        return self.gone

    gone = 0

    def get_ready(self, worker: int) -> None:
        self.starting.discard(worker)
        self.at[worker] = []
        self.tell(events.Ready(worker))

    def work(self, worker: int) -> None:
        seq, lane, careful = self.at[worker][0]
        records = self.batches[seq]
        for position, record in enumerate(records):
            if self.poison.get(record) == lane and record not in self.condemned:
                self.die(worker, (seq, position) if careful else None)
                return
        self.at[worker].pop(0)
        self.come_through(seq, worker)

    def come_through(self, seq: int, worker: int | None) -> None:
        if self.chance.random() < 0.01 and worker is not None:
            self.tell(events.Spoiled(seq, worker))
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
        self.at.pop(worker, None)
        self.starting.discard(worker)
        self.tell(events.Died(worker, mark))

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
                case events.Send(seq, lane, worker, careful):
                    assert worker in self.at, "sent to a worker that is not ready"
                    self.at[worker].append((seq, lane, careful))
                case events.Run(seq, _):
                    if seq in self.batches:
                        self.come_through(seq, None)
                case events.Emit(seq):
                    self.ready.append(seq)
                case events.Drop(seq):
                    self.gone += len(self.batches.pop(seq))
                case events.Condemn(seq, position):
                    if position >= len(self.batches[seq]):  # nothing is left in it: chance killed its worker
                        continue
                    record = self.batches[seq][position]
                    if record in self.poison:
                        self.condemned.add(record)
                    self.cut(seq, position)
                case events.GiveUp(_):
                    self.gave_up = True


def expected_first_end(world: World) -> int:
    bad = world.fails | set(world.poison)
    return min(bad, default=world.length)


@pytest.mark.timeout(300)
def test_random_event_orders_end_in_complete_ordered_output_or_the_defined_error():
    seed = random.SystemRandom().randrange(1 << 32)
    deaths = gave_up = 0
    for run in range(RUNS):
        world = World(random.Random(f"{seed}:{run}"))
        world.poison = {n: lane for n, lane in world.poison.items() if world.lanes[lane].workers}
        try:
            world.live()
            if not world.gave_up:
                check(world)
        except AssertionError as error:
            error.add_note(f"repeat with World(random.Random('{seed}:{run}'))")
            raise
        deaths += world.deaths
        gave_up += world.gave_up
    assert deaths > RUNS / 2, "too few deaths to say anything"
    assert gave_up < RUNS / 100, "most runs must get to their end"


def check(world: World) -> None:
    """The results are the model's: all records up to the first one that fails."""
    if world.ordered:
        # A worker may be killed by chance at the same record repeatedly, which condemns it like poison.
        assert world.taken == list(range(len(world.taken)))
        if world.ended_by is None:
            assert len(world.taken) == world.length
        elif not world.death:
            assert len(world.taken) == expected_first_end(world)
    else:
        assert len(set(world.taken)) == len(world.taken)
        if world.ended_by is None:
            assert sorted(world.taken) == list(range(world.length))


def test_a_record_that_kills_is_condemned_after_careful_deaths_only():
    machine = Machine((Lane(1),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    machine.on(events.Ready(0))
    assert machine.on(events.Read(10, 10)) == [events.Send(0, 0, 0, False)]
    assert machine.on(events.Died(0, None)) == [events.Start(0, 0)]
    for death in range(BLAME):
        assert machine.on(events.Ready(0)) == [events.Send(0, 0, 0, True)]
        actions = machine.on(events.Died(0, (0, 4)))
        assert (events.Condemn(0, 4) in actions) == (death == BLAME - 1)


def test_workers_that_never_get_ready_end_the_run():
    machine = Machine((Lane(2),), Limits(None, 8, 1 << 40))
    machine.on(events.Begin())
    for _ in range(100):
        if events.GiveUp(0) in machine.on(events.Died(0, None)):
            return
    pytest.fail("respawned for ever")


def test_no_more_is_read_than_the_window_allows():
    machine = Machine((Lane(4),), Limits(10, 100, 1 << 40))
    machine.on(events.Begin())
    for worker in range(4):
        machine.on(events.Ready(worker))
    read = 0
    while room := machine.room():
        machine.on(events.Read(min(room, 3), 3))
        read += min(room, 3)
    assert read <= 10
