"""Promise: what a run says is done is there after a power cut. The disk is played: it keeps what was synced, no more."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from taktline import line, read_dead_letters, write
from taktline._durable import dead_letters
from taktline._durable.journal import Journal
from taktline._run import checkpointer


class Disk:
    """Watches what is done to the files of a folder, and can say at any moment what a power cut would leave of them: a
    file's bytes as they were at its last fsync, a name as it was at the last fsync of its folder."""

    def __init__(self, monkeypatch, folder):
        self.folder = str(folder)
        self.contents: dict[int, bytes] = {}  # inode: what is safe of it
        self.names: dict[str, int] = {}  # what the folder says safely
        self._real = {name: getattr(os, name) for name in ("fsync",)}
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, file):
        self._real["fsync"](file)
        known = os.fstat(file)
        if stat.S_ISDIR(known.st_mode):
            if os.path.samestat(known, os.stat(self.folder)):
                self.names = {entry.name: entry.inode() for entry in os.scandir(self.folder)}
        elif known.st_size < 1 << 24:
            with open(f"/proc/self/fd/{file}", "rb") as there:  # it may be open for writing alone
                self.contents[known.st_ino] = there.read()

    def left(self, name):
        """The bytes of a file after a power cut now; None where its name is lost."""
        return self.contents.get(self.names.get(name, -1), b"") if name in self.names else None


def parse(n):
    if n % 100 == 7:
        raise ValueError(n)
    return {"n": n}


def expected():
    return "".join(json.dumps({"n": n}) + "\n" for n in range(1000) if n % 100 != 7).encode()


@pytest.mark.parametrize("journal", [None, "j"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.jsonl.gz", "out.parquet"])
@pytest.mark.parametrize("before", [False, True])
def test_a_run_that_has_ended_well_is_safe(tmp_path, monkeypatch, name, journal, before):
    if name == "out.parquet" and journal:
        pytest.skip("no journal can go on with it")
    if before:
        (tmp_path / name).write_text("of the last night")
    disk = Disk(monkeypatch, tmp_path)
    options = {"journal": tmp_path / "j", "dead_letters": tmp_path / "f.jsonl"} if journal else {"on_error": "skip"}
    report = line(parse).run(range(1000), write(tmp_path / name), how="loop", **options)
    assert report.complete
    for each in os.listdir(tmp_path):
        if not each.startswith("."):
            assert disk.left(each) == (tmp_path / each).read_bytes(), each
    if name == "out.jsonl":
        assert disk.left(name) == expected()
    assert not [each for each in disk.names if each.endswith(".part")]


def test_at_no_moment_does_the_journal_say_more_than_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointer, "EVERY", 0)
    disk, states = Disk(monkeypatch, tmp_path), []
    real = Journal._write

    def write_and_look(journal, entry):
        real(journal, entry)
        position = entry.position or {}
        if position.get("bytes"):
            place = ".out.jsonl.part" if entry.state != "done" else "out.jsonl"
            assert len(disk.left(place) or b"") >= position["bytes"]
        letters = disk.left("f.jsonl")
        assert entry.mark.failed == 0 or len((letters or b"").splitlines()) >= entry.mark.failed
        states.append(entry.state)

    monkeypatch.setattr(Journal, "_write", write_and_look)
    line(parse).run(
        range(1000), write(tmp_path / "out.jsonl"), how="loop", journal=tmp_path / "j", dead_letters=tmp_path / "f.jsonl"
    )  # fmt: skip
    assert states[-2:] == ["delivered", "done"]
    assert len(states) > 10


def test_reports_and_letters_that_are_written_anew_are_safe(tmp_path, monkeypatch):
    letters = tmp_path / "f.jsonl"
    report = line(parse).run(range(200), how="loop", dead_letters=letters)
    disk = Disk(monkeypatch, tmp_path)
    report.to_html(str(tmp_path / "report.html"))
    dead_letters.replace_rows(str(letters), dead_letters.rows_of(str(letters))[:1])
    assert len(read_dead_letters(letters)) == 1
    for each in ("report.html", "f.jsonl"):
        assert disk.left(each) == (tmp_path / each).read_bytes()


@pytest.mark.parametrize("why", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_a_folder_works(tmp_path, monkeypatch, why):
    real = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(why, os.strerror(why))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    options = {"journal": tmp_path / "j", "dead_letters": tmp_path / "f.jsonl"}
    assert line(parse).run(range(1000), write(tmp_path / "out.jsonl"), how="loop", **options).complete
    assert (tmp_path / "out.jsonl").read_bytes() == expected()


def test_a_disk_that_fails_at_the_folder_is_told(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Exception, match="Input/output error"):
        line(parse).run(range(5), write(tmp_path / "out.jsonl"), how="loop")
