"""A subscription as a source: acknowledged when safe, in order, given back when not, on both servers where both can."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from typing import Any

import pytest

from taktline import Failed, LineError, SourceError, batch, line, read_dead_letters, write
from taktline.abc import Health
from taktline.pubsub import Message, intake, subscribe
from taktline.pubsub.ledger import Ledger

IDLE = 2.0  # seconds: as long as anything may take on a busy machine that must come before the run may end
HOWS = [{"how": "loop"}, {"how": "line", "workers": 2}, {"how": "auto", "workers": 2}]


def number(message: Message) -> int:
    return int(message.data)


def left(name: str, count: int) -> list[bytes]:
    """The next `count` messages; for 0, those that come within a moment."""
    source = subscribe(name, limit=count) if count else subscribe(name, idle=0.3)
    return list(line(lambda message: message.data)(source, how="loop"))


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_every_message_gives_its_result_and_does_not_come_again(any_bus, options):
    topic, name = any_bus.make()
    any_bus.send(topic, range(300))
    results: list[int] = []
    report = line(number).run(subscribe(name, limit=300), results.append, **options)
    assert sorted(results) == list(range(300))
    assert report.records_in == report.records_out == 300
    assert left(name, 0) == []


def test_a_message_has_what_was_published(any_bus):
    topic, name = any_bus.make()
    any_bus.send(topic, ["hello"], key="k")
    (message,) = line(lambda message: message)(subscribe(name, limit=1), how="line", workers=1)
    assert (message.data, message.attributes, message.ordering_key) == (b"hello", {"kind": "test"}, "k")
    assert message.id
    assert message.publish_time > 1.6e9


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_nothing_is_acknowledged_before_its_result_is_in_the_sink(bus, options):
    topic, name = bus.make()
    bus.send(topic, range(500))
    safe: set[str] = set()
    early: list[str] = []
    bus.server.on_acknowledge = lambda ids: early.extend(id for id in ids if id not in safe)
    line(lambda message: message.id).run(subscribe(name, limit=500), safe.add, **options)
    assert len(safe) == 500
    assert not early
    assert bus.server.left(name) == 0


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_in_a_loop_a_message_is_acknowledged_when_the_next_is_asked_for(bus, options):
    topic, name = bus.make()
    bus.send(topic, range(3))
    with line(number)(subscribe(name), batch_size=1, **options) as run:
        assert next(run) == 0
        assert next(run) == 1
        assert bus.server.until(lambda: bus.server.acknowledged == ["1"])
    assert bus.server.acknowledged == ["1"]
    assert left(name, 2) == [b"1", b"2"]


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_a_failure_ends_the_run_and_gives_back_the_message_and_those_after_it(bus, options):
    topic, name = bus.make()
    bus.send(topic, [0, 1, 2, "x", 4, 5])
    results: list[int] = []
    with pytest.raises(ValueError, match="'x'") as caught:
        line(lambda message: int(message.data.decode())).run(subscribe(name), results.append, **options)
    assert "at record 3" in caught.value.__notes__[0]
    assert results == [0, 1, 2]
    done = len(bus.server.acknowledged)  # what was before it in its batch may come again
    assert bus.server.acknowledged == ["1", "2", "3"][:done]
    assert left(name, 6 - done) == [b"0", b"1", b"2", b"x", b"4", b"5"][done:]


def test_skip_gives_a_failed_message_back_or_drops_it(bus):
    topic, name = bus.make()
    bus.send(topic, [0, "x", 2])
    with line(number)(subscribe(name), how="loop", on_error="skip") as run:
        assert list(itertools.islice(run, 2)) == [0, 2]
        run.close()
    assert "2" in bus.server.given_back
    assert left(name, 2) == [b"x", b"2"]

    bus.send(topic, [0, "x", 2])
    report = line(number).run(subscribe(name, limit=3, failed="ack"), how="loop", on_error="skip")
    assert report.skipped == 1
    assert bus.server.left(name) == 0


def test_a_failed_message_that_is_kept_is_acknowledged(bus):
    topic, name = bus.make()
    bus.send(topic, [0, "x", 2])
    results: list = []
    line(number).run(subscribe(name, limit=3), results.append, how="line", workers=1, on_error="keep")
    assert results[::2] == [0, 2]
    assert isinstance(results[1], Failed)
    assert bus.server.left(name) == 0


def test_keys_keep_their_order_through_all_workers(bus):
    topic, name = bus.make(enable_message_ordering=True)
    for n in range(60):
        for key in "abcde":
            bus.send(topic, [n], key=key)

    def uneven(message):
        return message.ordering_key, int(message.data), sum(range(hash(message.id) % 20_000))

    results: list = []
    line(uneven).run(subscribe(name, limit=300), results.append, how="line", workers=2, batch_size=7)
    for key in "abcde":
        assert [n for k, n, _ in results if k == key] == list(range(60))


def test_two_subscribers_at_once_share_the_keys_and_one_has_those_of_the_other_when_it_ends(bus):
    topic, name = bus.make(enable_message_ordering=True)
    for key in "abcd":
        bus.send(topic, range(10), key=key)
    both: list[Any] = [subscribe(name), subscribe(name)]
    got: list[list[Message]] = [[], []]
    for source in both:
        source.open(20, 1 << 20)
    for source, messages in zip(both, got, strict=True):
        while len(messages) < 20:
            messages += source.take(20, 0.25)
    first, second = ({message.ordering_key for message in messages} for messages in got)
    assert len(first) == len(second) == 2
    assert not first & second
    both[0].safe(5, [])
    both[0].close()
    both[1].safe(20, [])
    while len(got[1]) < 35:
        got[1] += both[1].take(20, 0.25)
    both[1].safe(35, [])
    both[1].close()
    delivered = [(message.ordering_key, number(message)) for message in [*got[0][:5], *got[1]]]
    for key in "abcd":
        assert [n for k, n in delivered if k == key] == [*range(10)]
    assert bus.server.left(name) == 0


def test_a_message_whose_lease_ran_out_under_way_is_not_worked_on_twice(bus):
    topic, name = bus.make(enable_message_ordering=True)
    bus.send(topic, range(20), key="k")
    worked: list[int] = []

    def step(message):
        if not worked:
            bus.server.until(lambda: bus.server.out(name) == 20)
            bus.server.expire(name)
            bus.server.until(lambda: bus.server.out(name) == 20)
        worked.append(int(message.data))
        return worked[-1]

    line(step).run(subscribe(name, idle=IDLE), how="loop")
    assert worked == list(range(20))
    assert bus.server.left(name) == 0


def test_a_message_that_comes_again_after_its_acknowledgement_is_acknowledged_again(bus):
    topic, name = bus.make()
    bus.send(topic, range(5))
    worked: list[int] = []

    def sink(n: int) -> None:
        worked.append(n)
        if n == 4:  # asked for once the four before it are safe
            assert bus.server.until(lambda: len(bus.server.acknowledged) == 4)
            bus.server.send_again(name, ["1", "2"])
            assert bus.server.until(lambda: len(bus.server.acknowledged) == 6)

    line(number).run(subscribe(name, limit=5), sink, how="loop", batch_size=1)
    assert worked == list(range(5))
    assert bus.server.left(name) == 0


def test_leases_are_extended_while_messages_are_under_way(bus, monkeypatch):
    monkeypatch.setattr(intake, "EXTEND", 0.02)
    topic, name = bus.make()
    bus.send(topic, range(3))

    def step(message):
        before = bus.server.calls["ModifyAckDeadline"]
        assert bus.server.until(lambda: bus.server.calls["ModifyAckDeadline"] >= before + 3)
        return int(message.data)

    assert list(line(step)(subscribe(name, limit=3), how="loop")) == [0, 1, 2]


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_the_window_is_all_that_is_out(bus, options):
    topic, name = bus.make()
    bus.send(topic, range(400))
    line(number).run(subscribe(name, limit=400), window=30, **options)
    assert 0 < bus.server.most_out <= 30


def test_a_server_without_flow_control_is_not_listened_to_beyond_the_window(bus):
    bus.server.flow_control, bus.server.response = False, 1
    topic, name = bus.make()
    bus.send(topic, range(200))
    source: Any = subscribe(name, limit=200)
    held = []

    def sink(_):
        assert bus.server.until(lambda: bus.server.most_out == 200)
        held.append(source._intake._ledger.held)

    line(number).run(source, sink, how="loop", window=10)
    assert len(held) == 200
    assert max(held) <= 10


def test_a_broken_stream_is_opened_again_and_nothing_is_lost(bus):
    topic, name = bus.make(enable_message_ordering=True)
    bus.send(topic, range(300), key="k")
    bus.server.fail("during StreamingPull", "UNAVAILABLE", times=3)
    bus.server.fail("Acknowledge", "UNAVAILABLE", times=2)
    results: list[int] = []
    line(number).run(subscribe(name, limit=300), results.append, how="line", workers=1)
    assert results == list(range(300))
    assert bus.server.calls["StreamingPull"] >= 4
    assert bus.server.left(name) == 0


def test_exactly_once_acknowledgements_are_checked(bus):
    topic, name = bus.make(enable_exactly_once_delivery=True)
    bus.send(topic, range(10))
    worked: list[int] = []

    def step(message):
        if not worked:
            bus.server.expire(name)  # what we hold is not ours any more, and comes again under a new lease
        worked.append(int(message.data))
        return worked[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an acknowledgement may cross with the message's coming again
        line(step).run(subscribe(name, idle=IDLE), how="loop")
    assert worked == list(range(10))
    assert bus.server.left(name) == 0


def test_exactly_once_acknowledgements_that_are_refused_are_told(bus):
    topic, name = bus.make(enable_exactly_once_delivery=True)
    bus.send(topic, [0])
    source: Any = subscribe(name, limit=1)

    def sink(_):
        with source._intake._changed:  # so that it does not hear of the message's coming again
            source._intake._ledger._leases["1"] = "0/99"

    with pytest.warns(RuntimeWarning, match="1 acknowledgements .* were not confirmed"):
        line(number).run(source, sink, how="loop")


def test_idle_ends_the_run_and_limit_does(bus):
    topic, name = bus.make()
    bus.send(topic, range(10))
    assert len(list(line(number)(subscribe(name, limit=4), how="loop"))) == 4
    assert len(list(line(number)(subscribe(name, idle=IDLE), how="loop"))) == 6
    assert left(name, 0) == []


@pytest.mark.filterwarnings("ignore:.*were not confirmed")
@pytest.mark.parametrize("how", ["the server is gone", "every stream is refused", "only looking is refused"])
def test_idle_does_not_end_well_what_cannot_be_read(bus, how):
    topic, name = bus.make()
    bus.send(topic, range(3))
    results = iter(line(number)(subscribe(name, idle=IDLE), how="loop"))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    if how == "the server is gone":
        bus.server.__exit__()
    elif how == "every stream is refused":
        bus.server.fail("StreamingPull", "UNAVAILABLE", times=100_000)
        bus.server.fail("during StreamingPull", "UNAVAILABLE")
    else:
        bus.server.fail("GetSubscription", "UNAVAILABLE", times=100_000)
    why = "UNAVAILABLE" if how == "the server is gone" else "UNAVAILABLE: as the test asked for"
    with pytest.raises(SourceError, match=f"cannot be reached.*{why}"):
        next(results)


@pytest.mark.parametrize("ends", [{"idle": IDLE}, {"seconds": 2 * IDLE}, {"idle": 0}])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED"])
def test_a_drain_does_not_end_well_where_the_stream_is_refused_from_the_start(bus, code, ends):
    topic, name = bus.make()
    bus.send(topic, range(3))
    bus.server.fail("StreamingPull", code, times=100_000)
    with pytest.raises(SourceError, match="cannot be reached" if code == "UNAVAILABLE" else "no permission"):
        list(line(number)(subscribe(name, **ends), how="loop"))


@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED"])
def test_a_drain_without_idle_time_waits_for_a_refusal_that_comes_late(bus, code):
    topic, name = bus.make()
    bus.send(topic, range(3))

    def late(request):  # the stream is refused only after the source has asked whether the subscription is there, twice
        while bus.server.calls["GetSubscription"] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        return True

    until = time.monotonic() + intake.REFUSAL / 2
    bus.server.fail("StreamingPull", code, times=100_000, when=late)
    with pytest.raises(SourceError, match="cannot be reached" if code == "UNAVAILABLE" else "no permission"):
        list(line(number)(subscribe(name, idle=0), how="loop"))


def test_the_time_of_a_drain_is_limited(bus):
    topic, name = bus.make()
    bus.send(topic, [0])
    with line(number)(subscribe(name, seconds=1.0), how="loop") as run:
        for n, result in enumerate(run):
            assert result == n
            bus.send(topic, [n + 1])  # there is always one more
    assert run.report.complete
    assert len(left(name, 1)) == 1


def test_idle_begins_anew_when_the_server_is_back(bus):
    topic, name = bus.make()
    bus.server.fail("StreamingPull", "UNAVAILABLE", times=2)
    bus.server.fail(
        "GetSubscription", "UNAVAILABLE", times=1, when=lambda request: bus.server.calls["StreamingPull"] > 2
    )
    results = iter(line(number)(subscribe(name, idle=3 * IDLE), how="loop"))
    bus.send(topic, range(3))
    assert list(results) == [0, 1, 2]
    assert bus.server.calls["StreamingPull"] == 3


def test_idle_does_not_end_a_run_that_works_on_a_full_window(bus):
    topic, name = bus.make()
    bus.send(topic, range(20))
    source: Any = subscribe(name, idle=0.01)
    source.open(2, 1 << 20)
    try:
        assert bus.server.until(lambda: source._intake._ledger.held == 2)
        assert len(source.take(2, 10)) == 2
        time.sleep(0.02)  # longer than idle
        assert source.take(1, 0) == []
        assert source.take(1, 1) is None
    finally:
        source.close()


def test_a_trickle_is_not_held_up(bus):
    topic, name = bus.make()
    bus.send(topic, [0])
    with line(number)(subscribe(name), how="line", workers=1, batch_size=100) as run:
        for n in range(3):
            assert next(run) == n
            bus.send(topic, [n + 1])


def test_a_batch_waits_for_more_until_it_is_full_or_its_time_is_over(bus):
    topic, name = bus.make()
    source = subscribe(name, wait=3600)
    source.open(None, 1 << 20)
    try:
        bus.send(topic, range(5))
        assert bus.server.until(lambda: bus.server.out(name) == 5)
        assert source.take(6, 0.05) == []
        assert [number(m) for m in source.take(5, 10)] == [0, 1, 2, 3, 4]
    finally:
        source.close()


def test_a_file_is_whole_when_the_run_ends_and_the_messages_are_acknowledged_then(bus, tmp_path):
    topic, name = bus.make()
    bus.send(topic, range(30))
    out = tmp_path / "out.jsonl"
    with pytest.raises(LineError, match=r"shows its results when the run ends.* idle="):
        line(number).run(subscribe(name, limit=30), write(out))
    early: list[str] = []
    bus.server.on_acknowledge = lambda ids: early.extend(ids) if not out.exists() else None
    line(number).run(subscribe(name, idle=IDLE), write(out), how="line", workers=1)
    assert out.read_text().split() == [str(n) for n in range(30)]
    assert not early
    assert bus.server.left(name) == 0


def test_a_failed_message_in_the_dead_letters_is_acknowledged(bus, tmp_path):
    topic, name = bus.make()
    bus.send(topic, [0, "x", 2])
    letters = tmp_path / "failed.jsonl"
    results: list[int] = []
    line(number).run(subscribe(name, limit=3), results.append, how="line", workers=1, dead_letters=str(letters))
    assert results == [0, 2]
    assert len(letters.read_text().splitlines()) == 1
    assert bus.server.left(name) == 0


@pytest.mark.parametrize("options", HOWS, ids=lambda options: options["how"])
def test_a_message_that_always_fails_is_tried_so_often_and_then_in_the_dead_letters(bus, tmp_path, options):
    topic, name = bus.make()
    bus.send(topic, [0, "x", 2])
    path = tmp_path / "failed.jsonl"
    results: list[int] = []
    source = subscribe(name, idle=IDLE, deliveries=3)
    report = line(number).run(source, results.append, dead_letters=path, **options)
    assert sorted(results) == [0, 2]
    assert (report.failed, report.dead_lettered) == (3, 1)
    (letter,) = read_dead_letters(path)
    assert letter.record.data == b"x"
    assert bus.server.left(name) == 0


def test_into_a_file_a_message_that_fails_comes_again_in_the_next_run(bus, tmp_path):
    topic, name = bus.make()
    bus.send(topic, [0, "x", 2])
    letters = tmp_path / "failed.jsonl"
    report = line(number).run(
        subscribe(name, idle=IDLE, deliveries=3, delay=60), write(tmp_path / "out.jsonl"), how="line", workers=1,
        dead_letters=letters,
    )  # fmt: skip
    assert (report.failed, report.dead_lettered, report.retry) == (1, 0, "")
    assert not letters.exists()
    assert "given back after a failure, to come again, and in no dead letter yet: 1" in report.notes
    assert bus.server.left(name) == 1


def test_without_dead_letters_it_is_dropped_then_and_the_server_counts_over_runs(bus):
    topic, name = bus.make()
    bus.send(topic, ["x"])
    counts = []
    for limit in (1, 5):
        report = line(number).run(subscribe(name, limit=limit, idle=IDLE, deliveries=3), how="loop", on_error="skip")
        counts.append(report.skipped)
    # The server may hand it out once more while the first run ends, which gives it back: that counts there too.
    assert counts in ([1, 2], [1, 1])
    assert bus.server.left(name) == 0


def test_the_servers_count_holds_where_there_is_one_and_else_the_runs_own():
    ledger = Ledger(deliveries=2)
    for comes_again in (True, False):
        ledger.arrived("a", Message(b"x", id="1"))
        (_,) = ledger.take(1)
        index = ledger.taken - 1
        assert ledger.comes_again(index) is comes_again
        ledger.safe(ledger.taken, [index], nack=True)
    assert (ledger.acks, ledger.later) == (["a"], ["a"])
    ledger = Ledger(deliveries=3)
    ledger.arrived("a", Message(b"x", id="1", delivery_attempt=3))
    ledger.arrived("b", Message(b"y", id="2", delivery_attempt=1))
    ledger.take(2)
    assert (ledger.comes_again(0), ledger.comes_again(1)) == (False, True)
    ledger.safe(2, [0, 1], nack=True)
    assert (ledger.acks, ledger.later) == (["a"], ["b"])


def test_a_failed_message_comes_again_after_a_delay(bus):
    topic, name = bus.make()
    bus.send(topic, ["x"])
    asked: list[int] = []
    bus.server.on_modify = asked.append
    line(number).run(subscribe(name, limit=1, delay=10), how="loop", on_error="skip")
    assert 10 in asked
    assert 0 not in asked
    assert bus.server.out(name) == 1


@pytest.mark.parametrize(
    "options", [{"how": "line", "batch_size": 50}, {"how": "line"}, {"how": "auto"}], ids=["asked", "line", "auto"]
)
def test_messages_travel_in_full_batches_where_they_may_wait(bus, options):
    topic, name = bus.make()
    bus.send(topic, range(200))
    together = batch(lambda messages: [len(messages)] * len(messages), size=50)
    source = subscribe(name, limit=200, wait=3600)
    assert list(line(together)(source, workers=2, **options)) == [50] * 200


def test_a_call_that_is_not_full_begins_when_its_first_message_has_waited(bus):
    topic, name = bus.make()
    bus.send(topic, range(7))
    together = batch(lambda messages: [len(messages)] * len(messages), size=100)
    assert sum(1 / n for n in line(together)(subscribe(name, limit=7, wait=0.05), how="line", workers=1)) <= 2


def test_two_runs_cannot_read_one_source(bus):
    _, name = bus.make()
    source = subscribe(name)
    source.open(None, 1 << 20)
    with pytest.raises(LineError, match="read by another run"):
        source.open(None, 1 << 20)
    source.close()


def test_runs_in_a_thread_do_not_catch_signals(bus):
    topic, name = bus.make()
    bus.send(topic, range(3))
    results: list[int] = []
    thread = threading.Thread(
        target=lambda: line(number).run(subscribe(name, limit=3), results.append, how="line", workers=1)
    )
    thread.start()
    thread.join()
    assert results == [0, 1, 2]


def test_the_ledger_forgets_the_oldest():
    ledger = Ledger(remembered=2)
    for n in range(3):
        ledger.arrived(f"a{n}", Message(b"", id=str(n)))
    ledger.take(3)
    ledger.safe(3, [], nack=True)
    assert [ledger.arrived("again", Message(b"", id=str(n))) for n in range(3)] == [True, False, False]


# --- what cannot work is said at once ---


def test_an_unknown_subscription(any_bus):
    with pytest.raises(SourceError, match=r"there is no subscription 'projects/test/subscriptions/none'; create it"):
        line(number).run(subscribe("projects/test/subscriptions/none"))


def test_no_permission(bus):
    _, name = bus.make()
    bus.server.fail("GetSubscription", "PERMISSION_DENIED")
    bus.server.fail("StreamingPull", "PERMISSION_DENIED")
    with pytest.raises(SourceError, match=r"no permission to use the subscription .* roles/pubsub.subscriber"):
        line(number).run(subscribe(name), how="loop")


def test_a_subscription_that_is_deleted_while_it_is_read(bus):
    topic, name = bus.make()
    bus.send(topic, [0])

    def sink(_):
        bus._subscriber.delete_subscription(request={"subscription": name})

    with pytest.warns(RuntimeWarning), pytest.raises(SourceError, match="there is no subscription"):
        line(number).run(subscribe(name), sink, how="loop")


def test_no_emulator(monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(SourceError, match=r"cannot be reached; is the emulator running at 127.0.0.1:1\?"):
        line(number).run(subscribe("projects/p/subscriptions/s"))


def test_an_empty_emulator_address_does_not_mean_the_real_service(monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")
    with pytest.raises(LineError, match="PUBSUB_EMULATOR_HOST is empty"):
        line(number).run(subscribe("projects/p/subscriptions/s"))


def test_an_undecodable_message_is_named(bus):
    topic, name = bus.make()
    bus.send(topic, ['{"n": 1}', "{"])
    results: list = []
    with pytest.raises(ValueError, match="message '2' is not JSON"):
        line(Message.json).run(subscribe(name), results.append, how="line", workers=1)
    assert results == [{"n": 1}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"wait": -1},
        {"limit": 0},
        {"lease": 5},
        {"lease": 601},
        {"failed": "drop"},
        {"idle": -1},
        {"seconds": -1},
        {"delay": 601},
        {"deliveries": 0},
        {"failed": "ack", "delay": 5},
        {"failed": "ack", "deliveries": 5},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(LineError, match=next(iter(wrong))):
        subscribe("projects/p/subscriptions/s", **wrong)


def test_its_health_tells_how_long_the_oldest_message_waits_and_what_refuses(bus):
    topic, name = bus.make()
    source: Any = subscribe(name)
    assert source.health() == Health()
    source.open(None, 1 << 20)
    assert source.health() == Health(lag=0.0)
    bus.send(topic, [0])
    while not source.take(1, 0.25):
        pass
    assert 0 < source.health().lag < 3_600
    source.safe(1, [])
    assert source.health() == Health(lag=0.0)
    source.close()
    bus.server.fail("StreamingPull", "UNAVAILABLE", times=1000)
    source.open(None, 1 << 20)
    while not source.health().refused:
        source.take(1, 0.25)
    assert source.health().refused.startswith("ServiceUnavailable since ")
    source.close()
