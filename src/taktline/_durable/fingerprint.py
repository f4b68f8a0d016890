"""Fingerprints: short texts that change when what a run's results depend on does, and that are the same in each process.

A value is looked at by what it holds, as a pickle would, but for the order of sets, for what is one object and what two
equal ones, and for lines and addresses. Code is looked at with all that it names: functions, classes, values and modules
that are not installed. What code changes by itself, such as a cache, is its state, and no part of what it is.
"""

from __future__ import annotations

import copyreg
import functools
import marshal
import os
import random
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

DEEP = 60  # levels of values inside values that are looked at
MOST = 300_000  # values that are looked at for one fingerprint, some 2 µs each
MOST_OF_RECORD = 20_000
ATOMS = {type(None), bool, int, float, str, bytes}
PLAIN = {*ATOMS, complex, range, type(...), type(NotImplemented)}
MUTATORS = {
    "append", "add", "update", "pop", "popitem", "setdefault", "clear", "remove", "discard", "extend", "insert", "sort",
    "reverse", "appendleft", "extendleft", "popleft", "rotate", "move_to_end", "subtract", "intersection_update",
    "difference_update", "symmetric_difference_update", "write", "put", "put_nowait", "__setitem__", "__delitem__",
}  # fmt: skip
NAMED = (
    BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType,
)  # fmt: skip
# Of a class: what its lines, its building and its use put there.
NO_PART = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__", "__slots__",
    "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__orig_bases__", "__parameters__", "__hash__",
}  # fmt: skip
SETS_UP = {"__init__", "__new__", "__post_init__", "__setstate__", "load"}  # methods whose work is no change by use
LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST", "LOAD_FAST_BORROW"}
FAST = {"LOAD_FAST", "LOAD_FAST_BORROW"}
BINDS = {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"}
CHANGES = {"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE", "STORE_ATTR", "DELETE_ATTR"}
CALLS = {"CALL", "CALL_KW", "CALL_FUNCTION_EX"}
# What an instruction does with what was loaded just before it, and changes nothing there; functions that change nothing.
READS = {"CONTAINS_OP", "IS_OP", "COMPARE_OP", "BINARY_OP", "BINARY_SUBSCR", "GET_ITER"}
READERS = {
    "len", "sorted", "sum", "min", "max", "any", "all", "isinstance", "enumerate", "zip", "range", "list", "dict", "set",
    "tuple", "frozenset", "str", "repr", "bool", "print", "filter", "map", "reversed", "iter", "type", "id", "getattr",
    "hasattr",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Print:
    """A fingerprint, and what it could not look at, in words."""

    digest: str
    untold: tuple[str, ...] = ()


def look(*things: Any) -> Print:
    """The fingerprint of functions and what they are made with, and what of it cannot be told."""
    looking = _Look(MOST, {root for thing in things if (root := _root(thing))})
    digest = looking.mixed("things", map(looking.of, things))
    return Print(digest.hex(), tuple(looking.untold))


def of_code(*things: Any) -> str:
    """`look`, without what cannot be told.

    >>> two, eight = functools.partial(int, base=2), functools.partial(int, base=8)
    >>> of_code(two) == of_code(functools.partial(int, base=2)), of_code(two) == of_code(eight)
    (True, False)
    """
    return look(*things).digest


def of_record(record: Any) -> str:
    """A fingerprint of a record by its values; empty where it holds something that cannot be told.

    >>> of_record({"n": 1}) == of_record({"n": 1}), of_record({"n": 1}) == of_record({"n": 2})
    (True, False)
    """
    looking = _Look(MOST_OF_RECORD, None)
    digest = looking.of(record)
    return "" if looking.untold else looking.mixed("record", [digest]).hex()


class _Look:
    """One look. `roots`: names of packages that are the user's wherever they lie; None: at values alone, not at code."""

    def __init__(self, most: int, roots: set[str] | None) -> None:
        self.untold: dict[str, None] = {}
        self._left = most
        self._roots = roots
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._path: dict[int, int] = {}  # what is being looked into, and at which depth
        self._sources: set[str] = set()  # names of modules that were looked into by their source
        self._names: list[str] = []  # by which these were reached

    def mixed(self, tag: str, parts: Iterable[bytes]) -> bytes:
        mixed = blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=12)
        for part in parts:
            mixed.update(len(part).to_bytes(8, "little"))
            mixed.update(part)
        return mixed.digest()

    def of(self, thing: Any) -> bytes:
        kind, key = type(thing), id(thing)
        if kind in PLAIN:
            return _plain(kind, thing)
        if key in self._known:
            return self._known[key][1]
        if key in self._path:
            return b"again %d" % (len(self._path) - self._path[key])
        if len(self._path) >= DEEP or self._left <= 0:
            return self._cannot(thing, "too deep" if self._left > 0 else "too large to be looked at whole")
        self._left -= 1
        self._path[key] = len(self._path)
        try:
            digest = self._inside(kind, thing)
        finally:
            del self._path[key]
        self._known[key] = thing, digest  # with the thing itself, so that no other one gets its address
        return digest

    def _named(self, name: str, thing: Any) -> bytes:
        self._names.append(name)
        try:
            return self.mixed(name, [self.of(thing)])
        finally:
            self._names.pop()

    def _cannot(self, thing: Any, why: str = "") -> bytes:
        where = next((name for name in reversed(self._names) if name), "")
        what = f"{where}, a {type(thing).__qualname__}" if where else f"a {type(thing).__qualname__}"
        what += f" ({why})" if why else ""
        self.untold[what] = None
        return _name(type(thing)).encode()

    def _inside(self, kind: type, thing: Any) -> bytes:
        for kinds, how in _HOW:
            if kind in kinds:
                return how(self, thing)
        if isinstance(thing, type):
            return self._class(thing)
        if kind is functools._lru_cache_wrapper:
            return self.mixed("cached", [self.of(thing.__wrapped__)])
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not thing.dtype.hasobject:
            return self.mixed(f"array {thing.dtype.descr} {thing.shape}", [thing.tobytes()])
        if isinstance(thing, random.Random) or kind.__module__.startswith("numpy.random"):
            return _name(kind).encode()  # numbers that differ from process to process are no change
        if isinstance(thing, weakref.ref) or kind.__module__ in ("weakref", "_weakrefset", "_weakref"):
            return _name(kind).encode()
        if kind.__module__ == "taktline" and kind.__name__ in ("Run", "Report", "Snapshot"):
            return _name(kind).encode()  # what a step is told of runs differs from run to run
        return self._object(kind, thing)

    # --- values ---

    def _row(self, thing: list[Any] | tuple[Any, ...]) -> bytes:
        if len(thing) > 16 and set(map(type, thing)) <= ATOMS:
            self._left -= len(thing) // 64
            return self.mixed(type(thing).__name__, [marshal.dumps(thing, 2)])
        return self.mixed(type(thing).__name__, map(self.of, thing))

    def _set(self, thing: set[Any] | frozenset[Any]) -> bytes:
        return self.mixed(
            type(thing).__name__, sorted(map(self.of, thing))
        )  # their order differs from process to process

    def _dict(self, thing: Any) -> bytes:
        if len(thing) > 16 and set(map(type, thing)) | set(map(type, thing.values())) <= ATOMS:
            self._left -= len(thing) // 32
            return self.mixed("dict", [marshal.dumps(dict(thing), 2)])
        return self.mixed("dict", self._pairs(thing.items()))

    def _pairs(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[bytes]:
        for key, value in pairs:
            yield self.of(key)
            yield self._named(key if isinstance(key, str) else "", value)

    def _object(self, kind: type, thing: Any) -> bytes:
        try:
            given = copyreg.dispatch_table.get(kind)
            reduced = given(thing) if given is not None else thing.__reduce_ex__(4)
        except Exception:  # whatever its class raises there: it cannot be pickled
            return self._cannot(thing)
        if isinstance(reduced, str):
            return f"{kind.__module__}.{reduced}".encode()
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        if isinstance(state, dict):
            state = self._without_changed(kind, state)
        elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = [self._without_changed(kind, each or {}) for each in state]
        parts = [self.of(kind), self.of(make), *map(self.of, arguments), b"state", self.of(state)]
        if items is not None:
            parts += [b"items", *map(self.of, items)]
        if pairs is not None:
            parts += [b"pairs", *self._pairs(pairs)]
        return self.mixed("object", parts)

    def _without_changed(self, kind: type, state: dict[str, Any]) -> dict[str, Any]:
        """An object's attributes, without those that its own methods change."""
        if self._roots is None:
            return state
        own = (
            each for each in kind.__mro__ if self._is_own(vars(sys.modules.get(each.__module__, sys)), each.__module__)
        )
        changed = {name for each in own for name in _changed_by(each)} & state.keys()
        for name in sorted(changed):
            self.untold[f"{name}, which {kind.__qualname__} changes itself"] = None
        return {name: value for name, value in state.items() if name not in changed}

    # --- code ---

    def _code(self, code: CodeType) -> bytes:
        counts = f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}"
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        parts = [code.co_code, code.co_exceptiontable, *map(self.of, names), *map(self.of, code.co_consts)]
        return self.mixed(counts, parts)

    def _function(self, function: FunctionType) -> bytes:
        if self._roots is None:  # what builds a value has a name
            return self._cannot(function) if "<" in function.__qualname__ else _name(function).encode()
        own, code, inside = self._is_own(function.__globals__), function.__code__, vars(function)
        if not own and function.__closure__ is None and not inside:
            return _name(function).encode()
        facts = _facts(code)
        parts = [self._code(code), self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if not _is_filled(cell):
                parts.append(b"not bound")
            else:
                changed = facts.changed if own else facts.bound
                parts.append(self._beside(name, cell.cell_contents, changed))
        parts += [self._named(name, inside[name]) for name in sorted(inside) if name not in facts.attributes]
        if own:
            parts += self._globals(function.__globals__, facts)
        return self.mixed("function", parts)

    def _globals(self, names: dict[str, Any], facts: _Facts) -> Iterator[bytes]:
        for name in facts.loaded:
            if name not in names:  # of Python itself, or not there yet
                continue
            if isinstance(names[name], ModuleType):
                yield self._module(names[name], facts.names)
            else:
                yield self._beside(name, names[name], facts.changed)
        for name, level in facts.imported:
            try:
                yield self._source(resolve_name("." * level + name, str(names.get("__package__") or "")))
            except ImportError:  # the step will say so
                yield name.encode()

    def _beside(self, name: str, value: Any, changed: set[str]) -> bytes:
        """What a function names beside it: its value, unless the function changes that by itself."""
        if name not in changed or callable(value):
            return self._named(name, value)
        self.untold[f"{name}, which the step changes itself"] = None
        return self.mixed(name, [_name(type(value)).encode()])

    def _module(self, module: ModuleType, names: set[str]) -> bytes:
        """A module, and what code that names these gets from it."""
        if not self._is_own(vars(module)):
            return module.__name__.encode()
        inside = vars(module)
        return self.mixed(
            module.__name__,
            [
                self._module(inside[name], names - {name})
                if isinstance(inside[name], ModuleType)
                else self._named(name, inside[name])
                for name in sorted(names & inside.keys())
            ],
        )

    def _source(self, name: str) -> bytes:
        """A module that is imported while a step runs: its code, whether it is loaded by now or not."""
        if name.partition(".")[0] in {*sys.stdlib_module_names, "taktline", ""}:
            return name.encode()
        if name in self._sources:
            return name.encode()
        spec = _spec_of(name)
        if spec is None or spec.origin is None or not self._is_own({"__name__": name, "__file__": spec.origin}):
            return name.encode()
        self._sources.add(name)
        get: Callable[[str], CodeType | None] | None = getattr(spec.loader, "get_code", None)
        code = get(name) if get is not None else None
        if code is None:
            return self._cannot(name, "a module without Python code")
        further = []
        for inner, level in _facts(code).imported:
            try:
                further.append(self._source(resolve_name("." * level + inner, spec.parent or "")))
            except ImportError:
                further.append(inner.encode())
        return self.mixed(name, [self._code(code), *further])

    def _class(self, kind: type) -> bytes:
        inside = vars(kind)
        if self._roots is None or not self._is_own(vars(sys.modules.get(kind.__module__, sys)), kind.__module__):
            return _name(kind).encode()
        changed = _changed_by(kind)
        parts = [type(kind).__qualname__.encode(), *map(self.of, kind.__bases__)]
        for name in sorted(inside):
            value = inside[name]
            plain = name.startswith("__") and not isinstance(value, (FunctionType, staticmethod, classmethod, property))
            if name not in NO_PART and name not in changed and not plain and not name.startswith("_abc_"):
                parts.append(self._named(name, value))
        return self.mixed(kind.__qualname__, parts)

    def _bound(self, thing: Any) -> bytes:
        """A function of C: its name, and what it is bound to, unless it is there to be changed by it."""
        owner = getattr(thing, "__self__", None)
        if owner is None or isinstance(owner, ModuleType):
            return _name(thing).encode()
        held = _name(type(owner)).encode() if thing.__name__ in MUTATORS else self.of(owner)
        return self.mixed(_name(thing), [held])

    def _is_own(self, names: dict[str, Any], name: str = "") -> bool:
        """Whether a module, given by its names, is the user's: not installed, and not Python's own."""
        assert self._roots is not None
        name, file = str(names.get("__name__") or name), names.get("__file__")
        root = name.partition(".")[0]
        if root == "taktline":
            return False
        if not isinstance(file, str):
            return root == "__main__" or root not in sys.stdlib_module_names
        return not _is_pythons(file) and (root in self._roots or not _is_installed(file))


_HOW: list[tuple[set[type], Callable[[_Look, Any], bytes]]] = [  # what is looked into, by its type
    ({list, tuple}, _Look._row),
    ({set, frozenset}, _Look._set),
    ({dict, MappingProxyType}, _Look._dict),
    ({CodeType}, _Look._code),
    ({FunctionType}, _Look._function),
    ({MethodType}, lambda look, it: look.mixed("method", [look.of(it.__func__), look.of(it.__self__)])),
    (
        {functools.partial},
        lambda look, it: look.mixed("partial", map(look.of, (it.func, it.args, it.keywords, vars(it)))),
    ),
    ({staticmethod, classmethod}, lambda look, it: look.mixed(type(it).__name__, [look.of(it.__func__)])),
    ({property}, lambda look, it: look.mixed("property", map(look.of, (it.fget, it.fset, it.fdel)))),
    ({functools.cached_property}, lambda look, it: look.mixed("cached", [look.of(it.func)])),
    ({ModuleType}, lambda look, it: str(it.__name__).encode()),
    ({bytearray}, lambda look, it: b"bytearray " + bytes(it)),
    (set(NAMED), _Look._bound),
]


@dataclass(slots=True)
class _Facts:
    """What code does, nested functions among it."""

    loaded: dict[str, None] = field(default_factory=dict)  # global names, in their order
    names: set[str] = field(default_factory=set)  # all names: attributes too
    changed: set[str] = field(default_factory=set)  # names beside it that it binds anew, or changes what is there
    bound: set[str] = field(default_factory=set)  # those that it binds anew
    attributes: set[str] = field(default_factory=set)  # of its first argument, that it sets or changes
    imported: list[tuple[str, int]] = field(default_factory=list)  # modules, and from how many packages up


def changes(thing: Any) -> str:
    """What a function, or an object by its methods, changes beside what it is given; empty where nothing is seen.

    >>> seen = []
    >>> changes(lambda n: seen.append(n)), changes(lambda n: n + 1)
    ('seen', '')
    """
    if isinstance(thing, FunctionType):
        given = (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values())
        kept = next((f"a default, a {type(each).__name__}" for each in given if type(each) in (list, dict, set)), "")
        return next(iter(sorted(_facts(thing.__code__).changed)), kept)
    return next((name for kind in type(thing).__mro__ for name in sorted(_changed_by(kind)) if name), "")


def handed_by(function: FunctionType) -> set[str]:
    """The names beside a function that it hands to others as they are, who may change what is there.

    >>> row = []
    >>> handed_by(lambda n: fill(row, n)), handed_by(lambda n: len(row) + row[n])
    ({'row'}, set())
    """
    return _handed(function.__code__)


def changed_by(kind: type, names: Iterable[str], depth: int) -> str:
    """An attribute that methods of these names set or change, or those that they call by name, so many deep; empty where
    there is none."""
    for name in sorted(names):
        method = next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
        if name in SETS_UP or not isinstance(method, FunctionType):
            continue
        facts = _facts(method.__code__)
        if found := next(filter(None, sorted(facts.attributes)), "") or (
            changed_by(kind, facts.names - {name}, depth - 1) if depth else ""
        ):
            return found
    return ""


def _changed_by(kind: type) -> set[str]:
    """The attributes that the methods of a class set or change, but for those that build it."""
    functions = ((name, getattr(value, "__func__", value)) for name, value in vars(kind).items())
    codes = (each.__code__ for name, each in functions if isinstance(each, FunctionType) and name not in SETS_UP)
    return {name for code in codes for name in _facts(code).attributes}


@functools.lru_cache(512)
def _facts(code: CodeType) -> _Facts:
    import dis

    facts = _Facts(names=set(code.co_names))
    instructions = list(dis.get_instructions(code))
    for n, ins in enumerate(instructions):
        if ins.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            facts.loaded[ins.argval] = None
        elif ins.opname in BINDS and (ins.argval in code.co_freevars or ins.argval in code.co_names):
            facts.changed.add(ins.argval)
            facts.bound.add(ins.argval)
        elif ins.opname == "IMPORT_NAME":
            facts.imported.append((ins.argval, instructions[n - 2].argval or 0))
    _note_changes(code, instructions, facts)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found = _facts(inner)
            facts.loaded.update(found.loaded)
            facts.names |= found.names
            facts.changed |= found.changed
            facts.bound |= found.bound
            facts.imported += found.imported
    return facts


def _note_changes(code: CodeType, instructions: list[Any], facts: _Facts) -> None:
    """What is changed where it is: what an expression begins with begins at the same place in the source as the
    expression, so `name.part[key] = value` is a change of `name`, and of its `part`."""
    starts: dict[Any, tuple[str, str]] = {}  # where an expression begins: the name there, and its first attribute
    for before, ins in zip([None, *instructions], instructions, strict=False):
        place = ins.positions and (ins.positions.lineno, ins.positions.col_offset)
        if not place or place[0] is None:
            continue
        if ins.opname in LOADS:
            starts[place] = ins.argval, ""
        of_attribute = ins.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")
        if of_attribute and place not in starts and before and isinstance(before.argval, tuple):
            starts[place] = before.argval[-1], ""  # two names that were loaded by one instruction
        if place not in starts:
            continue
        name, attribute = starts[place]
        if of_attribute:
            attribute = attribute or ins.argval
            starts[place] = name, attribute
        if ins.opname in CHANGES or (ins.opname in ("LOAD_ATTR", "LOAD_METHOD") and ins.argval in MUTATORS):
            if code.co_argcount and name == code.co_varnames[0]:
                facts.attributes.add(attribute)
            elif name in code.co_names or name in code.co_freevars:
                facts.changed.add(name)
                facts.attributes.add(attribute)  # of a function or a class that changes itself by its name


@functools.lru_cache(512)
def _handed(code: CodeType) -> set[str]:
    """The names that stand as they are among the arguments of a call."""
    import dis

    instructions = list(dis.get_instructions(code))
    ends: dict[Any, set[Any]] = {}  # by where an expression begins: where all that begin there end
    for ins in instructions:
        if (place := _place(ins)) is not None:
            ends.setdefault(place[:2], set()).add(place[2:])
    calls = [place for ins in instructions if ins.opname in CALLS and (place := _place(ins)) is not None]
    found: set[str] = set()
    for ins, then in zip(instructions, [*instructions[1:], None], strict=True):
        place = _place(ins)
        if (
            ins.opname not in LOADS - FAST
            or place is None
            or len(ends[place[:2]]) > 1
            or (then and then.opname in READS)
        ):
            continue
        around = max((call for call in calls if call[:2] < place[:2] and place[2:] <= call[2:]), default=None)
        if around is not None and _called(instructions, around, ends) not in READERS:
            found.add(ins.argval)
    return found.union(*(_handed(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _called(instructions: list[Any], call: tuple[int, int, int, int], ends: dict[Any, set[Any]]) -> str:
    """The name that is called there; empty where it is no name alone."""
    inside = [end for end in ends[call[:2]] if end < call[2:]]
    if len(inside) != 1:
        return ""
    return next(str(ins.argval) for ins in instructions if _place(ins) == (*call[:2], *inside[0]))


def _place(ins: Any) -> tuple[int, int, int, int] | None:
    """Where in the source it begins and ends, as lines and columns."""
    at = ins.positions
    if at is None or None in at:
        return None
    return at.lineno, at.col_offset, at.end_lineno, at.end_col_offset


def _plain(kind: type, thing: Any) -> bytes:
    if kind is str:
        return bytes(b"str " + thing.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return bytes(b"bytes " + thing)
    if kind is int:
        return f"int {thing:x}".encode()
    return f"{kind.__name__} {thing!r}".encode()


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", None) or getattr(getattr(thing, "__objclass__", None), "__module__", "")
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _root(thing: Any) -> str:
    """The package that a step is of: it is looked into also where it is installed."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, (FunctionType, type)):
        return str(thing.__module__ or "").partition(".")[0]
    return ""


def _spec_of(name: str) -> Any:
    """Where a module is, without importing it or its package."""
    path, spec = None, None
    for n, _ in enumerate(name.split("."), 1):
        spec = PathFinder.find_spec(".".join(name.split(".")[:n]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


@functools.cache
def _is_installed(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep))


@functools.cache
def _is_pythons(file: str) -> bool:
    return file.startswith(("<frozen", os.path.dirname(os.__file__) + os.sep)) and not _is_installed(file)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name that is bound later
        return False
    return True
