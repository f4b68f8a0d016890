"""Streams as URLs, for `taktline.read`, `taktline.write` and the command; the schemes "redis" and "rediss" lead here."""

from __future__ import annotations

from taktline.abc import Live, Resumable
from taktline.errors import LineError
from taktline.queues.options import options_of
from taktline.redis.sink import publish
from taktline.redis.stream import subscribe

_OF_READ = {
    "group": str, "consumer": str, "sole": bool, "shards": int, "start": str, "idle": float, "limit": int,
    "seconds": float, "drain": float, "lease": float, "deliveries": int, "delete": bool,
    "wait": float,
}  # fmt: skip
_OF_WRITE = {"shards": int, "key": str, "most": int, "patience": float}


def read(url: str) -> Live:
    """The messages of a stream; options of `subscribe` stand behind a "?".

    >>> read("redis://localhost/0/orders?group=pricing&idle=5").describe()
    'redis://localhost:6379/0/orders'
    """
    options = options_of(url, _OF_READ)
    if "group" not in options:
        raise LineError('whose messages? Name a consumer group in the URL: "redis://HOST/0/STREAM?group=NAME"')
    return subscribe(url, **options)


def write(url: str) -> Resumable:
    """A stream to add to; options of `publish` stand behind a "?".

    >>> write("redis://localhost/0/priced?most=1000000").describe()
    'redis://localhost:6379/0/priced'
    """
    return publish(url, **options_of(url, _OF_WRITE))
