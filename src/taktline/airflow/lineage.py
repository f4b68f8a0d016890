"""What a task has read and written, with counts: as the events of assets, and for OpenLineage, by its provider's contract."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from taktline import Report
from taktline.abc import Sink, Source

PORTS = {"postgresql": 5432, "postgres": 5432}


def dataset_of(place: str) -> tuple[str, str]:
    """Namespace and name of a path, a URL, or a table as "URL: table", as OpenLineage's naming has them.

    >>> dataset_of("/data/orders.jsonl"), dataset_of("s3://store@shop/in/a.csv")
    (('file', '/data/orders.jsonl'), ('s3://shop', 'in/a.csv'))
    >>> dataset_of("postgresql://me@db/shop: public.orders"), dataset_of("pubsub://projects/shop/topics/orders")
    (('postgres://db:5432', 'shop.public.orders'), ('pubsub', 'topic:shop:orders'))
    """
    if "://" not in place:
        return "file", os.path.abspath(place)
    url, _, table = place.partition(": ")
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if parts.scheme == "file":
        return "file", parts.path
    if parts.scheme == "pubsub":
        project, kind, name = f"{path}//".split("/")[:3]
        return "pubsub", f"{kind.removesuffix('s')}:{project}:{name}"
    if parts.scheme in PORTS:
        named = f"{path}.{table}" if table else path
        return f"postgres://{parts.hostname or 'localhost'}:{parts.port or PORTS[parts.scheme]}", named
    if parts.scheme == "sqlite":
        file = f"/{parts.netloc}{parts.path}" if parts.netloc else parts.path[1:]  # as people are shown an absolute one
        return "file", f"{file}: {table}" if table else file
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", path or "/"


def read_by(source: Any) -> str | None:
    """The path or URL that a source reads; of a pattern the folder. None where it is something else."""
    if not isinstance(source, Source) or source.shared:
        return None
    name = source.describe()
    while "://" not in name and glob.has_magic(name) and not os.path.exists(name):
        name = os.path.dirname(name) or os.curdir
    if "://" in name or os.path.exists(name):
        return name
    return f"pubsub://{name}" if name.startswith("projects/") else None


def written_by(sink: Any) -> str | None:
    """The path or URL that a sink writes, or its table as "URL: table". None where it is something else."""
    if not isinstance(sink, Sink):
        return None
    places = [] if sink.shared else sink.writes()
    name = str(places[0]) if len(places) == 1 else sink.describe()
    if places or "://" in name:
        return name
    return f"pubsub://{name}" if name.startswith("projects/") else None


def counts(facts: Mapping[str, Any]) -> dict[str, int]:
    """What the event of an asset says besides, of what a report has handed on."""
    return {name: facts[name] for name in ("records_in", "records_out", "failed")}


class Lineage:
    """The ends of one task's run, and its report, as soon as there is one."""

    def __init__(self, source: Any, sink: Any) -> None:
        self._read, self._written = read_by(source), written_by(sink)
        is_query = isinstance(source, Source) and source.shared
        self._query = (
            source.describe().partition(": ")[2].strip("'\"") if is_query else None
        )  # shortened where it is long
        self.report: Report | None = None
        self.ended = False  # all of it is in the sink

    def told(self) -> Any:
        """The ends as OpenLineage's provider takes them. Imported here: no run needs that provider."""
        from airflow.providers.openlineage.extractors.base import OperatorLineage
        from openlineage.client.event_v2 import InputDataset, OutputDataset  # type: ignore[import-not-found]
        from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet  # type: ignore[import-not-found]
        from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet  # type: ignore[import-not-found]
        from openlineage.client.generated.sql_job import SQLJobFacet  # type: ignore[import-not-found]

        read = written = None
        if (report := self.report) is not None:
            read = {"inputStatistics": InputStatisticsInputDatasetFacet(rowCount=report.records_in)}
            written = {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=report.records_out)}
        inputs = [InputDataset(*dataset_of(self._read), inputFacets=read or {})] if self._read else []
        outputs = []
        if self._written and self.ended:
            outputs = [OutputDataset(*dataset_of(self._written), outputFacets=written or {})]
        return OperatorLineage(
            inputs=inputs, outputs=outputs, job_facets={"sql": SQLJobFacet(query=self._query)} if self._query else {}
        )
