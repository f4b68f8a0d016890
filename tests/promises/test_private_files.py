"""Promise: nobody else reads what a run keeps of its records, and nobody else writes it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import taktline
from taktline import LineError, SinkError, TaktlineError, line

RECORDS = 400


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A folder in which everybody may read what is made without a mode of its own."""
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.iterdir():
        known = path.lstat()
        if stat.S_ISREG(known.st_mode):
            found[path.name] = stat.S_IMODE(known.st_mode)
    return found


def fails_on_some(n: int) -> int:
    if n % 50 == 7:
        raise ValueError(n)
    return n


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.jsonl.gz", "out.csv", "out.txt", "out.parquet", "old.jsonl"])
@pytest.mark.parametrize("letters", ["failed.jsonl", "failed.sqlite", None])
@pytest.mark.parametrize("journal", [True, False])
def test_what_holds_records_is_for_its_owners_eyes_alone(open_to_all, how, out, letters, journal):
    if out.endswith("parquet") and journal:
        pytest.skip("refused: Parquet takes no journal")
    folder, seen = open_to_all, {}
    (folder / "old.jsonl").write_text("{}\n")

    def records() -> Iterator[int]:
        for n in range(RECORDS):
            if n % 40 == 0:
                seen.update(modes(folder))
            yield n

    def row(n: int) -> Any:
        return str(n) if out.endswith("txt") else {"n": n}

    options: dict[str, Any] = {"how": how, "workers": 1, "on_error": "raise" if letters else "skip"}
    options |= {"journal": folder / "run.journal"} if journal else {}
    options |= {"dead_letters": folder / letters} if letters else {}
    flow = line(fails_on_some, row)
    report = flow.run(records(), taktline.write(folder / out), **options)
    assert report.failed == RECORDS // 50
    seen.update(modes(folder))
    outputs = {out, "old.jsonl"}
    assert {name: oct(mode) for name, mode in seen.items() if name not in outputs and mode & 0o077} == {}
    assert seen[out] == 0o666, "the output itself is made as any file is"
    assert len(seen) > 1 + journal


def test_a_part_that_a_killed_run_goes_on_with_is_not_followed_elsewhere(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".out.jsonl.part", "run.journal", "run.journal.new", ".out.jsonl.part.journal.new"):
        link = tmp_path / name
        link.symlink_to(victim)
        with pytest.raises(TaktlineError):
            line(abs).run(range(9), taktline.write(tmp_path / "out.jsonl"), journal=tmp_path / "run.journal")
        assert victim.read_text() == "precious"
        link.unlink()
        for left in tmp_path.glob("*"):
            if left != victim:
                left.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user's")
def test_what_somebody_else_owns_is_not_trusted(tmp_path):
    def run(**options: Any) -> Any:
        return line(fails_on_some).run(range(100), taktline.write(tmp_path / "out.jsonl"), **options)

    run(journal=tmp_path / "run.journal", on_error="skip")
    run(dead_letters=tmp_path / "failed.jsonl")
    run(dead_letters=tmp_path / "failed.sqlite")
    for name in ("run.journal", "failed.jsonl", "failed.sqlite"):
        before = (tmp_path / name).read_bytes()
        os.chown(tmp_path / name, 12_345, 12_345)
        with pytest.raises(LineError, match=r"belongs to the user 12345.*chown"):
            option = "journal" if name.endswith("journal") else "dead_letters"
            run(**{option: tmp_path / name}, on_error="skip" if option == "journal" else "raise")
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user's")
def test_a_part_of_somebody_elses_is_neither_written_nor_taken_away(tmp_path):
    part = tmp_path / ".out.jsonl.part"
    part.write_text('{"mine": 1}\n')
    os.chown(part, 12_345, 12_345)
    with pytest.raises(SinkError, match="belongs to the user 12345"):
        line(abs).run(range(9), taktline.write(tmp_path / "out.jsonl"), journal=tmp_path / "run.journal")
    assert part.read_text() == '{"mine": 1}\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_output_that_could_not_be_given_back_to_its_owner_is_refused_before_the_run(tmp_path):
    import subprocess
    import sys

    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    for above in (tmp_path, *tmp_path.parents):
        if above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    (folder / "out.jsonl").write_text("1\n")
    (folder / "out.jsonl").chmod(0o666)
    code = (
        # What is needed is loaded before: the other user may not be able to read it.
        f"line(abs).run(range(3), taktline.write({str(tmp_path / 'other.jsonl')!r}), how='loop')\n"
        "import os, sys; os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "def told(n):\n    print('ran', flush=True)\n    return n\n"
        f"line(told).run(range(3), taktline.write({str(folder / 'out.jsonl')!r}), how='loop')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import taktline; from taktline import line\n" + code], capture_output=True, text=True
    )
    assert "belongs to another user" in done.stderr, done.stderr
    assert "ran" not in done.stdout
    assert json.loads((folder / "out.jsonl").read_text()) == 1
    assert [each.name for each in folder.iterdir()] == ["out.jsonl"]
