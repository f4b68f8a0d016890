"""What a signal's handler raises, at any line of taktline's, reaches the caller as itself and leaves nothing behind.

The n-th line that is run in taktline's own files raises a signal, whose handler raises: exactly, and without a clock.
Finalizers are left out: what is raised there nobody can hear.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

import taktline
from taktline import batch, keep, line

ROOT = str(Path(taktline.__file__).parent) + os.sep


class Alarm(Exception):
    pass


class OutOfTime(TimeoutError):
    """As many programs raise it in a handler; it is an OSError too."""


class Stop(BaseException):
    pass


class At:
    """Raises the signal when so many lines were run in taktline's files."""

    def __init__(self, at, kind):
        self.at, self.kind, self.lines, self.where = at, kind, 0, ""

    def handle(self, number, frame):
        raise self.kind("by the handler")

    def trace(self, frame, event, arg):
        ours = frame.f_code.co_filename.startswith(ROOT) and frame.f_code.co_name != "__del__"
        return self.each_line if ours else None

    def each_line(self, frame, event, arg):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
        return self.each_line


def run_with(at, kind, run):
    """What came of a run in which the handler raised at this line; and where that was, empty where it has fewer."""
    point = At(at, kind)
    before = [signal.signal(signal.SIGUSR1, point.handle), signal.signal(signal.SIGUSR2, point.each_line)]
    tracing = sys.gettrace()
    sys.settrace(point.trace)
    try:
        run()
        raised = None
    except BaseException as error:
        raised = type(error), str(error), bool(getattr(error, "__notes__", None))
    finally:
        sys.settrace(tracing)
        for number, handler in zip((signal.SIGUSR1, signal.SIGUSR2), before, strict=True):
            signal.signal(number, handler)
    gc.collect()  # the traceback held what was open in the frames
    return point, raised


def what_is_there():
    """Children, zombies too, and what descriptors lead to."""
    tasks = Path("/proc/self/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    open_files = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            open_files.append(os.readlink(each).split(":")[0])
        except FileNotFoundError:
            pass
    return children, sorted(name for name in open_files if name in ("socket", "pipe") or "memfd" in name)


def some(how, **options):
    def run():
        flow = line(abs, keep(lambda n: n % 3), batch(lambda ns: [n * 2 for n in ns], 4))
        list(flow(range(60), how=how, **options))

    return run


RUNS = {
    "loop": (some("loop"), 97, Alarm),
    "loop, as the system's errors": (some("loop"), 101, OutOfTime),
    "loop, more than an error": (some("loop"), 103, Stop),
    "loop that goes on": (some("loop", on_error="skip"), 131, Alarm),
    "auto": (some("auto"), 211, Alarm),
}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("name", RUNS)
def test_what_a_signals_handler_raises_reaches_the_caller_as_itself_and_leaves_nothing(name):
    run, stride, kind = RUNS[name]
    run()  # what is imported and made once
    gc.collect()
    before, at = what_is_there(), 1 + stride // 3
    while True:
        point, raised = run_with(at, kind, run)
        if not point.where:
            break
        assert raised is not None, point.where
        assert raised[:2] == (kind, "by the handler"), point.where
        assert what_is_there() == before, point.where
        at += stride
    assert at > stride
