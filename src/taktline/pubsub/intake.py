"""One run's connection to a subscription: receives messages, keeps their leases, acknowledges.

The client library's own subscriber is not used: it holds messages back in a buffer of its own where keys are ordered, which
its flow control leaves out, and hands each message to a callback in a thread.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep, time
from typing import Any

from taktline.abc import Health
from taktline.errors import SourceError
from taktline.pubsub.client import (
    CALL_SECONDS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PASSING_CODES,
    check_there,
    connect,
    explained,
    passes,
)
from taktline.pubsub.ledger import Ledger
from taktline.pubsub.message import received
from taktline.queues.ending import warn_full

EXTEND = 3.0  # seconds between two extensions of all leases: the shortest deadline that Pub/Sub knows is 10 s
HEARTBEAT = 30.0  # seconds: what lies between drops a stream on which nothing moves
IDS = 1000  # acknowledgements in a request, whose limit is 512 KiB
GRACE = 2.0  # seconds a stream may take to end, so that what was already sent arrives and can be given back
FLUSH = 15.0  # seconds the last acknowledgements may take
FULL = 0.002  # seconds that a full window is waited for
STOOD = 60.0  # seconds after which a stream that breaks has stood: servers end each one now and then
LOOK = 0.25  # seconds of waiting after which it looks around
REFUSAL = 1.0  # seconds a server may take to refuse a stream: one that has nothing to send does not say that it accepts


@dataclass(frozen=True, slots=True)
class Settings:
    """What `subscribe` was given."""

    name: str
    wait: float
    idle: float | None
    limit: int | None
    seconds: float | None
    nacks: bool
    delay: int
    deliveries: int | None
    lease: int
    endpoint: str | None
    credentials: Any = None


class Intake:
    """One thread receives into the ledger, one acknowledges and extends leases. Raises SourceError where neither can be.

    `window`, `memory`: most messages and bytes from their arrival to their acknowledgement."""

    def __init__(self, settings: Settings, window: int, memory: int) -> None:
        self._settings = settings
        self._window = min(window, settings.limit or window)
        self._memory = memory
        self._client = connect("SubscriberClient", settings.endpoint, SourceError, settings.credentials)
        try:
            found = check_there(self._client.get_subscription, "subscription", settings.name, SourceError)
        except BaseException:
            self._client.transport.close()
            raise
        self._exactly_once = found is not None and found.enable_exactly_once_delivery
        self._changed = threading.Condition()  # guards all below
        self._ledger = Ledger(deliveries=settings.deliveries)
        self._over = threading.Event()  # nothing more is wanted
        self._last = threading.Event()  # all that is owed is in the ledger: send it, and end
        self._error: Exception | None = None  # that ended the receiving
        self._stream: Any = None
        self._opened = self._moved = monotonic()  # when a stream was last opened, a message last came, or was safe
        self._ends = self._opened + settings.seconds if settings.seconds is not None else None
        self._oldest = 0.0  # when the first of those that wait came
        self._standing = False  # a stream is open, and nothing is known of it but good
        self._proven = False  # something came through it
        self._away: float | None = None  # since when no stream has stood for long
        self._reason: BaseException | None = None  # why the newest one broke
        self._unconfirmed = 0  # acknowledgements
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"taktline-pubsub{work.__name__}", daemon=True)
            for work in (self._receive, self._keep)
        ]
        for thread in self._threads:
            thread.start()

    # --- in the caller's thread ---

    def take(self, most: int, seconds: float) -> list[Any] | None:
        """At most `most` messages, once there are as many or the first has waited long enough; None: no more."""
        settings, ledger = self._settings, self._ledger
        until = monotonic() + seconds
        with self._changed:
            while True:
                now = monotonic()
                if settings.limit is not None:
                    most = min(most, settings.limit - ledger.taken)
                if most <= 0:
                    return None
                if self._ends is not None and now >= self._ends:  # what waits goes back, and comes another time
                    if self._error is not None:
                        raise self._error
                    if not ledger.taken:
                        self._check_reached(0.0)
                    return None
                if ledger.waiting:
                    due = self._oldest + settings.wait
                    if now >= due or len(ledger.waiting) >= most or ledger.held >= self._window:
                        self._oldest = now
                        return ledger.take(most)
                elif self._error is not None:
                    raise self._error
                else:
                    due = until if settings.idle is None else self._moved + settings.idle
                    if settings.idle is not None and self._standing and not self._proven:
                        due = max(due, self._opened + REFUSAL)
                    # A full window tells nothing of what there is to come, while the run still works on it.
                    if settings.idle is not None and (seconds or ledger.held < self._window):
                        if self._standing and now >= due and self._answers():
                            if seconds and ledger.held >= self._window:
                                warn_full(settings.name, ledger.held)
                            return None
                        if not self._standing or now >= due:
                            self._check_reached(settings.idle)
                    due = due if due > now else now + LOOK
                if now >= until:
                    return []
                if ledger.held >= self._window:  # nothing comes before something is safe: let the caller see to that
                    until = min(until, now + FULL)
                until = min(until, self._ends or until)
                self._changed.wait(max(0.0, min(due, until, now + LOOK) - now))

    def _answers(self) -> bool:
        """Whether nothing comes because there is nothing: a stream whose server has stopped is silent too. Raises
        SourceError where the subscription cannot be read."""
        moved = self._moved
        trouble: BaseException | None = None
        self._changed.release()
        try:
            check_there(self._client.get_subscription, "subscription", self._settings.name, SourceError)
        except SourceError as error:
            trouble = error.__cause__
            if trouble is None or not hasattr(trouble, "grpc_status_code") or not passes(trouble):
                raise
        finally:
            self._changed.acquire()
        if trouble is not None:
            self._away, self._reason = self._away or monotonic(), trouble
            return False
        return self._standing and moved == self._moved and not self._ledger.waiting and self._error is None

    def _check_reached(self, idle: float) -> None:
        """Raises SourceError where the server has been out of reach for as long as the source may be idle."""
        if self._away is None or monotonic() < self._away + idle or (self._standing and self._reason is None):
            return
        name = self._settings.name
        if self._reason is None:
            raise SourceError(f"the subscription {name!r} cannot be read: its server ends every stream it has opened")
        raise explained(self._reason, "subscription", name, SourceError) from self._reason

    def health(self) -> Health:
        """How long the oldest message that is not safe waits since it was published, and why no stream stands. How many wait
        at the server only Cloud Monitoring tells."""
        with self._changed:
            oldest, away, reason = self._ledger.oldest, self._away, self._reason
        lag = max(0.0, time() - oldest) if oldest is not None else 0.0
        refused = "" if away is None or reason is None else f"{type(reason).__name__} since {monotonic() - away:.0f} s"
        return Health(lag=lag, refused=refused)

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        """The results of all before the index `records` are safe, but those at `skipped`, which were left out."""
        with self._changed:
            if self._ledger.safe(records, skipped, nack=self._settings.nacks):
                self._moved = monotonic()
            self._changed.notify_all()

    def comes_again(self, index: int) -> bool:
        """Whether the message at this index, which failed, is given back."""
        with self._changed:
            return self._settings.nacks and self._ledger.comes_again(index)

    def close(self) -> None:
        """Give back what is not safe, send what is to be acknowledged, end the threads."""
        with self._changed:
            self._over.set()
            stream = self._stream
            self._changed.notify_all()
        receiver, keeper = self._threads
        receiver.join(GRACE)
        if stream is not None:
            stream.cancel()
        receiver.join()
        with self._changed:
            self._ledger.give_back()
            self._last.set()
            self._changed.notify_all()
        keeper.join()
        self._client.transport.close()
        if self._unconfirmed:
            warnings.warn(
                f"{self._unconfirmed:,} acknowledgements to {self._settings.name!r} were not confirmed: these messages "
                "will come again, though their results are safe",
                RuntimeWarning,
                stacklevel=2,
            )

    # --- in the thread that receives ---

    def _guard(self, work: Callable[[], None]) -> None:
        """All of a thread: what goes wrong in it is raised by `take`."""
        try:
            work()
        except Exception as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _receive(self) -> None:
        import grpc

        pause = FIRST_PAUSE
        while (stream := self._open_stream()) is not None:
            try:
                for response in stream:
                    pause = FIRST_PAUSE
                    self._arrived(type(response).pb(response))  # the wrapper costs more than all else here
                self._broke(None)
            except grpc.RpcError as error:
                if error.code().name not in PASSING_CODES:
                    self._fail(error)
                    return
                self._broke(error)
            self._over.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _open_stream(self) -> Any:
        """A new stream; None once the run is over."""
        with self._changed:  # so that `close` either knows this stream or prevents it
            if self._over.is_set():
                return None
            route = (("x-goog-request-params", f"subscription={self._settings.name}"),)
            self._stream = self._client.transport.streaming_pull(self._requests(), metadata=route)
            self._standing, self._proven, self._opened = True, False, monotonic()
            if self._away is not None:  # while there was none nothing could come: the idle time begins anew
                self._moved = self._opened
            self._changed.notify_all()
            return self._stream

    def _broke(self, error: Any) -> None:
        """A stream has ended, and another one will be opened."""
        from google.api_core.exceptions import from_grpc_error

        with self._changed:
            now, self._standing = monotonic(), False
            if self._away is None or now - self._opened > STOOD:
                self._away = now
            self._reason = from_grpc_error(error) if error is not None else self._reason
            self._changed.notify_all()

    def _requests(self) -> Iterator[Any]:
        from google.pubsub_v1.types import StreamingPullRequest

        yield StreamingPullRequest(
            subscription=self._settings.name, stream_ack_deadline_seconds=self._settings.lease,
            max_outstanding_messages=self._window, max_outstanding_bytes=self._memory,
        )  # fmt: skip
        while not self._over.wait(HEARTBEAT):
            yield StreamingPullRequest()

    def _arrived(self, response: Any) -> None:
        if response.HasField("subscription_properties"):
            self._exactly_once = response.subscription_properties.exactly_once_delivery_enabled
        deliveries = response.received_messages
        refused: set[str] = set()
        if (
            self._exactly_once and not self._over.is_set()
        ):  # a message is ours only once the server has confirmed the lease
            refused = self._extend([one.ack_id for one in deliveries])
        with self._changed:
            self._moved, self._away, self._reason, self._proven = monotonic(), None, None, True
            if not self._ledger.waiting:
                self._oldest = self._moved
            for one in deliveries:
                if one.ack_id not in refused:
                    self._ledger.arrived(one.ack_id, received(one))
            self._changed.notify_all()
            # The server holds back what the window has no room for; one that does not is not listened to.
            while self._ledger.held >= self._window and not self._over.is_set():
                self._changed.wait()

    def _fail(self, error: Any) -> None:
        from google.api_core.exceptions import from_grpc_error

        with self._changed:
            self._error = explained(from_grpc_error(error), "subscription", self._settings.name, SourceError)
            self._changed.notify_all()

    # --- in the thread that keeps leases ---

    def _keep(self) -> None:
        extend_at, flush_until, pause = monotonic() + EXTEND, 0.0, 0.0
        while True:
            last = self._last.is_set()
            passed = self._settle()
            if last:
                flush_until = flush_until or monotonic() + FLUSH
                if passed or monotonic() > flush_until:
                    self._unconfirmed += len(self._ledger.acks)
                    return
            elif monotonic() >= extend_at:
                with self._changed:
                    leases = self._ledger.leases()
                lost = self._extend(leases)
                with self._changed:
                    self._ledger.lost(lost)
                extend_at = monotonic() + EXTEND
            pause = 0.0 if passed else min(max(FIRST_PAUSE, pause * 2), EXTEND)
            sleep(pause)
            self._rest_until(extend_at)

    def _settle(self) -> bool:
        """Send what is to be acknowledged and given back; what did not go through is kept. Whether all of it did."""
        ledger = self._ledger
        with self._changed:
            acks, ledger.acks = ledger.acks, []
            nacks, ledger.nacks = ledger.nacks, []
            later, ledger.later = ledger.later, []
        acks_again, refused = self._in_lots(self._acknowledge, acks)
        nacks_again, _ = self._in_lots(lambda ids: self._modify(ids, 0), nacks)
        later_again, _ = self._in_lots(lambda ids: self._modify(ids, self._settings.delay), later)
        self._unconfirmed += len(refused)
        with self._changed:
            ledger.acks[:0], ledger.nacks[:0], ledger.later[:0] = acks_again, nacks_again, later_again
        return not acks_again and not nacks_again and not later_again

    def _rest_until(self, when: float) -> None:
        with self._changed:
            if not (self._ledger.acks or self._ledger.nacks or self._ledger.later or self._last.is_set()):
                self._changed.wait(max(0.0, min(LOOK, when - monotonic())))

    # --- requests ---

    def _extend(self, leases: list[str]) -> set[str]:
        """Extend these. The ones that the server, where it delivers exactly once, says are not ours any more."""
        _, refused = self._in_lots(lambda ids: self._modify(ids, self._settings.lease), leases)
        return refused if self._exactly_once else set()

    def _acknowledge(self, ids: list[str]) -> None:
        self._client.acknowledge(
            request={"subscription": self._settings.name, "ack_ids": ids}, retry=None, timeout=CALL_SECONDS
        )

    def _modify(self, ids: list[str], seconds: int) -> None:
        self._client.modify_ack_deadline(
            request={"subscription": self._settings.name, "ack_ids": ids, "ack_deadline_seconds": seconds},
            retry=None, timeout=CALL_SECONDS,
        )  # fmt: skip

    def _in_lots(self, request: Callable[[list[str]], None], ids: list[str]) -> tuple[list[str], set[str]]:
        """Make this request about all these; the ids to try again, and those that were refused for good."""
        again: list[str] = []
        refused: set[str] = set()
        for at in range(0, len(ids), IDS):
            lot = ids[at : at + IDS]
            try:
                request(lot)
            except Exception as error:
                lot_again, lot_refused = self._unconfirmed_of(error, lot)
                again += lot_again
                refused |= lot_refused
        return again, refused

    def _unconfirmed_of(self, error: Exception, ids: list[str]) -> tuple[list[str], set[str]]:
        from google.api_core.exceptions import GoogleAPICallError

        if not isinstance(error, GoogleAPICallError):
            raise error
        each = error.metadata or {}
        if self._exactly_once and any(ack_id in each for ack_id in ids):  # those that are not named were confirmed
            return (
                [ack_id for ack_id in ids if each.get(ack_id, "").startswith("TRANSIENT_FAILURE")],
                {ack_id for ack_id in ids if each.get(ack_id, "").startswith("PERMANENT_FAILURE")},
            )
        if passes(error):
            return ids, set()
        with self._changed:
            self._error = self._error or explained(error, "subscription", self._settings.name, SourceError)
        return [], set(ids)
