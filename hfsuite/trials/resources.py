"""What a trial needs and what a cluster holds. Runs on the driver."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

import pynvml
import ray
from ray.train import ScalingConfig
from ray.tune import PlacementGroupFactory
from ray.util.placement_group import PlacementGroup

from hfsuite.errors import ResourcesError

Resources = Mapping[str, float]

FINEST = 10_000  # parts of a GPU that Ray tells apart
MOST_A_GPU = 8  # trials: on an H100, eight small ones together do 1.04 to 1.13 times as much as four
HOST_BYTES_A_WORKER = 2 << 30  # of main memory: what it imports, CUDA's libraries, a small model and its data
OVERRIDDEN = "RAY_OVERRIDE_RESOURCES"  # with it, Ray believes what it is told instead of looking
ALONE = "alone"  # the name of the placement group that a trial asks for which shall have no neighbours
GROWN = "grown"  # likewise, of one that goes on with more workers than it began with
SPARE_CPUS_FOR_RAY_DATA = 1  # Ray Data's tasks run outside of the trials' groups; without a free CPU they wait for ever


class TrialRequest(PlacementGroupFactory):
    """The placement group of a trial: its driver, which needs nothing, and all its workers, as a gang."""

    made_ahead: ClassVar[list[tuple[TrialRequest, PlacementGroup]]] = []  # see `HeadStart`
    for_the_next: ClassVar[dict[str, Callable[[TrialRequest, PlacementGroup], None]]] = {}  # by owner
    given: ClassVar[dict[str, list[PlacementGroup]]] = {}  # to Ray Tune, by owner
    owner = ""

    @classmethod
    def of(cls, scaling_config: ScalingConfig, *, owner: str = "") -> Self:
        """What a trial of so many workers asks for.

        Args:
            scaling_config: of the trial.
            owner: whose trial it is: it gets no group that was made for others.
        """
        request = scaling_config.as_placement_group_factory()
        made = cls([{}, *request.bundles], strategy=request.strategy)
        made.owner = owner
        return made

    def renamed(self, name: str, times: int) -> Self:
        """Another kind of request, with so many times as many workers."""
        made = type(self)([{}, *self.bundles * times], strategy=self.strategy, name=name)
        made.owner = self.owner
        return made

    def to_placement_group(self) -> PlacementGroup:
        """Ray Tune asks for a new group: one that was made ahead, if there is such a one."""
        group = self._taken_from_ahead()
        if group is None:
            group = super().to_placement_group()
            if (start_workers := self.for_the_next.pop(self.owner, None)) is not None:
                start_workers(self, group)
        if self.owner in self.given:
            self.given[self.owner].append(group)
        return group

    def _taken_from_ahead(self) -> PlacementGroup | None:
        for each in self.made_ahead:
            if each[0] == self and each[0].owner == self.owner:
                self.made_ahead.remove(each)
                return each[1]
        return None


def is_alone(request: PlacementGroupFactory) -> bool:
    """Whether a trial shall have no neighbours on its GPUs."""
    return bool(request._kwargs.get("name") == ALONE)


def alone(request: TrialRequest) -> TrialRequest:
    """What a trial asks for that shall have none."""
    return request.renamed(ALONE, 1)


def is_grown(request: PlacementGroupFactory) -> bool:
    """Whether a trial has more workers than it began with."""
    return bool(request._kwargs.get("name") == GROWN)


def grown(request: TrialRequest, times: int) -> TrialRequest:
    """What a trial asks for that shall go on with so many times as many workers."""
    return request.renamed(GROWN, times)


def check_fits(scaling_config: ScalingConfig, *, uses_ray_data: bool, nodes: Sequence[Resources] | None = None) -> None:
    """Refuses a trial that this cluster can never hold.

    Args:
        scaling_config: of the trial.
        uses_ray_data: whether tasks of Ray Data need a CPU too.
        nodes: what each node holds; None for those of the cluster.

    Raises:
        ResourcesError: with what a trial asks for and what there is.
    """
    if scaling_config.num_workers == 0:
        raise ResourcesError("A trial needs at least one worker: num_workers is 0 (local mode), which has none.")
    nodes = cluster_nodes() if nodes is None else nodes
    if concurrent_trials(scaling_config, uses_ray_data=uses_ray_data, nodes=nodes) > 0:
        return
    workers = scaling_config.num_workers
    spare = f" and {SPARE_CPUS_FOR_RAY_DATA} CPU beside it for Ray Data" if uses_ray_data else ""
    held = "; ".join(_words(node) for node in nodes) or "nothing"
    raise ResourcesError(
        f"A trial of {workers} worker{'s' if workers != 1 else ''} with {_words(_bundle(scaling_config))} each needs "
        f"{_words(scaling_config.total_resources)}{spare}, but the cluster can never hold that: it has "
        f"{held} on {len(nodes)} node{'s' if len(nodes) != 1 else ''}. "
        "Ask for fewer workers or less for each (--workers, ScalingConfig), or add nodes."
    )


def check_spare_cpu() -> None:
    """Refuses to begin a trial that streams Ray Data while all CPUs belong to trials: it would wait for ever.

    Runs in the trial's actor, whose placement group is there already.

    Raises:
        ResourcesError: with what to set.
    """
    groups = [each for each in ray.util.placement_group_table().values() if each["state"] == "CREATED"]
    reserved = sum(bundle.get("CPU", 0) for group in groups for bundle in group["bundles"].values())
    held = sum(node.get("CPU", 0) for node in cluster_nodes())
    if held - reserved < SPARE_CPUS_FOR_RAY_DATA:
        raise ResourcesError(
            f"{reserved:g} of the cluster's {held:g} CPUs belong to trials. Ray Data's tasks run outside of them and "
            f"need {SPARE_CPUS_FOR_RAY_DATA}: set max_concurrent_trials in tune.TuneConfig so that one stays free, or "
            "call .materialize() on the datasets."
        )


def concurrent_trials(
    scaling_config: ScalingConfig, *, uses_ray_data: bool, nodes: Sequence[Resources] | None = None
) -> int:
    """How many such trials the cluster holds at once, when it is empty. See `check_fits` for the arguments."""
    there = [dict(node) for node in (cluster_nodes() if nodes is None else nodes)]
    if uses_ray_data and there:
        roomiest = max(there, key=lambda node: node.get("CPU", 0))
        roomiest["CPU"] = roomiest.get("CPU", 0) - SPARE_CPUS_FOR_RAY_DATA
    bundle, workers = _bundle(scaling_config), scaling_config.num_workers
    rooms = [_copies(node, bundle) for node in there]
    match scaling_config.placement_strategy:
        case "STRICT_PACK":
            return sum(room // workers for room in rooms)
        case "STRICT_SPREAD":
            slots = 0
            while sum(room > 0 for room in rooms) >= workers:
                rooms = [
                    room - 1 if index < workers else room for index, room in enumerate(sorted(rooms, reverse=True))
                ]
                slots += 1
            return slots
        case _:
            return int(sum(rooms) // workers)


def room_for(bundle: Resources, strategy: str) -> int:
    """For how many more such workers of one trial the cluster has room now, beside all that runs in it.

    Args:
        bundle: what each takes.
        strategy: of Ray's, by which they are placed.
    """
    rooms = [_copies(node, bundle) for node in ray._private.state.available_resources_per_node().values()]
    match strategy:
        case "STRICT_PACK":
            return max(rooms, default=0)
        case "STRICT_SPREAD":
            return sum(room > 0 for room in rooms)
        case _:
            return sum(rooms)


def trials_a_gpu(scaling_config: ScalingConfig, most: int, *, uses_ray_data: bool) -> int:
    """How many trials may share a GPU, as far as CPUs and main memory of the nodes with GPUs go.

    Args:
        scaling_config: of a trial; a worker that asks for no CPU still computes on one.
        most: not more than so many.
        uses_ray_data: whether tasks of Ray Data need a CPU too.
    """
    cpus, found = max(1.0, scaling_config.num_cpus_per_worker), [most]
    for node in cluster_nodes():
        if gpus := node.get("GPU", 0):
            held = node.get("CPU", 0) - (SPARE_CPUS_FOR_RAY_DATA if uses_ray_data else 0)
            found += [int(held / gpus / cpus), int(node.get("memory", math.inf) / gpus / HOST_BYTES_A_WORKER)]
    return max(1, min(found))


def check_fits_here(scaling_config: ScalingConfig, *, uses_ray_data: bool) -> None:
    """Refuses what a Ray that starts on this machine cannot hold, before it starts; of much Ray alone knows.

    Raises:
        ResourcesError: as `check_fits`.
    """
    machine: dict[str, float] = {"CPU": os.cpu_count() or 1}
    with suppress(pynvml.NVMLError):  # no driver: the GPUs may be another maker's
        pynvml.nvmlInit()
        machine["GPU"] = pynvml.nvmlDeviceGetCount()
    if OVERRIDDEN not in os.environ and scaling_config.num_workers and _bundle(scaling_config).keys() <= machine.keys():
        check_fits(scaling_config, uses_ray_data=uses_ray_data, nodes=[machine])


def cluster_nodes() -> Sequence[Resources]:
    """What each living node holds, without Ray's own labels."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{name: amount for name, amount in node.items() if not name.startswith("node:")} for node in alive]


def _bundle(scaling_config: ScalingConfig) -> dict[str, float]:
    workers = scaling_config.num_workers
    return {name: amount / workers for name, amount in scaling_config.total_resources.items()}


def _copies(node: Resources, bundle: Resources) -> int:
    """How often a bundle fits a node; resources are counted in ten-thousandths, as Ray does."""
    fits = []
    for name, amount in bundle.items():
        held, wanted = round(FINEST * node.get(name, 0)), round(FINEST * amount)
        if name == "GPU" and 0 < wanted < FINEST:  # a part is one of a single GPU
            fits.append(held // FINEST * (FINEST // wanted))
        elif wanted > 0:
            fits.append(held // wanted)
    return min(fits, default=FINEST)


def _words(resources: Mapping[str, Any]) -> str:
    shown = {name: amount for name, amount in resources.items() if name in ("CPU", "GPU") or "memory" not in name}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(shown.items())) or "nothing"
