"""What is taken is used: every option at every entry point, and every argument of every builder, changes something that
can be seen, or is refused with a sentence. The tables below must tell of each: a new one without an entry fails."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import random
import sys
import threading
from contextlib import suppress

import click
import pytest

import taktline
import taktline.abc
from taktline import LineError, Stalled, batch, expand, keep, line, per_worker, serial, step
from taktline._check import check
from taktline._compare.comparing import compare
from taktline._crew.machines import Agents, agents_here
from taktline._line import Line
from taktline._recipe.options import PLAN_OPTIONS, Options
from taktline.cli import commands
from taktline.errors import ResultsTooLarge

FIELDS = [each.name for each in dataclasses.fields(Options)]
AWAY = {"how": "line", "workers": 1, "start": "fork"}


def called(flow, source, **options):
    return list(flow(source, **options))


def run(flow, source, **options):
    results = []
    flow.run(source, results.append, **options)
    return results


def streamed(flow, source, **options):
    async def all_of_it():
        return [each async for each in flow.stream(source, **options)]

    return asyncio.run(all_of_it())


def last(through, **options):
    """The last snapshot."""
    seen = []
    through(line(abs), range(30), **{"progress": seen.append, **options})
    return seen[-1]


def lists(xs):
    return [len(xs)] * len(xs)


def raises(n):
    if n == 3:
        raise ValueError(n)
    return n


def pid(_):
    return os.getpid()


def uneven(folder, n):
    if n == 0:
        while not os.path.exists(f"{folder}/later"):
            threading.Event().wait(0.001)
    elif n == 150:  # the other worker's
        open(f"{folder}/later", "w").close()
    return n


def changed(through, folder):
    options = {"journal": f"{folder}/j", "how": "loop", "on_error": "raise"}
    with pytest.raises(ValueError):
        through(line(raises), range(6), **options)
    try:
        through(line(lambda n: n), range(6), **options, if_changed="continue")
    except taktline.ResumeError:
        return False
    return True


def lost(through, folder):
    flow, options = line(abs), {"journal": f"{folder}/j", "how": "loop"}
    flow.run(range(5), taktline.write(f"{folder}/o.jsonl"), **options)
    os.unlink(f"{folder}/o.jsonl")
    flow.run(range(5), taktline.write(f"{folder}/o.jsonl"), **options, on_lost="restart")
    return os.path.exists(f"{folder}/o.jsonl")


def hangs(through, _):
    with pytest.raises(Stalled):
        through(line(lambda n: threading.Event().wait()), [1], **AWAY, stall=0.4)
    return True


def too_large(through, _):
    with pytest.raises(ResultsTooLarge):
        through(line(expand(lambda n: iter([b" " * 10_000] * 1_000))), [1], how="loop", on_error="skip", memory="1MB")
    return True


def set_up(through, _):
    seen = []
    through(line(abs), [1], how="loop", setup=lambda: seen.append(1))
    return seen == [1]


def taken_over(through, journal):
    first = line(abs)(range(9), how="loop", journal=journal, attempt=1)
    next(first)
    later = through(line(abs), range(9), how="loop", journal=journal, attempt=2)
    with suppress(taktline.TakenOver):
        first.close()
    return later == list(range(9))


def heard(through):
    events = []

    class Ear(taktline.abc.Observer):
        def heard(self, at, event, actions):
            events.append(event)

    through(line(abs), range(9), **AWAY, observer=Ear())
    return len(events)


def elsewhere(through):
    (parent,) = through(line(lambda n: os.getppid()), [1], on=agents_here(1))
    return parent not in (os.getpid(), os.getppid())


# What each option of a run changes: at flow(), run() and stream().
OF_A_RUN = {
    "how": lambda through, _: last(through, how="pool", workers=1, start="fork").how == "pool",
    "workers": lambda through, _: last(through, how="line", workers=3, start="fork").workers == 3,
    "batch_size": lambda through, _: 7 in through(line(batch(lists)), range(90), **AWAY, batch_size=7),
    "window": lambda through, _: last(through, window=9).window == 9,
    "memory": too_large,
    "ordered": lambda through, folder: through(
        line(lambda n: uneven(folder, n)), range(200), how="line", workers=2, start="fork", batch_size=1, ordered=False
    )[0] != 0,
    "on_error": lambda through, _: through(line(raises), range(5), on_error="skip", **AWAY) == [0, 1, 2, 4],
    "dead_letters": lambda through, folder: through(line(raises), range(5), how="loop", dead_letters=f"{folder}/d.jsonl")
    == [0, 1, 2, 4] and os.path.getsize(f"{folder}/d.jsonl") > 0,
    "journal": lambda through, folder: through(line(abs), range(5), how="loop", journal=f"{folder}/j") == list(range(5))
    and through(line(abs), range(5), how="loop", journal=f"{folder}/j") == [],
    "if_changed": changed,
    "on_lost": lost,
    "progress": lambda through, _: last(through).records_out == 30,
    "start": lambda through, _: [
        through(line(lambda n: "taktline._run.run" in sys.modules), [1], how="line", workers=1, start=start)
        for start in ("fork", "launch")
    ] == [[True], [False]],
    "stall": hangs,
    "setup": set_up,
    "recycle": lambda through, _: len(set(through(line(pid), range(9), **AWAY, batch_size=1, recycle=2))) > 1,
    "seed": lambda through, _: through(line(lambda n: random.random()), range(3), how="loop", seed=1)
    == through(line(lambda n: random.random()), range(3), how="loop", seed=1),
    "on": lambda through, _: elsewhere(through),
    "attempt": lambda through, folder: taken_over(through, f"{folder}/j"),
    "trace": lambda through, folder: through(line(abs), range(5), how="loop", trace=f"{folder}/t.json") == list(range(5))
    and os.path.getsize(f"{folder}/t.json") > 0,
    "observer": lambda through, _: heard(through) > 0,
}  # fmt: skip
NOWHERE = {("stream", "on_lost"): {"journal": "/nowhere/j", "on_lost": "restart"}}
ENTRIES = {"flow": called, "run": run, "stream": streamed}


def test_the_table_of_runs_has_every_option():
    assert sorted(OF_A_RUN) == sorted(FIELDS)


@pytest.mark.parametrize("option", FIELDS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_option_of_a_run_changes_it_or_is_refused(entry, option, tmp_path):
    if (entry, option) in NOWHERE:
        with pytest.raises(LineError, match=option):
            ENTRIES[entry](line(abs), [1], **NOWHERE[entry, option])
        return
    assert OF_A_RUN[option](ENTRIES[entry], tmp_path)


def planned(**options):
    return line(abs).plan(range(3_000), **options)


# What each option that a plan takes changes in it.
OF_A_PLAN = {
    "how": lambda _: planned(how="pool", workers=1).how == "pool" and "asked for" in planned(how="loop").reasons[0],
    "workers": lambda _: planned(how="line", workers=3).workers == 3,
    "batch_size": lambda _: planned(how="line", batch_size=7).batch_size == 7,
    "window": lambda _: planned(how="line", workers=1, window=8).batch_size <= 4,
    "memory": lambda _: planned(how="line", workers=1, memory=2_000).batch_size
    < planned(how="line", workers=1, batch_size=None).batch_size,
    "start": lambda folder: [started(folder, start) for start in ("fork", "launch")] == [True, False],
    "setup": lambda _: planned_with_setup(),
    "on_error": lambda _: "with a mark" in line(raises).plan(range(9), on_error="keep").advice[1],
    "dead_letters": lambda folder: (
        f"{folder}/d.jsonl" in line(raises).plan(range(9), dead_letters=f"{folder}/d.jsonl").advice[1]
    ),
    "on": lambda _: bool(planned(on=agents_here(2)).machines) and not planned().machines,
}  # fmt: skip
OTHERS = {
    "ordered": False, "on_error": "skip", "dead_letters": "d.jsonl", "journal": "j", "if_changed": "restart",
    "on_lost": "restart", "progress": True, "stall": 5, "recycle": 5, "seed": 1, "on": "ray", "how": "pool", "workers": 2,
    "batch_size": 7, "window": 9, "memory": "1MB", "start": "fork", "setup": print, "attempt": 2, "trace": "t.json",
    "observer": taktline.abc.Observer(),
}  # fmt: skip


def started(folder, start):
    here = os.getpid()

    def notes(n):
        if os.getpid() != here:
            open(f"{folder}/{start} {'taktline._run.trial' in sys.modules}", "w").close()
        return n

    line(notes).plan(range(50), start=start, workers=1)
    return os.path.exists(f"{folder}/{start} True")


def planned_with_setup():
    seen = []
    planned(setup=lambda: seen.append(1))
    return bool(seen)


def test_a_plan_says_what_it_does():
    said = []
    line(abs).plan(range(9), progress=said.append)
    assert "the first records, step by step" in said


@pytest.mark.parametrize("option", sorted({*FIELDS} - {"progress"}))
def test_every_option_changes_a_plan_or_is_refused(option, tmp_path):
    assert sorted(OF_A_PLAN) == sorted(PLAN_OPTIONS)
    if option in OF_A_PLAN:
        assert OF_A_PLAN[option](tmp_path)
        return
    more = {"journal": "j"} if option in ("if_changed", "on_lost", "attempt") else {}
    with pytest.raises(LineError, match=rf"flow\.plan\(\) has no use for \w+=|{option}="):
        line(abs).plan([1], **{option: OTHERS[option]}, **more)


# Arguments of compare and check, and what they change.
TABLE = line(abs)
OF_COMPARE = {
    "limit": lambda: (
        TABLE.compare(range(50), limit=5, rounds=1, workers=1, reference=False, predictions=False).records == 5
    ),
    "rounds": lambda: TABLE.compare(range(9), rounds=2, workers=1, reference=False, predictions=False).rounds == 2,
    "workers": lambda: any(
        "(3)" in row.technique
        for row in TABLE.compare(range(9), rounds=1, workers=3, reference=False, predictions=False).rows
    ),
    "reference": lambda: len(TABLE.compare(range(9), rounds=1, workers=1, predictions=False).rows) > 4,
    "predictions": lambda: any(
        row.predicted for row in TABLE.compare(range(9), rounds=1, workers=1, reference=False).rows
    ),
    "progress": lambda: told() > 0,
    "on_error": lambda: (
        line(raises)
        .compare(range(9), on_error="skip", rounds=1, workers=1, reference=False, predictions=False)
        .left_out.startswith("1 fails, and gives no result")
    ),
    "setup": lambda: compared_with_setup(),
}
OF_CHECK = {
    "limit": lambda: line(abs).check(range(50), limit=5).records == 5,
    "record": lambda: line(abs).check(range(-9, 0), record=2).path == ("abs: 7",),
    "on_error": lambda: not line(raises).check(range(9)).fine and line(raises).check(range(9), on_error="skip").fine,
    "dead_letters": lambda: line(raises).check(range(9), dead_letters="/tmp/not there yet.jsonl").fine,
    "setup": lambda: checked_with_setup(),
    "on": lambda: not line(abs).check([1], on=Agents("nowhere:Here", {}, says="nowhere")).fine,
    "progress": lambda: checked_and_told(),
}


def checked_and_told():
    seen = []
    line(abs).check(range(9), progress=seen.append)
    return "9 records in workers" in seen


def checked_with_setup():
    seen = []
    line(abs).check([1], setup=lambda: seen.append(1))
    return bool(seen)


def compared_with_setup():
    seen = []
    TABLE.compare([1], rounds=1, workers=1, reference=False, predictions=False, setup=lambda: seen.append(1))
    return bool(seen)


def told():
    seen = []
    TABLE.compare(range(9), rounds=1, workers=1, reference=False, predictions=False, progress=seen.append)
    return len(seen)


@pytest.mark.parametrize(("entry", "fn", "table"), [("compare", compare, OF_COMPARE), ("check", check, OF_CHECK)])
def test_every_argument_of_compare_and_check_changes_something_and_options_of_a_run_are_refused(entry, fn, table):
    taken = list(inspect.signature(fn).parameters)[2:]
    assert sorted(table) == sorted(taken)
    for option, effect in table.items():
        assert effect(), option
    for option in FIELDS:
        if option not in taken:
            with pytest.raises(LineError, match=rf"flow\.{entry}\(\) does not take {option}="):
                getattr(line(abs), entry)([1], **{option: OTHERS[option]})
    with pytest.raises(LineError, match="did you mean 'limit'"):
        getattr(line(abs), entry)([1], limits=3)


# --- the command ---

COMMANDS = {name: commands.commands.commands[name] for name in ("run", "retry", "plan", "compare", "check")}
GIVEN = {
    "how": "pool", "workers": "2", "batch_size": "7", "window": "9", "memory": "1MB", "on_error": "skip", "setup": "s.py:f",
    "dead_letters": "d.jsonl", "journal": "j", "if_changed": "restart", "on_lost": "restart", "start": "fork", "stall": "5",
    "recycle": "5", "seed": "1", "attempt": "2", "trace": "t.json",
    "on": "ray:127.0.0.1:6379",
}  # fmt: skip


class Asked(Exception):
    pass


@pytest.mark.parametrize("option", FIELDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_reaches_what_the_command_runs_or_is_refused_with_2(command, option, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text("def f(*x): return x\n")
    (tmp_path / "in.jsonl").write_text("1\n")
    list(line(raises)(range(5), how="loop", dead_letters="old.jsonl"))
    taken = {}

    def asked(self, *_, **options):
        taken.update(options)
        raise Asked

    for name in ("__call__", "plan", "compare", "check"):
        monkeypatch.setattr(Line, name, asked)
    flag = "--" + option.replace("_", "-")
    words = [flag.replace("--", "--no-")] if option in ("ordered", "progress") else [flag, GIVEN.get(option, "1")]
    if command == "retry":
        where = ["old.jsonl", "s.py:f", "--out", "o.jsonl"]
    else:
        where = ["s.py:f", "--in", "in.jsonl", *(["--out", "o.jsonl"] if command == "run" else [])]
    code = commands.run_main([command, *where, *words])
    said = capfd.readouterr().err
    offered = option in {each.name for each in COMMANDS[command].params}
    if not offered or (command, option) == ("retry", "dead_letters"):
        assert code == 2, said
        assert flag in said or words[0] in said
        assert command in said or command == "retry"
        assert not taken
        return
    assert code == 1, said  # as it says of Asked
    assert taken[option] is not None
    assert taken[option] != next(each.default for each in dataclasses.fields(Options) if each.name == option)


def test_quiet_and_what_it_keeps_from_being_shown_are_refused_together(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text("def f(x): return x\n")
    (tmp_path / "in.jsonl").write_text("1\n")
    for flag in ("--json", "--progress"):
        assert commands.run_main(["run", "s.py:f", "--in", "in.jsonl", "--out", "o.jsonl", "--quiet", flag]) == 2
        assert flag in capfd.readouterr().err
    assert isinstance(COMMANDS["run"], click.Command)


# --- builders ---


def fails_twice(n, tries=[]):  # noqa: B006
    tries.append(n)
    if len(tries) < 3:
        raise ValueError(n)
    return n


def total(made, records=range(4), **options):
    return list(line(made)(records, **{"how": "loop", **options}))


def refused(build, says):
    with pytest.raises(LineError, match=says):
        build()
    return True


class Clock:
    def __init__(self):
        self.slept = []

    def __call__(self, seconds):
        self.slept.append(seconds)


def slept(build, monkeypatch):
    from taktline._segment import policies

    clock = Clock()
    monkeypatch.setattr(policies, "sleep", clock)
    total(build)
    return clock.slept


OF_BUILDERS = {
    "line": {
        "steps": lambda m: line(abs, abs).steps[1].name == "abs (2)",
        "name": lambda m: line(abs, name="mine").name == "mine" and refused(lambda: line(abs, name=5), "name=5"),
        "other": lambda m: refused(lambda: line(abs, nam="mine"), "did you mean 'name'"),
    },
    "step": {
        "fn": lambda m: total(step(lambda n: n + 1)) == [1, 2, 3, 4],
        "name": lambda m: step(abs, name="mine").name == "mine" and refused(lambda: step(abs, name=""), "name=''"),
        "other": lambda m: refused(lambda: step(abs, nam="mine"), "did you mean 'name'"),
        "kind": lambda m: total(step(pid, kind="inline"), how="line", workers=1, start="fork") == [os.getpid()] * 4
        and refused(lambda: step(serial(abs), kind="process"), "serial"),
        "workers": lambda m: last(lambda *a, **o: called(line(step(abs, workers=1)), range(9), **o), how="line", workers=3,
                                  start="fork").workers == 1 and refused(lambda: step(serial(abs), workers=2), "serial"),
        "tasks": lambda m: step(abs, tasks=3).kind == "thread" and refused(lambda: step(serial(abs), tasks=2), "serial"),
        "retries": lambda m: total(step(lambda n, t=[]: fails_twice(n, t), retries=2, backoff=0)) == [0, 1, 2, 3],
        "backoff": lambda m: max(slept(step(lambda n, t=[]: fails_twice(n, t), retries=2, backoff=90.0), m)) > 1
        and step(step(abs, retries=1, backoff=7), name="x").backoff == 7
        and refused(lambda: step(abs, backoff=5), "retries"),
        "timeout": lambda m: total(step(lambda n: threading.Event().wait(0.2), timeout=0.01), on_error="skip") == [],
        "rate": lambda m: max(slept(step(abs, rate=1), m)) > 0.5,
        "resources": lambda m: refused(
            lambda: called(line(step(abs, workers=1, resources={"GPU": 1})), [1], how="line", on=agents_here(2)), "1 GPU"
        ) and refused(lambda: step(abs, resources={"GPU": -1}), "resources"),
    },
    "batch": {
        "fn": lambda m: total(batch(lambda ns: [n + 1 for n in ns])) == [1, 2, 3, 4],
        "size": lambda m: set(total(batch(lists, 2), how="auto")) <= {1, 2}
        and refused(lambda: batch(batch(abs, 2), 3), "batch"),
        "form": lambda m: total(batch(lambda a: a + 0.5, form="numpy")) == [0.5, 1.5, 2.5, 3.5],
        "by": lambda m: total(batch(lists, by=lambda n: n // 3)) == [3, 3, 3, 1],
        "like": lambda m: total(batch(lambda ns: 1 / 0, like=abs)) == [0, 1, 2, 3],
        "verify": lambda m: total(batch(lists, like=abs, verify=True), on_error="skip") == [1],
        "step_options": lambda m: batch(lists, workers=2).workers == 2
        and refused(lambda: batch(lists, worker=2), "worker="),
    },
    "keep": {
        "predicate": lambda m: total(keep(lambda n: n > 1)) == [2, 3]
        and refused(lambda: keep(batch(lists)), "one of the two"),
        "name": lambda m: keep(abs, name="mine").name == "mine",
        "form": lambda m: total(keep(lambda a: a > 1, form="numpy")) == [2, 3]
        and refused(lambda: keep(abs, form="excel"), "form='excel'"),
        "size": lambda m: keep(abs, form="list", size=2).size == 2 and refused(lambda: keep(abs, size=2), "give form="),
        "other": lambda m: refused(lambda: keep(abs, nam="mine"), "did you mean \'name\'"),
    },
    "expand": {
        "fn": lambda m: total(expand(range)) == [0, 0, 1, 0, 1, 2] and refused(lambda: expand(keep(abs)), "one of the two"),
        "name": lambda m: expand(range, name="mine").name == "mine",
        "form": lambda m: total(expand(lambda a: a.repeat(2), form="numpy")) == [0, 0, 1, 1, 2, 2, 3, 3]
        and refused(lambda: expand(abs, form="excel"), "form='excel'"),
        "size": lambda m: expand(abs, form="list", size=2).size == 2 and refused(lambda: expand(abs, size=2), "give form="),
        "other": lambda m: refused(lambda: expand(range, nam="mine"), "did you mean \'name\'"),
    },
    "serial": {
        "fn": lambda m: serial(abs).in_caller and refused(lambda: serial(step(abs, workers=2)), "workers"),
        "name": lambda m: serial(abs, name="mine").name == "mine",
        "other": lambda m: refused(lambda: serial(abs, nam="mine"), "did you mean \'name\'"),
    },
    "per_worker": {
        "factory": lambda m: total(per_worker(lambda: lambda n: n + 1)) == [1, 2, 3, 4],
        "args": lambda m: total(per_worker(lambda a: lambda n: n + a, 5)) == [5, 6, 7, 8],
        "kwargs": lambda m: total(per_worker(lambda a=0: lambda n: n + a, a=5)) == [5, 6, 7, 8],
    },
}  # fmt: skip


@pytest.mark.parametrize("builder", OF_BUILDERS)
def test_every_argument_of_a_builder_changes_something(builder, monkeypatch):
    assert sorted(OF_BUILDERS[builder]) == sorted(inspect.signature(getattr(taktline, builder)).parameters)
    for argument, effect in OF_BUILDERS[builder].items():
        assert effect(monkeypatch), argument


# --- readers and writers ---

TEXTS = {
    "csv": 'n,"m,x"\n1,caf\xe9\n'.encode("latin-1"), "tsv": 'n\t"m"\n1\tcaf\xe9\n'.encode("latin-1"),
    "text": "caf\xe9\n".encode("latin-1"), "jsonl": b'{"n": 1, "m": 2}\n',
}  # fmt: skip
TABLES = {"csv", "tsv"}
# What each argument is given, and the formats whose records it changes; the others refuse it.
OF_READ = {
    "columns": (["n"], {"csv", "tsv", "jsonl"}), "types": ({"n": int}, TABLES), "delimiter": (";", TABLES),
    "quoting": (lambda form: form == "tsv", TABLES), "encoding": ("latin-1", {*TABLES, "text"}),
    "header": (False, TABLES), "path_column": ("file", {*TABLES, "jsonl"}), "filters": ([("n", ">", 0)], set()),
}  # fmt: skip


def read_as(path, form, **options):
    try:
        return list(taktline.read(path, form, **options))
    except taktline.SourceError as error:
        return str(error)


@pytest.mark.parametrize("form", TEXTS)
def test_every_argument_of_read_changes_the_records_or_is_refused(form, tmp_path):
    (tmp_path / "a").write_bytes(TEXTS[form])
    assert {*OF_READ, "path", "format", "unknown"} == set(inspect.signature(taktline.read).parameters)
    for name, (value, forms) in OF_READ.items():
        given = {name: value(form) if callable(value) else value}
        if form not in forms:
            with pytest.raises(LineError, match=f"{name}="):
                taktline.read(tmp_path / "a", form, **given)
            continue
        decoded = {"encoding": "latin-1"} if name != "encoding" and form in OF_READ["encoding"][1] else {}
        assert read_as(tmp_path / "a", form, **decoded, **given) != read_as(tmp_path / "a", form, **decoded), name
    with pytest.raises(LineError, match="unknown"):
        taktline.read(tmp_path / "a", form, unknown=1)


def test_the_other_readers_and_writers_have_arguments_that_are_tested_with_their_formats(tmp_path):
    of_write = {
        "schema": object(), "codec": "zstd", "level": 3, "row_group": 7, "rows": 5, "size": "1MB", "partition_by": "n",
        "mode": "replace", "roll": 5,
    }  # fmt: skip
    assert list(inspect.signature(taktline.write).parameters) == ["path", "format", *of_write]
    for name, value in of_write.items():  # what they change is tested in tests/_io, with files and folders
        with pytest.raises(LineError, match=f"{name}="):
            taktline.write(tmp_path / "o.jsonl", **{name: value})
    assert list(inspect.signature(taktline.read_sql).parameters) == ["url", "query", "key", "after"]
    assert list(inspect.signature(taktline.write_sql).parameters) == ["url", "table", "key"]
    (tmp_path / "shop.db").touch()
    with pytest.raises(LineError, match="after="):
        taktline.read_sql(f"sqlite:///{tmp_path}/shop.db", "SELECT 1", after=3)
