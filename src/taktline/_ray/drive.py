"""The agents of a Ray cluster, for the helper process: Ray is loaded here, and in no process of the user's.

Where the cluster's head has been away for a minute Ray ends the process that drives it, without a word: that is this one.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from time import monotonic
from typing import Any, NamedTuple

import taktline
from taktline._crew.agents_words import ANY_LANE, Parcel, Want, fits, in_words
from taktline._crew.helper import AgentLink, Placement
from taktline.errors import LineError, WorkersCannotStart

LOOK = 1.0  # seconds between two looks at the nodes
FAILS = 3  # agents in a row that a node may lose before they have said anything
Key = tuple[str, int]  # of a node, and whom its agent serves
GROUPS = {"tell": 1, "hear": 1, "beat": 1}


class _Reservation(NamedTuple):
    """An agent's place. `takes`: of its node, all its workers together."""

    node: str
    serves: int
    where: str
    slots: int
    takes: dict[str, float]

    @property
    def key(self) -> tuple[str, int]:
        """There is one agent a node for each whom agents serve."""
        return self.node, self.serves


class _Node(AgentLink):
    """The agent of one node, by its actor. What is told it is told by one thread, what it says is heard by another."""

    def __init__(self, ray: Any, actor: Any, spot: _Reservation, wake: Callable[[], None]) -> None:
        self.spot = spot
        self.where = spot.where
        self.slots = spot.slots
        self.serves = spot.serves
        self.has_spoken = False
        self._ray = ray
        self._actor = actor
        self._wake = wake
        self._to_tell: queue.SimpleQueue[Parcel | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
        self._gone = ""
        self._ended = False
        self._beat: Any = None  # a call that has not come back; kept, as Ray wants it
        for life in (self._tell_on, self._listen):
            threading.Thread(target=life, name="taktline", daemon=True).start()

    def _tell_on(self) -> None:
        while messages := self._next_to_tell():
            try:
                self._ray.get(self._actor.tell.remote(messages))
            except Exception as error:  # of Ray's many kinds: there is no way to this agent any more
                self._is_gone(error)
                return
            del messages  # they lie in the way from the caller, whose room they take

    def _next_to_tell(self) -> list[tuple[Any, ...]]:
        """All that is to be told now; empty where this is to end."""
        messages: list[tuple[Any, ...]] = []
        while not messages or not self._to_tell.empty():
            if (message := self._to_tell.get()) is None:
                return []
            messages.append(message.out_of_band())
        return messages

    def _listen(self) -> None:
        while not self._ended:
            try:
                messages, gone = self._ray.get(self._actor.hear.remote())
            except Exception as error:  # of Ray's many kinds: there is no way to this agent any more
                self._is_gone(error)
                return
            for message in messages:
                self.has_spoken = True
                self._said.put(Parcel(*message))
            if gone:
                self._gone = self._gone or gone
            if messages or gone:
                self._wake()
            if gone:
                return

    def _is_gone(self, error: BaseException) -> None:
        self._gone = self._gone or f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        self._wake()

    def tell(self, message: Parcel) -> None:
        self._to_tell.put(message)

    def hear(self) -> Sequence[Parcel]:
        heard = []
        while not self._said.empty():
            heard.append(self._said.get())
        return heard

    def beat(self) -> bool:
        came = False
        try:
            if self._beat is not None:
                ready, _ = self._ray.wait([self._beat], timeout=0)
                if not ready:
                    return False
                came = bool(self._ray.get(ready[0]))
            self._beat = self._actor.beat.remote()
        except Exception as error:  # as above
            self._is_gone(error)
        return came

    def gone(self) -> str:
        return self._gone

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._to_tell.put(None)
            threading.Thread(target=self._kill, daemon=True).start()  # the head may be away

    def _kill(self) -> None:
        with suppress(Exception):  # it is gone, or the head is
            self._ray.kill(self._actor, no_restart=True)


class Cluster(Placement):
    """The nodes of a cluster that have what is asked for, an agent on each. Raises LineError where there are none, and
    WorkersCannotStart where the cluster cannot be reached."""

    def __init__(
        self, wake: Callable[[], None], *, lost_after: float, address: str | None, nodes: int | None, cpus: int | None,
        gpus: float | None, resources: dict[str, float], runtime_env: dict[str, Any], start_within: float | None,
        connect_within: float,
    ) -> None:  # fmt: skip
        self._ray = ray = _connected(address, runtime_env, connect_within)
        from taktline._ray import relay

        ray.cloudpickle.register_pickle_by_value(relay)
        self._relay = ray.remote(concurrency_groups=GROUPS)(_with_groups(ray, relay.NodeRelay))
        self._wake = wake
        self._lost_after = lost_after
        self._most = nodes
        self._cpus = cpus
        self._demand = {**resources, **({"GPU": gpus} if gpus else {})}
        self._own = [*runtime_env.get("env_vars", {})]
        self._waits = start_within is not None
        self._wants: Sequence[Want] = ()
        self._plain = True
        self._starting: dict[Key, tuple[_Reservation, Any, Any]] = {}  # actor, the call that starts it
        self._there: dict[Key, _Node] = {}
        self._fails: dict[Key, int] = {}
        self._resting: dict[Key, int] = {}  # nothing was to be done there for long: the places it had
        self._turn = threading.Lock()  # of what the thread that looks at the nodes shares with the helper's own
        self._came: queue.SimpleQueue[AgentLink | BaseException] = queue.SimpleQueue()
        self._asked: list[tuple[dict[str, float], Any]] = []  # what an autoscaler is to bring, and what waits for it
        fitting = self._fitting()
        self._wanted = wanted = nodes or max(1, len(fitting))  # nodes for the lanes without needs of their own
        if len(fitting) < wanted and start_within is None:
            raise LineError(self._what_lacks(len(fitting), wanted))
        places = [self._slots(node) for node in fitting[:wanted]]
        self.places = places + [cpus or max(places, default=1)] * (wanted - len(places))

    def want(self, wants: Sequence[Want], *, plain: bool) -> None:
        self._wants, self._plain = wants, plain
        if not self._waits:
            self._check_room()
        threading.Thread(target=self._look, name="taktline nodes", daemon=True).start()

    def let_go(self, agent: AgentLink) -> None:
        assert isinstance(agent, _Node)
        with self._turn:
            self._resting[agent.spot.key] = agent.slots

    def bring(self, serves: int) -> None:
        with self._turn:
            for key in [key for key in self._resting if key[1] == serves][:1]:
                del self._resting[key]

    # --- nodes ---

    def _alive(self) -> list[dict[str, Any]]:
        """The nodes that live, always in the same order."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        return sorted(alive, key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))

    def _taken(self, node: str, *, of_all: bool) -> list[dict[str, float]]:
        """What agents have of a node: `of_all`, or of those that serve lanes with needs of their own."""
        spots = [*(agent.spot for agent in self._there.values()), *(spot for spot, _, _ in self._starting.values())]
        return [spot.takes for spot in spots if spot.node == node and (of_all or spot.serves != ANY_LANE)]

    def _slots(self, node: dict[str, Any]) -> int:
        taken = sum(each.get("CPU", 0) for each in self._taken(node["NodeID"], of_all=False))
        return self._cpus or max(0, int(node["Resources"].get("CPU", 1) - taken))

    def _fitting(self) -> list[dict[str, Any]]:
        """The nodes that have what is asked for, beside what lanes with needs of their own take of them."""
        wanted = {"CPU": self._cpus or 1, **self._demand}
        return [
            node for node in self._alive() if fits(node["Resources"], self._taken(node["NodeID"], of_all=False), wanted)
        ]

    def _check_room(self) -> None:
        """Raises LineError where the nodes do not have what some lane needs."""
        taken: dict[str, list[dict[str, float]]] = {}
        for want in self._wants:
            left = want.workers
            for node in self._alive():
                had = taken.setdefault(node["NodeID"], [])
                if slots := min(left, fits(node["Resources"], had, want.needs)):
                    had.append(_reserved(want.needs, slots))
                    left -= slots
            if left:
                raise LineError(
                    f"{want} each, and the cluster has room for {(want.workers - left) or 'none'}. Its nodes have: "
                    f"{self._what_nodes_have()}. Ask for less, or give start_within= where an autoscaler brings more"
                )

    def _what_nodes_have(self) -> str:
        return "; ".join(
            f"{node['NodeManagerAddress']}: "
            + in_words({name: n for name, n in node["Resources"].items() if ":" not in name and "memory" not in name})
            for node in self._alive()
        )

    def _what_lacks(self, there: int, wanted: int) -> str:
        asked = in_words({"CPU": self._cpus or 1, **self._demand})
        return (
            f"{wanted} node{'s' * (wanted > 1)} with {asked} {'are' if wanted > 1 else 'is'} asked for, and the cluster has "
            f"{there or 'none'}. Its nodes have: {self._what_nodes_have()}. Ask for less, or give start_within= where an "
            "autoscaler brings more"
        )

    def _ask(self, lacking: list[dict[str, float]]) -> None:
        """Have reservations for these wait, each for a node: an autoscaler brings what they wait for. Those that have got a
        node make way for an agent there. They go with this process, whatever ends it, so that the cluster shrinks behind a
        run: what is asked for by `request_resources` stays for good, and replaces what others have asked for."""
        from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

        kept = []
        for bundle, waits in self._asked:
            if bundle in lacking and placement_group_table(waits)["state"] == "PENDING":
                lacking.remove(bundle)
                kept.append((bundle, waits))
            else:
                remove_placement_group(waits)
        self._asked = [*kept, *((bundle, placement_group([bundle])) for bundle in lacking)]

    def _look(self) -> None:
        """Have an agent on each node that fits, as they come and go."""
        pause = threading.Event()
        while True:
            try:
                self._look_once()
            except Exception as error:  # whatever it is: who asks for agents hears it
                self._came.put(error)
                self._wake()
                return
            pause.wait(LOOK if not self._starting else LOOK / 10)

    def _look_once(self) -> None:
        nodes = self._alive()
        with self._turn:
            self._let_go_of_the_dead()
            lacking = [want.needs for want in self._wants for _ in range(self._fill(want, nodes))]
            if self._plain:
                lacking += [{"CPU": self._cpus or 1, **self._demand}] * (self._wanted - self._fill_all())
        if self._waits:
            self._ask(lacking)
        alive = {node["NodeID"] for node in nodes}
        for key, (spot, actor, begun) in list(self._starting.items()):
            if spot.node not in alive:
                del self._starting[key]
                continue
            ready, _ = self._ray.wait([begun], timeout=0)
            if ready:
                del self._starting[key]
                self._begin(spot, actor, begun)

    def _let_go_of_the_dead(self) -> None:
        for key in [key for key, agent in self._there.items() if agent.gone() or agent._ended]:
            agent = self._there.pop(key)
            self._fails[key] = 0 if agent.has_spoken else self._fails.get(key, 0) + 1

    def _may_start(self, key: Key) -> bool:
        free = key not in self._there and key not in self._starting and key not in self._resting
        return free and self._fails.get(key, 0) < FAILS

    def _fill(self, want: Want, nodes: list[dict[str, Any]]) -> int:
        """Agents for a lane with needs of its own, on as few nodes as have room for its workers; how many have no place."""
        spots = [*(agent.spot for agent in self._there.values()), *(spot for spot, _, _ in self._starting.values())]
        left = want.workers - sum(spot.slots for spot in spots if spot.serves == want.lane)
        left -= sum(slots for (_, serves), slots in self._resting.items() if serves == want.lane)
        for node in nodes:
            name = node["NodeID"]
            if left <= 0 or not self._may_start((name, want.lane)):
                continue
            slots = min(left, fits(node["Resources"], self._taken(name, of_all=True), want.needs))
            if slots:
                takes = _reserved(want.needs, slots)
                where = f"node {node['NodeManagerAddress']} ({in_words(takes)})"
                self._start(_Reservation(name, want.lane, where, slots, takes))
                left -= slots
        return left

    def _fill_all(self) -> int:
        """An agent for the other lanes on each node that fits; how many nodes have one, or had and are let go."""
        for node in self._fitting():
            name = node["NodeID"]
            if self._may_start((name, ANY_LANE)) and not (self._most is not None and self._plain_nodes() >= self._most):
                slots = self._slots(node)
                where = f"node {node['NodeManagerAddress']}"
                self._start(_Reservation(name, ANY_LANE, where, slots, {"CPU": slots, **self._demand}))
        return self._plain_nodes()

    def _plain_nodes(self) -> int:
        return sum(key[1] == ANY_LANE for key in (*self._there, *self._starting, *self._resting))

    def _start(self, spot: _Reservation) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        demand = dict(spot.takes)
        cpus, gpus = demand.pop("CPU", 0), demand.pop("GPU", 0)
        actor = self._relay.options(
            num_cpus=cpus, num_gpus=gpus, resources=demand, max_restarts=0, max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(spot.node, soft=False),
        ).remote()  # fmt: skip
        self._starting[spot.key] = spot, actor, actor.versions.remote()

    def _begin(self, spot: _Reservation, actor: Any, begun: Any) -> None:
        where = spot.where
        try:
            there = self._ray.get(begun)
            _check_versions(tuple(there), where, self._ray.__version__)
            self._ray.get(actor.begin.remote(self._lost_after, self._own, spot.slots if spot.takes.get("GPU") else 0))
        except self._ray.exceptions.RayActorError as error:
            self._fails[spot.key] = self._fails.get(spot.key, 0) + 1
            if self._fails[spot.key] >= FAILS and not self._there and not self._starting:
                raise WorkersCannotStart(f"no agent can be started on {where}: {error}") from error
            return
        agent = self._there[spot.key] = _Node(self._ray, actor, spot, self._wake)
        self._came.put(agent)
        self._wake()

    # --- for the helper ---

    def come(self) -> Sequence[AgentLink]:
        came: list[AgentLink] = []
        while not self._came.empty():
            each = self._came.get()
            if isinstance(each, BaseException):
                raise each
            came.append(each)
        return came

    def descriptors(self) -> Sequence[tuple[int, bool]]:
        return []

    def close(self) -> None:
        """The actors end with the process that drives them."""


def _reserved(needs: Mapping[str, float], slots: int) -> dict[str, float]:
    """What so many workers with these needs take of a node. Ray reserves a part of one GPU, or whole ones.

    >>> _reserved({"GPU": 0.5, "disk": 0.5}, 3)
    {'GPU': 2, 'disk': 1.5}
    """
    takes = {name: amount * slots for name, amount in needs.items()}
    return {name: ceil(amount) if name == "GPU" and amount > 1 else amount for name, amount in takes.items()}


def _with_groups(ray: Any, relay: type) -> type:
    """The relay with its methods in groups, each of which has a thread of its own."""
    for name in GROUPS:
        setattr(relay, name, ray.method(concurrency_group=name)(getattr(relay, name)))
    return relay


def _check_versions(there: tuple[str, ...], where: str, ray: str) -> None:
    here = platform.python_version(), ray, taktline.__version__
    for what, mine, its in zip(("Python", "Ray", "taktline"), here, there, strict=True):
        if mine != its:
            has = f"{what} {its}" if its else f"no {what}"
            raise LineError(
                f"{where} has {has}, and here it is {mine}: both must be the same, to the last figure. Install it there, or "
                "bring it by runtime_env={'pip': [...]}"
            )


def _connected(address: str | None, runtime_env: dict[str, Any], within: float) -> Any:
    """Ray, connected to the cluster. Raises WorkersCannotStart where that takes too long: Ray would try for minutes."""
    import ray

    failed: list[BaseException] = []
    done = threading.Event()

    def connect() -> None:
        try:
            ray.init(
                address=address, runtime_env=runtime_env or None, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=True,
            )  # fmt: skip
        except BaseException as error:
            failed.append(error)
        done.set()

    began = monotonic()
    threading.Thread(target=connect, daemon=True).start()
    known = address or os.environ.get("RAY_ADDRESS") or "this machine"
    if not done.wait(within):
        raise WorkersCannotStart(
            f"the Ray cluster at {known} has not answered in {monotonic() - began:.0f} s. Is its head up, and is this the "
            "address that `ray start --head` has named? From another network it cannot be reached: use `ray job submit`"
        )
    if failed:
        text = str(failed[0]).strip()
        if "ersion mismatch" in text:
            raise LineError(
                f"the Ray cluster at {known} and this process differ: {' '.join(text.split())}"
            ) from failed[0]
        raise WorkersCannotStart(f"the Ray cluster at {known} cannot be reached: {text}") from failed[0]
    return ray
