"""Promise: launched workers find in modules, settings and context variables what the caller has there, or it is named."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import decimal
import importlib
import json
import os
import subprocess
import sys
import textwrap
import warnings
from types import ModuleType
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest

from taktline import line, step
from taktline._crew import module_digests, modules

LAUNCHED = {"how": "line", "workers": 1, "start": "launch"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module of the user's, or of an installed package, from its source, and imports it."""
    folders = {False: tmp_path, True: tmp_path / "site-packages"}
    before = set(sys.modules)
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(folder)

    def make(name: str, source: str, *, installed: bool = False) -> ModuleType:
        file = folders[installed].joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for name in sys.modules.keys() - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# What a module holds; what is done to it at run time; and what a step sees of it.
CASES = {
    "a number": ("VAT = 0.0", "m.VAT = 0.19", "VAT"),
    "a type beside an equal value": ("ONE = 1", "m.ONE = True", "repr(ONE)"),
    "a long number": ("N = 0", "m.N = 1 << 40_000", "N"),
    "a deleted name": ("VAT = 1", "del m.VAT", "'VAT' in globals()"),
    "a new name": ("", "m.VAT = 7", "VAT"),
    "a list that others hold": ("A = []\nB = A", "m.A.append(1)", "(A, B, A is B)"),
    "a name that got another list": ("A = [1]\nB = A", "m.A = [2]", "(A, B)"),
    "a second name that got another": ("A = [1]\nB = A", "m.B = [2]", "(A, B)"),
    "two that became one": ("A = [1]\nB = [1]", "m.B = m.A", "A is B"),
    "a set of texts": ("S = {'a'}", "m.S |= set('bcdefgh')", "sorted(S)"),
    "the order of a dict": ("D = {'a': 1, 'b': 2}", "m.D['a'] = m.D.pop('a')", "list(D)"),
    "one of many entries": ("D = {str(n): n for n in range(100_000)}", "m.D['99'] = 0", "(sum(D.values()), len(D))"),
    "a counter": ("from collections import Counter\nC = Counter()", "m.C['x'] += 1", "dict(C)"),
    "a class attribute": ("class K:\n    rate = 1", "m.K.rate = 2", "K().rate"),
    "an attribute of a nested class": ("class K:\n  class Meta:\n    x = []", "m.K.Meta.x.append(1)", "K.Meta.x"),
    "a method": ("class K:\n    def f(self): return 1", "m.K.f = lambda self: 2", "K().f()"),
    "a function": ("def f(): return 1", "m.f = lambda: 2", "f()"),
    "a function that looks the same": (
        "def f(): return 1",
        "import functools\nm.f = functools.wraps(m.f)(lambda: 2)",
        "f()",
    ),
    "an attribute of a function": ("def f(): return f.rate\nf.rate = 1", "m.f.rate = 2", "f()"),
    "a table of functions": ("T = {'a': abs, 'b': lambda: 1}", "m.T['c'] = lambda: 3", "(T['b'](), T['c']())"),
    "an order of functions": ("def f(): return 1\ndef g(): return 2\nT = [f, g]", "m.T.reverse()", "[t() for t in T]"),
    "a settings object": (
        "class C:\n    def __init__(self): self.vat = 0; self.db = {'host': 'a'}\nC = C()\nDB = C.db",
        "m.C.vat = 3\nm.C.db['host'] = 'b'\ndel m.C.db['host']\nm.C.db['x'] = 1",
        "(C.vat, DB, DB is C.db)",
    ),
    "a settings object with a lock": (
        "import threading\nclass C:\n    def __init__(self): self.lock = threading.Lock(); self.n = 0\nC = C()",
        "m.C.n = 3",
        "(C.n, C.lock.acquire(False), C.lock.release())[0]",
    ),
    "a dataclass": (
        "from dataclasses import *\n@dataclass\nclass C:\n  n: int = 0\n  l: list = field(default_factory=list)\nC = C()",
        "m.C.n = 3\nm.C.l.append(1)",
        "(C.n, C.l)",
    ),
    "a frozen dataclass with slots": (
        "from dataclasses import dataclass\n@dataclass(frozen=True, slots=True)\nclass C:\n    n: int = 0\nc = C()\nd = c",
        "object.__setattr__(m.c, 'n', 5)",
        "(c.n, d.n)",
    ),
    "a namespace": (
        "from types import SimpleNamespace as S\nN = S(a=1, b=S(c=2))\nB = N.b",
        "m.N.a = 5\nm.N.b.c = 6",
        "(N.a, B.c)",
    ),
    "arguments": ("import argparse\nA = argparse.Namespace()", "m.A.level = 3", "A.level"),
    "an array": ("import numpy as np\nA = np.zeros(30_000)\nV = A[:5]", "m.A[3] = 7", "(float(A.sum()), float(V[3]))"),
    "a table": ("import pandas as pd\nT = pd.DataFrame({'a': [1]})", "m.T.loc[0, 'a'] = 9", "int(T['a'].sum())"),
    "a decimal": ("from decimal import Decimal\nD = Decimal(1)", "m.D = Decimal('0.19')", "str(D)"),
    "a member of an enum": ("import enum\nclass E(enum.Enum):\n  a = 1\n  b = 2\nX = E.a", "m.X = m.E.b", "X is E.b"),
    "a compiled pattern": ("import re\nP = re.compile('a')", "m.P = m.re.compile('b')", "P.pattern"),
    "an object that holds itself": ("L = []", "m.L.append(m.L)", "L[0] is L"),
    "an object in two places": (
        "class O: x = 0\nO = O()\nL = [O]",
        "m.O.x = 4\nm.L.append(m.O)",
        "(L[0].x, L[1] is O)",
    ),
    "one that left a list": (
        "class O:\n  def __init__(s, x): s.x = x\nA = O(1)\nB = O(2)\nL = [A, B]",
        "del m.L[0]",
        "(A.x, [o.x for o in L], L[0] is B)",
    ),
    "what belongs to a thread": ("import threading\nL = threading.local()", "m.L.user = 1", "getattr(L, 'user', 0)"),
    "an object that says what is pickled": (
        "import threading\nclass C:\n  def __init__(s): s.n = 1; s.lock = threading.Lock()\n"
        "  def __getstate__(s): return {'n': s.n}\n  def __setstate__(s, d): s.n = d['n']; s.lock = threading.Lock()\n"
        "A = C()\nB = A",
        "m.A.n = 2",
        "(A.n, B.n, A is B, A.lock.locked())",
    ),
    "an object that says how it is made": (
        "class C:\n  def __init__(s, n): s.n = n\n  def __reduce__(s): return C, (s.n,)\nA = C(1)\nB = A",
        "m.A.n = 2",
        "(A.n, B.n, A is B)",
    ),
    "private slots": (
        "class C:\n  __slots__ = ('__x',)\n  def __init__(s): s.__x = 1\n"
        "  def x(s): return s.__x\n  def to(s, x): s.__x = x\nc = C()",
        "m.c.to(5)",
        "c.x()",
    ),
    "a class with a metaclass that minds": (
        "class M(type):\n  def __setattr__(c, n, v): raise AttributeError\nclass C(metaclass=M): x = 1",
        "type.__setattr__(m.C, 'x', 2)",
        "C.x",
    ),
    "a dict of one's own class": (
        "class C(dict):\n  __getattr__ = dict.__getitem__\nc = C(a=1)\nd = c",
        "m.c['a'] = 2",
        "(c.a, d is c)",
    ),
    "settings of an installed package's object": (
        "import flask, requests\napp = flask.Flask('x')\ns = requests.Session()",
        "m.app.config['VAT'] = 0.19\nm.s.headers['X'] = 'y'",
        "(app.config.get('VAT'), s.headers.get('X'))",
    ),
    "a mock": ("def f(): return 1", "from unittest.mock import MagicMock\nm.f = MagicMock(return_value=3)", "f()"),
    "a class in another's place": (
        "from datetime import date\ndef f(): return date.today()",
        "m.date = type('D', (), {'today': lambda: 4})",
        "f()",
    ),
    "a memo": ("import functools\n@functools.cache\ndef f(n): return n", "m.f(1)", "f(2)"),
    "a flag and a connection of its own": (
        "import threading\nc = None\nready = False\ndef get():\n    global c, ready\n"
        "    if not ready: c = threading.Lock(); ready = True\n    return c",
        "m.get()",
        "get().locked()",
    ),
    "a class that keeps its one object": (
        "import threading\nclass C:\n    one = None\n    @classmethod\n    def get(cls):\n"
        "        if cls.one is None: cls.one = cls()\n        return cls.one\n"
        "    def __init__(self): self.lock = threading.Lock(); self.n = 1",
        "m.C.get()",
        "(C.get().n, C.get().lock.locked())",
    ),
    "defaults": (
        "def f(x=1, *, y=2): return x, y\nclass K:\n  @staticmethod\n  def f(x=[1], y=len): return x, y('ab')\nG = f, K.f",
        "m.f.__defaults__ = (5,)\nm.f.__kwdefaults__['y'] = 6\nm.K.f.__defaults__[0].append(3)",
        "(f(), K.f(), G[0](), G[1]())",
    ),
    "code of a method": ("class K:\n  def f(s): return 1", "m.K.f.__code__ = (lambda s: 2).__code__", "K().f()"),
    "a bound method in a function's place": (
        "class K:\n  def __init__(s): s.n = 1\n  def f(s): return s.n\nk = K()\ndef f(): return 0\ndef g(s): return 0",
        "m.k.n = 3\nm.f, m.g = m.k.f, len",
        "(f(), g('abc'), f.__self__ is k)",
    ),
    "a constructor and other methods of Python's names": (
        "class K:\n  __table__ = 'a'\n  def __init__(s): s.n = 1\n  def __len__(s): return 1",
        "m.K.__init__ = lambda s: setattr(s, 'n', 2)\nm.K.__len__ = lambda s: 3\nm.K.__table__ = 'b'",
        "(K().n, len(K()), K.__table__)",
    ),
    "a setter": (
        "class K:\n  @property\n  def x(s): return s.n\n  @x.setter\n  def x(s, n): s.n = n\n"
        "def f():\n  k = K()\n  k.x = 2\n  return k.x",
        "m.K.x = m.K.x.setter(lambda s, n: setattr(s, 'n', 2 * n))",
        "f()",
    ),
    "attributes that are gone": (
        "class K:\n  x = 1\ndef f(n=1): return n\nf.x = 1",
        "del m.K.x, m.f.x\nm.f.__defaults__ = None",
        "(hasattr(K, 'x'), hasattr(f, 'x'), f.__defaults__)",
    ),
    "other bases": (
        "class A: x = 1\nclass B: x = 2\nclass K(A): pass",
        "m.K.__bases__ = (m.B,)",
        "K.x",
    ),
    "a name with underscores": ("__version__ = '1'", "m.__version__ = '2'", "__version__"),
    "members of an enumeration": (
        "import enum\nclass E(enum.Enum):\n  A = 1\n  B = [2]\n  C = 1\n  def f(s): return 1\nE.A.label, E.table = 'a', {}",
        "m.E.A.label = 'b'\nm.E.B.value.append(3)\nm.E.table['x'] = 4\nm.E.f = lambda s: 5",
        "(E.A.label, E.C.label, E.B.value, E.table, E.A.f(), E.C is E.A)",
    ),
    "what a closure holds": (
        "def make():\n  n, table = 0, {}\n  def inc():\n    nonlocal n\n    n += 1\n    table[n] = n\n    return n\n"
        "  class K:\n    def table(s): return table\n  return inc, K, table\ninc, K, T = make()",
        "m.inc()",
        "(K().table() is T, dict(T), inc())",
    ),
    "decorators that keep something": (
        "import functools\ndef deco(f):\n  options = {'n': 1}\n  @functools.wraps(f)\n  def w(*a):\n    w.calls += 1\n"
        "    return f(*a), options, w.calls\n  w.calls, w.options = 0, options\n  return w\n@deco\ndef f(n=1): return n",
        "m.f()\nm.f.options['n'] = 3\nm.f.__wrapped__.__defaults__ = (4,)",
        "f()",
    ),
    "a method of what only closures hold": (
        "def make():\n  class K:\n    def __init__(s): s.d = {}\n    def put(s, v): s.d['a'] = v\n"
        "    def get(s): return s.d\n  k = K()\n  return k.put, lambda: k.get()\nput, get = make()",
        "m.put(3)",
        "get()",
    ),
    "what stands behind a memo": (
        "import functools\n@functools.lru_cache\ndef f(n=1): return n, f.rate\nf.rate = 1",
        "m.f.rate = 2\nm.f.__wrapped__.__defaults__ = (4,)",
        "f()",
    ),
    "more kinds for a function": (
        "import functools\n@functools.singledispatch\ndef f(n): return 0\n"
        "class K:\n  @functools.singledispatchmethod\n  def g(s, n): return 0",
        "m.f.register(int, lambda n: 5)\nm.K.g.register(int, lambda s, n: 6)\nm.f('a')",
        "(f(1), K().g(1), f(''))",
    ),
    "what an abstract class was told of": (
        "import abc\nclass A(abc.ABC): pass\nclass K: pass",
        "m.A.register(m.K)\nm.A.register(int)",
        "(issubclass(K, A), isinstance(1, A), isinstance('', A))",
    ),
    "context variables wherever they are": (
        "from contextvars import ContextVar as V\nclass K:\n  def __init__(s): s.v = V('v', default=0)\nk = K()\n"
        "d = {'v': V('w')}\ndef make():\n  v = V('x')\n  return v.get, v.set\nget, put = make()\nw, D = V('y'), {}",
        "m.k.v.set(3)\nm.d['v'].set(4)\nm.put(5)\nm.w.set(m.D)\nm.D['a'] = 6",
        "(k.v.get(), d['v'].get(), get(), w.get() is D, w.get())",
    ),
    "an object with locks and their methods": (
        "import queue\nq = queue.Queue()",
        "m.q.put(3)",
        "(q.qsize(), q.not_full.acquire(), q.not_full.release())[0]",
    ),
    "a table by objects": (
        "import weakref\nclass K: pass\nk = K()\nW, V = weakref.WeakKeyDictionary(), weakref.WeakValueDictionary()",
        "m.W[m.k] = 3\nm.V['a'] = m.k",
        "(W.get(k), V.get('a') is k)",
    ),
}
# What is not the user's own is compared as far as the steps name it, and what it keeps for itself is left to it.
OF_PACKAGES = [
    "a number", "a class attribute", "a method", "a function", "a list that others hold", "a settings object", "a dataclass",
    "defaults", "code of a method", "members of an enumeration",
    "what a closure holds", "decorators that keep something", "what stands behind a memo", "more kinds for a function",
]  # fmt: skip


@pytest.mark.parametrize("installed", [False, True], ids=["own modules", "installed ones"])
def test_a_step_sees_in_modules_what_was_done_to_them_at_run_time(module, installed):
    imported = {}
    for n, case in enumerate(OF_PACKAGES if installed else CASES):
        source, change, seen = CASES[case]
        source = f"{source}\ndef look():\n    return {seen}\n"
        made = imported[case] = module(f"case_{n}{'_installed' * installed}", source, installed=installed)
        exec(change, {"m": made, "Decimal": decimal.Decimal})

    def look(case):
        try:
            return imported_here(case)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    names = {case: each.__name__ for case, each in imported.items()}

    def imported_here(case):
        return sys.modules[names[case]].look()

    looks = {case: each.look for case, each in imported.items()}  # the modules are imported with the steps

    def with_all(case):
        assert looks
        return look(case)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        got = dict(zip(looks, line(with_all)(list(looks), **LAUNCHED), strict=True))
    assert got == {case: look(case) for case in looks}


def test_a_function_of_pythons_own_or_of_a_package_that_was_replaced_is_replaced_in_workers(monkeypatch):
    import time

    import requests

    def look(n):
        import json

        return time.time(), requests.get(n), json.dumps(n)

    def look_by_name(n):
        return time.time(), requests.get(n)

    monkeypatch.setattr(time, "time", lambda: 42.0)
    monkeypatch.setattr(requests, "get", lambda url: f"got {url}")
    assert list(line(look_by_name)(["x"], **LAUNCHED)) == [(42.0, "got x")]
    assert list(line(look)(["x"], **LAUNCHED)) == [(42.0, "got x", '"x"')]


class Answering:
    def __init__(self, answer):
        self.answer = answer

    def __call__(self, *_):
        return self.answer


@pytest.mark.parametrize(
    "put", [lambda answer: Mock(return_value=answer), lambda answer: MagicMock(return_value=answer), Answering],
    ids=["Mock", "MagicMock", "an object of one's own"],
)  # fmt: skip
def test_whatever_is_put_in_the_place_of_a_librarys_function_is_there_in_workers(monkeypatch, put):
    def look(n):
        return os.cpu_count(), json.dumps(n), os.path.exists("x"), np.abs(n)

    for target, name in ((os, "cpu_count"), (json, "dumps"), (os.path, "exists"), (np, "abs")):
        monkeypatch.setattr(target, name, put(name))
    assert list(line(look)([1], **LAUNCHED)) == [("cpu_count", "dumps", "exists", "abs")]


def test_copies_in_other_modules_and_packages_are_as_they_are_here(module):
    settings = module("shop.settings", "VAT = 0\nTABLE = {}\n")
    prices = module(
        "shop.prices",
        """
        from shop.settings import VAT, TABLE
        from shop import settings
        def look(n): return (VAT, settings.VAT, TABLE, TABLE is settings.TABLE)
        """,
    )
    settings.VAT = 0.19
    settings.TABLE["a"] = 1
    assert list(line(prices.look)([0], **LAUNCHED)) == [(0, 0.19, {"a": 1}, True)]


def test_a_module_that_a_step_imports_late_is_what_it_is_here(module):
    late = module("imported_late", "RATE = 1\nTABLE = {}")
    late.RATE, late.TABLE["x"] = 5, 6

    def look(n):
        before = "imported_late" in sys.modules
        import imported_late

        return before, imported_late.RATE, imported_late.TABLE

    assert list(line(look)([0], **LAUNCHED)) == [(False, 5, {"x": 6})]


HELD = """
import enum, functools
RATE = 1
def by_default(n=1): return n
def make():
    seen = {}
    return seen.__setitem__, lambda: dict(seen)
put, seen = make()
class K:
    def f(self): return 1
class E(enum.Enum):
    A = 1
E.A.label = "a"
@functools.singledispatch
def kind(n): return "any"
def look(n):
    return RATE, by_default(), seen(), K().f(), E.A.label, kind(n), json.dumps(_("x"))
import json
"""
CHANGES = """
m.RATE, m.by_default.__defaults__, m.E.A.label = {n}, ({n},), {n}
m.put({n}, {n})
m.K.f = lambda self: {n}
m.kind.register(int, lambda _: {n})
json.dumps.__kwdefaults__["indent"] = {n}
builtins._ = lambda text: [{n}, text]
"""


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_all_workers_have_what_was_there_when_the_run_began(module, tmp_path, monkeypatch, start):
    held = module(f"held_{start}", HELD)
    monkeypatch.setitem(json.dumps.__kwdefaults__, "indent", None)
    monkeypatch.setattr(builtins, "_", None, raising=False)
    change = {"m": held, "json": json, "builtins": builtins}
    exec(CHANGES.format(n=2), change)
    died = tmp_path / "died"

    def deadly(n):
        if n == 5 and not died.exists():
            died.touch()
            os.abort()
        return held.look(n), os.environ.get("RATE_OF_A_TEST")

    expected = held.look(0), None
    got = []
    for each in line(deadly)(range(30), how="line", workers=1, start=start, batch_size=1, window=3):
        got.append(each)
        exec(CHANGES.format(n=3), change)
        monkeypatch.setenv("RATE_OF_A_TEST", "3")
    assert died.exists()
    assert got == [expected] * 30


def test_what_cannot_go_is_named_in_a_warning_and_in_the_report_and_check_names_it(module):
    shop = module("shop_of_a_test", "conn = None\ndef look(n):\n    return type(conn).__name__")
    with open(os.devnull) as shop.conn:
        run = line(shop.look)([1], **LAUNCHED)
        with pytest.warns(RuntimeWarning, match=r"shop_of_a_test\.conn \(a _io\.TextIOWrapper\).*setup="):
            assert list(run) == ["NoneType"]
        assert any("shop_of_a_test.conn" in reason for reason in run.report.reasons)
        with pytest.warns(RuntimeWarning):
            checked = line(shop.look).check([1])
        assert any("shop_of_a_test.conn" in finding.says for finding in checked.findings)


def test_a_class_that_cannot_go_into_the_place_of_pythons_own_is_named(monkeypatch):
    import datetime

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 1, 1)

    def look(n):
        return datetime.datetime.now().year

    monkeypatch.setattr(datetime, "datetime", Frozen)
    with pytest.warns(RuntimeWarning, match=r"datetime\.datetime"):
        assert list(line(look)([1], **LAUNCHED)) != [1999]


def test_what_is_set_together_with_something_that_cannot_go_is_named_too(module):
    shop = module(
        "shop_with_init",
        """
        import threading
        conn, rate = None, 0
        def init(given):
            global conn, rate
            conn, rate = threading.Lock(), given
        def look(n):
            return rate
        """,
    )
    shop.init(3)
    with pytest.warns(RuntimeWarning, match=r"shop_with_init\.rate"):
        list(line(shop.look)([1], **LAUNCHED))


def test_a_large_table_is_not_sent_where_the_workers_own_import_makes_it(module, monkeypatch):
    source = "TABLE = {n: str(n) for n in range(200_000)}\ndef look(n):\n    return len(TABLE), TABLE.get(-1)"
    large = module("large_of_a_test", source)
    asked = []
    give = modules.ModulesSnapshot.give
    monkeypatch.setattr(modules.ModulesSnapshot, "give", lambda self, *a: asked.append(a[:2]) or give(self, *a))
    assert list(line(large.look)([1], **LAUNCHED)) == [(200_000, None)]
    assert not asked
    large.TABLE[-1] = "new"
    assert list(line(large.look)([1], **LAUNCHED)) == [(200_001, "new")]
    assert asked == [("large_of_a_test", "TABLE")]


ORDINARY = """
import abc, argparse, collections, contextlib, csv, dataclasses, datetime, decimal, enum, functools, itertools
import json, logging, re, sys, threading, typing, unittest.mock, warnings
import numpy as np, pandas as pd, pyarrow as pa, polars as pl, requests, pytest, click, cloudpickle
import hypothesis, hypothesis.strategies as st
import cryptography.hazmat.bindings.openssl.binding
class NoModule:
    def __getattribute__(self, name):
        if name == "__class__":
            return type(sys)
        raise RuntimeError(name)
sys.modules["odd"], sys.modules["odder"], sys.modules["none"] = NoModule(), object(), None
log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())
PATTERN, LOCK, LOCAL, RNG = re.compile("a"), threading.Lock(), threading.local(), np.random.default_rng()
SESSION, COUNT, T, EVENT = requests.Session(), itertools.count(), typing.TypeVar("T"), threading.Event()
FRAME, TABLE, SERIES = pd.DataFrame({"a": [1, 2]}), pa.table({"a": [1]}), pl.Series([1])
STRATEGY = st.lists(st.integers() | st.text())
class Colour(enum.Enum):
    RED = 1
class Base(abc.ABC):
    @abc.abstractmethod
    def f(self): ...
    @property
    def p(self): return 1
    @functools.cached_property
    def c(self): return 2
    _cache = {}
@dataclasses.dataclass
class Data:
    n: int = 0
    names: list = dataclasses.field(default_factory=list)
class Named(typing.NamedTuple):
    x: int = 1
@functools.cache
def cached(n): return n
@functools.lru_cache(maxsize=None)
def cached_too(n): return n
@functools.singledispatch
def dispatched(n): return n
@contextlib.contextmanager
def managed(): yield
@hypothesis.given(st.integers())
@hypothesis.settings(max_examples=1, database=None)
def test_of_it(n): pass
MEMO = {}
def memoised(n):
    if n not in MEMO: MEMO[n] = n
    return MEMO[n]
HANDLERS = {"a": lambda n: n, "b": cached, "c": Data}
handler = functools.partial(cached, 1)
conn = None
def connection():
    global conn
    if conn is None: conn = threading.Lock()
    return conn
def work(n):
    with managed(), connection():
        warnings.warn("once", DeprecationWarning)
        log.debug("n %s", n)
        FRAME["a"].sum(), FRAME.index.is_unique, np.log(2.0), SESSION.headers, pl.DataFrame({"a": [1]}).sum()
        json.dumps({"n": n}), pd.Timestamp("2020-01-01"), PATTERN.match("a")
        return cached(n) + cached_too(n) + memoised(n) + dispatched(n)
"""


@pytest.mark.parametrize("used", [False, True])
def test_an_ordinary_program_raises_no_alarm(tmp_path, used):
    (tmp_path / "ordinary.py").write_text(ORDINARY)
    (tmp_path / "script.py").write_text(
        "import warnings, ordinary\nfrom taktline import line\nwarnings.simplefilter('error', RuntimeWarning)\n"
        + "warnings.simplefilter('ignore', DeprecationWarning)\n"
        + ("ordinary.test_of_it(); next(ordinary.COUNT); [ordinary.work(n) for n in range(3)]\n" if used else "")
        + "run = line(ordinary.work)(range(9), how='line', workers=1, start='launch')\n"
        "assert list(run) == [4 * n for n in range(9)]\nprint([r for r in run.report.reasons if 'launched' not in r])\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    made = "['each worker makes its own ordinary.conn (a _thread.lock)']"
    assert done.stdout.strip() == (made if used else "[]")


ENUMERATIONS = """
import datetime, enum
from taktline import line
class Planet(enum.Enum):
    EARTH = 1, 2
    WORLD = 1, 2
    MARS = 3, 4
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
    def __eq__(self, other): return self is other
    @property
    def density(self): return self.mass / self.radius
class Field(bytes, enum.Enum):
    def __new__(cls, code, label):
        made = bytes.__new__(cls, [code])
        made._value_, made.label = code, label
        return made
    X = 7, "across"
class Labelled(enum.Enum):
    def __init__(self, *given): self.label = given
class Below(Labelled):
    A = 1, [2]
class Days(datetime.date, enum.Enum):
    FIRST = 2024, 1, 2
class Colour(str, enum.Enum):
    def _generate_next_value_(name, *_): return name.lower()
    RED = enum.auto()
    @classmethod
    def _missing_(cls, value): return cls.RED
class Rights(enum.IntFlag):
    READ, WRITE = 1, 2
    BOTH = 3
    @classmethod
    def load(cls): return int(cls.READ | cls.WRITE)
Below.A.label[1].append(Planet.MARS)
Planet.MARS.note = Planet
def look(n):
    return (
        Planet.EARTH.mass, Planet.MARS.density, Planet((1, 2)).radius, Planet["WORLD"] is Planet.EARTH, list(Planet),
        Planet.MARS.note is Planet, Field.X[0], Field.X.label, Field(7) is Field.X, Below.A.label,
        Below((1, [2, Planet.MARS])),
        Days.FIRST.year, Days.FIRST.value, Colour.RED, Colour("?").upper(), Rights.load(), Rights.READ | Rights.WRITE,
        list(Rights), Rights.BOTH.name,
    )
(got,), (here,) = (list(line(look)([1], how=how, workers=1, start="launch")) for how in ("line", "loop"))
assert got == here, (got, here)
assert list(line(lambda planet: planet.mass)([Planet.MARS], how="line", workers=1, start="launch")) == [3]
"""


def test_members_of_a_scripts_enumerations_are_what_they_are_here():
    done = subprocess.run([sys.executable, "-c", ENUMERATIONS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- what other modules were told ---

TOLD = """
import calendar, collections.abc, copy, copyreg, functools, http.client, importlib.util, json, logging, mimetypes, numbers
import shutil, signal, sqlite3, ssl, sys, types, urllib.request
import builtins, xml.etree.ElementTree as ET
import numpy as np, pandas as pd, polars as pl
import replaced
from taktline import line
class Point: pass
class Row: pass
class Lenient(json.JSONEncoder):
    def default(self, thing): return sorted(thing)
class Mine(urllib.request.BaseHandler):
    def mine_open(self, request):
        import io
        return io.BytesIO(b"mine")
class Named(logging.Logger):
    def notice(self): return "noticed"
@pd.api.extensions.register_series_accessor("mine")
class Accessor:
    def __init__(self, series): self.x = len(series)
@pl.api.register_series_namespace("mine")
class Namespace:
    def __init__(self, series): self.x = len(series)
class Finder:
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "made_by_a_finder" else None
    def create_module(self, spec): return None
    def exec_module(self, module): module.X = 5
def rang(*_): raise TimeoutError("rang")
builtins.VAT, builtins._ = 0.19, lambda text: text * 2
calendar.setfirstweekday(6)
collections.abc.Sequence.register(Point)
numbers.Number.register(Point)
copyreg.pickle(Row, lambda row: (Point, ()))
json._default_encoder = Lenient()
json.dumps.__kwdefaults__["indent"] = 1
shutil.which = functools.partial(shutil.which, path="/nowhere")
http.client.HTTPConnection.debuglevel = 3
logging.setLoggerClass(Named)
logging.addLevelName(25, "NOTICE")
logging.NOTICE = 25
logging.Logger.shout = lambda self: self.name.upper()
mimetypes.add_type("a/b", ".of_a_test")
np.set_printoptions(formatter={"float": lambda x: "F"})
np.seterrcall(rang)
pd.options.display.float_format = "{:.1f}".format
pd.Series.twice = lambda self: 2 * len(self)
pl.Config.set_float_precision(2)
shutil.register_archive_format("odd", lambda *_: None)
signal.signal(signal.SIGALRM, rang)
sqlite3.register_adapter(Point, lambda point: "adapted")
ssl._create_default_https_context = ssl._create_unverified_context
sys.mine = 3
sys.meta_path.insert(0, Finder())
sys.modules["an_object"], sys.modules["colorsys"] = types.SimpleNamespace(VAT=3), None
sys.modules["a_made_module"] = types.ModuleType("a_made_module")
sys.modules["a_made_module"].VAT = 4
import a_made_module
replaced.vat["de"] = 19
urllib.request.install_opener(urllib.request.build_opener(Mine))
ET.register_namespace("qq", "urn:q")
def said(what):
    try:
        return what()
    except Exception as error:
        return type(error).__name__
def ringing():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
def imported(name): return said(lambda: __import__(name).__name__)
def look(n):
    import an_object, made_by_a_finder
    return (
        VAT, _("x"), calendar.monthcalendar(2024, 1)[0], isinstance(Point(), collections.abc.Sequence),
        isinstance(Point(), numbers.Number), type(copy.copy(Row())).__name__, said(lambda: json.dumps({1})),
        shutil.which("sh"),
        http.client.HTTPConnection.debuglevel, http.client.HTTPSConnection("x")._context.verify_mode.name,
        logging.getLogger("of.a.test").notice(), logging.getLevelName(25), logging.NOTICE, logging.getLogger("x").shout(),
        mimetypes.guess_type("x.of_a_test"), str(np.array([0.5])), np.geterrcall().__name__, str(pd.Series([0.55])),
        pd.Series([1]).mine.x, pd.Series([1]).twice(), str(pl.Series([1 / 3])), pl.Series([1]).mine.x,
        [name for name, _ in shutil.get_archive_formats()], said(ringing),
        sqlite3.connect(":memory:").execute("select ?", (Point(),)).fetchone(), sys.mine, made_by_a_finder.X, an_object.VAT,
        imported("colorsys"), a_made_module.VAT, replaced.vat, urllib.request.urlopen("mine:x").read(),
        ET.tostring(ET.fromstring('<a xmlns="urn:q"/>')),
    )
(got,), (here,) = (list(line(look)([1], how=how, workers=1, start=START)) for how in ("line", "loop"))
differing = [(place, *both) for place, both in enumerate(zip(got, here, strict=True)) if both[0] != both[1]]
assert not differing, differing
"""


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_what_other_modules_were_told_at_run_time_holds_in_workers(tmp_path, start):
    (tmp_path / "replaced.py").write_text(
        "import sys\nclass Settings:\n    def __init__(self): self.vat = {}\nsys.modules[__name__] = Settings()\n"
    )
    (tmp_path / "script.py").write_text(TOLD.replace("START", repr(start)))
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning:taktline", "script.py"], cwd=tmp_path, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- settings ---

SETTINGS = """
import csv, decimal, gc, locale, os, socket, sys, tempfile, time
import numpy, pandas
from taktline import line
decimal.getcontext().prec, decimal.getcontext().rounding = 6, decimal.ROUND_UP
decimal.getcontext().traps[decimal.Inexact] = False
os.environ["FOO_OF_A_TEST"] = "bar"
os.environ.pop("BAR_OF_A_TEST")
sys.setrecursionlimit(3_210)
sys.set_int_max_str_digits(5_000)
csv.field_size_limit(77)
csv.register_dialect("odd", delimiter=";")
socket.setdefaulttimeout(9)
gc.set_threshold(111, 2, 3)
gc.disable()
locale.setlocale(locale.LC_ALL, "C.UTF-8")
numpy.seterr(all="raise")
numpy.set_printoptions(precision=3)
pandas.set_option("display.precision", 3)
os.umask(0o27)
os.makedirs("below", exist_ok=True)
os.chdir("below")
def look(n):
    import csv, decimal, gc, locale, os, socket, sys
    import numpy, pandas
    mask = os.umask(0o27)
    context = decimal.getcontext()
    return (
        str(decimal.Decimal(1) / 3), context.rounding, context.traps[decimal.Inexact],
        os.environ.get("FOO_OF_A_TEST"), os.environ.get("BAR_OF_A_TEST"), sys.getrecursionlimit(),
        sys.get_int_max_str_digits(),
        csv.field_size_limit(), csv.list_dialects(), socket.getdefaulttimeout(), gc.get_threshold(), gc.isenabled(),
        locale.setlocale(locale.LC_ALL), numpy.geterr(), str(numpy.array([1 / 3])), pandas.get_option("display.precision"),
        mask, os.getcwd(),
    )
(got,), (here,) = (list(line(look)([1], how=how, workers=1, start="launch")) for how in ("line", "loop"))
assert got == here, (got, here)
"""


def test_settings_of_the_process_and_of_libraries_are_those_of_the_caller(tmp_path):
    (tmp_path / "script.py").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "script.py"], cwd=tmp_path, capture_output=True, text=True,
        timeout=100, env={**os.environ, "BAR_OF_A_TEST": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- context ---

USER = contextvars.ContextVar("USER", default="nobody")


def look_around(n):
    return USER.get(), str(decimal.Decimal(1) / 3)


async def look_around_async(n):
    return look_around(n)


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
@pytest.mark.parametrize("what", [look_around, step(look_around, tasks=3), look_around_async])
def test_context_variables_and_decimal_context_are_those_of_who_asked(how, what):
    async def main():
        USER.set("eva")
        decimal.getcontext().prec = 4
        return [each async for each in line(what).stream([1, 2], how=how, start="launch", workers=1)]

    def here():
        USER.set("anna")
        decimal.setcontext(decimal.Context(prec=5))
        return list(line(what)([1, 2], how=how, workers=1, start="launch")), asyncio.run(main())

    assert contextvars.Context().run(here) == ([("anna", "0.33333")] * 2, [("eva", "0.3333")] * 2)


def test_a_context_variable_of_a_script_goes_with_the_steps(tmp_path):
    code = """
    import contextvars
    from taktline import line
    user, other = contextvars.ContextVar("user"), contextvars.ContextVar("other", default=5)
    user.set("anna")
    def look(n):
        return user.get(), other.get()
    def again(seen):
        other.set(7)
        return *seen, other.get(), user.get()
    print(list(line(look, again)([1], how="line", workers=1, start="launch")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[('anna', 5, 7, 'anna')]\n", done.stderr


def test_a_module_that_is_loaded_when_it_is_used_is_not_loaded_by_looking(tmp_path, monkeypatch):
    from importlib.util import LazyLoader, module_from_spec, spec_from_file_location

    (tmp_path / "lazy_of_a_test.py").write_text("raise RuntimeError('it was looked into')")
    spec = spec_from_file_location("lazy_of_a_test", tmp_path / "lazy_of_a_test.py")
    spec.loader = LazyLoader(spec.loader)
    made = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_of_a_test", made)
    spec.loader.exec_module(made)
    token = USER.set("anna")
    try:
        assert list(line(look_around)([1], **LAUNCHED)) == [look_around(1)]
    finally:
        USER.reset(token)


def test_what_it_costs_is_bounded_by_the_size_of_what_is_looked_at(module, monkeypatch):
    monkeypatch.setattr(module_digests, "LARGEST", 1 << 16)
    large = module("too_large", "TABLE = {n: str(n) for n in range(20_000)}\ndef look(n):\n    return len(TABLE)")
    run = line(large.look)([1], **LAUNCHED)
    assert list(run) == [20_000]
    assert any("too_large.TABLE" in reason for reason in run.report.reasons)
