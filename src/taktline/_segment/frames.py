"""What a function was given, read from its frame after it has raised: for what people are told of a failure."""

from __future__ import annotations

import dis
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any

UNKNOWN_ARGUMENT: Any = object()


def local_of(frame: FrameType) -> dict[str, Any]:
    """The local variables of a frame as they are now. Nothing of them is kept with the frame."""
    local = frame.f_locals
    found = dict(local)
    if type(local) is dict:  # before Python 3.13 a copy, which would live as long as the frame
        local.clear()
    return found


def argument_of(fn: Callable[[Any], Any] | None, tb: TracebackType | None) -> Any:
    """What `fn` was called with, whose own code this traceback begins in; UNKNOWN_ARGUMENT where that cannot be
    told, such as of what is not written in Python, or where the function has put something else in the argument's place.

    >>> def half(n):
    ...     return n / 2
    >>> try:
    ...     half("7")
    ... except TypeError as error:
    ...     argument_of(half, error.__traceback__.tb_next)
    '7'
    """
    if tb is None:
        return UNKNOWN_ARGUMENT
    code = tb.tb_frame.f_code
    call = getattr(type(fn), "__call__", None)  # noqa: B004  of an object
    if getattr(fn, "__code__", None) is code and not hasattr(fn, "__self__"):
        at = 0
    elif getattr(getattr(fn, "__func__", None), "__code__", None) is code or getattr(call, "__code__", None) is code:
        at = 1
    else:
        return UNKNOWN_ARGUMENT
    if code.co_argcount <= at or _puts_into(code, name := code.co_varnames[at]):
        return UNKNOWN_ARGUMENT
    return local_of(tb.tb_frame).get(name, UNKNOWN_ARGUMENT)


def _puts_into(code: CodeType, name: str) -> bool:
    """Whether the code puts something into a variable of its own, or takes it away."""
    for each in dis.get_instructions(code):
        changes = each.opname.startswith(("STORE_", "DELETE_"))
        if changes and (each.argval == name or (isinstance(each.argval, tuple) and name in each.argval)):
            return True
    return False
