"""Google Cloud Pub/Sub: a subscription as a source, a topic as a sink.

A message is acknowledged only after its result is safe in the sink, in order. `docs/pubsub.md` is the guide.

    from taktline import line
    from taktline.pubsub import publish, subscribe

    line(parse, score).run(subscribe("projects/p/subscriptions/orders"), publish("projects/p/topics/scored"))

The client library (`pip install 'taktline[pubsub]'`) is loaded when a run begins. Its connections, and the two threads that
receive messages and keep their leases, belong to the caller's process and end with the run; workers never see them.
"""

from taktline.pubsub.message import Message
from taktline.pubsub.subscription import subscribe
from taktline.pubsub.topic import publish
from taktline.pubsub.url import read, write

__all__ = ["Message", "publish", "read", "subscribe", "write"]
