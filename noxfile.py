"""The checks as nox sessions, for those who know nox: `nox -l` lists them. `dev.py` does the same with Python alone."""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "fast"]
nox.options.default_venv_backend = "uv|virtualenv"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PURE = [f"src/taktline/{room}" for room in ("_schedule", "_planner", "_observe")]  # rooms that decide: as in dev.py


def pinned(*names: str) -> list[str]:
    """These packages, in the versions that the lock has."""
    lock = Path("requirements.lock").read_text()
    return [re.search(rf"^{name}==\S+", lock, re.MULTILINE)[0] for name in names]


def prepared(session: nox.Session, lock: str = "requirements.lock") -> None:
    """The locked packages, and the project itself as it stands here."""
    session.install("--no-deps", "--requirement", lock)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, each file in a pytest of its own; arguments go to pytest."""
    prepared(session)
    session.run("python", "-m", "tests.apart", *session.posargs)


@nox.session(python=PYTHONS)
def fast(session: nox.Session) -> None:
    """The tests that start no process, on each Python; on the newest they come by all of the rooms that decide."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "fast"))
    session.install("--no-deps", "--editable", ".")
    tests = ["pytest", "-m", "fast", *(session.posargs or ["tests", *PURE])]
    if session.posargs or session.python != PYTHONS[-1]:
        session.run("python", "-m", *tests)
    else:
        measured(session, tests, "--fail-under=100", f"--include={','.join(f'{room}/*' for room in PURE)}")


@nox.session
def coverage(session: nox.Session) -> None:
    """All tests, or those that are named, and which lines they ran, in worker processes too."""
    prepared(session)
    measured(session, ["pytest", *session.posargs] if session.posargs else ["tests.apart"])


def measured(session: nox.Session, command: list[str], *report: str) -> None:
    """Run a module, and say which lines and branches neither it nor its processes came by."""
    session.env["COVERAGE_FILE"] = f"{session.create_tmp()}/coverage"
    session.run("coverage", "erase")
    try:
        session.run("coverage", "run", "-m", *command)
    finally:
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report", "--show-missing", *report)


@nox.session
def types(session: nox.Session) -> None:
    """Types: strict ones, and less so those of the tests."""
    prepared(session)
    session.run("mypy", *session.posargs)
    session.run("mypy", "--config-file", "tests/mypy.ini")
    session.run("mypy", "--config-file", "tests/airflow/mypy.ini")


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, the formatter's check and the spelling."""
    session.install(*pinned("ruff", "codespell"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")


@nox.session
def docs(session: nox.Session) -> None:
    """The examples and links of all pages, and the site."""
    prepared(session)
    session.run("python", "-m", "pytest", "README.md", "docs", "src", "tests/test_docs.py", *session.posargs)
    session.run("python", "-m", "website", "build")


@nox.session
def airflow(session: nox.Session) -> None:
    """The tests in a real Airflow."""
    prepared(session, "tests/airflow/requirements.lock")
    session.run("python", "-m", "pytest", "--override-ini=addopts=-ra", "tests/airflow", *session.posargs)


@nox.session
def airflow_oldest(session: nox.Session) -> None:
    """The same in the oldest Airflow that is supported."""
    prepared(session, "tests/airflow/oldest.lock")
    session.run("python", "-m", "pytest", "--override-ini=addopts=-ra", "tests/airflow", *session.posargs)


@nox.session
def hosts(session: nox.Session) -> None:
    """Tasks of a real Airflow on two hosts that are killed and frozen at random."""
    prepared(session, "tests/airflow/requirements.lock")
    session.run("python", "-m", "faults.hosts", *session.posargs)


@nox.session
def ray(session: nox.Session) -> None:
    """The tests on a real cluster of Ray on this machine."""
    prepared(session)
    session.install("ray==2.60.0")
    session.run("python", "-m", "pytest", "--override-ini=addopts=-ra", "tests/clusters", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """The fault suite."""
    prepared(session)
    session.run("python", "-m", "faults", *session.posargs)


@nox.session
def ways(session: nox.Session) -> None:
    """Whole ways, drawn, held against a model in plain Python."""
    prepared(session)
    session.run("python", "-m", "faults.ways", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks."""
    prepared(session)
    session.run("python", "-m", "benchmarks", *session.posargs)
