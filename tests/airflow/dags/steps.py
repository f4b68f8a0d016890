"""Steps of the DAGs beside this file."""

import os

from taktline import line


def double(record):
    return {"n": record["n"] * 2}


def refuse_odd(record):
    if record["n"] % 2:
        raise ValueError(f"{record['n']} is odd")
    return record


def whose(record):
    return {"n": record["n"], "process": os.getpid(), "parent": os.getppid()}


flow = line(double, name="doubling")
NUMBER = 3
