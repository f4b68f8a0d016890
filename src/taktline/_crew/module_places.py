"""Which names of a module and of what stands in it are compared, and where each of them is to be found and put."""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.machinery
import sys
from _abc import _get_dump  # type: ignore[import-not-found]
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from taktline._signals import pass_on
from taktline._wire.homes import is_found, of_user, stand_ins

ATOM_TYPES = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
NOT_NAMED = {*ATOM_TYPES, tuple, frozenset, FunctionType, BuiltinFunctionType, ModuleType, type}  # nobody changes them
# What Python itself puts into modules and classes.
OWN_NAMES = {
    "__name__", "__qualname__", "__module__", "__doc__", "__package__", "__loader__", "__spec__", "__path__", "__file__",
    "__cached__", "__builtins__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    "__warningregistry__", "__dict__", "__weakref__", "__slots__", "__firstlineno__", "__static_attributes__", "__test__",
    "__conditional_annotations__",
}  # fmt: skip
# Where Python's own modules keep what they were told at run time: by name, and those that hold functions and classes.
TOLD_BY_VALUE = {
    "xml.etree.ElementTree": ("_namespace_map",), "email.charset": ("CHARSETS", "ALIASES", "CODEC_MAP"),
    "gettext": ("_current_domain", "_localedirs"), "calendar": ("c",), "zoneinfo._tzpath": ("TZPATH",),
    "multiprocessing.context": ("_default_context",), "ssl": ("_create_default_https_context",),
}  # fmt: skip
REGISTRIES = {
    "json": ("_default_encoder", "_default_decoder"), "urllib.request": ("_opener",),
    "shutil": ("_ARCHIVE_FORMATS", "_UNPACK_FORMATS"), "sqlite3.dbapi2": ("adapters", "converters"),
    "asyncio.events": ("_event_loop_policy",),
}  # fmt: skip
ABSTRACT_MODULES = ("collections.abc", "numbers", "os", "contextlib", "io", "importlib.abc", "asyncio")
REGISTRY = "__registered__"  # in a path: what an abstract class was told of
DEFAULTS = ("__defaults__", "__kwdefaults__")
CACHED: type = type(functools.lru_cache(len))
# By class: the attributes behind which a function stands that was wrapped.
WRAPPER_PARTS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",), classmethod: ("__func__",), property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",), functools.singledispatchmethod: ("dispatcher",),
    CACHED: ("__wrapped__",),
}  # fmt: skip
HEAP_TYPE = 1 << 9  # flag of types that are made at run time: all that are written in Python, and some others
# A module, and a name in it; "Class.attribute" for what stands in a class, "function.__closure__.name" in a closure.
Path = tuple[str, str]
MISSING: Any = object()


class GlobalPlace(NamedTuple):
    owner: Any
    name: str
    value: Any


def places_of(home: str, names: frozenset[str] | None = None) -> Iterator[tuple[str, GlobalPlace]]:
    """What is compared of a module, or of what stands in its place: its globals, and what its classes and functions hold."""
    module = sys.modules[home]
    space = vars(module)
    seen: set[int] = set()
    for name, value in list(space.items()):
        if (names is not None and name not in names) or name in OWN_NAMES or not name.isidentifier():
            continue
        yield name, GlobalPlace(module, name, value)
        if not issubclass(type(value), type):
            yield from _in_function(name, value, home, seen)
        elif _is_of(value, home, name):
            yield from _in_class(name, value, home, names, seen)


def _in_class(
    path: str, cls: type, home: str, names: frozenset[str] | None, seen: set[int]
) -> Iterator[tuple[str, GlobalPlace]]:
    if id(cls) in seen:
        return
    seen.add(id(cls))
    members = cls.__members__ if issubclass(cls, Enum) else {}
    for name, member in members.items():
        yield from _in_member(f"{path}.{name}", member, name)
    if told_of := registered(cls):
        yield f"{path}.{REGISTRY}", GlobalPlace(cls, REGISTRY, told_of)
    if names is None and cls.__bases__ != (object,):
        yield f"{path}.__bases__", GlobalPlace(cls, "__bases__", cls.__bases__)
    for name, value in list(vars(cls).items()):
        if (names is not None and name not in names) or name in members or not _is_told(name, value, bool(members)):
            continue
        yield f"{path}.{name}", GlobalPlace(cls, name, value)
        if not issubclass(type(value), type):
            yield from _in_function(f"{path}.{name}", value, home, seen)
        elif _is_of(value, home, f"{path}.{name}"):
            yield from _in_class(f"{path}.{name}", value, home, names, seen)


def _is_of(cls: type, home: str, path: str) -> bool:
    """Whether a class belongs to this place of a module: it was written there, or is found nowhere else."""
    return vars(cls).get("__module__") == home and (cls.__qualname__ == path or not stands_under_its_name(cls))


def registered(cls: type) -> tuple[type, ...]:
    """The classes that an abstract one was told of; where it is not the user's, those of the user's."""
    if isinstance(cls, ABCMeta):
        found = [each for refers in _get_dump(cls)[0] if (each := refers()) is not None]
        return tuple(sorted((each for each in found if is_users(each) or is_users(cls)), key=_sorting))
    return ()


def _sorting(cls: type) -> tuple[str, str]:
    return home_of(cls), cls.__qualname__


def _in_member(path: str, member: Any, name: str) -> Iterator[tuple[str, GlobalPlace]]:
    """What a member of an enumeration holds, under the first of its names."""
    for attribute, held in list(vars(member).items()) if member._name_ == name else ():
        if not (attribute.startswith("_") and attribute.endswith("_")) or (
            attribute == "_value_" and type(held) not in (*ATOM_TYPES, tuple)
        ):
            yield f"{path}.{attribute}", GlobalPlace(member, attribute, held)


def _in_function(path: str, value: Any, home: str, seen: set[int]) -> Iterator[tuple[str, GlobalPlace]]:
    """What a function holds beside its code, and those that it wraps: attributes, defaults, and what its closure has."""
    kind = type(value)
    if kind is not FunctionType:
        for part in WRAPPER_PARTS.get(kind, ()):
            yield from _in_function(f"{path}.{part}", getattr(value, part), home, seen)
        if kind is CACHED:
            yield from _attributes_of(path, value)
        return
    if id(value) in seen or (
        home_of(value) != home and stands_under_its_name(value)
    ):  # else it is told of where it stands
        return
    seen.add(id(value))
    yield from _attributes_of(path, value)
    for name in DEFAULTS:
        if held := getattr(value, name):
            yield f"{path}.{name}", GlobalPlace(value, name, held)
    for name, cell in _cells(value).items():
        if name != "__class__" and (held := _held(cell, name)) is not MISSING and not _is_its_librarys(value, held):
            yield f"{path}.__closure__.{name}", GlobalPlace(cell, name, held)
            yield from _in_function(f"{path}.__closure__.{name}", held, home, seen)


def _is_its_librarys(function: FunctionType, held: Any) -> bool:
    """Whether a library's wrapper holds something of that library: each process has its own, by its own import."""
    top, kind = str(function.__globals__.get("__name__", "")).partition(".")[0], type(held)
    return home_of(kind).partition(".")[0] == top and top not in sys.stdlib_module_names and not is_users(kind)


def _attributes_of(path: str, function: Any) -> Iterator[tuple[str, GlobalPlace]]:
    for name, held in list(getattr(function, "__dict__", {}).items()):
        if not _dunder(name):
            yield f"{path}.{name}", GlobalPlace(function, name, held)


def _cells(function: FunctionType) -> dict[str, CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))


def _is_told(name: str, value: Any, of_enum: bool) -> bool:
    """Whether an attribute of a class is compared. Of the names that are Python's or a library's: functions and texts."""
    if of_enum and name.startswith("_") and name.endswith("_") and not _dunder(name):
        return False
    kind = type(value)
    return not _dunder(name) or (
        name not in OWN_NAMES and (kind is FunctionType or kind in WRAPPER_PARTS or kind in (int, float, str, bytes))
    )


def home_of(thing: Any) -> str:
    """The name of the module that a function or class says it comes from; empty where it says none."""
    found = getattr(thing, "__module__", None)
    return found if type(found) is str else ""


def is_users(thing: Any) -> bool:
    """Whether a function or class is the user's own, such as of code that was run without a module."""
    home = home_of(thing)
    return not home or home in stand_ins() or of_user(sys.modules.get(home))


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def names_of(scope: Iterable[tuple[str, frozenset[str] | None]]) -> dict[int, Path]:
    """By id: under what name of the user's modules each object stands that somebody may change; the first one where it
    has more."""
    names: dict[int, Path] = {}
    for home, only in scope:
        if only is None and home in sys.modules:
            for name, place in places_of(home):
                kind = type(place.value)
                if kind not in NOT_NAMED and not issubclass(kind, type):
                    names.setdefault(id(place.value), (home, name))
    return names


def stands_under_its_name(thing: Any) -> bool:
    """Whether a function or class is found under its own name."""
    found: Any = sys.modules.get(home_of(thing))
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def is_own_place(name: str, thing: Any) -> bool:
    """Whether a worker that imports this name has an object of the same class in its place."""
    return home_of(type(thing)) == name and is_found(name) and hasattr(thing, "__dict__")


def is_plain(kind: Any) -> bool:
    """Whether a class is written in Python, and its objects are pickled as any are: by their attributes."""
    if not kind.__flags__ & HEAP_TYPE or not any(
        {"__dict__", "__slots__"} & vars(base).keys() for base in kind.__mro__
    ):
        return False
    return kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__


def state_of(thing: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    state = {}
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not _dunder(name) else name
            if mangled not in ("__dict__", "__weakref__") and hasattr(thing, mangled):
                state[mangled] = getattr(thing, mangled)
    return state | dict(getattr(thing, "__dict__", {}))


def _inner(owner: Any, part: str) -> Any:
    """What a part of a path leads to; None where that is nothing. The part after `__closure__` leads to what a cell has."""
    if type(owner) is dict:
        held = _held(owner[part], part) if part in owner else None
        return None if held is MISSING else held
    if type(owner) is FunctionType and part == "__closure__":
        return _cells(owner)
    if isinstance(owner, type) and issubclass(owner, Enum) and part in owner.__members__:
        return owner.__members__[part]
    if part in WRAPPER_PARTS.get(type(owner), ()):
        return getattr(owner, part)
    return getattr(owner, "__dict__", {}).get(part)


def owner_of(module: ModuleType, name: str) -> Any:
    """The module, class, function or cell in which a path's last name stands; None where there is none."""
    *above, last = name.split(".")
    owner: Any = module
    for part in above:
        owner = _inner(owner, part)
        if owner is None:
            return None
    if type(owner) is dict:
        return owner.get(last)
    return owner if hasattr(owner, "__dict__") else None


def _held(owner: Any, name: str) -> Any:
    if type(owner) is CellType:
        try:
            return owner.cell_contents
        except ValueError as error:  # a name that is bound later
            pass_on(error)
            return MISSING
    if name == REGISTRY:
        return registered(owner)
    if (type(owner) is FunctionType and name in DEFAULTS) or name == "__bases__":
        return getattr(owner, name)
    return vars(owner).get(name, MISSING)


def find(path: Path) -> Any:
    """What stands at a path now; MISSING where there is nothing, or not yet."""
    owner = owner_of(importlib.import_module(path[0]), path[1])
    return _held(owner, path[1].rpartition(".")[2]) if owner is not None else MISSING


def put(place: GlobalPlace, value: Any) -> None:
    owner, name = place.owner, place.name
    if name == REGISTRY:
        for each in value:
            owner.register(each)
    elif isinstance(owner, type):
        type.__setattr__(owner, name, value)  # no metaclass has a say: the caller's had
    elif type(owner) is CellType:
        owner.cell_contents = value
    elif type(owner) is FunctionType and name in DEFAULTS:
        setattr(owner, name, value)
    else:
        vars(owner)[name] = value


def nearest_above(name: str, places: Mapping[str, Any]) -> str:
    """The nearest of these places in which this one is; empty where there is none."""
    while name := name.rpartition(".")[0]:
        if name in places:
            return name
    return ""


def can_go(name: str, place: GlobalPlace) -> bool:
    return type(place.owner) is not CellType and type(place.value) is not ModuleType and place.name != REGISTRY


def drop(place: GlobalPlace) -> None:
    owner, name = place.owner, place.name
    if type(owner) is FunctionType and name in DEFAULTS:
        setattr(owner, name, None)
    elif isinstance(owner, type):
        type.__delattr__(owner, name)
    else:
        vars(owner).pop(name)


def stored_beside(owner: Any, names: set[str]) -> set[str]:
    """What functions of a module or class set together with one of these names: a connection and the flag that says it
    is there belong together."""
    found: set[str] = set()
    for code in codes_of(owner):
        stored = stores(code)
        if stored & names:
            found |= stored
    return found


def codes_of(owner: Any) -> Iterator[CodeType]:
    spaces = [vars(base) for base in owner.__mro__] if isinstance(owner, type) else [vars(owner)]
    home = owner.__name__
    for space in spaces:
        for value in list(space.values()):
            value = getattr(value, "__func__", value)
            if type(value) is FunctionType:
                yield value.__code__
            elif isinstance(owner, ModuleType) and issubclass(type(value), type) and home_of(value) == home:
                yield from codes_of(value)


STORING = {dis.opmap["STORE_GLOBAL"], dis.opmap["STORE_ATTR"], dis.opmap["STORE_DEREF"]}


def stores(code: CodeType) -> set[str]:
    """The globals, attributes and names of closures that this code sets."""
    if not code.co_names and not code.co_freevars and not code.co_cellvars:
        return set()
    found = {each.argval for each in dis.get_instructions(code) if each.opcode in STORING}
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found |= stores(const)
    return found
