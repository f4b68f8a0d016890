"""Promises: nothing lost, nothing silent, no hang. Workers are killed for real."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taktline import (
    BatchLengthError,
    Failed,
    LineError,
    SinkError,
    StepError,
    WorkerDied,
    WorkersCannotStart,
    batch,
    expand,
    keep,
    line,
    per_worker,
    serial,
    step,
)
from taktline._recipe.options import Options

HOWS = ["pool", "queues", "line"]


@pytest.fixture(params=["launch", "fork"], autouse=True)
def start(request, monkeypatch):
    """Each promise holds however workers start."""
    monkeypatch.setitem(Options.__init__.__kwdefaults__, "start", request.param)


def deadly(how_to_die, *records):
    def check(n):
        if n in records:
            how_to_die()
        return n

    return step(check, name="check")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(0)


def crash():
    os.abort()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("death", [kill, leave, crash])
def test_a_record_that_kills_its_worker_is_named_after_all_results_before_it(how, death):
    got = []
    with pytest.raises(WorkerDied) as caught:
        for result in line(abs, deadly(death, 33))(range(100), how=how, workers=2):
            got.append(result)
    assert got == list(range(33))
    assert (caught.value.index, caught.value.step) == (33, "check")
    assert caught.value.signal == {kill: signal.SIGKILL, crash: signal.SIGABRT}.get(death)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("bad", [(0,), (99,), (10, 11), (0, 50, 51, 99)])
def test_records_that_kill_are_left_out_and_the_others_delivered(how, bad):
    flow = line(abs, deadly(kill, *bad), abs)
    assert list(flow(range(100), how=how, workers=2, on_error="skip")) == [n for n in range(100) if n not in bad]


def test_records_that_kill_keep_their_place():
    results = list(line(deadly(kill, 5))(range(10), how="line", workers=2, on_error="keep", batch_size=4))
    assert results[:5] + results[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert isinstance(results[5], Failed)
    assert isinstance(results[5].error, WorkerDied)


@pytest.mark.parametrize("how", HOWS)
def test_a_worker_killed_from_outside_costs_nothing(how):
    flow = line(lambda n: (n, os.getpid()), lambda pair: pair)
    killed, got = set(), []
    for number, pid in flow(range(3_000), how=how, workers=2, window=500):
        got.append(number)
        if number in (50, 900, 2_000) and pid not in killed:
            killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert got == list(range(3_000))
    assert killed


def test_a_stopped_and_killed_worker_is_replaced_too():
    got = []
    for number, pid in line(lambda n: (n, os.getpid()))(range(2_000), how="line", workers=2, batch_size=10, window=200):
        got.append(number)
        if number == 100:
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
    assert got == list(range(2_000))


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Locked(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


@pytest.mark.parametrize("how", [*HOWS, "loop", "auto"])
@pytest.mark.parametrize(
    "make", [StopIteration, SystemExit, GeneratorExit, StopAsyncIteration], ids=lambda each: each.__name__
)
def test_what_would_end_more_than_the_line_is_wrapped(how, make):
    def raising(n):
        if n == 5:
            raise make("x")
        return n

    got = []
    with pytest.raises(StepError) as caught:
        for result in line(raising)(range(100), how=how, workers=2):
            got.append(result)
    assert got == list(range(5))
    assert (caught.value.index, caught.value.step, caught.value.type_name) == (5, "raising", make.__name__)
    assert "record 5" in str(caught.value)


class Coded(ValueError):
    def __init__(self, text, *, code):
        super().__init__(f"{text} ({code})")
        self.code = code


class NotFound(KeyError):
    def __init__(self, name):
        super().__init__(f"no {name}")  # called with its args, it would say so twice
        self.name = name


class OddFile(OSError):
    def __init__(self, path, *, why):
        super().__init__(2, "none", path)
        self.why = why


@pytest.mark.parametrize("how", [*HOWS, "loop"])
@pytest.mark.parametrize("start", ["fork", "launch"])
def test_exceptions_whose_constructor_takes_something_else_than_their_args_reach_the_caller_as_themselves(how, start):
    class Local(Coded):
        pass

    def raising(n):
        if n == 5:
            raise made()
        return n

    for made in (lambda: Coded("x", code={7}), lambda: Odd(1, 2), lambda: Local("x", code={7}), lambda: NotFound("x")):
        with pytest.raises(type(made())) as caught:
            list(line(raising)(range(20), how=how, workers=2, start=start))
        want = made()
        assert (str(caught.value), caught.value.args) == (str(want), want.args)
        assert vars(want).items() <= vars(caught.value).items()
        assert "at record 5 in step 'raising'" in caught.value.__notes__[0]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "make", [lambda: OddFile("x", why=1), Locked, KeyboardInterrupt], ids=["odd", "locked", "interrupt"]
)
def test_exceptions_that_cannot_travel_are_told_about(how, make):
    def raising(n):
        if n == 5:
            raise make()
        return n

    with pytest.raises(StepError) as caught:
        list(line(raising)(range(20), how=how, workers=2))
    assert (caught.value.index, caught.value.step) == (5, "raising")
    assert "raise make()" in caught.value.traceback


@pytest.mark.parametrize("how", HOWS)
def test_a_result_that_cannot_be_pickled_names_step_and_index(how):
    flow = line(abs, step(lambda n: threading.Lock() if n == 7 else n, name="locks"))
    got = []
    with pytest.raises(StepError) as caught:
        for result in flow(range(20), how=how, workers=2):
            got.append(result)
    assert got == list(range(7))
    assert (caught.value.index, caught.value.step) == (7, "locks")


@pytest.mark.parametrize("how", HOWS)
def test_a_record_that_cannot_be_pickled_names_step_and_index(how):
    records = [1, 2, threading.Lock(), 4]
    with pytest.raises(StepError) as caught:
        list(line(step(id, name="look"))(records, how=how, workers=2))
    assert (caught.value.index, caught.value.step) == (2, "look")
    assert len(list(line(step(id, name="look"))(records, how=how, workers=2, on_error="skip"))) == 3


class Unreadable:
    """Goes into a pickle and does not come out of it."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("does not come back")


@pytest.mark.parametrize("how", HOWS)
def test_what_cannot_be_read_back_names_its_record(how):
    with pytest.raises(StepError) as caught:
        list(line(abs, step(lambda n: Unreadable() if n == 7 else n, name="odd"))(range(20), how=how, workers=2))
    assert (caught.value.index, caught.value.step) == (7, "odd")
    with pytest.raises(StepError) as caught:
        list(line(step(id, name="look"))([1, 2, 3, Unreadable(), 5], how=how, workers=2))
    assert caught.value.index == 3


def test_auto_keeps_to_the_loop_where_nothing_can_travel():
    records = [threading.Lock() for _ in range(100)]
    assert list(line(lambda lock: lock.locked())(records)) == [False] * 100
    held = threading.Lock()
    assert list(line(lambda n: (held.locked(), n)[1])(range(50_000))) == list(range(50_000))


def test_a_step_that_cannot_travel_is_named_before_anything_starts():
    held = threading.Lock()
    with pytest.raises(LineError, match="'locked' cannot be carried over"):
        line(abs, step(lambda n: held.locked(), name="locked"))([1], how="line", workers=2, start="auto")


@pytest.mark.parametrize("how", HOWS)
def test_a_factory_that_raises_ends_the_run_with_its_own_exception(how):
    def factory():
        raise ValueError("no model here")

    with pytest.raises(ValueError, match="no model here") as caught:
        list(line(per_worker(factory))([1], how=how, workers=2))
    assert any("built for this worker" in note for note in caught.value.__notes__)


def test_workers_that_die_at_once_end_the_run():
    with pytest.raises(WorkersCannotStart):
        list(line(per_worker(os._exit, 3))([1], how="line", workers=2))


class KillsAtTheEnd:
    """Kills its worker when that has done the last record of a batch, or has a batch without any, and answers."""

    def __init__(self):
        from taktline._crew import worker

        kind: Any = worker.Worker
        kind.answer = lambda *_, **__: kill()

    def __call__(self, n):
        return n


def test_workers_that_are_killed_when_no_record_is_left_end_the_run():
    flow = line(per_worker(KillsAtTheEnd))
    with pytest.raises(WorkersCannotStart, match=r"while no record is at work.*SIGKILL.*no record that ends them"):
        list(flow(range(2), how="line", workers=1, batch_size=2, on_error="skip"))


def test_workers_that_are_killed_at_a_batch_that_came_without_records_end_the_run():
    flow = line(keep(lambda n: n > 9), per_worker(KillsAtTheEnd))
    with pytest.raises(WorkersCannotStart, match="while no record is at work"):
        list(flow(range(2), how="queues", workers=2))


@pytest.mark.parametrize("how", [*HOWS, "loop", "auto"])
def test_a_source_that_raises_ends_the_run_after_all_records_before(how):
    def source():
        yield from range(100)
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone") as caught:
        for result in line(abs)(source(), how=how, workers=2):
            got.append(result)
    assert got == list(range(100))
    assert any("before record 100" in note for note in caught.value.__notes__)


def test_a_sink_that_raises_is_named():
    def sink(result):
        if result == 3:
            raise OSError("full")

    with pytest.raises(SinkError, match="result 3"):
        line(abs).run(range(10), sink)


@pytest.mark.parametrize("how", [*HOWS, "loop", "auto"])
def test_a_batch_of_the_wrong_length_says_both_numbers(how):
    with pytest.raises(BatchLengthError) as caught:
        list(line(batch(lambda records: [*records, 0], size=10))(range(100), how=how, workers=2))
    assert caught.value.returned == caught.value.given + 1


def test_a_batch_of_the_wrong_length_counts_all_its_records():
    run = line(batch(lambda records: records[1:], size=10))(range(100), how="line", workers=2, on_error="skip")
    assert list(run) == []
    assert (run.report.records_in, run.report.skipped) == (100, 100)


class Hostile:
    """Compares with nothing."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("how", [*HOWS, "loop", "auto"])
def test_any_value_is_a_value(how):
    records = [None, 0, float("nan"), "", (), np.arange(5), Hostile(3), b"x" * 50_000_000, None]
    results = list(line(lambda value: value, lambda value: value)(records, how=how, workers=2))
    assert [type(result) for result in results] == [type(record) for record in records]
    assert results[2] != results[2]
    assert (results[5] == np.arange(5)).all()
    assert results[6].n == 3
    assert results[7] == records[7]


def test_arrays_that_come_out_are_whole_writable_and_their_own():
    arrays = [np.full(300_000, n, dtype=np.float64) for n in range(40)]
    results = list(line(lambda a: a + 1)(arrays, how="line", workers=2))
    for n, result in enumerate(results):
        assert (result == n + 1).all()
        result[:] = -1
    assert all((result == -1).all() for result in results)


def test_a_source_that_hands_out_one_object_again_and_again():
    def cursor():
        row = [0]
        for n in range(500):
            row[0] = n
            yield row

    for how in HOWS:
        assert list(line(lambda row: row[0])(cursor(), how=how, workers=2, batch_size=50)) == list(range(500))


@pytest.mark.parametrize("where", ["-c", "stdin"])
def test_functions_and_classes_typed_anywhere_work_without_a_guard(where, tmp_path):
    code = """
from dataclasses import dataclass
from taktline import line
@dataclass
class Point:
    x: int
def double(p):
    return Point(p.x * factor)
class Bad(Exception): pass
def check(p):
    if p.x == 18: raise Bad("eighteen")
    return p
factor = 2
points = [Point(n) for n in range(10)]
for how in ("pool", "queues", "line"):
    assert list(line(double, lambda p: p)(points, how=how, workers=2)) == [Point(2 * n) for n in range(10)]
    try:
        list(line(double, check)(points, how=how, workers=2))
    except Bad as error:
        assert error.args == ("eighteen",)
    else:
        raise AssertionError("no exception")
print("good")
"""
    command = [sys.executable, "-c", code] if where == "-c" else [sys.executable, "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_inside_a_daemonic_process():
    code = """
import multiprocessing
from taktline import line
def inside(n):
    return list(line(abs)(range(n), how="line", workers=2))
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(inside, [3, 4]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[[0, 1, 2], [0, 1, 2, 3]]\n", done.stderr


def test_forked_workers_share_memory_that_cannot_travel():
    held = threading.Lock()
    with held:
        flow = line(lambda n: (n, held.locked()))
        assert list(flow(range(50), how="line", workers=2, start="fork")) == [(n, True) for n in range(50)]


def test_a_line_inside_a_step_and_lines_in_threads():
    inner = line(abs)

    def nested(n):
        return sum(inner(range(n), how="line", workers=2))

    assert list(line(nested)([3, 4], how="line", workers=2)) == [3, 6]
    results = {}

    def work(name):
        results[name] = list(line(abs)(range(500), how="line", workers=2))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: list(range(500)) for n in range(4)}


def test_prints_of_steps_arrive_as_whole_lines(capfd):
    def say(n):
        print(f"record {n}")
        return n

    list(line(say)(range(100), how="line", workers=3, batch_size=5))
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"record {n}" for n in range(100))


def test_numeric_libraries_get_one_thread_a_worker():
    assert set(line(lambda _: os.environ["OMP_NUM_THREADS"])(range(4), how="line", workers=2)) == {"1"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"workers": 0}, "workers=0: give a whole number"),
        ({"how": "lines"}, "did you mean 'line'"),
        ({"batch_sizy": 3}, "did you mean 'batch_size'"),
        ({"memory": "lots"}, 'such as 500_000_000, "512MB" or "25%"'),
        ({"on_error": "ignore"}, "choose one of 'raise', 'skip', 'keep'"),
        ({"window": -1}, "window=-1"),
        ({"on": "x"}, "give taktline.ray(...)"),
        ({"dead_letters": "x.txt"}, "name a file that ends in .jsonl"),
    ],
)
def test_wrong_options_are_refused_at_once(options, says):
    with pytest.raises(LineError) as caught:
        line(abs)([1], **options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: line(), "at least one step"),
        (lambda: line(3), "a step must be a callable"),
        (lambda: line(batch(list, size=0)), "size=0"),
        (lambda: step(abs, retries=-1), "retries=-1"),
        (lambda: step(abs, timeout=0), "timeout=0"),
        (lambda: step(abs, backoff="long"), "backoff='long'"),
        (lambda: step(abs, workers=0), "workers=0"),
        (lambda: batch(list, form="nympy"), "form='nympy'"),
        (lambda: batch(list, verify=True), "give it as like="),
        (lambda: batch(list, verify=-1, like=abs), "verify=-1"),
        (lambda: per_worker(3), "builds the step"),
        (lambda: line(abs)(3), "must be an iterable"),
        (lambda: line(abs).run([1], sink=3), "a sink must be"),
        (lambda: line(abs)([1]).drain("out.jsonl"), "did you mean taktline.write"),
        (lambda: line(abs).run([1], later), "would do nothing with the results"),
        (lambda: line(abs).run([1], functools.partial(later)), "would do nothing with the results"),
        (lambda: line(abs).plan([1], asyncio.Queue().put), "would do nothing with the results"),
        (lambda: line(abs).run([1], lazily), "has a yield"),
    ],
)
def test_lines_that_cannot_work_are_refused_when_they_are_built(build, says):
    with pytest.raises(LineError, match=says):
        build()


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
@pytest.mark.parametrize("made", [lambda n: later(n), lambda n: lazily(n)], ids=["coroutine", "generator"])
def test_a_sink_whose_work_would_be_done_only_later_fails_on_its_first_result(how, made):
    with pytest.raises(SinkError, match=r"failed on result 0.* nothing was done"):
        line(abs).run([1, 2], made, how=how)


async def later(result):
    raise AssertionError("nobody awaits it")


def lazily(result):
    yield result


def test_serial_steps_keep_state_over_a_worker_death():
    total = []
    flow = line(deadly(kill, 40), serial(lambda n: (total.append(n), len(total))[1]))
    assert list(flow(range(100), how="line", workers=2, on_error="skip", batch_size=7)) == list(range(1, 100))


def test_logging_is_left_alone():
    assert [type(each) for each in logging.getLogger("taktline").handlers] in ([], [logging.NullHandler])


@pytest.mark.parametrize("how", ["loop", "auto"])
@pytest.mark.parametrize("at", [3, 1_733])
def test_an_interrupt_in_the_callers_process_comes_after_all_results_before_it(how, at):
    def interrupted(n):
        if n == at:
            raise KeyboardInterrupt
        return n

    got = []
    with pytest.raises(KeyboardInterrupt):
        for result in line(interrupted)(range(100_000), how=how, workers=2):
            got.append(result)
    assert got == list(range(at))


def test_a_run_left_open_when_python_ends_says_nothing():
    code = "from taktline import line\nrun = line(abs)(range(10**6), workers=2)\nprint(next(run))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("orders.jsonl", r"did you mean taktline.read\('orders.jsonl'\)\?"),
        (Path("in") / "orders.jsonl", r"did you mean taktline.read\('in/orders.jsonl'\)\?"),
        (b"orders.jsonl", "did you mean taktline.read"),
        ({"n": 1}, r"did you mean its items\(\), its values\(\)"),
        (OrderedDict(n=1), r"did you mean its items\(\), its values\(\)"),
        (7, "must be an iterable of records, not int"),
    ],
)
def test_a_source_that_is_only_the_name_or_the_whole_of_one_is_refused(source, says):
    calls: list[object] = []
    flow = line(calls.append)
    for use in (flow, flow.run, flow.plan, flow.check, flow.compare, lambda given: flow(given, how="line")):
        with pytest.raises(LineError, match=says):
            use(source)
    assert calls == []


@pytest.mark.parametrize("rows", [{1: 2}.items(), {1: 2}.values(), ["text"], ("a", "b"), range(2), iter, {1, 2}])
def test_what_gives_records_is_a_source(rows):
    rows = iter([1]) if rows is iter else rows
    assert len(list(line(str)(rows, how="loop"))) in (1, 2)


@pytest.mark.parametrize(
    ("sink", "says"),
    [
        ("out.jsonl", r"did you mean taktline.write\('out.jsonl'\)\?"),
        (Path("out.jsonl"), r"did you mean taktline.write\('out.jsonl'\)\?"),
        ([], r"did you mean its append, or list\(flow\(records\)\)\?"),
        (io.BytesIO(), r"did you mean taktline.write\(stream, format\)"),
        (3, "not int"),
    ],
)
def test_a_sink_that_is_only_a_name_or_a_list_is_refused(sink, says):
    calls = []
    for use in (line(calls.append).run, line(calls.append).plan):
        with pytest.raises(LineError, match=says):
            use([1], sink)
    assert calls == []


@pytest.mark.parametrize("how", ["loop", "auto", "line", "queues"])
@pytest.mark.parametrize(
    "steps", [(), (abs,), (expand(lambda n: [n]),)], ids=["alone", "before a step", "before another"]
)
def test_an_expand_that_raises_stop_iteration_fails_its_record(how, steps):
    def given(n):
        if n == 5:
            raise StopIteration("no more")
        return [n, n]

    came = []
    with pytest.raises(StepError, match="at record 5 with StopIteration: no more"):
        came.extend(line(expand(given), *steps)(range(9), how=how, workers=1))
    assert list(line(expand(given), *steps)(range(9), how=how, workers=1, on_error="skip")) == [
        n for m in range(9) if m != 5 for n in (m, m)
    ]


@pytest.mark.parametrize("how", ["loop", "auto", "line"])
def test_what_an_exception_came_of_comes_with_it(how):
    def parse(n):
        try:
            return 1 // (n - 3)
        except ZeroDivisionError as error:
            try:
                raise KeyError("beside")
            except KeyError:
                raise ValueError(f"no {n}") from error

    def again(n):
        try:
            return parse(n)
        except ValueError:
            raise RuntimeError("later")  # noqa: B904  without a cause of its own

    with pytest.raises(RuntimeError) as caught:
        list(line(again)(range(9), how=how, workers=1))
    (error,) = [caught.value.__context__]
    assert (type(error), str(error)) == (ValueError, "no 3")
    assert caught.value.__cause__ is None
    assert not caught.value.__suppress_context__
    assert type(error.__cause__) is ZeroDivisionError
    assert type(error.__context__) is KeyError
    assert error.__suppress_context__
