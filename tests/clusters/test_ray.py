"""Lines on a real Ray cluster: the loop's answer, whatever becomes of its nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taktline
from faults.ray_cluster import (
    BESIDE,
    INSIDE,
    NODES,
    WITHIN,
    Cluster,
    Growing,
    cluster_with_a_cable,
    gone,
    may_cut,
    processes,
    pull_the_cable,
)
from taktline import (
    Failed,
    LineError,
    Report,
    Stalled,
    StepTimeout,
    WorkerDied,
    WorkersCannotStart,
    batch,
    expand,
    keep,
    line,
    per_worker,
    read,
    step,
    write,
)

SOON = 4.0  # seconds after which a node is given up, here


def works(n: int) -> int:
    time.sleep(0.002)
    return n * 10


def why(report: Report) -> str:
    return "; ".join(report.reasons)


def of(cluster, **settings):
    return taktline.ray(cluster.address, **{"lost_after": SOON, **settings})


def test_a_line_gives_the_loops_answer_and_says_where_it_ran(cluster):
    flow = line(works, keep(lambda n: n % 30), expand(lambda n: [n, n]), batch(lambda ns: [n + 1 for n in ns], size=7))
    report = flow.run(range(2_000), (results := []).append, on=of(cluster))
    assert results == list(flow(range(2_000), how="loop"))
    assert report.workers == 2
    assert all(f"node {address}" in why(report) for address in NODES)


def test_files_are_read_by_the_workers_and_come_out_the_same(cluster, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"n": {n}}}\n' for n in range(20_000)))
    flow = line(lambda row: {"n": row["n"] + 1})
    report = flow.run(read(source), write(tmp_path / "out.jsonl"), on=of(cluster))
    flow.run(read(source), write(tmp_path / "loop.jsonl"), how="loop")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "loop.jsonl").read_bytes()
    assert "could not" not in why(report)


def at_work() -> list[int]:
    """Helpers, agents and workers of this environment."""
    return [
        pid for pid, (_, command) in processes().items() if sys.executable in command and "taktline._crew" in command
    ]


def agent_of(cluster, address: str) -> int:
    (found,) = [pid for pid in cluster.of_node(address) if "_crew.agent " in processes()[pid][1]]
    return found


def worker_of(cluster, address: str) -> int:
    return next(pid for pid in cluster.of_node(address) if "_crew.worker " in processes()[pid][1])


def harmed(cluster, harm, count=3_000):
    """A run over which this comes: it must not matter."""
    run = line(works)(range(count), on=of(cluster), batch_size=10)
    got = [next(run) for _ in range(100)]
    harm()
    got += list(run)
    assert got == [n * 10 for n in range(count)]
    assert run.report.failed == 0
    return run.report


def test_a_worker_that_is_killed(cluster):
    report = harmed(cluster, lambda: os.kill(worker_of(cluster, NODES[0]), signal.SIGKILL))
    assert "was lost" not in why(report)


def test_an_agent_that_is_killed(cluster):
    assert "was lost" in why(harmed(cluster, lambda: os.kill(agent_of(cluster, NODES[0]), signal.SIGKILL)))


def test_a_node_that_is_killed(cluster):
    report = harmed(cluster, lambda: cluster.signal_node(NODES[1], signal.SIGKILL))
    assert f"node {NODES[1]} was lost" in why(report)


def test_a_frozen_node_is_given_up_and_what_it_says_once_thawed_is_ignored(cluster):
    run = line(works)(range(6_000), on=of(cluster), batch_size=10)
    got = [next(run) for _ in range(100)]
    frozen = cluster.signal_node(NODES[1], signal.SIGSTOP)
    try:
        while "was lost" not in why(run.report):
            got.append(next(run))
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    got += list(run)
    assert got == [n * 10 for n in range(6_000)]


def test_only_the_poison_is_condemned(cluster):
    def dies(n: int) -> int:
        if n == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    with pytest.raises(WorkerDied) as caught:
        list(line(dies)(range(200), on=of(cluster), batch_size=10))
    assert caught.value.index == 70


CALLER = """
import os, sys, time
import taktline
def works(n):
    time.sleep(0.01)
    return n
run = taktline.line(works)(range(100_000), on=taktline.ray(sys.argv[1], lost_after=4.0), batch_size=10)
for n in run:
    if n == 100:
        print("at work", flush=True)
"""


def test_a_caller_that_is_killed_leaves_nothing_at_work(cluster, tmp_path):
    program = tmp_path / "caller.py"
    program.write_text(CALLER)
    caller = subprocess.Popen([sys.executable, str(program), cluster.address], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    assert caller.stdout.readline() == "at work\n"
    ours = at_work()
    assert len(ours) >= 5
    caller.kill()
    caller.wait()
    assert gone(ours, 10)


def test_a_worker_sees_the_devices_that_are_its_own():
    def sees(n: int) -> tuple[str | None, int]:
        time.sleep(0.002)
        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()

    with Cluster([]) as other:
        other.start_node("127.0.0.10", more=["--num-gpus=2"])
        flow = line(step(sees, workers=2, resources={"GPU": 1}))
        seen = {pid: devices for devices, pid in flow(range(400), on=of(other), batch_size=10)}
        assert sorted(seen.values(), key=str) == ["0", "1"]
        seen = {pid: devices for devices, pid in line(sees)(range(400), on=of(other, gpus=2), batch_size=10)}
        assert list(seen.values()) == ["0,1"]


def test_a_report_says_what_each_node_has_done(cluster):
    report = line(works).run(range(2_000), on=of(cluster), batch_size=10)
    assert sorted((each.name, each.workers) for each in report.nodes) == [(f"node {address}", 1) for address in NODES]
    assert sum(each.records for each in report.nodes) == 2_000


def test_what_was_built_may_take_its_time_to_close(cluster, tmp_path):
    class Keeps:
        def __init__(self) -> None:
            self.kept: list[int] = []

        def __call__(self, n: int) -> int:
            self.kept.append(n)
            return n

        def close(self) -> None:
            time.sleep(3)
            (tmp_path / str(os.getpid())).write_text(" ".join(map(str, self.kept)))

    assert list(line(per_worker(Keeps))(range(100), on=of(cluster))) == list(range(100))
    kept = [int(n) for path in tmp_path.iterdir() for n in path.read_text().split()]
    assert sorted(kept) == list(range(100))


def test_nothing_is_left_behind(cluster):
    for _ in range(2):
        run = line(works)(range(100_000), on=of(cluster), batch_size=10)
        next(run)
        ours = at_work()
        run.close()
        assert gone(ours, 10)


def test_what_no_node_has_is_refused_before_anything_is_read(cluster):
    with pytest.raises(LineError, match=r"GPU.* asked for, and the cluster has none\. Its nodes have"):
        line(works)(iter([1]), on=of(cluster, gpus=1))
    with pytest.raises(LineError, match="3 nodes with 1 CPU are asked for, and the cluster has 2"):
        line(works)(iter([1]), on=of(cluster, nodes=3))


def test_a_cluster_that_does_not_answer_is_not_waited_for(cluster, monkeypatch):
    from taktline._ray import cluster as module

    monkeypatch.setattr(module, "CONNECT", 3.0)
    with pytest.raises(WorkersCannotStart, match=r"the Ray cluster at 127\.0\.0\.1:1"):
        line(works)([1], on=taktline.ray("127.0.0.1:1"))


def test_one_node_is_enough_where_one_is_asked_for(cluster):
    report = line(works).run(range(100), on=of(cluster, nodes=1))
    assert report.workers == 1


def test_the_command_runs_on_a_cluster(cluster, tmp_path):
    (tmp_path / "steps.py").write_text("def more(row):\n    return {'n': row['n'] + 1}\n")
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    command = [sys.executable, "-m", "taktline", "run", "steps.py:more", "--in", "in.jsonl", "--out", "out.jsonl"]
    done = subprocess.run([*command, "--on", f"ray:{cluster.address}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "out.jsonl").read_text().splitlines()[99] == '{"n": 100}'


# --- where a step runs, and what its workers write ---


def test_a_step_runs_on_the_node_that_has_what_it_needs(cluster):
    def where(n: int) -> tuple[int, int]:
        return n, os.getppid()

    seen = {}

    def agents(result: tuple[int, int]) -> None:
        if result[1] not in seen:
            seen[result[1]] = next(address for address in NODES if result[1] in cluster.of_node(address))

    flow = line(works, step(where, workers=2, resources={"scorer": 1}))
    report = flow.run(range(500), agents, on=of(cluster), batch_size=10)
    assert set(seen.values()) == {"127.0.0.3"}
    assert report.records_out == 500
    with pytest.raises(
        LineError, match=r"step 'works' wants 3 workers with 1 scorer each, and the cluster has room for 2"
    ):
        line(step(works, workers=3, resources={"scorer": 1}))(iter([1]), on=of(cluster))


def test_what_no_node_has_is_waited_for_as_long_as_was_said(cluster):
    flow = line(step(works, workers=1, resources={"GPU": 1}))
    with pytest.raises(
        WorkersCannotStart, match="'works' wants a worker with 1 GPU, and no machine has had that free for 3 s"
    ):
        list(flow(range(10), on=of(cluster, start_within=3)))


def long_rows(n: int) -> dict[str, object]:
    time.sleep(0.002)
    return {"n": n, "text": "long " * 400}


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_parts_of_a_folder_are_those_of_the_loop_whatever_becomes_of_a_node(cluster, tmp_path):
    flow = line(long_rows)
    flow.run(range(6_000), write(f"{tmp_path}/loop/", format="jsonl", rows=1_000), how="loop")

    def records() -> Iterator[int]:
        for n in range(6_000):
            if n == 2_000:
                frozen.extend(cluster.signal_node(NODES[1], signal.SIGSTOP))
            yield n

    frozen: list[int] = []
    run = flow(records(), on=of(cluster), batch_size=100)
    thaws = threading.Thread(target=thaw_once_lost, args=(run, frozen))
    thaws.start()
    run.drain(write(f"{tmp_path}/out/", format="jsonl", rows=1_000))
    thaws.join()
    assert parts(tmp_path / "out") == parts(tmp_path / "loop")
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "out"}
    assert "do not have the folder" not in why(run.report)


def thaw_once_lost(run, frozen: list[int]) -> None:
    until = time.monotonic() + 120
    while "was lost" not in why(run.report) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in frozen:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


# --- a cluster that grows and shrinks ---


def shrunk(cluster: Growing, seconds: float = 60.0) -> bool:
    """Whether all nodes that an autoscaler has brought are gone within the time."""
    until = time.monotonic() + seconds
    while cluster.brought() and time.monotonic() < until:
        time.sleep(0.2)
    return not cluster.brought()


def test_an_autoscaler_brings_what_is_waited_for_and_takes_it_away_behind_the_run():
    def records() -> Iterator[int]:
        n = 0
        while sum(node.workers for node in run.snapshot().nodes) < 2:  # the test's own timeout ends it
            yield n
            n += 1
        taken.append(n)

    taken: list[int] = []
    with Growing(most=3) as growing:
        assert growing.brought() == 0
        run = line(works)(records(), on=taktline.ray(growing.address, nodes=2, start_within=120), batch_size=10)
        results = list(run)
        assert results == [n * 10 for n in range(taken[0])]
        assert growing.brought() == 2
        assert shrunk(growing)


# --- what nobody outlives, and what nobody is to blame for ---


def slow(n: int) -> int:
    time.sleep(0.02)
    return n * 10


def test_the_head_that_is_killed_for_good_ends_the_run_and_another_cluster_goes_on(cluster, tmp_path):
    out, given = tmp_path / "out.jsonl", {"batch_size": 10, "journal": tmp_path / "journal"}
    killed: list[float] = []
    with Cluster(["127.0.0.4", "127.0.0.5"]) as other:
        run = line(slow)(range(10_000), on=taktline.ray(other.address, lost_after=SOON), **given)

        def kills() -> None:
            while run.snapshot().records_out < 300:
                time.sleep(0.05)
            for pid in other.of_head():
                os.kill(pid, signal.SIGKILL)
            killed.append(time.monotonic())

        threading.Thread(target=kills, daemon=True).start()
        with pytest.raises(WorkersCannotStart, match=r"head cannot be reached for a minute\. With a journal"):
            run.drain(write(out))
        assert time.monotonic() - killed[0] < 90
        assert not out.exists()
    line(slow).run(range(10_000), write(out), on=of(cluster), **given)
    assert out.read_text() == "".join(f"{n * 10}\n" for n in range(10_000))


def test_a_record_that_hangs_is_ended_where_it_is_and_fails_alone(cluster):
    def hangs(n: int) -> int:
        if n == 70:
            sum(iter(int, 1))  # never comes back from C
        return n

    run = line(step(hangs, timeout=1))(range(200), on=of(cluster), batch_size=10, on_error="keep")
    results: list[Any] = list(run)
    (failed,) = [each for each in results if isinstance(each, Failed)]
    assert failed.index == 70
    assert isinstance(failed.error, StepTimeout)
    assert [each for each in results if each is not failed] == [n for n in range(200) if n != 70]
    assert "was lost" not in why(run.report)


def test_a_line_that_stands_still_is_told_with_the_node_and_the_call(cluster):
    def hangs(n: int) -> int:
        while n == 70:
            time.sleep(0.05)
        return n

    with pytest.raises(Stalled, match="on node ") as caught:
        list(line(hangs)(range(200), on=of(cluster), batch_size=10, stall=3))
    assert "hangs" in str(caught.value)


def test_three_nodes_that_die_under_one_record_condemn_nobody(cluster, tmp_path):
    def stays(n: int) -> int:
        if n == 70 and not os.path.exists(f"{tmp_path}/go on"):
            Path(f"{tmp_path}/at {os.getpid()}").touch()
            while not os.path.exists(f"{tmp_path}/go on"):
                time.sleep(0.02)
        return n

    def kills() -> None:
        for _ in range(3):
            while not (at := [int(path.name[3:]) for path in tmp_path.glob("at *") if path.name not in seen]):
                time.sleep(0.05)
            seen.update(path.name for path in tmp_path.glob("at *"))
            address = next(address for address in NODES if set(at) & set(cluster.of_node(address)))
            cluster.signal_node(address, signal.SIGKILL)
            killed.append(address)
            cluster.mend()
        Path(f"{tmp_path}/go on").touch()

    seen: set[str] = set()
    killed: list[str] = []
    thread = threading.Thread(target=kills, daemon=True)
    thread.start()
    assert list(line(stays)(range(200), on=of(cluster, start_within=120), batch_size=10)) == list(range(200))
    thread.join(1)
    assert len(killed) == 3


def test_arrays_ten_times_as_large_as_the_store_neither_spill_nor_stall():
    np = pytest.importorskip("numpy")
    with Cluster(["127.0.0.6", "127.0.0.7"], store=80_000_000) as small:
        arrays = (np.full(125_000, n, dtype=np.float64) for n in range(800))
        results = line(lambda a: a + 1)(arrays, on=taktline.ray(small.address), stall=60)
        assert [(float(a[0]), a.size) for a in results] == [(n + 1.0, 125_000) for n in range(800)]
        spilled = [path for path in Path(small.folder).glob("**/*spill*/**/*") if path.is_file()]
        assert not spilled


# --- a machine that has other files ---


def test_a_node_with_another_version_is_one_sentence_before_anything_is_read(tmp_path):
    (tmp_path / "taktline").mkdir()
    (tmp_path / "taktline/__init__.py").write_text('__version__ = "0.0.1"\n')
    taken = []

    def records() -> Iterator[int]:
        for n in range(10):
            taken.append(n)
            yield n

    with Cluster([]) as other:
        other.start_node("127.0.0.11", within=["env", f"PYTHONPATH={tmp_path}"])
        with pytest.raises(
            LineError, match=r"node 127\.0\.0\.11 has taktline 0\.0\.1, and here it is .*both must be the same"
        ):
            list(line(works)(records(), on=taktline.ray(other.address)))
    assert not taken


class CountsUnread(taktline.abc.Observer):
    """How many parts of the source came back since a worker could not read them."""

    def __init__(self) -> None:
        self.count = 0

    def heard(self, at: float, event: Any, actions: Any) -> None:
        self.count += type(event).__name__ == "BatchSpoiled"


def hiding(folder: Path) -> list[str]:
    """What starts a node that does not have this folder. For root."""
    return ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh"]


def test_a_file_that_a_node_does_not_have_goes_through_the_caller_and_the_report_says_so(tmp_path):
    if os.geteuid():
        pytest.skip("NOT TESTED, a file that a node does not have: to hide a folder from it, this must be root")
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20_000)))
    with Cluster([]) as other:
        other.start_node("127.0.0.12", within=hiding(tmp_path))
        flow, results = line(lambda row: row["n"] * 10), list[int]()
        report = flow.run(
            read(tmp_path / "in.jsonl"), results.append, on=taktline.ray(other.address), batch_size=100,
            observer=(parts := CountsUnread()),
        )  # fmt: skip
    assert parts.count == 0
    assert results == [n * 10 for n in range(20_000)]
    assert "were read in the caller's process, since workers on node 127.0.0.12 could not" in why(report)


def test_modules_that_a_node_does_not_have_come_from_the_caller(tmp_path, monkeypatch):
    if os.geteuid():
        pytest.skip("NOT TESTED, modules that a node does not have: to hide a folder from it, this must be root")
    package = tmp_path / "tl_house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kitchen.py").write_text("from tl_house import later\ndef cook(n):\n    return later.more(n)\n")
    (package / "later.py").write_text("def more(n):\n    import tl_house.last\n    return n + tl_house.last.ONE\n")
    (package / "last.py").write_text("ONE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import tl_house.kitchen  # type: ignore[import-not-found]

    with Cluster([]) as other:
        other.start_node("127.0.0.9", within=hiding(tmp_path))
        assert list(line(tl_house.kitchen.cook)(range(100), on=taktline.ray(other.address))) == list(range(1, 101))


def test_rows_of_objects_in_a_store_are_read_on_the_nodes(cluster, s3, monkeypatch):
    from taktline._io.parquet import Reading

    def reads(*_):
        raise AssertionError("it is the workers' job")

    url = f"{s3}/on nodes/in.parquet"
    line(lambda n: {"n": n}).run(range(3_000), write(url), how="loop")
    monkeypatch.setattr(Reading, "records", reads)
    monkeypatch.setattr(Reading, "table", reads)
    assert list(line(lambda row: row["n"] * 10)(read(url), on=of(cluster), batch_size=100)) == list(
        range(0, 30_000, 10)
    )


# --- a machine that is cut off ---


@pytest.fixture
def apart() -> Iterator[Cluster]:
    """A cluster of a node in a network of its own, whose cable can be pulled, and one that is outside of it."""
    if reason := may_cut():
        pytest.skip(f"NOT TESTED, a node that is cut off: {reason}. Run it as root")
    with cluster_with_a_cable() as cluster:
        yield cluster


def test_a_node_that_is_cut_off_is_given_up_and_ends_its_workers(apart):
    run = line(works)(range(6_000), on=taktline.ray(apart.address, lost_after=SOON), batch_size=10)
    got = [next(run) for _ in range(100)]
    ours = [pid for pid in apart.of_node(INSIDE) if pid in at_work()]
    assert len(ours) >= 2
    pull_the_cable()
    got += list(run)
    assert got == [n * 10 for n in range(6_000)]
    assert f"node {INSIDE} was lost" in why(run.report)
    assert gone(ours, SOON + 10)


def test_nothing_of_a_caller_that_is_cut_off_stays_at_work(apart, tmp_path):
    program = tmp_path / "caller.py"
    program.write_text(CALLER)
    caller = subprocess.Popen([*WITHIN, sys.executable, str(program), apart.address], stdout=subprocess.PIPE, text=True)
    try:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "at work\n"
        there = apart.of_node(BESIDE)
        ours = [pid for pid in there if pid in at_work()]
        assert len(ours) >= 2
        actor = [pid for pid in there if "NodeRelay" in processes()[pid][1]]
        pull_the_cable()
        assert gone([*ours, *actor], SOON + 10)
    finally:
        caller.kill()
        caller.wait()
