"""Real servers for the tests, started by them on this machine and ended with them."""

from __future__ import annotations

import glob
import logging
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest


def postgres_programs() -> str:
    """The folder of PostgreSQL's server programs; skips the test where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    if initdb := (found[-1] if found else shutil.which("initdb")):
        return os.path.dirname(os.path.realpath(initdb))
    pytest.skip("no PostgreSQL server on this machine: install Debian's package postgresql, or put initdb on the PATH")


class PostgresServer:
    """A PostgreSQL server with a cluster of its own; it refuses root, so root starts it as another user."""

    def __init__(self, programs: str) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 107 bytes at most
        self.user = _unprivileged() if os.geteuid() == 0 else {}
        self._lifeline: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = {
            "cwd": "/", "stdout": subprocess.DEVNULL, "env": os.environ | {"LC_ALL": "C"}, "start_new_session": True,
            **self.user,
        }  # fmt: skip
        self.url = f"postgresql://taktline:hunter2@/postgres?host={self.folder}"

    def make(self) -> None:
        """The cluster. Nothing in it need survive the test, so nothing waits for the disk."""
        if self.user:
            os.chown(self.folder, self.user["user"], self.user["group"])
        (self.folder / "password").write_text("hunter2\n")
        os.chmod(self.folder / "password", 0o644)
        self._run(
            "initdb", "--username=taktline", "--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        self.start()
        # Waits for the end of these tests, however they end: then the pipe is closed.
        ending = 'read gone; "$0" stop --mode=immediate --pgdata="$1/data"; rm -r "$1"'
        command = ["/bin/sh", "-c", ending, os.path.join(self._programs, "pg_ctl"), str(self.folder)]
        self._lifeline = subprocess.Popen(command, stdin=subprocess.PIPE, **self._as_user)

    def start(self) -> None:
        # Only a socket in the folder: there is no port that somebody else could take.
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", f"--options={options}")

    def stop(self, how: str = "immediate") -> None:
        self._run("pg_ctl", "stop", f"--mode={how}")

    def remove(self) -> None:
        if self._lifeline is None:
            shutil.rmtree(self.folder)
        else:
            self._lifeline.communicate()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [os.path.join(self._programs, program), "--pgdata", str(self.folder / "data"), *arguments],
            check=True, **self._as_user,
        )  # fmt: skip


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(postgres_programs())
    try:
        server.make()
        yield server
    finally:
        server.remove()


@contextmanager
def pooler(server: PostgresServer, **settings: object) -> Iterator[str]:
    """PgBouncer in front of a server, in transaction mode where the settings of the pool do not say otherwise; its URL.
    Skips the test where it is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer: install Debian's package pgbouncer")
    with tempfile.TemporaryDirectory(prefix="pgb-") as folder:
        pool = " ".join(f"{key}={value}" for key, value in settings.items())
        config = Path(folder, "pgbouncer.ini")
        config.write_text(
            f"[databases]\npostgres = host={server.folder} user=taktline password=hunter2 {pool}\n"
            f"[pgbouncer]\nauth_type = any\npool_mode = transaction\nunix_socket_dir = {folder}\n"
            "query_wait_timeout = 1\n"  # seconds
        )
        os.chmod(config, 0o644)
        if server.user:
            os.chown(folder, server.user["user"], server.user["group"])
        with subprocess.Popen(
            [program, config], stderr=subprocess.PIPE, text=True, cwd="/", **server.user
        ) as pgbouncer:
            assert pgbouncer.stderr is not None
            try:
                assert any("process up" in told for told in pgbouncer.stderr), "PgBouncer has ended"
                Thread(target=pgbouncer.stderr.read, daemon=True).start()
                yield f"postgresql://anybody@/postgres?host={folder}&port=6432"
            finally:
                pgbouncer.kill()  # newer ones wait for their clients where they are asked


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server that keeps nothing on the disk; its URL. Skips the test where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server: install Debian's package redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as server:
        assert server.stdout is not None
        try:
            assert any("Ready to accept connections" in told for told in server.stdout), "Redis has ended"
            Thread(target=server.stdout.read, daemon=True).start()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """The files of a folder over HTTP, by the standard library's server; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _unprivileged() -> dict[str, Any]:
    """Who runs what root must not run, as options of `subprocess`."""
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL and PgBouncer refuse to run as root, and there is no user postgres or nobody")


@contextmanager
def object_store() -> Iterator[str]:
    """moto's S3 server, in this process, with the bucket "shop"; its URL. Programs find it by the environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def google_store() -> Iterator[str]:
    """gcp-storage-emulator, in this process, with the bucket "shop"; its URL."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="shop")
    server.start()
    host, port = server._api._httpd.server_address[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


# The account that Microsoft's documentation gives for Azurite; it opens nothing else.
AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint={}"
)


@contextmanager
def azure_store() -> Iterator[str]:
    """Azurite in a process of its own; how to connect with it. Skips the test where it is not installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob on the PATH: npm install --global azurite")
    command = [program, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--blobHost", "127.0.0.1"]
    with subprocess.Popen([*command, "--blobPort", "0"], stdout=subprocess.PIPE, text=True, cwd="/") as server:
        assert server.stdout is not None
        try:
            told = next((line for line in server.stdout if "listens on" in line), "")
            assert told, "Azurite has ended"
            yield AZURITE.format(told.split("listens on ")[1].strip() + "/devstoreaccount1")
        finally:
            server.terminate()
