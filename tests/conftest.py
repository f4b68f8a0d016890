"""No test holds a time against a constant: a busy machine is no failure. And the servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import servers
from hypothesis import settings

from faults.starting import patient_starts

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def started_patiently() -> Iterator[None]:
    with patient_starts():
        yield


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
    """The URL of a bucket of an emulator of Google's store, which gcsfs finds by the environment."""
    pytest.importorskip("gcp_storage_emulator")
    gcsfs = pytest.importorskip("gcsfs")
    with servers.google_store() as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield "gs://shop"
        gcsfs.GCSFileSystem.clear_instance_cache()


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
