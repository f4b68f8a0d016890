"""`taktline.ray`: a Ray cluster as the place where a line runs. Ray itself is loaded by the helper process alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from math import inf
from typing import Any

from taktline._crew.agents import HelperProcess
from taktline._crew.machines import IDLE_AFTER, LOST_AFTER, Agents
from taktline._public import named
from taktline._recipe.numbers import is_number, is_whole
from taktline.abc import Machines
from taktline.errors import LineError, did_you_mean

ARGUMENTS = (
    "address", "nodes", "cpus", "gpus", "resources", "runtime_env", "start_within", "lost_after", "idle_after",
)  # fmt: skip
CONNECT = 30.0  # seconds in which a cluster is to answer


def is_installed() -> bool:
    """Whether Ray is here; a folder of that name is not it."""
    found = find_spec("ray")
    return found is not None and found.origin is not None


class RayCluster(Agents):
    """What `ray` makes."""

    def _helper(self) -> HelperProcess:
        if not is_installed():
            raise LineError(f"on={self.says} needs Ray, which is not installed here: pip install 'taktline[ray]'")
        helper = super()._helper()
        helper.ends_where = ", as Ray has it where the cluster's head cannot be reached for a minute"
        return helper


def ray(
    address: str | None = None, *, nodes: int | None = None, cpus: int | None = None, gpus: float | None = None,
    resources: Mapping[str, float] | None = None, runtime_env: Mapping[str, Any] | None = None,
    start_within: float | None = None, lost_after: float = LOST_AFTER, idle_after: float | None = IDLE_AFTER, **unknown: Any,
) -> Machines:  # fmt: skip
    """A Ray cluster to run a line on: `on=` of a run. Nothing is connected before the run.

    `address`: the head as "HOST:PORT"; None: the cluster of RAY_ADDRESS, else the one that runs on this machine, else one
    that is started there for the run. `nodes`: on how many nodes, all that have what is asked for by default. Of each node
    are reserved: `cpus`, all it has by default, and as many workers run there; `gpus`; `resources` of its own names.
    `runtime_env`: what Ray is to bring there, such as {"working_dir": "."}. `start_within`: seconds to wait for nodes that
    have all this, where an autoscaler brings them; None: what no node has is refused at once. `lost_after`: seconds after
    which a node that says nothing is given up, and its batches go elsewhere. `idle_after`: seconds after which a node that
    has had nothing to do is let go, so that the cluster can shrink; it is asked for again when there is more. None: never.

    Raises LineError for what no cluster can be asked for; a run with it, where Ray is not installed.

    >>> from taktline import ray
    >>> ray("ray://head:10001")
    Traceback (most recent call last):
    ...
    taktline.LineError: ray('ray://head:10001'): this is the address of Ray's client, ...
    """
    if unknown:
        name = next(iter(unknown))
        hint = did_you_mean(name, ARGUMENTS) or f"; there are {', '.join(ARGUMENTS)}"
        raise LineError(f"ray() has no argument {name!r}{hint}")
    _check(address)
    for name, mapping, like in (
        ("resources", resources, '{"big_disk": 1}'), ("runtime_env", runtime_env, '{"working_dir": "."}'),
    ):  # fmt: skip
        if mapping is not None and not isinstance(mapping, Mapping):
            raise LineError(f"ray({name}={mapping!r}): give a dict, such as {like}, or leave it out")
    for name, value in (("nodes", nodes), ("cpus", cpus)):
        if value is not None and not is_whole(value, least=1):
            raise LineError(f"ray({name}={value!r}): give a whole number of at least 1, or leave it out")
    for name, amount in (
        ("gpus", gpus),
        ("start_within", start_within),
        ("lost_after", lost_after),
        ("idle_after", idle_after),
    ):
        if amount is not None and not _is_above_0(amount):
            raise LineError(f"ray({name}={amount!r}): give a number above 0, or leave it out")
    for name, amount in (resources or {}).items():
        if not isinstance(name, str) or not _is_above_0(amount):
            raise LineError(
                f"ray(resources={resources!r}): give names and numbers above 0, as the nodes were started with"
            )
    of = {
        "address": address, "nodes": nodes, "cpus": cpus, "gpus": gpus, "resources": dict(resources or {}),
        "runtime_env": dict(runtime_env or {}), "start_within": start_within, "connect_within": CONNECT,
    }  # fmt: skip
    return RayCluster(
        "taktline._ray.drive:Cluster", of, lost_after=lost_after, start_within=start_within or 60.0,
        idle_after=idle_after, says=f"ray({address or ''})",
    )  # fmt: skip


def _is_above_0(value: Any) -> bool:
    return is_number(value, above=0) and value != inf


def _check(address: Any) -> None:
    if address is None:
        return
    if not isinstance(address, str):
        raise LineError(f'ray({address!r}): give the head\'s address as "HOST:PORT", or leave it out')
    if address.startswith("ray://"):
        raise LineError(
            f"ray({address!r}): this is the address of Ray's client, over which each call takes many times as long. Send the "
            "program to the cluster with `ray job submit`, and leave the address out there; or run on a machine of the "
            "cluster's own network and give the head's \"HOST:PORT\", mostly port 6379"
        )
    if "://" in address:
        raise LineError(
            f"ray({address!r}): this is no address of a cluster's head; that of its dashboard is another one. Give "
            '"HOST:PORT" as `ray start --head` has named it, mostly port 6379'
        )
    host, _, port = address.rpartition(":")
    if address not in ("auto", "local") and (not host or not port.isdigit()):
        raise LineError(f'ray({address!r}): give the head\'s address as "HOST:PORT", such as "10.0.0.5:6379"')


named(globals())
