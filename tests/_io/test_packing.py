"""Packed files: every member and frame is read, and damage is told about, wherever it is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taktline import LineError, SourceError, line, read, write

zstandard = pytest.importorskip("zstandard")

PACK = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
packings = pytest.mark.parametrize("packing", PACK)
lots = st.lists(st.lists(st.integers(), max_size=30), min_size=1, max_size=5)


def jsonl(numbers):
    return b"".join(b"%d\n" % number for number in numbers)


@packings
@settings(suppress_health_check=list(HealthCheck))
@given(lots=lots)
def test_all_members_and_frames_are_one_file(tmp_path, packing, lots):
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(b"".join(PACK[packing](jsonl(lot)) for lot in lots))
    assert list(read(path)) == [number for lot in lots for number in lot]


def test_frames_that_are_to_be_skipped_are_skipped(tmp_path):
    skipped = struct.pack("<II", 0x184D2A5E, 9) + b"seekable!"
    packed = PACK[".zst"](b"1\n") + skipped + PACK[".zst"](b"2\n") + skipped
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert list(read(tmp_path / "a.jsonl.zst")) == [1, 2]


def cuts():
    """Each way of cutting a packed file of two parts inside one of them."""
    for packing, pack in PACK.items():
        whole = pack(jsonl(range(50))) + pack(jsonl(range(50)))
        middle = len(pack(jsonl(range(50))))
        yield from ((packing, whole[:cut]) for cut in range(1, len(whole)) if cut != middle)


@packings
def test_a_file_without_a_byte_is_none_that_was_packed(tmp_path, packing):
    """What packs nothing writes some bytes; none are left of what was cut off, or not written yet."""
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="has no bytes"):
        list(read(path))
    path.write_bytes(PACK[packing](b""))
    assert list(read(path)) == []


def test_a_file_that_is_cut_anywhere_is_an_error(tmp_path):
    for packing, packed in cuts():
        (tmp_path / f"a.jsonl{packing}").write_bytes(packed)
        with pytest.raises(SourceError, match="damaged or truncated"):
            list(read(tmp_path / f"a.jsonl{packing}"))


@packings
def test_a_damaged_file_is_an_error(tmp_path, packing):
    packed = bytearray(PACK[packing](jsonl(range(1000))))
    packed[len(packed) // 2] ^= 0x55
    (tmp_path / f"a.jsonl{packing}").write_bytes(packed)
    with pytest.raises(SourceError):
        list(read(tmp_path / f"a.jsonl{packing}"))


@packings
def test_equal_results_make_equal_files(tmp_path, packing):
    for name, size in (("one", 1), ("two", 7)):
        sink = write(tmp_path / f"{name}.jsonl{packing}")
        sink.open()
        for start in range(0, 70, size):
            sink.write(list(range(start, start + size)))
        sink.commit()
    one, two = ((tmp_path / f"{name}.jsonl{packing}").read_bytes() for name in ("one", "two"))
    assert one == two
    assert packing != ".gz" or one[4:8] == bytes(4)  # where others put the time


@packings
def test_damage_that_leaves_good_lines_is_an_error_too(tmp_path, packing):
    path = tmp_path / f"a.txt{packing}"
    sink = write(path)
    sink.open()
    sink.write(["abcdefghijklmnop"])  # so short that it is packed as it is
    sink.commit()
    packed = path.read_bytes()
    assert b"mnop" in packed or packing in (".gz", ".bz2")
    path.write_bytes(packed.replace(b"mnop", b"mnoq") if packing == ".zst" else packed[:-8] + b"\0\0\0\0" + packed[-4:])
    with pytest.raises(SourceError, match="damaged"):
        list(read(path))


def test_zstd_without_its_package_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    monkeypatch.setitem(__import__("sys").modules, "compression", None)
    with pytest.raises(LineError, match=r"taktline\[zstd\]"):
        write(tmp_path / "a.jsonl.zst")


# --- what a name says, and what the bytes say ---


def unpacked(packing, data):
    whole = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    if packing == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return whole[packing](data)


@packings
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_names_in_capitals_are_packed_and_unpacked(tmp_path, packing, case):
    path = tmp_path / case(f"a.jsonl{packing}")
    line(int).run(range(30_000), write(path), how="loop")
    assert unpacked(packing, path.read_bytes()) == jsonl(range(30_000))
    assert list(read(path)) == list(range(30_000))


@packings
@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.csv", "a.JSONL.XZ"])
def test_packing_is_seen_by_the_first_bytes(tmp_path, packing, name, how):
    text = b"n\n" * name.endswith("csv") + jsonl(range(5_000))
    (tmp_path / name).write_bytes(PACK[packing](text))
    wanted = {"a.txt": [str(n) for n in range(5_000)], "a.csv": [{"n": str(n)} for n in range(5_000)]}
    got = list(line(lambda record: record)(read(tmp_path / name), how=how, workers=1))
    assert got == wanted.get(name, list(range(5_000)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "BZ",
        "BZh",
        "BZh9",
        "BZh91AY",
        "BZhang, a name",
        "BZh91AY of a story",
        "\x1f",
        "P*",
        "Brot\n",
        "BZ\nBZh\n",
    ],
)
def test_text_that_only_looks_packed_at_first_is_text(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert list(read(tmp_path / "a.txt")) == text.splitlines()
    feed = "import os, sys\nfor byte in sys.argv[1].encode(): os.write(1, bytes([byte]))"
    take = "import taktline; print(list(taktline.read('-', 'text')))"
    with subprocess.Popen([sys.executable, "-c", feed, text], stdout=subprocess.PIPE) as fed:
        done = subprocess.run([sys.executable, "-c", take], stdin=fed.stdout, capture_output=True, text=True)
    assert done.stdout.strip() == repr(text.splitlines()), done.stderr


@packings
def test_what_comes_packed_by_standard_input_is_unpacked(packing):
    take = "import taktline; print(sum(taktline.read('-')))"
    packed = PACK[packing](jsonl(range(1_000))) * 2
    done = subprocess.run([sys.executable, "-c", take], input=packed, capture_output=True)
    assert done.stdout.strip() == b"999000", done.stderr


def test_a_few_packed_bytes_that_hold_very_much_do_not_fill_the_memory(tmp_path):
    import tracemalloc

    for packing in (".bz2", ".xz"):
        path = tmp_path / f"a.txt{packing}"
        path.write_bytes(PACK[packing]((b"0" * 999_999 + b"\n") * 100))
        tracemalloc.start()
        assert sum(len(text) for text in read(path)) % 999_999 == 0
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40_000_000  # of 100 MB: a window of 8 MB, and some lines


@pytest.mark.parametrize(
    "name",
    ["o.jsonl.br", "o.jsonl.lz4", "o.jsonl.Z", "o.JSONL.ZIP", "o.jsonl.lzma", "o.tgz", "o.json", "o.dat", "o.xlsx", "o",
     "o.gz", "o.parquet.gz"],
)  # fmt: skip
def test_an_unknown_suffix_is_never_plain_text_in_silence(tmp_path, name):
    for format in (None, "jsonl", "csv"):
        if format is not None and name in ("o.json", "o.dat", "o", "o.gz"):  # it is said what it holds
            line(lambda n: {"n": n}).run([1], write(tmp_path / name, format), how="loop")
            assert list(read(tmp_path / name, format)) == [{"n": 1 if format == "jsonl" else "1"}]
            os.unlink(tmp_path / name)
            continue
        with pytest.raises(LineError, match=r"suffix|is packed in a way that is not known here"):
            write(tmp_path / name, format)
    assert os.listdir(tmp_path) == []


@packings
def test_a_file_that_goes_on_from_a_position_has_the_bytes_of_one_written_in_one_go(tmp_path, packing):
    whole: Any = write(tmp_path / f"whole.jsonl{packing}")
    halves: Any = write(tmp_path / f"halves.jsonl{packing}")
    results = list(range(40_000))
    whole.begin("a")
    whole.write(results)
    whole.commit()
    halves.begin("a")
    halves.write(results[:25_000])
    position = halves.save("")
    halves.write(results[25_000:38_000])
    halves.suspend()
    halves = write(tmp_path / f"halves.jsonl{packing}")
    halves.resume("a", position)
    halves.write(results[25_000:])
    halves.commit()
    assert (tmp_path / f"halves.jsonl{packing}").read_bytes() == (tmp_path / f"whole.jsonl{packing}").read_bytes()
    assert list(read(tmp_path / f"whole.jsonl{packing}")) == results
