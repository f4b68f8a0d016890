"""Tables from file to file: the hand-written loop over pyarrow and pandas, what people write with a Pool, and lines.

python3 dev.py bench tables [--rivals] [--rows 8000000] [--rounds 3] [--only TEXT] [--work light,heavy] [--folder DIR]

Works: light and heavy (two pandas steps from Parquet to Parquet), and, with fewer rows each: csv, jsonl, wide (2,000
columns), apply (20 µs of Python for each row of a DataFrame), frame (of 1 GB through a cheap step), numpy (texts as arrays).
Datasets of Hugging Face, Dask, Ray and pandarallel take part with --rivals, which runs all in .venv-rivals. pandarallel
1.6.5 cannot be imported beside pandas 3; a way that fails is a row that says so.

Each way is a fresh process; rounds are taken in turn, each beginning with another way; outputs are compared by value and
order with those of the hand-written loop, whose time is 1. Processor time beside it: of the process and all it started.
What is in memory is made before the clock starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.columns import MORE, peers

GROUP = 100_000  # rows of a row group, in the input and in all outputs
BATCH = 50_000  # rows that the hand-written loop takes at once
WORKERS = 2


def make(path: Path, rows: int) -> None:
    """Six columns of orders and where they went."""
    import numpy as np
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    random = np.random.default_rng(1)
    schema = pa.schema(
        [("id", pa.int64()), ("price", pa.float64()), ("count", pa.int32()), ("lat", pa.float64()), ("lon", pa.float64()),
         ("city", pa.string())]
    )  # fmt: skip
    cities = np.array([f"city {n}" for n in range(500)])
    with ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            n = min(GROUP, rows - start)
            columns = [
                np.arange(start, start + n), random.random(n).round(4) * 100, random.integers(1, 20, n).astype("int32"),
                random.uniform(-60, 60, n).round(6), random.uniform(-180, 180, n).round(6),
                cities[random.integers(0, 500, n)],
            ]  # fmt: skip
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema), row_group_size=GROUP)


# --- the steps ---


def light_one(frame):
    frame["net"] = frame["price"] * frame["count"]
    frame["gross"] = frame["net"] * 1.19
    return frame


def light_two(frame):
    frame["each"] = frame["gross"] / frame["count"]
    frame["over"] = frame["gross"] - frame["net"]
    return frame


def heavy_one(frame):
    import numpy as np

    lat, lon = np.radians(frame["lat"]), np.radians(frame["lon"])
    h = np.sin((lat - 0.92) / 2) ** 2 + np.cos(lat) * np.cos(0.92) * np.sin((lon - 0.04) / 2) ** 2
    frame["km"] = 12742 * np.arcsin(np.sqrt(h))
    return frame


def heavy_two(frame):
    import numpy as np

    frame["zone"] = np.digitize(frame["km"], np.arange(0, 20_000, 250))
    frame["label"] = frame["city"] + ", " + frame["zone"].astype("str")
    return frame


def light_polars_one(frame):
    import polars as pl

    net = pl.col("price") * pl.col("count")
    return frame.with_columns(net=net, gross=net * 1.19)


def light_polars_two(frame):
    import polars as pl

    return frame.with_columns(each=pl.col("gross") / pl.col("count"), over=pl.col("gross") - pl.col("net"))


def light_arrow_one(table):
    import pyarrow.compute as pc

    net = pc.multiply(table["price"], table["count"])
    return table.append_column("net", net).append_column("gross", pc.multiply(net, 1.19))


def light_arrow_two(table):
    import pyarrow.compute as pc

    table = table.append_column("each", pc.divide(table["gross"], table["count"]))
    return table.append_column("over", pc.subtract(table["gross"], table["net"]))


STEPS = {"light": (light_one, light_two), "heavy": (heavy_one, heavy_two)}
FORMS = {
    "pandas": STEPS["light"], "polars": (light_polars_one, light_polars_two), "arrow": (light_arrow_one, light_arrow_two),
}  # fmt: skip


# --- by hand ---


def by_hand(source: str, target: str, work: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer, waiting = None, []
    for batch in parquet.ParquetFile(source).iter_batches(BATCH):
        frame = batch.to_pandas()
        for step in STEPS[work]:
            frame = step(frame)
        waiting.append(pa.Table.from_pandas(frame, preserve_index=False))
        writer = writer or parquet.ParquetWriter(target, waiting[0].schema)
        if sum(table.num_rows for table in waiting) >= GROUP:
            writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP)
            waiting = []
    assert writer is not None
    if waiting:
        writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP)
    writer.close()


def _group(job: tuple[str, int, str]):
    import pyarrow as pa
    from pyarrow import parquet

    source, group, work = job
    frame = parquet.ParquetFile(source).read_row_group(group, use_threads=False).to_pandas()
    for step in STEPS[work]:
        frame = step(frame)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _group_to_part(job: tuple[str, int, str, str]) -> None:
    from pyarrow import parquet

    source, group, work, target = job
    parquet.write_table(_group((source, group, work)), f"{target}/part-{group:05}.parquet", row_group_size=GROUP)


def pool_folder(source: str, target: str, work: str) -> None:
    from pyarrow import parquet

    os.mkdir(target)
    groups = parquet.ParquetFile(source).num_row_groups
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(_group_to_part, [(source, group, work, target) for group in range(groups)], chunksize=1)


def pool_writer(source: str, target: str, work: str) -> None:
    from pyarrow import parquet

    groups = parquet.ParquetFile(source).num_row_groups
    writer = None
    with multiprocessing.Pool(WORKERS) as pool:
        for table in pool.imap(_group, [(source, group, work) for group in range(groups)]):
            writer = writer or parquet.ParquetWriter(target, table.schema)
            writer.write_table(table, row_group_size=GROUP)
    assert writer is not None
    writer.close()


def polars_itself(source: str, target: str, work: str) -> None:
    import polars as pl

    frame = pl.scan_parquet(source)
    for step in FORMS["polars"]:
        frame = step(frame)
    frame.sink_parquet(target, row_group_size=GROUP, compression="snappy")


# --- lines ---


def a_line(how: str, form: str, folder: bool, **options) -> Callable[[str, str, str], None]:
    def run(source: str, target: str, work: str) -> None:
        import taktline

        steps = STEPS[work] if form == "pandas" else FORMS[form]
        flow = taktline.line(*(taktline.batch(step, form=form) for step in steps))
        sink = taktline.write(f"{target}/", format="parquet") if folder else taktline.write(target)
        report = flow.run(taktline.read(source), sink, how=how, workers=WORKERS, **options)
        if os.environ.get("REPORT"):
            print(report, file=sys.stderr)

    return run


WAYS: dict[str, Callable[[str, str, str], None]] = {
    "by hand": by_hand,
    "Pool, a folder": pool_folder,
    "Pool, one writer": pool_writer,
    "line, a folder": a_line("line", "pandas", True),
    "line, one file": a_line("line", "pandas", False),
    "auto, a folder": a_line("auto", "pandas", True),
    "auto, one file": a_line("auto", "pandas", False),
    "line of Polars, a folder": a_line("line", "polars", True),
    "line of Arrow, a folder": a_line("line", "arrow", True),
    "auto of Arrow, a folder": a_line("auto", "arrow", True),
    "Polars itself": polars_itself,
    **peers(),
}
LIGHT_ALONE = ("Polars", "Arrow")


def _in_order(path: Path) -> list[int | str]:
    """By name, the numbers in it by their size."""
    return [int(each) if each.isdecimal() else each for each in re.split(r"(\d+)", path.name)]


def same(one: str, other: str) -> str:
    """What is different between two outputs: files, or folders of files in the order of their names."""
    import pyarrow as pa
    from pyarrow import parquet

    def opened(path: str):
        names = sorted(Path(path).glob("*.parquet"), key=_in_order) if os.path.isdir(path) else [Path(path)]
        for name in names:
            yield from parquet.ParquetFile(name).iter_batches(GROUP)

    def rows(path: str):
        rest = None
        for batch in opened(path):
            table = pa.Table.from_batches([batch])
            rest = table if rest is None else pa.concat_tables([rest, table])
            while rest.num_rows >= GROUP:
                yield rest.slice(0, GROUP)
                rest = rest.slice(GROUP)
        if rest is not None and rest.num_rows:
            yield rest

    try:
        for n, (a, b) in enumerate(zip(rows(one), rows(other), strict=True)):
            if a.schema.names != b.schema.names:
                return f"columns {b.schema.names}"
            for name in a.schema.names:
                if not a[name].combine_chunks().equals(b[name].cast(a[name].type).combine_chunks()):
                    return f"column {name!r} differs from row {n * GROUP:,} on"
    except ValueError as error:
        return str(error)
    return ""


class Ended(Exception):
    """A way could not be gone: what its process said last."""


def in_a_process(way: str, work: str, source: str, target: str) -> tuple[float, float, int]:
    """Seconds, and those of processors, of one way in a fresh process; where it tells of its memory, bytes. Raises Ended."""
    options = {"--way": way, "--work": work, "--source": source, "--target": target}
    command = [sys.executable, "-m", "benchmarks.tables", *(each for pair in options.items() for each in pair)]
    with tempfile.TemporaryFile("w+") as errors:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        errors.seek(0)
        said = errors.read()
    sys.stderr.write(said)
    if run.returncode:
        raise Ended(said.strip().rpartition("\n")[2].partition(" (/")[0] or f"exit code {run.returncode}")
    if told := re.search(r"^took (\S+) (\S+) (\d+)$", run.stdout, re.MULTILINE):
        return float(told[1]), float(told[2]), int(told[3])
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python3 dev.py bench tables", description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--work", default="light,heavy")
    parser.add_argument("--folder")
    for hidden in ("--way", "--source", "--target"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.way and asked.work in MORE:
        MORE[asked.work].ways[asked.way](asked.source, asked.target)
        return 0
    if asked.way:
        WAYS[asked.way](asked.source, asked.target, asked.work)
        return 0
    works = asked.work.split(",")
    if unknown := [work for work in works if work not in (*STEPS, *MORE)]:
        parser.error(f"--work {unknown[0]}: there are {', '.join((*STEPS, *MORE))}")
    for work in works:
        folder = Path(tempfile.mkdtemp(dir=asked.folder))
        try:
            _table(folder, work, asked.rows, asked.rounds, asked.only)
        finally:
            shutil.rmtree(folder)
    return 0


def _table(folder: Path, work: str, rows: int, rounds: int, only: str) -> None:
    held: Callable[[str, str], str]
    names, held, suffix, base = list(WAYS), same, ".parquet", "by hand"
    source = folder / "in.parquet"
    if work in MORE:
        more = MORE[work]
        names, held, suffix, base = list(more.ways), more.same, more.suffix, more.base
        source, rows = folder / f"in{suffix}", max(1, more.rows(rows))
        more.make(source, rows)
    else:
        make(source, rows)
        if work != "light":
            names = [name for name in names if not any(each in name for each in LIGHT_ALONE)]
    names = [name for name in names if name == base or any(each in name for each in only.split("|"))]
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    wrong: dict[str, str] = {}
    for number in range(rounds):
        turn = names[number % len(names) :] + names[: number % len(names)] if number else names
        for name in turn:
            print(f"{work}: round {number + 1} of {rounds}: {name}", file=sys.stderr)
            target = folder / (f"{work}, {name}" + ("" if "folder" in name else suffix))
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            if number and not times[name]:
                continue
            try:
                times[name].append(in_a_process(name, work, str(source), str(target)))
            except Ended as ended:
                if name == base:
                    raise
                wrong[name] = f"failed: {ended}"
                times[name].clear()
                continue
            if number == 0 and name != base:
                wrong[name] = held(str(folder / f"{work}, {base}{suffix}"), str(target))
    one, one_cpu, _ = (statistics.median(each) for each in zip(*times[base], strict=True))
    print(f"\n{rows:,} rows, {work}, {WORKERS} workers; the hand-written loop took {one:.2f} s\n")
    print("| way | time | processor time | memory | output |\n|---|---|---|---|---|")
    for name in names:
        if not times[name]:
            print(f"| {name} | - | - | - | {wrong[name]} |")
            continue
        seconds, cpu, peak = (statistics.median(each) for each in zip(*times[name], strict=True))
        held_bytes = f"{peak / 1e6:,.0f} MB" if peak else "-"
        share = f"{cpu / one_cpu:.2f}" if one_cpu else "-"
        print(f"| {name} | {seconds / one:.3f} | {share} | {held_bytes} | {wrong.get(name) or 'the same'} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
