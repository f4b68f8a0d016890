"""The guide's drain that begins when something was added to a stream: with a triggerer, a scheduler and a Redis server."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import servers
from running import PATIENCE, logs, started, wait_for
from test_guides import DOCS

pytest.importorskip("airflow.providers.redis")
redis = pytest.importorskip("redis")
pytestmark = pytest.mark.timeout(3 * PATIENCE)
DAG, ENDED = "drain_orders", {"success", "failed"}


@pytest.fixture(scope="module")
def server():
    with servers.redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory, server):
    """The folder that the guide's DAG writes to. The triggerer of the test looks more often, a drain ends sooner, and the
    clock starts none."""
    folder = tmp_path_factory.mktemp("drain")
    (code,) = re.findall(r"```python\n# dags/drain_orders\.py\n(.*?)```", (DOCS / "airflow.md").read_text(), re.DOTALL)
    for said, here in [
        ("/data/", f"{folder}/data/"), ("redis://localhost/0", server.url), ("poll_interval=5", "poll_interval=0.1"),
        ("idle=5", "idle=1"), ('"0 * * * *"', '"0 0 29 2 *"'),
    ]:  # fmt: skip
        assert said in code
        code = code.replace(said, here)
    (folder / "dags").mkdir()
    (folder / "dags/drain_orders.py").write_text(code)
    return folder


def test_a_drain_begins_when_something_was_added(home, metadata, server, written):
    client = redis.Redis.from_url(server.url)
    wanted: list[Any] = []
    place = urlsplit(server.url)
    environment = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(written / "dags"),
        "AIRFLOW_CONN_ORDERS_REDIS": f"redis://{place.hostname}:{place.port}/0",
    }

    def stored():
        return [json.loads(text) for path in (written / "data/orders").glob("*.jsonl") for text in path.open()]

    def states():
        return [state for (state,) in metadata.rows("select state from dag_run where dag_id = ?", DAG)]

    def all_drained():
        """Whoever added something says so again while no drain has come of it: what nobody listens to is gone."""
        if all(state in ENDED for state in states()):
            client.publish("orders", "added")
        return sorted(stored(), key=lambda order: order["n"]) == wanted

    with started("triggerer", **environment):
        for first in (0, 100):
            for n in range(first, first + 100):
                client.xadd("orders", {"order": json.dumps({"n": n})})
                wanted.append({"n": n})
            wait_for("the drain", all_drained)
        wait_for("the end of all drains", lambda: set(states()) <= ENDED)
        assert set(states()) == {"success"}, logs()
        ran = metadata.rows("select run_type from dag_run where dag_id = ?", DAG)
        assert ("asset_triggered",) in ran, ran
    assert client.xpending("orders", "drain")["pending"] == 0
    assert not list((written / "data/orders").glob("*.journal"))
