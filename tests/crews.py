"""A crew without processes, and a clock that goes on only while somebody waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from taktline._crew.contract import (
    PLAIN_ORDERS,
    Broken,
    Came,
    Crew,
    Ended,
    Figures,
    Heard,
    Lost,
    Orders,
    Ready,
    WorkerPlace,
)
from taktline._recipe.steps import Step
from taktline._segment.batch import Batch
from taktline._segment.segment import Pieces, Segment
from taktline._segment.values import Encoded, records_of

AHEAD = 2  # parts of a batch before there is room for more


class Dies(Exception):
    """A step raises it where one in a process would end that."""


class Clock:
    """Seconds; `wait` of the crew below moves it on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Worker:
    def __init__(self, segment: Segment, lane: int) -> None:
        self.segment = segment
        self.lane = lane
        self.has: deque[tuple[int, int, Batch, Orders]] = deque()
        self.parts: Pieces | None = None  # of the batch at work
        self.unanswered = 0
        self.hangs = self.dead = False

    @property
    def may_work(self) -> bool:
        return bool(self.has) and not self.hangs and not self.dead and self.unanswered < AHEAD


class CrewHere(Crew):
    """Runs one batch, or a part of one, in each `wait`: of the worker that `pick` takes of those that have one."""

    def __init__(
        self, segments: Sequence[tuple[Step, ...] | None], *, goes_on: bool = False, clock: Clock | None = None,
        pick: Callable[[list[int]], int] = min,
    ) -> None:  # fmt: skip
        self.clock = clock or Clock()
        self.workers: dict[int, _Worker] = {}
        self.sent: list[tuple[int, int, int]] = []  # worker, batch, attempt
        self.careful: list[tuple[int, int]] = []  # batch, attempt
        self.told: deque[Heard] = deque()
        self.closed = False
        self.starts = 0
        self._segments = segments
        self._goes_on = goes_on
        self._pick = pick

    def start(self, worker: int, lane: int) -> None:
        self.starts += 1
        steps = self._segments[lane]
        assert steps is not None
        assert worker not in self.workers
        segment = Segment(steps, goes_on=self._goes_on)
        try:
            segment.make()
        except Exception as error:
            self.told.append(Broken(worker, error))
            return
        self.workers[worker] = _Worker(segment, lane)
        self.told.append(Ready(worker))

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        batch.values = list(records_of(batch.values))

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        self.sent.append((worker, seq, attempt))
        self.careful += [(seq, attempt)] * orders.careful
        copy = Batch(list(records_of(batch.values)), batch.origins and [*batch.origins], [*batch.failures], batch.first)
        if worker in self.workers:
            self.workers[worker].has.append((seq, attempt, copy, orders))

    def more(self, worker: int, seq: int) -> None:
        if worker in self.workers:
            self.workers[worker].unanswered -= 1

    def end(self, worker: int) -> None:
        self.told = deque(each for each in self.told if each.worker != worker)
        if (member := self.workers.pop(worker, None)) is not None:
            assert not member.has
            member.segment.close()

    def kill(self, worker: int) -> None:
        self.die(worker)

    def die(self, worker: int, place: WorkerPlace | None = None, *, overdue: bool = False) -> None:
        """As if the worker's process were killed."""
        if (member := self.workers.get(worker)) is not None and not member.dead:
            member.dead = True
            self.told.append(Ended(worker, -9, place, overdue, overdue))

    def lose(self, worker: int) -> None:
        """As if its machine were cut off: it may go on, and nothing is heard of it."""
        del self.workers[worker]
        self.told.append(Lost(worker))

    def wait(self, seconds: float) -> list[Heard]:
        assert not self.closed
        ready = [n for n, worker in self.workers.items() if worker.may_work]
        if not self.told and ready:
            self._work(self._pick(ready))
        if not self.told:
            self.clock.now += seconds
        told = [*self.told]
        self.told.clear()
        for each in told:
            if type(each) is Ended:
                del self.workers[each.worker]
        return told

    def look(self) -> dict[int, tuple[WorkerPlace | None, WorkerPlace | None]]:
        return dict.fromkeys(self.workers, (None, None))

    def close(self, *, gently: bool) -> None:
        self.closed = True
        while self.workers:
            self.workers.popitem()[1].segment.close()

    def _work(self, number: int) -> None:
        worker = self.workers[number]
        segment = worker.segment
        seq, attempt, batch, orders = worker.has[0]
        if segment.expands:
            worker.parts = worker.parts or segment.pieces(batch, careful=orders.careful)
            came = self._next_part(worker)
        else:
            came = segment.run(batch, careful=orders.careful)
        if deaths := [failure for failure in came.failures if isinstance(failure.error, Dies)]:
            position = batch.origins.index(deaths[0].origin) if batch.origins else deaths[0].origin
            step = [each.name for each in segment.steps].index(deaths[0].step)
            self.die(number, WorkerPlace(seq, position, step) if orders.careful else None)
            return
        last = worker.parts is None
        if last:
            worker.has.popleft()
            worker.unanswered = 0
        else:
            worker.unanswered += 1
        if orders.encode is not None and not came.failures:
            came.values = Encoded(orders.encode(came.values), len(came.values), came.tail())
        figures = Figures(1, 0, 0, 0, 0, segment.records, segment.timed_records, segment.timed_ns)
        self.told.append(Came(number, seq, attempt, came, 0, figures, last))

    def _next_part(self, worker: _Worker) -> Batch:
        assert worker.parts is not None
        try:
            return next(worker.parts)
        except StopIteration as end:
            worker.parts = None
            return end.value  # type: ignore[no-any-return]
