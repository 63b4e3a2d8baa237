"""Actors that wait for a trial: Ray Tune takes them, unless they have died."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from hfsuite.trials.gpu_group import Group, Slot
from hfsuite.trials.gpu_slots import SharedGpus
from hfsuite.trials.resources import TrialRequest
from hfsuite.trials.waiting_actor import WaitingActor
from tests.ranks import leaving


@pytest.fixture
def group() -> Iterator[PlacementGroup]:
    made = placement_group([{"CPU": 1}])
    yield made
    remove_placement_group(made)


def shared() -> tuple[SharedGpus, TrialRequest]:
    """One group, which needs no GPU, and the request of a trial."""
    request = TrialRequest([{}, {"CPU": 1}])
    manager = SharedGpus([Group(placement_group([{"CPU": 1}]), 1)])
    manager.groups[0].slots = [Slot(manager.groups[0])]
    manager.request_resources(request)
    return manager, request


def started(manager: SharedGpus, request: TrialRequest) -> Any:
    """What Ray Tune's manager of actors gets to start an actor from."""
    while (acquired := manager.acquire_resources(request)) is None:
        time.sleep(0.1)
    [found] = acquired.annotate_remote_entities([ray.remote(leaving.trainer().as_trainable())])
    return found


@pytest.mark.parametrize("dies", [False, True])
def test_a_trial_begins_in_the_actor_that_waits_in_its_slot_unless_it_has_died(dies: bool) -> None:
    manager, request = shared()
    (group,) = manager.groups
    (slot,) = group.slots
    waiting = slot.waiting = WaitingActor(leaving.trainer().as_trainable(), group.placement_group, slot.name)
    ray.get(waiting.ready)
    if dies:
        ray.kill(waiting.actor)
        while waiting.lives:
            time.sleep(0.1)
    assert (started(manager, request) is waiting) is not dies
    assert slot.waiting is None, "it has one trial"
    manager.clear()


def test_it_waits_with_its_imports_done_and_takes_no_resources(group: PlacementGroup) -> None:
    waiting = WaitingActor(leaving.trainer().as_trainable(), group, "waits")
    ray.get(waiting.ready)
    assert waiting.lives
    assert ray.available_resources().get(f"CPU_group_{group.id.hex()}") == 1


def test_what_goes_wrong_when_a_trial_comes_is_what_its_training_raises(group: PlacementGroup) -> None:
    class Broken(leaving.trainer().as_trainable()):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            raise OSError(f"no place for trial {config['number']}")

    actor = WaitingActor(Broken, group, "breaks").remote(config={"number": 3}, storage=None)
    for _ in range(2):
        with pytest.raises(OSError, match="no place for trial 3"):
            ray.get(actor.train.remote())
    ray.get(actor.stop.remote())


def test_what_ray_tune_does_to_start_an_actor() -> None:
    assert "_actor_cls = self._class_cache.get(trainable_cls)" in inspect.getsource(
        TuneController._schedule_trial_actor
    )
    assert list(inspect.signature(_ActorClassCache.get).parameters) == ["self", "trainable_cls"]
    started = inspect.getsource(RayActorManager._try_start_actors)
    assert "actor = remote_actor_cls.remote(**kwargs)" in started
