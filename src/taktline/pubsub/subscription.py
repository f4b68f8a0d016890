"""A subscription as a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline.abc import Health, Live
from taktline.errors import LineError
from taktline.pubsub.client import check_name
from taktline.pubsub.intake import Intake, Settings

WINDOW, MEMORY = 1000, 100 << 20  # messages and bytes, where the run does not say: the client library's own limits


def subscribe(
    subscription: str, *, wait: float = 0.01, idle: float | None = None, limit: int | None = None,
    seconds: float | None = None, drain: float = 30.0, failed: str = "nack", delay: int = 0, deliveries: int | None = None,
    lease: int = 60, endpoint: str | None = None, credentials: Any = None,
) -> Live:  # fmt: skip
    """The messages of a subscription ("projects/PROJECT/subscriptions/NAME"), for ever, as a source of a line.

    A message is acknowledged after its result is safe: the sink has it, or, in a loop, the next result is asked for. All
    that are not go back when the run ends. The run's `window` (1000 where None) is the flow control.

    wait: seconds a batch may wait for more messages. idle: seconds without a message after which the run ends;
    time in which the server cannot be reached does not count, and as many seconds of that end it in SourceError.
    limit: messages after which it ends. seconds: time after which it takes no more, and ends well once all that it took is
    safe; in SourceError where the subscription could not be read then. drain: seconds that a SIGTERM gives to what is under
    way; what is not done then goes back and SystemExit(143) is raised. failed: "nack" gives a message that
    `on_error="skip"` leaves out back, to come again or to go to the subscription's dead letter topic; "ack" drops it.
    delay: seconds (0 to 600) after which a message that was given back as it failed comes again, where the server has no
    longer pause. deliveries: how often a message that fails is tried; then it goes to the run's `dead_letters`, and only
    then, or is dropped where there are none. The server's count holds where the subscription has a dead letter topic, else
    this run's. lease: seconds (10 to 600) after which another subscriber gets the messages of one that was killed.
    endpoint: host of a regional service. credentials: of google.auth; those of the environment where it is None.

    Raises LineError for wrong settings; the run raises SourceError where the subscription cannot be read.

    >>> subscribe("orders")
    Traceback (most recent call last):
    ...
    taktline.LineError: 'orders' is no subscription: give "projects/PROJECT/subscriptions/NAME"
    """
    check_name(subscription, "subscription")
    for name, value, low, high in (
        ("wait", wait, 0, 3600), ("idle", idle, 0, None), ("limit", limit, 1, None), ("seconds", seconds, 0, None),
        ("drain", drain, 0, None), ("lease", lease, 10, 600), ("delay", delay, 0, 600), ("deliveries", deliveries, 1, None),
    ):  # fmt: skip
        if value is not None and (value < low or (high is not None and value > high)):
            raise LineError(f"{name}={value!r}: give at least {low}" + (f" and at most {high}" if high else ""))
    if failed not in ("nack", "ack"):
        raise LineError(f"failed={failed!r}: choose one of 'nack', 'ack'")
    nacks = failed == "nack"
    if not nacks and (delay or deliveries is not None):
        raise LineError(
            "failed='ack' drops a message that fails, so it never comes again: leave out delay= and deliveries="
        )
    settings = Settings(
        subscription, wait, idle, limit, seconds, nacks, delay, deliveries, lease, endpoint, credentials
    )
    return Subscription(settings, drain)


class Subscription(Live):
    """The settings, and while a run reads it, its intake."""

    forks = False

    def __init__(self, settings: Settings, drain: float) -> None:
        self._settings = settings
        self.drain = drain
        self.ends = settings.idle is not None or settings.seconds is not None
        self._intake: Intake | None = None

    def describe(self) -> str:
        return self._settings.name

    def open(self, window: int | None, memory: int) -> None:
        if self._intake is not None:
            raise LineError(f"{self._settings.name!r} is read by another run; call subscribe() once for each run")
        self._intake = Intake(self._settings, window or WINDOW, memory)

    def take(self, most: int, seconds: float) -> list[Any] | None:
        if self._intake is None:
            self.open(None, MEMORY)
        assert self._intake is not None
        return self._intake.take(most, seconds)

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        if self._intake is not None:
            self._intake.safe(records, skipped)

    def health(self) -> Health:
        return self._intake.health() if self._intake is not None else Health()

    def comes_again(self, index: int) -> bool:
        return self._settings.deliveries is not None and self._intake is not None and self._intake.comes_again(index)

    def close(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.close()


subscribe.__module__ = "taktline.pubsub"
