"""Ray Tune's actors where its trial scheduler pauses trials: populations, HyperBand. Driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache


@contextmanager
def actors_outlive_pauses() -> Iterator[None]:
    """Has Ray Tune keep the actors of trials that pause, and their workers with them, until those go on.

    By itself it keeps one, and none once there is nothing more to propose. All trials of a sweep ask for the same
    resources: what is kept stands in nobody's way.
    """
    own_cache, own_cleanup = TuneController._maybe_cache_trial_actor, TuneController._cleanup_cached_actors

    def maybe_cache(controller: Any, trial: Any) -> bool:
        with mock.patch.object(controller._search_alg, "is_finished", return_value=False):
            return bool(own_cache(controller, trial))

    def cleanup(controller: Any, force_all: bool = False) -> None:
        if force_all or not (controller._paused_trials or controller._pending_trials):
            own_cleanup(controller, force_all=force_all)

    with (
        mock.patch.object(tune_controller, "_ObjectCache", _KeepsAll),
        mock.patch.multiple(TuneController, _maybe_cache_trial_actor=maybe_cache, _cleanup_cached_actors=cleanup),
    ):
        yield


class _KeepsAll(_ObjectCache):
    def cache_object(self, key: Any, obj: Any) -> bool:
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True
