"""Steps that wait, in an event loop or in threads: the loop's answer, in order, with many records under way at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Boom, any_step, as_line, loop, outcome

from taktline import (
    Failed,
    LineError,
    Stalled,
    StepError,
    StepTimeout,
    batch,
    expand,
    keep,
    line,
    per_worker,
    serial,
    step,
)

HOWS = ["pool", "queues", "line"]
EVERY = [*HOWS, "loop", "auto"]


def waiting(kind, fn, **options):
    """`fn` as a step that waits, of this kind."""

    async def later(value):
        await asyncio.sleep(0)
        return fn(value)

    return step(later if kind == "async" else fn, kind=kind, **{"tasks": 8, **options})


def waits(kind, n):
    def times(x):
        return x * n

    return "map", waiting(kind, times), times


def wait_fails_at(kind, n):
    def check(x):
        if x % 79 == n:
            raise Boom("waiting", x)
        return x + 1

    return "map", waiting(kind, check), check


def wait_keeps(kind, n):
    def wanted(x):
        return x % (n + 1) != 0

    return "keep", keep(waiting(kind, wanted)), wanted


def wait_expands(kind, n):
    def parts(x):
        return [x] * (x % n)

    return "expand", expand(waiting(kind, parts)), parts


kinds, small = st.sampled_from(["async", "thread"]), st.integers(1, 5)
any_wait = st.one_of(*(st.builds(make, kinds, small) for make in (waits, wait_fails_at, wait_keeps, wait_expands)))


@settings(max_examples=25)
@given(
    before=st.lists(any_step, max_size=2), waits=st.lists(any_wait, min_size=1, max_size=3),
    after=st.lists(any_step, max_size=2), count=st.integers(0, 300), how=st.sampled_from(EVERY),
    options=st.fixed_dictionaries({"workers": st.integers(1, 3)}, optional={"batch_size": st.integers(1, 60)}),
)  # fmt: skip
def test_every_technique_gives_the_loops_answer(before, waits, after, count, how, options):
    built = [*before, *waits, *after]
    assert outcome(lambda: as_line(built)(range(count), how=how, **options)) == outcome(
        lambda: loop(built, range(count))
    )


@settings(max_examples=10)
@given(waits=st.lists(any_wait, min_size=1, max_size=3), how=st.sampled_from(EVERY))
def test_every_technique_skips_the_same_records(waits, how):
    def loop_that_skips():
        for record in range(200):
            try:
                yield from list(loop(waits, [record]))
            except Boom:
                pass

    assert list(as_line(waits)(range(200), how=how, workers=2, on_error="skip")) == list(loop_that_skips())


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_many_records_are_under_way_at_once_over_the_borders_of_batches(kind):
    # Each record waits until ten are in the step: with fewer at once, or a barrier behind each batch of 3, none ends.
    if kind == "async":

        class Meeting:
            def __init__(self):
                self.barrier = asyncio.Barrier(10)

            async def __call__(self, n):
                await self.barrier.wait()
                return n
    else:

        class Meeting:
            def __init__(self):
                self.barrier = threading.Barrier(10)

            def __call__(self, n):
                self.barrier.wait()
                return n

    flow = line(step(per_worker(Meeting), kind=kind, tasks=10))
    assert list(flow(range(100), how="line", workers=2, batch_size=3, stall=30)) == list(range(100))


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_no_more_records_are_in_a_step_than_tasks(kind):
    inside = []

    def enter(n):
        inside.append(n)
        return len(inside)

    if kind == "async":

        async def visit(n):
            most = enter(n)
            await asyncio.sleep(0)
            inside.remove(n)
            return most
    else:

        def visit(n):
            most = enter(n)
            inside.remove(n)
            return most

    assert max(line(step(visit, kind=kind, tasks=3))(range(200), how="line", workers=2)) <= 3


@pytest.mark.parametrize(
    ("how", "raised"),
    [(how, each) for how in EVERY for each in (StopIteration, SystemExit, asyncio.CancelledError)]
    + [(how, KeyboardInterrupt) for how in HOWS],
)
def test_what_would_end_more_than_the_line_is_wrapped(how, raised):
    async def raising(n):
        if n == 5:
            raise raised("x")
        return n

    with pytest.raises((StepError, RuntimeError)) as caught:
        list(line(raising)(range(20), how=how, workers=2))
    assert "record 5" in "".join([str(caught.value), *caught.value.__notes__])


def test_an_async_step_over_its_time_is_cancelled_and_cleans_up(tmp_path):
    async def slow(n):
        if n == 5:
            try:
                await asyncio.sleep(600)
            finally:
                await asyncio.sleep(0)
                (tmp_path / "clean").touch()
        return n

    flow = line(step(slow, timeout=0.5))
    results = list(flow(range(20), how="line", workers=2, on_error="keep"))
    assert [r for r in results if not isinstance(r, Failed)] == [n for n in range(20) if n != 5]
    assert isinstance(results[5].error, StepTimeout)
    assert (tmp_path / "clean").exists()


def test_a_thread_that_never_comes_back_costs_its_record_only():
    def hang(n):
        if n in (3, 30, 31):
            time.sleep(600)
        return n

    flow = line(step(hang, tasks=2, timeout=0.5))
    results = list(flow(range(60), how="line", workers=2, on_error="skip"))
    assert results == [n for n in range(60) if n not in (3, 30, 31)]


def test_a_step_that_blocks_the_event_loop_is_ended_and_named():
    async def block(n):
        if n == 7:
            time.sleep(600)
        return n

    flow = line(step(block, timeout=0.3, tasks=4))
    results = list(flow(range(20), how="line", workers=2, on_error="skip", batch_size=5))
    assert results == [n for n in range(20) if n != 7]


def test_a_record_that_kills_its_worker_is_found():
    async def kill(n):
        if n == 33:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0)
        return n

    assert list(line(kill)(range(100), how="line", workers=2, on_error="skip")) == [n for n in range(100) if n != 33]


def test_a_stall_shows_where_the_oldest_record_waits():
    async def hang(n):
        await asyncio.Event().wait()

    with pytest.raises(Stalled) as caught:
        list(line(hang)(range(4), how="line", workers=2, stall=1.5))
    (waiting_one,) = caught.value.workers
    assert "in hang" in waiting_one.stack


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_further_tries_and_their_count(kind):
    failed = set()

    def flaky(n):
        if n % 3 == 0 and n not in failed:
            failed.add(n)
            raise ConnectionError(n)
        return n

    run = line(waiting(kind, flaky, retries=1, backoff=0.001))(range(30), how="line", workers=2)
    assert list(run) == list(range(30))
    assert run.report.retried == 10


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
def test_a_rate_holds_calls_apart(kind):
    made = waiting(kind, lambda _: time.monotonic(), rate=200) if kind != "process" else step(
        lambda _: time.monotonic(), rate=200
    )  # fmt: skip
    times = sorted(line(made)(range(30), how="line", workers=2))
    assert times[-1] - times[0] >= 29 / 200 * 0.99  # never faster; how much slower is the machine's affair


class Session:
    """Opened where a loop runs, and closed at the end."""

    def __init__(self, path):
        self.path = path
        asyncio.get_running_loop()

    async def __call__(self, n):
        return n + 1

    async def close(self):
        await asyncio.sleep(0)
        with open(self.path, "w"):
            pass


def test_what_is_built_for_a_worker_is_built_in_its_loop_and_closed(tmp_path):
    flow = line(per_worker(Session, str(tmp_path / "closed")))
    assert list(flow(range(10), how="line", workers=2)) == list(range(1, 11))
    assert (tmp_path / "closed").exists()


def test_leaving_does_not_wait_for_steps_that_hang():
    async def hang(n):
        if n >= 4:
            await asyncio.sleep(600)
        return n

    run = line(hang)(range(100), how="line", workers=2, batch_size=1)
    assert next(run) == 0
    run.close()


def test_waiting_and_state_in_one_line():
    total = []

    async def fetch(n):
        await asyncio.sleep(0.001 * (n % 3))
        return n

    flow = line(abs, fetch, serial(lambda n: (total.append(n), len(total))[1]), abs)
    assert list(flow(range(200), how="line", workers=2)) == list(range(1, 201))
    assert total == list(range(200))


async def counted(n):
    for each in range(n):
        await asyncio.sleep(0)
        yield each


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("source", [lambda: range(300), lambda: counted(300)], ids=["sync", "async"])
def test_stream_gives_the_results_in_order_and_the_exception_after_them(how, source):
    async def main():
        flow = line(abs, step(lambda n: 1 // (200 - n), name="divide"), lambda n: n)
        got = []
        with pytest.raises(ZeroDivisionError) as caught:
            async for result in flow.stream(source(), how=how, workers=2):
                got.append(result)
        return got, caught.value.__taktline__.index

    assert asyncio.run(main()) == ([1 // (200 - n) for n in range(200)], 200)


def test_stream_does_not_block_the_loop_and_a_trickle_is_not_held_up():
    async def main():
        answered = asyncio.Event()

        async def one_at_a_time():
            for n in range(3):
                yield n
                await answered.wait()  # a result must come before the next record does
                answered.clear()

        got = []
        async for result in line(abs).stream(one_at_a_time(), how="line", workers=2):
            got.append(result)
            answered.set()
        return got

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [0, 1, 2]


def test_a_stream_that_is_cancelled_leaves_no_worker(tmp_path):
    def hang(n):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(600)

    async def main():
        stream = line(hang).stream(range(4), how="line", workers=2)
        task = asyncio.ensure_future(anext(stream))
        while len(os.listdir(tmp_path)) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(tmp_path))


def test_inside_a_running_event_loop():
    async def fetch(n):
        await asyncio.sleep(0)
        return n + 1

    async def main():
        return list(line(fetch)(range(10), how="loop"))

    assert asyncio.run(main()) == list(range(1, 11))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: step(abs, kind="async"), "a plain function"),
        (lambda: step(asyncio.sleep, kind="thread"), "an `async def`"),
        (lambda: step(abs, tasks=0), "tasks=0"),
        (lambda: step(abs, kind="process", tasks=4), "one record at a time"),
        (lambda: step(abs, rate=0), "rate=0"),
        (lambda: batch(asyncio.sleep), "batch"),
    ],
)
def test_what_cannot_wait_is_refused(build, says):
    with pytest.raises(LineError, match=says):
        build()
