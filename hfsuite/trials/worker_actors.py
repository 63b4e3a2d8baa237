"""The actors of a trial's workers: started, found, named, ordered. In the trial's actor; ahead of it, on the driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.train.v2._internal.execution.worker_group import Worker, worker_group
from ray.train.v2._internal.util import bundle_to_remote_args
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hfsuite.ranks.worker import TrialWorker

RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}


def start_processes(
    group: PlacementGroup,
    count: int,
    resources: Mapping[str, float],
    runtime_env: Mapping[str, Any],
    preload: Sequence[str],
    limit_gb: float,
    *,
    ahead_of: str = "",
) -> list[Any]:
    """Starts a worker actor in each bundle of a trial's placement group, and does not wait for them.

    In the trial's actor, or on the driver before there is one: then the actor finds them by their names.

    Args:
        group: the trial's.
        count: number of workers.
        resources: of each.
        runtime_env: of each.
        preload: see `TrialWorker`; likewise `limit_gb`.
        limit_gb: likewise.
        ahead_of: what their names begin with, where they are started ahead of the trial's actor.
    """
    # Not as a runtime environment, which would keep Ray from taking a process that it has started already.
    variables = RAY_TRAIN_ENVIRONMENT | worker_group.WorkerGroup._get_worker_runtime_env({})["env_vars"]
    asked_for = {"runtime_env": dict(runtime_env)} if runtime_env else {}
    worker_class = ray.remote(**asked_for, **bundle_to_remote_args(dict(resources)))(TrialWorker)
    return [
        worker_class.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
            name=f"{ahead_of}-{index}" if ahead_of else None,
        ).remote(variables, preload, limit_gb)
        for index in range(count)
    ]


def started_ahead(group: PlacementGroup, count: int) -> list[Any]:
    """The workers that the driver has started ahead of this actor; none if it has not, or if one has died.

    In the trial's actor: it has the name of its slot if trials share GPUs, and else no name.

    Args:
        group: the trial's.
        count: number of workers.
    """
    names, found = ray.get_runtime_context().get_actor_name() or name_ahead(group), []
    for index in range(count):
        with suppress(ValueError):
            found.append(ray.get_actor(f"{names}-{index}"))
    if len(found) == count:
        return found
    for actor in found:
        ray.kill(actor)
    return []


def name_ahead(group: PlacementGroup) -> str:
    """What the names of workers begin with that are started ahead of the only actor of a placement group."""
    return f"hfsuite-{group.id.hex()}"


def name_of(actor: Any) -> str:
    """By which what a worker has started can be told; the worker itself puts it there."""
    return str(actor._actor_id.hex())


def ranked(actors: Sequence[Any], resources: Mapping[str, float]) -> list[Worker]:
    """Workers in the order of their ranks, once they have started.

    Raises:
        RayActorError: one of them is dead.
    """
    about = ray.get([actor.get_metadata.remote() for actor in actors])
    workers = [
        Worker(actor, metadata, dict(resources), placement_group_bundle_index=index)
        for index, (actor, metadata) in enumerate(zip(actors, about, strict=True))
    ]
    in_order: list[Worker] = worker_group.WorkerGroup._assign_worker_ranks(workers)
    return in_order
