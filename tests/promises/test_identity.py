"""Promise: what is told from others by `is` is the same thing in a worker and back; and classes are what they are.

Each case is a program of its own, as `__main__` and how workers start decide what has a name. The loop is the model.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

STARTS = ["fork", "launch", "auto"]


def say(code: str, folder: Path, *arguments: str, **settings: object) -> list[str]:
    """What a script prints; it must end well and say nothing on standard error."""
    (folder / "program.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "program.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, **settings)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


SHOP = """
import enum
MISSING = object()
class _Missing: pass
NOTHING = _Missing()
class _Tagged:
    def __init__(self, name): self.name = name
TAGGED = _Tagged("TAGGED")
class _Slotted:
    __slots__ = ("name",)
    def __init__(self, name): self.name = name
SLOTTED = _Slotted("s")
class _Gone: pass
GONE = _Gone()
del _Gone
class Shop:
    MISSING = object()
    class Inner: OTHER = _Missing()
class Kind(enum.Enum):
    A = object()
"""
SENTINELS = {
    "object() of a module": "shop.MISSING",
    "an instance": "shop.NOTHING",
    "an instance with a name": "shop.TAGGED",
    "an instance with slots": "shop.SLOTTED",
    "the only one of a class without a name": "shop.GONE",
    "of a class": "shop.Shop.MISSING",
    "of a nested class": "shop.Shop.Inner.OTHER",
    "of an enumeration": "shop.Kind.A.value",
    "a member": "shop.Kind.A",
    "object() of the program": "MINE",
    "an instance of the program's": "MINE_TOO",
    "of a class of the program": "Own.MINE",
    "of a nested class of the program": "Own.Inner.OTHER",
    "by its own reduction": "REDUCED",
    "of a closure": "hidden",
    "of dataclasses": "dataclasses.MISSING",
    "of dataclasses, too": "dataclasses.KW_ONLY",
    "of inspect": "inspect.Parameter.empty",
    "of attrs": "attrs.NOTHING",
    "of mock": "mock.sentinel.x",
    "NotImplemented": "NotImplemented",
    "Ellipsis": "...",
    "a new type": "UserId",
}
PROGRAM = """
import dataclasses, inspect, sys, typing
from unittest import mock
import attrs
import shop
from taktline import keep, line
MINE = object()
class _Mine: pass
MINE_TOO = _Mine()
class _Reduced:
    def __reduce__(self): return "REDUCED"
REDUCED = _Reduced()
UserId = typing.NewType("UserId", int)
class Own:
    MINE = object()
    class Inner: OTHER = _Mine()
def closure():
    hidden = object()
    return hidden, lambda record: (record[0] is hidden, hidden, *record)
hidden, through = closure()
NAMES = {names}
def of_name(record, mine=MINE, *, too=MINE_TOO, table={{"x": [MINE]}}):
    which, value, deep, _ = record
    same = value is deep[0]["x"], value is NAMES[which](), mine is MINE, too is MINE_TOO, table["x"][0] is MINE
    return value, which, value, [{{NAMES[which](): value}}], same
records = [(name, get(), [{{"x": get()}}], n) for n in range(3) for name, get in NAMES.items()]
flow = line(of_name, keep(lambda result: result[0] is result[2]), through)
def told(results):
    known = {{id(get()): name for name, get in NAMES.items()}}
    def name(thing): return known.get(id(thing), "another one")
    return [
        (is_hidden, name(hid), name(first), which, name(value), [(name(k), name(v)) for k, v in table[0].items()], same)
        for is_hidden, hid, first, which, value, table, same in results
    ]
loop = told(flow(records, how="loop"))
assert all(all(each[-1]) for each in loop)
other = told(flow(records, how="line", workers=2, start=sys.argv[1]))
print([pair for pair in zip(loop, other) if pair[0] != pair[1]][:3], len(loop) == len(other))
"""


@pytest.mark.parametrize("start", STARTS)
def test_sentinels_are_the_same_ones_in_workers_and_back(start, tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    names = "{" + ", ".join(f"{name!r}: lambda: {where}" for name, where in SENTINELS.items()) + "}"
    assert say(PROGRAM.format(names=names), tmp_path, start) == ["[] True"]


def test_what_a_sentinel_holds_besides_counts_as_before(tmp_path):
    """One with a name whose values were changed is a copy of that moment, never the unchanged one."""
    (tmp_path / "shop.py").write_text("class Order: pass\nDEFAULT = Order()\nDEFAULT.price = 1")
    code = """
        import copy, pickle, shop
        from taktline import line
        def dearer(order):
            order.price += 1
            return order
        def price(order): return order.price
        records = [copy.copy(shop.DEFAULT) for _ in range(8)]
        for order in line(dearer)([*records, shop.DEFAULT], how="line", workers=1, start="launch"):
            assert order.price == 2 and order is not shop.DEFAULT
        assert pickle.loads(pickle.dumps(shop.DEFAULT)) is not shop.DEFAULT
        assert copy.deepcopy(shop.DEFAULT) is not shop.DEFAULT and copy.copy(shop.DEFAULT) is not shop.DEFAULT
        shop.DEFAULT.price = 7
        print([list(line(price)([shop.DEFAULT], how="line", workers=1, start=start)) for start in ("fork", "launch")])
    """
    assert say(code, tmp_path) == ["[[7], [7]]"]


def test_more_objects_without_a_name_than_are_remembered_leave_those_of_functions_known(tmp_path):
    code = """
        from taktline import line
        from taktline._wire import identity
        identity.REMEMBERED = 50
        def closure():
            hidden = object()
            return hidden, lambda record: hidden if record is None else (object(), record)
        hidden, step = closure()
        for start in ("fork", "launch"):
            results = list(line(step)([None, *range(400), None], how="line", workers=2, start=start))
            print(results[0] is hidden, results[-1] is hidden, len(identity._passing) <= 50)
    """
    assert say(code, tmp_path) == ["True True True"] * 2


def test_a_failed_record_and_a_dead_letter_have_the_sentinel_too(tmp_path):
    (tmp_path / "shop.py").write_text("MISSING = object()")
    code = """
        import shop, taktline
        def bad(record): raise ValueError(record[0], shop.MISSING)
        for how in ("loop", "line"):
            (failed,) = taktline.line(bad)([[shop.MISSING]], how=how, on_error="keep", start="launch")
            assert failed.record[0] is failed.error.args[0] is failed.error.args[1] is shop.MISSING, how
    """
    assert say(code, tmp_path) == []


CLASSES = '''
import dataclasses, enum, functools, sys, typing
from taktline import line
T = typing.TypeVar("T")
class Slots:
    __slots__ = ("a", "_b", "__c")
    def __init__(self, a): self.a, self._b, self.__c = a, 1, 2
    def key(self): return type(self).__name__, self.a, self._b, self.__c
class Below(Slots):
    __slots__ = {"z": "documented"}
    def __init__(self, a):
        super().__init__(a)
        self.z = 5
    def key(self): return (*super().key(), self.z)
class Open(Below):
    def __init__(self, a):
        super().__init__(a)
        self.w = 7
    def key(self): return (*super().key(), self.w)
class OneSlot:
    __slots__ = "a"
    def __init__(self, a): self.a = a
    def key(self): return "OneSlot", self.a
class State:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
    def __getstate__(self): return (self.a,)
    def __setstate__(self, state): (self.a,) = state
    def key(self): return "State", self.a
class Weak:
    __slots__ = ("a", "__weakref__", "__dict__")
    def __init__(self, a): self.a, self.b = a, 1
    def key(self): return "Weak", self.a, self.b
@dataclasses.dataclass(slots=True)
class Data:
    a: int
    def key(self): return "Data", self.a
@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    a: int
    b: list = dataclasses.field(default_factory=list)
    def key(self): return "Frozen", self.a, self.b
@dataclasses.dataclass(slots=True)
class More(Data):
    c: int = 3
    def key(self): return "More", self.a, self.c
class Named(typing.NamedTuple):
    a: int
    def key(self): return "Named", self.a
class Of(typing.Generic[T]):
    __slots__ = ("a",)
    def __init__(self, a: T): self.a = a
    def key(self): return "Of", self.a
class OfInt(Of[int]):
    def key(self): return "OfInt", self.a
class Has(typing.Protocol):
    a: int
    def key(self): ...
class Keeps(Has):
    def __init__(self, a): self.a = a
    def key(self): return "Keeps", self.a
class Meta(type):
    def __call__(cls, a):
        made = super().__call__()
        made.a = a
        return made
    @property
    def tag(cls): return "tag of " + cls.__name__
class Made(metaclass=Meta):
    __slots__ = ("a",)
    def key(self): return type(self).tag, self.a
class Outer:
    class Inner:
        __slots__ = ("a",)
        class Inmost:
            def __init__(self, a): self.a = a
            def key(self): return type(self).__qualname__, self.a
        def __init__(self, a): self.a = a
        def key(self): return type(self).__qualname__, self.a, Outer.__name__
    class Colour(enum.Enum):
        RED = 1
        def key(self): return self.name
class Problem(Exception):
    __slots__ = ("a",)
    def __init__(self, a):
        super().__init__(a)
        self.a = a
    def key(self): return "Problem", self.a
class Number(int):
    __slots__ = ()
    def key(self): return "Number", int(self)
class Flag(enum.IntFlag):
    X = 1
    Y = 2
class Row(typing.TypedDict):
    a: int
def local():
    class Local:
        __slots__ = ("a",)
        def __init__(self, a): self.a = a
        def key(self): return "Local", self.a
    return Local
Local = local()
KINDS = (
    Slots, Below, Open, OneSlot, State, Weak, Data, Frozen, More, Named, Of, OfInt, Keeps, Made, Outer.Inner,
    Outer.Inner.Inmost, Problem, Number, Local,
)
MAKES = {kind.__qualname__: kind for kind in KINDS}
MAKES |= {"Row": lambda a: Row(a=a), "Flag": lambda a: Flag.X | Flag.Y, "Colour": lambda a: Outer.Colour.RED}
def key(thing): return thing.key() if hasattr(thing, "key") else thing
def strict(thing):
    """Whether it refuses an attribute that it has no slot for."""
    try:
        thing.unheard_of = 1
        del thing.unheard_of
    except AttributeError:
        return True
    except TypeError:
        return None
    return False
def look(record):
    name, value = record
    new = MAKES[name](5)
    return name, value, new, key(value), type(value) is type(new), isinstance(value, tuple) or strict(value)
def raising(record):
    if record[0] == "Problem": raise record[1]
    return record
'''
PROGRAM_OF_CLASSES = """
import sys
records = [(name, make(3)) for _ in range(2) for name, make in MAKES.items()]
def told(results):
    return [
        (name, key(value), key(new), *(type(each) is type(MAKES[name](3)) for each in (value, new)), *rest)
        for name, value, new, *rest in results
    ]
def error(**options):
    try:
        list(line(raising)(records, **options))
    except Problem as error:
        return type(error), error.args, error.a
loop, there = {"how": "loop"}, {"how": "line", "workers": 2, "start": sys.argv[1]}
one, other = (told(line(look)(records, **options)) for options in (loop, there))
print([pair for pair in zip(one, other) if pair[0] != pair[1]], len(one) == len(other))
made = list(line(lambda name: MAKES[name](4))(list(MAKES), **there))
def whole(thing): return type(thing), key(thing)
print([name for name, each in zip(MAKES, made) if whole(each) != whole(MAKES[name](4))])
print(error(**loop) == error(**there))
"""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("where", ["the program", "a file of a path", "a file of a path that is registered"])
def test_classes_of_all_kinds_are_themselves_in_workers_and_back(where, start, tmp_path):
    if where == "the program":
        code = CLASSES + PROGRAM_OF_CLASSES
    else:
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "json.py").write_text(
            CLASSES
        )  # the name of something installed, that it must not be taken for
        register = f"sys.modules['json_of_mine'] = module\n{LOAD}" if "registered" in where else LOAD
        code = LOADING.format(load=register) + PROGRAM_OF_CLASSES
    assert say(code, tmp_path, start) == ["[] True", "[]", "True"]


LOAD = "spec.loader.exec_module(module)"
LOADING = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("json_of_mine", "jobs/json.py")
module = importlib.util.module_from_spec(spec)
{load}
from taktline import line
MAKES, look, raising, Problem, key = module.MAKES, module.look, module.raising, module.Problem, module.key
"""


HELPERS = """
import contextlib, dataclasses, enum, functools, json, weakref
VAT = 2
@functools.cache
def cached(n): return n * VAT
@functools.cache
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
@functools.lru_cache(maxsize=10)
def recent(n): return n, cached(n)
@functools.singledispatch
def kind(n): return "any", n
@kind.register
def _(n: int): return "int", n
@contextlib.contextmanager
def given(n): yield n
class Helper:
    made = weakref.WeakValueDictionary()
    def __init__(self): self.n = 3
    @functools.cached_property
    def slow(self): return self.n
    def two(self, a, b): return a, b
    one = functools.partialmethod(two, 1)
    @functools.singledispatchmethod
    def kind(self, a): return "any", a
    @kind.register
    def _(self, a: int): return "int", a
    @functools.cache
    def method(self, n): return n + self.n
    @staticmethod
    @functools.cache
    def other(n): return n
    @classmethod
    @functools.cache
    def of_class(cls, n): return cls.__qualname__, n
@functools.total_ordering
class Ordered:
    def __init__(self, n): self.n = n
    def __eq__(self, other): return self.n == other.n
    def __lt__(self, other): return self.n < other.n
def wrapping(function):
    @functools.wraps(function)
    def inner(*arguments): return function(*arguments)
    return inner
@wrapping
@functools.cache
def wrapped(n): return n
HELPER = Helper()
BY_KIND = weakref.WeakKeyDictionary({Helper: "a helper"})
half = functools.partial(divmod, 2)
@functools.lru_cache
def step(n):
    with given(n) as same:
        pass
    helper = Helper()
    return [
        cached(n), fibonacci(n % 10), recent(n), kind(n), kind("x"), same, helper.slow, helper.one(2), helper.kind(1),
        helper.kind("a"), helper.method(n), helper.other(n), helper.of_class(n), HELPER.method(n), HELPER.slow,
        Ordered(1) <= Ordered(2), wrapped(n), wrapped.__wrapped__.__name__, BY_KIND[Helper], half(n + 1), json.dumps(n),
        cached.cache_info().misses > 0,
    ]
"""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("where", ["the program", "a file of a path", "a file of a path that is registered"])
def test_helpers_behind_decorators_of_functools_work_in_workers(where, start, tmp_path):
    code = HELPERS
    if where != "the program":
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "json.py").write_text(HELPERS)
        register = f"sys.modules['json_of_mine'] = module\n{LOAD}" if "registered" in where else LOAD
        code = LOADING.partition("MAKES")[0].format(load=register) + "step = module.step\n"
    code += """
import sys
from taktline import line
print(list(line(step)(range(60), how="line", workers=2, start=sys.argv[1])) == [step(n) for n in range(60)])
"""
    assert say(code, tmp_path, start) == ["True"]


def test_two_files_of_one_name_and_their_helpers_are_not_mixed_up(tmp_path):
    for folder, rate in (("one", 2), ("two", 3)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "job.py").write_text(
            "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\nimport rates\n"
            "sys.path.pop(0)\ndel sys.modules['rates']\n"
            "class Price:\n    class Tax:\n        def __init__(self, n): self.n = n\n"
            "def priced(n): return Price.Tax(n * rates.RATE())\n"
        )
        (tmp_path / folder / "rates.py").write_text(f"def RATE(): return {rate}\n")
    (tmp_path / "job.py").write_text("def priced(n): return 'the third one'\n")
    code = """
        import importlib.util, sys
        import job as third
        from taktline import line
        def load(path, register):
            spec = importlib.util.spec_from_file_location("job", path)
            module = importlib.util.module_from_spec(spec)
            if register: sys.modules["job"] = module
            spec.loader.exec_module(module)
            return module
        one, two = load("one/job.py", True), load("two/job.py", True)
        for start in ("fork", "launch"):
            for module, rate in ((one, 2), (two, 3), (one, 2)):
                results = list(line(module.priced)(range(20), how="line", workers=2, start=start))
                print([each.n for each in results] == [n * rate for n in range(20)])
                print({type(each) for each in results} == {module.Price.Tax})
            sys.modules["job"] = third
            print(set(line(third.priced)(range(20), how="line", workers=2, start=start)))
            sys.modules["job"] = two
    """
    assert say(code, tmp_path) == [*["True"] * 6, "{'the third one'}"] * 2
