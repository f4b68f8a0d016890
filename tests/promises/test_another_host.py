"""Promise: a run whose journal and output are at URLs goes on from any host, and gives byte for byte what an undisturbed one
gives. A host is a process with a folder, a TMPDIR and a home of its own, of which nothing is left when it is killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from present import present

from taktline._google_objects import GoogleObjects
from taktline._stores import objects_at

RECORDS = 1800  # of 10 kB: more than two pieces
PROGRAM = textwrap.dedent(
    """
    import itertools, os, random, signal, sys
    from taktline import line, read, serial, write
    from taktline._durable import stored
    from taktline._objects import Objects
    from taktline._run import checkpointer

    folder, how, attempt = sys.argv[1], os.environ["HOW"], os.environ.get("ATTEMPT")
    checkpointer.STORED = 0.1
    stored.LEASE = float(os.environ.get("LEASE", 60))

    at, what = int(os.environ.get("AT", -1)), getattr(signal, os.environ.get("WHAT", "SIGKILL"))
    requests, asked = itertools.count(), Objects._asked

    def ask(store, path, ask_it):
        number = next(requests)
        if number == at and random.random() < 0.5:
            os.killpg(0, what)
            return asked(store, path, ask_it)
        answer = asked(store, path, ask_it)
        if number == at:
            os.killpg(0, what)
        return answer

    Objects._asked = ask

    class Total:
        def __init__(self):
            self.total = 0
        def __call__(self, row):
            self.total += row["n"]
            return {**row, "total": self.total}
        def save(self):
            return self.total
        def load(self, total):
            self.total = total

    def parse(row):
        if row["n"] % 400 == 7:
            raise ValueError("seven")
        return {**row, "text": random.Random(row["n"]).randbytes(5000).hex()}

    given = {"on_lost": os.environ.get("ON_LOST", "refuse")} | ({"attempt": int(attempt)} if attempt else {})
    given |= {"how": "loop"} if how == "loop" else {"how": "line", "workers": 2, "batch_size": 50, "window": 400}
    if kind := os.environ.get("PARTS"):
        sink = write(f"{folder}/out/", kind, rows=int(os.environ["ROWS"]), mode="replace")
    else:
        sink = write(f"{folder}/out.jsonl")
    report = line(parse, serial(Total())).run(
        read(f"{folder}/in.jsonl"), sink, journal=f"{folder}/{os.environ.get('JOURNAL', 'j')}", on_error="skip", **given
    )
    print(next(requests), report.resumed_at)
    """
)


class Hosts:
    """Each command goes to another one."""

    def __init__(self, folder, url):
        self.folder, self.url, self._number = folder, url, count()
        (folder / "program.py").write_text(PROGRAM)

    def start(self, url=None, how="loop", **environment):
        host = self.folder / f"host{next(self._number)}"
        for name in ("tmp", "home", "work"):
            (host / name).mkdir(parents=True)
        whole = os.environ | {"TMPDIR": str(host / "tmp"), "HOME": str(host / "home"), "HOW": how}
        return subprocess.Popen(
            [sys.executable, self.folder / "program.py", url or self.url], cwd=host / "work", text=True,
            env=whole | {name: str(value) for name, value in environment.items()},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def left(self):
        """What lies in the temporary and working folders of all hosts."""
        return [path for path in self.folder.glob("host*/*/*") if path.parent.name != "home"]


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def bucket(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def hosts(tmp_path, bucket):
    url = f"{bucket}/{uuid4().hex}"
    store, path = objects_at(f"{url}/in.jsonl")
    store.put(path, "".join(json.dumps({"n": n}) + "\n" for n in range(RECORDS)).encode())
    return Hosts(tmp_path, url)


@pytest.fixture
def whole(hosts):
    """What an undisturbed run gives, and how many requests it takes."""
    done = hosts.start()
    told, said = done.communicate()
    assert done.returncode == 0, said
    out = output(hosts)
    assert out.count(b"\n") == RECORDS - 5
    clear(hosts)
    return out, int(told.split()[0])


def clear(hosts):
    store, path = objects_at(hosts.url)
    store.take_away([f"{path}/out.jsonl", f"{path}/j"])


def stopped(process):
    """Whether it was stopped, before it came to an end."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return True
    process.returncode = os.waitstatus_to_exitcode(status)
    return False


def output(hosts):
    store, path = objects_at(f"{hosts.url}/out.jsonl")
    return (store.get(path) or [b""])[0]


def uploads(store):
    """What is begun and not ended; in Google's store nobody sees that, and it is forgotten by itself."""
    return [] if isinstance(store, GoogleObjects) else store._store.list_multipart_uploads("shop")


def folder(hosts):
    """What is in the folder of parts; of `_SUCCESS` nothing, since no two are alike."""
    store, path = objects_at(hosts.url)
    there = {each.removeprefix(path): present(store.get(each))[0] for each in store.sizes(f"{path}/out/")}
    return there | ({"/out/_SUCCESS": b""} if "/out/_SUCCESS" in there else {})


def check_nothing_left(hosts):
    store, path = objects_at(hosts.url)
    assert sorted(each.removeprefix(path) for each in store.sizes(path)) == ["/in.jsonl", "/j", "/out.jsonl"]
    assert uploads(store) == []
    assert hosts.left() == []


in_both_stores = pytest.mark.parametrize("bucket", ["s3", "gs"], indirect=True)


@in_both_stores
@pytest.mark.parametrize("how", ["loop", "line"])
def test_killed_at_any_request_and_gone_on_with_elsewhere(hosts, whole, how):
    out, requests = whole
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for attempt in count(1):
        at = {} if attempt > 5 else {"AT": chance.randrange(requests)}
        run = hosts.start(how=how, ATTEMPT=attempt, **at)
        _, said = run.communicate()
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, said
    assert output(hosts) == out
    check_nothing_left(hosts)


@in_both_stores
@pytest.mark.parametrize("kind", [pytest.param("jsonl", marks=pytest.mark.slow), "parquet"])
def test_a_folder_of_parts_is_gone_on_with_elsewhere(hosts, kind):
    done = hosts.start(PARTS=kind, ROWS=900)
    told, said = done.communicate()
    assert done.returncode == 0, said
    requests, out = int(told.split()[0]), folder(hosts)
    assert set(out) == {"/out/_SUCCESS", *(f"/out/part-{n:05}.{kind}" for n in range(2))}
    store, path = objects_at(hosts.url)
    store.take_away([f"{path}/j", *store.sizes(f"{path}/out/")])
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for attempt in count(1):
        at = {} if attempt > 3 else {"AT": chance.randrange(requests // 4, requests)}
        run = hosts.start(how="line", PARTS=kind, ROWS=900, ATTEMPT=attempt, **at)
        _, said = run.communicate()
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, said
    assert folder(hosts) == out
    assert set(store.sizes(path)) - set(store.sizes(f"{path}/out/")) == {f"{path}/in.jsonl", f"{path}/j"}
    assert uploads(store) == []
    assert hosts.left() == []


def everything(hosts):
    """All objects with their bytes, and all open uploads."""
    store, path = objects_at(hosts.url)
    return {each: present(store.get(each))[0] for each in store.sizes(path)}, uploads(store)


@pytest.mark.parametrize("share", range(3))
def test_a_frozen_attempt_leaves_a_folder_as_those_have_it_who_came_after(hosts, share):
    """The retry has done all of it, its journal is gone, and another run has put there, byte for byte, what was there first:
    whatever the first attempt still does when it is at work again, all of that stays, and nothing else is there."""
    store, path = objects_at(hosts.url)

    def night(**environment):
        done = hosts.start(PARTS="jsonl", how="line", **environment)
        told, said = done.communicate()
        assert done.returncode == 0, said
        store.take_away([f"{path}/j"])
        return int(told.split()[0])

    night(ROWS=400)
    requests = night(ROWS=900)
    at = random.randrange(share * requests // 3, (share + 1) * requests // 3)
    while True:
        print("at", at)
        night(ROWS=400)
        first = hosts.start(PARTS="jsonl", ROWS=900, how="line", ATTEMPT=1, AT=at, WHAT="SIGSTOP")
        if stopped(first):
            if store.tag(f"{path}/j") is not None:
                break
            os.killpg(first.pid, signal.SIGKILL)  # nobody knows of it yet
            at += 1
        else:
            at = at * 3 // 4  # it has made fewer requests than the other one
        first.communicate()
        store.take_away([f"{path}/j"])
    night(ROWS=900, ATTEMPT=2)
    night(ROWS=400)
    before = everything(hosts)
    os.killpg(first.pid, signal.SIGCONT)
    _, said = first.communicate()
    assert first.returncode in (0, 1), said
    assert everything(hosts) == before, said
    assert before[1] == []
    assert {each.removeprefix(path) for each in before[0]} == {
        "/in.jsonl", "/out/_SUCCESS", *(f"/out/part-{n:05}.jsonl" for n in range(5))
    }  # fmt: skip
    assert hosts.left() == []


def test_a_lease_of_a_dead_host_runs_out_and_the_run_goes_on_elsewhere(hosts, whole):
    out, requests = whole
    first = hosts.start(AT=requests // 2)
    first.wait()
    second = hosts.start(LEASE=2)
    told, said = second.communicate()
    assert second.returncode == 0, said
    assert int(told.split()[1]) > 0
    assert output(hosts) == out
    check_nothing_left(hosts)


@pytest.mark.parametrize("share", range(2))
def test_a_frozen_attempt_does_nothing_more_that_shows(hosts, whole, share):
    out, requests = whole
    at = random.randrange(share * requests // 2, (share + 1) * requests // 2)
    while True:
        print("at", at)
        first = hosts.start(how="line", ATTEMPT=1, AT=at, WHAT="SIGSTOP")
        if stopped(first):
            break
        first.communicate()  # it has made fewer requests than the other one
        clear(hosts)
        at = at * 3 // 4
    second = hosts.start(how="line", ATTEMPT=2)
    _, said = second.communicate()
    assert second.returncode == 0, said
    assert output(hosts) == out
    store, path = objects_at(f"{hosts.url}/out.jsonl")
    store.put(path, b"another run's")  # all is done, and somebody has gone on with it
    os.killpg(first.pid, signal.SIGCONT)
    _, said = first.communicate()
    assert output(hosts) == b"another run's"
    assert first.returncode in (0, 1), said
    if first.returncode:
        assert "TakenOver" in said or "was replaced" in said, said
    check_nothing_left(hosts)


def test_what_is_gone_from_the_store_is_made_again_where_that_is_asked_for(hosts, whole):
    out, requests = whole
    hosts.start(AT=requests * 2 // 3, ATTEMPT=1).wait()
    store, path = objects_at(hosts.url)
    parts = list(store.sizes(f"{path}/j.parts/"))
    assert parts
    store.take_away(parts)
    refused = hosts.start(ATTEMPT=2)
    _, said = refused.communicate()
    assert "OutputLost" in said
    assert 'on_lost="restart"' in said
    again = hosts.start(ATTEMPT=3, ON_LOST="restart")
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert output(hosts) == out
    check_nothing_left(hosts)


GUIDE = (Path(__file__).parents[2] / "docs/resuming.md").read_text()


def test_the_guides_program(s3, tmp_path):
    store, path = objects_at(s3)
    store.put(f"{path}/orders.jsonl", b'{"amount": 2, "price": 3}\n' * 10)
    ((name, program),) = re.findall(r"```python title=(\S+)\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / name).write_text(program)
    for _ in range(2):
        done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == "10\n", done.stderr
    assert present(store.get(f"{path}/scored.jsonl"))[0] == b'{"amount": 2, "price": 3, "total": 6}\n' * 10
    assert [each for each in store.sizes(path) if "/journals/" in each] == [f"{path}/journals/nightly.journal"]
