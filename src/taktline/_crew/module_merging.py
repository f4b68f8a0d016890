"""What the caller has in one place of a module, put into the object that is there, so that all who hold it see it."""

from __future__ import annotations

import contextvars
import io
import pickle
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from taktline._crew.module_digests import MANY_ENTRIES, WEAK_DICTS, Bare, WorkersOwn, kept_now, opaque, reference_of
from taktline._crew.module_places import MISSING, Path, home_of, is_plain, state_of, stored_beside
from taktline._wire.homes import of_user


class Merging:
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
        if type(theirs) is WorkersOwn:
            return self._filled(own, theirs)
        if id(theirs) in self._given or id(theirs) in self._seen:
            return self._seen.get(id(theirs), theirs)
        if type(theirs) is Bare:
            if type(own) is contextvars.ContextVar and opaque(own) == theirs.text:
                own.set(self.merged(own.get(MISSING), theirs.state[""]))
            elif opaque(own) == theirs.text:
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
        if kept_now and (marks := _marks_in(theirs)):
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
        if kind in WEAK_DICTS:
            return self._weak
        if kind is SimpleNamespace:
            return self._attributes
        if not is_plain(kind) or (_pickles_itself(kind) and _foreign(kind)):
            return None
        if issubclass(kind, dict):
            return self._dict_with_attributes
        if issubclass(kind, (list, set, deque, tuple, str, int, float, bytes)) or not (
            kind.__dictoffset__ or any("__slots__" in vars(base) for base in kind.__mro__)
        ):
            return None
        return self._attributes

    def _filled(self, own: Any, kept: WorkersOwn) -> Any:
        if own is MISSING or kept.text not in (opaque(own), reference_of(own)):
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
        if len(theirs) > MANY_ENTRIES and not kept_now:
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
        if len(theirs) > MANY_ENTRIES and not kept_now:
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
        self._take_over(here, own if type(own) is type(theirs) else MISSING, state_of(theirs))

    def _take_over(self, here: Any, own: Any, after: Mapping[str, Any]) -> None:
        foreign = _foreign(type(here))
        before = state_of(own) if own is not MISSING else {}
        lost = {
            name for name, value in after.items() if type(value) is WorkersOwn and not self._fits(before, name, value)
        }
        beside = stored_beside(type(here), lost) if lost and before else set()
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

    def _fits(self, before: Mapping[str, Any], name: str, kept: WorkersOwn) -> bool:
        return name in before and kept.text in (opaque(before[name]), reference_of(before[name]))


def _marks_in(thing: Any) -> list[WorkersOwn]:
    """The marks inside of something that was read back."""
    marks: list[WorkersOwn] = []

    class MarkPickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            if type(each) is WorkersOwn:
                marks.append(each)
                return 0
            return 0 if isinstance(each, type) or type(each) in (FunctionType, ModuleType) else None

    with suppress(Exception):  # it was pickled before; where a part of it cannot be, that is in a given object
        MarkPickler(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(thing)
    return marks


def _same_shape(own: Any, theirs: Any) -> bool:
    return bool(own.shape == theirs.shape and own.dtype == theirs.dtype and not own.dtype.hasobject)


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
