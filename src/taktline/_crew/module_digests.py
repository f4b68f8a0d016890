"""A thing that stands in a module as a short text: a value by what it is, a function by where it was written, everything
else by a digest of its pickle, in which marks stand for what cannot go."""

from __future__ import annotations

import contextvars
import copyreg
import importlib
import importlib.machinery
import os
import pickle
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from taktline._crew.module_places import ATOM_TYPES, MISSING, Path, home_of, is_plain, stands_under_its_name, state_of
from taktline._signals import pass_on

try:
    from _blake2 import blake2b  # hashlib would load OpenSSL too: 3 ms of a worker's start
except ImportError:
    from hashlib import blake2b

SHORT = 100  # characters of an atom that are told themselves
MANY_ENTRIES = 10_000  # entries of a value that is looked through at the speed of C, and put in its place as a whole
SENT = 1 << 16  # bytes of a pickle that go along; a larger one is asked for where it differs
LARGEST = 1 << 26  # bytes of a pickle that are looked at: some 0.4 s; what is larger is known by type and length alone
PLAIN = (list, dict, set, frozenset, tuple, bytearray, deque, OrderedDict, defaultdict)
STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")  # a worker has its own
WEAK_DICTS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
# Each process has numbers of its own, on purpose.
GENERATORS = {("random", "Random"), ("random", "SystemRandom"), ("_random", "Random")}


class Told(NamedTuple):
    """One name of a module. `packed`: what it has, where that is small enough to go along."""

    text: str
    packed: bytes | None


class WorkersOwn:
    """In a pickle, in the place of what cannot go: what the worker has there, if it is the same kind of thing."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, *_: Any, **__: Any) -> Any:
        """What it would have made, or been given to, is no more to be had than itself."""
        return _kept(self.text)

    def __setstate__(self, _: Any) -> None:
        """Nor has it a state."""

    extend = append = __setitem__ = __call__


class Bare:
    """In a pickle, in the place of an object whose class is not found by its name: what it holds, for one that is there."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


kept_now: list[WorkersOwn] = []  # those of the pickle that is read back


def _kept(text: str) -> Any:
    if (written := _written(text)) is not None:
        return written
    kept = WorkersOwn(text)
    kept_now.append(kept)
    return kept


def _bound(of: Any, name: str, text: str) -> Any:
    """A method of an object; of one that is not here, what the worker has."""
    return _kept(text) if type(of) is WorkersOwn else getattr(of, name)


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
            return found if found is not None and reference_of(found) == text else None
    return None


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


class OwnPickler(pickle.Pickler):
    """Pickles a value with marks in the place of what cannot go."""

    def reducer_override(self, thing: Any) -> Any:
        kind = type(thing)
        if kind is FunctionType or issubclass(kind, type):
            return NotImplemented if stands_under_its_name(thing) else (_kept, (reference_of(thing),))
        if kind in (MethodType, BuiltinFunctionType):
            if reference_of(thing) is not None:
                return NotImplemented
            if _has_method(thing):
                return _bound, (thing.__self__, thing.__name__, opaque(thing))
            return _kept, (opaque(thing),)
        if hasattr(kind, "isatty") and (name := reference_of(thing)) is not None:
            return _kept, (name,)
        if kind is ModuleType:
            return importlib.import_module, (thing.__name__,)
        if (home_of(kind), kind.__name__) in GENERATORS or home_of(kind).startswith("numpy.random"):
            return _kept, (opaque(thing),)
        if kind is contextvars.ContextVar:
            value = contextvars.copy_context().get(thing, MISSING)
            return (_kept, (opaque(thing),)) if value is MISSING else (Bare, (opaque(thing),), {"": value})
        if kind in WEAK_DICTS:
            return kind, (), None, None, iter(list(thing.items()))
        if issubclass(kind, threading.local):
            return Bare, (opaque(thing),), dict(vars(thing))
        if not stands_under_its_name(kind):
            if is_plain(kind):  # such as of a class whose name its only object has taken
                return Bare, (opaque(thing),), state_of(thing)
            return _kept, (opaque(thing),)
        reduce = copyreg.dispatch_table.get(kind)
        try:
            reduced = reduce(thing) if reduce is not None else thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        except Exception as raised:  # it cannot be pickled, or a reducer of the user's: anything may happen in it
            pass_on(raised)
            return _kept, (opaque(thing),)
        if isinstance(reduced, str):
            found = getattr(sys.modules.get(home_of(thing)), reduced, None)
            return NotImplemented if found is thing else (_kept, (opaque(thing),))
        return reduced


class NamingPickler(OwnPickler):
    """An OwnPickler in whose pickles objects that stand under a name elsewhere are that name."""

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
    if kind in ATOM_TYPES:
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
    if (reference := reference_of(value)) is not None:
        return Told(reference, None)
    if (other := names.get(id(value), path)) != path:
        return Told(f"is {other[0]} {other[1]}", None)
    return _digest_of(value, kind, names)


def _short(values: tuple[Any, ...]) -> bool:
    """Whether these are atoms that are told themselves, such as most defaults of functions."""
    return all(
        kind in ATOM_TYPES
        and (kind is not int or -(1 << 64) < each < 1 << 64)
        and (kind not in (str, bytes) or len(each) < SHORT)
        for each in values
        for kind in (type(each),)
    )


def _long(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return f"int {blake2b(data, digest_size=16).hexdigest()}"


def _digest_of(value: Any, kind: type, names: Mapping[int, Path]) -> Told:
    many = kind in PLAIN and len(value) > MANY_ENTRIES
    looked_at = value
    if kind in (set, frozenset):
        try:
            looked_at = sorted(value)
        except TypeError as raised:  # they have no order of their own
            pass_on(raised)
    digest = _Digest()
    try:
        if many:
            pickler: Any = OwnPickler(digest, pickle.HIGHEST_PROTOCOL, buffer_callback=digest.buffer)
            pickler.fast = True  # without a memo, which equal objects do not share alike in each process
            try:
                pickler.dump(looked_at)
            except ValueError as raised:  # something in it holds itself
                pass_on(raised)
                digest = _Digest()
                NamingPickler(digest, value, names).dump(looked_at)
        else:
            pickler = NamingPickler(digest, value, names, buffer_callback=digest.buffer)
            pickler.dump(looked_at)
            if pickler.opaque:
                return Told(opaque(value), None)
    except _TooLarge:
        length = len(value) if hasattr(kind, "__len__") else 0
        return Told(f"{kind.__qualname__} of {length:,}, too large to be looked at", None)
    except Exception as raised:  # a reducer of the user's, or one that goes too deep
        pass_on(raised)
        return Told(opaque(value), None)
    made = digest.told(kind)
    return made if looked_at is value else Told(made.text, None)


def reference_of(value: Any) -> str | None:
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
        return f"{kind.__name__} {reference_of(value.__func__)}"
    if kind is property:
        return f"property {' '.join(str(reference_of(each)) for each in (value.fget, value.fset, value.fdel))}"
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


def opaque(value: Any) -> str:
    kind = type(value)
    return f"a {home_of(kind)}.{kind.__qualname__}"


def is_large(value: Any) -> bool:
    return type(value) in PLAIN and len(value) > MANY_ENTRIES


def digest_of_state(state: Mapping[str, Told]) -> bytes:
    text = "\n".join(f"{name} {each.text}" for name, each in sorted(state.items()))
    return bytes(blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest())
