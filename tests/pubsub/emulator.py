"""Where tests and examples find a Pub/Sub server: at a loopback address, or not at all.

With no address the client library looks for real credentials and uses the real service, so `check_loopback` comes first
in everything that makes a client.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GO_PATH = Path("/usr/share/gocode")  # of Debian's Go packages: golang-go and golang-google-cloud-dev
PSTEST = GO_PATH / "src/cloud.google.com/go/pubsub/pstest"
PROGRAM = """
package main

import (
	"fmt"
	"io"
	"os"

	"cloud.google.com/go/pubsub/pstest"
)

func main() {
	server := pstest.NewServer()
	fmt.Println(server.Addr)
	io.Copy(io.Discard, os.Stdin) // until whoever started it is gone
}
"""


def check_loopback() -> None:
    """Raises RuntimeError unless PUBSUB_EMULATOR_HOST is an address of this machine alone."""
    address = os.environ.get("PUBSUB_EMULATOR_HOST", "")
    host = address.rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise RuntimeError(f"PUBSUB_EMULATOR_HOST={address!r} is not a loopback address; refusing to start")


def can_build_pstest() -> bool:
    """Whether Go and Google's own test server are installed."""
    return shutil.which("go") is not None and PSTEST.exists()


def build_pstest(folder: Path) -> Path:
    """Google's in-memory test server as a program that says its address and ends with its standard input."""
    (folder / "main.go").write_text(PROGRAM)
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", "pstest", "main.go"], cwd=folder, env=environment, check=True)
    return folder / "pstest"


@contextmanager
def running(*command: str | Path) -> Iterator[str]:
    """The address of a server that says it first and ends with its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()
