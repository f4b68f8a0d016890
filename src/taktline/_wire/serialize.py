"""Functions, values and exceptions into bytes and back, with a clear answer for what cannot go.

Values go by the fast pickler; large buffers (arrays) stay out of the stream, so that they are copied once and not
pickled. Functions go by cloudpickle, which takes lambdas, closures and what was typed into a notebook.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from taktline._signals import pass_on
from taktline._wire import identity
from taktline.errors import StepError, is_control_flow, text_of, wrapped_because

Bytes = bytes | memoryview

RAISED = (Exception, SystemExit, GeneratorExit)  # what a value's own code may raise; Ctrl-C is the user's

PICKLED_BY = ("__new__", "__slots__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__")
# What pickle says of a class that it does not find, in all versions of Python.
NAMELESS = ("Can't pickle", "attribute lookup", "not the same object", "import of module", "Can't get local")
LARGE = 1 << 14  # bytes: smaller buffers cost less inside the stream than as a part of their own


class NotSerializable(Exception):
    """The value at `position` cannot be pickled, or not be read back."""

    def __init__(self, position: int, error: BaseException) -> None:
        super().__init__(position, error)
        self.position = position
        self.error = error


def pack(values: Any) -> list[Bytes]:
    """The values, in a list or columns, as a pickle stream and the large buffers in it. Raises NotSerializable naming the
    first that cannot go."""
    buffers: list[pickle.PickleBuffer] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            large = buffer.raw().nbytes >= LARGE
        except BufferError as error:  # not contiguous: pickle copies it into the stream
            pass_on(error)
            return True
        if large:
            buffers.append(buffer)
        return not large

    identity.begin()  # no context manager: it would take as long as a small record
    try:
        stream = pickle.dumps(values, pickle.HIGHEST_PROTOCOL, buffer_callback=out_of_band)
    except RAISED as error:
        pass_on(error)
        buffers.clear()
        try:
            stream = _with_classes(values, error, out_of_band)
        except RAISED as again:
            pass_on(again)
            for position, value in enumerate(values if isinstance(values, list) else ()):
                _dumps_one(position, value)
            raise NotSerializable(0, error) from error
    finally:
        identity.end()
    return [stream, *(buffer.raw() for buffer in buffers)]


def snapshot(values: Any) -> bytes:
    """Values as they are now, for `unpack` in this process. Raises what pickling them raises."""
    if not identity.ready():
        identity.look()
    identity.begin()
    try:
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
    finally:
        identity.end()


def unpack(parts: Sequence[Bytes], buffers: Sequence[Any] | None = None) -> Any:
    """What `pack` made. The large buffers are copied, or are those given, which belong to what is made of them."""
    if len(parts) == 1:
        return pickle.loads(parts[0])
    if buffers is None:
        buffers = [bytearray(part) for part in parts[1:]]
    return pickle.loads(parts[0], buffers=buffers)


def pack_each(values: Iterable[Any], *, check: bool = False) -> list[Bytes]:
    """Each value in a pickle of its own; `check`: and read back, to see that it can be. Raises NotSerializable."""
    packed: list[Bytes] = []
    for position, value in enumerate(values):
        packed.append(_dumps_one(position, value))
        if check:
            unpack_one(position, packed[-1])
    return packed


def unpack_one(position: int, packed: Bytes) -> Any:
    """One value of `pack_each`. Raises NotSerializable."""
    try:
        return pickle.loads(packed)
    except RAISED as error:
        pass_on(error)
        raise NotSerializable(position, error) from error


def _dumps_one(position: int, value: Any) -> bytes:
    identity.begin()
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except RAISED as error:
        pass_on(error)
        try:
            return _with_classes(value, error)
        except RAISED as again:
            pass_on(again)
            raise NotSerializable(position, error) from error
    finally:
        identity.end()


def _with_classes(values: Any, error: BaseException, out_of_band: Any = None) -> bytes:
    """The values with the classes in them that have no name to be found by: written in a function, or in a file whose
    module is nowhere. Raises what the values raise, or `error` where it is not about such a class."""
    if not any(each in str(error) for each in NAMELESS):
        raise error
    from taktline._wire import functions  # loads cloudpickle

    return functions.pack(values, nameless=True, buffer_callback=out_of_band)


def failed_to_go(step: str, error: BaseException, why: str) -> StepError:
    """The error of a record or result that cannot go between processes."""
    return StepError(step=step, type_name=type(error).__name__, text=str(error), why=why, moving=True)


def pack_functions(thing: Any, *, root: Any = None) -> bytes:
    """Functions and what they refer to, by value where they cannot be imported. `root`: what goes by value though it
    says that it has a name. Raises what cloudpickle raises."""
    from taktline._wire import functions  # loads cloudpickle

    return functions.pack(thing, root=root)


def pack_functions_into(file: Any, thing: Any, seen: Callable[[Any], None]) -> None:
    """Write what `pack_functions` makes into a file. `seen` is called with each object that is no plain value, before it."""
    from taktline._wire import functions

    functions.pack_into(file, thing, seen)


def unpack_functions(packed: Bytes) -> Any:
    """What `pack_functions` made."""
    return pickle.loads(packed)


class SerializedError(NamedTuple):
    """An exception on its way: itself where it survives the way, and always what is known of it as text."""

    packed: bytes | None
    type_name: str
    text: str
    why: str  # it cannot go as itself; empty where it can
    before: Any = None  # its cause and its context, carried, and whether the context is shown; None where it has none


CHAIN = 8  # exceptions behind one another that are carried: the newest


def pack_error(error: BaseException) -> SerializedError:
    """`error` for the way, with those that it came of; what cannot go as itself goes as text. Never raises."""
    return _with_those_before(error, CHAIN, set())


def _with_those_before(error: BaseException, left: int, seen: set[int]) -> SerializedError:
    carried = _packed_error(error)
    seen.add(id(error))
    before = [
        tuple(_with_those_before(each, left - 1, seen))
        if each is not None and left and id(each) not in seen and not is_control_flow(each)
        else None
        for each in (error.__cause__, error.__context__ if error.__context__ is not error.__cause__ else None)
    ]
    return carried._replace(before=(*before, error.__suppress_context__)) if any(before) else carried


def _packed_error(error: BaseException) -> SerializedError:
    type_name, text = type(error).__qualname__, text_of(error)
    if is_control_flow(error):
        return SerializedError(None, type_name, text, wrapped_because(type_name))
    way: Any = _Unmade(error) if _is_its_args(type(error)) else error
    for dumps in (_plain, pack_functions):
        try:
            packed = dumps(way)
            back = pickle.loads(packed)
            if type(back).__qualname__ == type_name and _same_args(back, error):
                return SerializedError(packed, type_name, text, "")
            why = "read back from a pickle it is another exception"
        except Exception as odd:  # a constructor or reducer of the user's: anything may happen in it
            why = f"it cannot be pickled and read back: {type(odd).__name__}: {odd}"
    return SerializedError(None, type_name, text, why)


def unpack_error(carried: SerializedError, *, step: str, trace: str) -> BaseException:
    """The exception again, or a StepError that tells about it."""
    error = _unpacked_error(carried, step=step, trace=trace)
    if carried.before is not None:
        cause, context, suppress = carried.before
        if context is not None:
            error.__context__ = unpack_error(SerializedError(*context), step=step, trace="")
        if cause is not None:
            error.__cause__ = unpack_error(SerializedError(*cause), step=step, trace="")
            error.__context__ = error.__context__ or error.__cause__
        error.__suppress_context__ = suppress
    return error


def _unpacked_error(carried: SerializedError, *, step: str, trace: str) -> BaseException:
    why = carried.why
    if carried.packed is not None:
        try:
            error = pickle.loads(carried.packed)
            if isinstance(error, BaseException):
                return error
            why = "read back from a pickle it is no exception"
        except Exception as odd:
            pass_on(odd)
            why = f"it cannot be read back here: {type(odd).__name__}: {odd}"
    return StepError(step=step, type_name=carried.type_name, text=carried.text, why=why, traceback=trace)


def _is_its_args(kind: type) -> bool:
    """Whether an exception of this kind has a constructor of its own, which may take something else than its args, and is
    no more than those and its attributes: so it can be had without a call of it."""
    own = [base for base in kind.__mro__ if base.__module__ != "builtins"]
    return (
        any("__init__" in vars(base) for base in own)
        and not any(name in vars(base) for base in own for name in PICKLED_BY)
        and all(base.__basicsize__ <= BaseException.__basicsize__ for base in kind.__mro__ if base not in own)
    )


class _Unmade:
    """An exception that is pickled without its constructor."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_of_args, (type(self._error), self._error.args), vars(self._error)


def _made_of_args(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    return kind.__new__(kind, *args)


def _plain(error: Any) -> bytes:
    identity.begin()
    try:
        return pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    finally:
        identity.end()


def _same_args(one: BaseException, other: BaseException) -> bool:
    """Whether two exceptions have the same args, as far as their pickles tell: `==` of a record's values may do anything."""
    if len(one.args) != len(other.args):
        return False
    return all(
        type(a) is type(b) or type(a).__qualname__ == type(b).__qualname__
        for a, b in zip(one.args, other.args, strict=True)
    )


class Fetching:
    """A `__getattr__` for a stand-in module: asks `fetch(module, name)` for what pickles refer to, once each."""

    def __init__(self, module: Any, fetch: Callable[[str, str], Any]) -> None:
        self._module = module
        self._fetch = fetch
        self._under_way: set[str] = set()

    def __call__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}")
        if name in self._under_way:  # it would go on for ever
            raise AttributeError(
                f"{self._module.__name__}.{name} cannot go to a worker: its pickle names itself, and only the caller has it"
            )
        self._under_way.add(name)
        try:
            value = self._fetch(self._module.__name__, name)
        finally:
            self._under_way.discard(name)
        setattr(self._module, name, value)
        return value


def which_function(names: Sequence[str], things: Sequence[Any]) -> tuple[str, BaseException] | None:
    """The first of the things that cannot be packed, and why."""
    for name, thing in zip(names, things, strict=True):
        try:
            pack_functions(thing)
        except Exception as error:
            pass_on(error)
            return name, error
    return None
