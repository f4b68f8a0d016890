"""What is handed over to a sink."""

from __future__ import annotations

import pytest

from taktline._run.output import OutputBatch
from taktline._segment.values import Encoded
from taktline.abc import Sink


class Noting(Sink):
    open = commit = abort = lambda self: None

    def __init__(self, in_place):
        self.encoded_in_place = in_place
        self.got = []

    def write(self, results):
        raise AssertionError("they are bytes")

    def write_encoded(self, data, count):
        self.got.append((type(data), bytes(data), count))


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_what_a_worker_made_is_bytes_unless_a_sink_takes_it_where_it_lies(data):
    sinks = Noting(False), Noting(True)
    for sink in sinks:
        OutputBatch(Encoded(data, 3)).into(sink)
    assert [sink.got for sink in sinks] == [[(bytes, b"abc", 3)], [(memoryview, b"abc", 3)]]
