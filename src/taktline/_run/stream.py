"""A run for callers that are `async` themselves: it goes in a thread, so that their event loop is never blocked."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from sys import getrefcount
from typing import Any

from taktline._run import ownership
from taktline._run.run import Run, leave, outputs_of
from taktline.abc import Live

END: Any = object()


async def stream(
    start: Callable[[Iterable[Any]], Run], source: Iterable[Any] | AsyncIterable[Any], context: contextvars.Context
) -> AsyncGenerator[Any, None]:
    """The results of the run that `start` makes of a source, in order. `context`: of the code that asked for them."""
    loop = asyncio.get_running_loop()
    run = start(_Fed(source, loop) if isinstance(source, AsyncIterable) else source)
    del source  # which the run lets go of when it has ended: a traceback must not keep it
    with ThreadPoolExecutor(1, "taktline stream") as thread:  # one, so that the run is always driven from the same
        try:
            # Not here: what is refused there closes the source, which waits for this loop.
            outputs = await loop.run_in_executor(thread, context.run, partial(outputs_of, run, in_records=True))
            while (output := await loop.run_in_executor(thread, partial(context.run, next, outputs, END))) is not END:
                for result in output:
                    yield result
        finally:
            leave(run)  # the thread may be waiting for a step
            await asyncio.shield(loop.run_in_executor(thread, context.run, run.close))


class _Fed(Live):
    """Records of an async source, taken from the thread of the run while the source's own loop goes on."""

    of_the_caller = True

    def __init__(self, source: AsyncIterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._records: AsyncIterator[Any] | None = aiter(source)
        self._loop = loop
        self._next: asyncio.Future[Any] | None = None
        self._ended = False
        self._error: BaseException | None = None  # that the source raised behind the records before it

    def take(self, most: int, seconds: float) -> list[Any] | None:
        records = asyncio.run_coroutine_threadsafe(self._some(most, seconds), self._loop).result()
        if records or self._error is None:
            return records or (None if self._ended else records)
        error, self._error = self._error, None
        raise error

    async def _some(self, most: int, seconds: float) -> list[Any]:
        records: list[Any] = []
        while len(records) < most and not self._ended:
            assert self._records is not None
            self._next = self._next or asyncio.ensure_future(anext(self._records))
            if not (await asyncio.wait({self._next}, timeout=0 if records else seconds))[0]:
                break
            came, self._next = self._next, None
            try:
                records.append(came.result())
            except StopAsyncIteration:
                self._ended = True
            except BaseException as error:
                self._ended, self._error = True, error
            else:
                del came  # which refers to the record
                if len(records) < most and not _may_wait(records):
                    break
        return records

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._let_go(), self._loop).result()

    async def _let_go(self) -> None:
        records, self._records = self._records, None
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
        if records is not None and hasattr(records, "aclose"):
            await records.aclose()


def _may_wait(records: list[Any]) -> bool:
    """Whether the last record may wait while its source is asked for the next one; it is a copy then where need be."""
    record = records[-1]
    alone = getrefcount(record) <= ownership.ALONE
    whose = ownership.look(record, alone)
    if whose == ownership.KEPT:
        records[-1], could = ownership.Copies().of(record)
        return could
    return whose == ownership.OWN
