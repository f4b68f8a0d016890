"""What a signal's handler raises, at any line of taktline's, reaches the caller as itself and leaves nothing behind.

The n-th line that is run in taktline's own files raises a signal, whose handler raises: exactly, and without a clock.
Finalizers are left out: what is raised there nobody can hear.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

import taktline
from taktline import batch, keep, line, per_worker

ROOT = str(Path(taktline.__file__).parent) + os.sep


@pytest.fixture(scope="module", autouse=True)
def looks_are_short():
    """Garbage is collected after each of some hundred runs: what the tests have imported is not looked through each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Alarm(Exception):
    pass


class OutOfTime(TimeoutError):
    """As many programs raise it in a handler; it is an OSError too."""


class Stop(BaseException):
    pass


class Worst(
    BrokenPipeError, ConnectionResetError, ProcessLookupError, ChildProcessError, BlockingIOError, FileNotFoundError,
    TimeoutError, BufferError, KeyError, ValueError, RuntimeError, TypeError,
):  # fmt: skip
    """What any `except` of ours could take for a failure that it knows."""


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
        list(iter(flow(range(20), how=how, **options)))  # of the run itself it would ask the length first, as below

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


# --- with workers: while they are started, watched and closed ---

SUBREAPER = 36  # of prctl: processes whose parent has ended become ours, and are seen in what is there
WATCHED = tuple(ROOT + each for each in ("_crew/", "_wire/", "_run/hub.py", "_run/run.py"))
KINDS = (Worst, OutOfTime, KeyboardInterrupt, Stop, SystemExit)

os.register_at_fork(after_in_child=partial(sys.settrace, None))


class AtPlace(At):
    """Raises the signal when a line of the source is reached for the first time; without one it notes all lines."""

    def __init__(self, place, kind, files):
        super().__init__(0, kind)
        self.place, self.files, self.seen = place, files, {}

    def trace(self, frame, event, arg):
        code = frame.f_code
        return self.each_line if code.co_filename.startswith(self.files) and code.co_name != "__del__" else None

    def each_line(self, frame, event, arg):
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and self.place is None:
            self.seen[place] = True
        elif event == "line" and place == self.place and not self.where:
            self.where = f"{place[0]}:{place[1]}"
            sys.settrace(None)
            signal.raise_signal(signal.SIGUSR1)
        return self.each_line


class Built:
    def __call__(self, n):
        return n

    def close(self):
        pass


def large(n):
    return b"%d" % n * 20_000  # through shared memory


def dies(n):
    if n == 7:
        os._exit(3)
    return n


def built(start, got):
    flow = line(per_worker(Built), large)
    # Of the run itself extend() would ask the length first, and take a handler's TypeError there for an answer.
    got.extend(iter(flow(range(16), how="line", start=start, workers=2, batch_size=2, recycle=6, stall=20)))


def dying(start, got):
    got.extend(iter(line(dies)(range(12), how="line", start=start, workers=2, on_error="skip", stall=20)))


@pytest.fixture
def orphans_are_ours():
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(SUBREAPER, 0, 0, 0, 0)


def run_at(place, kind, run, files):
    """What came of it: where the handler raised, what the caller got, and the children there were when he got it."""
    point, got = AtPlace(place, kind, files), []
    before = signal.signal(signal.SIGUSR1, point.handle)
    tracing, raised, children = sys.gettrace(), None, []
    sys.settrace(point.trace)
    try:
        run(got)
    except BaseException as error:
        sys.settrace(None)
        raised, children = (type(error), error.args), what_is_there()[0]
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGUSR1, before)
    gc.collect()
    return point, got, raised, children


def places_of(run, files):
    """The lines that a whole run goes through, and its results."""
    run([])
    point, got, raised, _ = run_at(None, None, run, files)
    assert raised is None
    gc.collect()
    return list(point.seen), got


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("work", "start", "first", "stride"), [
    (built, "fork", 3, 41), (built, "launch", 7, 71), (dying, "fork", 11, 71), (dying, "launch", 13, 131),
])  # fmt: skip
def test_what_a_handler_raises_beside_workers_reaches_the_caller_as_itself_and_ends_them(
    work, start, first, stride, orphans_are_ours
):
    run = partial(work, start)
    places, right = places_of(run, WATCHED)
    before, files = what_is_there(), os.listdir(tempfile.gettempdir())
    for place, kind in zip(places[first::stride], itertools.cycle(KINDS)):
        point, got, raised, children = run_at(place, kind, run, WATCHED)
        if not point.where:  # this time no worker was waited for there
            continue
        assert raised == (kind, ("by the handler",)), point.where
        assert children == before[0], f"while the exception is at work: {point.where}"
        assert got == right[: len(got)], point.where
        assert what_is_there() == before, point.where
    assert {each for each in os.listdir(tempfile.gettempdir()) if "taktline" in each} <= set(files)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_handler_raises_while_the_system_makes_a_process_leaves_none(orphans_are_ours):
    run = partial(dying, "launch")
    files = (subprocess.__file__,)
    places, _ = places_of(run, files)
    code = vars(subprocess.Popen)["_execute_child"].__code__
    made = [each for each in places if code.co_firstlineno < each[1] <= max(line[2] or 0 for line in code.co_lines())]
    before = what_is_there()[0]
    for place in made[-30::5]:  # around the fork and behind it
        point, _, raised, children = run_at(place, Alarm, run, files)
        assert raised == (Alarm, ("by the handler",)), point.where
        assert children == what_is_there()[0] == before, point.where
