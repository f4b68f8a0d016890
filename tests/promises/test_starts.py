"""Promise: workers are forked where that is shown to be safe and launched elsewhere, and the answer is the loop's in both.

Each case is a program of its own, since it is about who else runs in a process and what is open there.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BEGIN = """
import os, signal, sys, threading, warnings
import taktline
from taktline import line, per_worker, step, batch
def how_it_started(flow, records=range(64), **options):
    records = list(records)
    run = flow(records, **{"how": "line", "workers": 2, **options})
    results = list(run)
    assert results == list(flow(records, how="loop")), results
    return run.report.reasons[-1]
"""


def says(code: str, folder: Path | None = None, **settings: object) -> list[str]:
    """What the code prints; it must end well and say nothing on standard error."""
    command = [sys.executable, "-c", BEGIN + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, **settings)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# --- which way ---


def test_plain_steps_are_forked_with_the_callers_settings_hashes_and_look_ups():
    code = """
        import decimal
        class Large(dict):
            def __reduce__(self):
                raise AssertionError("it was pickled")
        look_up = Large({str(n): n for n in range(100_000)})
        decimal.getcontext().prec = 6
        def priced(n):
            return look_up[str(n)], str(decimal.Decimal(n) / 7), hash("a string"), list({"b", "a", "c", "d"})
        print(how_it_started(line(priced)))
    """
    assert says(code)[0].startswith("workers are forked: ")


SHOP = """
import functools, queue, random, socket, sqlite3, sys, threading
left, right = socket.socketpair() if {thing!r} == "socket" else (None, None)
things = {{
    "socket": left,
    "connection": sqlite3.connect(":memory:"),
    "file": open(__file__),
    "lock": threading.Lock(),
    "queue": queue.Queue(),
    "under way": (n for n in range(3)),
}}
thing = things[{thing!r}]
del things
"""
WAYS = {  # by which way of names the step gets at shop.thing
    "a name": "def look(n): return thing is not None and n + 1",
    "a helper's name": "def helper(): return thing\ndef look(n): return helper() is not None and n + 1",
    "a default": "def look(n, held=thing): return n + 1",
    "a bound method": (
        "class Kept:\n"
        "    def __init__(self): self.held = [{'it': thing}]\n"
        "    def look(self, n): return n + 1\n"
        "kept = Kept()\n"
        "def look(n): return kept.look(n)"
    ),
    "a class": (
        "class Kept:\n    held = thing\n    @staticmethod\n    def look(n): return Kept.held and n + 1\nlook = Kept.look"
    ),
    "a decorator": (
        "def held(function):\n"
        "    @functools.wraps(function)\n"
        "    def around(n):\n"
        "        return function(n) if thing is not None else 0\n"
        "    return around\n"
        "@held\n"
        "def look(n): return n + 1"
    ),
    "a module": "def look(n):\n    import shop\n    return shop.thing is not None and n + 1",
    "a lambda in a table": "table = {'look': lambda n: thing is not None and n + 1}\ndef look(n): return table['look'](n)",
}


@pytest.mark.parametrize("thing", ["socket", "connection", "file", "lock", "queue", "under way"])
def test_what_two_processes_must_not_share_is_launched_beside(thing, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP.format(thing=thing) + WAYS["a name"])
    (told,) = says("import shop\nprint(how_it_started(line(shop.look)))", tmp_path)
    assert told.startswith("workers are launched: ")
    assert "must not share" in told


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_by_every_way_of_names(way, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP.format(thing="lock") + WAYS[way])
    (told,) = says("import shop\nprint(how_it_started(line(shop.look)))", tmp_path)
    assert "is a lock, which two processes must not share" in told


def test_what_the_steps_do_not_reach_is_in_nobodys_way(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP.format(thing="file") + "def look(n): return n + 1")
    (told,) = says("import shop\nrows = open('shop.py')\nprint(how_it_started(line(shop.look)))", tmp_path)
    assert told.startswith("workers are forked: ")


HARMLESS = """
import abc, collections, contextvars, dataclasses, enum, functools, json, logging, random, re, struct, sys, types, weakref
log = logging.getLogger(__name__)
logging.basicConfig(level=logging.ERROR)
HEAD, WORD, DECODER = struct.Struct("<I"), re.compile("a"), json.JSONDecoder()
LIMITS, NOW = types.MappingProxyType({"most": 3}), contextvars.ContextVar("now")
OUT, TELL = sys.stdout, print
Point = collections.namedtuple("Point", "x y")
@dataclasses.dataclass
class Row:
    n: int
    @functools.cached_property
    def twice(self): return 2 * self.n
class Kind(enum.Enum):
    PLAIN = 1
class Base(abc.ABC):
    @abc.abstractmethod
    def look(self, n): ...
class Looks(Base):
    __slots__ = ("seen",)
    def __init__(self): self.seen = collections.deque([Point(1, 2)])
    def look(self, n):
        log.debug("record %d", n)
        return HEAD.size + len(WORD.pattern) + LIMITS["most"] + DECODER.decode("1") + Row(n).twice + Kind.PLAIN.value
looks = Looks()
referred = weakref.ref(looks)
@functools.lru_cache
def look(n):
    NOW, OUT, TELL, sys.stderr
    return referred().look(n)
"""


def test_what_is_usual_in_a_module_is_in_nobodys_way(tmp_path):
    (tmp_path / "shop.py").write_text(HARMLESS)
    (told,) = says("import shop\nprint(how_it_started(line(shop.look, shop.looks.look)))", tmp_path)
    assert told.startswith("workers are forked: ")


BESIDE = {
    "a thread": ("threading.Thread(target=threading.Event().wait, args=(60,), daemon=True, name='mine').start()", "'mine'"),
    "a raw thread": ("import _thread, time; _thread.start_new_thread(time.sleep, (60,))", "thread"),
    "a run in a thread": ("", "'MainThread'"),
    "an asyncio loop": ("import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())", "socket"),
    "Polars, used": ("import polars; polars.DataFrame({'a': [1, 2]}).lazy().select('a').collect()", "Polars"),
    "Arrow, used": ("import pyarrow; pyarrow.table({'a': [1, 2]}).group_by('a').aggregate([])", "pyarrow"),
    "a gRPC channel": (
        "import grpc; channel = grpc.insecure_channel('localhost:1'); future = grpc.channel_ready_future(channel)", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("beside", BESIDE)
def test_workers_are_launched_beside(beside):
    code, word = BESIDE[beside]
    ask = "print(how_it_started(line(lambda n: n + 1)), flush=True)"
    if beside == "a run in a thread":
        code, ask = f"def ask(): {ask}", "t = threading.Thread(target=ask); t.start(); t.join()"
    told, *rest = says(f"{code}\n{ask}\nprint('ended', flush=True); os._exit(0)")
    assert told.startswith("workers are launched: ")
    assert word in told
    assert rest == ["ended"]


@pytest.mark.parametrize("name", ["numpy", "scipy.linalg"])
def test_a_pool_of_openblas_is_no_obstacle_and_each_worker_has_one_thread(name):
    if name == "scipy.linalg":
        pytest.importorskip("scipy")
    code = f"""
        import importlib, numpy as np
        library = importlib.import_module({name!r})
        square = np.random.default_rng(1).random((300, 300))
        multiply = (lambda n: square @ square) if {name!r} == "numpy" else (lambda n: library.blas.dgemm(1.0, square, square))
        multiply(0)
        def threads(n):
            from threadpoolctl import threadpool_info
            multiply(n)
            return max(each["num_threads"] for each in threadpool_info()), len(os.listdir("/proc/self/task"))
        for start in ("auto", "fork"):
            run = line(threads)(range(8), how="line", workers=2, start=start)
            print(set(run), run.report.reasons[-1:])
        multiply(0)
    """
    pytest.importorskip("threadpoolctl")
    auto, fork = says(code)
    assert auto.startswith("{(1, 1)} ('workers are forked: ")
    assert fork == "{(1, 1)} ()"
    assert (
        says(code.replace("import importlib", "os.environ['OMP_NUM_THREADS'] = '2'\n        import importlib"))[1][:3]
        != "{(1"
    )


def test_memory_that_a_step_frees_stays_at_hand_in_forked_workers():
    code = """
        import resource
        def faults(n):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(100):
                a, b = bytearray(320_000), bytearray(320_000)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        for start in ("launch", "fork"):
            few = list(line(faults)(range(20), how="line", workers=1, start=start, batch_size=5))[5:]
            print(sum(few) < 15 * 100)  # each array has 79 pages
    """
    assert says(code) == ["True", "True"]


def test_auto_refuses_only_what_launch_refuses():
    code = """
        import sqlite3
        def refused(thing, start):
            try:
                results = list(line(lambda n: (n, thing is None))(range(9), how="line", workers=2, start=start))
            except taktline.LineError as error:
                return "cannot be carried over" in str(error)
            return results
        for thing in (threading.Lock(), sqlite3.connect(":memory:"), open("/dev/null", "w"), (n for n in range(9))):
            print(refused(thing, "auto"), refused(thing, "launch"), len(refused(thing, "fork")))
    """
    assert says(code) == ["True True 9"] * 4


def test_a_thread_that_is_started_between_the_making_of_a_run_and_its_first_result_is_seen():
    code = """
        run = line(abs)(range(-9, 0), how="line", workers=2)
        threading.Thread(target=threading.Event().wait, daemon=True, name="late").start()
        print(list(run) == list(range(9, 0, -1)), run.report.reasons[-1])
    """
    assert says(code)[0].startswith("True workers are launched: the thread 'late'")


def test_a_fork_that_is_not_safe_is_warned_of_and_named_where_nothing_moves():
    code = """
        import polars
        polars.DataFrame({"a": range(1000)}).lazy().group_by("a").agg(polars.len()).collect()
        def uses(n):
            return polars.DataFrame({"a": range(1000)}).lazy().group_by("a").agg(polars.len()).collect().height
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                print(list(line(uses)(range(4), how="line", workers=2, start="fork", stall=2)))
            except taktline.Stalled as error:
                print("most likely that workers were forked" in str(error) and "Polars" in str(error))
        print([str(each.message) for each in seen if each.category is RuntimeWarning])
    """
    stalled, warned = says(code)
    assert stalled == "True"
    assert 'start="fork" is not safe here' in warned
    assert "Polars" in warned


# --- as good as launched ---


GENERATORS = {
    "numpy's": "import numpy as np\ndraw = np.random.random",
    "numpy's, with another bit generator": (
        "import numpy as np\nnp.random.set_bit_generator(np.random.PCG64(1))\ndraw = np.random.random"
    ),
    "random's": "import random\ndraw = random.random",
    "a Generator": "import numpy as np\nrng = np.random.default_rng()\ndef draw(): return rng.random()",
    "a Generator with a seed": "import numpy as np\nrng = np.random.default_rng(7)\ndef draw(): return rng.random()",
    "what a Generator spawns": (
        "import numpy as np\nrng = np.random.default_rng()\ndef draw(): return rng.spawn(1)[0].random()"
    ),
    "a SeedSequence": (
        "import numpy as np\nseeds = np.random.SeedSequence()\n"
        "def draw(): return np.random.default_rng(seeds.spawn(1)[0]).random()"
    ),
    "a RandomState that has drawn": (
        "import numpy as np\nrng = np.random.RandomState()\nrng.standard_normal()\ndef draw(): return rng.standard_normal()"
    ),
    "a Random in a closure": (
        "import random\ndef made():\n    r = random.Random()\n    return lambda: r.random()\ndraw = made()"
    ),
    "a Random's bound method in a partial": (
        "import functools, random\ndraw = functools.partial(random.Random(3).uniform, 0, 1)"
    ),
    "one of an installed package": (
        "import sys, types, random\nexec(compile('import random\\nr = random.Random()\\ndef draw(): return r.random()', "
        "'/x/site-packages/faker.py', 'exec'))"
    ),
    "one that the collector does not look at": (
        "import gc, random\nr = random.Random()\ngc.freeze()\ndef draw(): return r.random()"
    ),
    "an object's, with a seed": (
        "import random\nclass Dice:\n    def __init__(self): self.r = random.Random(3)\n"
        "    def __call__(self): return self.r.random()\ndraw = Dice()"
    ),
    "one that an imported file seeds": "from dice import draw",
}


@pytest.mark.parametrize("start", ["fork", "launch"])
@pytest.mark.parametrize("which", GENERATORS)
def test_no_two_workers_draw_the_same_numbers_also_those_that_come_later(which, start, tmp_path):
    (tmp_path / "dice.py").write_text(
        "import random\nrandom.seed(5)\nr = random.Random(3)\ndef draw(): return r.random() + random.random()\n"
    )
    code = f"""
        exec({GENERATORS[which]!r})
        def drawn(n):
            if n in (20, 40):  # twice, so that nobody is condemned: another worker takes its place
                path = f"{{folder}}/{{n}}"
                if not os.path.exists(path):
                    open(path, "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
            return os.getpid(), draw()
        import tempfile
        for workers in (1, 2):  # of two the other one may do all that is left before a third has started
            with tempfile.TemporaryDirectory() as folder:
                results = list(line(drawn)(range(60), how="line", workers=workers, start={start!r}, batch_size=5))
            print(len({{pid for pid, _ in results}}) > 2 or workers == 2, len({{number for _, number in results}}))
    """
    assert says(code, tmp_path) == ["True 60", "True 60"]


@pytest.mark.parametrize(
    "kind", ["default_rng(7)", "RandomState(7)", "Generator(np.random.MT19937(7))", "PCG64(7)", "SeedSequence(7)"]
)
def test_numpys_generators_are_no_reason_not_to_fork(kind):
    code = f"""
        import numpy as np
        rng = np.random.{kind}
        run = line(lambda n: (n, rng)[0])(range(60), how="line", workers=2)
        print(list(run) == [*range(60)], run.report.reasons[-1][:18])
    """
    assert says(code) == ["True workers are forked"]


def test_a_worker_that_comes_later_has_the_surroundings_of_the_start(tmp_path):
    (tmp_path / "pricing.py").write_text("VAT = 0\n")
    code = """
        import pricing
        pricing.VAT = 19
        def priced(n):
            if n == 500 and not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return os.getpid(), pricing.VAT
        run = line(priced)(range(1000), how="line", workers=2, start="auto", batch_size=10, window=100)
        results = [next(run)]
        pricing.VAT = 7
        results += run
        print(len({pid for pid, _ in results}) > 1, {vat for _, vat in results}, run.report.reasons[-1][:18])
    """
    assert says(code, tmp_path) == ["True {19} workers are forked"]


@pytest.mark.parametrize("how", ["SIGKILL to it", "SIGKILL to all"])
def test_workers_are_replaced_also_when_the_process_that_they_come_from_is_killed(how, tmp_path):
    code = f"""
        def look(n):
            if n == 500 and not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL) if {how!r} == "SIGKILL to all" else None
            return n
        run = line(look)(range(1000), how="line", workers=2, start="auto", batch_size=10)
        print(list(run) == list(range(1000)))
    """
    assert says(code, tmp_path) == ["True"]


def test_no_worker_has_a_socket_of_anothers():
    code = """
        def sockets(n):
            found = 0
            for descriptor in os.listdir("/proc/self/fd"):
                try:
                    found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
                except OSError:
                    pass
            return os.getpid(), found
        with line(abs)(range(10**9), how="line", workers=2, start="fork") as other:
            next(other)
            results = set(line(sockets)(range(60), how="line", workers=3, start="fork", batch_size=1))
        print(len(results), {found for _, found in results})
    """
    (told,) = says(code)
    assert told.endswith(" {1}")


def test_who_reads_a_pipe_of_the_callers_does_not_wait_for_workers():
    code = """
        import subprocess
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        reading, writing = os.pipe()
        def writes(n):
            try:
                return os.write(writing, b"x")
            except OSError as error:
                return error.strerror
        run = line(writes)(range(100_000), how="line", workers=2, window=100)
        print(next(run))
        child.stdin.close()
        print(child.wait(), run.report.reasons[-1][:18])
        run.close()
    """
    assert says(code) == ["Bad file descriptor", "0 workers are forked"]


def test_what_the_caller_has_not_yet_written_comes_once_and_what_it_does_at_its_end_is_done_once():
    code = """
        import atexit
        sys.stdout.write("first ")
        atexit.register(print, "last")
        list(line(abs)(range(9), how="line", workers=2, start="fork"))
        print("second")
    """
    assert says(code) == ["first second", "last"]


def test_a_run_that_begins_while_python_ends_is_refused_in_a_sentence():
    code = """
        class Last:
            def __del__(self):
                for run in (lambda: line(abs).run([-1]), lambda: list(line(abs)([-1]))):
                    try:
                        run()
                    except Exception as error:
                        print(error)
        last = Last()
    """
    assert (
        says(code)
        == ["Python ends, so no run can begin any more, as in a __del__: close in a with block, or by atexit"] * 2
    )


def test_a_signal_to_the_whole_group_is_the_callers_alone():
    code = """
        heard = []
        signal.signal(signal.SIGHUP, lambda *_: heard.append(os.getpid()))
        os.setpgid(0, 0)
        def look(n):
            if n == 50:
                os.killpg(0, signal.SIGINT)
            return n
        got = []
        try:
            for result in line(look)(range(100_000), how="line", workers=2, start="fork", batch_size=10):
                got.append(result)
        except KeyboardInterrupt:
            print("interrupted", got == list(range(len(got))))
    """
    assert says(code) == ["interrupted True"]


def test_jemallocs_threads_bear_forks_under_load():
    code = """
        import pandas as pd
        def busy(n):
            frame = pd.DataFrame({"text": [f"{n} {k}" for k in range(400)], "n": range(400)})
            frame["text"] = frame["text"].str.upper() + "x"
            return len(frame.groupby("text").sum()), int(frame["n"].sum())
        list(map(busy, range(20)))
        told = {how_it_started(line(busy), range(48), workers=4, batch_size=2) for _ in range(6)}
        print(told)
    """
    (told,) = says(code)
    assert told.startswith("{'workers are forked: ")


def test_what_stands_among_the_modules_and_is_none_is_in_nobodys_way():
    code = """
        class Library:
            __slots__ = ()
            __class__ = type(sys)
        sys.modules["library"] = Library()
        for start in ("launch", "auto"):
            print(list(line(abs)(range(-3, 0), how="line", workers=1, start=start)))
    """
    assert says(code) == ["[3, 2, 1]"] * 2
