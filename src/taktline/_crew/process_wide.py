"""What a process has once, however many threads it has: its folder, its signals, its warnings, where it prints to.

Who sets one of them for a record, and then back, gives other results where a second record is at work beside it.
"""

from __future__ import annotations

import io
import sys
from array import array
from collections import deque
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from taktline._crew.reach import LARGE_PACKAGES, OWN_IN_WORKERS, in_closure, is_own, module_file, module_name, named_by
from taktline._durable import fingerprint

ONCE: dict[str, tuple[str, ...]] = {
    "os": (
        "chdir", "fchdir", "chroot", "umask", "putenv", "unsetenv", "setuid", "seteuid", "setgid", "setegid", "setgroups",
        "fork", "forkpty", "dup2",
    ),
    "contextlib": ("chdir", "redirect_stdout", "redirect_stderr"),
    "warnings": ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"),
    "locale": ("setlocale",),
    "time": ("tzset",),
    "socket": ("setdefaulttimeout",),
    "pandas": ("set_option", "reset_option", "option_context", "options"),
    "unittest.mock": ("patch",),
    "multiprocessing": ("Process", "Pool"),
    "concurrent.futures": ("ProcessPoolExecutor",),
    # What there is for the first thread alone.
    "signal": ("signal", "alarm", "setitimer", "set_wakeup_fd", "siginterrupt", "pause"),
    "asyncio": ("get_event_loop",),
}  # fmt: skip
# In libraries it is only named to tell their own threads apart.
WHICH_THREAD: dict[str, tuple[str, ...]] = {"threading": ("current_thread", "main_thread")}
WHOLE = {"matplotlib.pyplot", "matplotlib.pylab", "turtle", "tkinter"}  # their functions draw on one and the same page
# What is built anew for each record in a place that stays: who is handed it may do that.
MAY_BE_CHANGED = (list, dict, set, bytearray, deque, array, io.StringIO, io.BytesIO)
FOLLOWED = 2  # methods that a named one calls in turn


def used_by(function: FunctionType) -> str:
    """What of this the code of a function names; empty where that is nothing."""
    own = is_own(function.__code__.co_filename)
    once = _by_identity(ONCE) | (_by_identity(WHICH_THREAD) if own else {})
    for _, _, value in named_by(function):
        if isinstance(value, ModuleType):
            if value.__name__ in WHOLE:
                return value.__name__
        elif told := once.get(id(value)):
            return told
    return ""


def handed_by(function: FunctionType) -> str:
    """What a function of the user's own has beside its arguments and gives to others, who may change it; or nothing."""
    handed = fingerprint.handed_by(function)
    held = {name: value for _, name, value in named_by(function) if name in handed} | dict(in_closure(function))
    return next((n for n in sorted(handed & held.keys()) if _may_be_changed(held[n])), "")


def _may_be_changed(thing: Any) -> bool:
    kind = type(thing)
    own = not isinstance(thing, (type, FunctionType, *OWN_IN_WORKERS)) and is_own(module_file(kind))
    return isinstance(thing, MAY_BE_CHANGED) or (own and getattr(thing, "__dict__", None) is not None)


def changed_in(thing: Any, names: Iterable[str]) -> str:
    """What methods of such names change in an object of a library; empty where nothing is seen. Of an object of the user's
    own all methods are looked at (`fingerprint.changes`)."""
    kind = type(thing)
    if isinstance(thing, (type, *OWN_IN_WORKERS)) or module_name(kind).partition(".")[0] in LARGE_PACKAGES:
        return ""
    return fingerprint.changed_by(kind, names, FOLLOWED)


def _by_identity(table: dict[str, tuple[str, ...]]) -> dict[int, str]:
    modules = ((home, sys.modules[home], names) for home, names in table.items() if home in sys.modules)
    return {
        id(getattr(module, name)): f"{home}.{name}"
        for home, module, names in modules
        for name in names
        if hasattr(module, name)
    }
