"""One socket pair between the hub and one worker: framed messages, payloads in an arena a direction.

A frame is a head, the sizes of the payload's parts, a note (small bytes whose meaning the two ends know), and the
payload itself where it is small or the arena is full. Order on the socket is the only order there is: a new arena is
announced on it, and each frame says up to where its sender has read the other direction's arena.
"""

from __future__ import annotations

import _socket  # `socket` is 2 ms more
import array
import errno
import io
import os
import struct
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any, NamedTuple

from taktline._signals import pass_on
from taktline._wire.arena import Arena, ArenaReader, wanted

# rest of the frame's bytes, seq, freed, arena position, note bytes, parts, kind, and what tells a head from other bytes
HEAD = struct.Struct("<QQQQIIB3s")
OURS = b"\xf4tk"
SMALL = 1 << 14  # bytes of payload that go through the socket itself: copying them twice costs less than the detour
ARENA = 0xFF  # kind of the frame that announces a new arena
NOWHERE = (1 << 64) - 1  # arena position of a payload that lies in the frame
READ = 1 << 18  # bytes asked of the socket at once; also what a socket pair holds
KEPT = 2  # an arena may be in use for kept buffers to this part of it; the rest is for what flows
GATHER = 512  # buffers in one system call; the least IOV_MAX that systems promise is 16, Linux and macOS have 1024

Bytes = bytes | memoryview


def new_poll() -> tuple[Any, Any]:
    """Return a poll of the system's own and the module with its constants, also where a library such as eventlet has taken
    `poll` out of `select`: what waits for workers must hear of all of them."""
    import select
    from importlib.util import find_spec, module_from_spec

    if not hasattr(select, "poll") and (spec := find_spec("select")) is not None and spec.loader is not None:
        fresh = module_from_spec(spec)
        spec.loader.exec_module(fresh)
        return fresh.poll(), fresh
    return select.poll(), select


class Frame(NamedTuple):
    """One frame as it arrived. `parts` may lie in the arena: valid until `Channel.release`, which must follow."""

    kind: int
    seq: int
    note: bytes
    parts: list[memoryview]
    position: int = NOWHERE  # in the arena


def descriptors() -> list[int]:
    """The sockets of all channels that this process has open."""
    return [each for each in (channel.fileno() for channel in list(_CHANNELS)) if each >= 0]


class Channel:
    """One end. The hub's end never blocks: it keeps what the socket does not take. A worker's end blocks."""

    def __init__(self, sock: _socket.socket, *, blocking: bool, most: int) -> None:
        sock.setblocking(blocking)
        _CHANNELS.add(self)
        self._socket = sock
        self._blocking = blocking
        self._most = most  # bytes of the largest arena
        self._out: Arena | None = None
        self._in: ArenaReader | None = None
        self._unsent: deque[Bytes] = deque()
        self._passing: dict[int, io.FileIO] = {}  # id of an unsent frame: the file that goes with it
        self._got = bytearray()
        self._extra: list[tuple[int, int, bytes]] = []  # what came beside the bytes, not yet looked into
        self._descriptors: deque[int] = deque()
        self._consumed = 0  # position in the other end's arena up to which nothing is needed any more
        self._read = 0  # the same, as far as messages go
        self._held = 0  # the same, once the message handed out last is done with
        self._kept: dict[int, int] = {}  # position of a payload, rising: how many of its buffers are in use
        self._leases: dict[int, tuple[weakref.ref[Any], int]] = {}  # by id: a buffer in use, its payload's position
        self._unused: deque[int] = deque()  # payloads of which a buffer is not in use any more, by whatever thread
        self._drained = False
        self.ended = False
        self.torn = False  # a signal's handler raised in the midst of a `receive`: no further one would make sense
        self.damaged = False  # bytes have come that the other end has not sent

    def block(self, blocking: bool) -> None:
        """Whether this end waits for the other one, from now on."""
        self._blocking = blocking
        self._socket.setblocking(blocking)

    def fileno(self) -> int:
        """The socket's descriptor, for poll."""
        return self._socket.fileno()

    def send(
        self, kind: int, seq: int = 0, note: bytes = b"", parts: Sequence[Bytes] = (), *, later: bool = False,
        borrowed: bool = False,
    ) -> None:  # fmt: skip
        """Send a message; `later`: with the next `flush`, so that many small ones go in one system call. `borrowed`: the
        parts may be others as soon as this returns.

        Raises BrokenPipeError or ConnectionResetError when the other end is gone."""
        total = 0
        for part in parts:
            total += len(part)
        position = NOWHERE
        if total > SMALL:
            placed = self._place(parts, total)
            if placed is not None:
                position = placed
            elif borrowed:
                parts = [bytes(part) for part in parts]
        self._unsent.extend(self._frame(kind, seq, note, parts, total if position == NOWHERE else 0, position))
        if not later:
            self.flush()

    def _frame(
        self, kind: int, seq: int, note: bytes, parts: Sequence[Bytes], inline: int, position: int
    ) -> list[Bytes]:
        if self._unused:
            self._settle()
        count, note_size = len(parts), len(note)
        sizes = struct.pack(f"<{count}Q", *map(len, parts))
        head = HEAD.pack(8 * count + note_size + inline, seq, self._consumed, position, note_size, count, kind, OURS)
        if not inline:
            return [head + sizes + note]
        if inline <= SMALL:
            return [b"".join((head, sizes, note, *parts))]
        return [head + sizes + note, *parts]

    def _place(self, parts: Sequence[Bytes], total: int) -> int | None:
        if self._out is not None:
            position = self._out.put(parts, total)
            if position is not None or total * 4 < self._out.size:
                return position
        size = wanted(total)
        if size > self._most:
            size = self._most
            if size < total or (self._out is not None and self._out.size >= size):
                return None
        base = self._out.head if self._out is not None else 0
        try:
            arena = Arena(size, base)
        except OSError as error:
            pass_on(error)
            # No descriptor, no memory, a limit on files: what does not fit goes through the socket for good.
            self._most = 0
            return None
        if self._out is not None:
            self._out.close()
        self._out = arena
        note = struct.pack("<QQ", size, base)
        (frame,) = self._frame(ARENA, 0, note, (), 0, NOWHERE)
        self._passing[id(frame)] = arena.hand_over()
        self._unsent.append(frame)
        return self._out.put(parts, total)

    @property
    def backed_up(self) -> bool:
        """Whether something waits for the socket to take it."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send what is waiting, as far as the socket takes it."""
        unsent = self._unsent
        while unsent:
            try:
                if self._passing and id(unsent[0]) in self._passing:
                    self._pass()
                    continue
                if len(unsent) == 1:
                    sent = self._socket.send(unsent[0])
                else:
                    sent = self._socket.sendmsg(self._lot())
            except BlockingIOError as error:
                pass_on(error)
                return
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]

    def _lot(self) -> list[Bytes]:
        """Unsent buffers for one system call; a frame with a descriptor goes by itself."""
        lot = islice(self._unsent, GATHER)
        return list(takewhile(lambda buffer: id(buffer) not in self._passing, lot) if self._passing else lot)

    def _pass(self) -> None:
        frame = self._unsent[0]
        descriptor = self._passing[id(frame)].fileno()
        extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        sent = self._socket.sendmsg([frame], extra)
        self._passing.pop(id(frame)).close()
        self._unsent.popleft()
        if sent < len(frame):
            self._unsent.appendleft(memoryview(frame)[sent:])

    def give_up_sending(self) -> None:
        """The other end is gone: forget what it has not taken."""
        while self._passing:
            self._passing.popitem()[1].close()
        self._unsent.clear()

    def receive(self) -> Frame | None:
        """The next message; None where the other end is gone, something else was `damaged`, or (hub) where no whole one
        is there yet."""
        self.torn = True
        while (message := self._next()) is None:
            if self.ended or (self._drained and not self._blocking) or not self._fill():
                self._drained = self.torn = False
                return None
        self.torn = False
        return message

    def release(self) -> None:
        """The payloads received so far are read: what is sent next tells the other end that their space is free."""
        self._read = self._held
        self._settle()

    def buffers(self, message: Frame) -> list[Any]:
        """All parts of a message but the first one, as buffers for keeps. Call it before `release`.

        They are the arena's own memory, so that an array crosses by the sender's one copy; its space is free again when
        nothing refers to it any more. Who holds on to many gets copies, so that the arena never runs full of them.
        """
        sizes = [len(part) for part in message.parts]
        reader = (
            self._in
        )  # the one it lies in: whatever is imported here may ask the other end, and receive a new arena
        if message.position == NOWHERE or reader is None:
            return [bytearray(part) for part in message.parts[1:]]
        if not self._may_lend(message, sum(sizes), reader):
            return [bytearray(part) for part in message.parts[1:]]
        buffers, at = [], sizes[0]
        self._kept[message.position] = len(sizes) - 1
        for size in sizes[1:]:
            buffers.append(self._lent(reader, message.position, at, size))
            at += size
        return buffers

    def keep(self, message: Frame) -> list[Bytes]:
        """All parts of a message for keeps, to be sent on: as in `buffers`, but one for all of them. Call it before
        `release`."""
        total = sum(map(len, message.parts))
        reader = self._in
        if message.position == NOWHERE or reader is None or not self._may_lend(message, total, reader):
            return [bytes(part) for part in message.parts]
        self._kept[message.position] = 1
        whole = memoryview(self._lent(reader, message.position, 0, total)).cast("B")
        parts: list[Bytes] = []
        at = 0
        for part in message.parts:
            parts.append(whole[at : at + len(part)])
            at += len(part)
        return parts

    def _may_lend(self, message: Frame, total: int, reader: ArenaReader) -> bool:
        """Whether there is room enough beside what is kept; where there is none, copies are made."""
        self._settle()
        lowest = next(iter(self._kept), message.position)
        return message.position + total - lowest <= reader.size // KEPT

    def _lent(self, reader: ArenaReader, position: int, at: int, size: int) -> Any:
        buffer = reader.export(position, at, size)
        lease = weakref.ref(buffer, self._let_go)
        self._leases[id(lease)] = (lease, position)
        return buffer

    def _let_go(self, lease: weakref.ref[Any]) -> None:
        """In any thread, at any moment: so it is noted, and no more."""
        _, position = self._leases.pop(id(lease), (lease, -1))
        self._unused.append(position)

    def _settle(self) -> None:
        """What is not in use any more is free, as far as nothing before it is kept."""
        while self._unused:
            position = self._unused.popleft()
            if position not in self._kept:  # of an arena before this one
                continue
            self._kept[position] -= 1
            if not self._kept[position]:
                del self._kept[position]
        self._consumed = next(iter(self._kept)) if self._kept else self._read

    def _fill(self) -> bool:
        try:
            data, self._extra, _, _ = self._socket.recvmsg(READ, 256)
        except BlockingIOError as error:
            pass_on(error)
            return False
        except ConnectionResetError as error:
            pass_on(error)
            data = b""
        if self._extra:
            self._look_into_extra()
        if not data:
            self.ended = True
            return False
        self._got += data
        # A socket that gave less than asked for is empty now: asking again would only cost the call.
        self._drained = len(data) < READ
        return True

    def _look_into_extra(self) -> None:
        found = array.array("i")
        for level, kind, content in self._extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
        # In one line: what a signal's handler raises before it or behind it loses no descriptor.
        self._descriptors, self._extra = self._descriptors + deque(found), []

    def _next(self) -> Frame | None:
        got = self._got
        there = len(got)
        if there < HEAD.size:
            return None
        rest, seq, freed, position, note_size, count, kind, ours = HEAD.unpack_from(got)
        if ours != OURS or rest < 8 * count + note_size:
            self.ended = self.damaged = True
            return None
        if there < HEAD.size + rest:
            return None
        frame = bytes(memoryview(got)[HEAD.size : HEAD.size + rest])
        del got[: HEAD.size + rest]
        if self._out is not None:
            self._out.free(freed)
        sizes = struct.unpack_from(f"<{count}Q", frame)
        note = frame[8 * count : 8 * count + note_size]
        if kind == ARENA:
            self._adopt(note)
            return self._next()
        if position == NOWHERE:
            payload = memoryview(frame)[8 * count + note_size :]
        else:
            assert self._in is not None
            total = sum(sizes)
            payload = self._in.at(position, total)
            self._held = self._in.after(position, total)
        parts, at = [], 0
        for size in sizes:
            parts.append(payload[at : at + size])
            at += size
        return Frame(kind, seq, note, parts, position)

    def _adopt(self, note: bytes) -> None:
        size, base = struct.unpack("<QQ", note)
        if not self._descriptors:  # the system drops a descriptor that finds no place here
            raise OSError(errno.EMFILE, "no file descriptor is left to receive data with; raise the limit (ulimit -n)")
        with io.FileIO(self._descriptors.popleft(), "r+b") as file:
            if self._in is not None:
                self._in.close()
                self._kept.clear()
                self._leases.clear()
            self._in = ArenaReader(file.fileno(), size, base)

    def abandon(self) -> None:
        """In a fork of this process: let go of the socket, which belongs to the process that was forked."""
        self._socket.close()
        self.ended = True

    def close(self) -> None:
        """Close the socket and both arenas. May be called again."""
        self._socket.close()
        self.give_up_sending()
        self._look_into_extra()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        if self._out is not None:
            self._out.close()
            self._out = None
        if self._in is not None:
            self._in.close()
            self._in = None
        self._kept.clear()
        self._leases.clear()
        self.ended = True


_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()
