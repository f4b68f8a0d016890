"""Promise: a run that was killed at any moment and started again gives byte for byte what an undisturbed one gives."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import killed
import pytest

from taktline import (
    LineError,
    ResumeError,
    SinkError,
    _files,
    expand,
    keep,
    line,
    per_worker,
    read,
    read_dead_letters,
    read_sql,
    serial,
    step,
    write,
    write_sql,
)
from taktline._run import checkpointer, states

RECORDS = 700


def parse(n):
    if n % 101 == 7:
        raise ValueError(f"no {n}")
    return n


def flow():
    def row(n):
        return {"n": n, "text": "é" * (n % 9) * 40}

    here = [step(each, kind="inline") for each in (parse, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)), row)]
    return line(*here)


class Killed(Exception):
    """The process was killed."""


def in_a_process(work, kill_at=None):
    """Run `work` in a fork of this process. `kill_at`: SIGKILL it just before its file operation of that number, or in
    the middle of it where that is a write."""
    pid = os.fork()
    if pid == 0:
        try:
            if kill_at is not None:
                _kill_before(kill_at)
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise Killed
    assert os.waitstatus_to_exitcode(status) == 0


OPERATIONS = ("pwrite", "fsync", "rename", "replace", "ftruncate", "unlink")


def _watched(name, count, number):
    real = getattr(os, name)

    def call(*args, **kwargs):
        at = next(count)
        if at == number:
            if name == "pwrite":
                real(args[0], args[1][: len(args[1]) // 2], *args[2:])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


def _kill_before(number):
    count = itertools.count()
    for name in OPERATIONS:
        setattr(os, name, _watched(name, count, number))


@contextmanager
def operations_counted():
    count = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, _watched(name, count, -1))
        yield count


def job(folder, name, **options):
    """One file-to-file run, as a function to be called until it ends."""

    def work():
        return flow().run(range(RECORDS), write(folder / name), journal=folder / "run.journal", window=100, **options)

    return work


def undisturbed(folder, name, **options):
    (folder / "whole").mkdir()
    flow().run(range(RECORDS), write(folder / "whole" / name), **options)
    return (folder / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.jsonl.gz"])
@pytest.mark.parametrize("letters", ["failed.jsonl", "failed.sqlite"])
def test_killed_at_every_operation_on_a_file(tmp_path, monkeypatch, name, letters):
    monkeypatch.setattr(checkpointer, "EVERY", 0)
    whole = undisturbed(tmp_path, name, on_error="skip")
    failed = [n for n in range(RECORDS) if n % 101 == 7]
    options = {"dead_letters": tmp_path / letters}
    # Every operation in some runs of this test, a share of them in each.
    share = 5 if (name, letters) == ("out.jsonl", "failed.jsonl") else 15
    ended, number = False, random.randrange(share)
    print("from", number, "every", share)
    while not ended:
        try:
            in_a_process(job(tmp_path, name, **options), kill_at=number)
            ended = True
        except Killed:
            with suppress(Killed):
                in_a_process(job(tmp_path, name, **options), kill_at=11)
            in_a_process(job(tmp_path, name, **options))
        assert "already done" in str(job(tmp_path, name, **options)())
        assert (tmp_path / name).read_bytes() == whole
        assert [each.index for each in read_dead_letters(tmp_path / letters)] == failed
        for path in (name, letters, "run.journal"):
            (tmp_path / path).unlink()
        assert os.listdir(tmp_path) == ["whole"]
        number += share
    assert number > 40


def content(folder):
    return {
        os.path.relpath(os.path.join(at, name), folder): Path(at, name).read_bytes()
        for at, _, names in os.walk(folder) for name in names
    }  # fmt: skip


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("parquet", {}), ("jsonl", {"codec": "gzip"}), ("csv", {"partition_by": "kind"}),
        ("jsonl", {"mode": "replace"}), ("jsonl", {"mode": "append"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_folder_of_parts_killed_at_some_operations(tmp_path, monkeypatch, format, options):
    """At any of them, and at those of the end, where the parts get their names."""
    monkeypatch.setattr(checkpointer, "EVERY", 0)
    steps = line(flow(), step(lambda row: {**row, "kind": row["n"] % 3}, kind="inline"))

    def run(name="out"):
        sink = write(f"{tmp_path / name}/", format, rows=30, **options)
        journal = tmp_path / f"{name}.journal"
        return steps.run(range(120), sink, how="loop", on_error="skip", journal=journal, window=50)

    def before(name):
        if "mode" in options:
            (tmp_path / name).mkdir()
            (tmp_path / name / "part-00004.jsonl").write_text('{"n": 0}\n')

    before("whole")
    with operations_counted() as count:
        run("whole")
    whole, last = content(tmp_path / "whole"), next(count)
    assert len(whole) >= 4
    kills = [*random.sample(range(last), 3), *random.sample(range(last - 40, last), 2), last + 1]
    print("killed before the operations", kills, "of", last)
    for kill_at in kills:
        before("out")
        try:
            in_a_process(run, kill_at=kill_at)
        except Killed:
            with suppress(Killed):
                in_a_process(run, kill_at=11)
            in_a_process(run)
        assert "already done" in str(run())
        assert content(tmp_path / "out") == whole
        assert sorted(os.listdir(tmp_path)) == ["out", "out.journal", "whole", "whole.journal"]
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out.journal").unlink()


CHILD = """
import json, sys
from taktline import line, keep, expand, write
def parse(n):
    if n % 101 == 7:
        raise ValueError(n)
    return n
def work(n):
    return {"n": n, "sum": sum(range(n % 5000))}
flow = line(parse, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)), work)
options = dict(journal="run.journal", how=sys.argv[2], workers=2, on_error="skip", dead_letters="failed.jsonl")
if sys.argv[1] == "iterator":
    # As a user would: cut back what was written to what was delivered, then go on.
    with flow(range(30_000), **options) as run, open("out.jsonl", "a+b") as file:
        file.seek(0)
        file.truncate(sum(len(file.readline()) for _ in range(run.delivered)))
        for result in run:
            file.write(json.dumps(result).encode() + b"\\n")
            file.flush()
else:
    flow.run(range(30_000), write(sys.argv[1]), **options)
"""


@pytest.mark.parametrize(("kind", "how"), [("out.jsonl.gz", "line"), ("iterator", "line"), ("iterator", "loop")])
def test_killed_at_random_moments_until_done(tmp_path, kind, how):
    (tmp_path / "job.py").write_text(CHILD)
    killed.until_done(tmp_path, "job.py", kind, how, kills=6)
    wanted = (n for n in range(30_000) if n % 101 != 7 and n % 3 for _ in range(n % 4))
    expected = "".join(f'{{"n": {n}, "sum": {(n % 5000) * (n % 5000 - 1) // 2}}}\n' for n in wanted).encode()
    (out,) = tmp_path.glob("out.jsonl*")
    assert (gzip.decompress(out.read_bytes()) if out.suffix == ".gz" else out.read_bytes()) == expected
    assert [each.index for each in read_dead_letters(tmp_path / "failed.jsonl")] == list(range(7, 30_000, 101))
    assert sorted(os.listdir(tmp_path)) == ["failed.jsonl", "job.py", out.name, "run.journal"]


# --- steps with state ---


class Total:
    """The sum of all records so far."""

    def __init__(self, total=0):
        self.total = total

    def __call__(self, n):
        self.total += n
        return self.total

    def save(self):
        return self.total

    def load(self, state):
        self.total = state


class Seen(Total):
    """How many different remainders there were: a state that grows."""

    def __init__(self):
        self.known = set()

    def __call__(self, n):
        self.known.add(n % 701)
        return [n, len(self.known)]

    def save(self):
        return self.known

    def load(self, state):
        self.known = state


def with_state():
    here = [step(each, kind="inline") for each in (parse, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)))]
    return line(*here, serial(Total()), serial(per_worker(Seen)))


def state_job(folder, **options):
    def work():
        with_state().run(range(RECORDS), write(folder / "out.jsonl"), journal=folder / "j", window=100, **options)

    return work


@pytest.fixture
def at_every_border(monkeypatch):
    monkeypatch.setattr(checkpointer, "EVERY", 0)
    monkeypatch.setattr(states, "EVERY", 0)
    monkeypatch.setattr(states, "SHARE", 0)


def test_states_survive_a_kill_at_every_operation_on_a_file(tmp_path, at_every_border):
    options = {"on_error": "skip", "how": "line"}
    (tmp_path / "whole").mkdir()
    with_state().run(range(RECORDS), write(tmp_path / "whole" / "out.jsonl"), **options)
    share = 9
    ended, number = False, random.randrange(share)
    print("from", number, "every", share)
    while not ended:
        try:
            in_a_process(state_job(tmp_path, **options), kill_at=number)
            ended = True
        except Killed:
            with suppress(Killed):
                in_a_process(state_job(tmp_path, **options), kill_at=11)
            in_a_process(state_job(tmp_path, **options))
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole" / "out.jsonl").read_bytes()
        (tmp_path / "out.jsonl").unlink()
        (tmp_path / "j").unlink()
        assert os.listdir(tmp_path) == ["whole"]
        number += share
    assert number > 40


STATE_CHILD = (
    CHILD.replace("from taktline import", "from taktline import per_worker, serial,", 1)
    .replace(
        "def work(n):",
        """class Total:
    def __init__(self):
        self.total = 0
    def __call__(self, n):
        self.total += n
        return n, self.total
    def save(self):
        return self.total
    def load(self, state):
        self.total = state
def work(both):
    n, total = both""",
    )
    .replace('"sum": sum(range(n % 5000))', '"sum": sum(range(n % 5000)), "total": total')
)
STATE_CHILD = STATE_CHILD.replace("line(parse, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)), work)",
    "line(parse, keep(lambda n: n % 3), serial(per_worker(Total)), expand(lambda n: [n] * (n[0] % 4)), work)")  # fmt: skip


@pytest.mark.parametrize(("kind", "how"), [("out.jsonl", "line"), ("iterator", "line"), ("iterator", "loop")])
def test_states_survive_kills_at_random_moments(tmp_path, kind, how):
    (tmp_path / "job.py").write_text(STATE_CHILD)
    killed.until_done(tmp_path, "job.py", kind, how, kills=6)
    totals = itertools.accumulate(n for n in range(30_000) if n % 101 != 7 and n % 3)
    numbers = (n for n in range(30_000) if n % 101 != 7 and n % 3)
    wanted = [(n, total) for n, total in zip(numbers, totals, strict=True) for _ in range(n % 4)]
    expected = (f'{{"n": {n}, "sum": {(n % 5000) * (n % 5000 - 1) // 2}, "total": {total}}}\n' for n, total in wanted)
    assert (tmp_path / "out.jsonl").read_text() == "".join(expected)


BEFORE_IT_FAILS = []  # as many records as are left in it


def fail_once(value):
    if not BEFORE_IT_FAILS:
        BEFORE_IT_FAILS[:] = range(1_000)
        raise ConnectionError("not now")
    BEFORE_IT_FAILS.pop()
    return value


def as_row(both):
    return {"total": both[0], "seen": both[1]}


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("stop", [0, 70, 199])
@pytest.mark.parametrize("kind", ["file", "table"])
def test_a_line_that_was_used_before_goes_on_with_the_states_of_the_journal(tmp_path, at_every_border, how, stop, kind):
    BEFORE_IT_FAILS[:] = range(stop)
    flow = line(abs, serial(Total()), abs, serial(per_worker(Seen)), step(fail_once, kind="inline"), as_row)
    options = {"journal": tmp_path / "j", "how": how, "workers": 2, "batch_size": 7 if how == "line" else None}
    url = f"sqlite:///{tmp_path / 'out.sqlite'}"
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as made:
        made.execute("CREATE TABLE totals (total INTEGER, seen INTEGER)")
    for attempt in range(2):
        sink = write(tmp_path / "out.jsonl") if kind == "file" else write_sql(url, "totals")
        with pytest.raises(ConnectionError) if attempt == 0 else nullcontext():
            flow.run(range(200), sink, **options)
    totals = list(itertools.accumulate(range(200)))
    got = list(read(tmp_path / "out.jsonl") if kind == "file" else read_sql(url, "SELECT * FROM totals ORDER BY total"))
    assert [row["total"] for row in got] == totals
    assert [row["seen"] for row in got] == [len({total % 701 for total in totals[: n + 1]}) for n in range(200)]


def test_what_save_gives_must_be_picklable(tmp_path):
    with pytest.raises((AttributeError, TypeError)) as caught:
        list(line(serial(Total(lambda: 0)))(range(3), journal=tmp_path / "j"))
    assert "the state of step 'Total' was taken for the journal" in caught.value.__notes__[0]


def test_what_a_factory_builds_is_looked_at_when_it_is_there(tmp_path):
    with pytest.raises(LineError, match=r"has save\(\)"):
        list(line(serial(per_worker(lambda: abs)))(range(3), journal=tmp_path / "j"))


# --- the caller's own iterator ---


@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_the_caller_asked_past_is_delivered(tmp_path, how):
    options = {"journal": tmp_path / "j", "how": how, "workers": 2, "on_error": "keep"}
    got = []
    while len(got) < 500:
        with flow()(range(500), **options) as run:
            assert run.delivered == len(got)
            part = list(itertools.islice(run, 171))
            # One more is asked for, and not delivered: it comes again.
            next(run, None)
            got += part
            if len(part) < 171:
                break
    plain = list(flow()(range(500), on_error="keep"))
    assert [repr(each) for each in got] == [repr(each) for each in plain]


def test_a_callable_gets_every_result_once(tmp_path):
    got = []

    def sink(n):
        if len(got) == 50 and got[-1] == 49:
            got.append("stopped")
            raise OSError("for a moment")
        got.append(n)

    with pytest.raises(SinkError, match="for a moment"):
        line(abs).run(range(100), sink, journal=tmp_path / "j", how="loop")
    line(abs).run(range(100), sink, journal=tmp_path / "j", how="loop")
    assert [each for each in got if each != "stopped"] == list(range(100))


def test_a_run_that_is_done_does_nothing_again(tmp_path):
    calls = []
    options = {"journal": tmp_path / "j", "how": "loop"}
    assert list(line(calls.append)(range(5), **options)) == [None] * 5
    again = line(calls.append)(range(5), **options)
    assert list(again) == []
    assert len(calls) == 5
    assert "already done; delete" in str(again.report)
    assert again.report.complete
    assert (again.report.records_in, again.report.records_out) == (5, 5)


def test_a_done_journal_makes_room_for_another_run(tmp_path):
    options = {"journal": tmp_path / "j", "how": "loop"}
    for count in (3, 4):
        line(abs).run(range(count), write(tmp_path / "out.jsonl"), **options)
        assert (tmp_path / "out.jsonl").read_text() == "".join(f"{n}\n" for n in range(count))
    assert list(line(abs)(range(5), **options)) == [0, 1, 2, 3, 4]
    assert list(line(abs)(range(6), **options)) == [0, 1, 2, 3, 4, 5]


# --- refused ---


def same(n):
    return n


def another(n):
    return n + 1


def begun(tmp_path):
    with line(same)(range(100), journal=tmp_path / "j", how="loop") as run:
        list(itertools.islice(run, 50))


@pytest.mark.parametrize(
    ("flow", "records", "options", "changed"),
    [
        (line(same), range(99), {}, "the source"),
        (line(same), list(range(100)), {}, "the source"),
        (line(step(another, name="same")), range(100), {}, "step 'same'"),
        (line(same, abs), range(100), {}, "the number of steps and step 'abs'"),
        (line(keep(step(same))), range(100), {}, "step 'same'"),
        (line(same), range(100), {"on_error": "skip"}, "option on_error"),
        (line(same), range(100), {"dead_letters": "x.jsonl"}, "option dead_letters"),
        (line(same), range(100), {"seed": 1}, "option seed"),
    ],
)
def test_another_run_is_refused_and_the_change_is_named(tmp_path, monkeypatch, flow, records, options, changed):
    monkeypatch.chdir(tmp_path)
    begun(tmp_path)
    with pytest.raises(ResumeError, match=f"differs in {changed}\\. Run it as it was"):
        list(flow(records, journal=tmp_path / "j", how="loop", **options))
    assert os.listdir(tmp_path) == ["j"]


def test_options_that_change_no_result_may_differ(tmp_path):
    begun(tmp_path)
    options = {"how": "line", "workers": 2, "window": 50, "memory": "100MB", "progress": False, "start": "fork"}
    assert list(line(same)(range(100), journal=tmp_path / "j", **options)) == list(range(49, 100))


def iter_of(records):
    yield from records


def test_a_source_that_changed_inside_is_found_by_its_last_record(tmp_path):
    with line(abs)(iter_of(range(100)), journal=tmp_path / "j", how="loop") as run:
        list(itertools.islice(run, 50))
    with pytest.raises(ResumeError, match=r"its record \d+ has changed"):
        list(line(abs)(iter_of(range(1, 101)), journal=tmp_path / "j", how="loop"))
    with pytest.raises(ResumeError, match="the source has 10 records"):
        list(line(abs)(iter_of(range(10)), journal=tmp_path / "j", how="loop"))
    assert list(line(abs)(iter_of(range(100)), journal=tmp_path / "j", how="loop"))[-1] == 99


def test_a_file_that_changed_is_refused(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("1\n2\n3\n")
    with line(abs)(read(source), journal=tmp_path / "j", how="loop") as run:
        assert list(itertools.islice(run, 2)) == [1, 2]
    source.write_text("1\n2\n3\n4\n")
    with pytest.raises(ResumeError, match="differs in the source"):
        list(line(abs)(read(source), journal=tmp_path / "j", how="loop"))


def test_what_cannot_work_is_refused_at_the_door(tmp_path):
    with pytest.raises(LineError, match="input order"):
        line(abs)([1], journal=tmp_path / "j", ordered=False)
    with pytest.raises(LineError, match=r"step 'abs' is serial.*save\(\).*load\(state\)"):
        line(serial(abs))([1], journal=tmp_path / "j")
    with pytest.raises(LineError, match="cannot be used: No such file"):
        next(line(abs)([1], journal=tmp_path / "no" / "j"))
    with pytest.raises(LineError, match="ends in"):
        line(abs)([1], dead_letters="failed.txt")
    assert os.listdir(tmp_path) == []


def test_a_run_that_was_refused_does_not_hold_its_journal_for_itself(tmp_path):
    with pytest.raises(LineError, match=r"the dead letters .* cannot be written"):
        list(line(same)(range(3), journal=tmp_path / "j", dead_letters=tmp_path / "no" / "f.jsonl", how="loop"))
    assert list(line(same)(range(3), journal=tmp_path / "j", dead_letters=tmp_path / "f.jsonl", how="loop")) == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_full_disk_at_the_file_ends_in_one_error_and_can_be_gone_on_from(tmp_path, name):
    import resource

    def rows():
        return line(step(lambda n: {"n": n, "text": f"{n * n * n:040}" * 9}, kind="inline"))

    def run(folder, **options):
        rows().run(range(3000), write(folder / name), **options)

    def on_a_small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        with pytest.raises(SinkError, match=r"cannot be written: File too large. The journal can still go on"):
            run(tmp_path, journal=tmp_path / "j")

    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole")
    in_a_process(on_a_small_disk)
    assert sorted(os.listdir(tmp_path)) == [f".{name}.part", f".{name}.part.journal", "j", "whole"]
    run(tmp_path, journal=tmp_path / "j")
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_runs_cannot_have_one_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "PATIENCE", 0)
    first = line(abs)(range(9), journal=tmp_path / "j", how="loop")
    assert next(first) == 0
    with pytest.raises(LineError, match="another run is at work"):
        next(line(abs)(range(9), journal=tmp_path / "j", how="loop"))
    assert list(first) == list(range(1, 9))


def test_a_part_file_that_is_gone_is_told(tmp_path):
    def sink_fails(n):
        if n == 20:
            raise ValueError("twenty")
        return n

    with pytest.raises(ValueError, match="twenty"):
        line(sink_fails).run(range(30), write(tmp_path / "o.jsonl"), journal=tmp_path / "j", how="loop")
    assert sorted(os.listdir(tmp_path)) == [".o.jsonl.part", ".o.jsonl.part.journal", "j"]
    (tmp_path / ".o.jsonl.part").unlink()
    with pytest.raises(ResumeError, match=r"is not there any more. Delete the journal"):
        line(sink_fails).run(range(30), write(tmp_path / "o.jsonl"), journal=tmp_path / "j", how="loop")


def test_a_mended_file_that_a_step_reads_lets_the_run_go_on(tmp_path):
    trouble = Path(tmp_path, "trouble")
    trouble.touch()

    def careful(n, trouble=str(trouble)):
        if n == 70 and os.path.exists(trouble):
            raise ConnectionError("the server is away")
        return n

    with pytest.raises(ConnectionError):
        line(careful).run(range(100), write(tmp_path / "o.jsonl"), journal=tmp_path / "j", how="line", workers=2)
    trouble.unlink()
    report = line(careful).run(range(100), write(tmp_path / "o.jsonl"), journal=tmp_path / "j", how="line", workers=2)
    assert (tmp_path / "o.jsonl").read_text() == textwrap.dedent("".join(f"{n}\n" for n in range(100)))
    assert (report.records_in, report.records_out) == (100, 100)


def test_what_is_delivered_is_marked_also_while_a_record_takes_long(tmp_path):
    code = """
import sys, time
from taktline import line, write
def slow(n):
    if n == 500:
        time.sleep(600)
    return n
line(slow).run(range(1000), write(sys.argv[1]), how="line", workers=2, batch_size=50, journal=sys.argv[2])
"""
    out, journal = tmp_path / "out.jsonl", tmp_path / "j"
    caller = subprocess.Popen([sys.executable, "-c", code, str(out), str(journal)])
    try:
        while not (journal.exists() and b'"records": 500' in journal.read_bytes()):
            assert caller.poll() is None
    finally:
        caller.kill()
        caller.wait()
