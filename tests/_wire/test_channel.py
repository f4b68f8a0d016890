"""A channel carries every message whole, also where the system gives no arena, or no address space to see it in."""

from __future__ import annotations

import mmap
import os
import socket

import pytest

from taktline._wire import arena
from taktline._wire.channel import SMALL, Channel

PARTS = [b"a" * (SMALL + 1), b"", b"b" * 300_000]


def pair() -> tuple[Channel, Channel]:
    here, there = socket.socketpair()
    return Channel(here, blocking=False, most=1 << 26), Channel(there, blocking=True, most=1 << 26)


def carried(sender: Channel, receiver: Channel) -> list[bytes]:
    """What arrives of PARTS."""
    sender.send(1, 7, b"note", PARTS, later=True)
    got = None
    while got is None:  # a socket does not take all at once
        sender.flush()
        got = receiver.receive() if not sender.backed_up else receiver_takes(receiver)
    parts = [bytes(part) for part in got.parts]
    assert (got.kind, got.seq, got.note) == (1, 7, b"note")
    del got
    receiver.release()
    return parts


def receiver_takes(receiver: Channel):
    receiver._fill()
    return receiver._next()


@pytest.fixture
def channels():
    sender, receiver = pair()
    yield sender, receiver
    sender.close()
    receiver.close()


def test_payloads_go_through_the_arena(channels):
    for _ in range(20):
        assert carried(*channels) == PARTS
    assert channels[0]._out is not None


@pytest.mark.parametrize("missing", ["memfd_create", "ftruncate"])
def test_without_an_arena_payloads_go_through_the_socket(channels, missing, monkeypatch):
    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(os, missing, refuse)
    for _ in range(3):
        assert carried(*channels) == PARTS
    assert channels[0]._out is None


def test_an_arena_that_cannot_grow_goes_on_as_it_is(channels, monkeypatch):
    assert carried(*channels) == PARTS
    size = channels[0]._out.size
    monkeypatch.setattr(os, "memfd_create", lambda *_: (_ for _ in ()).throw(OSError("no")))
    channels[0].send(2, 8, b"", [bytes(size * 2)], later=True)
    got = None
    while got is None:
        channels[0].flush()
        got = receiver_takes(channels[1])
    assert len(got.parts[0]) == size * 2
    del got
    channels[1].release()
    assert carried(*channels) == PARTS
    assert channels[0]._out.size == size


def test_an_arena_that_cannot_be_mapped_is_read_as_a_file(channels, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    sender, receiver = channels
    sender.send(1, 7, b"note", PARTS)

    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(mmap, "mmap", refuse)
    got = receiver.receive()
    assert [bytes(part) for part in got.parts] == PARTS
    del got
    receiver.release()
    sender.close()
    receiver.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2  # the two sockets


def test_an_arena_for_which_no_descriptor_is_left_is_told(channels):
    import resource

    sender, receiver = channels
    sender.send(1, 7, b"note", PARTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="no file descriptor is left"):
            receiver.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_keep_clear_of_the_standard_ones():
    taken, copy = os.open(os.devnull, os.O_RDONLY), os.dup(0)
    os.close(0)
    try:
        moved = arena.above_standard(os.open(os.devnull, os.O_RDONLY))
        assert moved > 2
        os.close(moved)
        with pytest.raises(OSError):
            os.fstat(0)
    finally:
        os.dup2(copy, 0)
        os.close(copy)
        os.close(taken)
