"""Promise: lines of packed files that workers decode come out as if the caller had decoded them."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_split_files import CHILD, WORKERS, Whole, flow, number, outcome, text_of

from taktline import Failed, SourceError, WorkerDied, line, read
from taktline._io.streams import Stretch


@given(
    st.sampled_from(["jsonl", "csv"]), st.integers(0, 3000), st.integers(1, 9), st.booleans(), st.booleans(),
    st.sampled_from(["raise", "skip", "keep"]), st.sampled_from(["line", "auto"]),
)  # fmt: skip
@settings(max_examples=15)
def test_the_results_of_a_packed_file(tmp_path_factory, how, count, odd, cut, fails, on_error, technique):
    folder = tmp_path_factory.mktemp("packed")
    packed = gzip.compress(text_of(how, count, odd).encode())
    (folder / f"in.{how}.gz").write_bytes(packed[:-3] if cut else packed)
    (folder / f"more.{how}").write_text(text_of(how, 100, 3))
    options = {**WORKERS, "how": technique, "on_error": on_error}
    split, model = flow(fails)(read(folder), **options), flow(fails)(Whole(folder), **options)
    assert outcome(split) == outcome(model)


def packed_in(folder, lines):
    path = folder / "in.jsonl.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def numbers(count):
    return text_of("jsonl", count, 3).splitlines(keepends=True)


def test_the_caller_decodes_nothing(tmp_path, monkeypatch):
    path = packed_in(tmp_path, numbers(5000))
    caller, real, decoding = os.getpid(), Stretch.read, multiprocessing.get_context("fork").Value("i")

    def decoded(part, unread=None):
        assert os.getpid() != caller
        decoding.value = 1
        return real(part, unread)

    monkeypatch.setattr(Stretch, "read", decoded)
    assert list(line(number)(read(path), **WORKERS)) == list(range(5000))
    assert decoding.value


@pytest.mark.parametrize("bad", [0, 1234])
def test_a_line_that_is_no_record_is_named_as_ever(tmp_path, bad):
    lines = numbers(3000)
    lines[bad] = "no record\n"
    path, results = packed_in(tmp_path, lines), []
    with pytest.raises(SourceError) as error:
        results.extend(line(number)(read(path), **WORKERS))
    with pytest.raises(SourceError) as plain:
        list(read(path))
    assert results == list(range(bad))
    assert (str(error.value), error.value.line) == (str(plain.value), bad + 1)


def test_a_record_that_kills_its_worker_is_named(tmp_path):
    def deadly(record):
        if record["n"] in (0, 1700, 2999):
            os.kill(os.getpid(), signal.SIGKILL)
        return record["n"]

    path = packed_in(tmp_path, numbers(3000))
    results = list(line(deadly)(read(path), on_error="keep", **WORKERS))
    lost = [(each.index, each.record["n"], type(each.error)) for each in results if isinstance(each, Failed)]
    assert lost == [(n, n, WorkerDied) for n in (0, 1700, 2999)]
    assert len(results) == 3000


def test_a_run_with_a_journal_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text_of("csv", 20_000, 3).encode()))
    (tmp_path / "job.py").write_text(CHILD)
    environment, written = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, []
    for how, wait in (("split", 0.4), ("split", 0.6), ("split", None), ("plain", None)):
        child = subprocess.Popen([sys.executable, "job.py", how, "csv.gz"], cwd=tmp_path, env=environment)
        try:
            assert child.wait(wait) == 0
            written.append((tmp_path / "out.jsonl").read_bytes())
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    assert len({*written}) == 1
