"""Lines to records: the same whether orjson is there or not, typed tables, and errors with their place."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taktline import LineError, SourceError, read, write
from taktline._io.decode import json_loads, json_records

NUMBERS = (
    "-0", "-0.0", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "9007199254740993.0", "0.1234567890123456789012", "2e-400", "1e23",
)  # fmt: skip
TEXTS = (
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    '"\\u0000"',
    '"a\\/b"',
    '"\x7f"',
    '"\t"',
    '{"a":1,"b":2,"a":3}',
    "01",
    "[1,]",
    "",
)


def outcome(parse, line):
    try:
        return repr(parse(line))
    except ValueError:
        return "refused"


def same(line):
    pytest.importorskip("orjson")
    assert json_loads() is not json.loads
    assert outcome(json_loads(), line) == outcome(json.loads, line)


@pytest.mark.parametrize("text", [*NUMBERS, *TEXTS])
def test_odd_values_are_the_same_with_orjson(text):
    same(text.encode())
    same(f'{{"key": [{text}, "2024-01-02T03:04:05"]}}'.encode())


@pytest.mark.parametrize(
    "line", [b'"\xff"', b'"\xed\xa0\x80"', '"ä"'.encode("utf-16"), '{"a": 1}'.encode("utf-32-le"), b"\xef\xbb\xbf1"]
)
def test_odd_encodings_are_the_same_with_orjson(line):
    same(line)


@given(number=st.integers(), before=st.text(st.sampled_from(" ,"), max_size=7))
def test_integers_of_any_size_are_the_same_with_orjson(number, before):
    same(f'["{before}", {number}, {number * 10**18}, {number}.5]'.encode())


@given(text=st.text(st.sampled_from('0123456789.eE+-[]{}",: \\und8fNaI'), max_size=30))
def test_what_may_be_no_json_is_the_same_with_orjson(text):
    same(text.encode())


def test_without_orjson_the_standard_library_reads(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "orjson", None)
    json_loads.cache_clear()
    try:
        assert json_loads() is json.loads
        assert list(json_records([b"1\n", b"\n", b"2"], "a")) == [1, 2]
    finally:
        json_loads.cache_clear()


def test_a_stretch_of_lines_knows_its_place():
    with pytest.raises(SourceError, match="line 1,001, is no JSON"):
        list(json_records([b"1\n", b"x\n"], "a.jsonl", first=1000))


def test_a_last_line_that_is_cut_off_is_called_that(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": ')
    with pytest.raises(SourceError, match=r"line 2, the last one, is no JSON \(was the file cut off\?\)"):
        list(read(tmp_path / "a.jsonl"))


def table(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    return tmp_path / "a.csv"


def test_cells_get_the_types_that_are_asked_for(tmp_path):
    path = table(
        tmp_path,
        "n,x,good,price,day,at,name,tags\n1,2.5,true,1.50,2024-02-29,2024-02-29T01:02:03,7,a|b\n,,,,,,,\n",
    )
    kinds = {
        "n": int,
        "x": float,
        "good": bool,
        "price": Decimal,
        "day": date,
        "at": datetime,
        "tags": lambda text: text.split("|"),
    }
    one, two = read(path, types=kinds)
    assert one == {
        "n": 1, "x": 2.5, "good": True, "price": Decimal("1.50"), "day": date(2024, 2, 29),
        "at": datetime(2024, 2, 29, 1, 2, 3), "name": "7", "tags": ["a", "b"],
    }  # fmt: skip
    assert two == dict.fromkeys(one) | {"name": "", "tags": [""]}


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"n": st.none() | st.integers(), "x": st.none() | st.floats(allow_nan=False), "b": st.booleans()}
        )
    )
)
def test_typed_rows_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("typed") / "a.csv"
    sink = write(path)
    sink.open()
    sink.write(rows)
    sink.commit()
    assert list(read(path, types={"n": int, "x": float, "b": bool})) == rows


@pytest.mark.parametrize(
    ("types", "says"),
    [
        ({"n": int}, r"line 3: \{'n': 'n/a'\} cannot be made int: invalid literal"),
        ({"n": bool}, r"line 3: \{'n': 'n/a'\} cannot be made bool: a bool is one of true, false, 1, 0"),
        ({"m": int}, "has no column 'm'; it has n, s"),
    ],
)
def test_a_cell_that_does_not_fit_is_told_about(tmp_path, types, says):
    with pytest.raises(SourceError, match=says):
        list(read(table(tmp_path, "n,s\n1,a\nn/a,b\n"), types=types))


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("a.jsonl", {"types": {"n": int}}, "types= is for CSV"),
        ("a.csv", {"types": {"n": "int"}}, "another callable"),
        ("a.csv", {"types": {"n": int}, "columns": ["m"]}, "which columns= leaves out"),
        ("a.txt", {"columns": ["m"]}, "columns= has no meaning"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(tmp_path, name, more, says):
    (tmp_path / name).write_text("n\n1\n")
    with pytest.raises(LineError, match=says):
        read(tmp_path / name, **more)


def test_tables_that_drift_apart_are_an_error_unless_columns_choose(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n3,4\n")
    (tmp_path / "3.csv").write_text("a,b,c\n5,6,7\n")
    with pytest.raises(SourceError, match=r"3\.csv' has a column 'c' that .*1\.csv' lacks"):
        list(read(tmp_path))
    assert list(read(tmp_path, columns=["a"])) == [{"a": "1"}, {"a": "4"}, {"a": "5"}]


def test_cells_with_any_line_end_come_back(tmp_path):
    rows = [{"a": "x\ry", "b": "\r"}, {"a": "\r\n", "b": "\n"}]
    sink = write(tmp_path / "a.csv")
    sink.open()
    sink.write(rows)
    sink.commit()
    assert list(read(tmp_path / "a.csv")) == rows


@pytest.mark.parametrize(("data", "says"), [
    (b'[\n{"a": 1},\n{"a": 2}\n]\n', "jq -c"),
    ('{"a": 1}\n'.encode("utf-16-le"), "is it UTF-16?"),
    (b'{"a": 1', "was the file cut off?"),
])  # fmt: skip
def test_what_looks_like_another_kind_of_file_is_said_to_be_one(tmp_path, data, says):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(SourceError) as raised:
        list(read(tmp_path / "a.jsonl"))
    assert says in str(raised.value)
