"""Promise: what steps write to files that they leave open is there after the run, once, as it is at the loop's end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taktline import line

STARTS = ["fork", "launch"]
folder = ""
out = None


def place():
    return Path(folder, f"{os.getpid()}.txt")


def opened_late(n):
    global out
    if out is None:
        out = place().open("w")
    out.write(f"{n}\n")
    return n


def open_it():
    global out
    out = place().open("w")


def opened_before(n):
    out.write(f"{n}\n")
    return n


def written():
    return sorted(int(n) for path in Path(folder).iterdir() for n in path.read_text().split())


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.folder", str(tmp_path))
    monkeypatch.setattr(f"{__name__}.out", None)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("how", ["line", "queues"])
@pytest.mark.parametrize(("fn", "setup"), [(opened_late, None), (opened_before, open_it)])
def test_lines_that_were_not_flushed_are_in_the_file(start, how, fn, setup):
    assert list(line(fn)(range(500), how=how, workers=2, start=start, setup=setup)) == list(range(500))
    assert written() == list(range(500))


def test_what_the_caller_has_not_flushed_yet_is_written_once(tmp_path):
    kept = place().open("w")
    kept.write("7\n")
    assert list(line(opened_late)(range(100), how="line", workers=2, start="fork")) == list(range(100))
    kept.close()
    assert written() == sorted([*range(100), 7])
