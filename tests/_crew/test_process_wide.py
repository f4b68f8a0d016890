"""What steps may not do in two threads of one process, since it would show in each other's results."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import csv
import difflib
import html.parser
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import threading
import warnings
from contextlib import redirect_stdout
from unittest import mock

import numpy as np
import pytest

from taktline._crew.starts import not_for_threads
from taktline._recipe.steps import as_step

BUFFER, SCRATCH, TABLE = io.StringIO(), bytearray(8), {1: 2}
MATCHER, PARSER, RANDOM, DRAWN = difflib.SequenceMatcher(), html.parser.HTMLParser(), random.Random(3), np.zeros(3)
PATTERN = re.compile("x")


class Held:
    last = None


HELD = Held()


def in_a_folder(n):
    os.chdir(n)


def in_a_folder_for_a_while(n):
    with contextlib.chdir(n):
        return os.listdir()


def in_a_folder_by_its_own_import(n):
    from os import chdir

    chdir(n)


def in_a_folder_of_a_library(n):
    return shutil.make_archive(n, "zip", n)


def printed(n):
    with redirect_stdout(io.StringIO()) as text:
        print(n)
    return text.getvalue()


def warned(n):
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn(n, stacklevel=1)
    return len(seen)


def limited(n):
    signal.alarm(1)
    return n


def of_an_event_loop(n):
    return asyncio.get_event_loop().run_until_complete(n)


def of_the_first_thread(n):
    return threading.current_thread() is threading.main_thread()


def patched(n):
    with mock.patch("os.getcwd"):
        return n


def seeded(n):
    random.seed(n)
    return random.random()


def drawn(n):
    return np.random.rand() + n


def drawn_by_a_generator(n):
    return RANDOM.random() + n


def in_a_buffer(n):
    BUFFER.seek(0)
    csv.writer(BUFFER).writerow([n])
    return BUFFER.getvalue()


def in_scratch_memory(n):
    struct.pack_into(">I", SCRATCH, 0, n)
    return bytes(SCRATCH)


def kept_by_a_helper(n):
    json.JSONEncoder.default(HELD, n)


def matched(n):
    MATCHER.set_seq1(n)
    return MATCHER.ratio()


def parsed(n):
    PARSER.feed(n)
    return PARSER.rawdata


ALONE = [
    in_a_folder, in_a_folder_for_a_while, in_a_folder_by_its_own_import, in_a_folder_of_a_library, printed, warned, limited,
    of_an_event_loop, of_the_first_thread, patched, seeded, drawn, drawn_by_a_generator, in_a_buffer, in_scratch_memory,
    kept_by_a_helper, matched, parsed,
]  # fmt: skip


@pytest.mark.parametrize("step", ALONE)
def test_what_two_threads_would_do_to_each_other_is_seen(step):
    assert not_for_threads([as_step(step)])
    assert not_for_threads([as_step(lambda n: step(n))])


def test_the_wrapper_of_a_library_is_looked_at_too(tmp_path, monkeypatch):
    (tmp_path / "site-packages").mkdir()
    code = "import signal\ndef limited(fn):\n    def inner(n): signal.alarm(1); return fn(n)\n    return inner\n"
    (tmp_path / "site-packages" / "deadlines.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    import deadlines

    assert "uses signal." in not_for_threads([as_step(deadlines.limited(abs))])


def looked_up(n):
    return TABLE[n], TABLE.get(n), n in TABLE, len(TABLE), [each + 1 for each in TABLE], sorted(TABLE)


def weighed(n):
    return np.dot(DRAWN, n), bisect.bisect([1, 2], n)


def read(n):
    return PATTERN.sub("y", json.loads(n)["name"]), looked_up(n)


@pytest.mark.parametrize("step", [looked_up, weighed, read, np.sqrt, json.loads])
def test_what_only_reads_is_in_nobodys_way(step):
    assert not not_for_threads([as_step(step)])
