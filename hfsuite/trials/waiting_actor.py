"""An actor of trials that starts before there is a trial for it: it imports meanwhile. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import ray
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import _ActorClassCache
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

if TYPE_CHECKING:
    from hfsuite.trials.trainable import TrainingTrial


class WaitingActor:
    """To Ray Tune, which asks a class for an actor, this is a class.

    Otherwise a trial would wait for ten seconds and more until its actor has imported. A task could not import for it:
    Ray takes no process for an actor that has run a task.

    Args:
        trial: the class of the actor.
        group: the placement group in which it starts; it takes nothing of it.
        name: of the actor.
    """

    def __init__(self, trial: type[TrainingTrial], group: PlacementGroup, name: str | None = None) -> None:
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


@contextmanager
def in_groups(actor_in: Callable[[PlacementGroup], WaitingActor | None]) -> Iterator[None]:
    """Has Ray Tune take the actor that waits in a placement group.

    Args:
        actor_in: from a group to that actor, if there is one.
    """
    own = PlacementGroupAcquiredResources._annotate_remote_entity

    def annotate(acquired: Any, entity: Any, bundle: Any, bundle_index: int) -> Any:
        return actor_in(acquired.placement_group) or own(acquired, entity, bundle, bundle_index)

    with mock.patch.object(PlacementGroupAcquiredResources, "_annotate_remote_entity", annotate):
        yield


def where(group: PlacementGroup) -> dict[str, Any]:
    """Options of an actor of trials: in the first bundle of its placement group, of which it takes nothing."""
    return {
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0, True), "num_cpus": 0, "num_gpus": 0
    }  # fmt: skip
