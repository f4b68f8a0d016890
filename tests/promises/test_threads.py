"""Workers that are threads of the caller's process: the loop's answer, its own things where each has its own, and a sentence
where a thread cannot do what is asked for."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
import zlib

import pytest

import taktline
from taktline import LineError, batch, expand, keep, line, per_worker, serial, step, write

SHARED = {"how": "line", "start": "threads", "workers": 2}
STEPS = (lambda n: n * 2, keep(lambda n: n % 3), expand(lambda n: [n, n + 1]), serial(abs), batch(list, 7), str)


def here(flow, records, **options):
    return list(flow(records, how="loop", **options))


@pytest.fixture(autouse=True)
def none_is_left():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:  # of a step in threads: it ends by itself
        assert not thread.name.startswith("taktline worker")
        thread.join(60)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("how", ["line", "pool", "queues", "auto"])
def test_the_loops_results_in_its_order(how):
    flow = line(*STEPS)
    run = flow(range(2_000), how=how, start="threads", workers=3)
    assert list(run) == here(flow, range(2_000))
    assert run.report.complete


def test_what_goes_in_and_comes_out_is_the_same_object_and_may_be_what_nobody_can_pickle():
    records = [threading.Lock() for _ in range(20)]
    assert all(a is b for a, b in zip(line(lambda lock: lock)(records, **SHARED), records, strict=True))


def test_two_records_are_at_work_at_once():
    both = threading.Barrier(2, timeout=60)
    assert list(line(lambda n: both.wait() * 0 + n)(range(6), batch_size=1, **SHARED)) == list(range(6))


def test_the_first_failure_in_input_order_is_the_loops_and_names_its_record():
    with pytest.raises(ZeroDivisionError) as caught:
        list(line(lambda n: 6 // n, name="sixth")([3, 2, 0, 1, 0], **SHARED))
    assert "at record 2" in caught.value.__notes__[0]
    assert caught.value.__traceback__ is not None


def test_a_failed_record_is_shown_as_it_was_read():
    def takes(order):
        return order.pop("a") + order.pop("b")

    kept = list(line(takes)([{"a": 1, "b": 2}, {"a": 1}], on_error="keep", **SHARED))
    assert kept[0] == 3
    assert kept[1].record == {"a": 1}


def test_dead_letters_and_a_journal(tmp_path):
    letters, journal, out = (tmp_path / name for name in ("l.jsonl", "run.journal", "out.jsonl"))
    flow = line(lambda n: 60 // n)
    given = {"dead_letters": letters, "journal": journal}
    report = flow.run(range(100), write(out), **given, **SHARED)
    assert (report.records_out, report.dead_lettered) == (99, 1)
    assert out.read_text().split() == [str(60 // n) for n in range(1, 100)]
    assert flow.run(range(100), write(out), **given, **SHARED).resumed_at == 100


def test_steps_that_wait():
    async def inverse(n):
        await asyncio.sleep(0)
        return 60 / n

    flow = line(inverse, step(abs, tasks=4))
    assert list(flow(range(1, 60), **SHARED)) == [60 / n for n in range(1, 60)]
    with pytest.raises(ZeroDivisionError):
        list(flow([1, 0], **SHARED))


def test_a_time_limit_of_a_step_that_waits_is_kept():
    async def slow(n):
        await asyncio.sleep(n * 3600)
        return n

    kept = list(line(step(slow, timeout=0.05))([0, 1, 0], on_error="keep", **SHARED))
    assert [type(each).__name__ for each in kept] == ["int", "Failed", "int"]
    assert isinstance(kept[1].error, taktline.StepTimeout)


def test_an_endless_record_streams():
    run = line(expand(itertools.count))([5], **SHARED)
    assert list(itertools.islice(run, 10_000)) == list(range(5, 10_005))
    run.close()


def test_per_worker_is_built_used_and_closed_in_the_workers_own_thread():
    seen = []

    class Own:
        def __init__(self):
            self.thread = threading.get_ident()

        def __call__(self, n):
            assert threading.get_ident() == self.thread
            return n

        def close(self):
            assert threading.get_ident() == self.thread
            seen.append(self.thread)

    assert list(line(per_worker(Own))(range(500), **SHARED)) == list(range(500))
    assert len(set(seen)) == 2
    assert threading.get_ident() not in seen


def test_a_worker_that_cannot_be_built_ends_the_run():
    def refuses():
        raise LookupError("no such model")

    with pytest.raises(LookupError):
        list(line(per_worker(refuses))([1], **SHARED))


def test_setup_is_called_once_for_the_process():
    calls = []
    list(line(abs)(range(100), setup=lambda: calls.append(threading.get_ident()), **SHARED))
    assert calls == [threading.get_ident()]


def test_context_variables_and_the_decimal_context_are_the_callers_and_each_workers_own():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")

    def look(n):
        was, digits = variable.get(), decimal.getcontext().prec
        variable.set("a worker's")
        decimal.getcontext().prec = 3
        return was, digits

    with decimal.localcontext() as context:
        context.prec = 9
        found = set(line(look)(range(50), **SHARED))
        assert decimal.getcontext().prec == 9
    assert found <= {("the caller's", 9), ("a worker's", 3)}
    assert ("the caller's", 9) in found
    assert variable.get() == "the caller's"


def test_log_records_name_worker_and_step(caplog):
    def tells(n):
        logging.getLogger("orders").warning("order %d", n)
        return n

    factory = logging.getLogRecordFactory()
    list(line(step(tells, name="tells"))(range(3), **SHARED))
    assert [record.getMessage() for record in sorted(caplog.records, key=lambda record: record.args)] == [
        "order 0", "order 1", "order 2"
    ]  # fmt: skip
    assert {record.taktline_step for record in caplog.records} == {"tells"}
    assert {record.taktline_worker for record in caplog.records} <= {0, 1}
    assert logging.getLogRecordFactory() is factory


def test_launched_workers_of_another_run_find_the_programs_own_logging(recwarn, monkeypatch):
    def level(n):
        return logging.getLevelName(33)

    monkeypatch.setitem(logging._levelToName, 33, "NOTICE")
    with line(abs)(range(1000), **SHARED) as open_run:
        next(iter(open_run))
        names = set(line(level)(range(40), how="line", workers=2, start="launch"))
    assert names == {"NOTICE"}
    assert not [each for each in recwarn if "workers do not have" in str(each.message)]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_program_fails_a_record(error):
    def ends(n):
        if n == 3:
            raise error
        return n

    kept = list(line(ends)(range(6), on_error="skip", **SHARED))
    assert kept == [0, 1, 2, 4, 5]


def test_leaving_early_ends_a_step_that_runs_python_code():
    started = threading.Event()

    def spins(n):
        started.set()
        while n:
            n += 1
        return n

    run = line(spins)([0, 1, 2], batch_size=1, **SHARED)
    assert next(run) == 0
    started.wait()
    run.close()  # and no thread is left


def test_a_thread_inside_a_call_is_left_with_a_warning():
    inside, go_on = threading.Event(), threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def hangs(n):
        if n:
            inside.set()
            lock.acquire()
            go_on.wait()
        return n

    run = line(step(hangs, name="hangs"))([0, 1], batch_size=1, **SHARED)
    assert next(run) == 0
    inside.wait()
    threads = [each for each in threading.enumerate() if each.name.startswith("taktline worker")]
    with pytest.warns(RuntimeWarning, match="inside a call of step 'hangs'"):
        run.close()
    lock.release()
    for thread in threads:
        thread.join()


def test_a_run_that_stalls_says_where_its_threads_are():
    hold = threading.Event()

    def waits(n):
        hold.wait()
        return n

    try:
        with pytest.warns(RuntimeWarning, match="inside a call"), pytest.raises(taktline.Stalled) as caught:
            list(line(step(waits, name="waits"))([1, 2], batch_size=1, stall=0.3, **SHARED))
    finally:
        hold.set()
    assert "waits" in str(caught.value)
    assert "in step 'waits'" in str(caught.value)
    for thread in [each for each in threading.enumerate() if each.name.startswith("taktline worker")]:
        thread.join()


def test_a_fork_of_the_caller_has_no_part_in_the_run():
    run = line(abs)(range(1_000), batch_size=1, **SHARED)
    assert next(run) == 0
    if not (child := os.fork()):
        try:
            list(run)
        except LineError as error:
            os._exit(7 if "a fork of that cannot go on with it" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list(run) == list(range(1, 1_000))


REFUSED = [
    (
        line(step(abs, timeout=1.0, name="slow")),
        {},
        r"step 'slow' has timeout=1, and start=\"threads\" cannot end a call",
    ),
    (line(abs), {"seed": 7}, "seed= cannot make random numbers repeatable in threads"),
    (line(abs), {"recycle": 10}, r"recycle= replaces worker processes, and start=\"threads\" has none"),
]


@pytest.mark.parametrize(("flow", "options", "says"), REFUSED)
def test_what_a_thread_cannot_do_is_refused_before_anything_is_read(flow, options, says):
    read = []
    with pytest.raises(LineError, match=says):
        flow((read.append(n) for n in range(3)), **options, **SHARED)
    assert read == []


def test_a_plan_is_refused():
    with pytest.raises(LineError, match=r"flow\.plan.* reckons with processes"):
        line(abs).plan([1], start="threads")


def test_the_processor_time_of_threads_is_counted_once():
    began = time.process_time()
    report = line(lambda n: sum(range(20_000)))
    run = report(range(200), **SHARED)
    list(run)
    assert run.report.cpu_seconds <= time.process_time() - began + 0.01


def test_the_report_of_steps_that_hold_pythons_lock_or_not_is_whole():
    data = os.urandom(1 << 16)
    run = line(lambda n: len(zlib.compress(data)) + n)(range(50), **SHARED)
    assert len(list(run)) == 50
    (counted,) = run.report.steps
    assert (counted.records, run.report.how, run.report.workers) == (50, "line", 2)
    assert counted.busy > 0


def test_tables_go_to_threads_as_tables(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"n": list(range(5_000))}), path, row_group_size=500)
    kinds = set()

    def doubled(table):
        kinds.add(type(table))
        return table.append_column("double", pa.compute.multiply(table["n"], 2))

    flow = line(batch(doubled, form="arrow"))
    assert list(flow(taktline.read(path), **SHARED)) == [{"n": n, "double": 2 * n} for n in range(5_000)]
    assert kinds == {pa.Table}
    out = tmp_path / "out.parquet"
    flow.run(taktline.read(path), write(out), **SHARED)
    assert pq.read_table(out)["double"].to_pylist() == [2 * n for n in range(5_000)]


def test_a_record_that_is_told_by_is_stays_itself_though_its_source_keeps_it():
    """In a Python of its own: where no process was started nobody has looked for such objects yet."""
    program = """
import sys
from taktline import line
MISSING = object()
def is_missing(value): return value is MISSING
kept = [MISSING, {"n": 1}]
print(list(line(is_missing)((each for each in kept * 3), how="line", start="threads", workers=2)) == [True, False] * 3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_what_two_threads_print_comes_in_whole_lines(capfd):
    def says(n):
        print("said", n, end="")
        threading.Event().wait(0.001)
        print(" and done", flush=True)
        return n

    write = vars(sys.stdout).get("write")
    assert list(line(says)(range(200), how="line", workers=2, start="threads", batch_size=5)) == list(range(200))
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(f"said {n} and done" for n in range(200))
    assert vars(sys.stdout).get("write") is write
