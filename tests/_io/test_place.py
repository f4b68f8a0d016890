"""A name is not the thing: what a path leads to is looked at before it is opened, and only plain files are replaced."""

from __future__ import annotations

import gzip
import json
import os
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from present import present

from taktline import LineError, SinkError, line, read, read_sql, write, write_sql

RECORDS = [{"n": n} for n in range(5)]
TEXT = "".join(json.dumps(record) + "\n" for record in RECORDS)


def same(record):
    return record


def run_into(path, **options):
    return line(same).run(RECORDS, write(path, options.pop("format", None)), how="loop", **options)


def command(folder, *arguments, **how):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "taktline", *arguments], cwd=folder, env=environment,
        **{"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | how,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in.jsonl").write_text(TEXT)
    (tmp_path / "steps.py").write_text("def same(record):\n    return record\n")
    return tmp_path


# --- what is no plain file is written into ---


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("name", ["fifo.jsonl", "link.jsonl", "fifo.jsonl.gz"])
def test_a_pipe_is_written_into(tmp_path, name, journal):
    path = tmp_path / name
    os.mkfifo(path if name.startswith("fifo") else tmp_path / "fifo")
    if name == "link.jsonl":
        path.symlink_to("fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    run_into(path, journal=tmp_path / "j" if journal else None)
    reader.join()
    assert (gzip.decompress(got[0]) if name.endswith(".gz") else got[0]).decode() == TEXT
    assert path.is_fifo()
    assert {*os.listdir(tmp_path)} - {"fifo", "j"} == {name}


def test_a_pipe_whose_reader_goes_away_is_an_error(tmp_path):
    path = tmp_path / "fifo.jsonl"
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: os.close(os.open(path, os.O_RDONLY)))
    reader.start()

    def waits(record):
        reader.join()
        return record

    with pytest.raises(
        SinkError, match=r"fifo.jsonl' cannot be written: Broken pipe. What was written before is there"
    ):
        line(waits).run(RECORDS, write(path), how="loop")
    assert path.is_fifo()


@pytest.mark.parametrize("name", ["null", "link.jsonl"])
def test_a_device_stays_what_it_is(tmp_path, name):
    path = Path("/dev/null")
    if name != "null":
        path = tmp_path / name
        path.symlink_to("/dev/null")
    before = os.stat("/dev/null")
    run_into(path, format="jsonl")
    run_into(path, format="csv")
    assert os.stat("/dev/null") == before
    with pytest.raises(SinkError, match="No space left"):
        run_into("/dev/full", format="jsonl")


@pytest.mark.parametrize("kind", ["append", "truncated", "pipe", "socket"])
@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_what_is_open_is_written_into_at_its_place(tmp_path, name, kind):
    if kind == "pipe":
        there, here = os.pipe()
    elif kind == "socket":
        one, other = socket.socketpair()
        there, here = one.detach(), other.detach()
    else:
        (tmp_path / "log.jsonl").write_text("before\n")
        here = os.open(tmp_path / "log.jsonl", os.O_WRONLY | (os.O_APPEND if kind == "append" else os.O_TRUNC))
        os.write(here, b"head\n")
        there = os.open(tmp_path / "log.jsonl", os.O_RDONLY)
    path = name.format(here)
    if name == "link":
        path = tmp_path / "out.jsonl"
        path.symlink_to(f"/dev/fd/{here}")
    run_into(path, format="jsonl")
    os.write(here, b"tail\n")  # it is still open
    got = os.read(there, 9999).decode()
    os.close(here)
    os.close(there)
    head = {"append": "before\nhead\n", "truncated": "head\n"}.get(kind, "")
    assert got == f"{head}{TEXT}tail\n"


def test_a_number_that_is_not_open_or_only_for_reading_is_refused(tmp_path):
    with open(tmp_path / "f", "w+") as file:
        number = file.fileno()
    with pytest.raises(LineError, match=r"Bad file descriptor|there is no"):
        write(f"/dev/fd/{number}", "jsonl")
    with open(tmp_path / "f") as file, pytest.raises(LineError, match="open for reading only"):
        write(f"/dev/fd/{file.fileno()}", "jsonl")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
def test_the_command_keeps_standard_output_for_data_by_any_of_its_names(folder, name):
    (folder / "steps.py").write_text("def same(record):\n    print('noise')\n    return record\n")
    with open(folder / "out", "a") as out:
        out.write("before\n")
        out.flush()
        done = command(
            folder, "run", "steps.py:same", "--in", "in.jsonl", "--out", name, capture_output=False, stdout=out,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0
    assert (folder / "out").read_text() == f"before\n{TEXT}"


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "in.fifo"])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_can_be_read_once_is_read_by_the_caller_alone(folder, name, how):
    if name == "in.fifo":
        os.mkfifo(folder / name)
        feed = threading.Thread(target=lambda: (folder / name).write_text(TEXT))
        feed.start()
    with open(folder / "in.jsonl") as given:
        done = command(
            folder, "run", "steps.py:same", "--in", name, "--in-format", "jsonl", "--out", "out.jsonl", "--how", how,
            "--journal", "j", stdin=given,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "out.jsonl").read_text() == TEXT


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.jsonl"))
        with pytest.raises(LineError, match="is a socket"):
            write(tmp_path / "s.jsonl")
    assert stat.S_ISSOCK(os.stat(tmp_path / "s.jsonl").st_mode)


# --- links, modes, owners ---


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_the_target_of_links_is_replaced_and_the_links_stay(tmp_path, there, journal):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    real = tmp_path / "far" / "real.jsonl"
    if there:
        real.write_text("old\n")
    (tmp_path / "near" / "two.jsonl").symlink_to("../far/real.jsonl")
    (tmp_path / "one.jsonl").symlink_to("near/two.jsonl")
    (tmp_path / "folder").symlink_to("near")
    seen = []

    def looks(record):
        seen.append(os.listdir(tmp_path / "far"))
        return record

    line(looks).run(
        RECORDS,
        write(tmp_path / "folder" / ".." / "one.jsonl"),
        how="loop",
        journal=tmp_path / "j" if journal else None,
    )
    assert real.read_text() == TEXT
    assert not real.is_symlink()
    assert os.readlink(tmp_path / "one.jsonl") == "near/two.jsonl"
    assert os.readlink(tmp_path / "near" / "two.jsonl") == "../far/real.jsonl"
    assert any(name.startswith(".real.jsonl.") for name in seen[0])  # beside the target
    assert os.listdir(tmp_path / "far") == ["real.jsonl"]


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("b.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    (tmp_path / "c.jsonl").symlink_to("no/such/place.jsonl")
    for name, says in (("a.jsonl", "Too many levels"), ("c.jsonl", "there is no folder")):
        with pytest.raises(LineError, match=says):
            write(tmp_path / name)


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o777, 0o640])
def test_a_replaced_file_keeps_mode_owner_and_attributes_and_a_new_one_takes_the_umask(tmp_path, mode, journal):
    path, seen = tmp_path / "out.jsonl", []
    path.write_text("old\n")
    path.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.chown(path, 1234, 4321)
    attributes = True
    try:
        os.setxattr(path, "user.origin", b"shop")
    except OSError:
        attributes = False

    def looks(record):
        (part,) = (each for each in tmp_path.iterdir() if each.name.endswith(".part"))
        seen.append(stat.S_IMODE(part.stat().st_mode))
        return record

    options = {"how": "loop", "journal": tmp_path / "j" if journal else None}
    before = os.umask(0o027)
    try:
        line(looks).run(RECORDS, write(path), **options)
        run_into(tmp_path / "new.jsonl")
    finally:
        os.umask(before)
    known = path.stat()
    assert (stat.S_IMODE(known.st_mode), path.read_text()) == (mode, TEXT)
    assert not seen[0] & ~mode  # nor could others read it on the way
    assert stat.S_IMODE((tmp_path / "new.jsonl").stat().st_mode) == 0o640
    if root:
        assert (known.st_uid, known.st_gid) == (1234, 4321)
    if attributes:
        assert os.getxattr(path, "user.origin") == b"shop"


def test_a_file_with_another_name_is_refused_and_both_are_as_they_were(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    os.link(path, tmp_path / "other")
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    for name in ("out.jsonl", "link.jsonl"):
        with pytest.raises(LineError, match=r"1 more name\(s\), hard links"):
            write(tmp_path / name)
    assert path.samefile(tmp_path / "other")
    assert path.read_text() == "old\n"


def test_what_comes_into_its_place_during_the_run_is_not_taken_away(tmp_path):
    path = tmp_path / "out.jsonl"

    def disturbs(record):
        if not path.exists():
            os.mkfifo(path)
        return record

    with pytest.raises(SinkError, match="no plain file has come into its place"):
        line(disturbs).run(RECORDS, write(path), how="loop")
    assert os.listdir(tmp_path) == ["out.jsonl"]
    assert path.is_fifo()


AS_NOBODY = """
import os, sys
from taktline import LineError, write
write("new.jsonl")  # all is loaded, which another user may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for name in ("closed.jsonl", "shut/in.jsonl", "others.jsonl", "sticky/others.jsonl", "mine.jsonl", "new.jsonl"):
    try:
        write(name)
        print(name, "may")
    except LineError as error:
        print(name, "may not")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_what_open_would_refuse_is_refused_at_once():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        for sub, mode in (("shut", 0o555), ("sticky", 0o1777)):
            (folder / sub).mkdir()
            (folder / sub).chmod(mode)
        for file, owner, mode in (
            ("closed.jsonl", 65534, 0o444), ("shut/in.jsonl", 65534, 0o666), ("others.jsonl", 0, 0o666),
            ("sticky/others.jsonl", 0, 0o666), ("mine.jsonl", 65534, 0o600),
        ):  # fmt: skip
            (folder / file).touch()
            (folder / file).chmod(mode)
            os.chown(folder / file, owner, owner)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        may_not = [text.split()[0] for text in done.stdout.splitlines() if text.endswith("may not")]
        assert may_not == ["closed.jsonl", "shut/in.jsonl", "others.jsonl", "sticky/others.jsonl"], done.stderr
        assert "mine.jsonl may\nnew.jsonl may" in done.stdout


# --- two ends are two things ---


def spellings(folder, path):
    """Other names of a file."""
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "link").symlink_to(folder)
    (folder / "soft.jsonl").symlink_to(path.name)
    return [
        str(path), path.name, f"./{path.name}", f"deep/../{path.name}", f"link/{path.name}", "soft.jsonl",
        f"file://{path}", f"file://localhost{path}",
    ]  # fmt: skip


def same_ends(flow, one, other):
    return (
        lambda: flow.run(read(one), write(other)),
        lambda: flow.run(read(other), write(one)),
        lambda: flow(read(one), dead_letters=other),
        lambda: flow(read(other), journal=one),
        lambda: flow.run([1], write(one), dead_letters=other),
        lambda: flow.run([1], write(other), journal=one),
        lambda: flow([1], dead_letters=one, journal=other),
    )


def test_the_input_is_not_written_by_any_spelling(folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = folder / "in.jsonl"
    calls = []
    for one in spellings(folder, path):
        for other in (path.name, one):
            for ends in same_ends(line(calls.append), one, other):
                with pytest.raises(LineError, match=r"are the same file|is among what is read|give its path alone"):
                    ends()
    os.link(path, folder / "hard.jsonl")
    with pytest.raises(LineError, match="among what is read"):
        list(line(calls.append)(read("hard.jsonl"), dead_letters="in.jsonl"))
    assert calls == []
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    "arguments",
    [
        "--in in.jsonl --out in.jsonl",
        "--in in.jsonl --out out.jsonl --dead-letters ./in.jsonl",
        "--in in.jsonl --out out.jsonl --journal in.jsonl",
        "--in in.jsonl --out out.jsonl --dead-letters out.jsonl",
        "--in in.jsonl --out out.jsonl --journal ./out.jsonl",
        "--in in.jsonl --out out.jsonl --report r.json --journal r.json",
        "--in in.jsonl --out r.json --out-format jsonl --report r.json",
        "--in in.jsonl --out - --dead-letters d.jsonl --journal d.jsonl",
        "--in r.json --in-format jsonl --out o.jsonl --report r.json",
        "--in r.json --in-format jsonl --out o.jsonl --report r.json --limit 2",
        "--in . --in-format jsonl --out o.jsonl",
        "--in *.jsonl --out out.jsonl",
        "--in *.jsonl --out o.txt --dead-letters d.jsonl",
        "--in *.js* --in-format jsonl --out o.txt --report r2.json",
    ],
)
def test_the_command_refuses_two_ends_that_are_one(folder, arguments):
    (folder / "r.json").write_text(TEXT)
    (folder / "steps.py").replace(folder.parent / "steps.py")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = command(folder, "run", "../steps.py:same", *arguments.split())
    assert done.returncode == 2, done.stderr
    assert "are the same file" in done.stderr or "is among what is read" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_other_commands_do_not_overwrite_what_they_read(folder):
    (folder / "r.json").write_text(TEXT)
    for arguments in (
        "compare steps.py:same --in r.json --in-format jsonl --export r.json",
        "report r.json --html ./r.json",
        "retry r.json steps.py:same --out o.jsonl --journal r.json",
    ):
        done = command(folder, *arguments.split())
        assert done.returncode == 2, done.stderr
        assert (folder / "r.json").read_text() == TEXT


def test_devices_and_streams_may_be_several_ends_and_a_database_two(folder):
    line(same).run(read("/dev/null", "jsonl"), write("/dev/null", "jsonl"))
    done = command(folder, "run", "steps.py:same", "--in", "-", "--out", "-")
    assert (done.returncode, done.stdout) == (0, "")
    with sqlite3.connect(folder / "shop.db") as base:
        base.execute("CREATE TABLE a (n INTEGER)")
        base.execute("CREATE TABLE b (n INTEGER)")
    base.close()
    url = f"sqlite:///{folder}/shop.db"
    line(same).run(read_sql(url, "SELECT * FROM a"), write_sql(url, "b"))
    for ends in (
        lambda: list(line(same)(read_sql(url, "SELECT * FROM a"), dead_letters=folder / "shop.db")),
        lambda: line(same).run([1], write_sql(url, "b"), dead_letters=folder / "shop.db"),
        lambda: line(same).run([1], write_sql(url, "b"), journal=folder / "shop.db"),
    ):
        with pytest.raises(LineError, match=r"are the same file|is among what is read|give its path alone"):
            ends()


@pytest.mark.parametrize(
    ("source", "taken", "free"),
    [
        (
            "data/*.jsonl",
            ["data/out.jsonl", "data/a.jsonl", "l/new.jsonl"],
            ["data/out.txt", "o.jsonl", "data/.o.jsonl"],
        ),
        ("data/", ["data/out.jsonl", "data/b.txt"], ["data/_o.jsonl", "data/.o.jsonl", "o.jsonl"]),
        ("l", ["data/out.jsonl", "l/out.jsonl"], ["out.jsonl"]),
        ("**/*.jsonl", ["out.jsonl", "data/out.jsonl", "deep/er/o.jsonl"], ["o.txt", ".h/o.jsonl"]),
        ("deep/**", ["deep/o.jsonl", "deep/er/o.csv"], ["o.jsonl"]),
        ("d*/?.jsonl", ["data/b.jsonl"], ["data/bb.jsonl", "b.jsonl"]),
        ("data/[ab].jsonl", ["data/b.jsonl", "data/a.jsonl"], ["data/c.jsonl"]),
        ("data/.*", ["data/.o.jsonl"], ["data/o.jsonl"]),
        ("data/a.jsonl", ["data/a.jsonl"], ["data/b.jsonl"]),
    ],
)
def test_an_output_that_the_input_would_take_is_refused(tmp_path, monkeypatch, source, taken, free):
    for name in ("data/a.jsonl", "deep/er/a.jsonl", "data/.h.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(TEXT)
    (tmp_path / ".h").mkdir()
    (tmp_path / "l").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    flow = line(same)
    for name in taken:
        for absolute in (name, str(tmp_path / name)):
            with pytest.raises(LineError, match="is among what is read"):
                flow.run(read(source, "jsonl"), write(absolute, "jsonl"))
            with pytest.raises(LineError, match="is among what is read"):
                flow(read(str(tmp_path / source), "jsonl"), journal=absolute)
            if name.endswith(".jsonl"):
                with pytest.raises(LineError, match="is among what is read"):
                    flow(read(source, "jsonl"), dead_letters=absolute)
    for name in free:
        assert flow.run(read(source, "jsonl"), write(name, "jsonl"), how="loop").records_out
        assert flow.run(read(source, "jsonl"), write(name, "jsonl"), how="loop").records_out % 5 == 0
        (tmp_path / name).unlink()


FOLDERS: dict[str, list[tuple[str | None, str]]] = {  # what is read: how a folder is written, and which
    "data/": [("append", "data/"), ("replace", "data/"), ("append", "l/"), ("roll", "data/"), (None, "data/sub/")],
    "l": [("append", "data/"), ("replace", "l/")],
    "data/*.jsonl": [("append", "data/"), ("replace", "data/"), ("roll", "l/")],
    "**/*.jsonl": [("append", "data/"), (None, "new/")],
    "*/*.jsonl": [("append", "data/"), (None, "new/"), ("by", "../{name}/")],
    "data/part-00000.jsonl": [("replace", "data/")],
}


def into_folder(mode, path):
    options = {"roll": {"roll": 60}, "by": {"partition_by": ["n"], "mode": "append"}}.get(mode, {"mode": mode})
    return write(path, "jsonl", **options)


@pytest.mark.parametrize("source", FOLDERS)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_that_the_input_would_take_is_refused(tmp_path, monkeypatch, source, absolute):
    line(same).run(RECORDS, write(f"{tmp_path}/data/", "jsonl"), how="loop")
    (tmp_path / "l").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    reads = str(tmp_path / source) if absolute else source
    before = sorted(tmp_path.rglob("*"))
    for mode, path in FOLDERS[source]:
        with pytest.raises(LineError, match="is among what is read"):
            line(same).run(
                read(reads, "jsonl"), into_folder(mode, path.format(name=tmp_path.name)), journal=tmp_path / "j"
            )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_beside_what_is_read_is_written(tmp_path, monkeypatch):
    line(same).run(RECORDS, write(f"{tmp_path}/data/", "jsonl"), how="loop")
    monkeypatch.chdir(tmp_path)
    for source, mode, path in (
        ("data/part-00000.jsonl", "append", "data/"), ("data/part-00000.jsonl", "append", "data/"),
        ("data/", "replace", "other/"), ("data/", "append", "other/"), ("data/", "roll", "rolled/"),
        ("data/*.jsonl", "append", "data2/"), ("data/", "by", "parted/"), ("data/*.jsonl", "replace", "data2/"),
    ):  # fmt: skip
        assert line(same).run(read(source, "jsonl"), into_folder(mode, path), how="loop").records_out


def test_an_object_is_not_written_over_what_is_read(folder):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/place/a.jsonl", TEXT.encode())
    store.pipe("/place/b.jsonl", TEXT.encode())
    for source, into in (
        ("memory://place/a.jsonl", "memory://place/a.jsonl"), ("memory://place/*.jsonl", "memory://place/c.jsonl"),
        ("memory://place", "memory://place/c.jsonl"), ("memory://**/*.jsonl", "memory://place/c.jsonl"),
    ):  # fmt: skip
        with pytest.raises(LineError, match="is among what is read"):
            line(same).run(read(source, "jsonl"), write(into))
    line(same).run(RECORDS, write("memory://parts/", "jsonl"), how="loop")
    for source, sink in (
        ("memory://parts/", write("memory://parts/", "jsonl", mode="replace")),
        ("memory://parts/part-00000.jsonl", write("memory://parts/", "jsonl", mode="replace")),
        ("memory://*/*.jsonl", write("memory://new/", "jsonl")),
        ("memory://parts/*.jsonl", write("memory://parts/", "jsonl", roll=60)),
    ):
        with pytest.raises(LineError, match="is among what is read"):
            line(same).run(read(source, "jsonl"), sink)
    line(same).run(read("memory://place/*.jsonl"), write("memory://other/c.jsonl"), how="loop")
    assert len(store.cat("/other/c.jsonl").splitlines()) == 10


# --- the folder, and what a kill leaves ---


def test_outputs_stay_where_they_were_opened(folder, monkeypatch):
    (folder / "away").mkdir()
    (folder / "away" / "out.jsonl").write_text("mine")
    (folder / "away" / "in2.jsonl").write_text("mine")
    (folder / "in2.jsonl").write_text(TEXT)
    monkeypatch.chdir(folder)

    def moves(record):
        os.chdir(folder / "away")
        return record

    for number, options in enumerate(({}, {"journal": "j"}, {"dead_letters": "d.jsonl"})):
        sink, source = write("out.jsonl"), read("in*.jsonl")
        for how in ("loop", "line"):
            os.chdir(folder)
            if "journal" in options:
                options["journal"] = f"{how}.journal"
            line(moves).run(source, sink, how=how, workers=1, **options)
            assert (folder / "out.jsonl").read_text() == TEXT * 2, number
    assert sorted(os.listdir(folder / "away")) == ["in2.jsonl", "out.jsonl"]
    (folder / "steps.py").write_text(
        f"import os\ndef moves(r):\n    os.chdir({str(folder / 'away')!r})\n    return r\n"
    )
    done = command(
        folder,
        "run",
        "steps.py:moves",
        "--in",
        "in*.jsonl",
        "--out",
        "out2.jsonl",
        "--report",
        "r.json",
        "--how",
        "loop",
    )
    assert done.returncode == 0
    assert (folder / "r.json").exists()
    assert sorted(os.listdir(folder / "away")) == ["in2.jsonl", "out.jsonl"]


KILLED = """
import os, signal, sys
from taktline import line, write
def work(n):
    if n == 3:
        if sys.argv[1] == "wait":
            print(flush=True)
            sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
    return n
line(work).run(range(9), write("out.jsonl"), how="loop")
"""


def parts(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".part"))


def test_the_next_run_takes_away_what_a_killed_one_has_left_and_nothing_else(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    how = {"cwd": tmp_path, "env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, "now"], **how).returncode == -signal.SIGKILL
        assert len(parts(tmp_path)) == 1
    others = [
        ".out.jsonl.part",
        ".out.jsonl.taktline-12.part",
        ".out.jsonl.0123abcd.part",
        ".out.csv.taktline-0123abcd.part",
    ]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".out.jsonl.taktline-01234567.part").symlink_to(".out.jsonl.part")
    others.append(".out.jsonl.taktline-01234567.part")
    with subprocess.Popen([sys.executable, "-c", KILLED, "wait"], **how) as busy:
        assert select.select([present(busy.stdout)], [], [], 60)[0]
        (of_the_busy,) = set(parts(tmp_path)) - {*others}
        run_into(tmp_path / "out.jsonl")
        assert parts(tmp_path) == sorted([*others, of_the_busy])
    run_into(tmp_path / "out.jsonl")
    assert parts(tmp_path) == sorted(others)
    assert (tmp_path / "out.jsonl").read_text() == TEXT


def test_the_longest_name_has_room_for_its_part(tmp_path):
    path = tmp_path / ("é" * 124 + ".jsonl")
    for journal in (None, tmp_path / "j"):
        run_into(path, journal=journal)
        assert path.read_text() == TEXT
