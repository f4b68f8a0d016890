"""What a line's work and its ways cost, as measured: the numbers that the what-if and the advice stand on.

All costs are nanoseconds a record of the source, also behind a step that drops or multiplies records: so no step needs
to know what another did to their number.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

from taktline._recipe.plan import RunPlan
from taktline._schedule.bounds import worth_splitting

WAITS = 0.5  # share of a step's time on the processor below which it is said to wait


class StepCost(NamedTuple):
    """One step. `lots`: nanoseconds of each lot measured, in the source's order."""

    name: str
    lots: tuple[float, ...]
    computing: float = 1.0  # share of the time that used the processor; the rest waited
    call_ns: float = 0.0  # of a batch step: what a call costs however many records it gets
    alone_ns: float | None = None  # of a batch step: a record given alone; None: as in company
    size: int | None = None  # of a batch step: most records a call

    @property
    def waits(self) -> bool:
        """Whether it mostly waits, for a disk, a network or a clock."""
        return self.computing < WAITS


class Move(NamedTuple):
    """The way of what stands between two steps, from one process to another."""

    pack_ns: float = 0.0
    unpack_ns: float = 0.0
    size: float = 0.0  # bytes


class Ways(NamedTuple):
    """What the hand-over costs on this machine, whatever the steps. Times in seconds unless they say otherwise."""

    start_up: float = 0.12  # of processor time, until a worker takes records
    ending: float = 0.01  # from the last result to the end of the workers
    hub_batch_ns: float = 25_000  # of the hub, a batch out and back
    hub_record_ns: float = 60  # of the hub, a record: lists, delivery
    worker_batch_ns: float = 25_000  # of a worker, a batch
    slowdown: float = 1.0  # of work in a worker beside others, over the same work alone in the caller's process
    worker_memory: float = 30e6  # bytes


class Costs(NamedTuple):
    """Everything measured. `lots`: records of each lot; `moves[n]`: what goes into step n, the last one the results.

    `cut`: what it takes to send a worker where a record lies, in place of the record; None: workers cannot read the
    source. `encode`: to make the bytes of the results for the sink; None: workers cannot do that, or nothing is known."""

    lots: tuple[int, ...]
    read_ns: float
    steps: tuple[StepCost, ...]
    moves: tuple[Move, ...]
    loop_ns: float  # a record, read and worked on by the loop
    ways: Ways = Ways()
    memory: float = 50e6  # bytes of the caller's process
    cut: Move | None = None
    encode: Move | None = None
    table: int = 0  # records that go as one table, whatever the technique; 0: each is one

    def under(self, plan: RunPlan, window: int | None = None) -> Costs:
        """The costs under a plan with workers: what those read and encode themselves is not the caller's any more."""
        costs, last = self, plan.segments[-1]
        if self.cut is not None and worth_splitting(plan, window):
            way = Move(0.0, self.read_ns, self.cut.size)
            costs = costs._replace(read_ns=self.cut.pack_ns, moves=(way, *costs.moves[1:]))
        if self.encode is not None and last.workers and not last.waits:
            costs = costs._replace(moves=(*costs.moves[:-1], self.encode), encode=None)
        return costs

    @property
    def records(self) -> int:
        """How many were measured."""
        return sum(self.lots)

    def mean_ns(self, step: int) -> float:
        """Nanoseconds a record of this step."""
        return sum(self.steps[step].lots) / max(1, self.records)

    def spread(self, step: int) -> float:
        """How unlike its lots are: standard deviation of a record's cost, as a share of the mean."""
        mean, costs = self.mean_ns(step), self.steps[step].lots
        if len(costs) < 2 or not mean:
            return 0.0
        return statistics.pstdev(ns / max(1, count) for ns, count in zip(costs, self.lots, strict=True)) / mean
