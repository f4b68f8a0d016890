"""A Redis server: how its URL is read, how it is reached, and what it means that it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from taktline.errors import LineError, SinkError, SourceError

CALL = 5.0  # seconds a request may take
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds before something that failed is tried again

Trouble = type[SourceError] | type[SinkError]


@dataclass(frozen=True, slots=True)
class StreamUrl:
    """What a URL names: a stream in a database of a server.

    >>> url = StreamUrl.parsed("redis://me:secret@cache:6380/2/orders?group=g")
    >>> url.server, url.stream, str(url)
    ('redis://me:secret@cache:6380/2', 'orders', 'redis://cache:6380/2/orders')
    """

    server: str
    stream: str
    shown: str  # without a password

    @classmethod
    def parsed(cls, url: str) -> StreamUrl:
        """Raises LineError."""
        found = re.fullmatch(r"(rediss?://[^/?#]+)/(\d+)/([^?#]+)(?:\?[^#]*)?", url) if isinstance(url, str) else None
        if found is None:
            raise LineError(
                'a stream is named so: "redis://HOST:PORT/DATABASE/STREAM", as in redis://localhost/0/orders'
            )
        try:
            parts = urlsplit(url)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            where = f"{host}:{parts.port or 6379}"
        except ValueError as error:
            raise LineError(f"the address of the Redis server is none: {error}") from None
        server, database, stream = found.groups()
        return cls(f"{server}/{database}", unquote(stream), f"{parts.scheme}://{where}/{database}/{unquote(stream)}")

    def __str__(self) -> str:
        return self.shown


def connect(url: StreamUrl) -> Any:
    """A client; nothing is asked yet."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise LineError(f"Redis needs redis-py: pip install 'taktline[redis]' ({error})") from error
    # A request is never made again behind our back: its answer may be lost, and with it what the server has handed over.
    return redis.Redis.from_url(
        url.server, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=CALL, socket_connect_timeout=CALL,
        socket_keepalive=True,
    )  # fmt: skip


def passes(error: Exception) -> bool:
    """Whether a failed request may succeed later."""
    from redis import exceptions

    refused = (exceptions.AuthenticationError, exceptions.AuthorizationError)
    away = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError)
    return isinstance(error, away) and not isinstance(error, refused)


def explained(error: Exception, url: StreamUrl, trouble: Trouble) -> Exception:
    """What it means that a request failed."""
    from redis import exceptions

    if passes(error):
        return trouble(f"the stream {url} cannot be reached; is the server running, and the address right? ({error})")
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return trouble(f"the Redis server of {url} refuses the user or password: {error}")
    text = str(error)
    if text.startswith("WRONGTYPE"):
        return trouble(f"{url} is no stream: its key holds something else. Give another name, or delete that key")
    if text.startswith("NOGROUP"):
        return trouble(
            f"the consumer group of {url} is gone: it was deleted, or the server has lost its data. Begin again: the group "
            "is made anew, and begins where start= says"
        )
    return trouble(f"Redis refused a request for {url}: {type(error).__name__}: {error}")
