"""Promise: a step finds the same surroundings in a worker as in the loop: loggers, warnings, random numbers, threads."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest

from taktline import Failed, WorkerDied, batch, expand, line, per_worker, serial, step

log = logging.getLogger("steps.of.a.test")
STARTS = ["launch", "fork"]
WITH_WORKERS = [("queues", "launch"), ("line", "launch"), ("line", "fork")]
WAYS = [("loop", "launch"), *WITH_WORKERS]


def python(code: str, *options: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, under a hard limit."""
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)  # type: ignore[call-overload]


# --- log records ---


def tell(n):
    log.debug("nobody wants record %d", n)
    log.info("record %d", n)
    return n


@pytest.mark.parametrize(("how", "start"), WITH_WORKERS)
def test_log_records_reach_the_callers_handlers_with_worker_and_step(how, start, caplog):
    caplog.set_level(logging.INFO, logger=log.name)
    list(
        line(abs, tell, batch(lambda ns: [tell(n) for n in ns], name="many"))(
            range(20), how=how, workers=3, start=start
        )
    )
    found = [each for each in caplog.records if each.name == log.name]
    assert sorted((each.taktline_step, each.getMessage()) for each in found) == sorted(
        (name, f"record {n}") for name in ("tell", "many") for n in range(20)
    )
    assert {each.taktline_worker for each in found} <= {0, 1, 2}
    assert {each.funcName for each in found} == {"tell"}
    assert os.getpid() not in {each.process for each in found}


def test_the_hooks_of_a_notebook_are_its_own_and_no_step_misses_them():
    pytest.importorskip("IPython")
    done = python("""
        import logging, sys, threading
        from IPython.core.interactiveshell import InteractiveShell
        from taktline import line

        shell = InteractiveShell.instance()
        sys.excepthook = sys.unraisablehook = sys.displayhook = threading.excepthook = shell.excepthook

        def tells(n):
            sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook
            logging.getLogger("shop").error("large")
            return n

        run = line(tells)(range(2), how="line", workers=1, start="launch", progress=False)
        assert run.to_list() == [0, 1]
        print(run.report)
    """)
    assert (done.returncode, done.stderr) == (0, "large\nlarge\n")
    assert "hook" not in done.stdout


class Spy:
    """Says how many messages of a kind came from the workers."""

    def __init__(self, monkeypatch):
        from taktline._crew import callers_side, protocol

        self.kinds = []
        for kind in (protocol.LOGGED, protocol.WARNED):
            heard = callers_side.ASIDE[kind]
            monkeypatch.setitem(
                callers_side.ASIDE, kind, lambda note, heard=heard, kind=kind: (self.kinds.append(kind), heard(note))
            )


@pytest.mark.parametrize("start", STARTS)
def test_what_a_logger_does_not_want_costs_no_message(start, monkeypatch):
    spy = Spy(monkeypatch)
    log.setLevel(logging.WARNING)
    try:
        list(line(tell)(range(20), how="line", workers=2, start=start))
        logging.disable(logging.CRITICAL)
        list(line(lambda n: log.critical("no"))(range(20), how="line", workers=2, start=start))
    finally:
        logging.disable(logging.NOTSET)
        log.setLevel(logging.NOTSET)
    assert not spy.kinds


def failing(n):
    try:
        return 1 // n
    except ZeroDivisionError:
        log.exception("cannot divide by %s, holding %s", n, threading.Lock(), extra={"lock": threading.Lock()})
        return 0


def test_a_log_record_goes_whole_and_what_cannot_be_pickled_goes_as_text(caplog):
    list(line(failing)([0], how="line", workers=1))
    (record,) = caplog.records
    assert record.getMessage().startswith("cannot divide by 0, holding <unlocked _thread.lock object")
    assert record.lock.startswith("<unlocked _thread.lock object")
    assert record.exc_info[0] is ZeroDivisionError
    assert "return 1 // n" in caplog.text


def test_log_records_sent_before_a_death_arrive(caplog):
    def last_words(n):
        log.warning("about to end at %d", n)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDied):
        list(line(step(last_words, name="end"))([7], how="line", workers=1))
    assert {(each.getMessage(), each.taktline_step) for each in caplog.records} == {("about to end at 7", "end")}


class Closing:
    def __init__(self):
        log.warning("building")

    def __call__(self, n):
        return n

    def close(self):
        print("closing for standard output")
        log.warning("closing")


def test_log_records_of_building_and_closing_arrive(caplog, capsys):
    assert list(line(per_worker(Closing))(range(3), how="line", workers=1)) == [0, 1, 2]
    assert [each.getMessage() for each in caplog.records] == ["building", "closing"]
    assert caplog.records[0].taktline_step == "Closing"
    assert capsys.readouterr().out == "closing for standard output\n"


def test_handlers_and_filters_of_the_callers_logger_decide():
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    handler = Handler(level=logging.WARNING)
    quiet = logging.getLogger("quiet.and.apart")
    quiet.propagate = False
    quiet.addHandler(handler)
    quiet.addFilter(lambda record: "secret" not in record.getMessage())

    def talk(n):
        logger = logging.getLogger("quiet.and.apart")
        logger.info("low")
        logger.warning("heard")
        logger.warning("secret")

    list(line(talk)([1], how="line", workers=1))
    assert seen == ["heard"]


@pytest.mark.parametrize("start", STARTS)
def test_log_records_of_a_line_inside_a_step_reach_the_outer_caller(start, caplog):
    def nested(n):
        return list(line(failing)([n], how="line", workers=1, start=start))

    list(line(nested)([0], how="line", workers=1, start=start))
    (record,) = caplog.records
    assert (record.taktline_step, record.exc_info[0]) == ("failing", ZeroDivisionError)


def test_finalisers_that_speak_in_the_middle_of_sending_do_no_harm(caplog):
    class Cyclic:
        def __init__(self):
            self.me = self

        def __del__(self):
            print("finalised")
            log.warning("finalised")

    def litter(n):
        import gc

        gc.set_threshold(1)  # so that finalisers run at any time
        Cyclic()
        return bytes(n)

    sizes = [10, 100_000, 3_000_000] * 20
    assert [len(each) for each in line(litter)(sizes, how="line", workers=2, batch_size=2)] == sizes
    assert caplog.records


@pytest.mark.parametrize("start", STARTS)
def test_a_process_that_a_step_forks_does_not_speak_on_its_workers_channel(start):
    done = python(f"""
        import logging, os
        from taktline import line
        def forks(n):
            pid = os.fork()
            if pid == 0:
                for _ in range(50):
                    print("child of", n)
                    logging.warning("child of %d", n)
                raise SystemExit(5)
            os.waitpid(pid, 0)
            return n
        assert list(line(forks)(range(20), how="line", workers=2, start={start!r})) == list(range(20))
    """)
    assert done.returncode == 0, done.stderr


# --- warnings ---


class OldWay(UserWarning):
    pass


def old(n):
    warnings.warn("the old way", OldWay)
    return n


@pytest.mark.parametrize(("how", "start"), WAYS)
@pytest.mark.parametrize(("action", "times"), [("default", 1), ("once", 1), ("always", 30), ("ignore", 0)])
def test_a_warning_is_shown_as_often_as_in_the_loop(how, start, action, times):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)
        list(line(old)(range(30), how=how, workers=3, batch_size=2, start=start))
    # A fork that is not safe beside what other tests have loaded here has a warning of its own.
    assert [(str(each.message), each.category, each.filename) for each in shown if each.category is OldWay] == [
        ("the old way", OldWay, __file__)
    ] * times


@pytest.mark.parametrize(("how", "start"), WAYS)
def test_a_warning_that_the_callers_filters_make_an_error_fails_its_record(how, start):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the old", OldWay, module=__name__.replace(".", r"\."))
        run = line(old)(range(3), how=how, workers=2, start=start, on_error="keep")
        assert [(each.index, type(each.error)) for each in run] == [(n, OldWay) for n in range(3)]
        with pytest.raises(OldWay, match="the old way") as caught:
            list(line(old)(range(3), how=how, workers=2, start=start))
    assert "at record 0 in step 'old'" in caught.value.__notes__[0]


@pytest.mark.parametrize("how", ["loop", "line"])
def test_warnings_can_be_waited_for(how):
    with pytest.warns(OldWay, match="the old way"):
        list(line(old)(range(30), how=how, workers=2))


def test_a_filter_does_not_load_a_module_and_holds_once_a_step_does(tmp_path, monkeypatch):
    (tmp_path / "rarely_loaded.py").write_text("class Rare(UserWarning): pass\nclass Rarer(Rare): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import rarely_loaded

    def loads(n):
        before = "rarely_loaded" in sys.modules
        import rarely_loaded

        try:
            warnings.warn("rare", rarely_loaded.Rarer)
        except rarely_loaded.Rare:
            return before

    with warnings.catch_warnings():
        warnings.simplefilter("error", rarely_loaded.Rare)
        assert list(line(loads)([1, 2], how="line", workers=1, start="launch")) == [False, True]


def test_a_warning_is_ignored_where_the_callers_filters_say_so_and_costs_no_message(monkeypatch):
    spy = Spy(monkeypatch)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=OldWay)
        list(line(old)(range(30), how="line", workers=2))
    assert not shown
    assert not spy.kinds


@pytest.mark.parametrize("where", ["-c", "file"])
def test_a_script_shows_a_warning_once_with_its_line(where, tmp_path):
    code = """\
import warnings
from taktline import line
def old(n):
    warnings.warn("gone soon", DeprecationWarning)
    return n
for _ in range(2):
    list(line(old)(range(10), how="line", workers=2, batch_size=1))
"""
    path = tmp_path / "script.py"
    path.write_text(code)
    command = [sys.executable, "-c", code] if where == "-c" else [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.count("DeprecationWarning: gone soon") == 1, done.stderr
    assert ":4:" in done.stderr


# --- random numbers ---


def draw(n):
    return n, random.random(), float(np.random.rand()), random.getrandbits(32)


@pytest.mark.parametrize(("how", "start"), WITH_WORKERS)
def test_random_numbers_differ_between_workers(how, start):
    random.seed(1)
    np.random.seed(1)
    drawn = list(line(draw)(range(40), how=how, workers=3, batch_size=1, start=start))
    assert len({each[1] for each in drawn}) == len({each[2] for each in drawn}) == 40


def twice(n):
    for _ in range(2):
        yield n, random.random()


def share(pair):
    return [(*pair, random.random(), float(np.random.rand())) for _ in range(random.choice((0, 1, 3)))]


RANDOM = line(draw, serial(lambda drawn: (*drawn, random.random())), expand(twice), expand(share))


PLANS = [
    {"how": "pool", "start": "fork"}, {"how": "queues", "start": "fork"}, {"how": "line", "batch_size": 7},
    {"how": "auto"}, {"how": "line", "start": "fork", "on_error": "skip"}, {"how": "loop", "on_error": "skip"},
]  # fmt: skip


def test_a_seed_makes_every_technique_draw_the_same_numbers_for_a_record():
    first = list(RANDOM(range(50), how="loop", seed=3))
    for plan in PLANS:
        assert list(RANDOM(range(50), workers=2, seed=3, **plan)) == first, plan
    assert len({each[2] for each in first}) == len({each[3] for each in first}) == len(first)
    assert list(RANDOM(range(50), how="loop", seed=4)) != first


def test_a_seed_holds_over_a_failure_and_a_death():
    def deadly(n):
        if n == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        if n == 23:
            raise ValueError(random.random())
        return n

    kept = list(line(deadly, draw)(range(40), how="line", workers=2, batch_size=6, on_error="keep", seed=3))
    assert [each for each in kept if not isinstance(each, Failed)] == [
        each for each in line(abs, draw)(range(40), how="loop", seed=3) if each[0] not in (17, 23)
    ]
    with pytest.raises(ValueError) as caught:
        list(line(deadly)([23] * 24, how="loop", seed=3))
    assert caught.value.args != kept[23].error.args  # another index, other numbers


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_seed_holds_over_a_resumed_run(how, tmp_path):
    options = {"how": how, "workers": 2, "seed": 5, "journal": tmp_path / "j"}
    with line(draw)(range(30), **options) as run:
        begun = [next(run) for _ in range(10)]
    resumed = list(line(draw)(range(30), **options))
    assert begun[:9] + resumed == list(line(draw)(range(30), how="loop", seed=5))


def test_a_seed_of_a_batch_step_is_that_of_its_first_record():
    def drawing(ns):
        return [(n == ns[0], random.random()) for n in ns]

    alone = list(line(batch(drawing, size=1))(range(40), how="loop", seed=9))
    together = list(line(batch(drawing, size=4))(range(40), how="line", workers=2, batch_size=8, seed=9))
    first = [n for n, (is_first, _) in enumerate(together) if is_first]
    assert len(first) < len(together)
    assert [together[n] for n in first] == [alone[n] for n in first]


def test_a_seed_leaves_the_callers_own_random_numbers_alone():
    random.seed(5)
    np.random.seed(5)
    undisturbed = random.random(), float(np.random.rand())
    random.seed(5)
    np.random.seed(5)
    for _ in line(draw)(range(3), how="loop", seed=3):
        pass
    assert (random.random(), float(np.random.rand())) == undisturbed


# --- threads of numeric libraries ---


def caps(_):
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, ("1", "1", "1")),
        ({"OMP_NUM_THREADS": "3"}, ("3", None, None)),  # the others follow it
        ({"MKL_NUM_THREADS": "2"}, ("1", "1", "2")),
    ],
)
def test_numeric_libraries_get_one_thread_unless_the_user_says_otherwise(own, found, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    for start in STARTS:
        assert set(line(caps)(range(4), how="line", workers=1, start=start)) == {found}


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, "33554432"),
        ({"MALLOC_TOP_PAD_": "1000000"}, None),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, None),
    ],
)
def test_workers_keep_memory_at_hand_unless_the_user_says_otherwise(own, found, monkeypatch):
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    flow = line(lambda _: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
    assert list(flow([0], how="line", workers=1, start="launch")) == [found]
