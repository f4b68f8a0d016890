"""A line on a Ray cluster of two nodes with a CPU each, beside the same line with two workers here, Ray Data and Dask.

python3 dev.py ray bench [--rounds 3] [--seconds 20] [--only records,lines,parquet,arrays]
python3 dev.py ray bench --faults    how long it takes until a loss is noticed
python3 dev.py ray bench --way       what a batch costs the caller's process, its helper and a node

Each contestant does a short and a long run of a work in a process of its own; the difference is what counts, and what the
short one took is its start. Beside the clock, which the machine's other users spoil, stands the processor time of all
processes, less what an idle cluster takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, perf_counter, process_time, sleep
from typing import Any, NamedTuple

import taktline
from benchmarks.anew import anew
from benchmarks.spent import counted
from faults.ray_cluster import (
    BESIDE,
    NODES,
    WITHIN,
    Cluster,
    cluster_with_a_cable,
    gone,
    may_cut,
    processes,
    pull_the_cable,
)
from taktline import batch, line

WORKERS = 2
GOALS = {"records": 1.08, "lines": 1.12, "parquet": 1.12}
SHARE = 20  # of the long run is the short one
SIZES = {"records": 1_250, "lines": 1_000, "parquet": 2_500_000, "arrays": 40}  # records a second of two workers, about
LOST_AFTER = 10.0
IDLE_LOOKS = 10  # seconds at most, in which a cluster comes to rest


def spin(n: int) -> int:
    """0.8 ms and more of work."""
    total = 0
    for i in range(16_000):
        total += i & n
    return total


def raised(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "n": row["n"] + 1, "work": spin(row["n"]) & 1}


def grown(frame: Any) -> Any:
    import numpy as np

    values = frame["x"].to_numpy()
    for _ in range(40):
        values = np.sqrt(values * values + 1.0)
    return frame.assign(y=values)


def one_more(array: Any) -> Any:
    return array + 1


# --- sources, made once a work ---


def make(work: str, folder: Path, count: int) -> None:
    if work == "lines":
        with open(folder / f"{count}.jsonl", "w") as file:
            file.writelines(f'{{"n": {n}, "text": "{n:0100}"}}\n' for n in range(count))
    elif work == "parquet":
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"n": np.arange(count), "x": np.random.default_rng(1).random(count)})
        pq.write_table(table, folder / f"{count}.parquet", row_group_size=max(1_000, count // 64))


def arrays(count: int) -> Iterator[Any]:
    import numpy as np

    return (np.full(125_000, n, dtype=np.float64) for n in range(count))


# --- contestants: each does a work of so many records, and returns its seconds ---


def ours(where: dict[str, Any], work: str, folder: str, count: int) -> float:
    began = perf_counter()
    if work == "records":
        assert sum(1 for _ in line(spin)(range(count), **where)) == count
    elif work == "arrays":
        assert sum(1 for _ in line(one_more)(arrays(count), **where)) == count
    else:
        ending, steps = {"lines": ("jsonl", raised), "parquet": ("parquet", batch(grown, form="pandas"))}[work]
        source = taktline.read(f"{folder}/{count}.{ending}")
        line(steps).run(source, taktline.write(f"{folder}/out/", format=ending), **where)
    return perf_counter() - began


def here(address: str, work: str, folder: str, count: int) -> float:
    return ours({"how": "line", "workers": WORKERS, "start": "launch", "progress": False}, work, folder, count)


def there(address: str, work: str, folder: str, count: int) -> float:
    return ours({"on": taktline.ray(address), "progress": False}, work, folder, count)


def ray_data(address: str, work: str, folder: str, count: int) -> float:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = perf_counter()
    if work == "records":
        data = ray.data.range(count, override_num_blocks=max(WORKERS, count // 200))
        data = data.map_batches(lambda some: {"id": [spin(int(n)) for n in some["id"]]}, batch_size=200)
        assert sum(len(some["id"]) for some in data.iter_batches(batch_size=200)) == count
    elif work == "arrays":
        data = ray.data.from_items([{"a": a} for a in arrays(count)], override_num_blocks=max(WORKERS, count // 8))
        data = data.map_batches(lambda some: {"a": some["a"] + 1}, batch_size=8)
        assert sum(len(some["a"]) for some in data.iter_batches(batch_size=8)) == count
    elif work == "lines":
        data = ray.data.read_json(f"{folder}/{count}.jsonl", override_num_blocks=max(WORKERS, count // 200))
        data.map(raised).write_json(f"{folder}/out")
    else:
        data = ray.data.read_parquet(f"{folder}/{count}.parquet")
        data.map_batches(grown, batch_format="pandas").write_parquet(f"{folder}/out")
    return perf_counter() - began


def dask(address: str, work: str, folder: str, count: int) -> float:
    from distributed import Client, LocalCluster

    with LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        began = perf_counter()
        if work in ("records", "arrays"):
            from dask import bag

            source: Any = range(count) if work == "records" else list(arrays(count))
            done = bag.from_sequence(
                source, npartitions=max(WORKERS, count // 200 if work == "records" else count // 8)
            )
            assert len(done.map(spin if work == "records" else one_more).compute()) == count
        elif work == "lines":
            from dask import bag

            texts = bag.read_text(f"{folder}/{count}.jsonl", blocksize=1 << 18)
            texts.map(json.loads).map(raised).map(json.dumps).to_textfiles(f"{folder}/out/*.jsonl")
        else:
            from dask import dataframe

            dataframe.read_parquet(f"{folder}/{count}.parquet", split_row_groups=1).map_partitions(grown).to_parquet(
                f"{folder}/out"
            )
        return perf_counter() - began


CONTESTANTS: dict[str, Callable[..., float]] = {"2 workers here": here, "2 nodes": there, "Ray Data": ray_data}
if find_spec("distributed") is not None:
    CONTESTANTS["Dask"] = dask


def took(address: str, contestant: str, work: str, folder: str, count: int) -> float | str:
    """In a process of its own."""
    shutil.rmtree(f"{folder}/out", ignore_errors=True)
    try:
        return CONTESTANTS[contestant](address, work, folder, count)
    except Exception as error:  # of another library, say: its row tells it
        if contestant in ("2 workers here", "2 nodes"):
            raise
        return f"{type(error).__name__}: {error}"[:80]


class Cost(NamedTuple):
    """Of a run. `cpu`: seconds of processor time of all processes, the cluster's with them, less what it takes idle."""

    seconds: float
    cpu: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.seconds - other.seconds, self.cpu - other.cpu)


class Meter:
    """What runs cost, where there is such a group of processes; the cluster is started in it, and does nothing yet."""

    def __init__(self, spent: Callable[[], float] | None) -> None:
        self.counts = spent is not None
        self._spent = spent or (lambda: 0.0)
        self._idle = 0.0  # seconds of processor time a second
        self._idle = min(self._rate() for _ in range(IDLE_LOOKS))

    def _rate(self) -> float:
        before = self._spent()
        sleep(1.0)
        return self._spent() - before

    def cost(self, run: Callable[[], float | str]) -> Cost | str:
        """Of a run that gives its seconds, or what it has failed with. What it leaves behind ends before the next one."""
        before, began = self._spent(), perf_counter()
        seconds = run()
        for _ in range(IDLE_LOOKS):
            if not self.counts or self._rate() < self._idle + 0.1:
                break
        if isinstance(seconds, str):
            return seconds
        return Cost(seconds, self._spent() - before - self._idle * (perf_counter() - began))


def figures(address: str, meter: Meter, rounds: int, seconds: float, only: list[str]) -> None:
    print(
        "| work | contestant | seconds | of 2 workers here | processor time | of 2 workers here | start | goal |\n"
        "|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for work in only:
        with tempfile.TemporaryDirectory() as name:
            long = int(SIZES[work] * seconds)
            counts = max(WORKERS, long // SHARE), long
            for count in counts:
                make(work, Path(name), count)
            costs: dict[str, list[tuple[Cost, Cost]]] = {}
            failed: dict[str, str] = {}
            for contestant in [*CONTESTANTS] * rounds:
                if contestant in failed:
                    continue
                runs = [partial(anew, took, address, contestant, work, name, count) for count in counts]
                short, whole = (meter.cost(run) for run in runs)
                if isinstance(short, str) or isinstance(whole, str):
                    failed[contestant] = short if isinstance(short, str) else str(whole)
                else:
                    costs.setdefault(contestant, []).append((short, whole - short))
        _tell(work, costs, failed, counts_cpu=meter.counts)


def _tell(work: str, costs: dict[str, list[tuple[Cost, Cost]]], failed: dict[str, str], *, counts_cpu: bool) -> None:
    base = _median([cost for _, cost in costs["2 workers here"]])
    for contestant, found in costs.items():
        start, cost = _median([short for short, _ in found]), _median([each for _, each in found])
        of_base = cost.seconds / base.seconds
        goal = GOALS.get(work) if contestant == "2 nodes" else None
        said = f"≤ {goal}: {'met' if of_base <= goal else 'missed'}" if goal else ""
        cpu = f"{cost.cpu:.1f} | {cost.cpu / base.cpu:.2f}" if counts_cpu else "- | -"
        print(
            f"| {work} | {contestant} | {cost.seconds:.1f} | {of_base:.2f} | {cpu} | {start.seconds:.1f} s | {said} |",
            flush=True,
        )
    for contestant, why in failed.items():
        print(f"| {work} | {contestant} | {why} | | | | | |", flush=True)


def _median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(each.seconds for each in costs), statistics.median(each.cpu for each in costs))


# --- how long it takes until a loss is noticed ---


class Losses(taktline.abc.Observer):
    """When a worker was told of as lost or dead first."""

    def __init__(self) -> None:
        self.at: float | None = None

    def heard(self, at: float, event: Any, actions: Any) -> None:
        if type(event).__name__ in ("WorkerLost", "Died") and self.at is None:
            self.at = monotonic()


def _one(cluster: Cluster, what: str) -> list[int]:
    return [pid for pid in cluster.of_node(NODES[1]) if what in processes()[pid][1]][:1]


FAULTS: dict[str, tuple[Callable[[Cluster], list[int]], int, float]] = {
    "a worker is killed": (partial(_one, what="_crew.worker "), signal.SIGKILL, 1),
    "the agent of a node is killed": (partial(_one, what="_crew.agent "), signal.SIGKILL, 2),
    "a node is killed": (lambda cluster: cluster.of_node(NODES[1]), signal.SIGKILL, 5),
    "a node is frozen": (lambda cluster: cluster.of_node(NODES[1]), signal.SIGSTOP, LOST_AFTER + 2),
}


CALLER = """
import sys, taktline
from benchmarks.clusters import spin
for n, _ in enumerate(taktline.line(spin)(range(1 << 40), on=taktline.ray(sys.argv[1]), progress=False)):
    if n == 1_000:
        print("at work", flush=True)
"""


def _row(what: str, found: list[float], goal: float) -> None:
    said = "met" if max(found) <= goal else "missed"
    print(f"| {what} | {', '.join(f'{each:.1f}' for each in found)} s | ≤ {goal:g} s: {said} |", flush=True)


def _of_ours() -> list[int]:
    """Helpers, agents and workers."""
    return [
        pid for pid, (_, command) in processes().items() if sys.executable in command and "taktline._crew" in command
    ]  # fmt: skip


def _at_work(cluster: Cluster, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A caller, once its line is at work."""
    caller = subprocess.Popen([*within, sys.executable, "-c", CALLER, cluster.address], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    caller.stdout.readline()
    return caller


def outlived(cluster: Cluster) -> float:
    """How long something of a caller that was killed is at work on the nodes."""
    cluster.mend()
    caller, ours = _at_work(cluster), _of_ours()
    caller.kill()
    began = monotonic()
    caller.wait()
    gone(ours, 60)
    return monotonic() - began


def outlived_cut_off(cluster: Cluster) -> float:
    """The same of one whose machine is cut off."""
    caller = _at_work(cluster, WITHIN)
    there = {*cluster.of_node(BESIDE)}
    ours = [pid for pid in _of_ours() if pid in there]
    pull_the_cable()
    began = monotonic()
    gone(ours, 120)
    caller.kill()
    caller.wait()
    return monotonic() - began


def lost(cluster: Cluster, harm: Callable[[], object]) -> float:
    """How long it takes until a run has noticed this."""
    losses = Losses()
    with line(spin)(range(1 << 40), on=taktline.ray(cluster.address), observer=losses, progress=False) as run:
        while run.snapshot().records_out < 1_000:
            next(run)
        began = monotonic()
        harm()
        while losses.at is None:
            next(run)
    return losses.at - began


def lost_by_signal(cluster: Cluster, whom: Callable[[Cluster], list[int]], number: int) -> float:
    cluster.mend()
    pids: list[int] = []

    def harm() -> None:
        pids.extend(whom(cluster))
        for pid in pids:
            os.kill(pid, number)

    seconds = lost(cluster, harm)
    for pid in pids if number == signal.SIGSTOP else ():
        os.kill(pid, signal.SIGCONT)
    return seconds


def ended(cluster: Cluster) -> float:
    """How long it takes until a run ends whose cluster has lost its head for good."""
    with line(spin)(range(1 << 40), on=taktline.ray(cluster.address), progress=False) as run:
        while run.snapshot().records_out < 1_000:
            next(run)
        began = monotonic()
        for pid in cluster.of_head():
            os.kill(pid, signal.SIGKILL)
        try:
            for _ in run:
                pass
        except taktline.WorkersCannotStart as error:
            print(f"the caller hears: {error}", file=sys.stderr)
        return monotonic() - began


def noticed(rounds: int, cpus: int) -> None:
    """All rows of the table of faults."""
    print("| what happens | noticed after | goal |\n|---|---|---|", flush=True)
    with Cluster(cpus=cpus) as cluster:
        for name, (whom, number, goal) in FAULTS.items():
            _row(name, [lost_by_signal(cluster, whom, number) for _ in range(rounds)], goal)
        _row("the caller is killed: all is gone", [outlived(cluster) for _ in range(rounds)], 5)
    with Cluster(cpus=cpus) as cluster:
        _row("the head is killed for good: the run ends", [ended(cluster)], 90)
    if reason := may_cut():
        print(f"nothing is cut off here: {reason}", flush=True)
        return
    cut: list[list[float]] = [[], []]
    for _ in range(rounds):
        with cluster_with_a_cable() as cluster:
            cut[0].append(lost(cluster, pull_the_cable))
        with cluster_with_a_cable() as cluster:
            cut[1].append(outlived_cut_off(cluster))
    _row("a node is cut off", cut[0], LOST_AFTER + 2)
    _row("the caller's machine is cut off: all is gone elsewhere", cut[1], LOST_AFTER + 2)


# --- what a batch costs whom ---


def _cpu(pids: list[int]) -> dict[int, float]:
    """Seconds of processor time of those that are there."""
    found = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _spent(pids: list[int], before: dict[int, float]) -> float:
    now = _cpu(pids)
    return sum(now[pid] - began for pid, began in before.items() if pid in now)


def way(cluster: Cluster, batches: int = 20_000) -> None:
    """Seconds of processor time, which others at work change little."""
    for name, source, size in (("ints", iter(range(1 << 40)), 10), ("arrays of 1 MB", arrays(1 << 40), 1)):
        count = batches if size > 1 else batches // 50
        with line(one_more)(source, on=taktline.ray(cluster.address), batch_size=size, progress=False) as run:
            for _ in range(100):
                next(run)
            helper = [pid for pid, (_, command) in processes().items() if "_crew.helper" in command]
            on_nodes = [pid for address in NODES for pid in cluster.of_node(address)]
            began, before = process_time(), (_cpu(helper), _cpu(on_nodes))
            for _ in range(count * size):
                next(run)
            spent = process_time() - began, _spent(helper, before[0]), _spent(on_nodes, before[1])
        caller, helpers, nodes = (1e6 * each / count for each in spent)
        print(f"{name}: µs a batch: caller {caller:.0f}, helper {helpers:.0f}, nodes {nodes:.0f}", flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python3 dev.py ray bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each work, about, on a quiet machine")
    parser.add_argument("--only", default=",".join(SIZES), help="works, comma between them")
    parser.add_argument("--faults", action="store_true", help="how long it takes until a loss is noticed")
    parser.add_argument(
        "--cpus", type=int, default=1, help="of a node, as the cluster is told: as many workers run there"
    )
    parser.add_argument("--way", action="store_true", help="what a batch costs whom")
    given = parser.parse_args(arguments)
    if given.faults:
        noticed(given.rounds, given.cpus)
        return
    with counted() as spent, Cluster(cpus=given.cpus) as cluster:
        if given.way:
            way(cluster)
        else:
            figures(cluster.address, Meter(spent), given.rounds, given.seconds, given.only.split(","))
