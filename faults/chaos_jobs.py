"""The jobs that are killed (`chaos.py`): lines by way of records, and folders of parts by way of tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taktline import batch, expand, keep, line, read, write

WORK = 40_000  # rounds for each record: enough for a job to last as long as the kills do
TABLES = 60  # that the rows are read in
PARTS = 9  # of a folder, about


# --- steps ---


def spin(row: dict[str, int]) -> dict[str, int]:
    """Takes time and changes nothing, so the output can be had without it."""
    for _ in range(WORK):
        pass
    return row


def compute(row: dict[str, int]) -> dict[str, int]:
    return {**row, "value": row["n"] * 1_103_515_245 % 2_147_483_647}


def wanted(row: dict[str, int]) -> bool:
    return row["value"] % 5 != 0


def parts(row: dict[str, int]) -> list[dict[str, int]]:
    return [{**row, "part": part} for part in range(row["value"] % 3)]


def load() -> None:
    """What takes a worker long before its first record: two that are killed meanwhile would be laid to that record."""
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401


def spin_over(table: Any) -> Any:
    for _ in range(WORK * table.num_rows):
        pass
    return table


def compute_columns(table: Any) -> Any:
    """A number and a word for each row; of the first tables no row has a word."""
    import pyarrow as pa

    numbers = table["n"].to_pylist()
    values = [compute({"n": n})["value"] for n in numbers]
    words = [f'"{value % 7}",\n' if n > 500 and value % 4 else None for n, value in zip(numbers, values, strict=True)]
    table = table.append_column("value", pa.array(values)).append_column("word", pa.array(words))
    return table.append_column("shop", pa.array([value % 3 for value in values]))


def wanted_rows(table: Any) -> Any:
    import pyarrow as pa

    return pa.array([value % 5 != 0 for value in table["value"].to_pylist()])


# --- jobs ---


@dataclass(frozen=True)
class Lines:
    """Records from file to file; what comes of them is the loop's."""

    source, out = "in.jsonl", "out.jsonl"

    def run(self, at: Path, *, disturbed: bool) -> None:
        steps = line(compute, keep(wanted), expand(parts))
        source, sink = read(str(at / self.source)), write(str(at / self.out))
        if disturbed:
            line(spin, steps).run(source, sink, how="line", workers=2, journal=str(at / "run.journal"))
        else:
            steps.run(source, sink, how="loop")

    def before(self, at: Path) -> None:
        """Nothing is there."""


@dataclass(frozen=True)
class Tables:
    """Rows to a folder of parts; what comes of them is that of a run that nobody disturbs."""

    format: str
    more: tuple[tuple[str, Any], ...] = ()  # options of the folder
    source, out = "in.parquet", "out"

    def run(self, at: Path, *, disturbed: bool) -> None:
        import pyarrow.parquet as pq

        steps = line(batch(compute_columns, form="arrow"), keep(wanted_rows, form="arrow"))
        source = read(str(at / self.source))
        rows = pq.read_metadata(at / self.source).num_rows
        more = dict(self.more)
        if "size" in more:
            # As many as a table has: of the first table it is not known yet, should its worker die and its rows come one by
            # one, that tables are to follow, and smaller groups would be cut out of it.
            more["row_group"] = rows // TABLES + 1
        sink = write(f"{at / self.out}/", self.format, rows=rows // PARTS + 1, **more)
        options: dict[str, Any] = {"how": "line", "workers": 2, "batch_size": rows // TABLES + 1}
        if disturbed:
            steps = line(batch(spin_over, form="arrow"), steps)
            steps.run(source, sink, journal=str(at / "run.journal"), setup=load, **options)
        else:
            steps.run(source, sink, **options)

    def before(self, at: Path) -> None:
        """Where the folder is replaced, or added to, parts are in it."""
        if "mode" in dict(self.more):
            sink = write(f"{at / self.out}/", self.format, rows=2)
            line(dict).run([{"n": n, "value": -n, "word": "x", "shop": 1} for n in range(5)], sink, how="loop")


Job = Lines | Tables
JOBS: dict[str, Job] = {
    "lines": Lines(),
    "parquet": Tables("parquet"),
    "csv": Tables("csv"),
    "jsonl": Tables("jsonl"),
    "arrow": Tables("arrow"),
    "packed": Tables("jsonl", (("codec", "gzip"), ("level", 1))),
    "small": Tables("parquet", (("size", "4KB"),)),
    "partitions": Tables("parquet", (("partition_by", "shop"),)),
    "replaced": Tables("csv", (("mode", "replace"),)),
    "added": Tables("parquet", (("mode", "append"),)),
}
FOLDERS = tuple(name for name in JOBS if name != "lines")


def make_source(job: Job, at: Path, records: int) -> None:
    line(dict).run(({"n": n} for n in range(records)), write(str(at / job.source)), how="loop")


def content(job: Job, at: Path) -> dict[str, bytes]:
    """The bytes of each file that was written."""
    path = at / job.out
    if not path.is_dir():
        return {path.name: path.read_bytes()}
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


def rows(job: Job, at: Path) -> Iterator[str]:
    """What was written, row by row, as text."""
    path = at / job.out
    for row in read(str(path) if path.is_file() else f"{path}/"):
        yield str(row)


def take_away(job: Job, at: Path) -> None:
    path = at / job.out
    shutil.rmtree(path) if path.is_dir() else path.unlink()
