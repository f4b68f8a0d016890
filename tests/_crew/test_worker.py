"""What a worker says besides its results never cuts into a message that is on its way; and how it looks for garbage."""

from __future__ import annotations

import gc

import pytest

from taktline import line
from taktline._crew import protocol
from taktline._crew.worker import Worker
from taktline._wire.board import Board


class Sending:
    """A channel in whose `send` a finaliser runs."""

    def __init__(self):
        self.sent = []
        self.inside = False
        self.worker = None

    def fileno(self):
        return 0

    def send(self, kind, seq=0, note=b"", parts=()):
        assert not self.inside
        self.inside = True
        if kind == protocol.DONE:
            self.worker.send_note(protocol.LOGGED, b"first")
            self.worker.send_note(protocol.SAID, b"second")
        self.inside = False
        self.sent.append((kind, note))


def test_what_a_finaliser_says_in_the_middle_of_a_message_goes_after_it():
    channel = Sending()
    channel.worker = Worker(channel, Board(), lifeline=0)
    channel.worker.send(protocol.DONE, 7, b"results")
    channel.worker.send_note(protocol.LOGGED, b"third")
    assert channel.sent == [
        (protocol.DONE, b"results"),
        (protocol.LOGGED, b"first"),
        (protocol.SAID, b"second"),
        (protocol.LOGGED, b"third"),
    ]


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_garbage_is_looked_for_but_not_among_what_was_there_before_the_first_record(start):
    flow = line(lambda _: (gc.isenabled(), gc.get_freeze_count() > 1000))
    assert list(flow([0], how="line", workers=1, start=start)) == [(True, True)]
