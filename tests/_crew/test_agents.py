"""Agents as processes of this machine: what is lost goes elsewhere, nothing comes twice, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taktline import (
    LineError,
    Report,
    Stalled,
    StepTimeout,
    WorkerDied,
    WorkersCannotStart,
    batch,
    expand,
    line,
    read,
    step,
    write,
)
from taktline._crew.contract import Lost, Ready
from taktline._crew.machines import Agents, agents_here
from taktline._io import changing, opening, ranges
from taktline._io.changing import KnownFile
from taktline._recipe.steps import as_step
from taktline.abc import Observer
from taktline.views import drawing

SOON = 2.0  # seconds after which an agent is given up


def children(pid: int) -> list[int]:
    return [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
        return ""


def helper() -> int:
    (found,) = [pid for pid in children(os.getpid()) if "_crew.helper" in command(pid)]
    return found


def agents() -> list[int]:
    return [pid for pid in children(helper()) if "_crew.agent " in command(pid)]


def all_below(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (child, *all_below(child))]


def gone(pids: list[int], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{pid}") and state(pid) != "Z" for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def why(report: Report) -> str:
    return "; ".join(report.reasons)


@pytest.fixture
def two() -> Agents:
    return agents_here(2, lost_after=SOON)


def works(n: int) -> int:
    time.sleep(0.002)
    return n * 10


def test_a_line_on_two_agents_gives_the_loops_answer(two):
    flow = line(works, str)
    report = flow.run(range(500), (results := []).append, on=two)
    assert [(each.workers, each.batches > 0) for each in report.nodes] == [(1, True)] * 2
    assert sum(each.records for each in report.nodes) == 500
    assert sum(each.busy for each in report.nodes) == pytest.approx(sum(each.busy for each in report.steps))
    assert " nodes " in str(report)
    assert results == [str(n * 10) for n in range(500)]
    assert report.workers == 2
    assert "agent 1 on" in why(report)
    assert "agent 2 on" in why(report)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_lost_agent_had_goes_elsewhere_in_order_and_nothing_twice(two, number, tmp_path):
    lost = tmp_path / "lost"

    def waits(n: int) -> int:
        while n >= 400 and not lost.exists():  # so that there is work left for the one that will be lost
            time.sleep(0.002)
        return works(n)

    run = line(waits)(range(800), on=two, batch_size=4)
    got = [next(run) for _ in range(100)]
    os.kill(agents()[0], number)
    lost.touch()
    got += list(run)
    assert got == [n * 10 for n in range(800)]
    assert "was lost" in why(run.report)


def test_no_record_is_condemned_for_three_agents_in_a_row(two, tmp_path):
    run = line(works)(range(600), on=agents_here(1, lost_after=SOON), batch_size=2)
    got = [next(run)]
    for _ in range(3):
        (agent,) = agents()
        os.kill(agent, signal.SIGKILL)
        while agents() == [agent] or not agents():
            got.append(next(run))
        got.append(next(run))
    assert got + list(run) == [n * 10 for n in range(600)]
    assert run.report.failed == 0


def test_a_poison_record_is_condemned_alone(two):
    def dies(n: int) -> int:
        if n == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    run = line(dies)(range(200), on=two, on_error="skip", batch_size=5)
    assert list(run) == [n for n in range(200) if n != 70]
    with pytest.raises(WorkerDied) as caught:
        list(line(dies)(range(200), on=two, batch_size=5))
    assert caught.value.index == 70


def test_a_time_limit_is_judged_where_the_record_is(two):
    def hangs(n: int) -> int:
        if n == 30:
            time.sleep(1000)
        return n

    with pytest.raises(StepTimeout) as caught:
        list(line(step(hangs, timeout=0.5))(range(60), on=two, batch_size=5))
    assert caught.value.index == 30


def test_a_run_that_hangs_shows_where(two):
    def waits_for_ever(n: int) -> int:
        time.sleep(1000)
        return n

    with pytest.raises(Stalled) as caught:
        list(line(waits_for_ever)(range(60), on=two, stall=1.0))
    assert "waits_for_ever" in str(caught.value)
    assert "agent" in str(caught.value)


def test_a_caller_that_ends_takes_everything_with_it(tmp_path):
    child = os.fork()
    if child == 0:
        run = line(works)(range(10_000), on=agents_here(2, lost_after=SOON), batch_size=1)
        for n, _ in enumerate(run):
            if n == 10:
                (tmp_path / "pids").write_text(" ".join(map(str, all_below(os.getpid()))))
            if n == 20:
                os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    pids = [int(each) for each in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 5
    assert gone(pids)


def test_agents_end_their_workers_where_nothing_is_heard_of_the_helper():
    run = line(works)(range(10_000), on=agents_here(2, lost_after=SOON), batch_size=1)
    next(run)
    frozen, below = helper(), all_below(helper())
    assert len(below) == 4
    os.kill(frozen, signal.SIGSTOP)
    assert gone(below)
    os.kill(frozen, signal.SIGCONT)
    run.close()


def test_the_end_of_the_helper_is_an_exception_in_the_caller(two):
    run = line(works)(range(10_000), on=two, batch_size=1)
    next(run)
    os.kill(helper(), signal.SIGKILL)
    with pytest.raises(WorkersCannotStart, match=r"the helper process .* has ended"):
        list(run)


def test_a_thawed_agent_is_no_more_and_its_late_results_are_ignored():
    run = line(works)(range(1_500), on=agents_here(2, lost_after=SOON), batch_size=4)
    got = [next(run) for _ in range(50)]
    frozen = agents()[0]
    os.kill(frozen, signal.SIGSTOP)
    while "was lost" not in why(run.report):
        got.append(next(run))
    assert gone([frozen])
    assert got + list(run) == [n * 10 for n in range(1_500)]


def test_nothing_is_left_behind(two):
    before = set(os.listdir("/proc/self/fd"))
    flow = line(works)
    for _ in range(2):
        assert len(list(flow(range(50), on=two))) == 50
        run = flow(range(10_000), on=two)
        next(run)
        below = all_below(os.getpid())
        run.close()
        assert gone(below)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_worker_without_a_place_waits_for_one():
    crew = agents_here(1, lost_after=SOON).crew(
        [(as_step(works),)],
        goes_on=False,
        workers=1,
        most=1 << 20,
        seeds=[None],
        setup=None,
        tell=lambda why, lost: None,
    )
    try:
        crew.start(0, 0)
        heard = []
        while not any(type(each) is Ready for each in heard):
            heard += crew.wait(1)
        os.kill(agents()[0], signal.SIGKILL)
        while not any(type(each) is Lost for each in heard):
            heard += crew.wait(1)
        crew.start(0, 0)
        heard = []
        while not any(type(each) is Ready for each in heard):
            heard += crew.wait(1)
    finally:
        crew.close(gently=False)


def test_endless_results_and_files_go_through_agents(two, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"n": {n}}}\n' for n in range(3_000)))
    flow = line(expand(lambda row: [row, row]), lambda row: {"n": row["n"] + 1})
    flow.run(read(source), write(tmp_path / "out.jsonl"), on=two)
    flow.run(read(source), write(tmp_path / "loop.jsonl"), how="loop")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "loop.jsonl").read_bytes()


def parsed(n: int) -> tuple[int, int]:
    return n, os.getppid()


def scored(parsed: tuple[int, int]) -> tuple[int, int, int]:
    return (*parsed, os.getppid())


def test_a_step_runs_where_what_it_needs_is():
    three = agents_here(3, has=[{}, {"GPU": 2}, {}])
    found = list(line(parsed, step(scored, workers=2, resources={"GPU": 1}))(range(300), on=three, batch_size=5))
    assert [n for n, _, _ in found] == list(range(300))
    parsing, scoring = ({each[at] for each in found} for at in (1, 2))
    assert len(scoring) == 1
    assert not parsing & scoring


def test_a_step_that_needs_what_no_machine_has_is_refused_before_anything_is_read():
    flow = line(parsed, step(scored, workers=3, resources={"GPU": 1}))
    with pytest.raises(
        LineError, match=r"step 'scored' wants 3 workers with 1 GPU, and there is room for 2.*: 1 GPU; 1 GPU"
    ):
        flow(iter([1]), on=agents_here(2, has=[{"GPU": 1}, {"GPU": 1}]))


@pytest.mark.parametrize("how", ["line", "loop", "auto"])
def test_here_a_step_has_its_workers_nothing_is_counted_and_the_report_says_so(how):
    flow = line(parsed, step(scored, workers=1, resources={"GPU": 1}))
    report = flow.run(range(20), (results := []).append, how=how)
    assert [n for n, _, _ in results] == list(range(20))
    assert "step 'scored' wants 1 GPU for each of its workers: that is counted with on= alone" in why(report)
    assert "'scored' is counted with on= alone" in str(flow.plan(range(20)))
    assert "counted" not in why(line(parsed).run(range(20), how=how))


def sees(n: int) -> tuple[str | None, int]:
    time.sleep(0.002)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


@pytest.mark.parametrize(
    ("gpus", "workers", "each", "wanted"),
    [(2, 2, 1, ["0", "1"]), (4, 2, 2, ["0,1", "2,3"]), (1, 2, 0.5, ["0", "0"]), (1, 1, 1, ["0"])],
)
def test_a_worker_sees_the_devices_that_are_its_own(gpus, workers, each, wanted, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # of the caller's machine
    flow = line(step(sees, workers=workers, resources={"GPU": each}))
    seen = {pid: devices for devices, pid in flow(range(300), on=agents_here(1, has=[{"GPU": gpus}]), batch_size=5)}
    assert sorted(seen.values(), key=str) == wanted


def test_who_takes_a_dead_workers_place_sees_its_device(tmp_path):
    def dies(n: int) -> tuple[str | None, int]:
        if n == 70 and not (tmp_path / "died").exists():
            (tmp_path / "died").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return sees(n)

    def living() -> set[int]:
        return {pid for pid in seen if str(pid) != (tmp_path / "died").read_text()}

    def records() -> Iterator[int]:
        n = 0
        while n <= 70 or not (tmp_path / "died").exists() or len(living()) < 2:  # the test's own timeout ends it
            yield n
            n += 1

    seen: dict[int, str | None] = {}
    flow = line(step(dies, workers=2, resources={"GPU": 1}))
    for devices, pid in flow(records(), on=agents_here(1, has=[{"GPU": 2}]), batch_size=5):
        seen[pid] = devices
    assert sorted(seen[pid] or "" for pid in living()) == ["0", "1"]


def test_what_a_run_is_at_shows_its_machines(two):
    with line(works)(range(2_000), on=two, batch_size=5) as run:
        while len(run.snapshot().nodes) < 2:
            next(run)
        assert [each.workers for each in run.snapshot().nodes] == [1, 1]
        drawn = drawing.text(drawing.rows(run.snapshot()))
    assert "2 nodes: agent" in drawn
    assert line(works).run(range(20)).nodes == ()


def test_agents_that_have_nothing_to_do_are_let_go_and_come_back():
    told = []

    def source():
        yield from range(200)
        n = 200
        until = time.monotonic() + 60
        while len(agents()) > 1:  # a record comes now and then, which one worker is enough for
            time.sleep(0.02)
            yield n
            n += 1
            assert time.monotonic() < until
        while len(agents()) == 1:
            yield from range(n, n + 100)
            n += 100
            assert time.monotonic() < until
        told.append(n)

    run = line(works)(source(), on=agents_here(3, idle_after=0.3), batch_size=1)
    got = list(run)
    assert got == [n * 10 for n in range(told[0])]
    assert "was let go: it had nothing to do for 0.3 s" in why(run.report)
    assert "has come" in why(run.report)
    assert "lost" not in why(run.report)


def test_a_report_reckons_with_a_core_for_each_worker_there_and_one_here():
    report = line(works).run(range(300), on=agents_here(3))
    assert report.cores == 4
    assert [each["cores"] for each in report.what_if if each["here"]] == [4]
    assert "Other programs" not in report.verdict.doubt


def test_lines_over_slices_of_the_files_make_one_folder(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.jsonl").write_text("".join(f'{{"n": {n * 100 + each}}}\n' for each in range(100)))
    (tmp_path / "out").mkdir()
    files = sorted(map(str, tmp_path.glob("*.jsonl")))
    for number in range(2):
        sink = write(f"{tmp_path}/out/slice={number}/", format="jsonl")
        line(lambda row: {"n": row["n"] * 10}).run(read(files[number::2]), sink, on=agents_here(1))
    rows = list(read(str(tmp_path / "out")))
    assert [row["n"] for row in rows] == [
        n * 10 for n in (*range(100), *range(200, 300), *range(100, 200), *range(300, 400))
    ]
    assert [str(row["slice"]) for row in rows] == ["0"] * 200 + ["1"] * 200


class CountsUnread(Observer):
    """How many parts of the source came back since a worker could not read them."""

    def __init__(self) -> None:
        self.parts = 0

    def heard(self, at: float, event: Any, actions: Any) -> None:
        self.parts += type(event).__name__ == "BatchSpoiled"


@pytest.mark.parametrize("form", ["records", "tables"])
def test_a_machine_without_the_file_gets_its_records_after_a_few_parts(form, two, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(20_000)))
    flow = line(lambda row: int(row["n"])) if form == "records" else line(batch(lambda table: table, form="arrow"))
    options = {"on": two, "batch_size": 100, "observer": (counts := CountsUnread())}
    monkeypatch.setattr(KnownFile, "is_at", lambda self, descriptor: True)  # here it is
    monkeypatch.setattr(ranges, "known", lambda descriptor, end: KnownFile("elsewhere", 0, 0, 0, check=1))
    got = []
    report = flow.run(read(tmp_path / "in.csv", types="infer"), got.append, **options)
    assert got == list(flow(read(tmp_path / "in.csv", types="infer"), how="loop"))
    assert 2 <= counts.parts <= 20
    assert "parts of the source were read in the caller's process, since workers on agent " in why(report)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_machine_without_the_file_is_given_no_part_of_it(ending, two, tmp_path, monkeypatch):
    source = tmp_path / f"in.{ending}"
    line(lambda n: {"n": str(n)}).run(range(20_000), write(source), how="loop")
    for module in (changing, opening, ranges):
        monkeypatch.setattr(module, "known", lambda descriptor, end: KnownFile("elsewhere", 0, 0, end, check=1))
    got: list[dict[str, str]] = []
    options = {"on": two, "batch_size": 100, "observer": (counts := CountsUnread())}
    report = line(dict).run(read(source), got.append, **options)
    assert got == [{"n": str(n)} for n in range(20_000)]
    assert counts.parts == 0
    assert "parts of the source were read in the caller's process, since workers on agent " in why(report)
