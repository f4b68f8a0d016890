"""The part of BigQuery that takes rows, in memory, made from the client library's own service definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pyarrow
from google.cloud import bigquery_storage_v1
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport


class Warehouse:
    """`with Warehouse() as warehouse:` serves at `warehouse.address`."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.refuses = ""  # why it takes no rows
        self.took: Callable[[], object] = lambda: None  # told of rows before they are confirmed
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        append = grpc.stream_stream_rpc_method_handler(
            self._append, types.AppendRowsRequest.deserialize, types.AppendRowsResponse.serialize
        )
        service = "google.cloud.bigquery.storage.v1.BigQueryWrite"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"AppendRows": append}),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Warehouse:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _append(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        table, schema = "", None
        for request in requests:
            if request.write_stream:
                table, _, stream = request.write_stream.partition("/streams/")
                if stream != "_default":
                    context.abort(grpc.StatusCode.NOT_FOUND, f"no stream {stream!r}")
            data = request.arrow_rows
            if data.writer_schema.serialized_schema:
                schema = pyarrow.ipc.read_schema(pyarrow.py_buffer(data.writer_schema.serialized_schema))
            if self.refuses:
                yield types.AppendRowsResponse(error={"code": 3, "message": self.refuses})
                continue
            rows = pyarrow.ipc.read_record_batch(pyarrow.py_buffer(data.rows.serialized_record_batch), schema)
            self.tables.setdefault(table, []).extend(rows.to_pylist())
            self.took()
            yield types.AppendRowsResponse(append_result={})


def reach(address: str) -> None:
    """The client library's clients of this process are those of a warehouse."""
    library: Any = bigquery_storage_v1
    client = library.BigQueryWriteClient

    def connected() -> Any:
        return client(transport=BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(address)))

    library.BigQueryWriteClient = connected
