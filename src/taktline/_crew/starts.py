"""Whether workers may be forked from this process: who else runs in it, what is open in it, what the steps reach.

A fork copies one thread. What the others were doing, a lock they held or a pool they belong to, is broken in the copy. And
what is open is shared by both: two processes on one connection read each other's answers. So `start="auto"` forks only where
neither is the case, and launches else.
"""

from __future__ import annotations

import _thread
import copyreg
import io
import os
import stat
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator, Sequence
from time import sleep
from typing import Any, NoReturn, Protocol

from taktline._crew import process_wide
from taktline._crew.random_streams import generators_in
from taktline._crew.reach import Reached, is_own, module_file, module_name, names_of, reached
from taktline._posix import fcntl
from taktline._recipe.steps import Step
from taktline._signals import pass_on
from taktline._wire import functions, identity
from taktline.errors import LineError

# By the name that the system has for a thread: libraries that stop it before a fork and start it again in the copy.
# OpenBLAS does too, without a name: its threads are gone when a fork has been made.
BEARS_A_FORK = {"jemalloc_bg_thd"}  # tests/promises/test_starts.py forks beside it under load
WHOSE = {
    "polars": "Polars", "async-executor": "Polars", "grpc": "gRPC", "event_engine": "gRPC", "resolver": "gRPC",
    "tokio": "a library in Rust (tokio)", "rayon": "a library in Rust (rayon)", "cuda": "CUDA", "ray": "Ray", "ZMQ": "ZeroMQ",
    "jemalloc": "jemalloc",
}  # fmt: skip
# Packages whose threads have no name of their own.
MAY_HAVE_THREADS = (
    "pyarrow", "polars", "grpc", "torch", "tensorflow", "jax", "numba", "sklearn", "cv2", "duckdb", "onnxruntime", "lightgbm",
    "xgboost", "faiss", "zmq", "ray", "pymongo", "jpype", "mkl", "scipy",
)  # fmt: skip
GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
CODE = (
    type, types.FunctionType, types.MethodType, types.ModuleType, types.BuiltinFunctionType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.MethodWrapperType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, property, staticmethod, classmethod, weakref.ref, threading.local,
)  # fmt: skip
# They cannot be pickled, but nothing in them changes.
MAY_BE_SHARED = {
    "_struct.Struct",
    "builtins.mappingproxy",
    "_abc._abc_data",
    "_json.Scanner",
    "_json.Encoder",
    "builtins.fortran",
}
FUNCTIONS = 200  # of the user's that are looked at for what they change: some 0.2 ms each
LEAVING = 40  # looks, half a millisecond apart: a thread that has ended is listed a little longer


class Forkable(Protocol):
    """Who has descriptors open that are the library's own, which a fork lets go of by `abandon`."""

    def descriptors(self) -> Iterator[int]: ...
    def abandon(self) -> None: ...


crews: weakref.WeakSet[Forkable] = weakref.WeakSet()  # all of this process


def not_in_a_fork() -> NoReturn:
    """What a crew says that was abandoned."""
    raise LineError(
        "this run belongs to the process that started it, and a fork of that cannot go on with it: "
        "leave the run alone here, or start one of its own"
    )


def _abandon_all() -> None:
    for crew in list(crews):
        crew.abandon()


# Whatever forks this process, a step, the caller or a library: a copy of a lifeline would keep workers alive without
# their caller, and a copy of a run would end the original's workers with itself.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def no_processes() -> str:
    """Why there can be no worker processes on this system; empty where there can."""
    if fcntl is not None and hasattr(os, "fork"):
        return ""
    import platform  # 2 ms, like the other one below: most runs need neither

    return (
        f'worker processes need a POSIX system, such as Linux, and this is {platform.system()}: run with how="loop", or with '
        'start="threads" where the steps let go of Python\'s lock'
    )


def look(found: Sequence[Reached]) -> tuple[str, list[Any]]:
    """Why workers with steps that reach this must not be forked here, empty where they may be; and the random generators
    that are in it. All of it is known from now on as what it is, in forks too."""
    identity.keep(thing for thing, _ in found)
    functions.keep(thing for thing, _ in found)
    why = why_not_here()
    if not why:
        why = next((why for thing, way in found if (why := _not_for_two(thing, way))), "")
    return why, generators_in(thing for thing, _ in found)


def not_for_threads(steps: Iterable[Step]) -> str:
    """Why workers with these steps must not be threads of this process, empty where nothing is known against it: each
    worker's state is its own, and what one thread has opened may be for that one alone."""
    from taktline._durable.fingerprint import changes

    functions, found = 0, list(reached(steps))
    named = {name for thing, _ in found if isinstance(thing, types.FunctionType) for name in names_of(thing.__code__)}
    for thing, way in found:
        if isinstance(thing, threading.local):
            return f"{way} is another one in each thread"
        code = thing if isinstance(thing, types.FunctionType) else None
        own = is_own(code.__code__.co_filename) if code is not None else is_own(module_file(type(thing)))
        functions += own and code is not None
        if functions > FUNCTIONS:
            return "the steps reach more functions than are looked at for what they change"
        if own and not isinstance(thing, type) and (changed := changes(thing)):
            return f"{way} changes {changed}"
        if own and code is not None and (handed := process_wide.handed_by(code)):
            return f"{way} hands {handed} to others, which may change it"
        if changed := process_wide.changed_in(thing, named):
            return f"{way} changes {changed}"
        if code is not None and (used := process_wide.used_by(code)):
            return f"{way} uses {used}, of which the process has one"
        if generators_in([thing]):
            return f"{way} is a random generator"
        if why := _not_for_two(thing, way):
            return why
    return ""


def why_not_here() -> str:
    """Why this process must not be forked, whatever the steps do; empty where nothing is known against it."""
    if sys.platform != "linux":
        return f"forks are not shown to be safe on {sys.platform}"
    named = [thread for thread in _threads() if thread]
    if named or _thread._count() > 0:
        return f"{_these(named or ['of Python'])} would be missing in a fork"
    return _open_here()


def let_go_of_pipes() -> None:
    """In a copy of a process: nobody who waits for the end of a pipe that the process writes to must wait for the copy.
    A pipe that is inheritable was handed to the whole program: its reader waits for that anyway. Who writes to one of the
    others finds it closed, as in a process that was launched; its number is not given to anything else."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            own = written and descriptor > 2 and not os.get_inheritable(descriptor)
            if own and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.dup2(nothing, descriptor, inheritable=False)
        except OSError as error:  # the one that this list was read from
            pass_on(error)
            continue
    os.close(nothing)


def threads_left() -> str:
    """Just after a fork: which threads of this process are missing in it; empty where all of them bear that."""
    for _ in range(LEAVING):
        left = list(_threads())
        if any(left) or not left:
            break
        sleep(0.0005)
    return f"{_these(left)} is missing in a fork" if left else ""


def _threads() -> Iterator[str]:
    """Other threads of this process that no fork has, without those that are known to bear it: who they are, or nothing
    where they have no name."""
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError as error:  # no such system
        pass_on(error)
        yield from (repr(each.name) for each in threading.enumerate() if each is not threading.current_thread())
        return
    if len(tasks) == 1:
        return
    python = {each.native_id: each.name for each in threading.enumerate()}
    own = _comm("/proc/self/comm")
    for task in map(int, tasks):
        if task == threading.get_native_id():
            continue
        name = _comm(f"/proc/self/task/{task}/comm")
        if task in python:
            yield repr(python[task])
        elif name == own:
            yield ""
        elif name and name not in BEARS_A_FORK:
            whose = next((whose for start, whose in WHOSE.items() if name.startswith(start)), "")
            yield f"{name!r}{f' of {whose}' if whose else ''}"


def _these(threads: list[str]) -> str:
    named = sorted({each for each in threads if each})
    if not named:
        loaded = ", ".join(name for name in MAY_HAVE_THREADS if name in sys.modules)
        named = [f"of native code{loaded and f' (of {loaded}?)'}"]
    return f"the thread {named[0]}"


def _comm(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError as error:  # it has ended
        pass_on(error)
        return ""


def _open_here() -> str:
    """What is open in this process that a copy must not have too."""
    from taktline._wire.channel import descriptors  # sockets: only loaded where there are workers

    own = {*descriptors(), *(each for crew in list(crews) for each in crew.descriptors())}
    standard = {
        _file(descriptor) for descriptor in range(3)
    }  # also under other numbers: who captures output keeps some
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor in own or _file(descriptor) in standard:
            continue
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):
                return f"a socket is open here (descriptor {descriptor}), and two processes must not share it"
            if stat.S_ISCHR(mode) and os.readlink(f"/proc/self/fd/{descriptor}").startswith(GPUS):
                return "a graphics processor is in use here, which no fork can go on with"
        except OSError as error:  # the one that this list was read from
            pass_on(error)
            continue
    return ""


def _file(descriptor: int) -> tuple[int, int] | None:
    """What tells a file from others; None where the descriptor is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError as error:
        pass_on(error)
        return None
    return found.st_dev, found.st_ino


def _not_for_two(thing: Any, way: str) -> str:
    """Why two processes must not have this thing, empty where they may."""
    kind = type(thing)
    if isinstance(thing, CODE) or f"{module_name(kind)}.{kind.__qualname__}" in MAY_BE_SHARED:
        return ""
    if hasattr(kind, "fileno") and (isinstance(thing, io.IOBase) or not is_own(module_file(kind))):
        return f"{way} is an open {kind.__qualname__}, which two processes must not share" if _is_open(thing) else ""
    return "" if _can_be_pickled(thing) else f"{way} is a {kind.__qualname__}, which two processes must not share"


def _is_open(thing: Any) -> bool:
    try:
        descriptor = thing.fileno()
    except Exception as error:  # of whatever library it is: closed, or none at all
        pass_on(error)
        return False
    return isinstance(descriptor, int) and descriptor > 2


def _can_be_pickled(thing: Any) -> bool:
    """Whether nothing is known against it. What Python's own way of pickling refuses is more than its attributes: a lock,
    a connection, something under way. What has a way of its own is not tried: that may do anything."""
    kind: Any = type(thing)
    reduce = kind.__reduce__
    try:
        if getattr(reduce, "__name__", "") == "__reduce_cython__":
            thing.__reduce__()
        elif (
            reduce is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__ and kind not in copyreg.dispatch_table
            and kind.__getstate__ is object.__getstate__
            and not hasattr(kind, "__getnewargs__") and not hasattr(kind, "__getnewargs_ex__")
        ):  # fmt: skip
            object.__reduce_ex__(thing, 2)
    except TypeError as error:
        pass_on(error)
        return False
    return True
