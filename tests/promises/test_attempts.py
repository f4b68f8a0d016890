"""Promise: of two attempts at a run the later one has it, and the earlier one, frozen or still at work, does nothing more
that shows. Each is a process of its own, on the same files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from taktline import InUse, LineError, TakenOver, _files, line, read, read_dead_letters, read_sql, write

RECORDS, MIDDLE = 3000, 2000
PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from taktline import line, read, write, write_sql
    from taktline._io.output import Output

    from taktline._run import checkpointer

    folder, sink, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    checkpointer.EVERY = 0

    def hold():
        if os.environ["ATTEMPT"] == "1":
            (folder / "reached").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)

    def check(row):
        if row["n"] == int(where):
            hold()
        if row["n"] % 100 == 7:
            raise ValueError("seven")
        return row

    def publish(output, *given):
        hold()
        published(output, *given)

    if where == "-1":
        published, Output._publish = Output._publish, publish
    into = write_sql(sink, "rows") if sink.startswith("postgresql") else write(
        sink, **({"format": "jsonl", "rows": 400} if sink.endswith("/") else {})
    )
    line(check).run(
        read(folder / "in.jsonl"), into, journal=folder / "j", dead_letters=folder / "failed.jsonl",
        attempt=int(os.environ["ATTEMPT"]), how="line", workers=2, batch_size=20, window=200,
    )
    """
)


@pytest.fixture
def folder(tmp_path):
    rows = [{"n": n, "text": "é" * (n % 9)} for n in range(RECORDS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture(params=["file", "packed", "parts", "s3", "postgres"])
def sink(request, folder):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{folder.name}/out.jsonl"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").url
        import psycopg

        with psycopg.connect(url) as database:
            database.execute('DROP TABLE IF EXISTS "rows"')
            database.execute('CREATE TABLE "rows" (n bigint, text text)')
        return url
    if request.param == "parts":
        return f"{folder}/out/"
    return str(folder / ("out.jsonl" if request.param == "file" else "out.csv.gz"))


def start(folder, attempt, sink, where=MIDDLE):
    arguments = [sys.executable, folder / "program.py", folder, sink, str(where)]
    numbered = os.environ | {"ATTEMPT": str(attempt)}
    return subprocess.Popen(
        arguments, env=numbered, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder
    )


def wait_for(first, path):
    while not path.exists():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.01)


def rows_of(sink):
    if sink.startswith("postgresql"):
        return list(read_sql(sink, 'SELECT * FROM "rows" ORDER BY n'))
    return [{**row, "n": int(row["n"])} for row in read(sink)]


def marked(sink):
    """How many results the newest mark in the database tells of."""
    return max(
        (row["results"] for row in read_sql(sink, "SELECT results FROM taktline_marks WHERE finished = 0")), default=0
    )


def check_results(folder, sink):
    assert rows_of(sink) == [{"n": n, "text": "é" * (n % 9)} for n in range(RECORDS) if n % 100 != 7]
    assert sorted(letter.index for letter in read_dead_letters(folder / "failed.jsonl")) == [*range(7, RECORDS, 100)]


def all_of(first):
    return [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_later_attempt_takes_over_and_the_earlier_one_leaves_no_trace(folder, sink, frozen):
    first = start(folder, 1, sink)
    wait_for(first, folder / "reached")
    processes = all_of(first)
    if sink.startswith("postgresql"):  # where it would be frozen amid a transaction, the server keeps its locks
        while marked(sink) != MIDDLE - MIDDLE // 100:
            assert first.poll() is None
            time.sleep(0.01)
    if frozen:
        os.killpg(first.pid, signal.SIGSTOP)
    second = start(folder, 2, sink)
    _, said = second.communicate()
    assert second.returncode == 0, said
    check_results(folder, sink)
    (folder / "go").touch()
    os.killpg(first.pid, signal.SIGCONT)
    _, said = first.communicate()
    assert first.returncode == 1
    assert "TakenOver: attempt 2 has taken over the journal" in said
    psutil.wait_procs(processes)
    check_results(folder, sink)
    own = {"in.jsonl", "program.py", "reached", "go", "j", "failed.jsonl"}
    assert {*os.listdir(folder)} - own <= {os.path.basename(sink.rstrip("/"))}


def test_an_attempt_that_was_frozen_before_it_published_does_not(folder):
    sink = str(folder / "out.jsonl")
    first = start(folder, 1, sink, where=-1)
    wait_for(first, folder / "reached")
    os.killpg(first.pid, signal.SIGSTOP)
    second = start(folder, 2, sink, where=-1)
    _, said = second.communicate()
    assert second.returncode == 0, said
    published = os.stat(sink)
    (folder / "go").touch()
    os.killpg(first.pid, signal.SIGCONT)
    _, said = first.communicate()
    assert first.returncode == 1
    assert "taken away or replaced" in said
    assert os.stat(sink) == published
    check_results(folder, sink)


def test_what_has_no_number_or_a_later_one_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "PATIENCE", 0)

    def begun(**attempt):
        run = line(abs)(range(9), journal=tmp_path / "j", how="loop", **attempt)
        assert next(run) == 0
        return run

    with begun(), pytest.raises(InUse, match="another run is at work with the journal"):
        begun(attempt=3)
    (tmp_path / "j").unlink()
    with begun(attempt=3):
        with pytest.raises(InUse):
            begun(attempt=3)
        with pytest.raises(InUse):
            begun()
        with pytest.raises(TakenOver, match="attempt 3 has taken over") as caught:
            begun(attempt=2)
    assert caught.value.attempt == 3
    begun(attempt=1).close()  # nobody has it any more


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(bytes(range(256)) * 4000)
    with pytest.raises(Exception, match="no journal"):
        line(abs).run([1], write(tmp_path / "o.jsonl"), journal=mine, attempt=1)
    assert mine.read_bytes() == bytes(range(256)) * 4000


def test_an_attempt_is_one_of_a_journal(tmp_path):
    with pytest.raises(LineError, match="attempt=2 says what to do with a journal; give journal= too"):
        line(abs).run([1], attempt=2)
    with pytest.raises(LineError, match="attempt=0: give a whole number"):
        line(abs).run([1], attempt=0, journal=tmp_path / "j")
