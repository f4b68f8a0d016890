"""Fingerprints: short texts that change when what a run's results depend on does."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

DEEP = 12  # levels of values inside values that are looked at
PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...))


def of_code(*things: Any) -> str:
    """A fingerprint of functions and what they are made with: their code, constants, defaults and closures, and of
    functions beside them that they call. Of other values only the plain ones are looked at, of others the type.

    >>> of_code(lambda x: x + 1) == of_code(lambda x: x + 1), of_code(lambda x: x + 1) == of_code(lambda x: x + 2)
    (True, False)
    """
    seen: dict[int, Any] = {}
    return _digest("\n".join(piece for thing in things for piece in _pieces(thing, seen, DEEP)))


def of_record(record: Any) -> str:
    """A fingerprint of a record of plain values; empty where it holds others.

    >>> of_record({"n": 1}) == of_record({"n": 2}), of_record(object())
    (False, '')
    """
    try:
        return _digest(f"{type(record).__name__} {json.dumps(record, allow_nan=True)}")
    except (TypeError, ValueError, RecursionError):
        return ""


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _pieces(thing: Any, seen: dict[int, Any], deep: int) -> Iterator[str]:
    kind = type(thing)
    if kind in PLAIN:
        yield f"{kind.__name__} {thing!r}"
    elif id(thing) in seen or deep == 0:
        yield kind.__qualname__
    else:
        # Equal constants may be one object in one process and two in another, so only others are told once.
        if not isinstance(thing, (tuple, list, set, frozenset, dict, CodeType)):
            seen[id(thing)] = thing
        yield from _inside(thing, seen, deep - 1)


def _inside(thing: Any, seen: dict[int, Any], deep: int) -> Iterator[str]:
    def go(*values: Any) -> Iterator[str]:
        for value in values:
            yield from _pieces(value, seen, deep)

    yield type(thing).__qualname__
    if isinstance(thing, (tuple, list)):
        yield from go(*thing)
    elif isinstance(thing, (set, frozenset)):
        yield from sorted("".join(go(value)) for value in thing)  # their order differs from process to process
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from go(key, value)
    elif isinstance(thing, CodeType):
        yield thing.co_code.hex()
        yield from go(thing.co_names, thing.co_freevars, thing.co_consts)
    elif isinstance(thing, FunctionType):
        yield from go(thing.__code__, thing.__defaults__, thing.__kwdefaults__)
        yield from go(*(cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)))
        yield from go(*_beside(thing))
    elif isinstance(thing, MethodType):
        yield from go(thing.__func__, thing.__self__)
    elif isinstance(thing, functools.partial):
        yield from go(thing.func, thing.args, thing.keywords)
    elif isinstance(thing, BuiltinFunctionType):
        yield f"{thing.__module__}.{thing.__qualname__}"
    elif isinstance(thing, type):
        yield thing.__qualname__
        yield from go(*(value for value in vars(thing).values() if isinstance(value, FunctionType)))
    elif deep >= DEEP - 2:  # a step that is an object, or an object's method; of what it holds only what is plain
        yield from go(vars(type(thing)).get("__call__"), getattr(thing, "__dict__", None))


def _beside(function: FunctionType) -> list[Any]:
    """The functions of the same module that it names, such as one that it calls."""
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    return [each for each in named if isinstance(each, FunctionType) and each.__module__ == function.__module__]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name that is bound later
        return False
    return True
