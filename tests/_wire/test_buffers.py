"""Large buffers: what crosses is whole, and what was kept stays as it was however much follows."""

from __future__ import annotations

import gc
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taktline._wire import serialize
from taktline._wire.arena import ArenaReader
from taktline._wire.channel import Channel

sizes = st.lists(st.integers(0, 200_000), max_size=6)


class Pair:
    """A hub's end and a worker's end in one process."""

    def __init__(self, most: int = 1 << 22) -> None:
        here, there = socket.socketpair()
        self.hub = Channel(here, blocking=False, most=most)
        self.worker = Channel(there, blocking=True, most=most)

    def cross(self, values):
        """To the worker and back, as a batch goes; the values as they come out."""
        self.hub.send(1, 7, b"note", serialize.pack(values))
        received = self.pump(self.worker, self.hub)
        there = serialize.unpack(received.parts, self.worker.buffers(received))
        del received
        self.worker.release()
        parts = serialize.pack(there)
        # A worker's end blocks where the hub does not read; one process can only play both with what fits.
        self.worker._socket.setblocking(False)
        self.worker.send(2, 8, b"", parts)
        del there
        answer = self.pump(self.hub, self.worker)
        assert (answer.kind, answer.seq) == (2, 8)
        back = serialize.unpack(answer.parts, self.hub.buffers(answer))
        del answer
        self.hub.release()
        return back

    def pump(self, receiver, sender):
        receiver._socket.setblocking(False)
        receiver._blocking = False
        while (message := receiver.receive()) is None:
            sender.flush()
        return message

    def close(self) -> None:
        self.hub.close()
        self.worker.close()


def memory_of(array):
    """What the array's memory belongs to."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


@pytest.fixture
def pair():
    made = Pair()
    yield made
    made.close()


@given(lots=st.lists(sizes, min_size=1, max_size=12), keep=st.integers(1, 4))
def test_arrays_arrive_whole_and_kept_ones_stay_as_they_were(lots, keep):
    pair = Pair()
    kept = []
    for n, lot in enumerate(lots):
        values = [np.full(size, n, dtype=np.uint8) for size in lot] + [b"x" * n, None]
        back = pair.cross(values)
        assert [type(value) for value in back] == [type(value) for value in values]
        for value, before in zip(back[:-2], values[:-2], strict=True):
            assert (value == before).all()
            value[:] = 255 - n  # they are writable, and nobody else's
        kept += [(255 - n, value) for value in back[:-2:keep]]
        for content, value in kept:
            assert (value == content).all()
    pair.close()
    for content, value in kept:
        assert (value == content).all()


def test_an_array_that_is_dropped_gives_its_space_back(pair):
    array = np.zeros(100_000, dtype=np.uint8)
    for _ in range(200):
        back = pair.cross([array])
        assert len(back[0]) == 100_000
    del back
    gc.collect()
    pair.cross([])
    assert not pair.hub._kept
    assert not pair.worker._kept
    assert pair.hub._in.size == 1 << 20  # two hundred of them went through the first arena


def test_an_array_that_comes_out_is_not_copied_and_many_kept_ones_are(pair):
    kept = [pair.cross([np.zeros(100_000, dtype=np.uint8)])[0] for _ in range(40)]
    in_place = sum(not isinstance(memory_of(array), bytearray) for array in kept)
    assert 1 <= in_place <= 6  # at most half of the arena of 1 MiB
    assert all(not array.any() for array in kept)


@given(lots=st.lists(st.lists(st.integers(0, 40_000), max_size=4), min_size=1, max_size=12), kept=st.integers(1, 3))
def test_what_is_kept_to_be_sent_on_stays_as_it_is_and_gives_its_space_back(lots, kept):
    pair = Pair(most=1 << 18)
    held = []
    for n, sizes in enumerate([*lots, *lots]):
        lot = [bytes([n]) * size for size in sizes]
        pair.hub.send(1, n, b"note", lot)
        message = pair.pump(pair.worker, pair.hub)
        parts = pair.worker.keep(message)
        del message
        pair.worker.release()
        pair.worker.send(2, n)  # says what is free
        assert pair.pump(pair.hub, pair.worker).seq == n
        pair.hub.release()
        held += [(parts, lot)] * (n % kept == 0)
        del parts
        for parts, before in held:
            assert [bytes(part) for part in parts] == before
    del parts, before
    held.clear()
    pair.worker.release()
    assert not pair.worker._kept
    pair.close()


def test_parts_that_are_borrowed_may_change_once_they_are_sent():
    pair = Pair(most=0)  # no arena: they wait for the socket
    mine = bytearray(b"a" * 400_000)
    pair.hub.send(1, 7, b"", [memoryview(mine)], later=True, borrowed=True)
    mine[:] = b"b" * len(mine)
    assert bytes(pair.pump(pair.worker, pair.hub).parts[0]) == b"a" * 400_000
    pair.close()


def test_a_slice_keeps_the_memory_of_its_array(pair):
    part = pair.cross([np.arange(50_000)])[0][10:20]
    for _ in range(100):
        pair.cross([np.full(50_000, -1)])
    assert part.tolist() == list(range(10, 20))


def test_arrays_that_must_not_be_written_stay_so(pair):
    array = np.arange(50_000)
    array.flags.writeable = False
    (back,) = pair.cross([array])
    assert not back.flags.writeable
    for _ in range(100):
        pair.cross([np.full(50_000, -1)])
    assert (back == array).all()


def test_what_no_arena_can_hold_goes_through_the_socket():
    pair = Pair(most=1 << 16)
    (back,) = pair.cross([np.arange(100_000)])
    assert (back == np.arange(100_000)).all()
    pair.close()


def test_a_new_arena_that_comes_while_buffers_are_taken_changes_none_of_them(pair, monkeypatch):
    """What is imported in the middle may be asked for at the other end, and messages come in before the answer."""
    arrays = [np.full(5_000, n) for n in (7, 8, 9)]
    pair.hub.send(1, 7, b"", serialize.pack(arrays))
    received, export = pair.pump(pair.worker, pair.hub), ArenaReader.export
    larger = [np.full(3_000_000 // 8, 1)]

    def exported(reader, *place):
        if larger:
            pair.hub.send(1, 8, b"", serialize.pack([larger.pop()]))
            assert pair.pump(pair.worker, pair.hub).seq == 8
        return export(reader, *place)

    monkeypatch.setattr(ArenaReader, "export", exported)
    before = pair.worker._in
    there = serialize.unpack(received.parts, pair.worker.buffers(received))
    assert pair.worker._in is not before
    assert [set(array.tolist()) for array in there] == [{7}, {8}, {9}]
