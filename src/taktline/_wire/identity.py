"""Objects that are told by which one they are, not by what they hold: `MISSING = object()`, tested with `is`.

A pickle makes another one of them. So they travel by their name, a module and an attribute, and what has no name that
other processes can look up by a token that both ends remember. An object of a class in Python counts as such where a
module or class holds it, `==` compares it by identity, and it has nothing but a few plain values in it; it is found
again where these are the same, else it is copied like any other.

The way in is `copyreg`: picklers look there for the class of an object, whatever is in it, so others pay nothing.
Outside of `begin` and `end` the entries do what Python does without them.
"""

from __future__ import annotations

import copyreg
import importlib
import os
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import EnumType
from typing import Any

from taktline._signals import pass_on
from taktline._wire import homes

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)})
HEAP_TYPE = 1 << 9  # flag of types that are made at run time: all that are written in Python, and some others
REMEMBERED = 20_000  # objects without a name that are known from records; those of functions stay known
KEPT, PASSING = b"!", b"."  # the first byte of a token

Key = tuple[str, str] | bytes  # a module and a name in it, or a token

_around = threading.local()
_named: dict[int, tuple[Key, Any]] = {}  # by id; the object is kept, so that its id stays its own
_foreign: list[tuple[str, str, Any]] = []  # found in installed packages, which are looked through once
_looked_at: set[str] = set()
_modules = -1  # how many there were at the last look; -1: nobody has asked for one yet
_dull: set[type] = set()  # types whose objects are not told by identity
_tokens: dict[int, bytes] = {}  # by id
_kept: dict[bytes, Any] = {}
_passing: OrderedDict[bytes, Any] = OrderedDict()
_missing: dict[tuple[str, str], Any] = {}  # what stands for a name that is not there
_stand_ins: tuple[str, ...] | None = None


def begin(*, keep: bool = False) -> None:
    """What this thread pickles keeps its identity until `end`. `keep`: for as long as the processes live."""
    if _modules != len(sys.modules) and _modules != -1:
        look()
    _around.keep = keep


def end() -> None:
    """Pickles of this thread are Python's own again."""
    _around.keep = None


def look(stand_ins: Iterable[str] | None = None) -> None:
    """See which objects have a name now. `stand_ins`: modules whose names say nothing in other processes, as the caller
    of this process knows them; not given: as they were, or as they are found."""
    global _modules, _stand_ins
    _stand_ins = tuple(stand_ins) if stand_ins is not None else _stand_ins
    _modules = len(sys.modules)
    copyreg.dispatch_table.setdefault(object, _reduced)
    out = frozenset(_stand_ins if _stand_ins is not None else homes.stand_ins())
    _named.clear()
    for home, module in homes.loaded():
        if home in _looked_at and home not in out and homes.known_as_installed(home, module):
            continue  # most are, and there are thousands
        space = vars(module)
        if home in out:
            for _, value in _told_by_identity(space, home, ""):
                _token(value, KEPT)
        elif homes.of_user(module):
            for name, value in _told_by_identity(space, home, ""):
                _named.setdefault(id(value), ((home, name), value))
        elif home not in _looked_at:
            _looked_at.add(home)
            _foreign.extend((home, name, value) for name, value in _plainly(space))
    for home, name, value in _foreign:
        _named.setdefault(id(value), ((home, name), value))
    for key, value in _missing.items():
        _named.setdefault(id(value), (key, value))


def ready() -> bool:
    """Whether there was a look."""
    return _modules != -1


def keep(things: Iterable[Any]) -> None:
    """In a fork that is made from now on, these objects are known as the same ones."""
    for thing in things:
        if type(thing) is object:
            _token(thing, KEPT)


def _plainly(space: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names in a module or class whose objects are told by identity."""
    kinds = set(map(type, space.values())) - _dull
    for kind in list(kinds):
        if not _bare(kind):
            _dull.add(kind)
            kinds.discard(kind)
    if not kinds:
        return
    for name, value in list(space.items()):
        if type(value) in kinds and not (name.startswith("__") and name.endswith("__")) and _state(value) is not None:
            copyreg.dispatch_table.setdefault(type(value), _reduced)
            yield name, value


def _told_by_identity(space: Any, home: str, path: str) -> Iterator[tuple[str, Any]]:
    """The names of `_plainly`, and those in classes that were written there and behind members of enumerations."""
    yield from ((path + name, value) for name, value in _plainly(dict(space)))
    for name, value in list(space.items()):
        if not isinstance(value, type) or value.__dict__.get("__module__") != home or value.__qualname__ != path + name:
            continue
        if isinstance(value, EnumType):
            members: list[Any] = list(value.__members__.values())
            for member in members:
                found = dict(_plainly({"_value_": member._value_}))
                yield from ((f"{path}{name}.{member._name_}.{each}", held) for each, held in found.items())
        else:
            yield from _told_by_identity(vars(value), home, f"{path}{name}.")


def _bare(kind: Any) -> bool:
    """Whether objects of this class may be told by identity: nothing says that two of them are equal, or how one is
    pickled."""
    if kind is object:
        return True
    return (
        bool(kind.__flags__ & HEAP_TYPE)
        and kind.__eq__ is object.__eq__
        and kind.__reduce__ is object.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
        and not any(hasattr(kind, each) for each in ("__setstate__", "__getnewargs__", "__getnewargs_ex__"))
        and not issubclass(kind, type)
        and copyreg.dispatch_table.get(kind, _reduced) is _reduced
    )


def _state(thing: Any) -> Any:
    """What is in it, as a pickle would have it; None where that is more than a few plain values."""
    if type(thing) is object:
        return ()
    try:
        _, args, state, *rest = (*thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL), None, None, None)[:5]
    except Exception as error:  # it holds what no pickle can
        pass_on(error)
        return None
    if args != (type(thing),) or rest != [None, None]:
        return None
    parts = state if type(state) is tuple else (state,)
    for part in parts:
        if part is not None and (type(part) is not dict or not ATOMS.issuperset(map(type, part.values()))):
            return None
    return tuple(dict(part) if part else None for part in parts)


def _reduced(thing: Any) -> Any:
    """What picklers are told of such an object."""
    if vars(_around).get("keep") is None or ((state := _state(thing)) is None):
        return thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    key = _key(thing)
    if key is None:
        return thing.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    kind: Any = type(thing)
    return _found, (key, kind if _has_its_name(kind) else None, state)


def _has_its_name(kind: Any) -> bool:
    """Whether a pickle can refer to a class; `class _Missing` is often deleted once its only object is made."""
    return bool(isinstance(kind.__module__, str) and _at((kind.__module__, kind.__qualname__), load=False) is kind)


def _key(thing: Any) -> Key | None:
    key, held = _named.get(id(thing), (None, None))
    if held is thing and isinstance(key, tuple) and (_at(key, load=False) is thing or _missing.get(key) is thing):
        return key
    token = _tokens.get(id(thing))
    if token is None and type(thing) is not object:
        return None
    return _token(thing, KEPT if _around.keep else PASSING)


def _token(thing: Any, how: bytes) -> bytes:
    """By which this object is known here and in other processes."""
    token = _tokens.get(id(thing)) or how + os.urandom(12)
    _remember(token, thing)
    return token


def _remember(token: bytes, thing: Any) -> None:
    _tokens[id(thing)] = token
    if token[:1] == KEPT:
        _kept[token] = thing
        return
    _passing[token] = thing
    _passing.move_to_end(token)
    if len(_passing) > REMEMBERED:
        with suppress(KeyError):  # another thread has done so
            _, oldest = _passing.popitem(last=False)
            del _tokens[id(oldest)]


def _at(key: tuple[str, str], *, load: bool) -> Any:
    """What stands under a name; the key itself where nothing does."""
    home, name = key
    try:
        found: Any = importlib.import_module(home) if load else sys.modules[home]
        for part in name.split("."):
            found = getattr(found, part)
    except (KeyError, ImportError, AttributeError):
        return key
    return found


def _found(key: Key, kind: Any, state: Any) -> Any:
    """The object of this name or token in this process; a new one where it is not known, or holds something else."""
    held: Any = key
    if isinstance(key, bytes):
        held = _kept.get(key, _passing.get(key, key))
    elif (held := _at(key, load=True)) is key:
        held = _missing.get(key, key)
    if held is not key and kind in (type(held), None) and _state(held) == state:
        return held
    if kind is None:
        raise pickle.UnpicklingError(f"{key!r} is another one here, and its class has no name to make a copy by")
    made = _made(kind, state)
    if held is key:
        copyreg.dispatch_table.setdefault(kind, _reduced)
        if isinstance(key, bytes):
            _remember(key, made)
        else:
            _missing[key] = made
            _named[id(made)] = (key, made)
    return made


def _made(kind: Any, state: Any) -> Any:
    made = kind.__new__(kind)
    attributes, slots = (*state, None, None)[:2]
    if attributes:
        vars(made).update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(made, name, value)
    return made
