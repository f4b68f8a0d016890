"""A Ray cluster on this machine: a head and nodes of one CPU each, each at a loopback address of its own, and what can be
done to them. For tests and benchmarks, in an environment that has Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

# Before Ray is loaded: whatever this user has set up for clusters of their own, these have a token of their own.
# Processes that are started from here have it too.
TOKEN = os.environ.setdefault("TAKTLINE_CLUSTER_TOKEN", uuid4().hex)
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}

HEAD, NODES = "127.0.0.1", ("127.0.0.2", "127.0.0.3")
RESOURCES = {"127.0.0.3": '{"scorer": 2}'}
OF = "TAKTLINE_CLUSTER"  # whose folder it is
STORE = 100_000_000  # bytes of memory for objects, a node
QUIET = {
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        return int(probe.getsockname()[1])


def processes() -> dict[int, tuple[int, str]]:
    """All of this machine that live: parent and command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":  # one that has ended, and whose parent does not look
                found[int(path.name)] = int(parent), (path / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Cluster:
    """What the tests do to it. Each part of it is known by its own folder of sockets, or its address, in its command."""

    def __init__(self, nodes: Sequence[str] = NODES, *, head: str = HEAD, store: int = STORE, cpus: int = 1) -> None:
        self.folder = tempfile.mkdtemp(prefix="tr", dir="/tmp")
        self.nodes = nodes
        self.port = free_port()
        self.head = head
        self.address = f"{head}:{self.port}"
        self.cpus = cpus  # of each node
        self.store = f"--object-store-memory={store}"

    def __enter__(self) -> Cluster:
        try:
            self.start_head()
            for address in self.nodes:
                self.start_node(address)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ray(self, *arguments: str, within: Sequence[str] = ()) -> None:
        """`within`: a command that runs it elsewhere."""
        command = [*within, sys.executable, "-m", "ray.scripts.scripts", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **QUIET, OF: self.folder}, cwd=self.folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def start_head(self) -> None:
        self.ray(
            "start", "--head", f"--node-ip-address={self.head}", f"--port={self.port}", "--num-cpus=0",
            "--include-dashboard=false", self.store, f"--temp-dir={self.folder}", "--disable-usage-stats",
        )  # fmt: skip

    def start_node(self, address: str, within: Sequence[str] = (), more: Sequence[str] = ()) -> None:
        """`more`: arguments of `ray start`."""
        self.ray(
            "start", f"--address={self.address}", f"--node-ip-address={address}", f"--num-cpus={self.cpus}", self.store,
            f"--resources={RESOURCES.get(address, '{}')}", "--disable-usage-stats", *more, within=within,
        )  # fmt: skip

    def of_head(self) -> list[int]:
        """What keeps the cluster together, and the head's own raylet."""
        there, own = processes(), set(self.of_node(self.head))
        return [
            pid for pid, (_, command) in there.items() if self.folder in command and ("gcs_server" in command or pid in own)
        ]  # fmt: skip

    def of_node(self, address: str) -> list[int]:
        """All processes of a node: its raylet, what that has started, and what these have."""
        there = processes()
        raylets = [
            pid for pid, (_, command) in there.items() if "raylet/raylet " in command and f"={address} " in command
        ]
        found = list(raylets)
        for pid in found:
            found += [child for child, (parent, _) in there.items() if parent == pid]
        return found

    def signal_node(self, address: str, number: int) -> list[int]:
        pids = self.of_node(address)
        assert pids
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return pids

    def alive(self) -> set[str]:
        return {address for address in self.nodes if self.of_node(address)}

    def mend(self) -> None:
        for address in self.nodes:
            if not self.of_node(address):
                self.start_node(address)

    def stop(self) -> None:
        """End all that was started for it, and what that has started: known by a variable in its surroundings."""
        mine = f"{OF}={self.folder}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mine in (path / "environ").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        shutil.rmtree(self.folder, ignore_errors=True)


def gone(pids: list[int], seconds: float) -> bool:
    """Whether these end within the time."""
    until = time.monotonic() + seconds
    while any(pid in processes() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
