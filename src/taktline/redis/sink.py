"""A stream as a sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any
from uuid import uuid4
from zlib import crc32

from taktline.abc import Resumable
from taktline.errors import LineError, SinkError
from taktline.redis.message import DATA_FIELD, RedisMessage
from taktline.redis.server import FIRST_PAUSE, LONGEST_PAUSE, StreamUrl, connect, explained, passes

LOT = 1000  # messages in a transaction of a run without a journal
KEPT = 30 * 24 * 3600  # seconds that the mark of a run is kept in the server

Fields = dict[str, Any]


def publish(
    url: str, *, shards: int | None = None, key: str | None = None, most: int | None = None, patience: float = 60.0
) -> Resumable:
    """A stream ("redis://HOST:PORT/DATABASE/STREAM") as a sink; each result a mapping, a RedisMessage, bytes, or str.

    Fields are text, bytes or numbers; bytes and str are a message with the one field "data". With a journal each result is
    there once: results and how far they go are written in one transaction.

    shards: write to NAME:0, NAME:1 and so on; `key`: the field that tells which, so that messages of one value stay in
    order in one stream. most: the stream is cut to about so many messages, read or not. patience: seconds until a server
    that cannot be reached counts as gone.

    Raises LineError for wrong settings; the run raises SinkError where the stream cannot be written to.

    >>> publish("redis://localhost/0/priced", shards=4)
    Traceback (most recent call last):
    ...
    taktline.LineError: shards= and key= go together: the field named by key= tells to which shard a message goes
    """
    place = StreamUrl.parsed(url)
    if (shards is None) != (key is None):
        raise LineError("shards= and key= go together: the field named by key= tells to which shard a message goes")
    for name, value, low in (("shards", shards, 1), ("most", most, 1), ("patience", patience, 0)):
        if value is not None and value < low:
            raise LineError(f"{name}={value!r}: give at least {low}")
    return RedisSink(place, shards, key, most, patience)


class RedisSink(Resumable):
    """Keeps results until they are to be safe, and adds them in one transaction with the mark up to which they go."""

    forks = False
    visible = True
    takes_failed = False

    def __init__(self, url: StreamUrl, shards: int | None, key: str | None, most: int | None, patience: float) -> None:
        self._url, self._shards, self._key, self._most, self._patience = url, shards, key, most, patience
        self._client: Any = None
        self._rows: list[tuple[str, Fields]] = []
        self._run = ""
        self._by_mark = False

    def describe(self) -> str:
        return str(self._url)

    def fingerprint(self) -> Any:
        return [str(self._url), self._shards, self._key]

    # --- without a journal ---

    def open(self) -> None:
        self._connect(uuid4().hex)

    def write(self, results: Sequence[Any]) -> None:
        self._rows += [self._row(result, at) for at, result in enumerate(results)]
        while not self._by_mark and len(self._rows) >= LOT:
            self._send(uuid4().hex)

    def commit(self) -> None:
        if self._rows:
            self._send(uuid4().hex)
        self._patiently(lambda: self._client.delete(self._mark_key(self._run)))
        self.suspend()

    def abort(self) -> None:
        self.suspend()

    # --- with one ---

    def begin(self, run: str) -> None:
        self._connect(run)
        self._by_mark = True

    def save(self, mark: str) -> Any:
        if self._rows:
            self._send(mark)
        return True  # the newest mark is in the server

    def resume(self, run: str, position: Any) -> str | None:
        self.begin(run)
        found = self._patiently(lambda: self._client.get(self._mark_key(run)))
        return found.decode() if found else None

    def suspend(self) -> None:
        client, self._client = self._client, None
        self._rows = []
        if client is not None:
            client.close()

    def finished(self, run: str, position: Any) -> bool:
        return True

    def forget(self, run: str, position: Any) -> None:
        self._patiently(lambda: self._client.delete(self._mark_key(run)))

    # --- requests ---

    def _connect(self, run: str) -> None:
        self._client, self._run, self._by_mark, self._rows = connect(self._url), run, False, []
        try:
            for stream in self._streams():
                found = self._patiently(partial(self._client.type, stream), patience=0.0)
                if found not in (b"none", b"stream"):
                    raise SinkError(f"{self._url} is no stream: the key {stream!r} holds a {found.decode()}")
        except BaseException:
            self.suspend()
            raise

    def _streams(self) -> list[str]:
        name = self._url.stream
        return [name] if self._shards is None else [f"{name}:{n}" for n in range(self._shards)]

    def _mark_key(self, run: str) -> str:
        return f"taktline:{{{self._url.stream}}}:run:{run}"

    def _send(self, mark: str) -> None:
        """Add what is kept, and note `mark`, both or neither: where an answer is lost, the mark tells whether it was done."""
        rows, key = self._rows, self._mark_key(self._run)
        tried = False

        def added() -> None:
            nonlocal tried
            if tried and self._client.get(key) == mark.encode():
                return
            tried = True
            with self._client.pipeline(transaction=True) as requests:
                for stream, fields in rows:
                    requests.xadd(stream, fields, maxlen=self._most)
                requests.set(key, mark, ex=KEPT)
                requests.execute()

        self._patiently(added)
        self._rows = []

    def _patiently(self, request: Callable[[], Any], *, patience: float | None = None) -> Any:
        """What this answers, tried again while the server is away. Raises SinkError."""
        from redis import RedisError

        until, pause = monotonic() + (self._patience if patience is None else patience), FIRST_PAUSE
        while True:
            try:
                return request()
            except RedisError as error:
                if not passes(error) or monotonic() >= until:
                    raise explained(error, self._url, SinkError) from error
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- results ---

    def _row(self, result: Any, at: int) -> tuple[str, Fields]:
        """To which stream which fields go. Raises SinkError."""
        if isinstance(result, (str, bytes)):
            fields: Fields = {DATA_FIELD: result}
        elif isinstance(result, (RedisMessage, Mapping)):
            fields = dict(result.fields if isinstance(result, RedisMessage) else result)
        else:
            raise SinkError(
                f"a result of type {type(result).__name__} cannot be added to a stream; end the line with a step that makes "
                "it a mapping of fields, a RedisMessage, bytes or str",
                at=at,
            )
        for name, value in fields.items():
            if not isinstance(name, str) or type(value) not in (str, bytes, int, float):
                raise SinkError(
                    f"the field {name!r} of a result cannot be added to a stream: it is of type {type(value).__name__}; a "
                    "field is text, bytes or a number, such as json.dumps() makes of anything",
                    at=at,
                )
        if not fields:
            raise SinkError("a result without any field cannot be added to a stream", at=at)
        return self._stream_of(fields, at), fields

    def _stream_of(self, fields: Fields, at: int) -> str:
        if self._shards is None:
            return self._url.stream
        if self._key not in fields:
            raise SinkError(f"a result has no field {self._key!r}, which tells to which shard it goes", at=at)
        value = fields[self._key]
        data = value if isinstance(value, bytes) else str(value).encode()
        return f"{self._url.stream}:{crc32(data) % self._shards}"


publish.__module__ = "taktline.redis"
