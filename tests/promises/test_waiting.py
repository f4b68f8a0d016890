"""Steps that wait, in an event loop or in threads: the loop's answer, in order, with many records under way at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from hanging import cancelled_once_hanging
from hypothesis import given, settings
from hypothesis import strategies as st
from model import Boom, any_step, as_line, loop, outcome

from taktline import (
    BatchLengthError,
    Failed,
    FormsDiffer,
    LineError,
    Stalled,
    StepError,
    StepTimeout,
    WorkerDied,
    batch,
    expand,
    keep,
    line,
    per_worker,
    serial,
    step,
)
from taktline._segment import async_steps

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


def together(kind, fn, size=None, *, like=None, form="list", **options):
    """`fn` of many records as a step that waits, of this kind, and `like` of one record too."""

    async def later(values):
        await asyncio.sleep(0)
        return fn(values)

    async def like_later(value):
        await asyncio.sleep(0)
        return like(value)

    made = (later, like and like_later) if kind == "async" else (fn, like)
    return batch(step(made[0], kind=kind, **{"tasks": 3, **options}), size, form=form, like=made[1])


def wait_together(kind, n, size, form):
    def times(xs):
        return [x * n for x in xs] if form == "list" else xs * n

    return "map", together(kind, times, size, form=form), lambda x: x * n


def wait_together_fails_at(kind, n, size, form):
    def check(xs):
        if any(int(x) % 79 == n for x in xs):
            raise Boom("together", n)
        return xs

    return "map", together(kind, check, size, form=form), lambda x: check([x])[0]


def wait_together_rescued(kind, n, size, form):
    def refuse(xs):
        if any(int(x) % 37 == n for x in xs):
            raise Boom("some record of", len(xs))
        return xs

    def like(x):
        if x % 37 == n and x % 2:
            raise Boom("odd", x)
        return x

    return "map", together(kind, refuse, size, like=like, form=form), like


kinds, small = st.sampled_from(["async", "thread"]), st.integers(1, 5)
sizes, forms = st.one_of(st.none(), st.integers(1, 40)), st.sampled_from(["list", "list", "numpy"])
any_wait = st.one_of(
    *(st.builds(make, kinds, small) for make in (waits, wait_fails_at, wait_keeps, wait_expands)),
    *(
        st.builds(make, kinds, small, sizes, forms)
        for make in (wait_together, wait_together_fails_at, wait_together_rescued)
    ),
)


some_size = st.fixed_dictionaries({}, optional={"batch_size": st.integers(1, 60)})


@settings(max_examples=40)
@given(
    before=st.lists(any_step, max_size=2), waits=st.lists(any_wait, min_size=1, max_size=3),
    after=st.lists(any_step, max_size=2), count=st.integers(0, 300), how=st.sampled_from(EVERY),
    workers=st.integers(1, 3), options=some_size,
)  # fmt: skip
def test_every_technique_gives_the_loops_answer(before, waits, after, count, how, workers, options):
    built = [*before, *waits, *after]
    assert outcome(lambda: as_line(built)(range(count), how=how, workers=workers, **options)) == outcome(
        lambda: loop(built, range(count))
    )


@settings(max_examples=20)
@given(waits=st.lists(any_wait, min_size=1, max_size=3), how=st.sampled_from(EVERY), options=some_size)
def test_every_technique_skips_the_same_records(waits, how, options):
    def loop_that_skips():
        for record in range(200):
            try:
                yield from list(loop(waits, [record]))
            except Boom:
                pass

    assert list(as_line(waits)(range(200), how=how, workers=2, on_error="skip", **options)) == list(loop_that_skips())


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


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_calls_are_full_at_once_and_no_more_than_tasks(kind):
    # Each call waits until three are under way: with fewer at once, or a barrier behind each batch, none ends.
    if kind == "async":

        class Meeting:
            def __init__(self):
                self.barrier, self.inside = asyncio.Barrier(3), 0

            async def __call__(self, numbers):
                self.inside += 1
                await self.barrier.wait()
                self.inside -= 1
                return [(len(numbers), self.inside)] * len(numbers)
    else:

        class Meeting:
            def __init__(self):
                self.barrier, self.inside = threading.Barrier(3), 0

            def __call__(self, numbers):
                self.inside += 1
                self.barrier.wait()
                self.inside -= 1
                return [(len(numbers), self.inside)] * len(numbers)

    flow = line(batch(step(per_worker(Meeting), kind=kind, tasks=3), size=10))
    results = list(flow(range(120), how="line", workers=2, batch_size=10, stall=30))
    assert [size for size, _ in results] == [10] * 120
    assert max(inside for _, inside in results) <= 2


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("kind", ["async", "thread"])
def test_another_number_of_results_is_told(kind, how):
    flow = line(together(kind, lambda xs: [*xs, 0] if 7 in xs else xs, 4))
    with pytest.raises(BatchLengthError) as caught:
        list(flow(range(20), how=how, workers=2))
    given = 1 if how in ("loop", "pool", "queues") else 4
    assert (caught.value.given, caught.value.returned) == (given, given + 1)


def test_calls_are_as_large_as_they_may_be_however_long_one_takes():
    async def sizes(numbers):
        await asyncio.sleep(0.02)  # far more than a batch should take, if it were work
        return [len(numbers)] * len(numbers)

    assert list(line(batch(sizes, size=50, tasks=2))(range(500), how="line", workers=2)) == [50] * 500


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_tries_limits_and_rates_are_those_of_a_call(kind):
    calls, tried = [], set()

    def call(numbers):
        calls.append(time.monotonic())
        if numbers[0] not in tried:
            tried.add(numbers[0])
            raise ConnectionError("not now")
        return numbers

    class Calls:
        def __call__(self, numbers):
            return [(result, tuple(calls)) for result in call(numbers)]

    options = {"retries": 1, "backoff": 0.001, "rate": 100, "timeout": 30}
    run = line(together(kind, Calls(), 10, **options))(range(80), how="line", workers=2, batch_size=10)
    results = list(run)
    assert [n for n, _ in results] == list(range(80))
    assert run.report.retried == 8
    (times,) = {at for _, at in results if len(at) == 16}
    assert times[-1] - times[1] >= 12 / 100  # 14 calls later; an early one may have waited for its thread


def test_a_call_over_its_time_costs_the_record_at_fault_only():
    async def slow(numbers):
        if 33 in numbers:
            await asyncio.sleep(600)
        return numbers

    results = list(line(batch(slow, 8, timeout=0.3))(range(64), how="line", workers=2, on_error="skip"))
    assert results == [n for n in range(64) if n != 33]


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("kind", ["async", "thread"])
def test_both_forms_are_compared(kind, how):
    made = together(kind, lambda xs: [-x if x == 7 else x for x in xs], 10, like=lambda x: x)
    flow = line(replace(made, verify=0.0))
    results = list(flow(range(30), how=how, workers=2, on_error="keep"))
    assert [each for each in results if not isinstance(each, Failed)] == [n for n in range(30) if n != 7]
    assert isinstance(results[7].error, FormsDiffer)


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_a_record_whose_parts_are_in_several_calls_fails_as_a_whole(kind):
    def check(parts):
        if (7, 0) in parts:
            raise Boom(7)
        return parts

    flow = line(expand(lambda n: [(n, part) for part in range(5)]), together(kind, check, 2))
    got = list(flow(range(20), how="line", workers=2, batch_size=10, on_error="skip"))
    assert got == [(n, part) for n in range(20) if n != 7 for part in range(5)]


def test_a_record_that_kills_its_worker_in_a_call_is_found():
    async def kill(numbers):
        if 33 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0)
        return numbers

    assert list(line(batch(kill, 8))(range(100), how="line", workers=2, on_error="skip")) == [
        n for n in range(100) if n != 33
    ]


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("tasks", [None, 3])
def test_what_a_lazy_result_of_a_batch_raises_is_the_records_failure(tasks, how):
    def lazily(numbers):
        for n in numbers:
            if n == 7:
                raise Boom(n)
            yield n

    results = list(line(batch(lazily, 4, tasks=tasks))(range(20), how=how, workers=2, on_error="skip"))
    assert results == [n for n in range(20) if n != 7]


def test_what_goes_wrong_in_a_worker_beside_its_steps_is_told(monkeypatch):
    async def broken(*_):
        raise RuntimeError("out of order")

    async def fetch(n):
        return n

    monkeypatch.setattr(async_steps._Records, "came_of", broken)  # forked workers have it too
    with pytest.raises(WorkerDied, match="record 0"):
        list(line(fetch)(range(10), how="line", workers=2, start="fork"))


def test_state_and_calls_that_wait_in_the_callers_process():
    seen = []

    async def total(numbers):
        await asyncio.sleep(0)
        seen.extend(numbers)
        return [sum(seen)] * len(numbers)

    assert list(line(abs, serial(batch(total, size=1)))(range(5), how="line", workers=2)) == [0, 1, 3, 6, 10]


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


async def swallows():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue


async def swallows_a_thread():
    while True:
        try:
            await asyncio.to_thread(time.sleep, 0.05)
        except asyncio.CancelledError:
            continue


async def waits_for_nothing():
    await asyncio.get_running_loop().create_future()


async def shields():
    await asyncio.shield(asyncio.ensure_future(asyncio.sleep(600)))


async def leaves_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(swallows())


ENDLESS = [swallows, swallows_a_thread, waits_for_nothing, shields, leaves_a_group]


@pytest.mark.parametrize(
    ("endless", "how"), [(each, how) for each in ENDLESS for how in ("line", "loop")] + [(swallows, "auto")]
)
def test_an_async_step_that_does_not_let_itself_be_cancelled_is_over_its_time(how, endless):
    async def hang(n):
        if n in (3, 4):
            await endless()
        return n

    results = list(line(step(hang, timeout=0.2, tasks=2))(range(8), how=how, workers=1, on_error="keep"))
    assert [each for each in results if not isinstance(each, Failed)] == [0, 1, 2, 5, 6, 7]
    assert [type(each.error) for each in results if isinstance(each, Failed)] == [StepTimeout, StepTimeout]


@pytest.mark.parametrize("how", ["line", "loop"])
def test_a_call_of_a_batch_that_does_not_let_itself_be_cancelled_costs_the_record_at_fault(how):
    async def hang(records):
        if 3 in records:
            await swallows()
        return records

    results = list(line(batch(step(hang, timeout=0.2), size=4))(range(8), how=how, workers=1, on_error="skip"))
    assert results == [0, 1, 2, 4, 5, 6, 7]


def test_a_failure_does_not_wait_for_others_that_do_not_let_themselves_be_cancelled():
    async def hang(n):
        if n == 0:
            await asyncio.sleep(0.1)
            raise Boom(n)
        await swallows()

    with pytest.raises(Boom):
        list(line(hang)(range(4), how="line", workers=1, batch_size=4))


async def cancels_itself():
    asyncio.current_task().cancel()


async def cancels_itself_and_waits():
    asyncio.current_task().cancel()
    await asyncio.sleep(600)


async def cancels_itself_and_raises():
    asyncio.current_task().cancel()
    raise ValueError


async def cancelled():
    raise asyncio.CancelledError


async def closes_the_loop():
    asyncio.get_running_loop().close()


async def runs_another():
    asyncio.run(asyncio.sleep(0))


OWN = [cancels_itself, cancels_itself_and_waits, cancels_itself_and_raises, cancelled, closes_the_loop, runs_another]


@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
@pytest.mark.parametrize("how", ["line", "loop"])
@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("own", OWN)
def test_an_async_step_that_ends_its_own_task_or_loop_costs_its_record_alone(how, timeout, own):
    async def harm(n):
        if n in (3, 4):
            await own()
        return n

    flow = line(step(harm, timeout=timeout))
    results = list(flow(range(8), how=how, workers=1, on_error="keep"))
    assert [each for each in results if not isinstance(each, Failed)] == [0, 1, 2, 5, 6, 7]
    assert [each.index for each in results if isinstance(each, Failed)] == [3, 4]


def test_an_async_step_that_stops_its_event_loop_costs_its_record_alone():
    async def stop(n):
        if n == 3:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
        return n

    results = list(line(stop)(range(8), how="line", workers=1, on_error="skip"))
    assert results == [0, 1, 2, 4, 5, 6, 7]


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
    began = time.monotonic()  # a busy machine may hold up the first call itself, so that is no beginning
    last = max(line(made)(range(100), how="line", workers=2))
    assert last - began >= 99 / 200 * 0.99  # never faster; how much slower is the machine's affair


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
        return got, vars(caught.value)["__taktline__"].index

    assert asyncio.run(main()) == ([1 // (200 - n) for n in range(200)], 200)


@pytest.mark.parametrize("deadly", [0, 1, 2, 3])
def test_a_step_that_waits_and_kills_its_worker_is_named_among_its_neighbours(deadly):
    def work(n, place):
        if n == 7 and place == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    async def one(n):
        return work(n, 0)

    async def many(numbers):
        return [work(n, 1) for n in numbers]

    async def more(numbers):
        return [work(n, 2) for n in numbers]

    steps = line(one, batch(many, size=3), batch(more, size=3), step(lambda n: work(n, 3), kind="thread", name="last"))
    with pytest.raises(WorkerDied) as died:
        list(steps(range(20), how="line"))
    assert (died.value.index, died.value.step) == (7, ["one", "many", "more", "last"][deadly])


def test_a_stream_that_is_refused_says_so_and_nobody_waits(tmp_path):
    async def records():
        yield 1

    async def main():
        async for _ in line(abs).stream(records(), journal=tmp_path / "run.journal"):
            pass

    with pytest.raises(LineError, match="keeps its place by itself"):
        asyncio.run(main())


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
        await cancelled_once_hanging(anext(stream), tmp_path)

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
        (lambda: batch(asyncio.sleep, like=abs), "make both of them"),
        (lambda: batch(abs, like=asyncio.sleep), "make both of them"),
    ],
)
def test_what_cannot_wait_is_refused(build, says):
    with pytest.raises(LineError, match=says):
        build()


@pytest.mark.parametrize("technique", ["pool", "queues", "line"])
def test_a_step_that_blocks_its_event_loop_is_ended_under_every_technique(technique):
    async def blocks(n):
        if n == 23:
            time.sleep(600)
        return n

    got = []
    with pytest.raises(StepTimeout, match="'blocks' took longer"):
        for each in line(step(blocks, timeout=0.5, tasks=4))(range(60), how=technique, workers=2):
            got.append(each)
    assert got == list(range(23))
