"""A slice of `python3 dev.py hosts`: a few tasks on hosts of Celery that are killed and frozen."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from faults.brokers import NoServer
from faults.hosts import host
from faults.hosts.__main__ import run_chaos

pytestmark = pytest.mark.timeout(1800)


def test_tasks_go_on_when_their_hosts_are_killed_and_frozen():
    try:
        toll = run_chaos(tasks=4, kills=3, seed=17)
    except NoServer as none:
        pytest.skip(str(none))
    assert toll.wrong == []
    assert toll.done.total() == 3
    assert toll.tries > 4


def test_a_process_that_has_ended_meanwhile_is_no_reason_to_leave_the_others_as_they_are(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as short:
        ended = psutil.Process(short.pid)
    found = host.all_of
    monkeypatch.setattr(host, "all_of", lambda pid: [ended, *found(pid)])
    one = host.Host(tmp_path / "host", [sys.executable, "-c", "input()"], {})
    one.start()
    for harm in (one.freeze, one.thaw, one.freeze, one.kill):
        harm()
    assert not one.up
