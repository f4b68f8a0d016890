"""What steps can get at: by the names in their code, their closures, defaults, arguments and attributes, transitively.

`reached` finds things, by the names in the user's own code only. What an installed package keeps for itself is not
looked through: its threads, sockets and devices are seen from outside (`starts.py`).

`Naming` finds code, of installed packages too, and what that takes from modules: with it workers' modules are compared.
"""

from __future__ import annotations

import builtins
import functools
import gc
import logging
import os
import random
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import chain, islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from taktline._crew import module_places
from taktline._recipe.steps import Step
from taktline._signals import pass_on
from taktline._wire.homes import NOT_OF_USER, installed, of_user, stand_ins

MOST = 20_000  # things that are looked at: beyond, what is left is taken for more of the same. Some 20 ms
SAMPLE = 100  # things of a container, for the same reason
PLAIN = {
    int, float, complex, bool, str, bytes, bytearray, type(None), type(...), CodeType, weakref.ref, ContextVar,
    range, slice, memoryview,
}  # fmt: skip
# Forked or not, a worker has its own of these: what they hold is not looked into.
OWN_IN_WORKERS = (logging.Logger, logging.Handler, logging.Manager, random.Random)
OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep


# Modules of which a worker has functions of its own.
OF_THE_WORKER = {"signal", "faulthandler"}
AND_IN = {
    ("warnings", "showwarning"),
    ("logging", "callHandlers"),
    ("sys", "stdin"),
    ("sys", "stdout"),
    ("sys", "stderr"),
    ("sys", "excepthook"),
    ("sys", "unraisablehook"),
    ("sys", "displayhook"),
    ("threading", "excepthook"),
}
# Large packages whose settings go by their own functions (`settings.py`): of them and of Python's own modules only what
# is named, and what somebody has put there.
LARGE_PACKAGES = {"numpy", "pandas", "pyarrow", "polars", "scipy", "sklearn", "torch", "tensorflow"}
OF_PYTHON = sys.stdlib_module_names
CODE = (FunctionType, MethodType, type, functools.partial)
TABLE = 100  # entries of a container that are followed: as many functions as a table of them may have
FAR = 2_000  # functions that are looked at: some 10 ms; the nearest come first
FAR_IN_PYTHON = 100  # of Python's own, after the others


class Reached(NamedTuple):
    """A thing, and by which way of names the steps get at it."""

    thing: Any
    way: str


def reached(steps: Iterable[Any]) -> Iterator[Reached]:
    """All that these steps, or a worker that builds them, can get at; nearest first, each thing once."""
    waiting = deque(Reached(step, f"step {step.name!r}") for step in steps)
    seen: dict[int, Any] = {id(each): each for each in (sys.stdin, sys.stdout, sys.stderr)}  # a worker has its own
    while waiting and len(seen) < MOST:
        found = waiting.popleft()
        thing = found.thing
        if type(thing) in PLAIN or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        yield found
        if not isinstance(thing, OWN_IN_WORKERS):
            waiting.extend(_inside(*found))


def opens_files(found: Iterable[Reached], setup: Callable[[], object] | None) -> bool:
    """Whether the user's own code, among what the steps reach or that `setup` reaches, opens files by a name: `open`,
    `gzip.open`, `path.open`."""
    near = reached([SimpleNamespace(name="setup=", fn=setup)]) if setup is not None else ()
    own = (each.thing for each in chain(found, near) if isinstance(each.thing, FunctionType))
    return any(is_own(each.__code__.co_filename) and "open" in names_of(each.__code__) for each in own)


def is_own(filename: str | None) -> bool:
    """Whether code of this file is the user's own: not of an installed package, and not of the standard library."""
    if filename is None or filename.startswith(("<frozen", OURS)):
        return False
    return filename.startswith("<") or not filename or not installed(filename)


def module_name(kind: type) -> str:
    """The module that a class says it is from; empty where it says nothing."""
    name = getattr(kind, "__module__", None)
    return name if isinstance(name, str) else ""


def module_file(kind: type) -> str | None:
    """The file that a class comes from. What was typed in has none, and is the user's own; so is what no module holds."""
    module = sys.modules.get(name := module_name(kind))
    if module is None or name == "__main__":
        return ""
    return getattr(module, "__file__", None)


def _inside(thing: Any, way: str) -> Iterator[Reached]:
    if isinstance(thing, FunctionType):
        yield from _of_function(thing, way)
    elif isinstance(thing, type):
        if is_own(module_file(thing)):
            for name, value in list(vars(thing).items()):
                yield Reached(value, f"{thing.__qualname__}.{name}")
            yield from (Reached(base, way) for base in thing.__bases__)
    elif isinstance(thing, types.BuiltinFunctionType):
        if not isinstance(thing.__self__, ModuleType):
            yield Reached(thing.__self__, way)
    elif isinstance(thing, functools.cached_property):  # with a lock of its own, for threads only
        yield Reached(thing.func, way)
    elif _of_numpy_random(thing):  # each generator has a lock, for threads only
        yield from (Reached(each, way) for each in gc.get_referents(thing) if _of_numpy_random(each))
    elif isinstance(thing, threading.local):
        yield from (Reached(value, f"{way}.{name}") for name, value in list(vars(thing).items()))
    elif isinstance(thing, dict):
        yield from (Reached(value, _key(way, key)) for key, value in islice(list(thing.items()), SAMPLE))
    elif isinstance(thing, (list, tuple, set, frozenset, deque)):
        yield from (Reached(value, way) for value in islice(thing, SAMPLE))
    elif not isinstance(thing, ModuleType):
        yield Reached(type(thing), way)
        names = _attributes(thing)
        yield from (Reached(each, names.get(id(each), way)) for each in gc.get_referents(thing))


def _of_numpy_random(thing: Any) -> bool:
    return module_name(type(thing)).startswith("numpy.random.")


def _of_function(function: FunctionType, way: str) -> Iterator[Reached]:
    for name, value in in_closure(function):
        yield Reached(value, f"{way}, {name!r}")
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values()):
        yield Reached(value, way)
    if is_own(function.__code__.co_filename):
        for home, name, value in named_by(function):
            if not isinstance(value, ModuleType):
                yield Reached(value, f"{home}.{name}")


def in_closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError as error:  # a name that has no value yet
            pass_on(error)


def names_of(code: CodeType) -> frozenset[str]:
    """The globals and attributes that this code names, with what is defined in it."""
    return frozenset(code.co_names).union(*(names_of(each) for each in code.co_consts if isinstance(each, CodeType)))


def named_by(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """What the code of a function takes from its globals and from modules: the module's name, the name in it, the value."""
    space, names = function.__globals__, names_of(function.__code__)
    seen: set[int] = set()
    for name in names:
        if name in space:
            yield space.get("__name__", ""), name, space[name]
            yield from _of_module(space[name], names, seen)
        elif name in sys.modules:  # imported in the function itself
            yield from _of_module(sys.modules[name], names, seen)
        elif type(value := vars(builtins).get(name)) not in (BuiltinFunctionType, type, type(None)):
            yield "builtins", name, value
    for _, value in in_closure(function):
        yield from _of_module(value, names, seen)


def _of_module(module: Any, names: frozenset[str], seen: set[int]) -> Iterator[tuple[str, str, Any]]:
    """What code with these names may take out of a module, or of a module in it."""
    if not isinstance(module, ModuleType) or id(module) in seen:
        return
    seen.add(id(module))
    space = vars(module)
    for name in names & space.keys():
        yield module.__name__, name, space[name]
        yield from _of_module(space[name], names, seen)


def _attributes(thing: Any) -> dict[int, str]:
    found = getattr(thing, "__dict__", None)
    if not isinstance(found, dict):
        return {}
    return {id(value): f"{type(thing).__qualname__}.{name}" for name, value in found.items()}


def _key(way: str, key: Any) -> str:
    return f"{way}[{key!r}]" if type(key) in (str, int) else way


class Naming:
    """`beside`: of modules that are not the user's, the names that the steps' code uses; `names`: all that it uses."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.beside: dict[str, set[str]] = {}
        self.names: set[str] = set()
        self.modules: set[str] = set()  # that it names
        self._codes: list[CodeType] = []
        self._seen: dict[Any, Any] = {}
        self._of_users: set[frozenset[str]] = set()  # the names of each function of the user's own
        self._whose: dict[str, bool | None] = {}
        self._near: deque[tuple[Any, frozenset[str], bool]] = deque()
        self._in_python: deque[FunctionType] = deque()
        for step in steps:
            self._add(step.fn, step.like, step.by)
            if step.maker is not None:
                self._add(step.maker.factory, *step.maker.args, *step.maker.kwargs.values())
        left = FAR_IN_PYTHON
        while len(self._codes) < FAR:
            if self._near:
                self._look(*self._near.popleft())
            elif self._in_python and left:
                left -= 1
                self._function(self._in_python.popleft(), far=True)
            else:
                break
        self._note_what_is_registered()

    def stores(self, name: str) -> bool:
        """Whether the steps' own code sets a global, an attribute, or a name in a closure like this."""
        return any(name in module_places.stores(code) for code in self._codes)

    def _add(self, *things: Any, names: frozenset[str] = frozenset(), far: bool = False) -> None:
        """`names`: those of the code that has them. `far`: only for what somebody has put there."""
        for thing in things:
            if thing is not None and type(thing) not in module_places.ATOM_TYPES and type(thing) is not ModuleType:
                self._near.append((thing, names, far))

    def _look(self, thing: Any, names: frozenset[str], far: bool) -> None:
        kind = type(thing)
        key = (id(thing), names) if names in self._of_users and issubclass(kind, type) else id(thing)
        if key in self._seen:
            return
        self._seen[key] = thing  # alive: its id stands for it
        if kind is FunctionType:
            top = _top(thing)
            if top in OF_PYTHON:
                self._in_python.append(thing)
            elif top not in LARGE_PACKAGES:
                self._function(thing)
        elif kind is MethodType:
            self._add(thing.__func__, thing.__self__)
        elif kind in (list, tuple, set, frozenset):
            self._add(*islice(thing, TABLE))
        elif kind is dict:
            self._add(*islice(thing.values(), TABLE))
        elif kind is functools.partial:
            self._add(thing.func, *thing.args, *thing.keywords.values())
        elif kind in module_places.WRAPPER_PARTS:
            self._add(*(getattr(thing, each) for each in module_places.WRAPPER_PARTS[kind]))
        elif issubclass(kind, type):
            self._class(thing, names, far)
        elif module_places.home_of(kind) != "builtins":
            self._add(kind, names=names | {"__call__"}, far=far)

    def _class(self, cls: type, names: frozenset[str], far: bool) -> None:
        """Of a class of the user's all methods, of another one those that were named."""
        own = self._is_users(module_places.home_of(cls)) is not False
        for base in cls.__mro__:
            if not base.__flags__ & module_places.HEAP_TYPE:  # nobody changes it
                continue
            space, top, users = vars(base), _top(base), self._is_users(module_places.home_of(base))
            large = top in LARGE_PACKAGES or top in OF_PYTHON
            named = names | self.names if large else names
            for name in list(space) if own and not large else (named | {"__init__"}) & space.keys():
                value = space[name]
                if not users:
                    self._note(module_places.home_of(base), name, value, inside=base, far=far or name not in names)
                if top not in LARGE_PACKAGES or self._put_there(value):
                    self._add(value, names=names, far=far)

    def _function(self, function: FunctionType, *, far: bool = False) -> None:
        names = names_of(function.__code__)
        self._add(vars(function).get("__wrapped__"))
        if self._is_users(module_places.home_of(function)):
            self._of_users.add(names)
        else:
            self._in_its_class(function, names, far)
        for _, value in in_closure(function):
            self._add(value, names=names, far=far)
        if not far:
            self._codes.append(function.__code__)
            self.names |= names
            self.modules |= names & sys.modules.keys()
        for home, name, value in named_by(function):
            self._note(home, name, value, far=far)
            if isinstance(value, ModuleType):
                self.modules.add(value.__name__)
            self._add(value, names=names, far=far)

    def _in_its_class(self, function: FunctionType, names: frozenset[str], far: bool) -> None:
        """What a library's method takes from its own class."""
        for base in getattr(_class_of(function), "__mro__", ()):
            for name in names & vars(base).keys() if base.__flags__ & module_places.HEAP_TYPE else ():
                value = vars(base)[name]
                if self._put_there(value):
                    self._note(module_places.home_of(base), name, value, inside=base)
                    self._add(value, names=names)
                elif far and type(value) is FunctionType:
                    self._add(value, far=True)

    def _note_what_is_registered(self) -> None:
        """With Python's own modules, whoever asks them."""
        tops = {name.partition(".")[0] for name in self.modules}
        for home, names in module_places.TOLD_BY_VALUE.items():
            if home in sys.modules and home.partition(".")[0] in tops:
                self.beside.setdefault(home, set()).update(names)
        for home, names in module_places.REGISTRIES.items():
            space = getattr(sys.modules.get(home), "__dict__", {})
            if found := [name for name in names if name in space and _is_told_of_users(space[name])]:
                self.beside.setdefault(home, set()).update(found)
        for home in module_places.ABSTRACT_MODULES:
            for name, value in list(getattr(sys.modules.get(home), "__dict__", {}).items()):
                if isinstance(value, type) and module_places.registered(value):
                    self.beside.setdefault(module_places.home_of(value), set()).add(name)

    def _is_users(self, home: str) -> bool | None:
        """Whether a module is the user's own; None where there is none."""
        if home not in self._whose:
            module = sys.modules.get(home)
            self._whose[home] = not home or home in stand_ins() or (None if module is None else of_user(module))
        return self._whose[home]

    def _put_there(self, value: Any) -> bool:
        return put_there(value, lambda thing: bool(self._is_users(module_places.home_of(thing))))

    def _note(self, home: str, name: str, value: Any, *, inside: type | None = None, far: bool = False) -> None:
        """`inside`: the class that has it; `far`: only if somebody has put it there."""
        kind, top = type(value), home.partition(".")[0]
        if (
            kind is ModuleType
            or (far and kind in module_places.ATOM_TYPES)
            or top in NOT_OF_USER
            or top in OF_THE_WORKER
        ):
            return
        if (home, name) in AND_IN or self._is_users(home) is not False:
            return
        if far or top in OF_PYTHON or top in LARGE_PACKAGES:  # what these hold for themselves is each process's own
            code = () if inside is not None or home == "builtins" else CODE
            if (far or kind not in (*module_places.ATOM_TYPES, *code)) and not self._put_there(value):
                return
        elif inside is not None and _is_native(value, inside, name):
            return
        self.beside.setdefault(home, set()).update(
            (name,) if inside is None else (name, *inside.__qualname__.split("."))
        )


def _is_native(value: Any, cls: type, name: str) -> bool:
    """Whether a method is the one that was written in its class."""
    value = getattr(value, "__func__", getattr(value, "fget", value))
    return (
        type(value) is FunctionType
        and value.__qualname__ == f"{cls.__qualname__}.{name}"
        and value.__code__.co_name == name
        and module_places.home_of(value) == module_places.home_of(cls)
    )


def put_there(value: Any, is_users: Callable[[Any], bool] = module_places.is_users) -> bool:
    """Whether a thing in a library can only be there because somebody has put it there: it, or something that it holds, is
    the user's, or a mock."""
    kind = type(value)
    if kind is FunctionType or issubclass(kind, type):
        return is_users(value)
    if kind in module_places.WRAPPER_PARTS:
        return any(put_there(getattr(value, each), is_users) for each in module_places.WRAPPER_PARTS[kind])
    if kind is functools.partial:
        return put_there(value.func, is_users)
    home = module_places.home_of(kind)
    if home == "unittest.mock" or (home != "builtins" and is_users(kind)):
        return True
    held = getattr(value, "__dict__", None) if kind.__flags__ & module_places.HEAP_TYPE else None
    return type(held) is dict and any(
        is_users(each) for each in list(held.values()) if type(each) is FunctionType or issubclass(type(each), type)
    )


def _is_told_of_users(registry: Any) -> bool:
    if type(registry) is not dict:
        return put_there(registry) or any(map(put_there, getattr(registry, "handlers", ())))
    for key, value in list(registry.items()):
        parts = [key, value, *(key if type(key) is tuple else ()), *(value if type(value) is tuple else ())]
        if any(
            (type(each) is FunctionType or isinstance(each, type)) and module_places.is_users(each) for each in parts
        ):
            return True
    return False


def _class_of(function: FunctionType) -> Any:
    """The class in which a function was written, where that is found under its name."""
    found: Any = sys.modules.get(module_places.home_of(function))
    for part in function.__qualname__.split(".")[:-1]:
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) else None


def _top(thing: Any) -> str:
    return module_places.home_of(thing).partition(".")[0]
