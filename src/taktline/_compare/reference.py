"""The standard library's own ways, for reference: a pool, and a process a step with queues between them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain as chain_of
from multiprocessing import connection
from queue import Full
from time import perf_counter
from typing import Any, NamedTuple

from taktline._arrow import stream_of, table_of
from taktline._compare.contestants import Contestant, Measure, Measurement
from taktline._compare.plain_loop import chain, scalars
from taktline._observe import cores
from taktline._recipe.options import Options
from taktline._recipe.steps import Step
from taktline._run.in_memory import Tables
from taktline._segment import policies
from taktline._segment.async_steps import OneByOne
from taktline._segment.batch import Batch
from taktline._segment.segment import Segment
from taktline._segment.tables import ArrowRows
from taktline._segment.values import records_of
from taktline.errors import LineError
from taktline.views.progress import resume

POOL_CHUNKS = 16  # of Pool.imap's chunk size: so many chunks a worker, about what Pool.map chooses for itself
SLOTS = 64  # records a queue of the reference line holds
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 0.5  # seconds until it is looked whether somebody still takes what is to be put into one
Through = Callable[[Any], list[Any]]


class _Ways(NamedTuple):
    """How what is compared goes through the standard library's processes."""

    made: Callable[[tuple[Step, ...], Options], Through]  # what a process does with one of those that are sent
    sent: Callable[[Any], Sequence[Any]]
    came: Callable[[list[Any]], list[Any]]
    chunk: Callable[[int], str]


def references(
    steps: tuple[Step, ...], workers: int, chunk: int, options: Options, ways: _Ways | None = None
) -> list[Contestant]:
    """The standard library's own ways."""
    ways = ways or _ONE_BY_ONE
    imap = f"multiprocessing.Pool.imap ({ways.chunk(chunk)} a chunk)"
    return [
        Contestant(imap, "", _pool(steps, workers, chunk, options, ways)),
        Contestant("multiprocessing queues, a process a step", "", _queues(steps, options, ways)),
    ]


_through: Through  # what the workers of a forked pool find in their memory


def _clocked(work: Callable[[list[float]], list[Any]]) -> tuple[list[Any], Measurement]:
    """Results, and what they took: processor seconds of this process and its children. `work` puts into the list it is given
    when the first result is there."""
    firsts: list[float] = []
    busy, before, began = cores.busy(), os.times(), perf_counter()
    results = work(firsts)
    seconds, cpu = perf_counter() - began, sum(os.times()[:4]) - sum(before[:4])
    others = cores.had_by_others(busy, cpu, seconds)
    return results, Measurement(seconds, cpu, firsts[0] - began if firsts else None, others=others)


def _made(steps: tuple[Step, ...], options: Options) -> Through:
    """What a process of the standard library's does with a record: its results, or none where it fails and may."""
    if options.setup is not None:
        policies.set_up(options.setup)
    chained = chain(scalars(steps, OneByOne()), steps)  # which ends with the process

    def through(record: Any) -> list[Any]:
        try:
            return list(chained(record))
        except Exception:
            if not options.goes_on:
                raise
            return []

    return through


def _made_of_tables(steps: tuple[Step, ...], options: Options) -> Through:
    """What a process of the standard library's does with a table: what comes of it together."""
    if options.setup is not None:
        policies.set_up(options.setup)
    segment = Segment(steps, goes_on=options.goes_on)
    segment.make()

    def through(sent: tuple[int, Any, frozenset[str]]) -> list[Any]:
        first, values, whole = sent
        rows = ArrowRows(table_of(values), whole) if type(values) is bytes else values
        came = segment.run(Batch(rows, first=first), formed=True)
        if came.failures and not options.goes_on:
            raise came.failures[0].error
        values, whole = came.values, frozenset()
        if type(values) is ArrowRows:
            return [(first, bytes(stream_of(values.table)), values.whole)]
        return [(first, records_of(values), whole)]

    return through


def _tables_sent(rows: Tables) -> list[Any]:
    """The tables as bytes, which is what costs least."""
    sent, splitter, first = [], rows.split(), 0
    assert splitter is not None
    while (part := splitter.table()) is not None:
        sent.append((first, bytes(stream_of(part.table())), part.whole))
        first += len(part)
    return sent


def _tables_came(results: list[Any]) -> list[Any]:
    each = [ArrowRows(table_of(values)) if type(values) is bytes else values for _, values, _ in results]
    return [values for values in each if len(values)]


_ONE_BY_ONE = _Ways(_made, lambda records: records, lambda results: results, lambda count: f"{count:,}")
AS_TABLES = _Ways(_made_of_tables, _tables_sent, _tables_came, lambda count: "a table")


@contextmanager
def _signals_wait() -> Iterator[None]:
    """While processes are forked: what a handler raised in what Python itself does then would be lost."""
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # which runs the handlers, whoever gets the signal
            for each in filter(lambda number: callable(signal.getsignal(number)), _ENDING):
                handlers[each] = signal.signal(each, lambda number, _: came.append(number))
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until the new process is ready for it
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in handlers.items():
            signal.signal(each, handler)
    for number in came:
        signal.raise_signal(number)


def _leave_signals_to_the_caller() -> None:
    """In a process that was forked so: Ctrl-C reaches all processes of a terminal, and one that it ends may hold a lock that
    the others wait for."""
    for number in filter(lambda number: callable(signal.getsignal(number)), _ENDING):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _set_up(steps: tuple[Step, ...], options: Options, made: Callable[[tuple[Step, ...], Options], Through]) -> None:
    global _through
    _leave_signals_to_the_caller()
    _through = made(steps, options)


def _through_it(record: Any) -> list[Any]:
    return _through(record)


def _pool(steps: tuple[Step, ...], workers: int, chunk: int, options: Options, ways: _Ways) -> Measure:
    def measure(records: Any) -> tuple[list[Any], Measurement]:
        _refuse_state(steps)

        def work(firsts: list[float]) -> list[Any]:
            results: list[Any] = []
            with ExitStack() as ended:
                with _signals_wait():
                    context = multiprocessing.get_context("fork")
                    pool = ended.enter_context(context.Pool(workers, _set_up, (steps, options, ways.made)))
                resume()
                for some in pool.imap(_through_it, ways.sent(records), chunk):
                    if not firsts:
                        firsts.append(perf_counter())
                    results += some
                pool.close()
                pool.join()
            return ways.came(results)

        return _clocked(work)

    return measure


def _queues(steps: tuple[Step, ...], options: Options, ways: _Ways) -> Measure:
    """The article's factory line: a process a step, queues between them, an empty tuple ends the stream."""

    def measure(records: Any) -> tuple[list[Any], Measurement]:
        _refuse_state(steps)
        context = multiprocessing.get_context("fork")

        def work(firsts: list[float]) -> list[Any]:
            queues = [context.Queue(SLOTS) for _ in range(len(steps) + 1)]
            processes = [
                context.Process(target=_station, args=(step, queues[n], queues[n + 1], options, ways), daemon=True)
                for n, step in enumerate(steps)
            ]
            with ExitStack() as ended:
                with _signals_wait():
                    for process in processes:
                        process.start()
                        ended.callback(process.kill)  # which does nothing to one that has ended
                _end_where_all_have(queues[-1], processes)
                resume()
                feeder = threading.Thread(target=_feed, args=(ways.sent(records), queues[0], processes), daemon=True)
                feeder.start()
                results: list[Any] = []
                while item := queues[-1].get():
                    if not firsts:
                        firsts.append(perf_counter())
                    results.append(item[0])
                if item is None:
                    raise RuntimeError(
                        "a process ended before its work: what it hands on cannot be pickled, or it was killed"
                    )
                for process in processes:
                    process.join()
            return ways.came(results)

        return _clocked(work)

    return measure


def _end_where_all_have(queue: Any, processes: list[Any]) -> None:
    """Put None into the last queue when no process is left, or one has failed: a queue whose items cannot be pickled says so
    on standard error alone, and would be waited for, for ever."""

    def watch() -> None:
        left = list(processes)
        while left and not any(process.exitcode for process in processes):
            connection.wait([process.sentinel for process in left])
            left = [process for process in left if process.exitcode is None]
        for process in left:
            process.kill()
        queue.put(None)

    threading.Thread(target=watch, daemon=True).start()


def _feed(records: Sequence[Any], queue: Any, processes: list[Any]) -> None:
    for item in chain_of(((record,) for record in records), [()]):  # no record can be taken for the end
        while processes[0].is_alive():
            with suppress(Full):
                queue.put(item, timeout=PATIENCE)
                break


def _station(step: Step, inbox: Any, outbox: Any, options: Options, ways: _Ways) -> None:
    _leave_signals_to_the_caller()
    through = ways.made((step,), options)
    outbox._on_queue_feeder_error = lambda *_: os._exit(1)
    while item := inbox.get():
        for result in through(item[0]):
            outbox.put((result,))
    outbox.put(())
    outbox.close()
    outbox.join_thread()  # in a process that is ending already, what cannot be pickled would end it as if all were well


def _refuse_state(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.in_caller:
            raise LineError(
                f"step {step.name!r} must see all records in one process, and here each process sees some of them"
            )
