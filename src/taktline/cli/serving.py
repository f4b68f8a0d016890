"""The health page of a run: `/healthz`, `/metrics` and a page to look at, from the newest snapshot. No record's value is on
any of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any

from taktline import LineError, Snapshot
from taktline.views.drawing import rows, text
from taktline.views.metrics import Rising, prometheus_text

HERE = "127.0.0.1"
AGAIN = 2  # seconds after which the page is loaded again
PATIENCE = 10.0  # seconds that a client may take for its request
METRICS = "text/plain; version=0.0.4; charset=utf-8"
STATUS = ("taktline_stalled", "1 where nothing is done though there is something to do, for half of --stall.")


def address(said: str) -> tuple[str, int]:
    """Host and port of `8080`, which is this machine alone, `0.0.0.0:8080` or `[::]:8080`. Raises LineError.

    >>> address("8080"), address("0.0.0.0:8080"), address("[::1]:0")
    (('127.0.0.1', 8080), ('0.0.0.0', 8080), ('::1', 0))
    """
    host, _, port = said.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        if not port.isdecimal() or int(port) > 65535 or (":" in bare) != (host != bare):
            raise ValueError
        return str(ip_address(bare)) if bare and bare != "localhost" else HERE, int(port)
    except ValueError:
        raise LineError(
            f"--serve {said!r}: give a port, such as 8080, or an address and a port, such as 0.0.0.0:8080"
        ) from None


class HealthPage:
    """Serves until it is closed. `stall`: seconds without anything done after which the run is stalled; None: never."""

    def __init__(self, said: str, stall: float | None) -> None:
        self._look: Callable[[], Snapshot] | None = None
        self.rising = Rising()  # what was told of the run
        self._limit = stall / 2 if stall is not None else None
        host, port = address(said)
        kind = type("_Server", (_Server,), {"address_family": _family(host)})
        try:
            self._server = kind((host, port), _Handler)
        except OSError as error:
            raise LineError(
                f"--serve {said!r}: that address cannot be had: {error.strerror or error}. Name another port"
            ) from error
        self._server.health = self
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="taktline health", daemon=True)
        self._thread.start()

    def watch(self, look: Callable[[], Snapshot]) -> None:
        """`look` tells how far the run is; another thread than its own calls it."""
        self._look = look

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def snapshot(self) -> Snapshot | None:
        """How far the run is; None before it is there."""
        for _ in range(3):
            try:
                return self._look() if self._look is not None else None
            except RuntimeError:  # a dict has grown while it was gone through
                continue
        return None

    def status(self, run: Snapshot | None) -> tuple[int, dict[str, Any]]:
        """The code of the answer, and what it says. A run without anything to do is well."""
        if run is None:
            return 200, {"status": "starting"}
        stalled = self._limit is not None and run.still > self._limit
        status = "stalled" if stalled else "refused" if run.refused else "ok"
        said = {
            "status": status, "line": run.name, "seconds": round(run.seconds, 3), "read": run.records_in,
            "delivered": run.records_out, "failed": run.failed, "in_flight": run.in_flight, "workers": run.workers,
            "still": round(run.still, 3), "refused": run.refused,
        }  # fmt: skip
        return (200 if status == "ok" else 503), said


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    health: HealthPage

    def server_bind(self) -> None:
        """As the class above HTTPServer does, which asks for the name of this machine: that may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the run."""


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server
    server_version, sys_version = "taktline", ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        health = self.server.health
        run = health.snapshot()
        code, said = health.status(run)
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._send(code, "application/json", json.dumps(said))
        elif path == "/metrics":
            stalled = {STATUS[0]: (STATUS[1], float(said["status"] == "stalled"))}
            self._send(200, METRICS, prometheus_text(run, stalled, health.rising) if run is not None else "")
        elif path == "/":
            self._send(200, "text/html; charset=utf-8", _page(run, said["status"]))
        else:
            self._send(404, "text/plain; charset=utf-8", "there are /, /healthz and /metrics\n")

    def _send(self, code: int, kind: str, body: str) -> None:
        data = body.encode()
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody is to read of each look in the run's own output."""


def _family(host: str) -> int:
    import socket

    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _page(run: Snapshot | None, status: str) -> str:
    shown = text(rows(run)) if run is not None else "the run begins"
    name = run.name if run is not None else "taktline"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{AGAIN}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(name)}: {status}</title>'
        "<style>body{color-scheme:light dark;font:14px monospace;margin:1rem}pre{overflow-x:auto}</style></head>"
        f'<body><pre role="status">{escape(shown)}</pre><p>{status}</p></body></html>\n'
    )
