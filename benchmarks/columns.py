"""More works of `bench tables`: files of text, and what is in memory. Each way is run in a process of its own, as there.

A way over files is timed with its imports. One over what is in memory gets it made, and is timed alone; what it gives is
written after that, to be compared."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 50_000
WORKERS = 2
SPIN = 300  # rounds of the step for a row: some 20 µs
LISTS = 1_000  # records of a call
WIDE, WIDE_GROUP = 2_000, 5_000  # columns, and rows of a row group
ROUNDS = 40  # of the dearest step over arrays
COLUMNS = ("id", "price", "count", "city")
TYPES = {"id": int, "price": float, "count": int}

Way = Callable[[str, str], None]  # reads here, and writes there


class Work(NamedTuple):
    """`rows`: where it is not said how many, as a share of those of Parquet. `base`: the way whose time is 1."""

    make: Callable[[Path, int], None]
    ways: dict[str, Way]
    same: Callable[[str, str], str]
    rows: Callable[[int], int]
    suffix: str
    base: str = "by hand"


def told(seconds: float, cpu: float, peak: int) -> None:
    """Of a way that is timed here: heard by who has started it."""
    print(f"took {seconds} {cpu} {peak}", flush=True)


def timed(work: Callable[[], Any]) -> Any:
    before, began = os.times(), time.perf_counter()
    made = work()
    seconds, after = time.perf_counter() - began, os.times()
    told(seconds, sum(after[:4]) - sum(before[:4]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return made


# --- text ---


def _orders(start: int, count: int) -> Iterator[tuple[int, float, int, str]]:
    for n in range(start, start + count):
        yield n, n * 7919 % 20_011 / 200, n * 104_729 % 19 + 1, f"city {n % 500}"


def make_csv(path: Path, rows: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(f"{n},{price!r},{count},{city}\n" for n, price, count, city in _orders(0, rows))


def make_jsonl(path: Path, rows: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps(dict(zip(COLUMNS, order, strict=True)), separators=(",", ":")) + "\n"
            for order in _orders(0, rows)
        )


def priced(frame):
    frame["net"] = frame["price"] * frame["count"]
    frame["gross"] = frame["net"] * 1.19
    return frame


def priced_arrow(table):
    import pyarrow.compute as pc

    net = pc.multiply(table["price"], pc.cast(table["count"], "float64"))
    return table.append_column("net", net).append_column("gross", pc.multiply(net, 1.19))


def priced_polars(frame):
    import polars as pl

    net = pl.col("price") * pl.col("count")
    return frame.with_columns(net=net, gross=net * 1.19)


def csv_by_hand(source: str, target: str) -> None:
    import pandas as pd

    with open(target, "w", encoding="utf-8", newline="") as file:
        for n, frame in enumerate(pd.read_csv(source, chunksize=BATCH)):
            priced(frame).to_csv(file, index=False, header=not n)


def jsonl_by_hand(source: str, target: str) -> None:
    import orjson
    import pyarrow as pa

    def write(lines: list[bytes]) -> None:
        table = priced_arrow(pa.Table.from_pylist([orjson.loads(line) for line in lines]))
        file.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist()))

    with open(source, "rb") as lines, open(target, "wb") as file:
        some = []
        for line in lines:
            some.append(line)
            if len(some) == BATCH:
                write(some)
                some = []
        write(some) if some else None


def a_line(how: str, form: str, **options: Any) -> Way:
    def run(source: str, target: str) -> None:
        import taktline

        step = {"pandas": priced, "arrow": priced_arrow, "polars": priced_polars}[form]
        reading = taktline.read(source, types=TYPES) if source.endswith(".csv") else taktline.read(source)
        flow = taktline.line(taktline.batch(step, form=form))
        report = flow.run(reading, taktline.write(target), how=how, workers=WORKERS, **options)
        if os.environ.get("REPORT"):
            print(report, file=sys.stderr)

    return run


def csv_polars(source: str, target: str) -> None:
    import polars as pl

    priced_polars(pl.scan_csv(source)).sink_csv(target)


def jsonl_polars(source: str, target: str) -> None:
    import polars as pl

    priced_polars(pl.scan_ndjson(source)).sink_ndjson(target)


LINES = {
    "line, pandas": a_line("line", "pandas"),
    "auto, pandas": a_line("auto", "pandas"),
    "line, Arrow": a_line("line", "arrow"),
    "auto, Arrow": a_line("auto", "arrow"),
    "threads, Arrow": a_line("line", "arrow", start="threads"),
}


def same_text(one: str, other: str) -> str:
    """What differs between two files of rows, by value and order."""
    from itertools import zip_longest

    def rows(path: str) -> Iterator[Any]:
        if path.endswith(".csv"):
            import csv

            with open(path, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    yield {name: value if name == "city" else float(value) for name, value in row.items()}
            return
        with open(path, "rb") as lines:
            yield from map(json.loads, lines)

    for n, (a, b) in enumerate(zip_longest(rows(one), rows(other))):
        if a != b:
            return f"row {n:,} differs"
    return ""


# --- many columns ---


def make_wide(path: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    drawn = np.random.default_rng(1)
    table = pa.table({f"c{n}": drawn.random(rows) for n in range(WIDE)})
    parquet.write_table(table, path, row_group_size=WIDE_GROUP)


def first_two(frame):
    return frame.assign(total=frame["c0"] + frame["c1"])


def wide_by_hand(source: str, target: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    for batch in parquet.ParquetFile(source).iter_batches(WIDE_GROUP):
        table = pa.Table.from_pandas(first_two(batch.to_pandas()), preserve_index=False)
        writer = writer or parquet.ParquetWriter(target, table.schema, use_dictionary=False)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def wide_line(how: str, **options: Any) -> Way:
    def run(source: str, target: str) -> None:
        import taktline

        flow = taktline.line(taktline.batch(first_two, form="pandas"))
        flow.run(taktline.read(source), taktline.write(target), how=how, workers=WORKERS, **options)

    return run


# --- in memory ---


def nothing(path: Path, rows: int) -> None:
    """The rows are made by who needs them: there is nothing but how many."""
    path.write_text(str(rows))


def _count(source: str) -> int:
    return int(Path(source).read_text())


def _frame(rows: int) -> Any:
    import pandas as pd

    return pd.DataFrame({"id": range(rows), "price": [n * 7919 % 20_011 / 200 for n in range(rows)]})


def dear(price: float, number: int) -> float:
    """Some 20 µs of Python."""
    a = price
    for _ in range(SPIN):
        a = a * 0.9 + number % 7
    return a


def dear_row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "score": dear(row["price"], row["id"])}


def _kept(frame: Any, target: str) -> None:
    frame.to_parquet(target)


def rows_by_hand(source: str, target: str) -> None:
    frame = _frame(_count(source))

    def work() -> Any:
        return frame.assign(score=[dear(row.price, row.id) for row in frame.itertuples()])

    _kept(timed(work), target)


def rows_apply(source: str, target: str) -> None:
    frame = _frame(_count(source))
    _kept(
        timed(lambda: frame.assign(score=frame.apply(lambda row: dear(row["price"], int(row["id"])), axis=1))), target
    )


def rows_pandarallel(source: str, target: str) -> None:
    from pandarallel import pandarallel

    frame = _frame(_count(source))

    def work() -> Any:
        pandarallel.initialize(nb_workers=WORKERS, progress_bar=False, verbose=0)
        return frame.assign(score=frame.parallel_apply(lambda row: dear(row["price"], int(row["id"])), axis=1))

    _kept(timed(work), target)


def rows_line(how: str) -> Way:
    def run(source: str, target: str) -> None:
        import taktline

        frame, flow = _frame(_count(source)), taktline.line(dear_row)
        _kept(timed(lambda: flow(frame, how=how, workers=WORKERS).to_pandas()), target)

    return run


def _wide(rows: int) -> Any:
    import numpy as np
    import pandas as pd

    drawn = np.random.default_rng(1)
    return pd.DataFrame({f"c{n}": drawn.random(rows) for n in range(6)})


def cheap(frame):
    frame["sum"] = frame["c0"] + frame["c1"]
    frame["ratio"] = frame["c2"] / (frame["c3"] + 1.0)
    return frame


def frame_by_hand(source: str, target: str) -> None:
    frame = _wide(_count(source))
    frame.copy(deep=False).head(10)
    _kept(timed(lambda: cheap(frame.copy(deep=False))).tail(100_000).reset_index(drop=True), target)


def frame_line(how: str, **options: Any) -> Way:
    def run(source: str, target: str) -> None:
        import taktline

        frame, flow = _wide(_count(source)), taktline.line(taktline.batch(cheap, form="pandas"))
        made = timed(lambda: flow(frame, how=how, workers=WORKERS, **options).to_pandas())
        _kept(made.tail(100_000).reset_index(drop=True), target)

    return run


def texts(count: int) -> list[str]:
    return [f"{n * 7919 % 20_011 / 2_000 - 5:.4f}" for n in range(count)]


def parsed(values):
    return values.astype("float64")


def bounded(values):
    import numpy as np

    return np.clip(values, -4.0, 4.0) / 4.0


def enriched(values):
    a = values
    for _ in range(ROUNDS):
        a = a * a * 0.9 - 0.5 + values * 0.1
    return a


def finished(values):
    return (values * 1000.0).round(3)


ARRAYS = (parsed, bounded, enriched, finished)


def arrays_of(some: list[str]) -> list[float]:
    import numpy as np

    values: Any = np.asarray(some)
    for step in ARRAYS:
        values = step(values)
    return values.tolist()


_inherited: list[str] = []


def _chunk(start: int) -> list[float]:
    return arrays_of(_inherited[start : start + LISTS])


def _numbers(made: list[float], target: str) -> None:
    import pandas as pd

    pd.DataFrame({"n": made}).to_parquet(target)


def arrays_by_hand(source: str, target: str) -> None:
    some = texts(_count(source))

    def work() -> list[float]:
        return [result for at in range(0, len(some), LISTS) for result in arrays_of(some[at : at + LISTS])]

    _numbers(timed(work), target)


def arrays_pool(source: str, target: str) -> None:
    _inherited.extend(texts(_count(source)))

    def work() -> list[float]:
        with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
            return [result for some in pool.imap(_chunk, range(0, len(_inherited), LISTS)) for result in some]

    _numbers(timed(work), target)


def arrays_line(how: str) -> Way:
    def run(source: str, target: str) -> None:
        import taktline

        some = texts(_count(source))
        flow = taktline.line(*(taktline.batch(step, LISTS, form="numpy") for step in ARRAYS))
        _numbers(timed(lambda: list(flow(some, how=how, workers=WORKERS))), target)

    return run


def same_parquet(one: str, other: str) -> str:
    import pyarrow.parquet as pq

    a, b = pq.read_table(one), pq.read_table(other)
    if a.schema.names != b.schema.names or a.num_rows != b.num_rows:
        return f"columns {b.schema.names}, {b.num_rows:,} rows"
    wrong = [name for name in a.schema.names if not a[name].combine_chunks().equals(b[name].combine_chunks())]
    return f"column {wrong[0]!r} differs" if wrong else ""


# --- other libraries, as their own documentation recommends ---


def _steps(work: str) -> Callable[[Any], Any]:
    from benchmarks.tables import STEPS

    def both(frame: Any) -> Any:
        for step in STEPS[work]:
            frame = step(frame)
        return frame

    return both


def hugging_face(source: str, target: str, work: str) -> None:
    os.environ["HF_DATASETS_CACHE"] = f"{target}.cache"
    import datasets

    both = _steps(work)
    rows = datasets.load_dataset("parquet", data_files=source, split="train").with_format("pandas")
    rows.map(both, batched=True, batch_size=BATCH, num_proc=WORKERS).to_parquet(target)


def dask(source: str, target: str, work: str) -> None:
    import dask
    import dask.dataframe

    with dask.config.set(scheduler="processes", num_workers=WORKERS):
        rows = dask.dataframe.read_parquet(source, split_row_groups=1)
        rows.map_partitions(_steps(work)).to_parquet(target, write_index=False)


def ray_data(source: str, target: str, work: str) -> None:
    import ray

    ray.init(num_cpus=WORKERS, logging_level="ERROR")
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = ray.data.read_parquet(source)
    rows.map_batches(_steps(work), batch_format="pandas", batch_size=BATCH).write_parquet(target)


PEERS: dict[str, tuple[str, Callable[[str, str, str], None]]] = {
    "HF datasets, one file": ("datasets", hugging_face),
    "Dask, a folder": ("dask", dask),
    "Ray Data, a folder": ("ray", ray_data),
}


def peers() -> dict[str, Callable[[str, str, str], None]]:
    """Those that are installed."""
    return {name: way for name, (package, way) in PEERS.items() if find_spec(package) is not None}


MORE: dict[str, Work] = {
    "csv": Work(
        make_csv, {"by hand": csv_by_hand, **LINES, "Polars itself": csv_polars}, same_text, lambda rows: rows // 4, ".csv"
    ),
    "jsonl": Work(
        make_jsonl, {"by hand": jsonl_by_hand, **LINES, "Polars itself": jsonl_polars}, same_text, lambda rows: rows // 2,
        ".jsonl",
    ),
    "wide": Work(
        make_wide,
        {
            "by hand": wide_by_hand, "line": wide_line("line"), "auto": wide_line("auto"),
            "threads": wide_line("line", start="threads"),
        },
        same_parquet, lambda rows: rows // 200, ".parquet",
    ),
    "apply": Work(
        nothing,
        {
            "by hand": rows_by_hand, "df.apply": rows_apply, "line": rows_line("line"), "auto": rows_line("auto"),
            **({"pandarallel": rows_pandarallel} if find_spec("pandarallel") else {}),
        },
        same_parquet, lambda rows: rows // 40, ".parquet",
    ),
    "frame": Work(
        nothing, {"by hand": frame_by_hand, "auto": frame_line("auto"), "line": frame_line("line"),
                  "threads": frame_line("line", start="threads")},
        same_parquet, lambda rows: rows * 21 // 8, ".parquet",
    ),
    "numpy": Work(
        nothing, {"by hand": arrays_by_hand, "Pool": arrays_pool, "line": arrays_line("line"), "auto": arrays_line("auto")},
        same_parquet, lambda rows: rows // 8, ".parquet",
    ),
}  # fmt: skip
