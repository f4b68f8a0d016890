"""The standard streams of the command: data goes through them past whatever the steps print, read or start."""

from __future__ import annotations

import codecs
import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

from taktline import LineError, SinkError
from taktline._excerpts import in_ascii
from taktline._observe.pages import PAGE_WIDTH

_INPUT, _OUTPUT, _ERROR = range(3)
AT_ONCE = 1 << 20  # bytes that are read
LOOK = 100  # milliseconds between two looks whether what does not come is still waited for
PLAIN = "taktline-plain"  # how signs are written that a stream does not have
_closed: set[int] = set()  # those that the command was started without


def fill() -> None:
    """Puts the null device where the command was started without a stream (`>&-`): a file of the run would be opened in
    its place, and have in it what steps and the programs they start say."""
    for stream in (_INPUT, _OUTPUT, _ERROR):
        try:
            os.fstat(stream)
        except OSError:
            _closed.add(stream)
            empty(stream)
    if _ERROR in _closed:
        sys.stderr = _text(_ERROR, "w")
    if _OUTPUT in _closed:
        sys.stdout = _text(_OUTPUT, "w")
    if _INPUT in _closed:
        sys.stdin = _text(_INPUT, "r")
    codecs.register_error(PLAIN, _plain)
    for each in (sys.stdout, sys.stderr):
        if isinstance(each, io.TextIOWrapper):  # a terminal or a file that takes nothing but ASCII gets that
            each.reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def _text(stream: int, mode: str) -> TextIO:
    return cast(TextIO, open(stream, mode, errors="backslashreplace", closefd=False))


def empty(stream: int) -> None:
    """Puts the null device in the place of a standard stream, for this process and those that it starts."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != stream:
        os.dup2(null, stream)
        os.close(null)
    os.set_inheritable(stream, True)


class _Input(io.RawIOBase):
    """What comes through a pipe or from a terminal, by whole lines: up to its end, or to where the run is told to stop."""

    ended = False  # by a signal's handler

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._lines = memoryview(b"")  # what was read, as far as whole lines go,
        self._begun: list[bytes] = []  # and what is behind them

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """As of any file. What has begun a line when the run is told to stop is left out."""
        some = b"more"
        while some and not self._lines:
            while not self._poll.poll(LOOK):
                if self.ended:
                    return 0
            some = os.read(self._descriptor, AT_ONCE)
            whole = some.rfind(b"\n") + 1
            if whole or not some:
                self._lines, self._begun = memoryview(b"".join([*self._begun, some[:whole]])), []
            self._begun.append(some[whole:])
        count = min(len(into), len(self._lines))
        into[:count], self._lines = self._lines[:count], self._lines[count:]
        return count


def end_input() -> None:
    """Nothing is waited for that standard input may still bring. May be called by a signal's handler."""
    from taktline._io import opening

    raw = getattr(opening.kept_input, "raw", None)
    if isinstance(raw, _Input):
        raw.ended = True


def _kept_open(descriptor: int) -> IO[bytes]:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):  # which never has anybody wait
        return os.fdopen(descriptor, "rb", closefd=False)
    return io.BufferedReader(_Input(descriptor), AT_ONCE)


@contextmanager
def input_apart(source: str) -> Iterator[None]:
    """With "-", standard input is kept for the records alone: steps, and the programs that they start, find it empty.
    Raises LineError where there is none."""
    from taktline._io import opening, place

    if place.named(source, _INPUT) != "-":
        yield
        return
    if _INPUT in _closed:
        raise LineError("standard input is closed: there is nothing to read; name a file")
    kept = os.dup(_INPUT)
    before = sys.stdin
    empty(_INPUT)
    sys.stdin = _text(_INPUT, "r")
    try:
        with _kept_open(kept) as opening.kept_input:
            yield
    finally:
        opening.kept_input = None
        sys.stdin = before
        os.dup2(kept, _INPUT)
        os.close(kept)


@contextmanager
def output_apart(sink: str) -> Iterator[str | IO[bytes]]:
    """Where results go. With "-", standard output is kept for them alone: what steps print goes to standard error,
    also from worker processes and C code. Raises LineError where there is none, SinkError where the last of them cannot
    be written."""
    from taktline._io import place

    if place.named(sink, _OUTPUT) != "-":
        yield sink
        return
    if _OUTPUT in _closed:
        raise LineError("standard output is closed: there is nowhere to write to; name a file")
    sys.stdout.flush()
    kept = os.dup(_OUTPUT)
    before = sys.stdout
    os.dup2(_ERROR, _OUTPUT)
    sys.stdout = sys.stderr
    data = os.fdopen(kept, "wb", closefd=False)
    try:
        yield data
    finally:
        sys.stdout = before
        os.dup2(kept, _OUTPUT)
        try:
            data.close()
        except BrokenPipeError:  # whoever reads it has had enough
            raise
        except OSError as error:
            raise cannot_be_written("standard output", error) from error
        finally:
            os.close(kept)


def cannot_be_written(what: str, error: OSError, then: str = "What was written before is there") -> SinkError:
    """What to raise where an output of the command fails."""
    return SinkError(f"{what} cannot be written: {error.strerror or error}. {then}.")


def say(text: Any) -> None:
    """A text for the user, on standard error. Where that takes no more, nobody is left to be told: the exit code is as it
    would have been."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        empty(_ERROR)


def show(text: str) -> None:
    """A text that was asked for, on standard output. Raises SinkError where that takes no more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever reads it has had enough
        raise
    except OSError as error:
        empty(_OUTPUT)  # or what it still holds would be tried again at the end
        raise cannot_be_written("standard output", error) from error


def columns(stream: TextIO) -> int:
    """How many columns a text on this stream has room for: as many as its terminal, else as most terminals."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or PAGE_WIDTH
    except (OSError, ValueError):  # it is no terminal
        return PAGE_WIDTH
