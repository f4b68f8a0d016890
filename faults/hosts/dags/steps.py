"""Steps of the DAG beside this file: one takes time, one fails now and then, one has a state."""

import random
import time

from taktline import keep, line, per_worker, serial


def work(record):
    time.sleep(record.pop("takes"))
    return record


def check(record):
    if record["n"] % 401 == 7:
        raise ValueError(f"no {record['n']}")
    return {**record, "text": random.Random(record["n"]).randbytes(record["size"]).hex()}


def wanted(record):
    return record["n"] % 10 != 3


class Total:
    def __init__(self):
        self.total = 0

    def __call__(self, record):
        self.total += record["n"]
        return {**record, "total": self.total}

    def save(self):
        return self.total

    def load(self, total):
        self.total = total


flow = line(work, check, keep(wanted), serial(per_worker(Total)))
