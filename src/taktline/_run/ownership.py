"""Whose a record is: may its source still change it, or what is in it, once the next one is asked for?

Reference counts tell, right after the source has given the record: what is referred to from nowhere else is the run's
own. Looking is bounded: what is too large to be looked through counts as the source's.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections import deque
from collections.abc import Iterator
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import EnumType
from gc import get_referents
from itertools import count, repeat
from sys import getrefcount
from time import perf_counter_ns
from types import BuiltinFunctionType, FunctionType, GeneratorType, ModuleType
from typing import Any

from taktline._crew import envelope
from taktline._signals import pass_on

ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None)})  # never change, and hold nothing
LOOKED_AT = 100  # values in a record: more are not looked through, since to copy it costs no more then
_HAS_REFERENTS = 1 << 14  # Py_TPFLAGS_HAVE_GC: of what it refers to the collector knows, and so do we
_FIXED = (type, FunctionType, BuiltinFunctionType, ModuleType, date, time, timedelta, tzinfo, Decimal, range)
_STREAM = io.IOBase.__bases__[0]  # whose isinstance asks no registry
_OWN_BYTES = (io.BytesIO, io.StringIO)

# Iterators that run nobody's code when the next value is asked for: what they give cannot change by that.
_SOME: tuple[Any, ...] = ([], (), "", b"", bytearray(), range(0), range(1 << 70), {}, {}.values(), {}.items(), set())
_PLAIN_ITERATORS = frozenset(type(iter(each)) for each in _SOME) | {
    type(reversed([])),
    type(reversed({})),
    count,
    repeat,
}
_PLAIN = frozenset(
    {list, tuple, str, bytes, bytearray, range, dict, set, frozenset, type({}.values()), type({}.keys())}
)

OWN, KEPT, FLEETING = range(3)
LARGE = 1 << 17  # bytes of an array from which its memory is used again
REUSED = 1 << 26  # bytes of such memory at most
ALONE_HERE = 2  # references to a value that only a local name has, and who counts them


def runs_no_code(source: Any) -> bool:
    """Whether nobody's code runs when the next record of `source` is asked for.

    >>> runs_no_code([{}]), runs_no_code(iter(range(3))), runs_no_code(n for n in range(3))
    (True, True, False)
    """
    kind = type(source)
    return kind in _PLAIN or kind in _PLAIN_ITERATORS or (kind.__module__ == "numpy" and hasattr(source, "ravel"))


def stays_ended(records: Iterator[Any]) -> bool:
    """Whether an iterator that has ended runs nobody's code when it is asked for more.

    >>> stays_ended(iter([])), stays_ended(n for n in ""), stays_ended(map(int, iter([])))
    (True, True, False)
    """
    return type(records) is GeneratorType or type(records) in _PLAIN_ITERATORS


def take(records: Iterator[Any], taken: list[Any]) -> int:
    """Take records into a list as long as each is the run's own, or can be made so by a plain copy: OWN where they have
    ended, else whose the last one is.

    It must cost next to nothing where records are fresh dicts, lists or tuples of plain values: 45 ns a record and 40 for
    each value in it (benchmarks/ownership.py)."""
    append = taken.append
    try:
        for record in records:
            append(record)
            kind = type(record)
            if kind is dict:
                for value in record.values():
                    if type(value) not in ATOMS:
                        break
                else:
                    if getrefcount(record) > ALONE:
                        taken[-1] = record.copy()
                    continue
            elif kind in ATOMS:
                continue
            elif kind is tuple or kind is list:
                for value in record:
                    if type(value) not in ATOMS:
                        break
                else:
                    if kind is list and getrefcount(record) > ALONE:
                        taken[-1] = record.copy()
                    continue
            value = None
            alone = getrefcount(record) <= ALONE  # before it is an argument: that counts too
            if (whose := look(record, alone)) != OWN:
                return whose
        return OWN
    finally:
        records = iter(())  # the source, which a traceback must not keep


def look(record: Any, alone: bool) -> int:
    """Whether the record is the run's own (OWN), its source may hold it or something in it (KEPT), or it lives only until
    the next one is asked for (FLEETING). `alone`: nobody else refers to the record itself."""
    whose, left, todo = _alone(record, alone), LOOKED_AT, [record]
    for container in todo:
        if (fleeting := _is_fleeting(container)) or left < 0:
            return FLEETING if fleeting else KEPT
        for value in _inside(container):
            kind = type(value)
            if kind in ATOMS or isinstance(value, _FIXED) or isinstance(kind, EnumType):
                continue
            left -= 1
            alone = getrefcount(value) <= ALONE_INSIDE
            whose = max(whose, _alone(value, alone))
            todo.append(value)
    return whose


def _alone(value: Any, alone: bool) -> int:
    kind = type(value)
    if kind is tuple or kind is frozenset:  # only what is in it can change
        return OWN
    if not alone:
        return KEPT
    known = kind.__flags__ & _HAS_REFERENTS or kind is bytearray or _array(value)
    return OWN if known else KEPT  # an object that does not tell what it stands on


def _inside(container: Any) -> list[Any]:
    """What it refers to."""
    kind = type(container)
    if kind.__flags__ & _HAS_REFERENTS and not isinstance(container, _FIXED):
        return get_referents(container)
    base = getattr(container, "base", None) if _array(container) else None
    return [] if base is None else [base]


def _array(value: Any) -> bool:
    """Whether it is NumPy's and says on whose memory it stands."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return False
    return not value.dtype.hasobject


def _plain_array(value: Any) -> bool:
    """Whether it is an array of NumPy's own class whose elements hold nothing."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject


def _is_fleeting(value: Any) -> bool:
    """Whether it is a stream, or one of Python's own iterators over something else: a generator, a group, a map."""
    kind = type(value)
    if isinstance(value, _STREAM):
        return kind not in _OWN_BYTES
    if not hasattr(kind, "__next__") or kind in _PLAIN_ITERATORS:
        return False
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


class Copies:
    """Copies of records. The memory of large arrays is used again once nobody has the copy any more: fresh memory of a
    megabyte takes as long to get as to fill.

    >>> import numpy
    >>> copies, array = Copies(), numpy.zeros(1 << 14)
    >>> first, _ = copies.of(array)
    >>> place = id(first)
    >>> id(copies.of(array)[0]) == place
    False
    >>> del first
    >>> id(copies.of(array)[0]) == place
    True
    """

    def __init__(self) -> None:
        self.ns = 0  # that copying took so far
        self._arrays: deque[Any] = deque()  # the oldest first
        self._size = 0  # bytes of them

    def of(self, record: Any) -> tuple[Any, bool]:
        """The record as it is now, whatever its source does to it; and whether that could be had."""
        began = perf_counter_ns()
        try:
            return self._of(record)
        finally:
            self.ns += perf_counter_ns() - began

    def _of(self, record: Any) -> tuple[Any, bool]:
        if _plain_array(record):
            return self._array(record), True
        try:
            return envelope.copied(record), True
        except Exception as error:
            pass_on(error)
        try:
            return _with_views(record), True
        except Exception as error:  # then it cannot go to another process either, and who sends it says so
            pass_on(error)
            return record, False

    def _array(self, record: Any) -> Any:
        if record.nbytes < LARGE:
            return record.copy(order="K")
        if self._arrays:
            oldest = self._arrays.popleft()
            alike = (oldest.dtype, oldest.shape, oldest.strides) == (record.dtype, record.shape, record.strides)
            if getrefcount(oldest) <= ALONE_HERE and alike:
                oldest[...] = record
                self._arrays.append(oldest)
                return oldest
            if alike and self._size + record.nbytes <= REUSED:  # somebody has it still
                self._arrays.append(oldest)
            else:
                self._size -= oldest.nbytes
        made = record.copy(order="K")
        self._arrays.append(made)
        self._size += made.nbytes
        return made


def _with_views(record: Any) -> Any:
    """A copy of a record in which memoryviews stand: they cannot be pickled, and show whatever their memory holds."""
    packed = io.BytesIO()
    pickler = pickle.Pickler(packed, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, memoryview: _reduced_view}
    pickler.dump(record)
    return pickle.loads(packed.getvalue())


def _reduced_view(view: memoryview) -> Any:
    data = view.tobytes()
    return _view, (data if view.readonly else bytearray(data), view.format, view.shape)


def _view(data: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(data).cast(form, shape)  # type: ignore[call-overload, no-any-return]


def _counts() -> tuple[int, int]:
    """References to a value that nobody else has: in the loop over records, and among those inside a container."""
    taken: list[Any] = []
    container: list[Any] = [{}]
    outside = inside = 0
    record: Any
    for record in ({} for _ in range(1)):
        taken.append(record)
        outside = getrefcount(record)
    for value in get_referents(container):
        inside = getrefcount(value)
    return outside, inside


ALONE, ALONE_INSIDE = _counts()
