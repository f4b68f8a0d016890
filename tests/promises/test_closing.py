"""Promise: what `per_worker` has built is closed as in the loop: what its close() raises, or has yet to do, is not lost."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

import taktline
from taktline import line, per_worker
from taktline._crew.machines import agents_here
from taktline._planner import choose
from taktline._run import auto

CREWS = [*({"how": "line", "start": start} for start in ("fork", "launch", "threads")), {"on": agents_here(2)}]
WAYS = [{"how": "loop"}, *CREWS, {"how": "auto"}]
REPLACING = [CREWS[0], CREWS[1], CREWS[3]]  # crews whose workers are replaced


class Keeping:
    """Writes what it was given only when it is closed, and takes some time for it."""

    def __init__(self, folder, *, seconds=0.0, fails=False):
        self.path, self.seconds, self.fails, self.kept = folder, seconds, fails, []

    def __call__(self, n):
        self.kept.append(n)
        return n

    def close(self):
        time.sleep(self.seconds)  # as a database that is slow to answer
        if self.fails and self.fails != os.getpid():
            raise ConnectionResetError("the database is gone")
        with open(os.path.join(self.path, f"{os.getpid()}-{threading.get_native_id()}"), "w") as file:
            file.writelines(f"{n}\n" for n in self.kept)


class KeepingAsync(Keeping):
    async def __call__(self, n):
        return super().__call__(n)

    async def close(self):
        await asyncio.sleep(0)
        super().close()


def kept(folder):
    return sorted(int(each) for path in folder.iterdir() for each in path.read_text().split())


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("kind", [Keeping, KeepingAsync])
def test_what_close_raises_reaches_the_caller_behind_all_results(kind, options, tmp_path, capfd):
    got = []
    with pytest.raises(ConnectionResetError, match="the database is gone") as raised:
        for n in line(per_worker(kind, str(tmp_path), fails=True))(range(40), **options):
            got.append(n)
    assert got == list(range(40))
    if options in CREWS:
        assert any("in close()" in each for each in raised.value.__notes__)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("options", WAYS)
def test_a_close_that_fails_leaves_no_output(options, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(ConnectionResetError):
        line(per_worker(Keeping, str(tmp_path), fails=True)).run(range(40), taktline.write(out), **options)
    assert not out.exists()


@pytest.mark.parametrize("options", CREWS)
def test_a_close_that_takes_longer_than_a_moment_comes_to_its_end(options, tmp_path):
    flow = line(per_worker(Keeping, str(tmp_path), seconds=1.5))
    assert list(flow(range(40), workers=2, **options)) == list(range(40))
    assert kept(tmp_path) == list(range(40))


@pytest.mark.parametrize("options", CREWS)
def test_a_close_that_does_not_come_to_an_end_is_told(options, tmp_path):
    flow = line(per_worker(Keeping, str(tmp_path), seconds=20))
    with pytest.raises(TimeoutError, match=r"close\(\) of what per_worker\(\) has built took longer than 4 s"):
        list(flow(range(40), **options, workers=1, stall=4))


@pytest.mark.parametrize("options", REPLACING)
def test_what_a_replaced_workers_close_raises_ends_the_run(options, tmp_path):
    with pytest.raises(ConnectionResetError):
        list(line(per_worker(Keeping, str(tmp_path), fails=True))(range(400), **options, recycle=50))


@pytest.mark.parametrize("options", REPLACING)
def test_a_replaced_workers_close_comes_to_its_end_too(options, tmp_path):
    flow = line(per_worker(Keeping, str(tmp_path), seconds=1.5))
    assert list(flow(range(200), **options, workers=2, batch_size=5, recycle=50)) == list(range(200))
    assert kept(tmp_path) == list(range(200))


@pytest.mark.parametrize("options", REPLACING)
def test_a_replaced_workers_close_that_does_not_come_to_an_end_is_told(options, tmp_path):
    flow = line(per_worker(Keeping, str(tmp_path), seconds=20))
    with pytest.raises(TimeoutError, match="took longer than 4 s"):
        list(flow(range(200), **options, workers=2, batch_size=5, recycle=50, stall=4))


def test_what_was_built_on_a_machine_that_is_let_go_is_closed_in_its_time(tmp_path):
    """A record comes now and then, which one machine is enough for, until the others have closed what they have."""

    def source():
        yield from range(200)
        yield from (200 for _ in until(lambda: len(list(tmp_path.iterdir())) >= 2))

    flow = line(per_worker(Keeping, str(tmp_path), seconds=1.5))
    got = list(flow(source(), on=agents_here(3, idle_after=0.2), batch_size=1))
    assert got[:200] == list(range(200))
    assert kept(tmp_path) == got


def until(holds):
    """Moments, until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + 60
        time.sleep(0.02)
        yield


@pytest.mark.parametrize("options", CREWS)
def test_who_leaves_early_does_not_wait_for_a_slow_close(options, tmp_path):
    run = line(per_worker(Keeping, str(tmp_path), seconds=20))(range(40), **options, workers=1)
    assert next(run) == 0
    run.close()
    assert kept(tmp_path) == []


class Late:
    """Is built at once in the first worker, and in the others only when the run is over."""

    def __init__(self, folder):
        try:
            open(os.path.join(folder, "first"), "x").close()
        except FileExistsError:
            for _ in range(2_000):
                if os.path.exists(os.path.join(folder, "over")):
                    return
                time.sleep(0.01)
            open(os.path.join(folder, "waited for"), "x").close()

    def __call__(self, n):
        return n

    def close(self):
        pass


@pytest.mark.parametrize("start", ["fork", "launch", "threads"])
def test_nobody_waits_for_a_worker_that_is_not_there_yet(start, tmp_path):
    flow = line(per_worker(Late, str(tmp_path)))
    assert list(flow(range(40), how="line", start=start, workers=2)) == list(range(40))
    (tmp_path / "over").touch()
    assert not (tmp_path / "waited for").exists()


class Seen(Keeping):
    """Says in a file that a worker has it."""

    def __call__(self, n):
        if self.fails != os.getpid():
            open(f"{self.path}.moved", "w").close()
        return super().__call__(n)


def until_moved(folder):
    """Numbers, some more than until workers have some of them."""
    n = 0
    while not os.path.exists(f"{folder}.moved"):
        yield n
        n += 1
    yield from range(n, n + 100)


@pytest.mark.parametrize("start", ["fork", "launch"])
def test_what_close_raises_in_a_worker_that_auto_has_moved_to_ends_the_run(start, tmp_path, monkeypatch):
    monkeypatch.setattr(auto.Auto, "decide", lambda self, lane: choose.Choice(True, True, "as the test says"))
    folder = tmp_path / "kept"
    folder.mkdir()
    flow = line(per_worker(Seen, str(folder), seconds=1.2, fails=os.getpid()))  # not in this process
    with pytest.raises(ConnectionResetError):
        list(flow(until_moved(folder), workers=2, start=start))
