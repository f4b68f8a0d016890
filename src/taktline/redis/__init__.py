"""Redis Streams: a consumer group as a source, a stream as a sink.

A message is acknowledged only after its result is safe in the sink. `docs/redis.md` is the guide.

    from taktline import line
    from taktline.redis import publish, subscribe

    orders = subscribe("redis://localhost/0/orders", group="pricing")
    line(parse, price).run(orders, publish("redis://localhost/0/priced"))

The client library (`pip install 'taktline[redis]'`) is loaded when a run begins. Its connections, and the thread that gives
signs of life, belong to the caller's process and end with the run; workers never see them.
"""

from taktline.redis.message import RedisMessage
from taktline.redis.sink import publish
from taktline.redis.stream import subscribe
from taktline.redis.url import read, write

__all__ = ["RedisMessage", "publish", "read", "subscribe", "write"]
