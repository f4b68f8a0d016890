"""What workers on other machines leave in files beside a folder of parts: the same parts, nothing of what came too late."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

import pytest

import taktline
from taktline import SinkError, batch, line
from taktline._crew.machines import agents_here
from taktline._io import deposits


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def appended(monkeypatch):
    """The pieces of files that were put in their place without being read here."""
    pieces = []

    def append_to(piece, file, own=deposits.Deposit.append_to):
        pieces.append(piece)
        own(piece, file)

    monkeypatch.setattr(deposits.Deposit, "append_to", append_to)
    return pieces


@pytest.mark.parametrize("sizes", [{"rows": 1_000}, {"size": 600_000}, {}], ids=str)
def test_lines_come_out_as_the_loop_writes_them(sizes, tmp_path, appended):
    flow = line(lambda n: {"n": n, "text": "long " * 200})
    flow.run(range(3_000), taktline.write(f"{tmp_path}/loop/", format="jsonl", **sizes), how="loop")
    sink = taktline.write(f"{tmp_path}/out/", format="jsonl", **sizes)
    report = flow.run(range(3_000), sink, on=agents_here(2), batch_size=100)
    assert files(tmp_path / "out") == files(tmp_path / "loop")
    assert appended
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "out"}
    assert "do not have the folder" not in "".join(report.reasons)


def twice(table):
    import pyarrow.compute as pc

    return table.set_column(0, "n", pc.multiply(table.column("n"), 2))


def test_row_groups_come_out_as_a_line_here_writes_them(tmp_path, appended):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers = random.Random(1).choices(range(1 << 60), k=300_000)
    pq.write_table(pa.table({"n": numbers}), tmp_path / "in.parquet", row_group_size=75_000)
    flow = line(batch(twice, form="arrow"))
    for name, options in (("here", {"how": "line", "workers": 2}), ("out", {"on": agents_here(2)})):
        flow.run(
            taktline.read(tmp_path / "in.parquet"), taktline.write(f"{tmp_path}/{name}/", format="parquet"), **options
        )
    assert files(tmp_path / "out") == files(tmp_path / "here")
    assert len(appended) == 3  # all but the first, at which it is looked for its types
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "here", "out"}


def test_a_run_that_is_left_goes_on_to_the_same_parts(tmp_path, appended):
    flow = line(lambda n: {"n": n, "text": "long " * 200})
    write = partial(taktline.write, format="jsonl", rows=1_000)
    flow.run(range(3_000), write(f"{tmp_path}/loop/"), how="loop")

    def records(*, is_left):
        for n in range(3_000):
            if is_left and n == 1_700:
                raise KeyboardInterrupt
            yield n

    given = {"on": agents_here(2), "batch_size": 100, "journal": tmp_path / "journal"}
    with pytest.raises(KeyboardInterrupt):
        flow.run(records(is_left=True), write(f"{tmp_path}/out/"), **given)
    flow.run(records(is_left=False), write(f"{tmp_path}/out/"), **given)
    assert files(tmp_path / "out") == files(tmp_path / "loop")
    assert {path.name for path in tmp_path.iterdir()} == {"loop", "out", "journal"}


def test_what_nobody_asks_for_goes_with_the_folder_and_what_comes_later_goes_nowhere(tmp_path):
    sink = taktline.write(f"{tmp_path}/out/", format="jsonl")
    sink.open()
    encode, _ = sink.encoders_elsewhere()
    given_up = encode([{"text": "x" * 100_000}])
    sink.write_encoded(encode([{"text": "y" * 100_000}]), 1)
    assert given_up[:1] == deposits.LEFT
    sink.commit()
    assert (tmp_path / "out" / "part-00000.jsonl").read_text() == '{"text": "' + "y" * 100_000 + '"}\n'
    assert encode([{"text": "z" * 100_000}])[:1] == deposits.UNSEEN
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_workers_that_do_not_have_the_folder_tell_the_bytes_and_the_report_says_so(tmp_path):
    sink = taktline.write(f"{tmp_path}/out/", format="jsonl")
    sink.open()
    encode, _ = sink.encoders_elsewhere()
    elsewhere = partial(encode.func, **{**encode.keywords, "folder": "/nowhere"})
    sink.write_encoded(elsewhere([{"text": "x" * 100_000}]), 1)
    sink.commit()
    assert len((tmp_path / "out" / "part-00000.jsonl").read_bytes()) == 100_013
    assert "some workers do not have the folder" in sink.notes()[0]


def test_a_file_that_is_not_as_it_was_left_is_an_error(tmp_path):
    sink = taktline.write(f"{tmp_path}/out/", format="jsonl")
    sink.open()
    encode, _ = sink.encoders_elsewhere()
    told = encode([{"text": "x" * 100_000}])
    (left,) = Path(encode.keywords["folder"]).iterdir()
    os.truncate(left, 10)
    with pytest.raises(SinkError, match="has 10 bytes, and had 100,013"):
        sink.write_encoded(told, 1)
    sink.abort()
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_done_already_leaves_nothing_beside_its_folder(tmp_path):
    flow, out = line(str), tmp_path / "out"
    for _ in range(2):
        flow.run(
            list(range(100)), taktline.write(f"{out}/", "text"), how="line", workers=2, on=agents_here(2),
            journal=tmp_path / "journal",
        )  # fmt: skip
        assert sorted(os.listdir(tmp_path)) == ["journal", "out"]
