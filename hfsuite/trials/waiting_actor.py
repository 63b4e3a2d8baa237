"""An actor of trials that starts before there is a trial for it: it imports meanwhile. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import _ActorClassCache
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

if TYPE_CHECKING:
    from hfsuite.trials.trainable import TrainingTrial


class WaitingActor:
    """To Ray Tune, which asks a class for an actor, this is a class.

    Otherwise a trial that comes to share a GPU would wait for ten seconds and more until its actor has imported. A task
    could not import for it: Ray takes no process for an actor that has run a task. The first trial of a sweep has none:
    its workers take as long, and the first step came no sooner with it.

    Args:
        trial: the class of the actor.
        group: the placement group in which it starts; it takes nothing of it.
        name: of the actor, by which it knows its slot.
    """

    def __init__(self, trial: type[TrainingTrial], group: PlacementGroup, name: str) -> None:
        actor_class = _ActorClassCache().get(trial)  # as Ray Tune starts it
        self.actor = actor_class.options(**where(group), name=name).remote(waits=True)
        self.ready = self.actor.__ray_ready__.remote()

    @property
    def lives(self) -> bool:
        """Whether it has not died."""
        is_ready, _ = ray.wait([self.ready], timeout=0)
        try:
            return not is_ready or bool(ray.get(self.actor.__ray_ready__.remote()))  # it does nothing else
        except RayActorError:
            return False

    def remote(self, **arguments: Any) -> Any:
        """A trial has come. Returns its actor.

        Args:
            arguments: of Ray Tune, for a new one.
        """
        self.actor.begin.remote(**arguments)
        return self.actor


def where(group: PlacementGroup) -> dict[str, Any]:
    """Options of an actor of trials: in the first bundle of its placement group, of which it takes nothing."""
    return {
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0, True), "num_cpus": 0, "num_gpus": 0
    }  # fmt: skip
