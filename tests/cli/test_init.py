"""`taktline init --astro`: a whole project, in an empty folder only, also from a wheel. That its DAGs work is tested in
tests/airflow."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from taktline.cli.commands import DONE, WRONG_USAGE, run_main

ROOT = Path(__file__).resolve().parents[2]
ASTRO = {
    ".astro/config.yaml", ".astro/dag_integrity_exceptions.txt", ".astro/test_dag_integrity_default.py",
    ".dockerignore", ".gitignore", "Dockerfile", "README.md", "airflow_settings.yaml", "packages.txt",
    "requirements.txt", "dags/.airflowignore", "dags/drain_events.py", "dags/nightly_orders.py",
    "include/lines.py", "include/data/orders.jsonl", "plugins/.gitkeep", "tests/dags/test_dag_example.py",
}  # fmt: skip


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_writes_an_astro_project(tmp_path, capsys):
    folder = tmp_path / "Late Orders"
    assert run_main(["init", "--astro", str(folder)]) == DONE
    assert files(folder) == ASTRO
    assert (folder / ".astro/config.yaml").read_text() == "project:\n  name: late-orders\n"
    assert (folder / "Dockerfile").read_text().startswith("FROM astrocrpublic.azurecr.io/runtime:3")
    assert not any("PROJECT_NAME" in path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "astro dev start" in capsys.readouterr().err


def test_its_line_runs_without_airflow(tmp_path, capsys):
    run_main(["init", "--astro", str(tmp_path)])
    orders, out = tmp_path / "include/data/orders.jsonl", tmp_path / "out.jsonl"
    target = f"{tmp_path}/include/lines.py:nightly"
    assert run_main(["run", target, "--in", str(orders), "--out", str(out), "--quiet"]) == DONE
    assert 0 < len(out.read_text().splitlines()) < len(orders.read_text().splitlines())


@pytest.mark.parametrize("there", ["a folder", "a file"])
def test_it_touches_nothing_that_is_there(there, tmp_path, capsys):
    mine = tmp_path / "mine"
    if there == "a folder":
        mine.mkdir()
        (mine / "notes.txt").write_text("mine")
    else:
        mine.write_text("mine")
    before = files(tmp_path)
    assert run_main(["init", "--astro", str(mine)]) == WRONG_USAGE
    assert "is there and not an empty folder; name a new one, nothing was written" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_wheel_has_the_projects_files(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name.replace("dot_", ".") for name in zipfile.ZipFile(wheel).namelist()}
    assert {f"taktline/cli/astro/{name}" for name in ASTRO} <= packed
