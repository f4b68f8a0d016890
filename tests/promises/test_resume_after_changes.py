"""Promise: a journal is of use on the day when something was wrong: after the mend it goes on, or says why it cannot."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, nullcontext
from typing import Any

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
from taktline._io import claims
from taktline._io.parts import Folder
from taktline._run import checkpointer, states
from taktline.errors import InUse, OutputLost


def broken(n):
    if n == 70:
        raise ValueError("seventy")
    return {"n": n}


def mended(n):
    return {"n": n, "mended": True}


def until_mended(n):
    if n > 50_000 and "MENDED" not in os.environ:
        raise ValueError("not mended")
    return n


OLD, NEW = step(broken, name="work"), step(mended, name="work")


@pytest.fixture
def fail(tmp_path):
    """Runs the broken line until it fails."""

    def run(sink=None, *before, records=range(100), **options):
        with pytest.raises(ValueError, match="seventy"):
            line(*before, OLD).run(records, sink or write(tmp_path / "out.jsonl"), journal=tmp_path / "j", **options)

    return run


def rows(tmp_path):
    return [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("before", [(), (keep(lambda n: n % 2 == 0),), (expand(lambda n: [n] * 3),)])
def test_the_mended_step_goes_on_behind_what_is_delivered(tmp_path, fail, how, before):
    options = {"how": how, "workers": 2, "batch_size": 16 if how == "line" else None}
    fail(None, *before, **options)
    with pytest.raises(ResumeError, match=r"differs in step 'work'\..*--if-changed continue"):
        line(*before, NEW).run(range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", **options)
    # The mended one drops and adds in another way too, so that counting results alone would lose some.
    after = (*before, keep(lambda n: n % 3 == 0), NEW)
    report = line(*after).run(
        range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", if_changed="continue", **options
    )
    old = [broken(n) for n in line(*before)(range(70), how="loop")] if before else [broken(n) for n in range(70)]
    assert rows(tmp_path) == old + list(line(*after)(range(70, 100), how="loop"))
    assert "from record 70 on" in str(report)
    assert "step 'work'" in " ".join(report.notes)
    assert report.resumed_at == 70
    again = line(*after).run(range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", **options)
    assert "already done" in str(again)


def test_what_is_gone_on_with_may_be_mended_again(tmp_path, fail):
    fail()
    worse = step(lambda n: 1 // (90 - n), name="work")
    for flow, error in ((worse, ZeroDivisionError), (NEW, None)):
        with pytest.raises(error) if error else nullcontext():
            report = line(flow).run(
                range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", if_changed="continue", how="loop"
            )
    assert rows(tmp_path) == [
        *map(broken, range(70)),
        *(1 // (90 - n) for n in range(70, 90)),
        *map(mended, range(90, 100)),
    ]
    assert [note.partition("record ")[2].partition(" ")[0] for note in report.notes[-2:]] == ["70", "90"]


def test_letters_that_are_asked_for_after_a_failure_begin_where_it_went_on(tmp_path, fail):
    fail()
    (tmp_path / "f.jsonl").write_text("")
    line(OLD).run(
        range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", if_changed="continue", how="loop",
        dead_letters=tmp_path / "f.jsonl",
    )  # fmt: skip
    assert rows(tmp_path) == [{"n": n} for n in range(100) if n != 70]
    assert [letter.index for letter in read_dead_letters(tmp_path / "f.jsonl")] == [70]


def test_a_line_of_the_input_that_was_mended_goes_on_too(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{n}\n" if n != 70 else "x70\n" for n in range(100)))

    def run(**options):
        return line(mended).run(
            read(source), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", how="loop", **options
        )

    with pytest.raises(Exception, match=r"70|71"):
        run()
    source.write_text(source.read_text().replace("x70", "170"))
    with pytest.raises(ResumeError, match="differs in the source"):
        run()
    run(if_changed="continue")
    assert [row["n"] for row in rows(tmp_path)] == [*range(70), 170, *range(71, 100)]


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_loop_of_the_callers_own_goes_on_from_where_delivered_says(tmp_path, how):
    options = {"journal": tmp_path / "j", "how": how, "workers": 2}
    with line(step(abs, name="work"))(range(100), **options) as run:
        got = list(itertools.islice(run, 50))
    halved = line(keep(lambda n: n % 2), step(lambda n: -n, name="work"))
    with halved(range(100), if_changed="continue", **options) as run:
        del got[run.delivered :]  # as a caller does
        first = got[-1] + 1 if got else 0
        got += run
    assert got == [*range(first), *(-n for n in range(first, 100) if n % 2)]


def test_another_sink_cannot_be_gone_on_into(tmp_path, fail):
    fail()
    for sink in (write(tmp_path / "other.jsonl"), write(tmp_path / "out.jsonl", "csv"), None):
        with pytest.raises(ResumeError, match=r"differs in the sink.*Give the old one"):
            line(OLD).run(range(100), sink, journal=tmp_path / "j", how="loop", if_changed="continue")
    assert not (tmp_path / "other.jsonl").exists()


class Total:
    def __init__(self):
        self.total = 0

    def __call__(self, n):
        self.total += n
        return self.total

    def save(self):
        return self.total

    def load(self, state):
        self.total = state


def test_states_go_on_with_a_mended_step_where_their_place_can_be_told(tmp_path):
    def run(fn, *more, **options):
        line(serial(Total()), *more, step(fn, name="work")).run(
            range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", how="loop", **options
        )

    totals = list(itertools.accumulate(range(100)))
    with pytest.raises(ZeroDivisionError):
        run(lambda n: n + 0 * (1 // (n - totals[70])))
    with pytest.raises(ResumeError, match="cannot tell which results to leave out"):
        run(lambda n: n, keep(bool), if_changed="continue")
    run(lambda n: n, if_changed="continue")
    assert rows(tmp_path) == totals


def test_a_state_belongs_to_its_lambda_wherever_that_has_moved(tmp_path, monkeypatch):
    """What a lambda is called tells its line, and another one above it is no change of the run."""
    monkeypatch.setattr(checkpointer, "EVERY", 0.0)
    monkeypatch.setattr(states, "EVERY", 0.0)
    code = "made = lambda: Total()\nother = lambda: Total()"

    def run(above):
        names = {"Total": Total}
        exec(compile("\n" * above + code, "steps.py", "exec"), names)
        before = serial(per_worker(names["made"])), serial(per_worker(names["other"]))
        line(*before, until_mended).run(range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", how="loop")

    with pytest.raises(ValueError, match="not mended"):
        run(0)
    monkeypatch.setenv("MENDED", "1")
    run(3)
    assert rows(tmp_path) == list(itertools.accumulate(itertools.accumulate(range(100))))


# --- begun anew ---


@pytest.mark.parametrize("every", [0, 9])  # marked after each lot; killed before a first mark
def test_restart_leaves_nothing_of_the_run_before(tmp_path, fail, monkeypatch, every):
    monkeypatch.setattr(checkpointer, "EVERY", every)
    letters = tmp_path / "f.jsonl"
    letters.write_text("")
    list(line(lambda n: 1 // n)(range(2), dead_letters=letters, how="loop"))  # of somebody else: it stays
    first = step(lambda n: n if n % 10 else 1 // 0, name="first")
    with pytest.raises(SinkError):  # a result that cannot be written
        line(first, step(lambda n: {"n": n} if n != 75 else {1, 2}, name="work")).run(
            range(100), write(tmp_path / "old.jsonl"), journal=tmp_path / "j", dead_letters=letters, how="loop"
        )
    assert len(read_dead_letters(letters)) > 1
    report = line(first, NEW).run(
        range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", dead_letters=letters, how="loop",
        if_changed="restart",
    )  # fmt: skip
    assert rows(tmp_path) == [mended(n) for n in range(100) if n % 10]
    assert [letter.index for letter in read_dead_letters(letters)] == [0, *range(0, 100, 10)]
    assert sorted(os.listdir(tmp_path)) == ["f.jsonl", "j", "out.jsonl"]
    assert ("begun anew" in str(report)) == (every == 0)
    assert report.resumed_at == 0


@pytest.mark.parametrize("key", [None, "n"])
def test_a_table_begins_anew_only_by_key(tmp_path, fail, key, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute(
            "CREATE TABLE orders (n INTEGER PRIMARY KEY, mended INT)" if key else "CREATE TABLE orders (n, mended)"
        )
    sink = f"sqlite:///{tmp_path}/shop.db", "orders", key
    fail(write_sql(*sink), how="loop")

    def again():
        return line(NEW).run(range(100), write_sql(*sink), journal=tmp_path / "j", how="loop", if_changed="restart")

    if key is None:
        with pytest.raises(ResumeError, match=r"70 results of its run are in .* would be there twice"):
            again()
        return
    again()
    found = list(read_sql(sink[0], "SELECT * FROM orders ORDER BY n"))
    assert found == [{"n": n, "mended": 1} for n in range(100)]


# --- what is gone ---


def test_a_part_file_that_is_gone_begins_anew_where_that_is_asked_for(tmp_path, fail):
    fail(how="loop")
    (tmp_path / ".out.jsonl.part").unlink()
    fixed = {"journal": tmp_path / "j", "how": "loop", "if_changed": "continue"}
    with pytest.raises(OutputLost, match=r"is not there any more.*--on-lost restart"):
        line(NEW).run(range(100), write(tmp_path / "out.jsonl"), **fixed)
    report = line(NEW).run(range(100), write(tmp_path / "out.jsonl"), on_lost="restart", **fixed)
    assert rows(tmp_path) == [*map(mended, range(100))]
    assert "begun anew: the part of" in str(report)


@pytest.mark.parametrize("lose", [os.unlink, lambda path: os.truncate(path, 0)])
def test_an_output_that_is_gone_is_not_already_done(tmp_path, lose):
    def run(**options):
        return line(mended).run(range(9), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", how="loop", **options)

    run()
    assert "already done" in str(run())
    lose(tmp_path / "out.jsonl")
    with pytest.raises(OutputLost, match="says that all is done, but"):
        run()
    run(on_lost="restart")
    assert rows(tmp_path) == [*map(mended, range(9))]


def folder_run(tmp_path, options, **more):
    steps = line(lambda n: {"n": n, "even": n % 2 == 0})
    sink = write(f"{tmp_path}/out/", "jsonl", rows=2, **options)
    return steps.run(range(9), sink, journal=tmp_path / "j", how="loop", **more)


def all_parts(tmp_path):
    return sorted((tmp_path / "out").rglob("part-*"))


def numbers(tmp_path):
    return sorted(json.loads(text)["n"] for path in all_parts(tmp_path) for text in path.read_text().splitlines())


@pytest.mark.parametrize("lost", ["all", "first", "last"])
@pytest.mark.parametrize("mode", [None, "replace", "append", "added"])
@pytest.mark.parametrize("by", [None, "even"])
def test_parts_that_are_gone_are_not_already_done(tmp_path, mode, lost, by):
    options = {"mode": "append" if mode == "added" else mode} | ({"partition_by": [by]} if by else {})
    folder_run(tmp_path, options)
    own = all_parts(tmp_path)
    if mode == "added":  # to those of another run
        (tmp_path / "j").unlink()
        folder_run(tmp_path, options)
        own = [each for each in all_parts(tmp_path) if each not in own]
    assert "already done" in str(folder_run(tmp_path, options))
    for path in {"all": own, "first": own[:1], "last": own[-1:]}[lost]:
        path.unlink()
    gone = len(own) if lost == "all" else 1
    with pytest.raises(OutputLost, match=f"{gone} of {len(own)} parts .* are not there any more"):
        folder_run(tmp_path, options)
    twice = [*range(9)] * (2 if mode == "added" else 1)
    if lost != "all" and mode is None:
        with pytest.raises(LineError, match="is there already"):
            folder_run(tmp_path, options, on_lost="restart")
    elif lost != "all" and options["mode"] == "append":
        with pytest.raises(ResumeError, match="would be there twice"):
            folder_run(tmp_path, options, on_lost="restart")
        with pytest.raises(OutputLost):
            folder_run(tmp_path, options)
    elif lost == "all" and mode is None and by:
        with pytest.raises(LineError, match="is there already"):  # the folders of its values
            folder_run(tmp_path, options, on_lost="restart")
    else:
        assert "begun anew" in str(folder_run(tmp_path, options, on_lost="restart"))
        assert numbers(tmp_path) == sorted(twice)
        assert "already done" in str(folder_run(tmp_path, options))


def test_parts_of_many_folders_are_counted(tmp_path):
    options: dict[str, Any] = {"partition_by": ["n"]}
    steps, journal = line(lambda n: {"n": f"{n:0200}", "m": n}), tmp_path / "j"

    def run():
        return steps.run(range(30), write(f"{tmp_path}/out/", "jsonl", **options), journal=journal, how="loop")

    run()
    assert "already done" in str(run())
    all_parts(tmp_path)[7].unlink()
    with pytest.raises(OutputLost, match="1 of 30 parts"):
        run()


@pytest.mark.parametrize("mode", [None, "replace"])
def test_parts_that_another_run_has_put_there_are_not_held_against_the_first_one(tmp_path, mode):
    folder_run(tmp_path, {"mode": mode})
    line(lambda n: {"n": n}).run([1], write(f"{tmp_path}/out/", "jsonl", mode="replace"), how="loop")
    assert "already done" in str(folder_run(tmp_path, {"mode": mode}))
    all_parts(tmp_path)[0].unlink()
    with pytest.raises(OutputLost, match="5 of 5 parts"):
        folder_run(tmp_path, {"mode": mode})


@pytest.mark.parametrize("mode", [None, "append"])
def test_a_run_that_was_killed_before_its_journal_said_done_knows_its_parts_too(tmp_path, monkeypatch, mode):
    with monkeypatch.context() as patched, pytest.raises(SinkError):
        patched.setattr(Folder, "committed", killed)
        folder_run(tmp_path, {"mode": mode})
    assert "already done" in str(folder_run(tmp_path, {"mode": mode}))
    all_parts(tmp_path)[1].unlink()
    with pytest.raises(OutputLost, match="1 of 5 parts"):
        folder_run(tmp_path, {"mode": mode})


def killed(*_):
    raise SinkError("as if by SIGKILL")


@pytest.mark.parametrize("lose", ["database", "marks"])
def test_a_table_that_is_gone_is_not_already_done(tmp_path, lose):
    url = f"sqlite:///{tmp_path}/shop.db"

    def made():
        with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
            shop.execute("CREATE TABLE IF NOT EXISTS orders (n INTEGER PRIMARY KEY, mended INT)")

    def run(**options):
        return line(mended).run(range(9), write_sql(url, "orders", "n"), journal=tmp_path / "j", how="loop", **options)

    made()
    run()
    assert "already done" in str(run())
    (tmp_path / "shop.db").unlink()
    made()
    with pytest.raises(OutputLost, match="does not know of it any more"):
        run()
    run(on_lost="restart")
    assert len(list(read_sql(url, "SELECT * FROM orders"))) == 9


# --- what a journal compares ---


def test_the_order_of_named_steps_is_seen(tmp_path):
    def plus(n):
        return n + 1

    def double(n):
        return n * 2 if n != 50 else 1 // 0

    with pytest.raises(ZeroDivisionError):
        list(line(plus, double)(range(100), journal=tmp_path / "j", how="loop"))
    with pytest.raises(ResumeError, match="differs in the order of the steps"):
        list(line(double, plus)(range(100), journal=tmp_path / "j", how="loop"))


@pytest.mark.parametrize("large", [False, True])
def test_an_edit_in_the_middle_of_a_file_of_the_same_size_is_seen(tmp_path, monkeypatch, large):
    from taktline._io import opening

    if large:
        monkeypatch.setattr(opening, "WHOLE", 1000)
    source = tmp_path / "in.jsonl"
    data = b"".join(b"%06d\n" % (n + 100_000) for n in range(100_000))
    source.write_bytes(data)
    before = read(source).fingerprint()
    times = os.stat(source)
    if not large:  # a copy, or a time that was put back, tells nothing: the bytes do
        os.utime(source, ns=(0, 0))
        assert read(source).fingerprint() == before
    at = len(data) // 3
    source.write_bytes(data[:at] + b"9" + data[at + 1 :])
    if not large:
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(source).fingerprint() != before
    assert bool(read(source).untold()) == large


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"types": {"n": int}}, {"types": {"n": float}}),
        ({"columns": ["n"]}, {"columns": ["m"]}),
        ({}, {"format": "tsv"}),
    ],
)
def test_how_a_file_is_read_is_seen(tmp_path, one, other):
    (tmp_path / "in.csv").write_text("n,m\n" + "1,2\n" * 100)

    def run(source):
        with line(str)(source, journal=tmp_path / "j", how="loop") as results:
            list(itertools.islice(results, 50))

    run(read(tmp_path / "in.csv", **one))
    with pytest.raises(ResumeError, match="differs in the source"):
        run(read(tmp_path / "in.csv", **other))


def test_what_a_journal_cannot_compare_is_in_the_report(tmp_path):
    import threading

    lock = threading.Lock()

    def locked(n):
        with lock:
            return n

    report = line(locked).run(range(3), print, journal=tmp_path / "j", how="loop")
    assert report.notes == (
        "the journal cannot tell of changes in the source: records are compared now and then; step 'locked': lock, a lock",
    )
    assert "note     the journal cannot tell" in str(report)


# --- others at work ---


def test_two_journals_cannot_write_one_output(tmp_path, fail, monkeypatch):
    monkeypatch.setattr(_files, "PATIENCE", 0)
    fail(how="loop")
    out = tmp_path / "out.jsonl"
    with pytest.raises(LineError, match=r"an unfinished run with the journal '.*/j' is writing .*out\.jsonl.*delete"):
        line(NEW).run(range(100), write(out), journal=tmp_path / "k", how="loop")
    line(NEW).run(range(100), write(out), journal=tmp_path / "j", how="loop", if_changed="continue")
    assert rows(tmp_path) == [*map(broken, range(70)), *map(mended, range(70, 100))]
    fail(how="loop")
    (tmp_path / "j").unlink()  # nobody can go on with that part any more
    line(NEW).run(range(100), write(out), journal=tmp_path / "k", how="loop", if_changed="continue")
    assert rows(tmp_path) == [*map(mended, range(100))]
    assert sorted(os.listdir(tmp_path)) == ["k", "out.jsonl"]


@pytest.mark.parametrize("sink", ["out.jsonl", "out/", "packed.jsonl.gz"])
def test_an_output_that_another_run_is_writing_is_had_when_it_has_ended(tmp_path, monkeypatch, sink):
    monkeypatch.setattr(_files, "PATIENCE", 0)
    place, refused = str(tmp_path / sink) + "/" * sink.endswith("/"), []

    def writer():
        return write(place, "jsonl", mode="replace") if sink.endswith("/") else write(place)

    def run(journal, step):
        line(step).run(range(3), writer(), journal=tmp_path / journal, how="loop")

    def beside(n):
        if n == 1:
            with pytest.raises(InUse, match=r"another run is writing .* wait until it has ended"):
                run("k", abs)
            refused.append(n)
        return n

    run("j", beside)
    assert refused == [1]
    run("k", abs)


def test_two_journals_cannot_write_one_url(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(_files, "PATIENCE", 0)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    url, store = f"memory://journals{tmp_path}/out.jsonl", fsspec.filesystem("memory")

    def run(journal, steps, **options):
        line(steps).run(range(100), write(url), journal=tmp_path / journal, how="loop", **options)

    with pytest.raises(ValueError, match="seventy"):
        run("j", OLD)
    with pytest.raises(LineError, match=r"an unfinished run with the journal '.*/j' is writing 'memory://.*delete"):
        run("k", NEW)
    held = claims.Claim(url, str(tmp_path / "j"), str)
    held.take()
    with pytest.raises(InUse, match="another run is writing"):
        run("k", NEW)
    held.release()
    run("j", NEW, if_changed="continue")
    assert store.cat(url).count(b"\n") == 100
    run("k", NEW)  # the first one has ended
    with pytest.raises(ValueError, match="seventy"):
        run("l", OLD)
    (tmp_path / "l").unlink()  # nobody can go on with that part any more
    run("m", NEW)
    assert os.listdir(tmp_path / "temporary") == []
    store.rm("/journals", recursive=True)


def test_a_run_that_waits_for_a_part_file_never_writes_into_the_finished_output(tmp_path, monkeypatch):
    """The lock is had when the other run has given the file its name."""
    out, real = tmp_path / "out.jsonl", _files.lock

    def lock_after_the_other_run(file):
        monkeypatch.setattr(_files, "lock", real)
        monkeypatch.setattr(output, "lock", real)
        os.rename(tmp_path / ".out.jsonl.part", out)
        real(file)

    from taktline._io import output

    (tmp_path / ".out.jsonl.part").write_text("whole\n")
    monkeypatch.setattr(output, "lock", lock_after_the_other_run)
    sink: Any = write(out)
    sink.beside(str(tmp_path / "j"))
    sink.begin("run")
    assert out.read_text() == "whole\n"
    sink.suspend()


def test_a_journal_that_is_cut_to_nothing_is_damaged_and_not_new(tmp_path, fail):
    fail(how="loop")
    os.truncate(tmp_path / "j", 0)
    with pytest.raises(ResumeError, match="was cut off"):
        line(OLD).run(range(100), write(tmp_path / "out.jsonl"), journal=tmp_path / "j", how="loop")


UNDER_WAY = """
import os, sys
from taktline import line, write
from taktline._run import checkpointer, states
checkpointer.EVERY = 0
def spoil(n):
    if n == 500:
        {spoil}
    return n
run = line(spoil)(range(1000), journal="j", how="loop")
if sys.argv[1] == "loop":
    for n in run: pass
else:
    run.drain(write("out.jsonl"))
"""


@pytest.mark.parametrize("kind", ["loop", "file"])
@pytest.mark.parametrize(
    "spoil",
    [
        "os.truncate('j', 0)", "os.truncate('j', 20000)", "open('j', 'r+b').write(bytes(9999))", "os.unlink('j')",
        "open('k', 'w').write('x' * 300000); os.rename('k', 'j')",
    ],
)  # fmt: skip
def test_a_journal_that_others_spoil_under_way_ends_in_an_error(tmp_path, kind, spoil):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", UNDER_WAY.format(spoil=spoil), kind], cwd=tmp_path, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "taktline.SinkError: the journal 'j' was" in ran.stderr


def test_what_says_what_to_do_with_a_journal_needs_one():
    for options in ({"if_changed": "continue"}, {"on_lost": "restart"}):
        with pytest.raises(LineError, match="give journal= too"):
            line(abs)([1], **options)
    with pytest.raises(LineError, match="choose one of 'refuse', 'continue', 'restart'"):
        line(abs)([1], if_changed="contine", journal="j")


def test_the_command_has_it_as_a_flag(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(f"{n}\n" for n in range(100)))
    flags = ["--in", "in.jsonl", "--out", "out.jsonl", "--journal", "j", "--how", "loop", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(code, *more):
        (tmp_path / "steps.py").write_text(f"def work(n):\n    return {code}\n")
        command = [sys.executable, "-m", "taktline", "run", "steps.py:work", *flags, *more]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run("n // (70 - n) * 0 + n").returncode == 1
    refused = run("n")
    assert refused.returncode == 2
    assert "--if-changed continue" in refused.stderr
    assert run("-n", "--if-changed", "continue").returncode == 0
    assert rows(tmp_path) == [*range(70), *(-n for n in range(70, 100))]
