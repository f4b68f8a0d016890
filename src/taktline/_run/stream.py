"""A run for callers that are `async` themselves: it goes in a thread, so that their event loop is never blocked."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from taktline._recipe.ports import Live
from taktline._run.run import Run

END: Any = object()


async def stream(
    start: Callable[[Iterable[Any]], Run], source: Iterable[Any] | AsyncIterable[Any], context: contextvars.Context
) -> AsyncIterator[Any]:
    """The results of the run that `start` makes of a source, in order. `context`: of the code that asked for them."""
    loop = asyncio.get_running_loop()
    run = start(_Fed(source, loop) if isinstance(source, AsyncIterable) else source)
    with ThreadPoolExecutor(1, "taktline stream") as thread:  # one, so that the run is always driven from the same
        try:
            # Not here: what is refused there closes the source, which waits for this loop.
            lots = await loop.run_in_executor(thread, context.run, run.lots)
            while (lot := await loop.run_in_executor(thread, partial(context.run, next, lots, END))) is not END:
                for result in lot:
                    yield result
        finally:
            run.leave()  # the thread may be waiting for a step
            await asyncio.shield(loop.run_in_executor(thread, context.run, run.close))


class _Fed(Live):
    """Records of an async source, taken from the thread of the run while the source's own loop goes on."""

    def __init__(self, source: AsyncIterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._records = aiter(source)
        self._loop = loop
        self._next: asyncio.Future[Any] | None = None
        self._ended = False

    def take(self, most: int, seconds: float) -> list[Any] | None:
        return asyncio.run_coroutine_threadsafe(self._some(most, seconds), self._loop).result()

    async def _some(self, most: int, seconds: float) -> list[Any] | None:
        records: list[Any] = []
        while len(records) < most and not self._ended:
            self._next = self._next or asyncio.ensure_future(anext(self._records))
            done, _ = await asyncio.wait({self._next}, timeout=0 if records else seconds)
            if not done:
                return records
            came, self._next = self._next, None
            try:
                records.append(came.result())
            except StopAsyncIteration:
                self._ended = True
        return records or (None if self._ended else records)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._let_go(), self._loop).result()

    async def _let_go(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
        if hasattr(self._records, "aclose"):
            await self._records.aclose()
