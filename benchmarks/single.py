"""What is measured without others beside it: file to file, the hub alone, and one record in short and long runs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import taktline
from benchmarks.peers import WORKERS
from benchmarks.work import add, clean, double, enrich, json_lines, less, same
from taktline import line
from taktline._observe import memory


def file_to_file() -> tuple[float, float, float]:
    """200,000 JSON lines from a file into a file: seconds of the loop and of the line, and the share of all processor
    time that the line's own process has."""
    with tempfile.TemporaryDirectory() as folder:
        source, sink = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text("".join(f"{text}\n" for text in json_lines(200_000)))
        flow = line(clean, enrich)
        few = Path(folder, "few.jsonl")
        few.write_text("{}\n")
        line(str).run(
            taktline.read(str(few)),
            taktline.write(str(Path(folder, "none.jsonl"))),
            how="line",
            workers=1,
            progress=False,
        )
        began = perf_counter()
        with source.open() as texts, sink.open("w") as out:
            for text in texts:
                out.write(json.dumps(enrich(clean(json.loads(text)))) + "\n")
        loop = perf_counter() - began
        sink.unlink()
        began, cpu = perf_counter(), process_time()
        report = flow.run(
            taktline.read(str(source)), taktline.write(str(sink)), how="line", workers=WORKERS, progress=False
        )
        took, cpu = perf_counter() - began, process_time() - cpu
    return loop, took, cpu / report.cpu_seconds


def empty_batches() -> float:
    """Batches a second through the hub, with a step that does nothing."""
    results = iter(line(same)(range(100_000), how="line", workers=WORKERS, batch_size=1, progress=False))
    next(results)
    began = perf_counter()
    return sum(1 for _ in results) / (perf_counter() - began)


def one_record(how: str, count: int) -> tuple[float, float]:
    """Nanoseconds a record, from the first result on, in a run over so many, and the bytes of memory held."""
    run = line(add, double, less, same)(range(count), how=how, workers=WORKERS, progress=False)
    next(run)
    began, left = perf_counter(), sum(1 for _ in run)
    took = perf_counter() - began
    return took * 1e9 / max(1, left), float(memory.held_here() if how == "auto" else run.report.peak_memory)
