"""Promises: what does harm while it is packed, unpacked or answered costs its own record alone."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from taktline import Failed, StepError, StepTimeout, WorkerDied, line, step, write

COUNT = 400
BAD = 200


class Harm:
    """A value that does something to the process that packs it, or, `later`, that unpacks it."""

    def __init__(self, do, *, later=False):
        self.do, self.later = do, later

    def __reduce__(self):
        if self.later:
            return self.do, ()
        self.do()
        return int, ()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(3)


def hang():
    while True:
        time.sleep(60)


def end():
    raise SystemExit(5)


def harmful(do, *, later=False):
    return step(lambda n: Harm(do, later=later) if n == BAD else n, name="harmful")


def left_out(flow, records=range(COUNT), **options):
    """What comes, and the records that are left out, each with its error."""
    results = list(flow(records, **{"how": "line", "workers": 2, "on_error": "keep", **options}))
    return [each for each in results if not isinstance(each, Failed)], [
        (each.index, each.step, type(each.error)) for each in results if isinstance(each, Failed)
    ]


ALL_OTHERS = [n for n in range(COUNT) if n != BAD]


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("do", [kill, leave])
def test_a_result_that_kills_while_it_is_packed_costs_its_record_alone(start, do):
    flow = line(abs, harmful(do))
    assert left_out(flow, start=start, batch_size=100) == (ALL_OTHERS, [(BAD, "harmful", WorkerDied)])


def test_a_result_that_kills_while_it_is_packed_costs_its_record_alone_where_steps_wait():
    async def wait(n):
        return Harm(kill) if n == BAD else n

    assert left_out(line(wait), batch_size=100) == (ALL_OTHERS, [(BAD, "wait", WorkerDied)])


def test_a_result_that_kills_while_it_is_packed_costs_its_record_alone_where_workers_make_the_sinks_bytes(
    tmp_path: Path,
):
    report = line(abs, harmful(kill)).run(
        range(COUNT), write(tmp_path / "out.jsonl"), how="line", workers=2, on_error="skip", batch_size=100
    )
    assert report.skipped == 1
    assert (tmp_path / "out.jsonl").read_text().split() == [str(n) for n in ALL_OTHERS]


@pytest.mark.parametrize("first", [1.0, None])
def test_a_result_that_hangs_while_it_is_packed_is_over_its_time(first):
    flow = line(
        step(abs, timeout=first), step(harmful(hang).fn, name="harmful", timeout=1.0 if first is None else None)
    )
    assert left_out(flow, batch_size=100) == (ALL_OTHERS, [(BAD, "harmful", StepTimeout)])


def test_a_result_that_ends_its_process_politely_while_it_is_packed_fails_as_one_that_cannot_be_packed():
    assert left_out(line(harmful(end)), batch_size=100) == (ALL_OTHERS, [(BAD, "harmful", StepError)])


@pytest.mark.parametrize(("do", "error"), [(kill, WorkerDied), (hang, StepTimeout), (end, StepError)])
def test_a_record_that_does_harm_while_a_worker_unpacks_it_is_left_out_alone(do, error):
    records = [Harm(do, later=True) if n == BAD else n for n in range(COUNT)]
    flow = line(step(lambda n: n, name="same", timeout=1.0))
    assert left_out(flow, records, batch_size=100) == (ALL_OTHERS, [(BAD, "same", error)])


HERE = os.getpid()


def end_in_the_caller():
    if os.environ.get("TAKTLINE_TEST_CALLER") == str(os.getpid()):
        raise SystemExit(5)
    return 0


def test_a_result_that_would_end_the_caller_while_it_is_unpacked_costs_its_record_alone(monkeypatch):
    monkeypatch.setenv("TAKTLINE_TEST_CALLER", str(os.getpid()))
    flow = line(harmful(end_in_the_caller, later=True))
    assert left_out(flow, batch_size=100) == (ALL_OTHERS, [(BAD, "harmful", StepError)])


def close_all():
    os.closerange(3, 65536)


def close_all_and_open_others():
    os.closerange(3, 65536)
    for _ in range(20):
        os.open("/dev/null", os.O_WRONLY)


def sockets():
    for descriptor in range(3, 100):
        try:
            yield socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue


def write_garbage():
    for each in sockets():
        with suppress(OSError):  # a fork has the sockets of other tests too
            each.send(b"\x00\xff garbage " * 20)


def write_a_little_garbage():
    for each in sockets():
        with suppress(OSError):
            each.send(b"\n")


@pytest.mark.parametrize("start", ["launch", "fork"])
@pytest.mark.parametrize("do", [close_all, close_all_and_open_others, write_garbage, write_a_little_garbage])
def test_a_step_that_spoils_the_workers_descriptors_costs_its_record_alone(start, do):
    def spoil(n):
        if n == BAD:
            do()
        return n

    assert left_out(line(abs, spoil), start=start, batch_size=100) == (ALL_OTHERS, [(BAD, "spoil", WorkerDied)])


def test_a_result_is_not_written_into_a_file_that_a_step_has_opened_in_the_place_of_the_socket(tmp_path: Path):
    def reopen(n):
        if n == BAD:
            os.closerange(3, 65536)
            for each in range(20):
                os.open(tmp_path / str(each), os.O_WRONLY | os.O_CREAT)
        return n

    assert left_out(line(reopen), batch_size=100)[0] == ALL_OTHERS
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b""] * 20


def test_an_error_of_the_hubs_own_ends_the_run(monkeypatch):
    from taktline._crew import envelope

    def broken(*_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(envelope, "open_answer", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(line(abs)(range(300), how="line", workers=2, batch_size=100))
