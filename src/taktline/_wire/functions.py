"""Functions and classes into bytes, by value where a worker cannot import them: cloudpickle, and what it leaves out.

By value goes what is written in a stand-in: `__main__`, a module that was loaded by its path, one that was made at run
time. In a worker an empty module stands for each, and asks its caller for what pickles name.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import io
import os
import pickle
import sys
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from types import CodeType, FunctionType, MemberDescriptorType
from typing import Any

from taktline._signals import pass_on
from taktline._wire import identity
from taktline._wire.homes import loaded, stand_ins

Cached: Any = type(functools.lru_cache(len))  # written in C, and pickled by its name alone


def pack(thing: Any, *, root: Any = None, nameless: bool = False, buffer_callback: Any = None) -> bytes:
    """The bytes of a thing. `root`: what goes by value though it says that it goes by its name. `nameless`: only
    classes go by value, and only those that this process cannot find by their names. Raises what cloudpickle raises."""
    buffer = io.BytesIO()
    pickler = _pickler()(buffer, pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)
    pickler.root, pickler.nameless = root, nameless
    _dump(pickler, thing)
    return buffer.getvalue()


def pack_into(file: Any, thing: Any, seen: Callable[[Any], None]) -> None:
    """Write what `pack` makes into a file. `seen` is called with each object that is more than a plain value, before that."""
    pickler = _pickler()(file, pickle.HIGHEST_PROTOCOL)
    pickler.seen = seen
    _dump(pickler, thing)


def _dump(pickler: Any, thing: Any) -> None:
    pickler.out = frozenset(stand_ins())
    identity.begin(keep=True)
    try:
        pickler.dump(thing)
    finally:
        identity.end()


@functools.cache
def _pickler() -> Any:
    """cloudpickle's pickler, but code keeps the name of its file: tracebacks of workers show the user's own lines."""
    import cloudpickle  # some 10 ms, and only needed once workers are
    from cloudpickle.cloudpickle import _code_reduce, _dynamic_class_reduce

    def reduce_code(code: CodeType) -> Any:
        make, args = _code_reduce(code)
        return make, tuple(
            code.co_filename if isinstance(arg, str) and arg == "<dynamic-code>" else arg for arg in args
        )

    class FunctionPickler(cloudpickle.Pickler):  # type: ignore[misc]
        out: frozenset[str] = frozenset()
        root: Any = None
        nameless = False
        seen: Any = None
        in_class = False  # or behind one
        dispatch_table = ChainMap(
            {
                CodeType: reduce_code, ContextVar: _reduce_variable, functools.cached_property: _reduce_property,
                weakref.WeakKeyDictionary: _reduce_weak, weakref.WeakValueDictionary: _reduce_weak,
            },
            cloudpickle.Pickler.dispatch_table,
        )  # fmt: skip

        def reducer_override(self, thing: Any) -> Any:
            if self.seen is not None:
                self.seen(thing)
            if isinstance(thing, type):
                return self._of_class(thing)
            if type(thing) is FunctionType:
                if self.nameless and (not self.in_class or _has_its_name(thing)):
                    return NotImplemented
                if _home(thing) in self.out:
                    return self._dynamic_function_reduce(thing)
            elif type(thing) is Cached and (_home(thing) in self.out or not _has_its_name(thing)):
                made = functools.lru_cache(**thing.cache_parameters())
                return made, (thing.__wrapped__,), vars(thing)
            elif thing is self.root:
                return _by_value(thing)
            return super().reducer_override(thing)

        def _of_class(self, cls: Any) -> Any:
            if self.nameless and _has_its_name(cls):
                return NotImplemented
            own = _home(cls) in self.out
            reduced = _dynamic_class_reduce(cls) if own else super().reducer_override(cls)
            self.in_class = self.in_class or reduced is not NotImplemented
            if isinstance(reduced, tuple) and reduced[0].__name__ == "_make_skeleton_enum":
                return _enumeration(cls, reduced)
            return _named_and_slotted(cls, reduced)

    return FunctionPickler


def keep(things: Iterable[Any]) -> None:
    """In a fork that is made from now on, classes that nobody finds by their names are known as the same ones."""
    todo = [each for each in things if isinstance(each, type)]
    seen = set()
    for cls in todo:
        if cls in seen or not cls.__flags__ & identity.HEAP_TYPE or _has_its_name(cls):
            continue
        from cloudpickle.cloudpickle import _get_or_create_tracker_id

        seen.add(cls)
        _get_or_create_tracker_id(cls)
        todo.extend(each for each in vars(cls).values() if isinstance(each, type))


def _home(thing: Any) -> str:
    """The module that it says it comes from; what is made of code alone may say none."""
    found = getattr(thing, "__module__", None)
    return found if isinstance(found, str) else ""


def _has_its_name(thing: Any) -> bool:
    found: Any = sys.modules.get(_home(thing))
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def _by_value(thing: Any) -> Any:
    """Of an object whose `__reduce__` says only a name: what Python would do without it."""
    kind: Any = type(thing)
    own = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is not object.__reduce__
    if not own or not isinstance(thing.__reduce__(), str):
        return NotImplemented
    slots = {name: getattr(thing, name) for name in copyreg._slotnames(kind) if hasattr(thing, name)}  # type: ignore[attr-defined]
    state = getattr(thing, "__dict__", None) or None
    return copyreg.__newobj__, (kind,), (state, slots) if slots else state  # type: ignore[attr-defined]


def _named_and_slotted(cls: Any, reduced: Any) -> Any:
    """A class by value has its full name and its slots from the start: slots cannot be given to it later. Those of
    private names have another name in the class than in `__slots__`."""
    if not isinstance(reduced, tuple) or reduced[0].__name__ != "_make_skeleton_class":
        return reduced
    make, (metaclass, name, bases, settings, *rest), (state, slot_state), *others = reduced
    settings = {**settings, "__qualname__": cls.__qualname__}
    if "__slots__" in vars(cls) and not (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        slots = [each for each, value in vars(cls).items() if type(value) is MemberDescriptorType]
        slots += [each for each in ("__dict__", "__weakref__") if each in vars(cls)]
        state = {each: value for each, value in state.items() if each not in slots}
        settings["__slots__"] = tuple(slots)
    return (make, (metaclass, name, bases, settings, *rest), (state, slot_state), *others)


def _enumeration(cls: Any, reduced: Any) -> Any:
    """An enumeration by value: its members hold what they hold here, whatever made them and under however many names."""
    _, args, (state, slots), *_, fill = reduced
    values = _members(cls)
    places = {id(member): place for place, member in enumerate(values)}
    names = {name: places[id(member)] for name, member in cls.__members__.items()}
    held = [(member._value_, _made_from(cls._member_type_, member)) for member in values]
    attributes = [
        {n: each for n, each in vars(m).items() if not (n.startswith("_") and n.endswith("_"))} for m in values
    ]
    state = {name: value for name, value in state.items() if name not in names}
    bases, name, qualname, _, home, tracker, *_ = args
    made = (bases, name, qualname, home, tracker, names, held)
    return _made_enumeration, made, (state, slots, attributes, fill), None, None, _filled_enumeration


def _members(cls: Any) -> list[Any]:
    """Each once: they may have further names, and need not have a hash."""
    return list({id(member): member for member in cls.__members__.values()}.values())


def _made_from(kind: Any, member: Any) -> Any:
    """The arguments by which a class that an enumeration is mixed with makes what this member has of it."""
    if kind.__new__ is object.__new__:
        return ()
    return kind.__getnewargs__(member) if hasattr(kind, "__getnewargs__") else kind.__reduce__(member)[1]


def _made_enumeration(
    bases: Any, name: str, qualname: str, home: str, tracker: Any, names: dict[str, int], held: list[tuple[Any, Any]]
) -> Any:
    from cloudpickle.cloudpickle import _lookup_class_or_track

    def new(cls: Any, place: int) -> Any:
        value, args = held[place]
        kind = cls._member_type_
        member = kind.__new__(cls, *args)
        member._value_ = value
        return member

    metaclass: Any = type(bases[-1])
    space = metaclass.__prepare__(name, bases)
    space["__new__"], space["__init__"] = new, lambda self, place: None
    for each, place in names.items():
        space[each] = (place,)
    made = metaclass.__new__(metaclass, name, bases, space)
    for own in ("__init__", "__new_member__"):  # its real ones come with its state, where it has some
        if own in vars(made):
            type.__delattr__(made, own)
    made.__module__, made.__qualname__ = home, qualname
    return _lookup_class_or_track(tracker, made)


def _filled_enumeration(cls: Any, state: Any) -> None:
    attributes, slots, of_members, fill = state
    fill(cls, (attributes, slots))
    for member, held in zip(_members(cls), of_members, strict=True):
        vars(member).update(held)


def _reduce_property(thing: functools.cached_property[Any]) -> Any:
    state = {name: value for name, value in vars(thing).items() if name != "lock"}  # it has one before 3.12
    return functools.cached_property, (thing.func,), state


def _reduce_weak(thing: Any) -> Any:
    return type(thing), (dict(thing),)


_variables: dict[tuple[int, int], ContextVar[Any]] = {}  # of another process, by process and id there


def _reduce_variable(variable: ContextVar[Any]) -> Any:
    """A context variable by its name in a module that can be imported, else as one of its own with the value it has."""
    out = stand_ins()
    for home, module in loaded():
        if home not in out:
            for name, value in list(vars(module).items()):
                if value is variable and getattr(sys.modules.get(home), name, None) is variable:
                    return _named_variable, (home, name)
    try:
        default: tuple[Any, ...] = (Context().run(variable.get),)
    except LookupError as error:
        pass_on(error)
        default = ()
    here = copy_context()
    value = (here[variable],) if variable in here else ()
    return _own_variable, ((os.getpid(), id(variable)), variable.name, default, value)


def _named_variable(home: str, name: str) -> Any:
    return getattr(importlib.import_module(home), name)


def _own_variable(key: tuple[int, int], name: str, default: tuple[Any, ...], value: tuple[Any, ...]) -> ContextVar[Any]:
    """The variable that stands for that of the caller: one object in this process, however often it comes."""
    if key not in _variables:
        _variables[key] = ContextVar(name, default=default[0]) if default else ContextVar(name)
        if value:
            _variables[key].set(value[0])
    return _variables[key]
