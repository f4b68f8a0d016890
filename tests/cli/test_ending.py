"""Signals that end a command."""

from __future__ import annotations

import signal

from taktline.cli.commands import DONE, run_main

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_a_command_leaves_the_handlers_of_signals_as_they_were(capsys):
    before = [signal.getsignal(each) for each in ENDING]
    assert run_main(["--version"]) == DONE
    assert [signal.getsignal(each) for each in ENDING] == before
