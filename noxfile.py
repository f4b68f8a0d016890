"""The checks as nox sessions, for those who know nox: `nox -l` lists them. `dev.py` does the same with Python alone."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "fast"]
nox.options.default_venv_backend = "uv|virtualenv"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


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
    """The tests that start no process, on each Python."""
    session.install("click", "cloudpickle", "hypothesis", "pytest", "pytest-timeout")
    session.install("--no-deps", "--editable", ".")
    session.run("python", "-m", "pytest", "-m", "fast", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Strict types."""
    prepared(session)
    session.run("mypy", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, the formatter's check and the spelling."""
    prepared(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")


@nox.session
def docs(session: nox.Session) -> None:
    """The examples and links of all pages."""
    prepared(session)
    session.run("python", "-m", "pytest", "README.md", "docs", "src", "tests/test_docs.py", *session.posargs)


@nox.session
def airflow(session: nox.Session) -> None:
    """The tests in a real Airflow."""
    prepared(session, "tests/airflow/requirements.lock")
    session.run("python", "-m", "pytest", "--override-ini=addopts=-ra", "tests/airflow", *session.posargs)


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
