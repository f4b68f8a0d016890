"""Subscriptions and topics as URLs, for `taktline.read`, `taktline.write` and the command; the scheme "pubsub" leads here."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from taktline.abc import Live, Resumable
from taktline.errors import LineError, did_you_mean
from taktline.pubsub.subscription import subscribe
from taktline.pubsub.topic import publish

_OF_READ = {
    "wait": float, "idle": float, "limit": int, "seconds": float, "drain": float, "failed": str,
    "delay": int, "deliveries": int, "lease": int, "endpoint": str,
}  # fmt: skip
_OF_WRITE = {"patience": float, "endpoint": str}


def read(url: str, credentials: Any = None) -> Live:
    """The messages of a subscription; options of `subscribe` stand behind a "?".

    >>> read("pubsub://projects/p/subscriptions/orders?idle=5&limit=100").describe()
    'projects/p/subscriptions/orders'
    """
    name, options = _parsed(url, _OF_READ)
    return subscribe(name, **options, credentials=credentials)


def write(url: str, credentials: Any = None) -> Resumable:
    """A topic to publish to; options of `publish` stand behind a "?".

    >>> write("pubsub://projects/p/topics/scored").describe()
    'projects/p/topics/scored'
    """
    name, options = _parsed(url, _OF_WRITE)
    return publish(name, **options, credentials=credentials)


def _parsed(url: str, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name in a URL, and its options. Raises LineError for those that are not known."""
    parts, options = urlsplit(url), {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise LineError(f"{url!r}: there is no option {name!r}{hint}")
        try:
            options[name] = known[name](text)
        except ValueError:
            kind = "a whole number" if known[name] is int else "a number"
            raise LineError(f"{url!r}: {name}={text!r} is not {kind}") from None
    return f"{parts.netloc}{parts.path}", options


read.__module__ = write.__module__ = "taktline.pubsub"
