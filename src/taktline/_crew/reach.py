"""What steps can get at: by the names in their code, their closures, defaults, arguments and attributes, transitively.

Names are followed into the user's own modules only. What an installed package keeps for itself is not looked through:
its threads, sockets and devices are seen from outside (`starts.py`).
"""

from __future__ import annotations

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
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from taktline._signals import pass_on
from taktline._wire.homes import installed

MOST = 20_000  # things that are looked at: beyond, what is left is taken for more of the same. Some 20 ms
SAMPLE = 100  # things of a container, for the same reason
PLAIN = {
    int, float, complex, bool, str, bytes, bytearray, type(None), type(...), types.CodeType, weakref.ref, ContextVar,
    range, slice, memoryview,
}  # fmt: skip
# Forked or not, a worker has its own of these: what they hold is not looked into.
OWN_IN_WORKERS = (logging.Logger, logging.Handler, logging.Manager, random.Random)
OURS = str(Path(__file__).resolve().parents[1]) + os.sep


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


def is_own(filename: str | None) -> bool:
    """Whether code of this file is the user's own: not of an installed package, and not of the standard library."""
    if filename is None or filename.startswith(("<frozen", OURS)):
        return False
    return filename.startswith("<") or not filename or not installed(filename)


def module_file(kind: type) -> str | None:
    """The file that a class comes from. What was typed in has none, and is the user's own; so is what no module holds."""
    module = sys.modules.get(kind.__module__)
    if module is None or kind.__module__ == "__main__":
        return ""
    return getattr(module, "__file__", None)


def _inside(thing: Any, way: str) -> Iterator[Reached]:
    if isinstance(thing, types.FunctionType):
        yield from _of_function(thing, way)
    elif isinstance(thing, type):
        if is_own(module_file(thing)):
            for name, value in list(vars(thing).items()):
                yield Reached(value, f"{thing.__qualname__}.{name}")
            yield from (Reached(base, way) for base in thing.__bases__)
    elif isinstance(thing, types.BuiltinFunctionType):
        if not isinstance(thing.__self__, types.ModuleType):
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
    elif not isinstance(thing, types.ModuleType):
        yield Reached(type(thing), way)
        names = _attributes(thing)
        yield from (Reached(each, names.get(id(each), way)) for each in gc.get_referents(thing))


def _of_numpy_random(thing: Any) -> bool:
    return str(type(thing).__module__).startswith("numpy.random.")


def _of_function(function: types.FunctionType, way: str) -> Iterator[Reached]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        try:
            yield Reached(cell.cell_contents, f"{way}, {name!r}")
        except ValueError as error:  # a name that has no value yet
            pass_on(error)
            continue
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values()):
        yield Reached(value, way)
    if not is_own(function.__code__.co_filename):
        return
    names = set(_names(function.__code__))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
        elif name in sys.modules:  # imported inside the function
            value = sys.modules[name]
        else:
            continue
        if isinstance(value, types.ModuleType):
            yield from _of_module(value, names, set())
        else:
            yield Reached(value, f"{function.__globals__.get('__name__')}.{name}")


def _of_module(module: types.ModuleType, names: set[str], seen: set[int]) -> Iterator[Reached]:
    """What code with these names may take out of a module, or of a module in it."""
    if id(module) in seen:
        return
    seen.add(id(module))
    for name in names & vars(module).keys():
        value = vars(module)[name]
        if isinstance(value, types.ModuleType):
            yield from _of_module(value, names, seen)
        else:
            yield Reached(value, f"{module.__name__}.{name}")


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _attributes(thing: Any) -> dict[int, str]:
    found = getattr(thing, "__dict__", None)
    if not isinstance(found, dict):
        return {}
    return {id(value): f"{type(thing).__qualname__}.{name}" for name, value in found.items()}


def _key(way: str, key: Any) -> str:
    return f"{way}[{key!r}]" if type(key) in (str, int) else way
