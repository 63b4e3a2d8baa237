"""The actors that wait in slots for a trial."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ray
from ray.train import ScalingConfig

from hfsuite.sweeps.tune_slots import _Waiting
from hfsuite.trials.gpu_group import Group, State
from hfsuite.trials.gpu_slots import SharedGpus
from hfsuite.trials.resources import TrialRequest, alone

REQUEST = TrialRequest.of(ScalingConfig(num_workers=1), owner="test")


def test_they_make_room_for_a_trial_that_shall_be_alone() -> None:
    shared = SharedGpus([Group.made(REQUEST, 1) for _ in range(2)], size=1)
    ray.get(shared.get_resource_futures())
    actors: dict[str, Any] = {}
    shared.actors = SimpleNamespace(_live_actors_to_ray_actors_resources=actors)
    waiting = _Waiting(shared)
    try:
        for name in ("one", "other"):
            shared.request_resources(REQUEST)
            acquired = shared.acquire_resources(REQUEST)
            assert acquired is not None
            actors[name] = None, acquired
        assert waiting.cache_object(REQUEST, "one")
        assert not list(waiting.flush_cached_objects())
        lone = alone(REQUEST)
        shared.request_resources(lone)
        assert not shared.has_resources_ready(lone), "one waits where it would be alone"
        assert list(waiting.flush_cached_objects()) == ["one"]
        assert (list(waiting.flush_cached_objects()), waiting.num_cached_objects) == ([], 0)
        slot = actors.pop("one")[1].slot
        slot.group.put(slot, State.EMPTY)
        assert shared.has_resources_ready(lone)
    finally:
        shared.clear()
