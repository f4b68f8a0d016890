"""URLs: the same records from a real web server and from moto's S3 server as from files, and whole objects only."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
import servers

from taktline import LineError, SinkError, SourceError, _urls, batch, line, read, write
from taktline._io import remote
from taktline._io.parquet import Reading
from taktline._io.remote import upload
from taktline._io.streams import Stretch
from taktline.cli.commands import DONE, WRONG_USAGE, run_main

fsspec = pytest.importorskip("fsspec")

ROWS = [{"n": n, "s": f"ä{n}"} for n in range(1000)]
FORMATS = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".parquet"]
TYPES = {"types": {"n": int}}


def written(path, results=ROWS):
    line(lambda row: row).run(results, write(path), how="loop")
    return path


def as_read(url):
    return list(read(url, **(TYPES if ".csv" in str(url) else {})))


@pytest.fixture
def memory():
    fsspec.filesystem("memory").store.clear()
    yield "memory://shop"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def parts(tmp_path_factory, monkeypatch):
    """Where results wait until they are whole; to be empty at the end."""
    folder = tmp_path_factory.mktemp("parts")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


stores = pytest.mark.parametrize("store", ["s3", "gs", "az"])


@stores
@pytest.mark.parametrize("suffix", FORMATS)
def test_objects_come_back_as_they_were(request, store, parts, suffix):
    assert as_read(written(f"{request.getfixturevalue(store)}/back/a{suffix}")) == ROWS
    assert os.listdir(parts) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_in_memory_comes_back_as_it_was(memory, suffix):
    assert as_read(written(f"{memory}/a{suffix}")) == ROWS


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_web_server_gives_the_same_as_the_file(tmp_path, suffix):
    pytest.importorskip("aiohttp")
    written(tmp_path / f"a{suffix}")
    with servers.web(tmp_path) as url:
        assert as_read(f"{url}/a{suffix}?signature=secret") == ROWS


@pytest.mark.parametrize("place", ["s3", "gs", "az", "memory"])
def test_patterns_and_folders_are_read_in_order(request, place):
    url = f"{request.getfixturevalue(place)}/many"
    for name in ("2.jsonl", "1.jsonl", "3.csv"):
        written(f"{url}/{name}", [{"name": name}])
    assert list(read(f"{url}/*.jsonl")) == list(read(f"{url}/[12].jsonl")) == [{"name": "1.jsonl"}, {"name": "2.jsonl"}]
    with pytest.raises(LineError, match="read them apart"):
        read(url)
    assert len(list(read(url, "text"))) == 4


def test_a_run_that_fails_leaves_the_object_as_it_was(s3, parts):
    url = written(f"{s3}/kept.jsonl", ROWS[:1])
    with pytest.raises(ZeroDivisionError):
        line(lambda n: 1 // (900 - n)).run(range(1000), write(url))
    assert list(read(url)) == ROWS[:1]
    assert os.listdir(parts) == []


def test_workers_get_the_records_of_an_object(s3):
    url = written(f"{s3}/in.parquet")
    line(lambda row: row["n"] ** 2).run(read(url), write(f"{s3}/out.jsonl"), how="line", workers=2)
    assert list(read(f"{s3}/out.jsonl")) == [n * n for n in range(1000)]


def types_of(frame):
    frame["types"] = ",".join(map(str, frame.dtypes))
    return frame


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "orc"])
def test_steps_get_the_columns_of_objects_in_the_types_that_they_have(s3, suffix, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import orc, parquet

    table = pa.table({"n": pa.array(range(1000), pa.int16()), "some": pa.array([None] + [1.5] * 999, pa.float32())})
    path = tmp_path / f"in.{suffix}"
    if suffix == "arrow":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=300)
    else:
        (parquet if suffix == "parquet" else orc).write_table(table, path)
    url = f"{s3}/{uuid4().hex}/k=7/in.{suffix}"
    upload(str(path), url)
    flow = line(batch(types_of, form="pandas"))
    wanted = [{**row, "k": 7, "types": "Int16,Float32,Int64"} for row in table.to_pylist()]
    for options in (
        {"how": "loop"},
        {"how": "line"},
        {"how": "line", "start": "threads"},
        {"how": "line", "batch_size": 70},
    ):
        assert flow(read(url.rpartition("/k=")[0]), workers=2, **options).to_list() == wanted
    some = read(url, columns=["n"], filters=[("n", ">", 500)])
    assert [row["n"] for row in flow(some, how="line", workers=2)] == list(range(501, 1000))


@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_cannot_be_read_of_an_object_is_told_as_of_a_file(s3, how, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"n": range(1000), "at": pa.array([1000] * 700 + [1001] + [1000] * 299, pa.timestamp("ns"))})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=250)
    data = bytearray((tmp_path / "in.parquet").read_bytes())
    place = parquet.ParquetFile(tmp_path / "in.parquet").metadata.row_group(3).column(0).data_page_offset
    data[place : place + 40] = b"\xff" * 40
    (tmp_path / "in.parquet").write_bytes(data)
    url = f"{s3}/{uuid4().hex}/in.parquet"
    upload(str(tmp_path / "in.parquet"), url)
    told = []
    for source in (read(tmp_path / "in.parquet"), read(url)):
        came, scalar = [], line(batch(lambda table: table, form="arrow"), lambda row: row["n"])
        with pytest.raises(SourceError) as caught:
            came.extend(scalar(source, how=how, workers=2, on_error="skip"))
        told.append((len(came), str(caught.value).partition(", ")[2]))
    assert told[0] == told[1]
    assert "row group 3" in told[0][1]


@stores
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "orc"])
def test_workers_read_the_rows_of_objects_themselves(request, store, suffix, tmp_path, monkeypatch):
    """The caller's process reads where the rows lie, and none of them."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import orc, parquet

    def reads(*_):
        raise AssertionError("it is the workers' job")

    folder = f"{request.getfixturevalue(store)}/{uuid4().hex}"
    for n in range(3):
        table, path = pa.table({"n": range(n * 1000, n * 1000 + 1000)}), tmp_path / f"{n}.{suffix}"
        if suffix == "arrow":
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=300)
        elif suffix == "orc":
            orc.write_table(table, path)
        else:
            parquet.write_table(table, path, row_group_size=300)
        upload(str(path), f"{folder}/{n}.{suffix}")
    for step in (lambda row: row["n"], batch(lambda table: table, form="arrow")):
        with monkeypatch.context() as patched:
            patched.setattr(Reading, "records", reads)
            patched.setattr(Reading, "table", reads)
            report = line(step).run(
                read(folder), (came := []).append, how="line", workers=2, start="launch", batch_size=100
            )
        assert [each if type(each) is int else each["n"] for each in came] == [*range(3000)]
        assert "could not" not in " ".join(report.reasons)


@stores
def test_a_worker_reads_no_rows_of_an_object_that_is_another_one_now(request, store):
    url = written(f"{request.getfixturevalue(store)}/{uuid4().hex}/in.parquet")
    splitter = read(url).split()
    assert splitter is not None
    part = splitter.part(100)
    assert [row["n"] for row in pickle.loads(pickle.dumps(part))] == [*range(100)]
    written(url, [{"n": n + 5_000, "s": f"ä{n}"} for n in range(1000)])
    written(url.replace("in.", "other."))  # what was opened last is kept open
    list(pickle.loads(pickle.dumps(read(url.replace("in.", "other.")).split().part(1))))
    with pytest.raises(SourceError, match="was replaced while it was read"):
        list(pickle.loads(pickle.dumps(part)))


def test_workers_decode_the_lines_of_an_object(memory, monkeypatch):
    def decoded(part, unread=None):
        raise AssertionError("it is the workers' job")

    monkeypatch.setattr(Stretch, "read", decoded)
    url = written(f"{memory}/in.jsonl.gz")
    assert list(line(lambda row: row["n"])(read(url), how="line", workers=2, start="launch")) == [*range(1000)]


@stores
def test_results_that_cannot_be_put_there_are_kept_here(request, store, parts):
    request.getfixturevalue(store)
    with pytest.raises(SinkError, match="are complete, and kept in") as caught:
        written(f"{store}://no-such-bucket/a.jsonl")
    (kept,) = os.listdir(parts)
    assert os.path.join(parts, kept) in str(caught.value)
    assert list(read(Path(parts, kept), "jsonl")) == ROWS


def test_what_is_not_there_is_refused_at_once(s3, memory, tmp_path):
    for url in (f"{s3}/nothing.jsonl", f"{s3}/nothing/*.jsonl", f"{memory}/nothing.jsonl"):
        with pytest.raises(FileNotFoundError, match="nothing at"):
            read(url)
    with servers.web(tmp_path) as url, pytest.raises(FileNotFoundError, match=r"nothing at .*/nothing\.jsonl'"):
        read(f"{url}/nothing.jsonl?signature=secret")


def test_places_that_cannot_be_written_are_refused_at_once():
    with pytest.raises(LineError, match="a web server only gives files"):
        write("http://127.0.0.1/a.jsonl")
    with pytest.raises(LineError, match="knows the scheme"):
        write("nowhere://a.jsonl")


def test_a_store_without_its_package_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(LineError, match=r"taktline\[s3\]"):
        read("s3://shop/a.jsonl")


@stores
def test_marks_change_with_the_object(request, store):
    url = written(f"{request.getfixturevalue(store)}/marked.jsonl", ROWS[:1])
    before = read(url).fingerprint()
    assert read(url).fingerprint() == before
    written(url, ROWS[:2])
    assert read(url).fingerprint() != before


STOPS = Path(tempfile.gettempdir(), f"taktline-stops-{os.getpid()}")  # what is in a file is no part of the step


def stops_at(row):
    if str(row["n"]) in STOPS.read_text().split():
        raise ZeroDivisionError
    return row


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".jsonl.zst"])
def test_a_run_with_a_journal_goes_on_where_it_stopped(s3, parts, tmp_path, suffix):
    STOPS.write_text("600 900")
    url = f"{s3}/journal/a{suffix}"
    for stop in (600, 900):
        with pytest.raises(ZeroDivisionError):
            line(stops_at).run(ROWS, write(url), journal=tmp_path / "journal", how="loop")
        (claim,) = os.listdir(parts)  # which journal's run can go on
        assert Path(parts, claim).read_text() == str(tmp_path / "journal")
        assert sorted(os.listdir(tmp_path)) == [".journal.part", "journal"]
        assert (tmp_path / ".journal.part").stat().st_mode & 0o777 == 0o600
        with pytest.raises(FileNotFoundError):
            read(url)
        STOPS.write_text("900" if stop == 600 else "")
    report = line(stops_at).run(ROWS, write(url), journal=tmp_path / "journal", how="loop")
    assert (report.resumed_at, report.records_out) == (900, 1000)
    assert as_read(url) == ROWS
    assert os.listdir(parts) == []
    assert os.listdir(tmp_path) == ["journal"]
    STOPS.unlink()
    assert fsspec.open(url).open().read() == fsspec.open(written(f"{s3}/journal/b{suffix}")).open().read()


def test_results_that_could_not_be_put_there_are_put_there_by_the_next_run(s3, parts, tmp_path):
    url = "s3://later/a.jsonl"
    with pytest.raises(SinkError, match="are complete, and kept in"):
        line(dict).run(ROWS, write(url), journal=tmp_path / "journal", how="loop")
    fsspec.filesystem("s3").mkdir("later")
    line(dict).run(ROWS, write(url), journal=tmp_path / "journal", how="loop")
    assert as_read(url) == ROWS
    assert os.listdir(parts) == []


UPLOADED = """
import os, sys
from taktline import line, write
from taktline._durable.journal import Journal
real = Journal.write
def write_but_the_last(journal, entry):
    if entry.state == "done":
        os._exit(9)
    real(journal, entry)
if sys.argv[2] == "killed":
    Journal.write = write_but_the_last
line(dict).run([{"n": n} for n in range(1000)], write(sys.argv[1]), journal="journal", how="loop")
"""


def test_a_run_killed_behind_the_upload_ends_well_when_it_is_resumed(s3, parts, tmp_path):
    url, environment = f"{s3}/uploaded.jsonl.gz", {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["TMPDIR"] = str(parts)
    for how, code in (("killed", 9), ("killed", 9), ("", 0), ("", 0)):
        command = [sys.executable, "-c", UPLOADED, url, how]
        assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == code
        assert list(read(url)) == [{"n": n} for n in range(1000)]
    assert os.listdir(parts) == []


class Breaking(BaseHTTPRequestHandler):
    """Promises more bytes than it gives."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        self.wfile.write(b'{"n": 1}\n{"n": 2}\n')

    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Busy(Breaking):
    """Answers as a store that has too much to do."""

    protocol_version = "HTTP/1.1"  # which asks for the body of a PUT

    def answer(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()


@pytest.fixture
def serving():
    """Starts a web server of this kind; its URL."""
    running = []

    def start(kind):
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        running.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_an_answer_that_ends_early_is_an_error_with_its_place(serving):
    pytest.importorskip("aiohttp")
    with pytest.raises(SourceError, match=r"stopped at byte [\d,]+"):
        list(read(f"{serving(Breaking)}/a.jsonl"))


def test_an_object_that_is_shorter_than_the_store_says_is_an_error():
    class Short(io.BytesIO):
        size = 10

    with pytest.raises(SourceError, match="'a' stopped at byte 3: it has 10 bytes"):
        remote._Stream(Short(b"abc"), "a").readall()


def test_a_store_that_answers_503_is_one_clear_error(s3, serving, monkeypatch, parts):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", serving(Busy))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(SourceError, match="cannot be looked up"):
            read("s3://shop/a.jsonl")
        with pytest.raises(SinkError, match="are complete, and kept in"):
            written("s3://shop/a.jsonl")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_web_server_that_is_busy_or_away_is_no_missing_file(serving):
    pytest.importorskip("aiohttp")
    with pytest.raises(SourceError, match=r"a\.jsonl' cannot be looked up: OSError: the server answers 503$"):
        read(f"{serving(Busy)}/a.jsonl?signature=secret")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match=r"a\.jsonl' cannot be looked up: OSError: ClientConnector"):
            read(f"http://127.0.0.1:{nobody.getsockname()[1]}/a.jsonl")


def test_a_truncated_packed_object_is_an_error(memory):
    packed = gzip.compress(b'{"n": 1}\n' * 1000)
    fsspec.filesystem("memory").pipe("/shop/a.jsonl.gz", packed[:-20])
    with pytest.raises(SourceError, match=r"memory://shop/a\.jsonl\.gz' is a damaged or truncated gzip"):
        list(read(f"{memory}/a.jsonl.gz"))


def test_passwords_and_signatures_are_not_shown():
    assert remote.shown("s3://a/b.csv?x=1") == "s3://a/b.csv"
    assert "hunter2" not in remote.shown("ftp://me:hunter2@host/a")


@pytest.mark.parametrize("error", [ConnectionError, PermissionError, RuntimeError])
def test_a_store_that_cannot_be_asked_has_not_said_that_nothing_is_there(memory, monkeypatch, error):
    """fsspec's `exists` and `isdir` take whatever goes wrong for a no, unless a store has its own."""
    written(f"{memory}/a.jsonl")

    def away(store, path, **_):
        raise error("away")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", away)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "exists", fsspec.AbstractFileSystem.exists)
    with pytest.raises(SourceError, match="cannot be looked up") as raised:
        as_read(f"{memory}/a.jsonl")
    assert raised.value.away
    assert remote.may_be_there(f"{memory}/a.jsonl")
    with pytest.raises(SinkError, match="cannot be looked up"):
        _urls.is_there(f"{memory}/a.jsonl")


AWAY = """
import asyncio, logging, sys, types
import gcsfs.retry
from taktline.cli.commands import run_main

gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0))
if sys.argv[1] == "logging":
    logging.basicConfig()
sys.exit(run_main(["run", "builtins:str", "--in", "gs://shop/in.jsonl", "--out", "-"]))
"""


@pytest.mark.parametrize("listening", [False, True])
def test_a_store_that_is_away_is_told_in_a_sentence_and_its_own_log_goes_to_who_listens(tmp_path, listening):
    pytest.importorskip("gcsfs")
    with socket.socket() as nobody:  # it is bound, and does not listen
        nobody.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [sys.executable, "-c", AWAY, "logging" if listening else ""], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{nobody.getsockname()[1]}"},
        )  # fmt: skip
    assert done.returncode == 1
    assert "'gs://shop/in.jsonl' cannot be looked up: " in done.stderr
    assert ("out of retries" in done.stderr) == listening
    assert ("Traceback" in done.stderr) == listening


# --- what is written beside the results ---


@pytest.mark.parametrize(
    ("option", "name"),
    [("journal", "a.journal"), ("dead_letters", "a.jsonl"), ("dead_letters", "a.sqlite"), ("trace", "a.json")],
)
def test_what_is_written_bit_by_bit_is_not_put_at_a_url(option, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("az://shop", "memory:/", "file:///tmp"):
        with pytest.raises(
            LineError,
            match=rf"{option}='{place}/{name}': (this is a URL|at a URL this needs a store|give its path alone)",
        ):
            line(abs).run([1], **{option: f"{place}/{name}"})
        (tmp_path / "in.jsonl").write_text("1\n")
        flag = f"--{option.replace('_', '-')}"
        asked = ["run", "builtins:abs", "--in", "in.jsonl", "--out", "out.jsonl", flag, f"{place}/{name}"]
        assert run_main(asked) == WRONG_USAGE
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_report_may_be_written_to_a_url(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line(abs, name="absolute").run([1]).to_html(f"{s3}/reports/run.html")
    assert "absolute" in "".join(read(f"{s3}/reports/run.html", "text"))
    (tmp_path / "in.jsonl").write_text("1\n")
    for name in ("command.json", "command.html"):
        asked = ["run", "builtins:abs", "--in", "in.jsonl", "--out", "out.jsonl", "--quiet"]
        assert run_main([*asked, "--report", f"{s3}/reports/{name}"]) == DONE
        assert "abs" in "".join(read(f"{s3}/reports/{name}", "text"))
    line(abs).run([1]).to_html(f"file://{tmp_path}/run.html")
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl", "run.html"]


def test_a_report_that_cannot_be_written_there_is_refused_before_anything_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("1\n")
    asked = ["run", "builtins:abs", "--in", "in.jsonl", "--out", "out.jsonl", "--report"]
    assert run_main([*asked, "https://shop.example/run.html"]) == WRONG_USAGE
    assert "a web server only gives files" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["in.jsonl"]
