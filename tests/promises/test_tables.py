"""Tables from a file to a step: the same rows, order, values and types under every technique, and as by way of records."""

from __future__ import annotations

import math
import warnings
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import taktline
from taktline import batch, keep, line
from taktline._segment.forms import Unfit
from taktline._segment.tables import ArrowRows, way_of

TECHNIQUES = ("loop", "auto", "pool", "queues", "line")
WIDE = ("auto", "pool", "queues", "line")


@pytest.fixture
def file(tmp_path):
    """A function that writes a table in small row groups."""

    def written(table, rows=100, name="in.parquet"):
        parquet.write_table(table, tmp_path / name, row_group_size=rows)
        return str(tmp_path / name)

    return written


def numbers(count=1000):
    return pa.table(
        {
            "n": pa.array(range(count), pa.int32()),
            "half": pa.array([n / 2 for n in range(count)]),
            "word": pa.array([f"w{n % 7}" if n % 11 else None for n in range(count)]),
            "some": pa.array([None if n % 5 == 0 else n for n in range(count)], pa.int16()),
        }
    )


def run(flow, path, how, **options):
    return list(flow(taktline.read(path), how=how, workers=2, **options))


def doubled_pandas(frame):
    frame["n"] *= 2
    frame.loc[:, "half"] = frame["half"].to_numpy() + 1
    return frame


def doubled_numpy(columns):
    columns["n"] *= 2
    columns["half"] += 1
    return columns


def doubled_arrow(table):
    import pyarrow.compute as pc

    table = table.set_column(0, "n", pc.multiply(table["n"], pa.scalar(2, pa.int32())))
    return table.set_column(1, "half", pc.add(table["half"], 1.0))


def doubled_polars(frame):
    return frame.with_columns(pl.col("n") * 2, pl.col("half") + 1)


DOUBLED = {"pandas": doubled_pandas, "numpy": doubled_numpy, "arrow": doubled_arrow, "polars": doubled_polars}


@pytest.mark.parametrize("how", TECHNIQUES)
@pytest.mark.parametrize("form", DOUBLED)
def test_rows_order_and_values_are_those_of_the_table(form, how, file):
    table = numbers(300 if how == "loop" else 1000)
    flow = line(batch(DOUBLED[form], form=form))
    wanted = [{**row, "n": row["n"] * 2, "half": row["half"] + 1} for row in table.to_pylist()]
    assert run(flow, file(table), how) == wanted


def types_of(frame):
    frame["types"] = ",".join(str(kind) for kind in frame.dtypes)
    return frame


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_step_sees_the_types_of_the_source_in_each_batch(how, file):
    # The first row group has no null in the column, those behind it have.
    some = pa.array([None if n > 250 else n for n in range(300)], pa.int64())
    table = pa.table({"n": pa.array(range(300), pa.int16()), "some": some, "word": ["w"] * 300})
    results = run(line(batch(types_of, form="pandas")), file(table), how)
    assert {row["types"] for row in results} == {"int16,Int64,str"}


def positions(frame):
    frame["at"] = frame.index
    return frame


@pytest.mark.parametrize("how", TECHNIQUES)
def test_the_index_is_the_place_in_the_source(how, file):
    results = run(line(batch(positions, form="pandas")), file(numbers(500), rows=130), how)
    assert [row["at"] for row in results] == list(range(500))


def one_bad(frame):
    if (frame["n"] == 217).any():
        raise ValueError("217 is bad")
    frame["ok"] = True
    return frame


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_batch_that_fails_is_rescued_by_rows(how, file, tmp_path):
    path, letters = file(numbers(400)), tmp_path / "dead.jsonl"
    results = run(line(batch(one_bad, form="pandas")), path, how, dead_letters=letters)
    assert [row["n"] for row in results] == [n for n in range(400) if n != 217]
    (letter,) = taktline.read(str(letters))
    assert (letter["index"], letter["record"]["n"], letter["record"]["some"]) == (217, 217, 217)


@pytest.mark.parametrize("how", TECHNIQUES)
def test_what_fails_ends_the_run_behind_the_rows_before_it(how, file):
    results = []
    with pytest.raises(ValueError, match="217 is bad") as caught:
        for row in line(batch(one_bad, form="pandas"))(taktline.read(file(numbers(400))), how=how, workers=2):
            results.append(row["n"])
    assert results == list(range(217))
    assert any("record 217" in note for note in caught.value.__notes__)


def plain(row):
    return {"n": row["n"] + 1, "kind": type(row["n"]).__name__}


@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_scalar_step_gets_records(how, file):
    results = run(line(batch(doubled_pandas, form="pandas"), plain), file(numbers(300)), how)
    assert results == [{"n": 2 * n + 1, "kind": "int"} for n in range(300)]


@pytest.mark.parametrize("how", TECHNIQUES)
def test_between_forms_the_way_is_arrow(how, file):
    flow = line(*(batch(fn, form=form) for form, fn in DOUBLED.items()))
    results = run(flow, file(numbers(200)), how)
    assert [(row["n"], row["half"], row["some"]) for row in results] == [
        (16 * n, n / 2 + 4, None if n % 5 == 0 else n) for n in range(200)
    ]


def fewer(frame):
    return frame[frame["n"] % 2 == 0]


@pytest.mark.parametrize("how", WIDE)
def test_another_number_of_rows_is_an_error(how, file):
    with pytest.raises(taktline.BatchLengthError, match="fewer"):
        run(line(batch(fewer, form="pandas")), file(numbers(300)), how)


def spoilt(path, folder):
    """The file with a row group that is no Parquet."""
    data = bytearray(Path(path).read_bytes())
    place = parquet.ParquetFile(path).metadata.row_group(5).column(0).data_page_offset
    data[place : place + 40] = b"\xff" * 40
    (folder / "bad.parquet").write_bytes(data)
    return str(folder / "bad.parquet")


def test_a_file_that_cannot_be_read_says_where(file, tmp_path):
    bad = spoilt(file(numbers(1000)), tmp_path)
    for how in TECHNIQUES:
        results = []
        with pytest.raises(taktline.SourceError, match="row group 5"):
            results.extend(line(batch(doubled_numpy, form="numpy"))(taktline.read(bad), how=how, workers=2))


# --- there and back ---

VALUES = {
    pa.int8(): st.integers(-128, 127), pa.uint64(): st.integers(0, 2**64 - 1), pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32), pa.float64(): st.floats(), pa.bool_(): st.booleans(), pa.string(): st.text(max_size=5),
    pa.large_string(): st.text(max_size=5), pa.binary(): st.binary(max_size=5), pa.date32(): st.dates(),
    pa.time32("s"): st.times().map(lambda t: t.replace(microsecond=0)), pa.time64("us"): st.times(),
    pa.timestamp("us"): st.datetimes(), pa.timestamp("ns"): st.integers(-(2**63) + 1, 2**63 - 1),
    pa.timestamp("ms", "Europe/Paris"): st.integers(0, 2**41), pa.duration("us"): st.integers(-(2**50), 2**50),
    pa.decimal128(9, 2): st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**6), max_value=10**6),
    pa.list_(pa.int32()): st.lists(st.integers(-9, 9), max_size=3),
    pa.struct([("a", pa.int64())]): st.fixed_dictionaries({"a": st.integers(0, 9)}),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["red", "green"]),
}  # fmt: skip


@st.composite
def tables(draw):
    """A table of some rows in columns of any types, with nulls and without."""
    rows = draw(st.integers(1, 6))
    columns, whole = {}, set()
    for n in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(list(VALUES)))
        nulls = draw(st.booleans())
        values = st.one_of(st.none(), VALUES[kind]) if nulls else VALUES[kind]
        columns[f"c{n}"] = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)
        if not nulls:
            whole.add(f"c{n}")
    schema = pa.schema([pa.field(name, column.type, metadata={"of": name}) for name, column in columns.items()])
    return ArrowRows(pa.table(columns, schema=schema.with_metadata({"made": "here"})), frozenset(whole))


def same(one, other):
    """Whether two tables hold the same values, of which NaN is one."""
    return all(
        a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))
        for column, back in zip(one.columns, other.columns, strict=True)
        for a, b in zip(listed(column), listed(back), strict=True)
    )


def listed(column):
    """Moments as numbers, for datetime has no nanoseconds."""
    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()
    exact = column if column.type.unit == "ns" else column.cast(pa.timestamp("us", column.type.tz))
    return exact.cast(pa.int64()).to_pylist()


@pytest.mark.parametrize("form", ["pandas", "numpy", "arrow", "polars"])
@given(rows=tables())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_what_a_form_takes_it_gives_back(form, rows):
    way = way_of(form)
    try:
        taken = way.take(rows, 0)
    except Unfit:
        return  # it goes by way of records, each by itself
    back = way.give(taken, rows)
    if back is None:
        return
    assert same(rows.table, back.table), (rows.table, back.table)
    assert back.table.schema.metadata == {b"made": b"here"}
    for field, now in zip(rows.table.schema, back.table.schema, strict=True):
        if form != "numpy" and not (form == "polars" and pa.types.is_dictionary(field.type)):  # they have no such types
            assert field.type == now.type
            assert field.metadata == now.metadata


def test_what_a_step_is_handed_is_its_own():
    table = pa.table({"n": pa.array([1, 2, 3]), "x": pa.array([1.0, 2.0, 3.0])})
    for form in ("pandas", "numpy"):
        taken = way_of(form).take(ArrowRows(table, frozenset(["n", "x"])), 0)
        for name in ("n", "x"):
            array = taken[name] if form == "numpy" else taken[name].array
            array[0] = 9
    assert table["n"].to_pylist() == [1, 2, 3]
    assert table["x"].to_pylist() == [1.0, 2.0, 3.0]


# --- what a step does to its batch ---


def spoils_pandas(frame):
    """Writes into all that it was handed, and raises at one row."""
    frame["n"] += 1000
    frame.loc[:, "half"] = -1.0
    frame["word"].array[0] = "gone"
    frame["some"].array[0] = 7
    frame.fillna({"word": "none"}, inplace=True)
    if (frame["n"] == 1217).any():
        raise ValueError("217 is bad")
    return frame


def spoils_numpy(columns):
    columns["n"] += 1000
    columns["half"][:] = -1.0
    columns["word"][0] = "gone"
    columns["some"][0] = 7
    columns["n"][::-1].sort()
    if (columns["n"] == 1217).any():
        raise ValueError("217 is bad")
    columns["n"].sort()
    return columns


SPOILS = {"pandas": spoils_pandas, "numpy": spoils_numpy}


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("options", [{"how": "loop"}, {"how": "line"}, {"how": "line", "start": "threads"}], ids=str)
@pytest.mark.parametrize("form", SPOILS)
def test_rescue_begins_with_what_came_and_not_with_what_the_step_has_written_over_it(form, options, file, tmp_path):
    import pandas as pd

    table, letters = numbers(240), tmp_path / "dead.jsonl"
    as_pandas = lambda: numbers(240).to_pandas(types_mapper={pa.int16(): pd.Int16Dtype()}.get)  # noqa: E731
    frame = as_pandas()
    for source in (taktline.read(file(table)), table, frame):
        flow = line(batch(SPOILS[form], form=form))
        results = list(flow(source, workers=2, dead_letters=letters, **options))
        assert [row["n"] for row in results] == [n + 1000 for n in range(240) if n != 217]
        (letter,) = taktline.read(str(letters))
        assert (letter["record"]["n"], letter["record"]["half"], letter["record"]["word"]) == (217, 108.5, "w0")
        letters.unlink()
    assert table.equals(numbers(240))
    assert frame.equals(as_pandas())


# --- what crosses ---

MANY = 100_000
SENT = {
    "numbers": pa.array(np.arange(MANY)),
    "some": pa.array([n if n % 7 else None for n in range(MANY)]),
    "bools": pa.array([n % 3 == 0 for n in range(MANY)]),
    "words": pa.array([f"word {n}" for n in range(MANY)]),
    "lists": pa.array([[n] * (n % 3) for n in range(MANY)]),
    "structs": pa.array([{"a": n, "b": str(n)} for n in range(MANY)]),
    "decimals": pa.array([Decimal(n) / 4 for n in range(MANY)]),
}


@pytest.mark.parametrize("name", SENT)
def test_a_slice_crosses_as_its_rows_alone(name):
    import pickle

    whole = pa.table({name: SENT[name]})
    for count in (10, 10_000):
        rows = ArrowRows(whole)[50_001 : 50_001 + count]
        buffers = []
        packed = pickle.dumps(rows, 5, buffer_callback=buffers.append)
        sent = len(packed) + sum(each.raw().nbytes for each in buffers)
        alone = pa.table({name: pa.array(rows.table[name].to_pylist(), SENT[name].type)}).nbytes
        assert sent < 1.1 * alone + 1000  # what tells of the columns
        assert pickle.loads(packed, buffers=buffers).records() == rows.records()


# --- what pandas has noted in a file ---


def halved(frame):
    frame["some"] = frame["some"] / 2
    return frame


def as_words(frame):
    frame["some"] = frame["some"].astype(str)
    return frame


def without_zone(frame):
    frame["zone"] = frame["zone"].dt.tz_localize(None)
    return frame


def words_of_arrow(table):
    return table.set_column(table.schema.get_field_index("some"), "some", table["some"].cast(pa.string()))


CHANGES = [(halved, "pandas"), (as_words, "pandas"), (without_zone, "pandas"), (words_of_arrow, "arrow")]
CHANGES += [(lambda frame: frame, "pandas"), (lambda frame: frame[["half", "key"]], "pandas")]


@pytest.mark.parametrize(("fn", "form"), CHANGES)
def test_pandas_reads_what_a_step_has_made_of_its_own_file(fn, form, tmp_path):
    import pandas as pd

    frame = pd.DataFrame(
        {
            "half": np.arange(90) / 2, "some": pd.array([n if n % 3 else None for n in range(90)], "Int64"),
            "zone": pd.date_range("2020", periods=90, tz="Europe/Paris", unit="us"),
        }, index=pd.Index([f"row {n}" for n in range(90)], name="key"),
    )  # fmt: skip
    frame.to_parquet(tmp_path / "in.parquet")
    flow = line(batch(fn, form=form))
    flow.run(taktline.read(tmp_path / "in.parquet"), taktline.write(tmp_path / "out.parquet"), how="line", workers=1)
    read = pd.read_parquet(tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").replace_schema_metadata(None)
    assert table.to_pylist() == flow(taktline.read(tmp_path / "in.parquet")).to_arrow().to_pylist()
    plain = read.reset_index()[table.column_names]
    assert [str(kind) for kind in plain.dtypes if str(kind) != "Int64"] == [
        str(kind) for kind, own in zip(table.to_pandas().dtypes, plain.dtypes, strict=True) if str(own) != "Int64"
    ]  # fmt: skip
    assert read.index.equals(frame.index)  # which pandas has noted too
    assert plain["half"].tolist() == frame["half"].tolist()


@pytest.mark.parametrize("how", TECHNIQUES)
def test_an_index_that_pandas_has_stored_is_a_column(how, tmp_path):
    import pandas as pd

    pd.DataFrame({"n": range(40)}, index=pd.Index([f"r{n}" for n in range(40)])).to_parquet(tmp_path / "in.parquet")
    results = run(line(batch(positions, form="pandas")), tmp_path / "in.parquet", how)
    assert results == [{"n": n, "__index_level_0__": f"r{n}", "at": n} for n in range(40)]


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_columns_of_one_form_become_those_of_another(how):
    flow = line(batch(lambda frame: frame * 2, form="pandas"), batch(lambda columns: columns, form="numpy"))
    assert list(flow([{"n": n} for n in range(50)], how=how)) == [{"n": 2 * n} for n in range(50)]


def no_gil(table):
    import pyarrow.compute as pc

    return table.append_column("sum", pc.add(table["half"], 1.0))


@pytest.mark.parametrize("how", ["line", "auto"])
def test_threads_read_and_pack_tables_as_workers_do(how, file, tmp_path):
    table = numbers(30_000)
    path, out = file(table, rows=2_000), tmp_path / "out.parquet"
    flow = line(batch(no_gil, form="arrow"))
    flow.run(taktline.read(path), taktline.write(out), how=how, workers=2, start="threads")
    assert parquet.read_table(out).equals(no_gil(table))


def test_threads_say_where_a_file_cannot_be_read(file, tmp_path):
    path = spoilt(file(numbers(1000)), tmp_path)
    results = []
    with pytest.raises(taktline.SourceError, match="row group 5"):
        results.extend(line(batch(no_gil, form="arrow"))(taktline.read(path), how="line", workers=2, start="threads"))
    assert len(results) == 500


RARE = {
    "halves": pa.array([np.float16(1.5), None, np.float16("nan")], pa.float16()),
    "whole halves": pa.array([np.float16(1.5)] * 3, pa.float16()),
    "days of milliseconds": pa.array([date(2024, 2, 29), None, date(1, 1, 1)], pa.date64()),
    "large": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "long decimals": pa.array([None, None, Decimal("1.5")], pa.decimal256(50, 1)),
}
REFUSED = {("long decimals", "polars")}


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("form", ["pandas", "numpy", "polars", "arrow"])
@pytest.mark.parametrize("name", RARE)
def test_rare_types_come_through_a_form_or_are_refused_by_name(name, form, how, capfd):
    table, flow = pa.table({"a": RARE[name]}), line(batch(lambda frame: frame, form=form))
    if (name, form) in REFUSED:
        with pytest.raises(taktline.FormError, match="column 'a'"):
            list(flow(table, how=how, workers=1))
    else:
        made = list(flow(table, how=how, workers=1))
        assert repr(made) == repr(table.to_pylist())
        assert [type(each["a"]) for each in made] == [type(each["a"]) for each in table.to_pylist()]
    assert capfd.readouterr().err == ""  # no worker ended in it


def stored(kind, values):
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


UNTOUCHED = {
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3]), pa.array([1, 2], pa.int8())),
    "runs of text": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int16()), pa.array(["x", None])),
    "seconds": pa.array([1, None, -(10**9)], pa.timestamp("s", "UTC")),
    "seconds inside": pa.array([[1], None, [2]], pa.list_(pa.duration("s"))),
}
if hasattr(pa, "json_"):
    UNTOUCHED |= {
        "uuid": stored(pa.uuid(), [b"0" * 16, None, b"1" * 16]),
        "json": stored(pa.json_(), ['{"a": 1}', None, "2"]),
        "large json": stored(pa.json_(pa.large_string()), ["1", None, "2"]),
        "bool8": stored(pa.bool8(), [0, None, 1]),
        "opaque": stored(pa.opaque(pa.int32(), "x", "y"), [1, None, 2]),
        "opaque moments": stored(pa.opaque(pa.timestamp("s"), "x", "y"), [1, None, 2]),
    }


@pytest.mark.parametrize("form", ["pandas", "numpy", "polars", "arrow"])
@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_column_of_a_rare_type_that_no_step_touches_has_it_still(name, form):
    table = pa.table({"n": [1, 2, 3], "a": UNTOUCHED[name]})
    flow = line(batch(lambda frame: frame, form=form), keep(at_most_two, form=form))
    if (form, name[:4]) == ("polars", "runs"):
        with pytest.raises(taktline.FormError, match="column 'a'"):
            flow(table).to_arrow()
        return
    for options in ({"how": "loop"}, {"how": "line", "start": "threads", "workers": 1}):
        made = flow(table, **options).to_arrow()
        assert made.schema.equals(table.schema, check_metadata=True)
        assert made.to_pylist() == table.to_pylist()[:2]


def at_most_two(some):
    return [n <= 2 for n in (some["n"].to_pylist() if isinstance(some, pa.Table) else some["n"])]


@pytest.mark.parametrize("unit", [pa.timestamp("s"), pa.duration("s"), pa.list_(pa.timestamp("s"))], ids=str)
def test_moments_that_polars_would_wrap_are_refused_by_name(unit):
    far = [2**63 - 1] if pa.types.is_list(unit) else 2**63 - 1
    table = pa.table({"n": [1], "far": pa.array([far], unit)})
    with pytest.raises(taktline.FormError, match="column 'far'"):
        line(batch(lambda frame: frame, form="polars"))(table).to_arrow()
    with pytest.raises(taktline.LineError, match="column 'far'"):
        line(batch(lambda some: some, form="arrow"))(table).to_polars()


def test_a_column_without_a_name_has_none_in_polars_and_behind_it(tmp_path):
    (tmp_path / "in.csv").write_text(",a\n0,1\n1,2\n")  # as pandas writes a frame with its index
    flow = line(batch(lambda frame: frame, form="polars"))
    flow.run(taktline.read(tmp_path / "in.csv", types="infer"), taktline.write(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text().splitlines() == [",a", "0,1", "1,2"]
    assert flow(pa.table({"a": [1], "": [2]})).to_polars().columns == ["a", ""]


# --- rows that can be no record ---

FINE = pa.table({"n": [0, 1, 2], "half": [0.5] * 3, "at": pa.array([1000, 1001, 2000], pa.timestamp("ns"))})


def as_it_is(some):
    return some


ONE_OF_THREE = [line(batch(as_it_is, form=form)) for form in ("arrow", "pandas", "numpy")]
ONE_OF_THREE += [line(batch(as_it_is, form="arrow"), plain), line(plain)]


@pytest.mark.parametrize("options", [{"how": "loop"}, {"how": "line", "workers": 1, "start": "threads"}], ids=str)
@pytest.mark.parametrize("flow", ONE_OF_THREE, ids=repr)
def test_a_row_that_can_be_no_record_fails_as_one_where_records_are_asked_for(flow, options):
    results = []
    with pytest.raises((taktline.FormError, taktline.SourceError), match=r"nanoseconds|whole microseconds"):
        results.extend(flow(FINE, **options))
    left = list(flow(FINE, on_error="skip", **options))
    assert results == left[:1]
    assert len(left) == 2
    (failed,) = [each for each in flow(FINE, on_error="keep", **options) if isinstance(each, taktline.Failed)]
    assert (failed.index, failed.record) == (1, "n: 1, half: 0.5, at: 1970-01-01 00:00:00.000001001")
    assert isinstance(failed.error, (taktline.FormError, taktline.SourceError))


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out/"])
def test_a_row_that_can_be_no_record_is_named_by_who_writes_records(name, tmp_path):
    flow, options = ONE_OF_THREE[0], {"format": "csv"} if name == "out/" else {}
    with pytest.raises(
        taktline.SinkError, match="result 1 cannot be written as a record: column 'at' has nano"
    ) as caught:
        flow.run(FINE, taktline.write(f"{tmp_path}/{name}", **options), how="loop", batch_size=3)
    assert caught.value.result == 1


def test_a_column_with_nulls_in_a_later_batch_is_nullable_behind_a_step_of_numpy():
    some = pa.array([None if n > 2500 else n for n in range(3000)], pa.int32())
    flow = line(batch(as_it_is, form="numpy"), batch(types_of, form="pandas"))
    source = pa.table({"some": some, "n": range(3000)})
    options = {"how": "line", "workers": 1, "start": "threads", "batch_size": 1000}
    assert {row["types"] for row in flow(source, **options)} == {"Int32,int64"}


def of_many_columns(rows):
    """Numbers of three widths, some with nulls, with texts and truths between them."""
    kinds = [pa.float64(), pa.int32(), pa.float32(), pa.string(), pa.bool_()]
    made = {}
    for n in range(205):
        kind = kinds[n % 5]
        values = [
            f"{row}" if kind == pa.string() else row % 2 if kind == pa.bool_() else row + n for row in range(rows)
        ]
        made[f"c{n}"] = pa.array([None, *values[1:]] if n % 50 == 1 else values).cast(kind)
    return pa.table(made)


def first_and_last(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns of a frame in many pieces
        frame["sum"] = frame["c0"] + frame["c2"]
        frame.loc[:, "c5"] = frame["c5"].to_numpy() * 2
        if frame["c0"].iloc[0] >= 20 and len(frame) > 1:
            raise ValueError("too many at once")  # what the step has written is not there when it begins anew
    return frame


@pytest.mark.parametrize("how", ["loop", "line", "threads"])
def test_a_frame_of_many_columns_is_in_few_pieces(how, file):
    table = of_many_columns(30)
    given = {"how": "line", "start": "threads"} if how == "threads" else {"how": how}
    flow = line(batch(first_and_last, 10, form="pandas"))
    made = flow(taktline.read(path := file(table, rows=20)), workers=2, **given).to_arrow()
    total = pa.compute.add(table["c0"], table["c2"].cast("float64"))
    wanted = table.set_column(5, "c5", pa.compute.multiply(table["c5"], 2.0)).append_column("sum", total)
    frame = flow(taktline.read(path), workers=2, **given).to_pandas()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame["more"] = 1  # and the caller's own
    assert made.schema.names == wanted.schema.names == frame.columns[:-1].tolist()
    assert [name for name in made.schema.names if not made[name].equals(wanted[name])] == []
