"""CSV, TSV and other delimited text: how it may be written, and what is noticed where it is another."""

import csv
import pickle
import random
from collections.abc import Callable

import pytest

import taktline
from taktline import LineError, SourceError, line
from taktline._io.delimited import leaves_ascii

NAMES = ["Zoë", "a;b", 'say "x"', "|", "ü\u00a0"] * 60
ROWS = [{"id": str(n), "name": name, "n": str(n * n)} for n, name in enumerate(NAMES)]
TECHNIQUES = [{"how": "loop"}, {"how": "line", "workers": 2, "batch_size": 64}]


def written(path, rows, *, delimiter=",", encoding="utf-8", header=True, quoting=True):
    with path.open("w", encoding=encoding, newline="") as file:
        write: Callable[[list[str]], object]
        if quoting:
            writer = csv.writer(file, delimiter=delimiter)
            write = writer.writerow
        else:
            write = lambda cells: file.write(delimiter.join(cells) + "\n")  # noqa: E731
        if header:
            write(list(rows[0]))
        for row in rows:
            write(list(row.values()))
    return path


def same(record):
    return record


def every_way(source):
    """The records, which all techniques must agree on."""
    first, *others = [list(line(same)(source, **options)) for options in TECHNIQUES]
    assert list(source) == first
    assert all(each == first for each in others)
    return first


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "gb18030"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_delimiters_and_encodings_are_read_as_they_were_written(tmp_path, delimiter, encoding):
    path = written(tmp_path / "a.csv", ROWS, delimiter=delimiter, encoding=encoding)
    assert every_way(taktline.read(path, delimiter=delimiter, encoding=encoding)) == ROWS


def test_text_is_read_in_its_encoding_too(tmp_path):
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "a.txt").write_bytes("Zoë\nÜ\n".encode(encoding))
        assert every_way(taktline.read(tmp_path / "a.txt", encoding=encoding)) == ["Zoë", "Ü"]


def test_without_a_header_columns_are_numbered_or_named(tmp_path):
    path = written(tmp_path / "a.csv", ROWS, header=False)
    assert every_way(taktline.read(path, header=["id", "name", "n"])) == ROWS
    numbered = [dict(zip(("column1", "column2", "column3"), row.values(), strict=True)) for row in ROWS]
    assert every_way(taktline.read(path, header=False)) == numbered
    assert every_way(taktline.read(path, header=False, columns=["column3"], types={"column3": int}))[2] == {
        "column3": 4
    }
    packed = tmp_path / "b.csv.gz"
    import gzip

    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert every_way(taktline.read([path, packed], header=False)) == numbered * 2


def test_tsv_is_as_it_is_registered_and_reads_back_what_was_written(tmp_path):
    rows = [{"a": f'"{n}', "b": 'x"y"' if n % 3 else ""} for n in range(500)]
    report = line(same).run(rows, taktline.write(tmp_path / "a.tsv"))
    assert report.records_out == 500
    assert (tmp_path / "a.tsv").read_text().splitlines()[:3] == ["a\tb", '"0\t', '"1\tx"y"']
    assert every_way(taktline.read(tmp_path / "a.tsv")) == rows
    path = written(tmp_path / "quoted.tsv", ROWS, delimiter="\t")
    assert every_way(taktline.read(path, quoting=True)) == ROWS
    path = written(tmp_path / "plain.csv", rows, quoting=False)
    assert every_way(taktline.read(path, quoting=False)) == rows


@pytest.mark.parametrize("row", [{"a": "x\ty"}, {"a": "x\ny"}, {"a": "x\r"}, {"a": ""}, {"a": None}, {"a\tb": 1}])
def test_what_tsv_has_no_form_for_is_refused_with_its_result(tmp_path, row):
    rows = [row] if "a" not in row else [{"a": "fine"}, row]
    with pytest.raises(taktline.SinkError, match=f"result {len(rows) - 1}.*TSV"):
        line(same).run(rows, taktline.write(tmp_path / "a.tsv"))
    assert not (tmp_path / "a.tsv").exists()


@pytest.mark.parametrize("there", [";", "\t", "|"])
def test_a_wrong_separator_is_noticed(tmp_path, there):
    path = written(tmp_path / "a.csv", ROWS, delimiter=there)
    for options in TECHNIQUES:
        with pytest.raises(SourceError, match=r"one column.*delimiter="):
            list(line(same)(taktline.read(path), on_error="skip", **options))
    assert every_way(taktline.read(path, delimiter=there)) == ROWS
    (tmp_path / "one.csv").write_text("a;b\n1\n")
    assert every_way(taktline.read(tmp_path / "one.csv", delimiter=",")) == [{"a;b": "1"}]


def test_utf_16_that_is_read_as_utf_8_is_told(tmp_path):
    path = written(tmp_path / "a.csv", ROWS, encoding="utf-16")
    with pytest.raises(SourceError, match='encoding="utf-16"'):
        list(taktline.read(path))


def test_two_columns_of_the_same_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(SourceError, match="two columns of the same name"):
        list(line(same)(taktline.read(tmp_path / "a.csv"), on_error="skip", how="loop"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delimiter": ";;"}, "one character"), ({"delimiter": '"'}, "one character"), ({"delimiter": "é"}, "one character"),
        ({"quoting": "all"}, "quoting="), ({"encoding": "latin-99"}, "no encoding"), ({"encoding": "zlib"}, "no encoding"),
        ({"header": "a,b"}, "header="), ({"header": ["a", "a"]}, "twice"), ({"header": []}, "header="),
        ({"header": ["a", 1]}, "as text"), ({"delimeter": ";"}, "did you mean 'delimiter'"),
        ({"filters": [("a", ">", 1)]}, "filters= is for Parquet, Arrow and ORC"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_at_once(tmp_path, options, says):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LineError, match=says):
        taktline.read(tmp_path / "a.csv", **options)


@pytest.mark.parametrize("option", [{"delimiter": ","}, {"quoting": True}, {"header": False}, {"encoding": "latin-1"}])
def test_options_of_tables_are_refused_for_other_formats(tmp_path, option):
    (tmp_path / "a.jsonl").write_text("1\n")
    with pytest.raises(LineError, match=f"{next(iter(option))}= is for"):
        taktline.read(tmp_path / "a.jsonl", **option)


def test_only_encodings_that_leave_ascii_alone_are_cut_by_bytes():
    for encoding in ("utf-8", "latin-1", "cp1252", "iso8859-15", "koi8-r", "mac-roman"):
        assert leaves_ascii(encoding)
    for encoding in ("utf-16", "utf-32", "utf-7", "shift_jis", "gb18030", "cp037", "iso2022_jp", "big5"):
        assert not leaves_ascii(encoding)


def test_rows_torn_at_random_give_the_same_records_and_failures_in_every_technique(tmp_path):
    """Quotes, line ends and cells put anywhere: whoever cuts the file and whoever reads it through must agree."""
    for seed in range(30):
        chance = random.Random(seed)
        pieces = [
            '"',
            "\n",
            "\r\n",
            ",",
            "a",
            "1,2\n",
            '"x"',
            '"a\nb",c\n',
            "\r",
            "1,2\n" * 40,
            '5",6\n',
            "\n\n",
            "\xff",
        ]
        body = "n,t\n" + "".join(chance.choices(pieces, k=chance.randrange(20, 200)))
        path = tmp_path / f"{seed}.csv"
        path.write_bytes(body.encode("latin-1"))
        source = taktline.read(path)
        told = []
        for options in ({"how": "loop"}, {"how": "line", "workers": 1, "batch_size": 32}):
            run = line(same)(source, on_error="keep", **options)
            told.append(
                [each if isinstance(each, dict) else (each.index, each.record, str(each.error)) for each in run]
            )
        assert told[0] == told[1], seed


def test_a_source_of_tables_can_be_pickled_with_its_options(tmp_path):
    path = written(tmp_path / "a.csv", ROWS, delimiter=";")
    source = pickle.loads(pickle.dumps(taktline.read(path, delimiter=";")))
    assert list(source) == ROWS


# --- lists of paths ---


def test_a_list_of_paths_patterns_and_folders_is_read_in_its_order(tmp_path):
    (tmp_path / "folder").mkdir()
    for n, name in enumerate(["b.jsonl", "a.jsonl", "c1.jsonl", "c2.jsonl", "folder/x.jsonl"]):
        (tmp_path / name).write_text(f"{n}\n")
    paths = [tmp_path / "b.jsonl", str(tmp_path / "a.jsonl"), str(tmp_path / "c*.jsonl"), tmp_path / "folder"]
    for given in (paths, tuple(paths), iter(paths)):
        source = taktline.read(given)
        assert every_way(source) == [0, 1, 2, 3, 4]
    assert "and 1 more" in source.describe()
    for inside in ("c9.jsonl", "folder/new.jsonl", "a.jsonl"):
        assert source.reads(str(tmp_path / inside))
    assert not source.reads(str(tmp_path / "d.jsonl"))
    with pytest.raises(LineError, match="among what is read"):
        line(same).run(source, taktline.write(tmp_path / "c3.jsonl"))


def test_each_missing_path_of_a_list_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n")
    with pytest.raises(SourceError, match=r"(?s)no\.jsonl.*gone\*") as caught:
        taktline.read([tmp_path / "a.jsonl", tmp_path / "no.jsonl", tmp_path / "gone*"])
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("given", "says"),
    [([], "empty list"), ([1], "not int"), (b"a.jsonl", "not bytes"), ({"a": 1}, "not dict"), (5, "not int"),
     (["-", "-"], "once only"), ([b"a"], "not bytes")],
)  # fmt: skip
def test_what_is_no_list_of_paths_is_refused(given, says):
    with pytest.raises(LineError, match=says):
        taktline.read(given)


def test_a_list_of_several_formats_is_refused(tmp_path):
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).write_text("1\n")
    with pytest.raises(LineError, match="read them apart"):
        taktline.read([tmp_path / "a.jsonl", tmp_path / "b.csv"])


@pytest.mark.parametrize(("data", "says"), [
    ("a,b\n1,2\n3,4\n".encode("utf-16-le"), 'read it with encoding="utf-16-le"'),
    (b"PK\x03\x04\x14\x00\x08 of a spreadsheet\nand more\n", "is no text"),
    (b"a,b\r1,2\r3,4\r", r"tr '\\r' '\\n' <"),
])  # fmt: skip
def test_what_is_no_such_text_is_said_before_a_record_comes(tmp_path, data, says):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    for options in TECHNIQUES:
        came = []
        with pytest.raises(SourceError, match=says):
            came.extend(line(same)(taktline.read(path), **options))
        assert came == []
