"""Promise: tables that steps give are written as they are, by workers: the same files whoever made them, and exactly those
after a kill."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import taktline
from taktline import batch, line, read, write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS, GROUP = 140_000, 70_000  # smaller ones are read together


def doubled(table):
    import pyarrow.compute as pc

    return table.append_column("twice", pc.multiply(table["n"], 2))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "in.parquet"
    words = [None if n % 11 == 0 else f'word "{n % 7}"' for n in range(ROWS)]
    table = pa.table({"n": range(ROWS), "half": [n / 2 for n in range(ROWS)], "word": words})
    pq.write_table(table, path, row_group_size=GROUP)
    return path


def content(path):
    if path.is_file():
        return path.read_bytes()
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


WHERE: list[tuple[str, dict[str, Any]]] = [
    ("out.parquet", {}),
    ("out.jsonl", {}),
    ("out.csv", {}),
    ("out.tsv", {}),
    ("out.jsonl.gz", {"level": 1}),
]
WHERE += [("out/", {"format": each, "rows": 60_000}) for each in ("parquet", "jsonl", "csv")]


@pytest.mark.parametrize(("name", "options"), WHERE, ids=str)
def test_the_same_files_come_of_one_and_of_more_workers(source, tmp_path, name, options):
    made = []
    for workers in (1, 2):
        line(batch(doubled, form="arrow")).run(
            read(source), write(f"{tmp_path}/{name}", **options), how="line", workers=workers
        )
        made.append(content(tmp_path / name))
        wanted = [{**row, "twice": row["n"] * 2} for row in pq.read_table(source).slice(0, 3).to_pylist()]
        if "csv" not in str((name, options)) and "tsv" not in name:
            assert list(read(tmp_path / name))[:3] == wanted
            assert [row["n"] for row in read(tmp_path / name)] == list(range(ROWS))
        if name == "out/":
            shutil.rmtree(tmp_path / name)
    assert made[0] == made[1]


def test_row_groups_are_those_of_the_source(source, tmp_path):
    line(batch(doubled, form="arrow")).run(read(source), write(tmp_path / "out.parquet"), how="line", workers=2)
    about = pq.read_metadata(tmp_path / "out.parquet")
    assert [about.row_group(n).num_rows for n in range(about.num_row_groups)] == [GROUP] * (ROWS // GROUP)


def test_lines_of_tables_are_those_of_records(source, tmp_path):
    for suffix in ("jsonl", "csv", "tsv"):
        as_table, as_rows = tmp_path / f"table.{suffix}", tmp_path / f"rows.{suffix}"
        line(batch(doubled, form="arrow")).run(read(source), write(as_table), how="line", workers=2)
        line(lambda row: {**row, "twice": row["n"] * 2}).run(read(source), write(as_rows), how="loop")
        assert as_table.read_bytes() == as_rows.read_bytes()


def test_a_result_that_does_not_fit_is_named_and_nothing_is_left(source, tmp_path):
    def odd(table):
        first = table["n"][0].as_py()
        return table.set_column(2, "word", pa.array(range(len(table)))) if first >= GROUP else table

    with pytest.raises(taktline.SinkError, match="its 'word' is int64, and the column is string") as caught:
        line(batch(odd, form="arrow")).run(read(source), write(tmp_path / "out.parquet"), how="line", workers=2)
    assert caught.value.result == GROUP
    assert os.listdir(tmp_path) == []


CHILD = """
import sys
from taktline import batch, line, read, write
from taktline._run import checkpointer
checkpointer.EVERY = 0.01
def slowly(table):
    import pyarrow.compute as pc
    for row in table["n"].to_pylist():
        row % 7
    return table.append_column("twice", pc.multiply(table["n"], 2))
def go(source, out, format, journal):
    flow = line(batch(slowly, form="arrow"))
    print(flow.run(read(source), write(out, format=format, rows=25_000), how="line", workers=2, journal=journal))
if __name__ == "__main__":
    go(*sys.argv[1:])
"""


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_folder_of_tables_is_exact_after_kills(source, tmp_path, format):
    (tmp_path / "job.py").write_text(CHILD)

    def start(name):
        job = [sys.executable, "job.py", str(source), f"{name}/", format, f"{name}.journal"]
        return subprocess.Popen(job, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    whole = start("whole")
    said, _ = whole.communicate()
    assert whole.returncode == 0, said
    for _ in range(3):
        running = start("out")
        hidden, wanted = Path(tmp_path, ".out.parts"), random.randrange(4)
        while running.poll() is None and not Path(tmp_path, "out").exists():
            if hidden.is_dir() and len([each for each in os.listdir(hidden) if "part-" in each]) > wanted:
                break
            time.sleep(0.001)  # between two looks
        running.send_signal(signal.SIGKILL)
        running.communicate()
    last = start("out")
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    left = {"job.py", "out", "out.journal", "whole", "whole.journal"}
    assert {*os.listdir(tmp_path)} - {"__pycache__"} == left
