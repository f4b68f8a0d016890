"""The cluster that all tests use, mended before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.ray_cluster import Cluster

pytest.importorskip("ray")


@pytest.fixture(scope="session")
def the_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(the_cluster: Cluster) -> Cluster:
    """The cluster with both nodes, whatever the last test has done to it."""
    the_cluster.mend()
    return the_cluster
