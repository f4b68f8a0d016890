"""A journal in a store: what was noted is there again, one holder at a time has it, and the store refuses all others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from present import present

from taktline import InUse, LineError, ResumeError, SinkError, TakenOver, line
from taktline._durable import stored
from taktline._durable.entries import DONE, Checkpoint, Entry
from taktline._durable.stored import StoredJournal
from taktline._objects import Objects
from taktline._stores import objects_at

pytest.importorskip("s3fs")
PRINTS = {"the source": ["list", 3], "step 'parse'": "abc"}
ENTRIES = [Entry(Checkpoint(records=n, results=2 * n, delivered=2 * n), {"bytes": 10 * n}) for n in range(1, 6)]


@pytest.fixture
def url(conditional):
    return f"{conditional}/{uuid4().hex}/run.journal"


@pytest.fixture
def short(monkeypatch):
    """Leases are."""
    monkeypatch.setattr(stored, "LEASE", 0.5)


def journal(url, **given):
    return StoredJournal(url, PRINTS, **given)


def lost_from_sight(made):
    """As of a process that was killed: nothing more comes of it, and it lets go of nothing."""
    made._ended.set()
    made._renewer.join()
    return made


@pytest.mark.parametrize("option", [["--journal", "s3://{}/j"], ["--dead-letters", "s3://{}/f.jsonl"]])
def test_a_store_that_is_away_is_no_wrong_usage_and_a_bucket_that_is_not_there_is(s3, tmp_path, option):
    """Schedulers start a run again that failed (code 1), and not one that was wrong (2)."""
    (tmp_path / "steps.py").write_text("same = str\n")
    (tmp_path / "in.txt").write_text("1\n2\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "taktline", "run", "steps.py:same", "--in", "in.txt", "--out", "out.txt"]
    for bucket, endpoint, code in [
        (s3.removeprefix("s3://"), nobody, 1), ("nowhere", os.environ["AWS_ENDPOINT_URL"], 2),
    ]:  # fmt: skip
        environment = os.environ | {"AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "1"}
        given = [option[0], option[1].format(bucket)]
        done = subprocess.run([*command, *given], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert f"'s3://{bucket}/" in done.stderr


def test_what_was_noted_last_is_there_again(url):
    for count in range(4):
        made = journal(f"{url}{count}")
        for entry in ENTRIES[:count]:
            made.write(entry)
        made.close()
        again = journal(f"{url}{count}")
        assert again.entry == (ENTRIES[count - 1] if count else Entry())
        assert again.delivered == 2 * count
        assert again.resumed
        assert again.run == made.run
        assert not again.taken_over
        again.close()


def test_a_state_comes_with_the_entry_that_tells_of_it(url):
    made = journal(url)
    made.write(Entry(Checkpoint(state=made.keep(b"one\ntwo"))))
    made.keep(b"more")  # and no entry
    made.close()
    again = journal(url)
    assert again.kept(again.entry.mark.state) == b"one\ntwo"
    again.close()


def test_another_run_is_refused_and_can_go_on_or_begin_anew(url):
    made = journal(url)
    made.write(ENTRIES[2])
    made.close()
    other = PRINTS | {"step 'parse'": "mended"}
    with pytest.raises(ResumeError, match="differs in step 'parse'"):
        StoredJournal(url, other)
    goes_on = StoredJournal(url, other, if_changed="continue")
    goes_on.go_on(even=True)
    assert (goes_on.entry.mark.delivered, goes_on.changes) == (6, [[3, "step 'parse'"]])
    goes_on.close()
    begins = StoredJournal(url, PRINTS, if_changed="restart")
    begins.restart()
    assert (begins.entry, begins.instead, begins.left) == (Entry(), made.run, {"bytes": 30})
    begins.write(Entry(state=DONE))
    begins.close()
    assert not StoredJournal(url, other).resumed


def test_a_holder_that_is_at_work_keeps_it(url, short):
    made = journal(url)
    with pytest.raises(InUse, match="another run is at work with the journal"):
        journal(url)  # it renews its lease, whatever its steps do
    made.write(ENTRIES[0])
    made.close()


def test_a_lease_that_nobody_renews_runs_out(url, short):
    made = lost_from_sight(journal(url))
    made.write(ENTRIES[1])
    later = journal(url)
    assert later.taken_over
    assert later.entry == ENTRIES[1]
    for late in (made.check, lambda: made.write(ENTRIES[2]), lambda: made.write(ENTRIES[2])):
        with pytest.raises(TakenOver, match="another process has taken over the journal"):
            late()
    made.close()
    later.write(ENTRIES[3])
    later.close()
    again = journal(url)
    assert again.entry == ENTRIES[3]
    again.close()


def test_a_later_attempt_does_not_wait_and_an_earlier_one_is_refused(url):
    made = journal(url, attempt=3)
    with pytest.raises(TakenOver, match="attempt 3 has taken over"):
        journal(url, attempt=2)
    later = journal(url, attempt=4)
    assert later.taken_over
    with pytest.raises(TakenOver, match=r"attempt 4 has taken over the journal .*this one, attempt 3, has ended"):
        made.check()
    made.close()
    later.check()
    later.close()


def test_a_holder_that_comes_to_itself_late_finds_out_by_itself(url, short):
    made = journal(url, attempt=1)
    later = journal(url, attempt=2)
    while made._lost is None:  # its own renewal was refused
        time.sleep(0.01)
    with pytest.raises(TakenOver):
        made.write(ENTRIES[0])
    made.close()
    later.close()


def test_of_many_that_come_at_once_one_has_it(url, monkeypatch):
    monkeypatch.setattr(stored, "LEASE", 2.0)

    def taken():
        try:
            return journal(url)
        except InUse:
            return None

    with ThreadPoolExecutor(6) as pool:
        came = [each.result() for each in [pool.submit(taken) for _ in range(6)]]
    (has,) = filter(None, came)
    has.write(ENTRIES[0])
    has.close()


@pytest.mark.parametrize("landed", [True, False])
def test_a_put_whose_answer_was_lost_is_known_again(url, monkeypatch, landed):
    made = journal(url)
    kind = type(made._objects)
    real = kind.put

    def no_answer(self, *given):
        if landed:
            real(self, *given)
        raise SinkError("the store is away")

    with monkeypatch.context() as away:
        away.setattr(kind, "put", no_answer)
        with pytest.raises(SinkError, match="away"):
            made.write(ENTRIES[0])
    made.check()
    made.write(ENTRIES[1])
    made.close()
    again = journal(url)
    assert again.entry == ENTRIES[1]
    again.close()


def test_what_is_no_journal_is_left_as_it_is(url):
    store, path = objects_at(url)
    for mine in (b"my notes\n", b""):
        store.put(path, mine)
        with pytest.raises(ResumeError, match="no journal of this version"):
            journal(url)
        assert present(store.get(path))[0] == mine


def test_one_that_was_taken_away_meanwhile_is_not_made_again(url):
    made = journal(url)
    store, path = objects_at(url)
    store.take_away([path])
    with pytest.raises(SinkError, match="taken away or replaced by another program"):
        made.write(ENTRIES[0])
    made.close()
    assert store.get(path) is None


def test_one_that_was_gone_before_the_store_was_tried_leaves_nothing(url, monkeypatch):
    """As of an attempt that was frozen there, while another one did all of it and had its journal taken away."""
    store, path = objects_at(url)
    real = StoredJournal._check_store

    def late(self):
        store.take_away([path])
        real(self)

    monkeypatch.setattr(StoredJournal, "_check_store", late)
    with pytest.raises(SinkError, match="taken away or replaced by another program"):
        journal(url)
    assert store.get(path) is None


def test_what_is_beside_a_journal_that_begins_is_taken_away_by_who_has_it(url, monkeypatch):
    store, path = objects_at(url)
    left = f"{path}.parts/run/attempt-00000"
    store.put(left, b"of an attempt that is over")
    if is_s3 := url.startswith("s3"):
        store._call("create_multipart_upload", left)
    made = journal(url, attempt=1)
    assert store.sizes(f"{path}.parts/") == {}
    assert not is_s3 or store._store.list_multipart_uploads("shop") == []
    store.put(left, b"its own")
    made.write(ENTRIES[0])
    made.close()
    journal(url).close()
    assert list(store.sizes(f"{path}.parts/")) == [left]
    real = Objects.sizes

    def frozen(self, folder):
        monkeypatch.setattr(Objects, "sizes", real)
        later = journal(other, attempt=2)
        later.write(ENTRIES[0])
        store.put(f"{path}2.parts/run/later-00000", b"a later attempt's")
        later.close()
        return real(self, folder)

    other = f"{url}2"
    monkeypatch.setattr(Objects, "sizes", frozen)
    with pytest.raises(TakenOver):
        journal(other, attempt=1)
    assert list(store.sizes(f"{path}2.parts/")) == [f"{path}2.parts/run/later-00000"]


@pytest.mark.parametrize("store", ["s3", "gs"])
def test_a_bucket_that_is_not_there_is_told(request, store):
    request.getfixturevalue(store)
    with pytest.raises(LineError, match=rf"the journal '{store}://nothing/j' cannot be used: .*(bucket|b/nothing)"):
        journal(f"{store}://nothing/j")


class Unconditional(BaseHTTPRequestHandler):
    """A store that does not look at the conditions of a put."""

    protocol_version = "HTTP/1.1"  # which asks for the body of a PUT
    behind: str

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if not name.startswith("If-")}
        request = urllib.request.Request(self.behind + self.path, body or None, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_store_that_does_not_look_at_conditions_is_refused(s3, monkeypatch):
    import s3fs

    handler = type("Behind", (Unconditional,), {"behind": os.environ["AWS_ENDPOINT_URL"]})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with monkeypatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(LineError, match="puts an object whatever its condition is"):
                journal(f"{s3}/{uuid4().hex}/j")
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()


@pytest.mark.parametrize("place", ["az://b/j", "memory://j", "https://example.org/j", "file:///j"])
def test_other_stores_are_refused_at_once(place):
    with pytest.raises(LineError, match="journal="):
        line(abs)([1], journal=place)


class Attempts(RuleBasedStateMachine):
    """Whatever order attempts come in and do things, frozen or not: what the journal says is what its newest holder wrote
    last, and nobody else writes."""

    bucket: str

    def __init__(self):
        super().__init__()
        self.url = f"{self.bucket}/{uuid4().hex}/j"
        self.open, self.newest, self.entry = {}, 0, Entry()

    @rule()
    def begin(self):
        self.newest += 1
        self.open[self.newest] = journal(self.url, attempt=self.newest)
        assert self.open[self.newest].entry == self.entry

    @precondition(lambda self: self.newest > 1)
    @rule(back=st.integers(1, 3))
    def come_late(self, back):
        if self.newest in self.open and self.newest > back:
            with pytest.raises(TakenOver):
                journal(self.url, attempt=self.newest - back)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9), records=st.integers(1, 1000))
    def write(self, which, records):
        number = [*self.open][which % len(self.open)]
        entry = Entry(Checkpoint(records=records, delivered=records), {"by": number})
        if number == self.newest:
            self.open[number].write(entry)
            self.entry = entry
        else:
            with pytest.raises(TakenOver):
                self.open[number].write(entry)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def look(self, which):
        number = [*self.open][which % len(self.open)]
        if number == self.newest:
            self.open[number].check()
        else:
            with pytest.raises(TakenOver):
                self.open[number].check()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def end(self, which):
        self.open.pop([*self.open][which % len(self.open)]).close()

    def teardown(self):
        for each in self.open.values():
            each.close()
        if self.newest:
            last = journal(self.url)
            assert last.entry == self.entry
            last.close()


def test_attempts_in_any_order(conditional):
    Attempts.bucket = conditional
    run_state_machine_as_test(Attempts, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
