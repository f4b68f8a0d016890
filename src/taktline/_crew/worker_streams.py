"""Standard output and error of a worker: streams as a program has them, whose lines go to the caller.

A step may do with them what it does in the loop: write bytes into `.buffer`, ask for the descriptor, put something else in
their place, close them. Nothing of that is an error of a record that did not make it itself.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

MOST = 1 << 16  # bytes that wait for the end of their line


class Stream(io.TextIOWrapper):
    """One of the two; `say` is given its bytes, as they would have been written, some whole lines at a time."""

    def __init__(self, descriptor: int, say: Callable[[bytes], None]) -> None:
        own = sys.stdout if descriptor == 1 else sys.stderr
        if (
            getattr(own, "encoding", None) is None
        ):  # the caller's may be anything; of a launched worker it is the system's
            own = sys.__stdout__ if descriptor == 1 else sys.__stderr__
        self._raw = _Raw(descriptor, say)
        self._buffered = io.BufferedWriter(self._raw, MOST)
        super().__init__(
            self._buffered, encoding=getattr(own, "encoding", None) or "utf-8",
            errors=getattr(own, "errors", None) or "replace", newline="\n", line_buffering=True,
        )  # fmt: skip
        vars(self)["mode"] = "w"  # as that of the stream that a program has

    def said(self) -> None:
        """Have all that was written heard, also what a step did not flush."""
        for stream in (self, self._buffered):
            with suppress(ValueError):  # it was closed, or its buffer was taken
                stream.flush()

    def let_go(self) -> None:
        """In a process that a step has forked: what is written from now on goes where the caller's goes."""
        self._raw.let_go()


class _Raw(io.RawIOBase):
    """The descriptor of one of them, as far as anybody can tell."""

    mode = "wb"

    def __init__(self, descriptor: int, say: Callable[[bytes], None]) -> None:
        self.name = "<stdout>" if descriptor == 1 else "<stderr>"
        self._descriptor = descriptor
        self._say = say

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        taken = bytes(data)
        self._say(taken)
        return len(taken)

    def let_go(self) -> None:
        self._say = partial(_write, self._descriptor)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def heard(note: bytes) -> None:
    """In the caller: what a worker has said goes through the stream that is here now."""
    stream = sys.stdout if note[:1] == b"1" else sys.stderr
    if stream is None:
        return
    usual = sys.__stdout__ if note[:1] == b"1" else sys.__stderr__
    data, encoding = note[1:], getattr(usual, "encoding", None) or "utf-8"
    try:
        stream.write(data.decode(encoding, "surrogateescape"))
    except UnicodeError:  # bytes that are no text, or that the stream cannot have as text
        if (buffer := getattr(stream, "buffer", None)) is not None:
            stream.flush()
            buffer.write(data)
        else:
            stream.write(data.decode(encoding, "backslashreplace"))
