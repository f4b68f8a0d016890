"""`taktline init`: a small project that runs as it stands, and with --astro a whole one, in an empty folder only, also from a
wheel. That its DAGs work is tested in tests/airflow."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from taktline import __version__
from taktline.cli.commands import DONE, WRONG_USAGE, run_main

PROJECT = {"steps.py", "orders.jsonl", "test_steps.py"}
ROOT = Path(__file__).resolve().parents[2]
ASTRO = {
    ".astro/config.yaml", ".astro/dag_integrity_exceptions.txt", ".astro/test_dag_integrity_default.py",
    ".dockerignore", ".gitignore", "Dockerfile", "README.md", "airflow_settings.yaml", "packages.txt",
    "requirements.txt", "dags/.airflowignore", "dags/drain_events.py", "dags/nightly_orders.py",
    "include/lines.py", "include/data/orders.jsonl", "plugins/.gitkeep", "tests/dags/test_dag_example.py",
}  # fmt: skip
STARTS = {
    "taktline": f"{shlex.quote(sys.executable)} -m taktline",
    "python -m pytest": f"{shlex.quote(sys.executable)} -m pytest -p no:cacheprovider",
}
WHEEL = f"wheels/taktline-{__version__}-py3-none-any.whl"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_writes_a_project_whose_commands_run_as_they_are_printed(tmp_path, capsys):
    folder = tmp_path / "my orders"
    assert run_main(["init", str(folder)]) == DONE
    assert files(folder) == PROJECT
    _, _, printed = capsys.readouterr().err.partition("next")
    enter, *commands = [line.strip() for line in printed.splitlines()]
    assert enter == f"cd '{folder}'"
    assert [command.split()[0] for command in commands] == ["taktline", "taktline", "python"]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for command in commands:
        as_here = re.sub(r"^(taktline|python -m pytest)", lambda name: STARTS[name[1]], command)
        done = subprocess.run(as_here, shell=True, cwd=folder, capture_output=True, text=True, env=here)
        assert done.returncode == DONE, done.stdout + done.stderr
    labels = [json.loads(row) for row in (folder / "labels.jsonl").read_text().splitlines()]
    assert 0 < len(labels) < len((folder / "orders.jsonl").read_text().splitlines())
    assert all(label.keys() == {"id", "text"} for label in labels)
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["one", "--astro", "two"]])
def test_it_is_told_one_folder(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_main(["init", *arguments]) == WRONG_USAGE
    assert "name one folder: taktline init NAME, taktline init --astro DIR" in capsys.readouterr().err
    assert not files(tmp_path)


def test_it_writes_an_astro_project(tmp_path, capsys):
    folder = tmp_path / "Late Orders"
    assert run_main(["init", "--astro", str(folder)]) == DONE
    assert files(folder) == ASTRO | {WHEEL}
    assert f"./{WHEEL}[pubsub]" in (folder / "requirements.txt").read_text().splitlines()
    assert (folder / ".astro/config.yaml").read_text() == "project:\n  name: late-orders\n"
    assert (folder / "Dockerfile").read_text().startswith("FROM astrocrpublic.azurecr.io/runtime:3")
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".whl":
            assert not any(name in path.read_text() for name in ("PROJECT_NAME", "TAKTLINE_WHEEL")), path
    assert "astro dev start" in capsys.readouterr().err


def installed_by(requirements, folder):
    """The interpreter of a new environment with what a project's requirements name, and nothing that they need."""
    venv.create(folder, with_pip=False)
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "-r", requirements.name]
    python = str(folder / "bin" / "python")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *install],
        cwd=requirements.parent,
        check=True,
        capture_output=True,
    )
    return python


def test_what_it_requires_can_be_installed_from_its_own_folder(tmp_path):
    run_main(["init", "--astro", str(tmp_path / "first")])
    python = installed_by(tmp_path / "first/requirements.txt", tmp_path / "venv")
    # From there, not from a checkout, another project: its wheel is packed anew from what was installed.
    script = "import pathlib, sys; from taktline.cli import projects; projects.write_astro(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [python, "-c", script, str(tmp_path / "second")], cwd=tmp_path, check=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    first, second = (zipfile.ZipFile(tmp_path / name / WHEEL) for name in ("first", "second"))
    assert {*first.namelist()} == {*second.namelist()}
    for name in first.namelist():
        assert name.endswith("/RECORD") or first.read(name) == second.read(name)
    again = installed_by(tmp_path / "second/requirements.txt", tmp_path / "again")
    said = subprocess.run(
        [again, "-c", "import taktline, sys; print(taktline.__version__, taktline.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert said.stdout.startswith(f"{__version__} {tmp_path}/again/")


def test_its_line_runs_without_airflow_as_the_guide_says(tmp_path, monkeypatch, capfd):
    run_main(["init", "--astro", str(tmp_path)])
    (said,) = re.findall(r"^    taktline (run .*)$", (ROOT / "docs/astro.md").read_text(), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert run_main(shlex.split(said)) == DONE
    paid = [row for row in (tmp_path / "include/data/orders.jsonl").read_text().splitlines() if json.loads(row)["paid"]]
    assert len(capfd.readouterr().out.splitlines()) == len(paid) > 0


@pytest.mark.parametrize("kind", [["--astro"], []])
@pytest.mark.parametrize("there", ["a folder", "a file"])
def test_it_touches_nothing_that_is_there(there, kind, tmp_path, capsys):
    mine = tmp_path / "mine"
    if there == "a folder":
        mine.mkdir()
        (mine / "notes.txt").write_text("mine")
    else:
        mine.write_text("mine")
    before = files(tmp_path)
    assert run_main(["init", *kind, str(mine)]) == WRONG_USAGE
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
    assert {f"taktline/cli/project/{name}" for name in PROJECT} <= packed


def test_it_adds_a_dag_to_a_project_and_replaces_nothing(tmp_path, capsys):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/mine.py").write_text("mine")
    assert run_main(["init", "--airflow", str(tmp_path)]) == DONE
    assert "airflow dags test nightly_orders" in capsys.readouterr().err
    added = {"dags/nightly_orders.py", "include/lines.py", "include/data/orders.jsonl"}
    assert files(tmp_path) == {"dags/mine.py", *added}
    run_main(["init", "--astro", str(tmp_path / "astro")])
    for name in added:
        assert (tmp_path / name).read_text() == (tmp_path / "astro" / name).read_text()
    (tmp_path / "dags/nightly_orders.py").unlink()
    (tmp_path / "include/lines.py").write_text("mine")
    assert run_main(["init", "--airflow", str(tmp_path)]) == WRONG_USAGE
    assert "is there already; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "dags/nightly_orders.py").exists()
    assert (tmp_path / "include/lines.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "name one folder"),
        (["--astro", "a", "--airflow", "b"], "name one folder"),
        (["--airflow", "."], "has no folder 'dags'"),
    ],
)
def test_wrong_use_is_refused(tmp_path, monkeypatch, capsys, given, sentence):
    monkeypatch.chdir(tmp_path)
    assert run_main(["init", *given]) == WRONG_USAGE
    assert sentence in capsys.readouterr().err
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("2.10.5", "needs Airflow 3.1 or newer, and this is 2.10.5"),
        ("3.0.6", "this is 3.0.6"),
        (None, "there is none here"),
    ],
)
def test_an_airflow_that_is_too_old_is_told(tmp_path, version, sentence):
    if version is not None:
        (tmp_path / "airflow").mkdir()
        (tmp_path / "airflow/__init__.py").touch()
        about = tmp_path / f"apache_airflow-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: apache-airflow\nVersion: {version}\n")
    path = [str(ROOT / "src"), str(tmp_path)]
    program = f"import sys; sys.path[:0] = {path!r}; from taktline.airflow import TaktlineOperator"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert sentence in done.stderr
