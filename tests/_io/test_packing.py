"""Packed files: every member and frame is read, and damage is told about, wherever it is."""

from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taktline import LineError, SourceError, read, write

zstandard = pytest.importorskip("zstandard")

PACK = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
packings = pytest.mark.parametrize("packing", PACK)
lots = st.lists(st.lists(st.integers(), max_size=30), max_size=5)


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
    assert b"mnop" in packed or packing == ".gz"
    path.write_bytes(packed.replace(b"mnop", b"mnoq") if packing == ".zst" else packed[:-8] + b"\0\0\0\0" + packed[-4:])
    with pytest.raises(SourceError, match="damaged"):
        list(read(path))


def test_zstd_without_its_package_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    monkeypatch.setitem(__import__("sys").modules, "compression", None)
    with pytest.raises(LineError, match=r"taktline\[zstd\]"):
        write(tmp_path / "a.jsonl.zst")
