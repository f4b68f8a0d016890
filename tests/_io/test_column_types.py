"""What a column that the user has said may hold: the same of tables as of records, and no value changes."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from taktline._io.column_types import as_columns, in_schema
from taktline.errors import SinkError

NOON = dt.datetime(2024, 1, 1, 12)
UTC_NOON = NOON.replace(tzinfo=dt.UTC)
VALUES = [
    (pa.bool_(), True), (pa.int8(), 1), (pa.int64(), 1), (pa.uint64(), 1), (pa.float32(), 1.5), (pa.float64(), 1.0),
    (pa.decimal128(10, 2), Decimal("1.50")), (pa.decimal128(10, 0), Decimal(1)), (pa.string(), "1"),
    (pa.large_string(), "1"), (pa.string_view(), "1"), (pa.binary(), b"1"), (pa.binary(1), b"1"), (pa.binary_view(), b"1"),
    (pa.date32(), dt.date(2024, 1, 1)), (pa.date64(), dt.date(2024, 1, 1)), (pa.timestamp("us"), NOON),
    (pa.timestamp("s"), NOON), (pa.timestamp("us", "UTC"), UTC_NOON), (pa.timestamp("us", "Europe/Berlin"), UTC_NOON),
    (pa.time32("s"), dt.time(1)), (pa.time64("us"), dt.time(1)), (pa.duration("us"), dt.timedelta(1)),
    (pa.dictionary(pa.int32(), pa.string()), "1"), (pa.dictionary(pa.int32(), pa.int64()), 1), (pa.list_(pa.int64()), [1]),
    (pa.list_(pa.bool_()), [True]), (pa.large_list(pa.int64()), [1]), (pa.list_(pa.int64(), 1), [1]),
    (pa.struct([("a", pa.int64())]), {"a": 1}), (pa.struct([("a", pa.bool_())]), {"a": True}),
    (pa.struct([("a", pa.int64()), ("b", pa.int64())]), {"a": 1, "b": 2}), (pa.map_(pa.string(), pa.int64()), [("1", 1)]),
    (pa.map_(pa.string(), pa.bool_()), [("1", True)]),
]  # fmt: skip
if hasattr(pa, "json_"):
    VALUES += [(pa.uuid(), uuid.UUID(int=1)), (pa.json_(), "1")]


def taken(make, *arguments, **options):
    """What comes of it as values, None where it is refused."""
    try:
        return make(*arguments, **options)["x"].to_pylist()
    except SinkError:
        return None


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=str)
def test_a_schema_takes_of_tables_what_it_takes_of_records(kind, value):
    name = getattr(kind, "extension_name", "")
    if name == "arrow.uuid":
        column = pa.ExtensionArray.from_storage(kind, pa.array([value.bytes], pa.binary(16)))
    elif name == "arrow.json":
        column = pa.ExtensionArray.from_storage(kind, pa.array([value]))
    else:
        column = pa.array([value], kind)
    table = pa.table({"x": column})
    for other, _ in VALUES:
        schema = pa.schema([("x", other)])
        of_records = taken(as_columns, table.to_pylist(), schema, pa.schema([]), 0)
        assert taken(in_schema, table, schema, 0, given=True) == of_records, other


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([0, 5, -1]), pa.bool_()),
        (pa.array([1.5]), pa.int64()),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([1000]), pa.decimal128(2)),
        (pa.array([NOON], pa.timestamp("us")), pa.timestamp("us", "America/New_York")),
    ],
)
def test_what_would_be_another_value_is_refused_by_its_column(column, kind):
    with pytest.raises(SinkError, match="its 'x'"):
        in_schema(pa.table({"x": column}), pa.schema([("x", kind)]), 0, given=True)
