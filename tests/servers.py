"""Real servers for the tests, started by them on this machine and ended with them."""

from __future__ import annotations

import glob
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

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
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 107 bytes at most
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self.url = f"postgresql://taktline:hunter2@/postgres?host={self._folder}"

    def make(self) -> None:
        """The cluster. Nothing in it need survive the test, so nothing waits for the disk."""
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        (self._folder / "password").write_text("hunter2\n")
        os.chmod(self._folder / "password", 0o644)
        self._run(
            "initdb", "--username=taktline", "--auth=scram-sha-256", f"--pwfile={self._folder / 'password'}",
            "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        options = (
            f"-k {self._folder} -c listen_addresses='' -c fsync=off"  # a socket in the folder: no port to be taken
        )
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, how: str = "immediate") -> None:
        self._run("pg_ctl", "stop", f"--mode={how}")

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        subprocess.run(
            [os.path.join(self._programs, program), "--pgdata", str(self._folder / "data"), *arguments],
            check=True, cwd=self._folder, stdout=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"},
            user=user.pw_uid if user else None, group=user.pw_gid if user else None, extra_groups=[] if user else None,
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


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


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
