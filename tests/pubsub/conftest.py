"""Servers for the tests: Google's pstest where it can be built, and our own, which knows more of the protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("grpc") is None:
    collect_ignore_glob = ["*.py"]  # the extra is not installed
else:
    from pubsub import emulator
    from pubsub.bus import Bus
    from pubsub.server import Server


@pytest.fixture(scope="session")
def pstest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not emulator.can_build_pstest():
        pytest.skip("pstest needs Debian's golang-go and golang-google-cloud-dev")
    return emulator.build_pstest(tmp_path_factory.mktemp("pstest"))


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """On our own server."""
    with Server() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.address)
        found = Bus(server)
        yield found
        found.close()


@pytest.fixture(params=["own", "pstest"])
def any_bus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """On each server."""
    if request.param == "own":
        yield request.getfixturevalue("bus")
        return
    with emulator.running(request.getfixturevalue("pstest")) as address:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        found = Bus(None)
        yield found
        found.close()


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """The threads that keep leases end with the run."""
    yield
    end = time.monotonic() + 10
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("taktline-pubsub")]:
        assert time.monotonic() < end, left
        time.sleep(0.01)
