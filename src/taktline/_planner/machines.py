"""What a line would take on several machines: the what-if, with what the way to their workers costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from taktline._planner.advise import Plan, Tried
from taktline._planner.costs import Costs, Move
from taktline._planner.whatif import Prediction, predict
from taktline._recipe.plan import technique
from taktline._schedule.sizing import FAR_BATCH_SECONDS, far_aim

# `python3 dev.py ray bench --way` measures these.
# Of the slower one of the caller's process and its helper, a batch out and back.
HUB_BATCH_NS = int(FAR_BATCH_SECONDS * 1e9)
WORKER_BATCH_NS = 150_000  # of a node, a batch
BYTE_NS = 1.0  # of the helper, a byte on its way
CONNECT = 3.0  # seconds until a cluster has answered and agents are there
TIMES = (1, 2, 4, 8)  # as many nodes as there are, and so many times that


def far(costs: Costs) -> Costs:
    """The costs with workers on other machines."""
    ways = costs.ways._replace(hub_batch_ns=HUB_BATCH_NS, worker_batch_ns=WORKER_BATCH_NS, slowdown=1.0)

    def way(move: Move) -> Move:
        return move._replace(pack_ns=move.pack_ns + move.size * BYTE_NS)

    return costs._replace(
        ways=ways, moves=tuple(map(way, costs.moves)), cut=costs.cut and way(costs.cut),
        encode=costs.encode and way(costs.encode),
    )  # fmt: skip


def on_machines(
    here: Plan, tried: Tried, sizes: Sequence[int], *, says: str, workers: int | None, how: str, batch_size: int | None,
    window: int | None, memory: int,
) -> Plan:  # fmt: skip
    """The plan for machines with so many places each, from the one that is best `here`. `workers` at most, over all."""
    if not tried.costs.records or tried.obstacle:
        return replace(here, reasons=(*here.reasons, f"of on={says} nothing can be said without that"))
    records = tried.length
    costs, each = far(tried.costs), -(-sum(sizes) // len(sizes))

    def on(nodes: int, places: int) -> Prediction:
        plan = technique("line" if how == "auto" else how, tried.steps, places, batch_size)
        found = predict(
            costs, plan, records=records, cores=places + 1, window=window, memory=memory, aim=far_aim(places)
        )
        return replace(
            found, machines=nodes, cores=places, seconds=found.seconds + CONNECT,
            first_result=found.first_result + CONNECT,
            bottleneck=found.bottleneck if found.seconds > CONNECT else "start-up",
        )  # fmt: skip

    there = on(len(sizes), min(workers or sum(sizes), sum(sizes)))
    more = [on(len(sizes) * times, len(sizes) * times * each) for times in TIMES[1:]] if workers is None else []
    nodes = f"{len(sizes)} node{'s' * (len(sizes) > 1)}"
    why = [f"on={says}: {there.workers} workers on {nodes}, where steps take as long as here"]
    if here.seconds <= there.seconds:
        why.append(f"one machine is enough: {here.how} here is as fast, without what the way to others costs")
    plan = technique(there.how, tried.steps, there.workers)
    kept = [reason for reason in here.reasons if reason.startswith(tuple(f"{step.name!r} has" for step in tried.steps))]
    return replace(
        here, how=there.how, workers=there.workers, batch_size=there.batch_size, seconds=there.seconds,
        segments=tuple(tuple(step.name for step in segment.steps) for segment in plan.segments),
        reasons=(*why, *kept), machines=(there, *more),
    )  # fmt: skip
