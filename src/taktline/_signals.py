"""Whether an exception comes from a signal's handler: then it is no failure of what happened to be at work."""

from __future__ import annotations

import signal
from opcode import opmap
from types import CodeType, TracebackType


def from_a_handler(tb: TracebackType | None) -> bool:
    """Whether this traceback goes through a function that handles a signal. Such a function runs between any two lines;
    what it raises belongs to whoever set it, and not to a record, a source or a sink."""
    codes: set[CodeType] = set()
    while tb is not None:
        code = tb.tb_frame.f_code
        if code.co_argcount >= 2 or code.co_flags & ANY_ARGUMENTS:  # the signal's number and the frame
            codes.add(code)
        tb = tb.tb_next
    return bool(codes) and not codes.isdisjoint(_handlers())


def is_handler(tb: TracebackType | None) -> bool:
    """Whether it begins in such a function."""
    return tb is not None and tb.tb_frame.f_code.co_argcount != 1 and tb.tb_frame.f_code in _handlers()


def pass_on(error: BaseException) -> None:
    """Raises `error` where a signal's handler has raised it: call it first where many exceptions are taken for a failure."""
    if from_a_handler(error.__traceback__):
        raise error


def came_from_outside(error: BaseException) -> bool:
    """Whether a signal's handler raised this, as Ctrl-C does, and not what was called: then nothing is to be waited for."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {None}
    tb = error.__traceback__
    assert tb is not None
    while tb.tb_frame.f_code not in handlers and tb.tb_next is not None:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    # What Python itself raises for Ctrl-C comes between two instructions, none of which is a raise.
    return code in handlers or (isinstance(error, KeyboardInterrupt) and code.co_code[tb.tb_lasti] not in _RAISES)


_RAISES = {opmap[name] for name in ("RAISE_VARARGS", "RERAISE")}
ANY_ARGUMENTS = 0x04  # in a code's flags: it has *args


def _handlers() -> set[CodeType]:
    found = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        for _ in range(8):  # partials, methods and objects around the function
            if (code := getattr(handler, "__code__", None)) is not None:
                found.add(code)
                break
            inner = getattr(handler, "__func__", None) or getattr(handler, "func", None)
            if inner is None and callable(handler) and not isinstance(handler, type):
                inner = getattr(type(handler), "__call__", None)  # noqa: B004
            handler = inner
    return {code for code in found if isinstance(code, CodeType)}
