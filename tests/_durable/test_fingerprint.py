"""What changes answers changes the fingerprint; what does not, and another process, leaves it as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from taktline._durable import fingerprint

PROGRAM = {
    "shop/__init__.py": "",
    "shop/rates.py": "VAT = 19\ndef with_tax(n):\n    return n * (100 + VAT)\n",
    "shop/late.py": "def late(n):\n    return n + 1\n",
    "tools.py": """
        import functools
        def checked(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                return fn(*args) + 0
            return wrapper
        def helper(n):
            return n + 2
        """,
    "job.py": """
        import functools, re, decimal, random, threading, datetime, operator
        import shop.rates
        import tools
        from shop.rates import with_tax
        LIMIT = 5
        PATTERN = re.compile("a+")
        TABLE = {"a": 1, "b": {"c", "d", "e"}}
        WORDS = frozenset({"x", "y", "z"})
        CACHE = {}
        STARTED = threading.Lock()
        def plus(n): return n + 1
        def minus(n): return n - 1
        HANDLERS = {"plus": plus, "minus": minus}
        class Base:
            factor = 3
            def scale(self, n): return n * self.factor
        class Scaled(Base):
            def __init__(self, by, at): self.by, self.at, self.seen = by, at, {}
            def __call__(self, n):
                self.seen[n] = self.by
                return self.scale(n) + self.by
        class Price:
            __slots__ = ("amount",)
            def __init__(self, amount): self.amount = amount
        def plain(n, base=10): return n + base + LIMIT
        def named(n): return PATTERN.match(str(n)) or TABLE.get(n) or str(n) in WORDS
        def by_name(n): return HANDLERS["plus"](n)
        def caching(n):
            CACHE[n] = n
            with STARTED:
                return CACHE.get(n)
        @tools.checked
        def decorated(n): return n * 4
        @functools.cache
        def cached(n): return n * 5
        def elsewhere(n): return tools.helper(n) + shop.rates.with_tax(n) + with_tax(n)
        def imports(n):
            from shop.late import late
            return late(n)
        def closure(value): return lambda n: (n, value)
        def counting():
            count = 0
            def step(n):
                nonlocal count
                count += 1
                return n
            return step
        @functools.singledispatch
        def dispatched(n): return n
        @dispatched.register(int)
        def of_int(n): return n + 1
        def caught(n):
            try:
                n = 1 / n
            except ZeroDivisionError:
                n = 0
            return n
        things = {
            "plain": plain, "named": named, "by_name": by_name, "decorated": decorated, "cached": cached,
            "elsewhere": elsewhere, "imports": imports, "partial": functools.partial(plain, base=7),
            "object": Scaled(2, datetime.date(2020, 1, 2)), "method": Scaled(3, None).scale, "class": Scaled,
            "decimal": closure(decimal.Decimal("1.10")), "price": closure(Price(5)), "set": closure({"p", "q", "r"}),
            "many": closure({str(n): float(n) for n in range(99)}), "get": {"a": 1}.get, "item": operator.itemgetter("k"),
            "caching": caching, "counting": counting(),
            "dispatched": dispatched, "random": closure(random.Random()), "caught": caught,
        }
        """,
}
SHOW = """
import sys
from job import things
from taktline._durable.fingerprint import look
print({name: look(thing).digest for name, thing in things.items()})
"""


def prints(folder, seed="0", show=SHOW):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "PYTHONHASHSEED": seed}
    ran = subprocess.run([sys.executable, "-c", show], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return eval(ran.stdout)


def program(folder, **edits):
    folder.mkdir()
    (folder / "shop").mkdir()
    for path, text in PROGRAM.items():
        text = textwrap.dedent(text)
        for old, new in edits.get(path.partition(".")[0].replace("/", "_"), []):
            assert old in text
            text = text.replace(old, new)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return prints(program(tmp_path_factory.mktemp("before") / "p"))


def test_an_unchanged_program_has_the_same_fingerprints_in_every_process(tmp_path, before):
    moved = program(tmp_path / "p", job=[("LIMIT = 5", "\n\n# about something else\n\nLIMIT = 5")])
    used = SHOW.replace("print(", "[thing(1) for name, thing in things.items() if name != 'class']\nprint(").replace(
        "[thing(1)",
        "things['get']('a'), things['caching'](1), things['counting'](1), things['object'](1)\n[0 and thing(1)",
    )
    for seed, show in (("1", SHOW), ("2", SHOW), ("3", used)):  # from the source, from .pyc, and after they have run
        assert prints(moved, seed, show) == before
    assert len(set(before.values())) == len(before)


@pytest.mark.parametrize(
    ("edits", "changed"),
    [
        ({"job": [("LIMIT = 5", "LIMIT = 6")]}, {"plain", "partial"}),
        ({"job": [("base=10", "base=11")]}, {"plain", "partial"}),
        ({"job": [("base=7", "base=8")]}, {"partial"}),
        ({"job": [('"a+"', '"b+"')]}, {"named"}),
        ({"job": [('"d", "e"}', '"d", "f"}')]}, {"named"}),
        ({"job": [('"x", "y", "z"', '"x", "y"')]}, {"named"}),
        ({"job": [("return n - 1", "return n - 2")]}, {"by_name"}),
        ({"job": [("factor = 3", "factor = 4")]}, {"object", "method", "class"}),
        ({"job": [("return n * self.factor", "return n + self.factor")]}, {"object", "method", "class"}),
        ({"job": [("class Scaled(Base)", "class Scaled(Base, dict)")]}, {"object", "method", "class"}),
        ({"job": [("Scaled(2, datetime.date(2020, 1, 2))", "Scaled(2, datetime.date(2020, 1, 3))")]}, {"object"}),
        ({"job": [("Scaled(3, None)", "Scaled(4, None)")]}, {"method"}),
        ({"job": [("return n * 4", "return n * 5")]}, {"decorated"}),
        ({"tools": [("fn(*args) + 0", "fn(*args) + 1")]}, {"decorated"}),
        ({"job": [("return n * 5", "return n * 6")]}, {"cached"}),
        ({"tools": [("return n + 2", "return n + 3")]}, {"elsewhere"}),
        ({"shop_rates": [("VAT = 19", "VAT = 7")]}, {"elsewhere"}),
        ({"shop_late": [("n + 1", "n + 2")]}, {"imports"}),
        ({"job": [('"1.10"', '"1.1"')]}, {"decimal"}),
        ({"job": [("Price(5)", "Price(6)")]}, {"price"}),
        ({"job": [('"p", "q", "r"', '"p", "q", "s"')]}, {"set"}),
        ({"job": [("float(n) for n in range(99)", "float(n or 9) for n in range(99)")]}, {"many"}),
        ({"job": [('{"a": 1}.get', '{"a": 2}.get')]}, {"get"}),
        ({"job": [('itemgetter("k")', 'itemgetter("m")')]}, {"item"}),
        ({"job": [("def of_int(n): return n + 1", "def of_int(n): return n + 2")]}, {"dispatched"}),
        ({"job": [("try:\n        n = 1 / n\n", "n = n\n    try:\n        n = 1 / n\n")]}, {"caught"}),
    ],
)
def test_what_changes_answers_changes_the_fingerprint_and_no_other(tmp_path, before, edits, changed):
    after = prints(program(tmp_path / "p", **edits))
    assert {name for name in before if before[name] != after[name]} == changed


def test_tables_and_arrays_are_looked_into():
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    for one, other in (
        (np.arange(5), np.arange(5.0)), (np.arange(6), np.arange(6).reshape(2, 3)),
        (pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"n": [1, 3]})), (pd.Series(["a", None]), pd.Series(["b", None])),
    ):  # fmt: skip
        assert fingerprint.of_record(one) == fingerprint.of_record(one.copy()) != fingerprint.of_record(other) != ""


def test_what_cannot_be_told_is_said():
    lock, cache, made = __import__("threading").Lock(), {}, fingerprint.look

    def step(n):
        with lock:
            cache[n] = n
        return n

    assert made(step).untold == ("cache, which the step changes itself", "lock, a lock")
    assert made(abs).untold == ()


def test_values_in_themselves_and_without_end_are_looked_at_in_bounded_time():
    looped: list = []
    looped.append(looped)
    doubled: object = 0
    for _ in range(55):
        doubled = [doubled, doubled]
    deep: list = []
    for _ in range(5_000):
        deep = [deep]
    assert fingerprint.look(looped).untold == fingerprint.look(doubled).untold == ()
    assert "too deep" in fingerprint.look(deep).untold[0]
    assert "too large" in fingerprint.look([[n] for n in range(400_000)]).untold[0]


class Order:
    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Order(1), Order(2)), ((1, 2), [1, 2]), ({1: 2}, {"1": 2}), (1, True), (1, 1.0), (b"a", b"b"),
        ({"a": {1, 2}}, {"a": {1, 3}}), (Order(Order(1)), Order(Order(2))),
        ({"n": 10**5000}, {"n": 10**5000 + 1}), ("\ud800", "\ud801"),
    ],
)  # fmt: skip
def test_records_are_told_apart_by_all_that_is_in_them(one, other):
    import copy

    assert fingerprint.of_record(one) == fingerprint.of_record(copy.deepcopy(one)) != ""
    assert fingerprint.of_record(one) != fingerprint.of_record(other)
