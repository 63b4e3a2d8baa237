"""Ray Tune's loop where trials share GPUs: in slots; and once more, alone, where a trial's memory ran out. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from hfsuite.trials.gpu_group import Slot, State
from hfsuite.trials.gpu_slots import SharedGpus
from hfsuite.trials.resources import TrialRequest, is_alone, is_grown


@contextmanager
def in_slots(shared: SharedGpus, again: Callable[[Trial, str], TrialRequest | None]) -> Iterator[None]:
    """Has Ray Tune run trials in the slots of GPUs, as many at once as there shall be.

    Args:
        shared: the GPUs.
        again: is told of a trial that has failed, and why; says what it asks for to be tried again, if that was not its
            own fault.
    """
    own_actors, own_failure = tune_controller.RayActorManager, TuneController._process_trial_failure
    own_reuse = TuneController._maybe_reuse_cached_actor

    def actors(resource_manager: Any) -> Any:
        shared.actors = own_actors(resource_manager=shared)
        return shared.actors

    def process_failure(controller: Any, trial: Trial, exception: Any) -> None:
        if trial.status == Trial.RUNNING and (request := again(trial, str(exception))) is not None:
            trial.max_failures = trial.run_metadata.num_failures + 1  # one attempt more than it has had
            trial.placement_group_factory = request
        own_failure(controller, trial, exception)

    def maybe_reuse(controller: Any, trial: Trial) -> bool:
        """A trial whose own actor is starting keeps it: the one that waits goes to a trial that has none."""

        def has_own(each: Trial) -> bool:
            return shared.slot_of_tracked(controller._trial_to_actor.get(each)) is not None

        if not has_own(trial):
            return bool(own_reuse(controller, trial))
        other = next((each for each in controller._pending_trials if not has_own(each)), None)
        if other is None or not controller._actor_cache.has_cached_object(other.placement_group_factory):
            return False
        if other in controller._staged_trials:
            own_reuse(controller, other)
        else:
            controller._staged_trials.add(other)
            controller._actor_cache.increase_max(other.placement_group_factory)
            controller._schedule_trial_actor(other)
        return False

    with (
        mock.patch.multiple(
            tune_controller, RayActorManager=actors, _ObjectCache=lambda may_keep_one: _Waiting(shared)
        ),
        mock.patch.multiple(
            TuneController, _process_trial_failure=process_failure, _maybe_reuse_cached_actor=maybe_reuse
        ),
    ):
        yield


class _Waiting(_ObjectCache):
    """The actors that wait for a trial, in slots; each waits whether or not there is a trial for it yet."""

    def __init__(self, shared: SharedGpus) -> None:
        super().__init__()
        self._shared = shared

    def has_cached_object(self, key: Any) -> bool:
        """Whether one may have a trial now."""
        return self._next(key) is not None

    def cache_object(self, key: Any, obj: Any) -> bool:
        """A trial is over, and its actor waits, unless there are too many."""
        slot = self._shared.slot_of_tracked(obj)
        if slot is None or slot.group.is_crowded(self._shared.size) or is_alone(key) or is_grown(key):
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        slot.group.put(slot, State.IDLE)
        return True

    def pop_cached_object(self, key: Any) -> Any:
        """An actor gets a trial: the one with the fewest neighbours."""
        if (found := self._next(key)) is None:
            return None
        slot, actor = found
        self._cached_objects[key].remove(actor)
        self._num_cached_objects -= 1
        slot.group.put(slot, State.BUSY)
        return actor

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Those that shall end: all, when no trial will come; and those who wait where a trial shall be alone."""
        if force_all:
            yield from super().flush_cached_objects(force_all=True)
            return
        for key in list(self._cached_objects):
            for actor in list(self._cached_objects[key]):
                slot = self._shared.slot_of_tracked(actor)
                if slot is not None and slot.group.is_reserved:
                    self._cached_objects[key].remove(actor)
                    self._num_cached_objects -= 1
                    yield actor

    def _next(self, key: Any) -> tuple[Slot, Any] | None:
        waiting = {slot: actor for actor in self._cached_objects[key] if (slot := self._shared.slot_of_tracked(actor))}
        slot = self._shared.next_of(list(waiting))
        return None if slot is None else (slot, waiting[slot])
