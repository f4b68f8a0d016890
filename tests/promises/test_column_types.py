"""Promise: a column that no step has touched comes out as what the source has, its type and its values, whatever the form of
the steps, the sink and the technique; what a form or a sink has no exact place for is refused by the column's name.

What is wanted of files is what pyarrow, json, csv and sqlite3 make of the same values. All cases, some 12,000, a part of
which is drawn here: `pytest -m slow`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import sqlite3
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import taktline
from taktline import FormError, LineError, SinkError, batch, line

SEED = 15
DRAWN = {"loop": 200, "threads": 100}

ODD = "which no value of Python holds"  # in a kind's name: it has nanoseconds
WORDS = ["a", 'é\n"', "longer than twelve bytes"]
DAYS = [date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)]
PRICES = [Decimal("1.50"), Decimal("-3.00"), Decimal("99.99")]
DEEP = pa.struct([("day", pa.date32()), ("at", pa.timestamp("ns")), ("n", pa.int8())])
KINDS: dict[str, tuple[Any, list[Any]]] = {
    "half": (pa.float16(), [np.float16(1.5), np.float16(-0.0), np.float16("inf")]),
    "float": (pa.float32(), [1.5, -0.0, math.inf]),
    "double": (pa.float64(), [0.1, 1e9, 1e300]),
    "float with NaN": (pa.float32(), [0.5, math.nan, 2.0]),
    "double with NaN": (pa.float64(), [0.1, math.nan, 2.0]),
    "decimal128": (pa.decimal128(9, 2), PRICES),
    "wide decimal128": (pa.decimal128(38, 10), [Decimal("1.5"), Decimal("-3"), Decimal("1" * 28 + ".0123456789")]),
    "decimal256": (pa.decimal256(50, 1), [Decimal("1.5"), Decimal("-3"), Decimal(10**45)]),
    "bool": (pa.bool_(), [True, False, True]),
    "string": (pa.string(), WORDS),
    "large_string": (pa.large_string(), WORDS),
    "string_view": (pa.string_view(), WORDS),
    "binary": (pa.binary(), [b"a", b"\0\xff", b""]),
    "large_binary": (pa.large_binary(), [b"a", b"\0\xff", b""]),
    "binary_view": (pa.binary_view(), [b"a", b"\0\xff", b""]),
    "fixed binary": (pa.binary(2), [b"ab", b"\0\xff", b"\0\0"]),
    "date32": (pa.date32(), DAYS),
    "date64": (pa.date64(), DAYS),
    "time32 s": (pa.time32("s"), [time(1, 2, 3), time(0), time(23, 59, 59)]),
    "time32 ms": (pa.time32("ms"), [time(1, 2, 3, 4000), time(0), time(23, 59, 59)]),
    "time64 us": (pa.time64("us"), [time(1, 2, 3, 4), time(0), time(23, 59, 59, 999_999)]),
    "time64 ns": (pa.time64("ns"), [1_000, 0, 86_399_999_999_000]),
    f"time64 ns {ODD}": (pa.time64("ns"), [1, 0, 86_399_999_999_999]),
    f"timestamp ns {ODD}": (pa.timestamp("ns"), [1, 2**62 + 1, -1]),
    f"timestamp ns in a zone {ODD}": (pa.timestamp("ns", "Europe/Paris"), [1, 2**62 + 1, -1]),
    f"duration ns {ODD}": (pa.duration("ns"), [1, 2**62 + 1, -1]),
    f"list of time64 ns {ODD}": (pa.list_(pa.time64("ns")), [[1], [], [2]]),
    f"struct of timestamp ns {ODD}": (pa.struct([("at", pa.timestamp("ns"))]), [{"at": 1}, {"at": None}, {"at": 3}]),
    "timestamp us far": (pa.timestamp("us"), [datetime(9999, 12, 31, 23, 59), datetime(1, 1, 1), datetime(2300, 1, 1)]),
    "timestamp s far": (pa.timestamp("s"), [datetime(9999, 12, 31, 23, 59), datetime(1, 1, 1), datetime(2300, 1, 1)]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["red", "green", "red"]),
    "ordered dictionary": (pa.dictionary(pa.int32(), pa.string(), ordered=True), ["red", "green", "red"]),
    "dictionary of numbers": (pa.dictionary(pa.int16(), pa.int64()), [7, 5, 7]),
    "list": (pa.list_(pa.int32()), [[1, 2], [], [3, None]]),
    "list of text": (pa.list_(pa.string()), [["a"], [], ["b", None]]),
    "large_list": (pa.large_list(pa.float32()), [[1.5], [], [2.0, None]]),
    "fixed list": (pa.list_(pa.int16(), 2), [[1, 2], [3, 4], [5, 6]]),
    "list of lists": (pa.list_(pa.list_(pa.int8())), [[[1], []], [], [[2, 3]]]),
    "list of structs": (pa.list_(pa.struct([("a", pa.int16())])), [[{"a": 1}], [], [{"a": 2}, {"a": None}]]),
    "struct": (pa.struct([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}, {"a": None, "b": ""}, {"a": 3}]),
    "struct of moments": (DEEP, [{"day": DAYS[0], "at": 1000, "n": 1}, {"at": 2000}, {"day": DAYS[1], "n": 2}]),
    "map": (pa.map_(pa.string(), pa.int32()), [[("a", 1)], [], [("b", 2), ("c", None)]]),
    "null": (pa.null(), [None, None, None]),
    "interval": (pa.month_day_nano_interval(), [(1, 2, 3000), (0, 0, 0), (5, 6, 7000)]),
    "list_view": (pa.list_view(pa.int32()), [[1, 2], [], [3]]),
}  # fmt: skip
for wide in (8, 16, 32, 64):
    KINDS[f"int{wide}"] = getattr(pa, f"int{wide}")(), [-(2 ** (wide - 1)), 0, 2 ** (wide - 1) - 1]
    KINDS[f"uint{wide}"] = getattr(pa, f"uint{wide}")(), [0, 7, 2**wide - 1]
for unit, second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
    moments = [1_700_000_000 * second + second // 1000, -second, 0]
    KINDS[f"duration {unit}"] = pa.duration(unit), moments
    for zone in (None, "UTC", "Europe/Paris", "+02:00"):
        KINDS[f"timestamp {unit} {zone}"] = pa.timestamp(unit, zone), moments

FORMS = ("pandas", "polars", "arrow", "numpy")
SINKS = (
    "to_arrow", "to_pandas", "to_polars", "to_list", "parquet", "arrow", "jsonl", "csv", "parquet/", "arrow/", "jsonl/",
    "csv/", "sqlite",
)  # fmt: skip
SOURCES = ("memory", "parquet", "arrow")
HOW = {
    "loop": {"how": "loop"}, "line": {"how": "line", "workers": 1},
    "threads": {"how": "line", "workers": 2, "start": "threads"},
}  # fmt: skip
# What a form has no place for, by the start of a kind's name.
NO_PLACE = {
    "pandas": ("time64 ns which", "list of time64 ns which", "struct of timestamp ns which"),
    "numpy": ("time64 ns which", "timestamp ns in a zone which", "list of time64", "struct of timestamp ns which"),
    "polars": ("decimal256", "interval", "list_view"),
    "arrow": (),
}


def cases():
    """All of them, as kind, whether it has nulls, form, sink and source."""
    return [
        (kind, nulls, form, sink, source)
        for kind in KINDS
        for nulls in (False, True)
        for form in FORMS
        for sink in SINKS
        for source in SOURCES
        if not (nulls and kind == "null") and not (source == "parquet" and kind == "interval")
    ]


def column(kind, *, nulls):
    type_, values = KINDS[kind]
    values = [values[0], None, *values[1:], None] if nulls else values
    if not pa.types.is_dictionary(type_):
        return pa.array(values, type_)
    categories = pa.array([*dict.fromkeys(KINDS[kind][1])][::-1], type_.value_type)  # not in the order of the values
    numbers = [value if value is None else categories.to_pylist().index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(numbers, type_.index_type), categories, ordered=type_.ordered)


def counted_pandas(frame):
    frame["n"] += 1
    return frame


def counted_arrow(table):
    import pyarrow.compute as pc

    return table.set_column(table.schema.get_field_index("n"), "n", pc.add(table["n"], pa.scalar(1, pa.int32())))


def counted_numpy(columns):
    columns["n"] += 1
    return columns


def counted_polars(frame):
    return frame.with_columns(pl.col("n") + 1)


COUNTED = {"pandas": counted_pandas, "numpy": counted_numpy, "arrow": counted_arrow, "polars": counted_polars}


# --- what is wanted ---


class Refused(Exception):
    """By a form or a sink: what says so, and with which words."""


def as_records(table):
    """Rows with values of Python's own: what has nanoseconds beyond those is refused."""
    if ODD in table.schema.metadata[b"kind"].decode():
        raise Refused("'c' has nanoseconds, which no value of Python can hold|whole microseconds")
    records = table.to_pylist()
    return [{"n": row["n"] + 1, "c": in_python(row["c"])} for row in records]


def in_python(value):
    if isinstance(value, dict):
        return {name: in_python(each) for name, each in value.items()}
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.to_pytimedelta() if isinstance(value, pd.Timedelta) else value


def through_parquet(table):
    place = pa.BufferOutputStream()
    try:
        parquet.write_table(with_categories(table), place)
    except pa.ArrowNotImplementedError:
        raise Refused("Unhandled type") from None
    return parquet.read_table(pa.BufferReader(place.getvalue()))


def with_categories(table):
    """With numbers of categories as files have them."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            made = pa.dictionary(pa.int32(), field.type.value_type, field.type.ordered)
            table = table.set_column(at, field.with_type(made), table.column(at).cast(made))
    return table


def through_arrow(table):
    kind = table.schema.field("c").type
    return table.set_column(1, "c", table["c"].cast(kind.value_type)) if pa.types.is_dictionary(kind) else table


def as_json(table):
    try:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in as_records(table))
    except TypeError:
        raise Refused("not JSON serializable") from None


def as_csv(table):
    records, place = as_records(table), io.StringIO()
    if any(isinstance(row["c"], (bytes, list, dict, tuple)) for row in records):
        raise Refused("'c': .* has no exact form as text")
    writer = csv.writer(place, lineterminator="\n")
    writer.writerow(["n", "c"])
    writer.writerows([row["n"], row["c"]] for row in records)
    return place.getvalue()


def as_rows(table):
    made = []
    for row in as_records(table):
        if isinstance(value := row["c"], int) and value >= 2**63:
            raise Refused("too large to convert to SQLite INTEGER")
        if isinstance(value, datetime):
            value = value.isoformat(" ")
        elif isinstance(value, date):
            value = value.isoformat()
        if not isinstance(value, (int, float, str, bytes, type(None))):
            raise Refused("is no value of SQLite|no type of a column for")
        made.append((row["n"], None if value != value else value))  # NaN is NULL there
    return made


# --- what comes ---


def same(one, other):
    """Two columns of Arrow: types, values and the order of categories. NaN is one value, and -0.0 is not 0.0."""
    assert one.type == other.type
    if pa.types.is_dictionary(one.type) and one.type.ordered:
        assert one.unify_dictionaries().chunk(0).dictionary.equals(other.unify_dictionaries().chunk(0).dictionary)
    assert exactly(one) == exactly(other)


def exactly(some):
    kind = some.type
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return some.cast(pa.int64()).to_pylist()
    return [str(each) for each in some] if kind.num_fields else list(map(repr, some.to_pylist()))


def check_arrow(wanted, made):
    assert made.schema.names == ["n", "c"]
    same(made["c"], wanted["c"])
    assert made["n"].to_pylist() == [n + 1 for n in range(len(wanted))]


def check_pandas(table, frame):
    kind, series = table.schema.field("c").type, frame["c"]
    whole = not table["c"].null_count and table.schema.metadata[b"source"] != b"arrow"  # which has no statistics
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if plain and whole:
        assert series.dtype == kind.to_pandas_dtype()
    elif plain:
        names = {"bool": "boolean", "halffloat": "Float32", "float": "Float32", "double": "Float64"}
        assert str(series.dtype) == names.get(str(kind), str(kind).replace("int", "Int").replace("uI", "UI"))
    elif pa.types.is_timestamp(kind):
        assert series.dt.unit == kind.unit
        assert (series.dt.tz is None) == (kind.tz is None)
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        back = pa.array(series.to_numpy(), kind, from_pandas=series.dtype.kind in "mM")
    elif series.dtype == object:
        back = pa.array([None if value is pd.NA or value is pd.NaT else value for value in series], kind)
    else:
        back = pa.array(series.array).cast(kind)
    assert exactly(pa.chunked_array([back])) == exactly(table["c"])


def check_polars(table, frame):
    kind = table.schema.field("c").type
    given = table.set_column(1, "c", table["c"].cast(pa.date32())) if kind == pa.date64() else table
    one: Any = pl.from_arrow(given.select(["c"]))
    wanted = one["c"]
    assert frame["c"].dtype == wanted.dtype
    assert repr(frame["c"].to_list()) == repr(wanted.to_list())


def run(table, form, sink, source, how, folder):
    """What a step that touches `n` alone has made of the table there, and what is wanted."""
    given = table
    if source != "memory":
        path = folder / f"in.{source}"
        if source == "parquet":
            parquet.write_table(table, path)
            table = parquet.read_table(path)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        given = taktline.read(path)
    flow, options = line(batch(COUNTED[form], form=form)), HOW[how]
    if sink.startswith("to_"):
        return table, lambda: getattr(flow(given, **options), sink)()
    if sink == "sqlite":

        def into_sqlite():
            flow.run(given, taktline.write_sql(f"sqlite:///{folder}/out.db", "t"), **options)
            with contextlib.closing(sqlite3.connect(folder / "out.db")) as there:
                return there.execute("SELECT n, c FROM t").fetchall()

        return table, into_sqlite
    format_ = sink.rstrip("/")
    path = folder / "out" / f"part-00000.{format_}" if sink.endswith("/") else folder / f"out.{format_}"

    def into_file():
        where = f"{folder}/out/" if sink.endswith("/") else path
        flow.run(given, taktline.write(where, format=format_), **options)
        if format_ == "parquet":
            return parquet.read_table(path)
        return pa.ipc.open_file(path).read_all() if format_ == "arrow" else path.read_text()

    return table, into_file


def wanted_of(kind, form, sink, table):
    """What is wanted, by which it is checked; raises Refused."""
    if kind.startswith(NO_PLACE[form] or ("nothing",)):
        raise Refused("column 'c'")
    if sink == "to_polars" and kind.startswith(NO_PLACE["polars"]):
        raise Refused("column 'c'")
    if sink == "to_pandas" and kind.startswith(NO_PLACE["pandas"]):
        raise Refused("column 'c'")
    if sink == "to_pandas" and "NaN" in kind and table["c"].null_count:
        raise Refused("column 'c': a column of pandas cannot hold both NaN and None")
    name = sink.rstrip("/")
    check = {
        "to_arrow": check_arrow, "parquet": check_arrow, "arrow": check_arrow, "to_pandas": check_pandas,
        "to_polars": check_polars,
    }  # fmt: skip
    made = {
        "parquet": through_parquet, "arrow": through_arrow, "jsonl": as_json, "csv": as_csv, "sqlite": as_rows,
        "to_list": as_records,
    }.get(name, lambda table: table)(table)  # fmt: skip
    return made, check.get(name)


def check_case(case, how, folder):
    kind, nulls, form, sink, source = case
    some = column(kind, nulls=nulls)
    table = pa.table({"n": pa.array(range(len(some)), pa.int32()), "c": some})
    table, outcome = run(
        table.replace_schema_metadata({"kind": kind, "source": source}), form, sink, source, how, folder
    )
    try:
        wanted, check = wanted_of(kind, form, sink, table)
    except Refused as refused:
        with pytest.raises((FormError, SinkError, LineError), match=str(refused)):
            outcome()
        return
    made = outcome()
    if check is not None:
        check(wanted, made)
    else:
        assert made == wanted or repr(made) == repr(wanted)  # -0.0 of SQLite is 0.0, and NaN is no other NaN


@pytest.mark.parametrize(("how", "count"), DRAWN.items())
def test_a_column_that_no_step_touches_stays_what_it_is(how, count, tmp_path):
    for number, case in enumerate(random.Random(SEED).sample(cases(), count)):
        (folder := tmp_path / str(number)).mkdir()
        try:
            check_case(case, how, folder)
        except BaseException as error:
            error.add_note(f"case {case}")
            raise


@pytest.mark.parametrize(
    ("form", "sink"), [("pandas", "parquet"), ("numpy", "to_arrow"), ("polars", "to_arrow"), ("arrow", "parquet")]
)
def test_columns_of_all_types_go_through_workers_and_back(form, sink, tmp_path):
    kinds = [kind for kind in KINDS if not kind.startswith(NO_PLACE[form] or ("nothing",)) and kind != "interval"]
    columns = {f"{kind} {nulls}": column(kind, nulls=nulls)[:3] for kind in kinds for nulls in (False, True)}
    table = pa.table({"n": pa.array(range(3), pa.int32()), **columns})
    flow, options = line(batch(COUNTED[form], form=form)), {"how": "line", "workers": 1}
    if sink == "to_arrow":
        made = flow(table, **options).to_arrow()
    else:
        flow.run(table, taktline.write(tmp_path / "out.parquet"), **options)
        made = parquet.read_table(tmp_path / "out.parquet")
        table = through_parquet(table)
    assert made.schema.names == table.schema.names
    for name in columns:
        same(made[name], table[name])


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_stays_what_it_is(kind, how, tmp_path):
    failed = []
    for number, case in enumerate(each for each in cases() if each[0] == kind):
        (folder := tmp_path / str(number)).mkdir()
        try:
            check_case(case, how, folder)
        except Exception as error:
            failed.append(f"{case}: {type(error).__name__}: {str(error)[:300]}")
    assert not failed, "\n".join(failed)
