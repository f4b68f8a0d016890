"""Workers and connections, signals, kills: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pubsub import chaos

from taktline import LineError, line
from taktline.pubsub import publish, subscribe

SUBSCRIBER = """
import sys, time
from pubsub.emulator import check_loopback
from taktline import line
from taktline.pubsub import subscribe

check_loopback()
name, path, slow, drain = sys.argv[1:]

def step(message):
    open(path + ".begun", "w").close()
    time.sleep(float(slow))
    return message.id

with open(path, "a", buffering=1) as out:
    report = line(step).run(
        subscribe(name, drain=float(drain)), lambda id: out.write(id + "\\n"), how="line", workers=2, batch_size=1
    )
print("drained", report.records_out)
"""


def sockets_of(pid: int | str) -> set[str]:
    """The sockets that a process has open."""
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue  # of listdir itself
    return {each for each in found if each.startswith("socket:")}


def connections_to(address: str) -> set[str]:
    """The sockets on this machine that are connected to this port."""
    port = f"{int(address.rpartition(':')[2]):04X}"
    rows = [row for kind in ("tcp", "tcp6") for row in Path("/proc/net", kind).read_text().splitlines()[1:]]
    return {f"socket:[{row.split()[9]}]" for row in rows if port in (row.split()[1][-4:], row.split()[2][-4:])}


def start(bus, name: str, path: Path, slow: float, drain: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, name, str(path), str(slow), str(drain)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_launched_workers_have_no_connection_of_the_client(bus):
    topic, name = bus.make()
    goes_out, _ = bus.make()
    bus.send(topic, range(50))

    def sockets(message):
        return "\n".join(sockets_of("self"))

    source, sink, seen = subscribe(name, limit=50), publish(goes_out), set()
    ours: set[str] = set()
    for each in line(sockets)(source, how="line", workers=2, batch_size=1):
        seen |= set(each.split("\n"))
        ours |= sockets_of("self") & connections_to(bus.server.address)
    assert ours
    assert seen
    assert not seen & ours
    line(sockets).run(subscribe(name, idle=0.2), sink, how="line", workers=1)


def test_workers_are_not_forked_beside_a_connection(bus):
    topic, name = bus.make()
    with pytest.raises(LineError, match=r"workers cannot be forked beside it; use start=\"launch\""):
        line(str)(subscribe(name), start="fork")
    with pytest.raises(LineError, match=r"workers cannot be forked beside it; use start=\"launch\""):
        line(str).run([1], publish(topic), start="fork")
    assert not bus.server.calls["GetSubscription"]


def test_sigterm_finishes_what_is_under_way_and_gives_the_rest_back(bus, tmp_path):
    topic, name = bus.make()
    bus.send(topic, range(2000))
    with start(bus, name, tmp_path / "safe", slow=0.002, drain=60) as process:
        assert bus.server.until(lambda: len(bus.server.acknowledged) >= 20)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    safe = (tmp_path / "safe").read_text().split()
    assert said == f"drained {len(safe)}\n"
    assert sorted(safe) == sorted(bus.server.acknowledged)  # and each of them once
    assert len(safe) < 2000
    assert bus.server.out(name) == 0
    assert bus.server.left(name) == 2000 - len(safe)


def test_sigterm_gives_back_what_is_not_done_in_time(bus, tmp_path):
    topic, name = bus.make()
    bus.send(topic, range(10))
    with start(bus, name, tmp_path / "safe", slow=3600, drain=0.1) as process:
        assert bus.server.until((tmp_path / "safe.begun").exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert bus.server.acknowledged == []
    assert len(bus.server.given_back) == 10


def test_a_killed_subscriber_loses_nothing(bus, tmp_path):
    bus.server.second = 0.02
    topic, name = bus.make()
    bus.send(topic, range(500))
    with start(bus, name, tmp_path / "safe", slow=0.001, drain=1) as process:
        assert bus.server.until(lambda: len(bus.server.acknowledged) >= 100)
        process.kill()
        process.communicate()
    with start(bus, name, tmp_path / "safe", slow=0, drain=60) as process:
        assert bus.server.until(lambda: bus.server.left(name) == 0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert {int(id) for id in (tmp_path / "safe").read_text().split()} == set(range(1, 501))


def test_random_kills_of_workers_and_of_subscribers_that_share_a_subscription():
    found = chaos.run(messages=3000, keys=10, kills=4, seed=7, subscribers=2)
    assert not found.wrong
    assert found.kills
