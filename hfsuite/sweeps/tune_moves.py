"""Ray Tune's loop where the last trials of a sweep go on elsewhere: see `hfsuite.sweeps.last_trials`. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import TrialScheduler

from hfsuite.report import TRAINING_FINISHED
from hfsuite.trials.resources import TrialRequest


@contextmanager
def last_trials_move(
    next_place: Callable[[Trial], TrialRequest | None], keeps_idle: Callable[[], bool]
) -> Iterator[None]:
    """Has Ray Tune pause a trial at a checkpoint, and let it go on from there with what it asks for then.

    Args:
        next_place: what a trial asks for that has just saved; None if it stays where it is.
        keeps_idle: whether actors without a trial wait for one that may come.
    """
    own_result, own_status = TuneController._process_trial_result, TuneController._set_trial_status
    own_cache, own_cleanup = TuneController._maybe_cache_trial_actor, TuneController._cleanup_cached_actors
    moving: dict[str, TrialRequest] = {}

    def process_result(controller: Any, trial: Trial, result: dict[str, Any]) -> Any:
        decide = controller._scheduler_alg.on_trial_result

        def on_trial_result(asking: Any, reporting: Trial, report: Mapping[str, Any]) -> str:
            decision: str = decide(asking, reporting, report)
            goes_on = decision == TrialScheduler.CONTINUE and not report.get(TRAINING_FINISHED)
            if not goes_on or not report.get(SHOULD_CHECKPOINT):
                return decision
            if (request := next_place(reporting)) is None:
                return decision
            moving[reporting.trial_id] = request
            pause: str = TrialScheduler.PAUSE
            return pause

        with mock.patch.object(controller._scheduler_alg, "on_trial_result", on_trial_result):
            return own_result(controller, trial, result)

    def set_status(controller: Any, trial: Trial, status: str) -> None:
        request = moving.pop(trial.trial_id, None) if status == Trial.PAUSED else None
        if request is not None:
            trial.placement_group_factory = request
        own_status(controller, trial, status)
        if request is not None:  # otherwise the trial scheduler would be asked, which has not paused it
            own_status(controller, trial, Trial.PENDING)

    def maybe_cache(controller: Any, trial: Trial) -> bool:
        if not keeps_idle():
            return bool(own_cache(controller, trial))
        with mock.patch.object(controller._search_alg, "is_finished", return_value=False):
            return bool(own_cache(controller, trial))

    def cleanup(controller: Any, force_all: bool = False) -> None:
        if force_all or not keeps_idle():
            own_cleanup(controller, force_all=force_all)
            return
        with mock.patch.object(controller._search_alg, "is_finished", return_value=False):
            own_cleanup(controller)

    with mock.patch.multiple(
        TuneController,
        _process_trial_result=process_result,
        _set_trial_status=set_status,
        _maybe_cache_trial_actor=maybe_cache,
        _cleanup_cached_actors=cleanup,
    ):
        yield
