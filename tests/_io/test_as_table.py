"""Lines as tables of Arrow: the rows, values and types that the same lines have as records, or no table at all."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from datetime import date, datetime, time
from itertools import islice

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import taktline
from taktline._io import as_table, delimited, ranges
from taktline._io.inference import types_of
from taktline._segment.equality import same

TYPES = {
    int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), date: pa.date32(),
    datetime: pa.timestamp("us"), time: pa.time64("us"),
}  # fmt: skip
ODD = [
    "0x1F", "-0x1", "nan(1)", "NaN", "-nan", "inf", "-Infinity", "1e400", "1_000", "+5", "-0", "-0.0", "007", " 12 ", "\t7",
     "9223372036854775807", "9223372036854775808", "١", "1d5", "true ", "TRUE", "tRue", "0", "1", "NULL", "N/A", "null", "",
     '""', '" 7"', '"a\r\nb"', '"a\nb"', '"a""b"', 'a"b', ' "x"', "a\rb", "\0", "é", "\ufeff", "x", "1,5", '"1,5"', '"open',
     "0000-01-01", " 2020-01-02", "2020-01-02 ", "20200102", "2020-02-30", "2020-01-02T10", "2020-01-02 10:20:30.123456789",
     "2020-01-02T10:20:30Z", "2020-01-02T10:20:30+01:00", "9999-12-31T23:59:59.999999", " 10:20", "10:20 ", "24:00", "10:20Z",
     "23:59:60", "10:20:30.1234567", " ", "\r",
]  # fmt: skip
fitting = {
    int: st.integers(-(2**65), 2**65).map(str),
    float: st.floats().map(repr),
    bool: st.sampled_from(["true", "False", "1", "0", "TRUE"]),
    str: st.text(st.characters(exclude_characters='",;\r\n\t|', exclude_categories=["Cs"]), max_size=5),
    date: st.dates().map(str),
    datetime: st.datetimes().map(str),
    time: st.times().map(str),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, dict[str, object]]:
    """A file of delimited text, and how it is to be read."""
    kinds = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4))
    names = [f"c{n}" for n in range(len(kinds))]
    delimiter = draw(st.sampled_from(",;\t"))
    odds = draw(st.sampled_from([0, 0, 1, 3]))  # in some twenty cells
    lines = []
    for _ in range(draw(st.integers(0, 12))):
        here = [st.sampled_from(ODD) if draw(st.integers(1, 20)) <= odds else fitting[kind] for kind in kinds]
        cells = [draw(st.one_of(st.just(""), cell)) for cell in here]
        wide = draw(st.integers(0, 300)) if odds else 1
        lines.append(delimiter.join(cells + ["more"] * (wide == 0)))
        lines += [""] * (draw(st.integers(0, 9)) == 0)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = "\ufeff" * draw(st.booleans()) + end.join([delimiter.join(names), *lines, ""])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "cp1252", "utf-16"]))
    data = text.encode(encoding, "replace") + b"\xff" * (draw(st.integers(0, 20)) == 0)
    types = {name: kind for name, kind in zip(names, kinds, strict=True) if kind is not str or draw(st.booleans())}
    chosen = draw(st.one_of(st.none(), st.permutations(names).map(lambda them: them[: len(them) // 2 + 1])))
    if chosen is not None:
        types = {name: kind for name, kind in types.items() if name in chosen}
    return data, {
        "types": types, "delimiter": delimiter, "encoding": encoding, "columns": chosen,
        "quoting": draw(st.sampled_from([None, True, False])), "header": draw(st.sampled_from([True, True, names])),
    }  # fmt: skip


leaf = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.integers(-3, 3), st.floats(), st.text(max_size=4),
    st.sampled_from([0.0, -0.0, 2.0, 1.5]), st.sampled_from(['"k":', "a\\", "\ud800", "NaN", "2024-01-01", '"a":1,']),
)  # fmt: skip
NAMES = ["a", "b", "é", 'q"', ",", ":", "", "a b", "x/y"]


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    """JSON lines that mostly share a schema, written in some way."""
    names = draw(st.lists(st.sampled_from(NAMES[: draw(st.sampled_from([3, 9]))]), min_size=1, max_size=3, unique=True))
    shapes = {name: draw(st.sampled_from(["x", "x", "x", "[x]", "{a}", "{xy}", "[{x}]"])) for name in names}
    kinds = {
        name: draw(st.sampled_from([
            st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=4), st.booleans(), st.none(), leaf,
            st.floats(0, 1, exclude_min=True, exclude_max=True),
        ]))
        for name in names
    }  # fmt: skip
    odds = draw(st.sampled_from([0, 0, 1]))
    maybe_null = draw(st.booleans())

    def value(name: str) -> object:
        if maybe_null and draw(st.integers(0, 4)) == 0:
            return None
        one = lambda: draw(leaf if draw(st.integers(1, 20)) <= odds else kinds[name])  # noqa: E731
        some = lambda make: [make() for _ in range(draw(st.integers(0, 2)))]  # noqa: E731
        return {
            "x": one, "[x]": lambda: some(one), "{a}": lambda: {"a": one()}, "{xy}": lambda: {"x": one(), "y": one()},
            "[{x}]": lambda: some(lambda: {"x": one()}),
        }[shapes[name]]()  # fmt: skip

    how = {
        "separators": draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")])),
        "ensure_ascii": draw(st.booleans()),
    }
    lines = []
    for _ in range(draw(st.integers(1, 10))):
        record = {name: value(name) for name in names if draw(st.integers(1, 60)) > odds}
        text = json.dumps(record, **how)
        if odds and draw(st.integers(0, 15)) == 0:
            text = draw(
                st.sampled_from(
                    [
                        text + text,
                        text[:-1],
                        "",
                        " " + text,
                        text + "\n" + text,
                        '{"a":\n1}',
                        "[1]",
                        "1",
                        '{"a":1,"a":2}',
                        '{"a":Inf}',
                        '{"a":1e400}',
                        '{"\\u0061":1}',
                        '{"a":"\\ud800"}',
                    ]
                )
            )
        lines.append(text)
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    data = b"\xef\xbb\xbf" * draw(st.booleans()) + (end.join(lines) + end * draw(st.booleans())).encode(
        "utf-8", "replace"
    )
    return data + b"\xff" * (draw(st.integers(0, 30)) == 0)


def by_tables(source, tables):
    """All records of a source, by way of tables where they can be had; `tables` gets these."""
    splitter, records = source.split(), []
    while True:
        part = splitter.table()
        if part is None:
            here = list(splitter)
            records += here
            if not here:
                return records
            continue
        again = pickle.loads(pickle.dumps(part))
        try:
            table = again.table()
        except Exception:
            records += list(part.read())
            continue
        assert table.num_rows == len(part) > 0
        tables.append(table)
        records += table.to_pylist()


def outcome(make):
    try:
        return list(make()), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut where a file of a few lines has several blocks."""
    monkeypatch.setattr(ranges, "BLOCK", 64)


@pytest.fixture
def few_rows(monkeypatch):
    """Types are told from four rows."""
    monkeypatch.setattr(delimited, "INFERENCE_ROWS", 4)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=int(os.environ.get("TAKTLINE_EXAMPLES", 150)),
    deadline=None,
)
@given(tables(), st.booleans(), st.booleans())
def test_a_table_of_csv_has_what_its_records_have(few_rows, tmp_path_factory, file, packed, infer):
    data, how = file
    if infer:
        how["types"] = "infer"
    path = tmp_path_factory.getbasetemp() / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    source = taktline.read(path, **how)
    assert source.columns
    tables = []
    whole, error = outcome(lambda: source)
    got, other = outcome(lambda: by_tables(source, tables))
    assert other == error
    assert same(got, whole)
    for table in tables:
        assert table.schema == tables[0].schema
        for name, kind in {} if infer else how["types"].items():
            assert table.schema.field(name).type == TYPES[kind]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None,
    max_examples=2 * int(os.environ.get("TAKTLINE_EXAMPLES", 150)),
)  # fmt: skip
@given(json_files(), st.booleans())
def test_a_table_of_json_lines_has_what_its_records_have(tmp_path_factory, data, packed):
    path = tmp_path_factory.getbasetemp() / ("t.jsonl.gz" if packed else "t.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    source = taktline.read(path)
    assert source.columns
    tables = []
    whole, error = outcome(lambda: source)
    got, other = outcome(lambda: by_tables(source, tables))
    assert other == error
    assert same(got, whole)
    assert all(table.schema == tables[0].schema for table in tables)
    event(f"tables: {bool(tables)}")


GOOD = '{"a": 0.5, "b": null, "c": {"x": 1}, "d": [1.5]}'
ODD_LINES = {
    "an integer among floats": '{"a": 1, "b": null, "c": {"x": 1}, "d": [1.5]}',
    "one with a blank before it": '{"a" : 1, "b": null, "c": {"x": 1}, "d": [1.5]}',
    "a key in another spelling": '{"\\u0061": 1, "b": null, "c": {"x": 1}, "d": [1.5]}',
    "a missing key": '{"a": 0.5, "c": {"x": 1}, "d": [1.5]}',
    "that a string has": '{"a": 0.5, "c": {"x": 1}, "d": [1.5], "e": ",\\"b\\":null"}',
    "a missing key inside": '{"a": 0.5, "b": null, "c": {}, "d": [1.5]}',
    "a null inside": '{"a": 0.5, "b": null, "c": {"x": null}, "d": [1.5]}',
    "an integer inside": '{"a": 0.5, "b": null, "c": {"x": 1}, "d": [1]}',
    "one key more": '{"a": 0.5, "b": null, "c": {"x": 1}, "d": [1.5], "e": 1}',
    "a key twice": '{"a": 0.5, "a": 1.5, "b": null, "c": {"x": 1}, "d": [1.5]}',
    "two on a line, and one on two": GOOD + GOOD + '\n{"a": 0.5,\n"b": null, "c": {"x": 1}, "d": [1.5]}',
    "no number": '{"a": Inf, "b": null, "c": {"x": 1}, "d": [1.5]}',
}


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
def test_no_line_of_json_is_taken_for_another_record(tmp_path, monkeypatch, line):
    monkeypatch.setattr(ranges, "BLOCK", 1 << 20)
    path, tables = tmp_path / "t.jsonl", []
    path.write_text(f"{GOOD}\n" * 3)
    assert same(by_tables(taktline.read(path), tables), list(taktline.read(path)))
    assert len(tables) == 1
    monkeypatch.setattr(as_table, "LINES", 3)
    path.write_text(f"{GOOD}\n" * 3 + f"{line}\n{GOOD}\n")
    whole, error = outcome(lambda: taktline.read(path))
    got, other = outcome(lambda: by_tables(taktline.read(path), tables))
    assert (same(got, whole), other) == (True, error)


def test_json_columns_are_chosen_as_in_records(tmp_path):
    path, tables = tmp_path / "t.jsonl", []
    path.write_text(f"{GOOD}\n" * 3)
    assert by_tables(taktline.read(path, columns=["d", "b"]), tables) == [{"d": [1.5], "b": None}] * 3
    assert tables[0].column_names == ["d", "b"]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_no_cell_is_taken_for_another_value(tmp_path, kind):
    path, fits = tmp_path / "t.csv", {int: "7", float: "0.5", bool: "true", date: "2020-01-02", time: "10:20"}
    usual = fits.get(kind, "2020-01-02 10:20:30" if kind is datetime else "text")
    tables, refused = [], set()
    for cell in ODD:
        for header, row in (("a,b", f"{cell},x"), ("b,a", f"x,{cell}"), ("a", cell)):
            fit = row.replace(cell, usual) if cell else {"a": usual, "a,b": f"{usual},x"}.get(header, f"x,{usual}")
            path.write_bytes(f"{header}\n{row}\n{fit}\n{row}\n".encode())
            source = taktline.read(path, types={"a": kind})
            before = len(tables)
            got, error = outcome(lambda source=source: by_tables(source, tables))
            whole, other = outcome(lambda source=source: source)
            assert (same(got, whole), error) == (True, other), (cell, header)
            if len(tables) == before:
                refused.add(cell)
    assert "" not in refused
    assert len(tables) > 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("quoted", [False, True])
def test_where_tables_end_does_not_depend_on_what_was_read_before(tmp_path, packed, quoted):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    name = 'a "b"\n' if quoted else "ab"
    lines = "".join(f'{n},"{name.replace(chr(34), chr(34) * 2)}"\n' if quoted else f"{n},{name}\n" for n in range(200))
    text = f"n,s\n{lines}\n\n1,\n".encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    source = taktline.read(path, types={"n": int})

    def borders(before):
        """The indexes of the records that tables begin with, behind so many records that were read one by one."""
        splitter, found = source.split(), []
        at = len(list(islice(splitter, before)))
        while (part := splitter.table()) is not None:
            found.append(at)
            at += len(part)
        return found, at

    whole, count = borders(0)
    assert count == len(list(source)) == 201
    assert len(text) / 64 - 2 < len(whole) < len(text) / 64 + 2
    for before in (1, 7, 20, 150):
        some, count = borders(before)
        assert count == 201
        assert set(some[1:]) <= set(whole)
        assert some[-1] == whole[-1]


def test_some_sources_have_no_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    assert taktline.read(path).columns
    assert not taktline.read(path, types={"a": lambda text: text}).columns
    os.mkfifo(tmp_path / "pipe")
    assert not taktline.read(tmp_path / "pipe", format="csv").columns
    (tmp_path / "t.txt").write_text("a\n")
    assert not taktline.read(tmp_path / "t.txt").columns


def test_files_of_other_order_have_one_schema_and_what_is_cut_short_is_no_table(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "2.csv").write_text("b,a\ny,2\n" * 1 + "z,3\n")
    tables = []
    source = taktline.read(tmp_path, types={"a": int})
    assert by_tables(source, tables) == list(source)
    assert [table.schema.names for table in tables] == [["a", "b"]] * 2
    part = taktline.read(tmp_path / "2.csv").split().table()
    os.truncate(tmp_path / "2.csv", 11)
    with pytest.raises(taktline.SourceError, match="cut short"):
        part.table()


WRITTEN = {
    "i": (["0", "-7", "9223372036854775807"], int), "big": (["9223372036854775808", "1"], None), "zip": (["1", "007"], None),
    "f": (["1", "1.5", "nan", "1e-7", "-inf", ".5", "2."], float), "nan": (["nan"], None), "plus": (["+1"], None),
    "long": (["1.5", "1234567890123456"], None), "b": (["true", "False", "TRUE"], bool), "tf": (["true", "1"], None),
    "d": (["2024-02-29"], date), "d?": (["2023-02-29"], None), "at": (["2024-01-01 10:00", "2024-01-01"], None),
    "t": (["2024-01-01T10:00:00.5", "2024-12-31 23:59"], datetime), "zone": (["2024-01-01T10:00:00Z"], None),
    "empty": (["", ""], None), "text": (["1", "x"], None), "hex": (["0x1F"], None),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_type_is_told_where_all_cells_are_written_so(name):
    cells, kind = WRITTEN[name]
    assert types_of([["", "x"], *([cell, "x"] for cell in cells), ["x"], []], ["a", "b"]).get("a") is kind


def test_types_are_told_from_the_first_rows_of_the_first_file(tmp_path, few_rows):
    rows = [["1", "", "a"], [], ["2", "0.5", "007"], ["3"], ["4", "1", ""], ["5", "x", "b"]]
    text = "n,x,s\n" + "".join(",".join(row) + "\n" for row in rows)
    (tmp_path / "1.csv").write_text(text)
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"n,x,s\n6,7,8\n"))
    source = taktline.read([tmp_path / "1.csv", tmp_path / "2.csv.gz"], types="infer")
    for how in ("loop", "line"):
        got = list(taktline.line(dict)(source, how=how, on_error="keep", workers=2))
        assert [each for each in got if isinstance(each, dict)] == [
            {"n": 1, "x": None, "s": "a"}, {"n": 2, "x": 0.5, "s": "007"}, {"n": 4, "x": 1.0, "s": ""},
            {"n": 6, "x": 7.0, "s": "8"},
        ]  # fmt: skip
        assert "line 7: {'x': 'x'} cannot be made float" in str(got[4].error)
        assert "told from the first" in str(got[4].error)
        assert "line 5: 1 fields where the header has 3" in str(got[2].error)
    assert source.fingerprint() != taktline.read([tmp_path / "1.csv", tmp_path / "2.csv.gz"]).fingerprint()
    assert list(taktline.read(tmp_path / "2.csv.gz", types="infer", columns=["s"])) == [{"s": 8}]
    with pytest.raises(taktline.LineError, match="or is \"infer\"; it is 'infered'"):
        taktline.read(tmp_path / "1.csv", types="infered")
