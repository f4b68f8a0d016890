"""The life of a worker whose steps wait: it takes batches as they come and answers each when all its records are done."""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING

from taktline._crew import protocol
from taktline._crew.protocol import Orders
from taktline._segment.async_steps import AsyncSegment
from taktline._segment.batch import Batch

if TYPE_CHECKING:
    from taktline._crew.worker import Worker

BEAT = 4  # times within the shortest time limit that the event loop shows that it is not blocked
NO_BATCH = 1 << 62  # in the place of a batch's number: many are at work


def attend(worker: Worker, segment: AsyncSegment) -> None:
    """Work until told to stop or the hub is gone."""
    asyncio.run(_Attendant(worker, segment).attend())


class _Attendant:
    def __init__(self, worker: Worker, segment: AsyncSegment) -> None:
        self._worker = worker
        self._segment = segment
        limits = [step.timeout for step in segment.steps if step.timeout]
        self._limit = min(limits) if limits else 0.0
        self._position = self._step = 0  # of the record at work, in a batch that goes carefully
        self._began = perf_counter_ns()
        self._open: dict[int, Orders] = {}  # batches under way: how they are to be run
        self._arrived = asyncio.Event()
        self._error: BaseException | None = None  # of a batch, outside of its steps: this worker cannot go on
        self._newest = 0  # the batch of the record that began a step last

    async def attend(self) -> None:
        worker, channel, loop = self._worker, self._worker.channel, asyncio.get_running_loop()
        if not worker.built(self._segment):
            return
        worker.seq = NO_BATCH
        self._segment.mark = self._at
        if self._limit:
            self._segment.enters = self._entered
        worker.sent = partial(loop.call_soon_threadsafe, self._flush)  # what steps print may come from any thread
        channel.block(False)
        arrived = self._arrived
        loop.add_reader(channel.fileno(), arrived.set)
        beating = loop.create_task(self._beat()) if self._limit else None
        try:
            while (message := worker.message()) is not None or not channel.ended:
                if self._error is not None:
                    raise self._error
                if message is None:
                    arrived.clear()
                    await arrived.wait()
                elif message.kind == protocol.STOP:
                    return
                else:
                    self._begin(*worker.opened(message, self._segment), message.seq)
                    del message
                    await asyncio.sleep(0)  # what is under way goes on between two batches
        finally:
            if beating is not None:
                beating.cancel()
            unclosed: BaseException | None = None
            try:
                await self._segment.close()
            except BaseException as error:
                unclosed = error
            loop.remove_reader(channel.fileno())
            channel.block(True)
            worker.sent = None
            if unclosed is not None:
                worker.not_closed(unclosed)

    def _begin(self, orders: Orders, batch: Batch | None, seq: int) -> None:
        if batch is None:
            self._worker.send(protocol.SPOILED, seq)
            return
        if orders.careful:  # nothing else is under way then
            self._worker.seq = seq
        self._open[seq] = orders
        task = self._segment.start(seq, batch, partial(self._done, seq), careful=orders.careful)
        task.add_done_callback(self._ended)
        self._show()

    def _done(self, seq: int, batch: Batch) -> None:
        worker, segment = self._worker, self._segment
        orders = self._open.pop(seq)
        worker.seq = NO_BATCH
        waited = max(0, perf_counter_ns() - self._began - segment.busy_ns)
        worker.answer(
            seq, batch, segment, orders, busy=segment.busy_ns, waiting=waited, timed_records=segment.records,
            timed_ns=segment.timed_ns,
        )  # fmt: skip
        self._show()  # what is under way still keeps its limit: a call of it may block the loop before the next beat

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._arrived.set()

    def _flush(self) -> None:
        channel, loop = self._worker.channel, asyncio.get_running_loop()
        self._worker.flush()
        if channel.backed_up:
            loop.add_writer(channel.fileno(), self._flush)
        else:
            loop.remove_writer(channel.fileno())

    def _at(self, position: int, step: int, seconds: float) -> None:
        self._position, self._step = position, step
        self._show()

    def _entered(self, seq: int) -> None:
        self._newest = seq
        self._show()

    async def _beat(self) -> None:
        """Move the deadline on, as long as the loop is not blocked: a step that blocks it keeps its own time limit from
        being noticed here, so the hub must be able to end it. Most likely it is the one that began last."""
        while True:
            self._show()
            await asyncio.sleep(self._limit / BEAT)

    def _show(self) -> None:
        if self._open:
            seq = self._newest if self._newest in self._open else next(iter(self._open))
            careful = self._open[seq].careful
            grace = self._limit * 2 + 1 if self._limit else 0.0
            self._worker.show(seq, *((self._position, self._step) if careful else (0, 0)), grace)
