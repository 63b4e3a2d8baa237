"""Actors that wait for a trial: Ray Tune takes them, unless they have died."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from hfsuite.sweeps.head_start import HeadStart
from hfsuite.trials.waiting_actor import WaitingActor, in_groups
from tests import program
from tests.ranks import leaving
from tests.trials.test_workers import first_reports, tune_leaving


@pytest.fixture
def group() -> Iterator[PlacementGroup]:
    made = placement_group([{"CPU": 1}])
    yield made
    remove_placement_group(made)


def run(tmp_path: Path, *, dies: bool) -> tuple[list[bool], list[int]]:
    """A trial for which an actor waits. Whether Ray Tune was given one, each time it asked; and the trial's steps."""
    given = []
    with HeadStart() as head_start:
        head_start.begin(trial := leaving.trainer().as_trainable(), 1)
        (waiting,) = head_start._actors.values()
        if dies:
            ray.get(waiting.ready)
            ray.kill(waiting.actor)
            while waiting.lives:
                time.sleep(0.1)

        def actor_in(group: PlacementGroup) -> WaitingActor | None:
            found = head_start.actor_in(group)
            given.append(found is waiting)
            return found

        with in_groups(actor_in):
            reports = first_reports(tune_leaving(tmp_path, ["nothing"], trial=trial))
    program.wait_for_free_cpus()
    assert program.placement_groups() == 0
    return given, [each["step"] for each in reports]


def test_a_trial_begins_in_the_actor_that_waits_for_it(tmp_path: Path) -> None:
    assert run(tmp_path, dies=False) == ([True], [1])


def test_a_trial_whose_actor_died_while_it_waited_gets_another(tmp_path: Path) -> None:
    assert run(tmp_path, dies=True) == ([False], [1])


def test_it_waits_with_its_imports_done_and_takes_no_resources(group: PlacementGroup) -> None:
    waiting = WaitingActor(leaving.trainer().as_trainable(), group)
    ray.get(waiting.ready)
    assert waiting.lives
    assert ray.available_resources().get(f"CPU_group_{group.id.hex()}") == 1


def test_what_goes_wrong_when_a_trial_comes_is_what_its_training_raises(group: PlacementGroup) -> None:
    class Broken(leaving.trainer().as_trainable()):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            raise OSError(f"no place for trial {config['number']}")

    actor = WaitingActor(Broken, group).remote(config={"number": 3}, storage=None)
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
    annotate = inspect.signature(PlacementGroupAcquiredResources._annotate_remote_entity)
    assert list(annotate.parameters) == ["self", "entity", "bundle", "bundle_index"]
