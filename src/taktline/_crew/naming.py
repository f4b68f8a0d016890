"""What the code of some steps names: the functions that it calls, transitively, and what it takes from modules."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from taktline._crew import modules
from taktline._recipe.steps import Step
from taktline._signals import pass_on
from taktline._wire.homes import NEVER, of_user

# A worker has hooks of its own in them.
OF_THE_WORKER = {"sys", "builtins", "warnings", "logging", "signal", "faulthandler"}
# Named only: Python's own modules, and large packages whose settings go by their own functions (`settings.py`).
NOT_INTO = {*sys.stdlib_module_names, "numpy", "pandas", "pyarrow", "polars", "scipy", "sklearn", "torch", "tensorflow"}
TABLE = 100  # entries of a container that are followed: as many functions as a table of them may have
FAR = 2_000  # functions that are looked at: some 10 ms; the nearest come first


class Naming:
    """`beside`: of modules that are not the user's, the names that this code uses. Of those that are its functions are
    followed, of installed packages too, but for Python's own and some large ones."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.beside: dict[str, set[str]] = {}
        self._codes: list[CodeType] = []
        self._seen: set[int] = set()
        self._modules: set[tuple[str, frozenset[str]]] = set()
        self._todo: deque[tuple[Any, frozenset[str]]] = deque()
        self._alive: list[Any] = []  # what has an id in `seen`
        for step in steps:
            self._add(step.fn, step.like)
            if step.maker is not None:
                self._add(step.maker.factory, *step.maker.args, *step.maker.kwargs.values())
        while self._todo and len(self._codes) < FAR:
            self._look(*self._todo.popleft())

    def stores(self, name: str) -> bool:
        """Whether the steps' own code sets a global or an attribute of this name."""
        return any(name in modules.stores(code) for code in self._codes if name in code.co_names or code.co_consts)

    def _add(self, *things: Any, names: frozenset[str] = frozenset()) -> None:
        for thing in things:
            if thing is not None and type(thing) not in modules.ATOMS:
                self._todo.append((thing, names))

    def _look(self, thing: Any, names: frozenset[str]) -> None:
        if id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        self._alive.append(thing)
        kind = type(thing)
        if kind is FunctionType:
            self._function(thing)
        elif kind is MethodType:
            self._add(thing.__func__, thing.__self__)
        elif kind in (list, tuple, set, frozenset):
            self._add(*islice(thing, TABLE))
        elif kind is dict:
            self._add(*islice(thing.values(), TABLE))
        elif kind is functools.partial:
            self._add(thing.func, *thing.args, *thing.keywords.values())
        elif kind in (staticmethod, classmethod):
            self._add(thing.__func__)
        elif kind is property:
            self._add(thing.fget, thing.fset)
        elif issubclass(kind, type):
            self._class(thing, names)
        elif kind is not ModuleType and modules.home_of(kind) != "builtins":
            self._add(getattr(thing, "__wrapped__", None) if modules.home_of(kind) == "functools" else None)
            self._add(kind, names=names | {"__call__"})

    def _class(self, cls: type, names: frozenset[str]) -> None:
        """Of a class of the user's all methods, of another one those that were named."""
        home = sys.modules.get(modules.home_of(cls))
        own = home is None or home.__name__ == "__main__" or of_user(home)
        for base in cls.__mro__:
            if modules.home_of(base).partition(".")[0] in NOT_INTO:
                continue
            for name, value in list(vars(base).items()):
                if own or name in names or name == "__init__":
                    self._add(value)

    def _function(self, function: FunctionType) -> None:
        home = modules.home_of(function)
        if home.partition(".")[0] in NOT_INTO:
            return
        names = frozenset(_names(function.__code__))
        self._codes.append(function.__code__)
        self._add(vars(function).get("__wrapped__"))
        for cell in function.__closure__ or ():
            try:
                self._value(cell.cell_contents, names)
            except ValueError as error:  # a name that is bound later
                pass_on(error)
        space = function.__globals__
        for name in names:
            if name in space:
                self._note(home, name, space[name])
                self._value(space[name], names)
            elif name in sys.modules:  # imported in the function itself
                self._value(sys.modules[name], names)

    def _value(self, value: Any, names: frozenset[str]) -> None:
        if type(value) is ModuleType:
            self._module(value, names)
        else:
            self._add(value, names=names)

    def _module(self, module: ModuleType, names: frozenset[str]) -> None:
        """What is named of a module, and of modules that are named by way of it."""
        if (module.__name__, names) in self._modules:
            return
        self._modules.add((module.__name__, names))
        space = vars(module)
        for name in names:
            if name not in space:
                continue
            value = space[name]
            self._note(module.__name__, name, value)
            self._value(value, names)

    def _note(self, home: str, name: str, value: Any) -> None:
        module, top = sys.modules.get(home), home.partition(".")[0]
        if module is None or top in NEVER or top in OF_THE_WORKER or of_user(module):
            return
        if (
            top in NOT_INTO
            and type(value) not in (FunctionType, type, *modules.ATOMS)
            and not _is_put_there(type(value))
        ):
            return  # what these hold for themselves is each process's own
        self.beside.setdefault(home, set()).add(name)


def _is_put_there(kind: type) -> bool:
    """Whether an object of this class in a library can only be there because somebody has put it there."""
    home = modules.home_of(kind)
    module = sys.modules.get(home)
    return home in ("__main__", "unittest.mock") or (module is not None and of_user(module))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
