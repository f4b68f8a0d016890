"""A sink in memory whose rows are there for good once they are saved."""

from __future__ import annotations

from taktline.abc import Resumable


class Table(Resumable):
    """Rows that are visible and safe with `save`."""

    visible = True

    def __init__(self):
        self.rows, self.saved, self.ended = [], [], ""

    def open(self):
        raise AssertionError("begin() is for this one")

    def begin(self, run):
        self.rows = []

    def write(self, results):
        self.rows += results

    def save(self, mark):
        self.saved = list(self.rows)
        return len(self.saved)

    def resume(self, run, position):
        self.rows = self.saved[:position]

    def commit(self):
        self.ended += "commit"

    def abort(self):
        self.ended += "abort"

    def suspend(self):
        self.ended += "suspend"

    def finished(self, run, position):
        return False
