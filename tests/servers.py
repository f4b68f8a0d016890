"""Real servers for the tests, started by them on this machine and ended with them."""

from __future__ import annotations

import os
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

from faults import brokers
from faults.stores import PostgresServer, google_store, object_store

__all__ = ["PostgresServer", "google_store", "object_store"]


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server. Skips the test where it is not installed."""
    try:
        server = PostgresServer()
    except brokers.NoServer as none:
        pytest.skip(str(none))
    with server:
        yield server


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
def redis_server(*, keeps: bool = False) -> Iterator[brokers.RedisServer]:
    """A Redis server. Skips the test where it is not installed."""
    try:
        server = brokers.RedisServer(keeps=keeps)
    except brokers.NoServer as none:
        pytest.skip(str(none))
    with server:
        yield server


@contextmanager
def kafka_broker() -> Iterator[brokers.KafkaBroker]:
    """A broker that speaks Kafka's protocol. Skips the test where it is not installed."""
    try:
        broker = brokers.KafkaBroker()
    except brokers.NoServer as none:
        pytest.skip(str(none))
    with broker:
        yield broker


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
