"""A Ray cluster on this machine: a head and nodes of one CPU each, each at a loopback address of its own, and what can be
done to them. For tests and benchmarks, in an environment that has Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
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

# A network of its own, for a machine that is to be cut off: what is in it, the way to it, and who is outside of it.
SPACE, WIRE = "taktline-tests", "taktline-t0"
WITHIN = ("ip", "netns", "exec", SPACE)
INSIDE, OUTSIDE, BESIDE = "10.213.0.2", "10.213.0.1", "10.213.0.3"


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
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
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
        surroundings = {**os.environ, **QUIET, **self.environment, OF: self.folder}
        done = subprocess.run(
            command, env=surroundings, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120,
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


class Growing(Cluster):
    """One with Ray's own autoscaler, which brings nodes of one CPU, so many of them at most, and takes idle ones away. They
    are processes of this machine, by the provider that Ray's own tests have."""

    def __init__(self, most: int) -> None:
        super().__init__([])
        self.most = most
        self.environment = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}

    def start_head(self) -> None:
        kinds = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "one": {
                "resources": {"CPU": 1, "object_store_memory": STORE},
                "node_config": {},
                "min_workers": 0,
                "max_workers": self.most,
            },
        }
        lists = (
            "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
            "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
        )  # fmt: skip
        config = {
            **{name: list[str]() for name in lists}, "file_mounts": {}, "file_mounts_sync_continuously": False,
            "cluster_name": "taktline-tests", "max_workers": self.most, "idle_timeout_minutes": 0.05, "auth": {},
            "available_node_types": kinds, "head_node_type": "ray.head.default", "upscaling_speed": 1.0,
            "provider": {
                "type": "fake_multinode", "gcs_address": self.address, "use_node_id_as_ip": True,
                "disable_node_updaters": True, "disable_launch_config_check": True,
            },
        }  # fmt: skip
        (Path(self.folder) / "autoscaler.json").write_text(json.dumps(config))
        self.ray(
            "start", "--head", f"--node-ip-address={self.head}", f"--port={self.port}", "--num-cpus=0",
            "--include-dashboard=false", self.store, f"--temp-dir={self.folder}", "--disable-usage-stats",
            f"--autoscaling-config={self.folder}/autoscaler.json",
        )  # fmt: skip

    def brought(self) -> int:
        """How many nodes there are beside the head."""
        there = [
            command for _, command in processes().values() if "raylet/raylet " in command and self.folder in command
        ]
        return len(there) - 1


def may_cut() -> str:
    """Why no network can be made and cut here; empty where one can."""
    try:
        done = subprocess.run(["ip", "netns", "add", SPACE], capture_output=True, text=True)
    except FileNotFoundError:
        return "there is no `ip` command"
    if done.returncode:
        return done.stderr.strip()
    subprocess.run(["ip", "netns", "del", SPACE], check=True)
    return ""


@contextmanager
def cluster_with_a_cable() -> Iterator[Cluster]:
    """A cluster of a node in a network of its own, INSIDE, and one that is outside of it, BESIDE. For root."""
    for command in (
        f"ip netns add {SPACE}", f"ip link add {WIRE} type veth peer name inside netns {SPACE}",
        f"ip addr add {OUTSIDE}/24 dev {WIRE}", f"ip addr add {BESIDE}/24 dev {WIRE}", f"ip link set {WIRE} up",
        f"ip netns exec {SPACE} ip addr add {INSIDE}/24 dev inside", f"ip netns exec {SPACE} ip link set inside up",
        f"ip netns exec {SPACE} ip link set lo up",
    ):  # fmt: skip
        subprocess.run(command.split(), check=True)
    try:
        with Cluster([BESIDE], head=OUTSIDE) as cluster:
            cluster.start_node(INSIDE, within=WITHIN)
            yield cluster
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=False)
        subprocess.run(["ip", "link", "del", WIRE], check=False, capture_output=True)


def pull_the_cable() -> None:
    """Cut off what is INSIDE."""
    subprocess.run(["ip", "link", "set", WIRE, "down"], check=True)


def gone(pids: list[int], seconds: float) -> bool:
    """Whether these end within the time."""
    until = time.monotonic() + seconds
    while any(pid in processes() for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
