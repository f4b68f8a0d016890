"""A Pub/Sub server in memory, made from the client library's own service definitions.

It knows what the pstest server of Debian's Go packages does not: ordering keys, flow control, exactly-once delivery, and
faults. As the real service does, it sends a message of an ordered subscription that was given back or whose lease ran out
again together with those of the same key after it, and sends a key's messages to one stream only while some are out.

`python -m pubsub.server` says its address and serves until its standard input ends.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.pubsub_v1 import types
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

THREADS = 32
TICK = 0.01  # seconds between two looks for leases that have run out


def plain(message: Any) -> Any:
    """The protocol buffer class behind one of the library's types."""
    return message.pb(message()).__class__


@dataclass
class Out:
    """A message on its way: delivered, and neither acknowledged nor given back."""

    ack_id: str
    until: float
    stream: int


@dataclass
class Feed:
    """A subscription's messages. Each is waiting, out, or acknowledged; its number is its place in `log`."""

    proto: Any
    log: list[Any] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)  # a heap
    out: dict[int, Out] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    attempts: Counter[int] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)  # messages out of each key
    owner: dict[str, int] = field(default_factory=dict)  # the stream that a key's messages are, or were last, out on
    streams: set[int] = field(default_factory=set)  # that are open

    def give_back(self, number: int) -> None:
        """Send it again, and with it, where keys are ordered, those of its key that are out after it."""
        key = self.log[number].ordering_key
        again = [number]
        if key and self.proto.enable_message_ordering:
            again += [n for n in self.out if n > number and self.log[n].ordering_key == key]
        for each in again:
            self._not_out(each)
            heapq.heappush(self.waiting, each)

    def acknowledge(self, number: int) -> None:
        self._not_out(number)
        self.acknowledged.add(number)

    def _not_out(self, number: int) -> None:
        del self.out[number]
        self.keys[self.log[number].ordering_key] -= 1


class Server:
    """`with Server() as server:` serves at `server.address`. `second`: how long a second of a lease lasts here."""

    def __init__(self, second: float = 1.0) -> None:
        self.second = second
        self.flow_control = True  # whether the window that a client asks for is kept
        self.response = 100  # messages in a response at most
        self.calls: Counter[str] = Counter()
        self.on_acknowledge: Callable[[list[str]], None] = lambda ids: None  # told before they count
        self.on_modify: Callable[[int], None] = lambda seconds: None
        self.acknowledged: list[str] = []  # ids of messages, in the order of their acknowledgement
        self.given_back: list[str] = []
        self.most_out = 0  # that were ever out on one stream
        self._faults: list[tuple[str, grpc.StatusCode, Callable[[Any], bool]]] = []
        self._topics: dict[str, list[Feed]] = {}
        self._feeds: dict[str, Feed] = {}
        self._changed = threading.Condition()
        self._ids = 0
        self._streams = 0
        self._over = threading.Event()
        threads = ThreadPoolExecutor(THREADS)
        all_there = threading.Barrier(THREADS)  # from the start: some test counts the threads of its process
        wait([threads.submit(all_there.wait) for _ in range(THREADS)])
        self._server = grpc.server(
            threads, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )  # fmt: skip
        self._server.add_generic_rpc_handlers(self._handlers())
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Server:
        self._server.start()
        threading.Thread(target=self._expire, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        self._server.stop(None).wait()

    # --- what tests ask for ---

    def fail(self, method: str, code: str, times: int = 1, when: Callable[[Any], bool] = lambda request: True) -> None:
        """The next calls of this method, those that `when` chooses, fail with this code."""
        self._faults += [(method, grpc.StatusCode[code], when)] * times

    def expire(self, name: str) -> None:
        """All leases of this subscription run out now."""
        with self._changed:
            for number in sorted(self._feeds[name].out):
                if number in self._feeds[name].out:
                    self._feeds[name].give_back(number)
            self._changed.notify_all()

    def send_again(self, name: str, ids: Sequence[str]) -> None:
        """Deliver these messages once more, though they were acknowledged: the service may do so at any time."""
        with self._changed:
            feed = self._feeds[name]
            for number, message in enumerate(feed.log):
                if message.message_id in ids and number in feed.acknowledged:
                    feed.acknowledged.remove(number)
                    heapq.heappush(feed.waiting, number)
            self._changed.notify_all()

    def left(self, name: str) -> int:
        """Messages that are not acknowledged."""
        with self._changed:
            return len(self._feeds[name].log) - len(self._feeds[name].acknowledged)

    def out(self, name: str) -> int:
        """Messages that are delivered and not acknowledged."""
        with self._changed:
            return len(self._feeds[name].out)

    def streams(self, name: str) -> int:
        """Streams that are open: that of a client that was killed is so until the server has noticed its end."""
        with self._changed:
            return len(self._feeds[name].streams)

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Wait for something to be true of this server; whether it came true."""
        end = time.monotonic() + seconds
        with self._changed:
            while not condition():
                if time.monotonic() > end:
                    return False
                self._changed.wait(0.05)
        return True

    # --- the service ---

    def _handlers(self) -> tuple[Any, ...]:
        unary = grpc.unary_unary_rpc_method_handler
        publisher = {
            "CreateTopic": (self._create_topic, types.Topic),
            "GetTopic": (self._get_topic, types.GetTopicRequest),
            "Publish": (self._publish, types.PublishRequest),
        }
        subscriber = {
            "CreateSubscription": (self._create_subscription, types.Subscription),
            "GetSubscription": (self._get_subscription, types.GetSubscriptionRequest),
            "DeleteSubscription": (self._delete_subscription, types.DeleteSubscriptionRequest),
            "Acknowledge": (self._acknowledge, types.AcknowledgeRequest),
            "ModifyAckDeadline": (self._modify, types.ModifyAckDeadlineRequest),
        }
        found = []
        for service, methods in (("Publisher", publisher), ("Subscriber", subscriber)):
            handlers = {
                name: unary(
                    self._counted(name, work), plain(request).FromString, lambda answer: answer.SerializeToString()
                )
                for name, (work, request) in methods.items()
            }
            if service == "Subscriber":
                handlers["StreamingPull"] = grpc.stream_stream_rpc_method_handler(
                    self._pull, plain(types.StreamingPullRequest).FromString, lambda answer: answer.SerializeToString()
                )
            found.append(grpc.method_handlers_generic_handler(f"google.pubsub.v1.{service}", handlers))
        return tuple(found)

    def _counted(self, name: str, work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            with self._changed:
                self.calls[name] += 1
                self._changed.notify_all()
            self._maybe_fail(name, request, context)
            return work(request, context)

        return call

    def _maybe_fail(self, name: str, request: Any, context: Any) -> None:
        for fault in self._faults:
            method, code, when = fault
            if method == name and when(request):
                self._faults.remove(fault)
                context.abort(code, "as the test asked for")

    def _create_topic(self, request: Any, context: Any) -> Any:
        self._topics[request.name] = []
        return request

    def _get_topic(self, request: Any, context: Any) -> Any:
        if request.topic not in self._topics:
            context.abort(grpc.StatusCode.NOT_FOUND, "Topic not found")
        return plain(types.Topic)(name=request.topic)

    def _publish(self, request: Any, context: Any) -> Any:
        if request.topic not in self._topics:
            context.abort(grpc.StatusCode.NOT_FOUND, "Topic not found")
        if len({message.ordering_key for message in request.messages}) > 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a request may have one ordering key only")
        if len(request.messages) > 1000 or request.ByteSize() > 10_000_000:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is too large")
        ids = []
        with self._changed:
            for message in request.messages:
                self._ids += 1
                message.message_id = str(self._ids)
                message.publish_time.GetCurrentTime()
                ids.append(message.message_id)
                for feed in self._topics[request.topic]:
                    heapq.heappush(feed.waiting, len(feed.log))
                    feed.log.append(message)
            self._changed.notify_all()
        return plain(types.PublishResponse)(message_ids=ids)

    def _create_subscription(self, request: Any, context: Any) -> Any:
        feed = self._feeds[request.name] = Feed(request)
        self._topics[request.topic].append(feed)
        return request

    def _get_subscription(self, request: Any, context: Any) -> Any:
        return self._feed(request.subscription, context).proto

    def _delete_subscription(self, request: Any, context: Any) -> Any:
        from google.protobuf.empty_pb2 import Empty

        with self._changed:
            self._feeds.pop(request.subscription)
            self._changed.notify_all()
        return Empty()

    def _acknowledge(self, request: Any, context: Any) -> Any:
        from google.protobuf.empty_pb2 import Empty

        feed = self._feed(request.subscription, context)
        with self._changed:
            wrong = self._not_ours(feed, request.ack_ids)
            numbers = [_number(ack_id) for ack_id in request.ack_ids if ack_id not in wrong]
            numbers = [number for number in numbers if number in feed.out]
            self.on_acknowledge([feed.log[number].message_id for number in numbers])
            for number in numbers:
                feed.acknowledge(number)
                self.acknowledged.append(feed.log[number].message_id)
            self._changed.notify_all()
        self._refuse(feed, wrong, context)
        return Empty()

    def _modify(self, request: Any, context: Any) -> Any:
        from google.protobuf.empty_pb2 import Empty

        feed = self._feed(request.subscription, context)
        with self._changed:
            wrong = self._not_ours(feed, request.ack_ids)
            self.on_modify(request.ack_deadline_seconds)
            now = time.monotonic()
            for ack_id in request.ack_ids:
                number = _number(ack_id)
                if number not in feed.out or feed.out[number].ack_id != ack_id:
                    continue
                if request.ack_deadline_seconds:
                    feed.out[number].until = now + request.ack_deadline_seconds * self.second
                else:
                    self.given_back.append(feed.log[number].message_id)
                    feed.give_back(number)
            self._changed.notify_all()
        self._refuse(feed, wrong, context)
        return Empty()

    def _not_ours(self, feed: Feed, ack_ids: Sequence[str]) -> list[str]:
        """The ids that name no delivery that is out."""
        out = feed.out
        return [a for a in ack_ids if _number(a) not in out or out[_number(a)].ack_id != a]

    def _refuse(self, feed: Feed, wrong: list[str], context: Any) -> None:
        if not wrong or not feed.proto.enable_exactly_once_delivery:
            return
        info = error_details_pb2.ErrorInfo(
            reason="PERMANENT_FAILURE", domain="pubsub.googleapis.com",
            metadata=dict.fromkeys(wrong, "PERMANENT_FAILURE_INVALID_ACK_ID"),
        )  # fmt: skip
        status = status_pb2.Status(code=9, message="some acknowledgement ids are invalid")
        status.details.add().Pack(info)
        context.abort_with_status(rpc_status.to_status(status))

    def _feed(self, name: str, context: Any) -> Feed:
        if name not in self._feeds:
            context.abort(grpc.StatusCode.NOT_FOUND, "Resource not found")
        return self._feeds[name]

    def _pull(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests)
        self.calls["StreamingPull"] += 1
        self._maybe_fail("StreamingPull", first, context)
        feed = self._feed(first.subscription, context)
        with self._changed:
            self._streams += 1
            stream = self._streams
            feed.streams.add(stream)
        ended = threading.Event()  # by the client, which still wants what was sent
        threading.Thread(target=self._hear, args=(requests, ended), daemon=True).start()
        try:
            yield from self._deliver(feed, stream, first, context, ended)
        finally:
            with self._changed:
                feed.streams.discard(stream)
                self._changed.notify_all()
        self._feed(first.subscription, context)

    def _deliver(self, feed: Feed, stream: int, first: Any, context: Any, ended: threading.Event) -> Iterator[Any]:
        most = first.max_outstanding_messages if self.flow_control else 1 << 30
        while not self._over.is_set() and not ended.is_set() and context.is_active():
            self._maybe_fail("during StreamingPull", first, context)
            with self._changed:
                if first.subscription not in self._feeds:
                    break
                answer = self._next(feed, stream, most, first.stream_ack_deadline_seconds * self.second)
                if not answer.received_messages:
                    self._changed.wait(0.05)
                    continue
            yield answer

    def _hear(self, requests: Iterator[Any], ended: threading.Event) -> None:
        try:
            for _ in requests:  # the client's heartbeats
                pass
        except Exception:
            pass  # the stream was cancelled; the library raises a bare Exception
        ended.set()
        with self._changed:
            self._changed.notify_all()

    def _next(self, feed: Feed, stream: int, most: int, lease: float) -> Any:
        answer = plain(types.StreamingPullResponse)()
        free = most - sum(one.stream == stream for one in feed.out.values()) if feed.waiting else 0
        kept, until = [], time.monotonic() + lease
        while feed.waiting and len(answer.received_messages) < min(free, self.response):
            number = heapq.heappop(feed.waiting)
            if number in feed.acknowledged:  # it was given back and then acknowledged after all
                continue
            message = feed.log[number]
            key = message.ordering_key if feed.proto.enable_message_ordering else ""
            if key and feed.keys[key] and feed.owner.get(key, stream) != stream:
                kept.append(number)
                continue
            if key:
                feed.owner[key] = stream
            feed.keys[message.ordering_key] += 1
            feed.attempts[number] += 1
            ack_id = f"{number}/{feed.attempts[number]}"
            feed.out[number] = Out(ack_id, until, stream)
            answer.received_messages.add(ack_id=ack_id, message=message, delivery_attempt=feed.attempts[number])
        for number in kept:
            heapq.heappush(feed.waiting, number)
        self.most_out = max(self.most_out, sum(one.stream == stream for one in feed.out.values()))
        return answer

    def _expire(self) -> None:
        while not self._over.wait(TICK):
            with self._changed:
                now = time.monotonic()
                for feed in self._feeds.values():
                    for number in sorted(n for n, one in feed.out.items() if one.until < now):
                        if number in feed.out:
                            feed.give_back(number)
                self._changed.notify_all()


def _number(ack_id: str) -> int:
    return int(ack_id.split("/")[0])


if __name__ == "__main__":
    with Server() as server:
        print(server.address, flush=True)
        sys.stdin.read()
