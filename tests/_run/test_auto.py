"""What is tried out on a run's records loses none of them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import taktline
from taktline import batch, expand, keep, line
from taktline._run import auto


def parts(text):
    return text.split(" ")


def worked(word):
    return [word, sum(map(ord, word * 20))]


@pytest.mark.parametrize("start", ["auto", "threads"])
def test_all_results_of_an_expand_come_though_two_threads_may_be_tried(start):
    texts = [" ".join(map(str, range(n % 7 * 900 + 40))) for n in range(60)]
    flow = line(expand(parts), keep(str.isdigit), worked)
    expected = [worked(word) for text in texts for word in parts(text)]
    for _ in range(4):
        assert list(flow(texts, workers=2, start=start)) == expected
        got = []
        assert flow.run(texts, got.append, workers=2, start=start).records_out == len(expected)
        assert got == expected


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Paths to read from and to write to, of tables that are counted as long."""
    monkeypatch.setattr(auto, "LONG", 1)
    table = pa.table({"n": range(3_000)})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=300)
    return tmp_path / "in.parquet", tmp_path / "out.parquet"


def doubled(frame):
    return frame.assign(n=frame["n"] * 2)


def test_where_nothing_moves_a_long_run_begins_with_workers(files):
    source, target = files
    report = line(batch(doubled, form="pandas")).run(taktline.read(source), taktline.write(target), workers=2)
    assert report.reasons[0].startswith("move to 2 workers: they read, work on and pack")
    assert (report.how, report.records_in, report.records_out) == ("line", 3_000, 3_000)
    assert pd.read_parquet(target)["n"].tolist() == list(range(0, 6_000, 2))
    in_hand = line(batch(doubled, form="pandas"))(taktline.read(source), workers=2)
    assert len(in_hand.to_arrow()) == 3_000
    assert not any("pack" in reason for reason in in_hand.report.reasons)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_whatever_the_form_and_the_files_are_they_begin_with_workers(tmp_path, suffix, monkeypatch):
    """Steps over Arrow too, which threads could do: to try those takes longer than to start workers. Of lines fewer bytes are
    long."""
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    line(lambda row: row).run(({"n": n} for n in range(3_000)), taktline.write(source), how="loop")
    size = source.stat().st_size
    flow = line(batch(lambda table: table, form="arrow"))

    def reasons(long, long_text):
        monkeypatch.setattr(auto, "LONG", long)
        monkeypatch.setattr(auto, "LONG_TEXT", long_text)
        reading = taktline.read(source, types={"n": int}) if suffix == ".csv" else taktline.read(source)
        report = flow.run(reading, taktline.write(target), workers=2)
        assert report.records_out == 3_000
        return any("they read, work on and pack" in reason for reason in report.reasons)

    more = size + 1
    assert reasons(size, more) == (suffix == ".parquet")
    assert reasons(more, size) == (suffix != ".parquet")


def test_what_only_workers_need_is_not_imported_here(files):
    source, target = files
    program = f"""
import sys, taktline
from taktline._run import auto
auto.LONG = 1
flow = taktline.line(taktline.batch(lambda frame: frame.assign(n=frame["n"] * 2), form="pandas"))
flow.run(taktline.read({str(source)!r}), taktline.write({str(target)!r}), workers=2)
print("pandas" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_steps_that_cannot_go_to_workers_stay_here_all_the_same(files):
    source, target = files
    lock = threading.Lock()
    flow = line(batch(lambda frame: frame if lock.locked() else doubled(frame), form="pandas"))
    report = flow.run(taktline.read(source), taktline.write(target), workers=2, start="launch")
    assert (report.how, report.records_out) == ("loop", 3_000)
    assert pd.read_parquet(target)["n"].tolist() == list(range(0, 6_000, 2))
