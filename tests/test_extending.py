"""The programs in docs/extending.md, run as they stand there, and checked as it says."""

from __future__ import annotations

import importlib
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from packages import Packages

from taktline import line, read
from taktline.testing import check_live, check_sink, check_source

ROOT = Path(__file__).parents[1]
PROGRAMS = dict(re.findall(r"```python title=(\S+)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL))
TICK = struct.Struct("<qd")
TICKS = [(n, 100.0 + n % 7) for n in range(200)]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """What a program of the guide defines."""
    folder = tmp_path / "guide"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def imported(name):
        (folder / f"{name}.py").write_text(PROGRAMS[f"{name}.py"])
        return importlib.import_module(name)

    yield imported
    for name in PROGRAMS:
        sys.modules.pop(name.removesuffix(".py"), None)


def run(name, folder):
    (folder / name).write_text(PROGRAMS[name])
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, env=here)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_workers_read_parts_of_the_source(tmp_path, module):
    assert run("own_source.py", tmp_path) == "100,000 prices\n"
    path = tmp_path / "some.ticks"
    path.write_bytes(b"".join(TICK.pack(*tick) for tick in TICKS))
    check_source(module("own_source").Ticks(path), TICKS)


def test_the_sink_goes_on_from_a_journal(tmp_path, module):
    for _ in range(2):  # the second time it is done already
        assert run("own_sink.py", tmp_path) == "1,600,000 bytes\n"
    sink = module("own_sink").TickFile

    def there(name):
        path = tmp_path / name
        return list(TICK.iter_unpack(path.read_bytes())) if path.exists() else []

    check_sink(lambda name: sink(tmp_path / name), there, TICKS)


# --- Redis ---


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("redis")
    with servers.redis_server() as server:
        yield server.url


@pytest.fixture
def stream(server):
    """A client, and a stream that is empty."""
    import redis

    with redis.Redis.from_url(server, decode_responses=True) as client:
        client.flushall()
        yield client


def send(client, texts):
    for text in texts:
        client.xadd("orders", {"text": text})


def test_the_redis_example_is_short():
    assert len(PROGRAMS["redis_streams.py"].splitlines()) <= 60


def test_the_redis_source_keeps_the_contract(server, stream, module):
    source = module("redis_streams").RedisStream
    check_live(
        lambda: source(server, "orders", "pricing"), lambda texts: send(stream, texts), lambda record: record[1]["text"]
    )


@pytest.fixture
def command(server, tmp_path, monkeypatch):
    """Starts `taktline run --in streams://…` where the example is an installed package."""
    site = tmp_path / "site"
    site.mkdir()
    Packages(site).install("redis_streams", PROGRAMS["redis_streams.py"], "taktline.schemes", streams="redis_streams")
    (tmp_path / "steps.py").write_text("def price(message):\n    return {'text': message[1]['text']}\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}

    def started(out, **options):
        more = "".join(f"&{name}={value}" for name, value in options.items())
        arguments = [
            "--in",
            f"{server.replace('redis', 'streams')}?stream=orders&group=pricing{more}",
            "--out",
            tmp_path / out,
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "taktline", "run", "steps.py:price", *arguments], cwd=tmp_path, env=environment,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return started


def texts_in(path):
    return [row["text"] for row in read(path)]


def owed(client):
    """Messages that are not acknowledged, and those that nobody has had."""
    (group,) = client.xinfo_groups("orders") or [{"pending": 0, "lag": None}]
    return group["pending"], group["lag"]


def test_the_command_reads_the_stream_of_somebody_elses_package(command, stream, tmp_path):
    texts = [str(n) for n in range(500)]
    send(stream, texts)
    with command("out.jsonl", quiet=0.5) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert texts_in(tmp_path / "out.jsonl") == texts
    assert owed(stream) == (0, 0)


def test_the_command_drains_the_stream_at_sigterm(command, stream, tmp_path):
    send(stream, map(str, range(50)))
    with command("out.jsonl", quiet=3600) as process:
        while not stream.exists("orders") or not stream.xinfo_groups("orders") or not owed(stream)[0]:
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    first = texts_in(tmp_path / "out.jsonl")
    assert owed(stream)[0] == 0
    with command("rest.jsonl", quiet=0.5) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert first + texts_in(tmp_path / "rest.jsonl") == [str(n) for n in range(50)]


def test_what_a_killed_consumer_had_is_taken_over(command, stream, tmp_path, server, module):
    send(stream, map(str, range(50)))
    with command("out.jsonl", quiet=3600) as process:
        while not stream.xinfo_groups("orders") or not owed(stream)[0]:
            assert process.poll() is None, process.stderr.read()
        process.kill()
    assert not (tmp_path / "out.jsonl").exists()
    source = module("redis_streams").RedisStream(server, "orders", "pricing", quiet=4, idle=1)
    texts = [message[1]["text"] for message in line(tuple)(source, how="loop")]
    assert sorted(set(texts), key=int) == [
        str(n) for n in range(50)
    ]  # at least once, and those last that were under way
    assert owed(stream) == (0, 0)
