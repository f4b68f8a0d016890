"""What the caller's modules hold, beside what a worker's own import of them gives; where the two differ, the caller's.

Both ends describe each global and class attribute by a short text: a value by what it is, a function by where it was
written, everything else by a digest of its pickle. Equal texts are the same thing and nothing travels. What differs is
put into the worker's module: into the object that is there, where it can be, so that all who hold it see it.

Objects that stand in a module under a name are told by that name wherever else they occur, so that what was one object
is one object again. What has no value that could go (a connection, a lock) is told by its type: it differs where the
worker has something else in its place.
"""

from __future__ import annotations

import contextvars
import copyreg
import dis
import functools
import importlib
import importlib.machinery
import io
import os
import pickle
import sys
import threading
import weakref
from _abc import _get_dump  # type: ignore[import-not-found]
from abc import ABCMeta
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from taktline._signals import pass_on
from taktline._wire.homes import in_place_of_modules, is_found, loaded, of_user, stand_ins

try:
    from _blake2 import blake2b  # hashlib would load OpenSSL too: 3 ms of a worker's start
except ImportError:
    from hashlib import blake2b

ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
SHORT = 100  # characters of an atom that are told themselves
MANY = 10_000  # entries of a value that is looked through at the speed of C, and put in its place as a whole
SENT = 1 << 16  # bytes of a pickle that go along; a larger one is asked for where it differs
LARGEST = 1 << 26  # bytes of a pickle that are looked at: some 0.4 s; what is larger is known by type and length alone
PLAIN = (list, dict, set, frozenset, tuple, bytearray, deque, OrderedDict, defaultdict)
NOT_NAMED = {*ATOMS, tuple, frozenset, FunctionType, BuiltinFunctionType, ModuleType, type}  # nobody changes them
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
ABSTRACT = ("collections.abc", "numbers", "os", "contextlib", "io", "importlib.abc", "asyncio")
STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")  # a worker has its own
REGISTRY = "__registered__"  # in a path: what an abstract class was told of
WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
DEFAULTS = ("__defaults__", "__kwdefaults__")
CACHED: type = type(functools.lru_cache(len))
# By class: the attributes behind which a function stands that was wrapped.
WRAPPING: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",), classmethod: ("__func__",), property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",), functools.singledispatchmethod: ("dispatcher",),
    CACHED: ("__wrapped__",),
}  # fmt: skip
# Each process has numbers of its own, on purpose.
GENERATORS = {("random", "Random"), ("random", "SystemRandom"), ("_random", "Random")}

HEAP = 1 << 9  # flag of types that are made at run time: all that are written in Python, and some others

# A module, and a name in it; "Class.attribute" for what stands in a class, "function.__closure__.name" in a closure.
Path = tuple[str, str]
MISSING: Any = object()


class Told(NamedTuple):
    """One name of a module. `packed`: what it has, where that is small enough to go along."""

    text: str
    packed: bytes | None


class State(NamedTuple):
    """All that is compared of a module. `names`: those alone; None: all of them. `told`: pickled, by name."""

    names: frozenset[str] | None
    digest: bytes
    told: bytes


class Lost(NamedTuple):
    """What differs and cannot be carried over. `what`: what the caller has there."""

    module: str
    name: str
    what: str


class _Place(NamedTuple):
    owner: Any
    name: str
    value: Any


class _Kept:
    """In a pickle, in the place of what cannot go: what the worker has there, if it is the same kind of thing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, *_: Any, **__: Any) -> Any:
        """What it would have made, or been given to, is no more to be had than itself."""
        return _kept(self.text)

    def __setstate__(self, _: Any) -> None:
        """Nor has it a state."""

    extend = append = __setitem__ = __call__


class _Bare:
    """In a pickle, in the place of an object whose class is not found by its name: what it holds, for one that is there."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


_kept_now: list[_Kept] = []  # those of the pickle that is read back


def _kept(text: str) -> Any:
    if (written := _written(text)) is not None:
        return written
    kept = _Kept(text)
    _kept_now.append(kept)
    return kept


def _bound(of: Any, name: str, text: str) -> Any:
    """A method of an object; of one that is not here, what the worker has."""
    return _kept(text) if type(of) is _Kept else getattr(of, name)


def _written(text: str) -> Any:
    """The function or class of which this tells, where it stands here under its own name. The caller may have put another
    one in its place, such as one that calls it."""
    kind, _, rest = text.partition(" ")
    parts = rest.partition(" ")[0].split(".")
    for count in range(len(parts) - 1, 0, -1) if kind in ("def", "class") and "<" not in text else ():
        found: Any = sys.modules.get(".".join(parts[:count]))
        if found is not None:
            for part in parts[count:]:
                found = getattr(found, part, None)
            return found if found is not None and _reference(found) == text else None
    return None


# --- which modules ---


def _places(home: str, names: frozenset[str] | None = None) -> Iterator[tuple[str, _Place]]:
    """What is compared of a module, or of what stands in its place: its globals, and what its classes and functions hold."""
    module = sys.modules[home]
    space = vars(module)
    seen: set[int] = set()
    for name, value in list(space.items()):
        if (names is not None and name not in names) or name in OWN_NAMES or not name.isidentifier():
            continue
        yield name, _Place(module, name, value)
        if not issubclass(type(value), type):
            yield from _in_function(name, value, home, seen)
        elif _is_of(value, home, name):
            yield from _in_class(name, value, home, names, seen)


def _in_class(
    path: str, cls: type, home: str, names: frozenset[str] | None, seen: set[int]
) -> Iterator[tuple[str, _Place]]:
    if id(cls) in seen:
        return
    seen.add(id(cls))
    members = cls.__members__ if issubclass(cls, Enum) else {}
    for name, member in members.items():
        yield from _in_member(f"{path}.{name}", member, name)
    if told_of := registered(cls):
        yield f"{path}.{REGISTRY}", _Place(cls, REGISTRY, told_of)
    if names is None and cls.__bases__ != (object,):
        yield f"{path}.__bases__", _Place(cls, "__bases__", cls.__bases__)
    for name, value in list(vars(cls).items()):
        if (names is not None and name not in names) or name in members or not _is_told(name, value, bool(members)):
            continue
        yield f"{path}.{name}", _Place(cls, name, value)
        if not issubclass(type(value), type):
            yield from _in_function(f"{path}.{name}", value, home, seen)
        elif _is_of(value, home, f"{path}.{name}"):
            yield from _in_class(f"{path}.{name}", value, home, names, seen)


def _is_of(cls: type, home: str, path: str) -> bool:
    """Whether a class belongs to this place of a module: it was written there, or is found nowhere else."""
    return vars(cls).get("__module__") == home and (cls.__qualname__ == path or not _by_name(cls))


def registered(cls: type) -> tuple[type, ...]:
    """The classes that an abstract one was told of; where it is not the user's, those of the user's."""
    if isinstance(cls, ABCMeta):
        found = [each for refers in _get_dump(cls)[0] if (each := refers()) is not None]
        return tuple(sorted((each for each in found if is_users(each) or is_users(cls)), key=_sorting))
    return ()


def _sorting(cls: type) -> tuple[str, str]:
    return home_of(cls), cls.__qualname__


def _in_member(path: str, member: Any, name: str) -> Iterator[tuple[str, _Place]]:
    """What a member of an enumeration holds, under the first of its names."""
    for attribute, held in list(vars(member).items()) if member._name_ == name else ():
        if not (attribute.startswith("_") and attribute.endswith("_")) or (
            attribute == "_value_" and type(held) not in (*ATOMS, tuple)
        ):
            yield f"{path}.{attribute}", _Place(member, attribute, held)


def _in_function(path: str, value: Any, home: str, seen: set[int]) -> Iterator[tuple[str, _Place]]:
    """What a function holds beside its code, and those that it wraps: attributes, defaults, and what its closure has."""
    kind = type(value)
    if kind is not FunctionType:
        for part in WRAPPING.get(kind, ()):
            yield from _in_function(f"{path}.{part}", getattr(value, part), home, seen)
        if kind is CACHED:
            yield from _attributes_of(path, value)
        return
    if id(value) in seen or (home_of(value) != home and _by_name(value)):  # else it is told of where it stands
        return
    seen.add(id(value))
    yield from _attributes_of(path, value)
    for name in DEFAULTS:
        if held := getattr(value, name):
            yield f"{path}.{name}", _Place(value, name, held)
    for name, cell in _cells(value).items():
        if name != "__class__" and (held := _held(cell, name)) is not MISSING:
            yield f"{path}.__closure__.{name}", _Place(cell, name, held)
            yield from _in_function(f"{path}.__closure__.{name}", held, home, seen)


def _attributes_of(path: str, function: Any) -> Iterator[tuple[str, _Place]]:
    for name, held in list(getattr(function, "__dict__", {}).items()):
        if not _dunder(name):
            yield f"{path}.{name}", _Place(function, name, held)


def _cells(function: FunctionType) -> dict[str, CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))


def _is_told(name: str, value: Any, of_enum: bool) -> bool:
    """Whether an attribute of a class is compared. Of the names that are Python's or a library's: functions and texts."""
    if of_enum and name.startswith("_") and name.endswith("_") and not _dunder(name):
        return False
    kind = type(value)
    return not _dunder(name) or (
        name not in OWN_NAMES and (kind is FunctionType or kind in WRAPPING or kind in (int, float, str, bytes))
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


def _named(scope: Iterable[tuple[str, frozenset[str] | None]]) -> dict[int, Path]:
    """By id: under what name of the user's modules each object stands that somebody may change; the first one where it
    has more."""
    names: dict[int, Path] = {}
    for home, only in scope:
        if only is None and home in sys.modules:
            for name, place in _places(home):
                kind = type(place.value)
                if kind not in NOT_NAMED and not issubclass(kind, type):
                    names.setdefault(id(place.value), (home, name))
    return names


# --- describing ---


class _TooLarge(Exception):
    """There is more of it than is looked at."""


class _Digest:
    """A file that keeps a digest of what is written, and what was written as long as that is small."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._size = 0
        self._kept: list[bytes] | None = []

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LARGEST:
            raise _TooLarge
        self._hash.update(data)
        if self._kept is not None:
            self._kept.append(bytes(data))
            if self._size > SENT:
                self._kept = None

    def buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """A large buffer of an array: looked at where it lies. Whether it belongs into the stream instead."""
        try:
            raw = buffer.raw()
        except BufferError as raised:  # not contiguous
            pass_on(raised)
            return True
        if raw.nbytes <= SENT:
            return True
        self.write(raw)  # type: ignore[arg-type]
        return False

    def told(self, kind: type) -> Told:
        return Told(f"{kind.__qualname__} {self._hash.hexdigest()}", b"".join(self._kept) if self._kept else None)


class _Pickler(pickle.Pickler):
    """Pickles a value with marks in the place of what cannot go."""

    def reducer_override(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is FunctionType or issubclass(kind, type):
            return NotImplemented if _by_name(thing) else (_kept, (_reference(thing),))
        if kind in (MethodType, BuiltinFunctionType):
            if _reference(thing) is not None:
                return NotImplemented
            if _has_method(thing):
                return _bound, (thing.__self__, thing.__name__, _opaque(thing))
            return _kept, (_opaque(thing),)
        if hasattr(kind, "isatty") and (name := _reference(thing)) is not None:
            return _kept, (name,)
        if kind is ModuleType:
            return importlib.import_module, (thing.__name__,)
        if (home_of(kind), kind.__name__) in GENERATORS or home_of(kind).startswith("numpy.random"):
            return _kept, (_opaque(thing),)
        if kind is contextvars.ContextVar:
            value = contextvars.copy_context().get(thing, MISSING)
            return (_kept, (_opaque(thing),)) if value is MISSING else (_Bare, (_opaque(thing),), {"": value})
        if kind in WEAK:
            return kind, (), None, None, iter(list(thing.items()))
        if issubclass(kind, threading.local):
            return _Bare, (_opaque(thing),), dict(vars(thing))
        if not _by_name(kind):
            if _plain(kind):  # such as of a class whose name its only object has taken
                return _Bare, (_opaque(thing),), _state(thing)
            return _kept, (_opaque(thing),)
        reduce = copyreg.dispatch_table.get(kind)
        try:
            reduced = reduce(thing) if reduce is not None else thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        except Exception as raised:  # it cannot be pickled, or a reducer of the user's: anything may happen in it
            pass_on(raised)
            return _kept, (_opaque(thing),)
        if isinstance(reduced, str):
            found = getattr(sys.modules.get(home_of(thing)), reduced, None)
            return NotImplemented if found is thing else (_kept, (_opaque(thing),))
        return reduced


class _NamingPickler(_Pickler):
    """The same with objects that stand under a name elsewhere as that name."""

    def __init__(self, file: Any, root: Any, names: Mapping[int, Path], **settings: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, **settings)
        self._root = root
        self._names = names
        self.opaque = False

    def reducer_override(self, thing: Any) -> Any:
        reduced = super().reducer_override(thing)
        if thing is self._root and reduced is not NotImplemented and reduced[0] is _kept:
            self.opaque = True
        return reduced

    def persistent_id(self, thing: Any) -> Path | None:
        path = self._names.get(id(thing))
        return path if thing is not self._root else None


def told(value: Any, path: Path, names: Mapping[int, Path]) -> Told:
    """A text that is the same for the same thing in two processes, and a pickle of it where it is small."""
    kind = type(value)
    if kind in ATOMS:
        if kind is int:  # as hexadecimal: decimal digits have a limit
            text = hex(value)
        elif kind in (str, bytes) and len(value) > SHORT:
            data = value if kind is bytes else value.encode("utf-8", "surrogatepass")
            text = blake2b(data, digest_size=16).hexdigest()
        else:
            text = repr(value)
        return Told(f"{kind.__name__} {text}" if len(text) <= 4 * SHORT else _long(value), None)
    if kind is tuple and len(value) < SHORT and _short(value):
        return Told(f"tuple {value!r}", None)
    if (reference := _reference(value)) is not None:
        return Told(reference, None)
    if (other := names.get(id(value), path)) != path:
        return Told(f"is {other[0]} {other[1]}", None)
    return _digest_of(value, kind, names)


def _short(values: tuple[Any, ...]) -> bool:
    """Whether these are atoms that are told themselves, such as most defaults of functions."""
    return all(
        kind in ATOMS
        and (kind is not int or -(1 << 64) < each < 1 << 64)
        and (kind not in (str, bytes) or len(each) < SHORT)
        for each in values
        for kind in (type(each),)
    )


def _long(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return f"int {blake2b(data, digest_size=16).hexdigest()}"


def _digest_of(value: Any, kind: type, names: Mapping[int, Path]) -> Told:
    many = kind in PLAIN and len(value) > MANY
    looked_at = value
    if kind in (set, frozenset):
        try:
            looked_at = sorted(value)
        except TypeError as raised:  # they have no order of their own
            pass_on(raised)
    digest = _Digest()
    try:
        if many:
            pickler: Any = _Pickler(digest, pickle.HIGHEST_PROTOCOL, buffer_callback=digest.buffer)
            pickler.fast = True  # without a memo, which equal objects do not share alike in each process
            try:
                pickler.dump(looked_at)
            except ValueError as raised:  # something in it holds itself
                pass_on(raised)
                digest = _Digest()
                _NamingPickler(digest, value, names).dump(looked_at)
        else:
            pickler = _NamingPickler(digest, value, names, buffer_callback=digest.buffer)
            pickler.dump(looked_at)
            if pickler.opaque:
                return Told(_opaque(value), None)
    except _TooLarge:
        length = len(value) if hasattr(kind, "__len__") else 0
        return Told(f"{kind.__qualname__} of {length:,}, too large to be looked at", None)
    except Exception as raised:  # a reducer of the user's, or one that goes too deep
        pass_on(raised)
        return Told(_opaque(value), None)
    made = digest.told(kind)
    return made if looked_at is value else Told(made.text, None)


def _reference(value: Any) -> str | None:
    """What is known by where it was written: functions, classes, modules, and what wraps them."""
    kind = type(value)
    if kind is FunctionType:
        code = value.__code__
        file = code.co_filename.rpartition(os.sep)[2]
        return f"def {home_of(value)}.{value.__qualname__} {code.co_name} {file}:{code.co_firstlineno}"
    if issubclass(kind, type):
        return f"class {home_of(value)}.{value.__qualname__}"
    if kind is ModuleType:
        return f"module {value.__name__}"
    if kind in (staticmethod, classmethod):
        return f"{kind.__name__} {_reference(value.__func__)}"
    if kind is property:
        return f"property {' '.join(str(_reference(each)) for each in (value.fget, value.fset, value.fdel))}"
    if kind is BuiltinFunctionType and isinstance(value.__self__, (ModuleType, type, type(None))):
        return f"def {home_of(value)}.{value.__qualname__}"
    if hasattr(kind, "isatty"):
        return next((f"sys.{name}" for name in STREAMS if value is getattr(sys, name, None)), None)
    return None


def _has_method(bound: Any) -> bool:
    """Whether the object has the method under its name, so that another process finds it there."""
    of = bound.__self__ if isinstance(bound.__self__, type) else type(bound.__self__)
    held = next((vars(base)[bound.__name__] for base in of.__mro__ if bound.__name__ in vars(base)), None)
    return held is not None and getattr(held, "__func__", held) is getattr(bound, "__func__", held)


def _opaque(value: Any) -> str:
    kind = type(value)
    return f"a {home_of(kind)}.{kind.__qualname__}"


def _by_name(thing: Any) -> bool:
    """Whether a function or class is found under its own name."""
    found: Any = sys.modules.get(home_of(thing))
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def is_own_place(name: str, thing: Any) -> bool:
    """Whether a worker that imports this name has an object of the same class in its place."""
    return home_of(type(thing)) == name and is_found(name) and hasattr(thing, "__dict__")


class Snapshot:
    """What the caller's modules hold now, for workers that ask for it later. `beside`: names of other modules that are
    compared too."""

    def __init__(self, beside: Mapping[str, Iterable[str]], leave: Iterable[str]) -> None:
        out = set(leave)
        scope: dict[str, frozenset[str] | None] = {
            name: None for name, module in loaded()
            if name not in out and of_user(module) and module.__name__ == name
        }  # fmt: skip
        # A module that has put an object of its own in its place.
        scope |= {name: None for name, each in in_place_of_modules().items() if is_own_place(name, each)}
        scope |= {name: frozenset(names) for name, names in beside.items() if name not in scope and name not in out}
        self._names = _named(scope.items())
        self._held: dict[Path, Any] = {}  # alive as long as this is: their ids stand for them
        self._given: dict[tuple[str, str, bool], bytes | None] = {}
        self.large: list[str] = []
        self.states = {name: self._state(name, names) for name, names in scope.items()}

    def _state(self, home: str, names: frozenset[str] | None) -> State:
        state = {}
        for name, place in _places(home, names):
            state[name] = told(place.value, (home, name), self._names)
            self._held[home, name] = place.value
            if state[name].text.endswith("too large to be looked at"):
                self.large.append(f"{home}.{name}")
        packed = {name: self._with_value(home, name, each) for name, each in state.items()}
        return State(names, _digest(state), pickle.dumps(packed))

    def _with_value(self, home: str, name: str, mark: Told) -> Told:
        value = self._held[home, name]
        plain = type(value) in ATOMS or mark.text.startswith("tuple (")
        return Told(mark.text, pickle.dumps(value)) if plain and mark.packed is None else mark

    def give(self, home: str, name: str, pack: Callable[[Any], bytes], by_value: bool) -> bytes | None:
        """One thing as bytes, as it is when this is asked for first, so that later workers have the same. `pack`: for
        functions; `by_value`: all of it. None where it cannot go."""
        key = (home, name, by_value)
        if key not in self._given:
            self._given[key] = self._packed(home, name, pack, by_value)
        return self._given[key]

    def _packed(self, home: str, name: str, pack: Callable[[Any], bytes], by_value: bool) -> bytes | None:
        value = self._held[home, name]
        if type(value) is FunctionType and (home_of(value), value.__qualname__) == (home, name):
            value = _nameless(value)  # by its name the worker would find its own
        try:
            if by_value or _reference(value) is not None:
                return pack(value)
            file = io.BytesIO()
            pickler = _Pickler(file, pickle.HIGHEST_PROTOCOL) if _is_large(value) else None
            (pickler or _NamingPickler(file, value, self._names)).dump(value)
            return file.getvalue()
        except Exception as raised:  # a reducer of the user's
            pass_on(raised)
            return None


def _nameless(function: FunctionType) -> FunctionType:
    """The same function under no name by which it could be found."""
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__dict__.update(vars(function))
    made.__qualname__ = f"<another>.{function.__qualname__}"
    return made


def _is_large(value: Any) -> bool:
    return type(value) in PLAIN and len(value) > MANY


def _digest(state: Mapping[str, Told]) -> bytes:
    text = "\n".join(f"{name} {each.text}" for name, each in sorted(state.items()))
    return bytes(blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest())


# --- setting ---


class Settling:
    """A worker's end: makes its modules what the caller's are. `ask(module, name, by_value)` fetches what did not come
    along; `tell` is given what differs and cannot be carried over."""

    def __init__(
        self,
        states: Mapping[str, State],
        ask: Callable[[str, str, bool], bytes | None],
        tell: Callable[[list[Lost]], None],
    ) -> None:
        self._states = states
        self._ask = ask
        self._tell = tell
        self._done: set[str] = set()
        self._names: dict[int, Path] = {}
        self._theirs: dict[Path, Told] = {}  # what is to be changed
        self._made: dict[Path, Any] = {}  # the objects in their places
        self._own: dict[Path, _Place] = {}
        self._replaced: dict[int, Any] = {}
        self._given: dict[int, Any] = {}  # by id: objects of this process that stand in what was read back
        self._lost: list[Lost] = []
        self._lock = threading.RLock()  # steps in threads may import
        self._deep = 0  # settling may import a module, which is settled then

    def settle(self, only: str | None = None) -> None:
        """Now, for all modules that are loaded and were not settled before, or for this one."""
        with self._lock:
            self._deep += 1
            try:
                self._settle(only)
            finally:
                self._deep -= 1
                if not self._deep:
                    for each in (self._theirs, self._made, self._own, self._replaced, self._given):
                        each.clear()

    def _settle(self, only: str | None) -> None:
        ready = [only] if only is not None else [name for name in self._states if name in sys.modules]
        ready = [name for name in ready if name not in self._done]
        self._done |= set(ready)
        self._names = _named((name, state.names) for name, state in self._states.items() if name in self._done)
        for home in ready:
            self._compare(home)
        for path in list(self._theirs):
            self._settled(path)
        self._follow()
        lost, self._lost = self._lost, []
        if lost:
            self._tell(lost)

    def watch(self, others: Iterable[str], loaded: Callable[[str], None]) -> None:
        """From now on settle each module when it has been loaded. Of `others` tell `loaded`."""
        waiting = (self._states.keys() - self._done) | set(others)

        def settle(name: str) -> None:
            if name in self._states:
                self.settle(name)
            loaded(name)

        if waiting:
            sys.meta_path.insert(0, _Later(waiting, settle))

    def _compare(self, home: str) -> None:
        state, module = self._states[home], sys.modules[home]
        places = dict(_places(home, state.names))
        own = {name: told(place.value, (home, name), self._names) for name, place in places.items()}
        if _digest(own) == state.digest:
            return
        theirs: dict[str, Told] = pickle.loads(state.told)
        differing = {n: each for n, each in theirs.items() if n not in own or own[n].text != each.text}
        differing = {n: each for n, each in differing.items() if _above(n, own) not in differing}
        gone = {n for n in own if n not in theirs and _above(n, own) not in differing and _can_go(n, places[n])}
        lost = {n for n, each in differing.items() if each.text.startswith("a ")}
        beside = _stored_beside(module, {n.rpartition(".")[2] for n in lost}) if lost else set()
        if state.names is not None:  # of somebody else's module: whether it is ready is its own business
            beside |= {n for n, each in differing.items() if each.text.startswith(("bool", "NoneType"))}
            gone = set()
            lazily = set[str]().union(*map(stores, _codes(module))) if lost else set()
            lost -= {name for name in lost if name.rpartition(".")[2] in lazily}
            beside |= lazily & differing.keys()
        for name, each in differing.items():
            path, owner = (home, name), _owner(module, name)
            if owner is None:
                continue
            place = places.get(name, _Place(owner, name.rpartition(".")[2], MISSING))
            if name in lost:
                self._lost.append(Lost(home, name, each.text))
            elif place.name not in beside:
                self._theirs[path], self._own[path] = each, place
            elif state.names is None and not each.text.startswith(("bool", "NoneType")):
                self._lost.append(Lost(home, name, f"set together with {', '.join(sorted(lost))}"))
        for name in gone - beside:
            _drop(places[name])

    def _settled(self, path: Path) -> Any:
        """The object that stands at this path, once it is what the caller has there."""
        if path in self._made:
            return self._made[path]
        if path not in self._theirs:
            return _find(path)
        place = self._own[path]
        self._made[path] = place.value  # what refers back to it meanwhile
        mark = self._theirs[path]
        if mark.text.startswith("is "):
            _, home, name = mark.text.split(" ")
            value = self._settled((home, name))
        else:
            value = self._value(path, mark, place)
        if value is not MISSING and value is not place.value:
            _put(place, value)
            if place.value is not MISSING and self._names.get(id(place.value)) == path:
                self._replaced[id(place.value)] = value
        self._made[path] = value
        return value

    def _value(self, path: Path, mark: Told, place: _Place) -> Any:
        """What the caller has at this path, in the object that is here where it can be."""
        merging = _Merging(self._names, path, self._given)
        value = merging.merged(place.value, self._read(path, mark.packed))
        _kept_now.clear()
        if not merging.lost:
            return value
        whole = self._ask(*path, True)
        if whole is not None:
            with suppress(Exception):  # the user's own code: anything may happen in it
                return _Merging(self._names, path, self._given).merged(place.value, pickle.loads(whole))
        registry = path[1] in (*REGISTRIES.get(path[0], ()), *TOLD_BY_VALUE.get(path[0], ()))
        code = mark.text.startswith(("def ", "class "))  # that somebody has put there
        if self._states[path[0]].names is None or registry or code:  # else it is a library's own
            what = sorted({each[2:] for each in merging.lost if each.startswith("a ")})
            self._lost.append(
                Lost(*path, f"something with a {', a '.join(what)}" if what else "something with functions")
            )
        return place.value  # what is new would be there in part only

    def _read(self, path: Path, packed: bytes | None) -> Any:
        _kept_now.clear()
        if packed is None:
            packed = self._ask(*path, False)
            if packed is None:
                return _Kept("a value that cannot be pickled")
        try:
            return _Unpickler(packed, self._refer).load()
        except Exception as error:  # the user's own code: anything may happen in it
            return _Kept(f"a value that cannot be read back: {type(error).__name__}: {error}")

    def _refer(self, path: Path) -> Any:
        value = self._settled(path)
        if value is MISSING:
            raise LookupError(f"there is no {path[0]}.{path[1]} here")
        self._given[id(value)] = value
        return value

    def _follow(self) -> None:
        """Other names of an object that had to make way for another one."""
        if not self._replaced:
            return
        for home in [name for name in self._done if name in sys.modules]:
            for name, place in list(_places(home, self._states[home].names)):
                if (home, name) not in self._theirs and id(place.value) in self._replaced:
                    _put(place, self._replaced[id(place.value)])


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: bytes, refer: Callable[[Path], Any]) -> None:
        super().__init__(io.BytesIO(packed))
        self._refer = refer

    def persistent_load(self, path: Path) -> Any:
        return self._refer(path)


class _Merging:
    """Puts a value that was read back into the object that is here."""

    def __init__(self, names: Mapping[int, Path], path: Path, given: Mapping[int, Any]) -> None:
        self.lost: list[str] = []
        self._names = names
        self._path = path
        self._given = given
        self._seen: dict[int, Any] = {}
        self._quiet = 0  # inside of what nobody is told of

    def merged(self, own: Any, theirs: Any) -> Any:
        """The object to have: `own` with what `theirs` holds, or `theirs`."""
        if type(theirs) is _Kept:
            return self._filled(own, theirs)
        if id(theirs) in self._given or id(theirs) in self._seen:
            return self._seen.get(id(theirs), theirs)
        if type(theirs) is _Bare:
            if type(own) is contextvars.ContextVar and _opaque(own) == theirs.text:
                own.set(self.merged(own.get(MISSING), theirs.state[""]))
            elif _opaque(own) == theirs.text:
                self._take_over(own, own, theirs.state)
            else:
                self._lose(theirs.text)
            return own
        kind = type(theirs)
        alike = type(own) is kind
        quiet = alike and _foreign(kind)  # what it keeps for itself is its own
        self._quiet += quiet
        try:
            return self._made(own, theirs, alike)
        finally:
            self._quiet -= quiet

    def _made(self, own: Any, theirs: Any, alike: bool) -> Any:
        kind = type(theirs)
        here = own if alike and self._names.get(id(own), self._path) == self._path else theirs
        self._seen[id(theirs)] = here
        how = self._how(kind)
        if how is not None:
            how(here, own, theirs)
            return here
        if _kept_now and (marks := _marks_in(theirs)):
            self._lose(*(mark.text for mark in marks))
            self._seen[id(theirs)] = own
            return own
        if kind.__name__ == "ndarray" and here is own and own.flags.writeable and _same_shape(own, theirs):
            own[...] = theirs
            return own
        self._seen[id(theirs)] = theirs
        return theirs

    def _lose(self, *texts: str) -> None:
        if not self._quiet:
            self.lost += texts

    def _how(self, kind: type) -> Callable[[Any, Any, Any], None] | None:
        if kind in (dict, OrderedDict, defaultdict):
            return self._dict
        if kind in (list, deque):
            return self._list
        if kind in (set, bytearray):
            return self._whole
        if kind in WEAK:
            return self._weak
        if kind is SimpleNamespace:
            return self._attributes
        if not _plain(kind) or (_pickles_itself(kind) and _foreign(kind)):
            return None
        if issubclass(kind, dict):
            return self._dict_with_attributes
        if issubclass(kind, (list, set, deque, tuple, str, int, float, bytes)) or not (
            kind.__dictoffset__ or any("__slots__" in vars(base) for base in kind.__mro__)
        ):
            return None
        return self._attributes

    def _filled(self, own: Any, kept: _Kept) -> Any:
        if own is MISSING or kept.text not in (_opaque(own), _reference(own)):
            self._lose(kept.text)
        return own

    def _whole(self, here: Any, own: Any, theirs: Any) -> None:
        if here is not theirs:
            here.clear()
            here.extend(theirs) if isinstance(here, bytearray) else here.update(theirs)

    def _weak(self, here: Any, own: Any, theirs: Any) -> None:
        values = {id(key): (key, self.merged(MISSING, value)) for key, value in theirs.items()}
        if here is not theirs:
            here.clear()
        for key, value in values.values():
            here[key] = value

    def _list(self, here: Any, own: Any, theirs: Any) -> None:
        if len(theirs) > MANY and not _kept_now:
            values = list(theirs)
        else:
            alike = type(own) is type(theirs) and len(own) == len(theirs)
            values = [
                self.merged(o, t) for o, t in zip(list(own) if alike else [MISSING] * len(theirs), theirs, strict=True)
            ]
            values = [each for each in values if each is not MISSING]
        here.clear()
        here.extend(values)

    def _dict(self, here: Any, own: Any, theirs: Any) -> None:
        if len(theirs) > MANY and not _kept_now:
            values = dict(theirs)
        else:
            known = own if type(own) is type(theirs) else {}
            values = {key: self.merged(known.get(key, MISSING), value) for key, value in theirs.items()}
        here.clear()
        here.update((key, value) for key, value in values.items() if value is not MISSING)
        if isinstance(here, defaultdict):
            here.default_factory = theirs.default_factory

    def _dict_with_attributes(self, here: Any, own: Any, theirs: Any) -> None:
        self._dict(here, own, theirs)
        self._attributes(here, own, theirs)

    def _attributes(self, here: Any, own: Any, theirs: Any) -> None:
        """Of an object. Of one of an installed class only what is its user's: what it keeps for itself is its own."""
        self._take_over(here, own if type(own) is type(theirs) else MISSING, _state(theirs))

    def _take_over(self, here: Any, own: Any, after: Mapping[str, Any]) -> None:
        foreign = _foreign(type(here))
        before = _state(own) if own is not MISSING else {}
        lost = {name for name, value in after.items() if type(value) is _Kept and not self._fits(before, name, value)}
        beside = _stored_beside(type(here), lost) if lost and before else set()
        for name, value in after.items():
            private = foreign and name.startswith("_") and here is own
            if private or name in beside - lost:
                continue
            made = self.merged(before.get(name, MISSING), value)
            if made is not before.get(name, MISSING):
                _set(here, name, made)
            elif made is MISSING:
                _delete(here, name)
        if here is own and not foreign:
            for name in before.keys() - after.keys():
                _delete(here, name)

    def _fits(self, before: Mapping[str, Any], name: str, kept: _Kept) -> bool:
        return name in before and kept.text in (_opaque(before[name]), _reference(before[name]))


def _marks_in(thing: Any) -> list[_Kept]:
    """The marks inside of something that was read back."""
    marks: list[_Kept] = []

    class Finding(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            if type(each) is _Kept:
                marks.append(each)
                return 0
            return 0 if isinstance(each, type) or type(each) in (FunctionType, ModuleType) else None

    with suppress(Exception):  # it was pickled before; where a part of it cannot be, that is in a given object
        Finding(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(thing)
    return marks


def _same_shape(own: Any, theirs: Any) -> bool:
    return bool(own.shape == theirs.shape and own.dtype == theirs.dtype and not own.dtype.hasobject)


def _plain(kind: Any) -> bool:
    """Whether a class is written in Python, and its objects are pickled as any are: by their attributes."""
    if not kind.__flags__ & HEAP or not any({"__dict__", "__slots__"} & vars(base).keys() for base in kind.__mro__):
        return False
    return kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__


def _pickles_itself(kind: Any) -> bool:
    """Whether a class says itself what of its objects is pickled: they are values, such as a DataFrame."""
    return hasattr(kind, "__setstate__") or getattr(kind, "__getstate__", None) is not getattr(
        object, "__getstate__", None
    )


def _foreign(kind: type) -> bool:
    """Whether a class is of an installed package."""
    module = sys.modules.get(home_of(kind))
    top = home_of(kind).partition(".")[0]
    return module is not None and top not in sys.stdlib_module_names and top != "__main__" and not of_user(module)


def _state(thing: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    state = {}
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not _dunder(name) else name
            if mangled not in ("__dict__", "__weakref__") and hasattr(thing, mangled):
                state[mangled] = getattr(thing, mangled)
    return state | dict(getattr(thing, "__dict__", {}))


def _set(thing: Any, name: str, value: Any) -> None:
    """Whatever the class does when an attribute is set, it has done in the caller's process."""
    space = getattr(thing, "__dict__", None)
    if space is None or (name not in space and hasattr(getattr(type(thing), name, None), "__objclass__")):
        object.__setattr__(thing, name, value)  # a slot
    else:
        space[name] = value


def _delete(thing: Any, name: str) -> None:
    space = getattr(thing, "__dict__", {})
    if name in space:
        del space[name]
    else:
        with suppress(AttributeError):
            object.__delattr__(thing, name)


def _inner(owner: Any, part: str) -> Any:
    """What a part of a path leads to; None where that is nothing. The part after `__closure__` leads to what a cell has."""
    if type(owner) is dict:
        held = _held(owner[part], part) if part in owner else None
        return None if held is MISSING else held
    if type(owner) is FunctionType and part == "__closure__":
        return _cells(owner)
    if isinstance(owner, type) and issubclass(owner, Enum) and part in owner.__members__:
        return owner.__members__[part]
    if part in WRAPPING.get(type(owner), ()):
        return getattr(owner, part)
    return getattr(owner, "__dict__", {}).get(part)


def _owner(module: ModuleType, name: str) -> Any:
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


def _find(path: Path) -> Any:
    """What stands at a path now; MISSING where there is nothing, or not yet."""
    owner = _owner(importlib.import_module(path[0]), path[1])
    return _held(owner, path[1].rpartition(".")[2]) if owner is not None else MISSING


def _put(place: _Place, value: Any) -> None:
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


def _above(name: str, places: Mapping[str, Any]) -> str:
    """The nearest of these places in which this one is; empty where there is none."""
    while name := name.rpartition(".")[0]:
        if name in places:
            return name
    return ""


def _can_go(name: str, place: _Place) -> bool:
    return type(place.owner) is not CellType and type(place.value) is not ModuleType and place.name != REGISTRY


def _drop(place: _Place) -> None:
    owner, name = place.owner, place.name
    if type(owner) is FunctionType and name in DEFAULTS:
        setattr(owner, name, None)
    elif isinstance(owner, type):
        type.__delattr__(owner, name)
    else:
        vars(owner).pop(name)


def _stored_beside(owner: Any, names: set[str]) -> set[str]:
    """What functions of a module or class set together with one of these names: a connection and the flag that says it
    is there belong together."""
    found: set[str] = set()
    for code in _codes(owner):
        stored = stores(code)
        if stored & names:
            found |= stored
    return found


def _codes(owner: Any) -> Iterator[CodeType]:
    spaces = [vars(base) for base in owner.__mro__] if isinstance(owner, type) else [vars(owner)]
    home = owner.__name__
    for space in spaces:
        for value in list(space.values()):
            value = getattr(value, "__func__", value)
            if type(value) is FunctionType:
                yield value.__code__
            elif isinstance(owner, ModuleType) and issubclass(type(value), type) and home_of(value) == home:
                yield from _codes(value)


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


class _Later:
    """A finder that finds nothing itself: it has modules settled that are loaded from now on, once the import that loads
    them has come to its end: half a package would be mistaken for another one."""

    def __init__(self, names: Iterable[str], settle: Callable[[str], None]) -> None:
        self._names = set(names)
        self._settle = settle
        self._thread = threading.local()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not self._names:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return self._watched(spec)
        return None

    def _watched(self, spec: importlib.machinery.ModuleSpec) -> importlib.machinery.ModuleSpec:
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        if run is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            with suppress(AttributeError):
                del loader.exec_module
            here = self._thread
            here.deep = getattr(here, "deep", 0) + 1
            try:
                run(module)
            finally:
                here.deep -= 1
            if not here.deep:
                for name in [name for name in self._names if name in sys.modules]:
                    self._names.discard(name)
                    self._settle(name)

        with suppress(AttributeError):  # a loader of somebody's with no room for it: seen with the next import
            loader.exec_module = exec_module
        return spec
