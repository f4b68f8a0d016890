"""Starting a worker where the system refuses it for a moment: nothing is lost by it, and nothing is left open."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess

import pytest

from faults.starting import patient_starts
from taktline import WorkersCannotStart, line
from taktline._crew.launcher import STARTS

ERRORS = 13  # place of the descriptor among the arguments, into which a child writes why it could not become a program


@pytest.fixture
def refuse(monkeypatch):
    """Have the system refuse starts: `refuse(code, wanted)` takes whether to refuse each, and returns the list of all."""
    # The session's own patience with its processes must not stand in for the launcher's.
    monkeypatch.setattr(subprocess.Popen, "__init__", vars(subprocess.Popen.__init__)["__wrapped__"])
    really = subprocess._fork_exec  # type: ignore[attr-defined]

    def refusing(code, wanted):
        starts = []

        def fork_exec(*arguments):
            starts.append(next(wanted))
            if not starts[-1]:
                return really(*arguments)
            if (child := os.fork()) == 0:
                os.write(arguments[ERRORS], b"OSError:%x:" % code)
                os._exit(255)
            return child

        monkeypatch.setattr(subprocess, "_fork_exec", fork_exec)
        return starts

    return refusing


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_a_start_that_fails_for_a_moment_is_tried_again(refuse):
    list(line(abs)(range(10), how="line", workers=2, start="launch"))  # so that all that is kept open is open
    before = descriptors()
    starts = refuse(errno.EFAULT, itertools.cycle([True] * (STARTS - 1) + [False]))
    assert list(line(abs)(range(-100, 0), how="line", workers=2, start="launch")) == list(range(100, 0, -1))
    assert starts.count(False) == 2, "a worker each"
    assert len(starts) == 2 * STARTS
    assert descriptors() == before


@pytest.mark.parametrize(("code", "tries"), [(errno.EFAULT, STARTS), (errno.EAGAIN, 1)], ids=["EFAULT", "EAGAIN"])
def test_a_start_that_goes_on_failing_ends_the_run(refuse, code, tries):
    list(line(abs)(range(10), how="line", workers=2, start="launch"))
    before = descriptors()
    starts = refuse(code, itertools.repeat(True))
    with pytest.raises(WorkersCannotStart, match=os.strerror(code)):
        list(line(abs)(range(100), how="line", workers=2, start="launch"))
    assert len(starts) <= 2 * tries
    assert len(starts) % tries == 0
    assert descriptors() == before


def test_the_test_suites_own_starts_are_tried_again_too(refuse):
    before = descriptors()
    starts = refuse(errno.EFAULT, itertools.cycle([True] * (STARTS - 1) + [False]))
    with patient_starts():
        done = subprocess.run(["echo", "good"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert done.stdout == b"good\n"
    assert len(starts) == STARTS
    assert descriptors() == before
