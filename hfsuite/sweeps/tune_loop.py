"""Ray Tune's loop as a sweep needs it: what it saves, what it keeps, what it waits for. Driver.

One of the files that touch Ray's internals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from unittest import mock

import pyarrow.fs
from ray.train._internal import checkpoint_manager
from ray.tune import PlacementGroupFactory
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.result import RESULT_DUPLICATE
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.utils import flatten_dict
from ray.tune.utils.object_cache import _ObjectCache

from hfsuite.checkpoints import manifest
from hfsuite.errors import ConfigurationError


@contextmanager
def time_to_end(seconds: float) -> Iterator[None]:
    """Has Ray Tune wait so long for the last trials to end, where it would kill their actors after ten seconds.

    Args:
        seconds: from when it has asked them to.
    """
    waits = property(lambda controller: seconds, lambda controller, value: None)
    with mock.patch.object(TuneController, "_actor_force_cleanup_timeout", waits, create=True):
        yield


@contextmanager
def lasting_state(
    keep: Callable[[str, str], None],
    restored: Callable[[list[Any]], None],
    resources: Callable[[Any], PlacementGroupFactory],
) -> Iterator[None]:
    """Has Ray Tune save what it knows whenever a trial begins or ends, and never start anew without a word.

    A driver that is killed then forgets no trial of which anybody has been told: callbacks hear that the loop has
    turned (`on_step_end`) after it has saved.

    Args:
        keep: is given the folder with the files of Ray Tune's state, each time that it has written them, and what the
            names of those files have in them.
        restored: is given the trials of a sweep that is taken up again, before there are new ones.
        resources: from one of them to what it needs; this machine may not be the one that it began on.
    """
    own, own_save, own_resume = TuneController.checkpoint, TuneController.save_to_dir, TuneController.resume
    saved = 0, 0

    def checkpoint(controller: Any, force: bool = False, wait: bool = False) -> None:
        nonlocal saved
        known = len(controller.get_trials()), len(controller.get_live_trials())
        own(controller, force=force or known != saved, wait=wait)
        saved = known

    def save_to_dir(controller: Any) -> None:
        own_save(controller)
        if controller.get_trials():
            keep(controller._storage.experiment_driver_staging_path, controller._session_str)

    def resume(controller: Any, resume_config: Any) -> None:
        try:
            own_resume(controller, resume_config)
            for trial in controller.get_live_trials():
                _forget_removed_checkpoints(trial)
                _ask_anew(controller, trial, resources(trial))
            restored(controller.get_trials())
        except Exception as error:
            controller._fail_fast = True  # otherwise it logs the error, and starts anew
            raise ConfigurationError(
                f"Ray Tune cannot take the sweep up again ({type(error).__name__}: {error}). What its trials have "
                "reported and saved is still there: hfsuite sync brings it to MLflow."
            ) from error

    with mock.patch.multiple(TuneController, checkpoint=checkpoint, save_to_dir=save_to_dir, resume=resume):
        yield


def _ask_anew(controller: Any, trial: Any, resources: PlacementGroupFactory) -> None:
    """Has a trial that goes on ask for what it needs now."""
    waiting = controller._resources_to_pending_trials
    waiting[trial.placement_group_factory].discard(trial)
    trial.placement_group_factory = resources
    if trial.status == Trial.PENDING:
        waiting[resources].add(trial)


def _forget_removed_checkpoints(trial: Any) -> None:
    """Has Ray Tune choose among the checkpoints that are there, where it would keep one that is gone as the best."""
    known = trial.run_metadata.checkpoint_manager
    known._checkpoint_results = [
        each
        for each in known._checkpoint_results
        if each.checkpoint.filesystem.get_file_info(each.checkpoint.path).type != pyarrow.fs.FileType.NotFound
    ]


@contextmanager
def settings_taken_over(read: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Has the configuration of each trial pass through a function before its ranks, or any record, get it.

    A trial has its configuration from a searcher, from Ray Tune's state when a sweep is taken up again, or from a trial
    scheduler that changes it. The first two end with the trial's placement group, for which the configuration is whole;
    the last one sets it.

    Args:
        read: from a configuration to the one that counts; what has passed through stays the same.
    """
    own_request, own_set = Trial.create_placement_group_factory, Trial.set_config

    def set_config(trial: Any, config: dict[str, Any]) -> None:
        own_set(trial, read(config))

    def create_placement_group_factory(trial: Any) -> None:
        trial.set_config(trial.config)
        own_request(trial)

    with mock.patch.multiple(
        Trial, set_config=set_config, create_placement_group_factory=create_placement_group_factory
    ):
        yield


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


@contextmanager
def whole_populations() -> Iterator[None]:
    """Has the members of a synchronous population train to their end, whatever becomes of the others.

    Members pause until all have come as far, and the last one wakes them. By itself Ray Tune counts one that failed
    among those that will come; nobody wakes the others if the last one ends instead; and where members report at other
    times than those of the perturbations, it wakes nobody who has come as far as the next one already. All these wait
    for ever. Of a member that still saves, to pause, it asks for the checkpoint again, which there is only once; and if
    the member shall go on from another's, it notes it as one to stop at its next checkpoint.
    """
    own_live, own_choice = TuneController.get_live_trials, PopulationBasedTraining.choose_trial_to_run
    own_pause, own_save = TuneController._schedule_trial_pause, TuneController._schedule_trial_save

    def live_trials(controller: Any) -> set[Any]:
        return {trial for trial in own_live(controller) if not trial.is_finished()}

    def choose_trial_to_run(scheduler: Any, controller: Any) -> Any:
        members = controller.get_live_trials()
        chosen = own_choice(scheduler, controller)
        if chosen is not None or not members or any(member.status != Trial.PAUSED for member in members):
            return chosen
        last = max(members, key=lambda member: scheduler._trial_state[member].last_train_time)
        scheduler.on_trial_result(controller, last, flatten_dict(last.last_result))  # as if it came only now
        come_to = scheduler._trial_state[last].last_train_time
        if scheduler._next_perturbation_sync <= come_to:
            scheduler._next_perturbation_sync = come_to + scheduler._perturbation_interval
        return own_choice(scheduler, controller)

    def save(controller: Any, trial: Any, result: dict[str, Any] | None = None) -> Any:
        return trial.temporary_state.saving_to or own_save(controller, trial, result)

    def pause(controller: Any, trial: Any, should_checkpoint: bool = True) -> None:
        own_pause(controller, trial, should_checkpoint)
        if not should_checkpoint and trial.status == Trial.PAUSED:
            controller._cached_trial_decisions.pop(trial.trial_id, None)

    with (
        mock.patch.object(TuneController, "get_live_trials", live_trials),
        mock.patch.object(TuneController, "_schedule_trial_pause", pause),
        mock.patch.object(TuneController, "_schedule_trial_save", save),
        mock.patch.object(PopulationBasedTraining, "choose_trial_to_run", choose_trial_to_run),
    ):
        yield


@contextmanager
def comparable_reports(metric: str, set_aside: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Has Ray Tune show its searcher and trial scheduler only reports that carry what they compare.

    Its `Stopper` is asked too late to change what they see. By themselves some pass over a report without the metric,
    and others raise, which ends the whole sweep; none of them expects a metric that is no number. Of checkpoints Ray
    Tune believes that one without the metric is the best, and keeps none whose metric is no number.

    Args:
        metric: what is optimised.
        set_aside: takes a metric that nothing can be compared by out of a report.
    """
    own_result, own_save = TuneController._process_trial_result, TuneController._process_trial_save

    def process_result(controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        set_aside(result)
        with ExitStack() as unseen:
            if metric not in result and RESULT_DUPLICATE not in result:
                goes_on = mock.patch.object(
                    controller._scheduler_alg, "on_trial_result", return_value=TrialScheduler.CONTINUE
                )
                unseen.enter_context(goes_on)
                unseen.enter_context(mock.patch.object(controller._search_alg, "on_trial_result"))
            return own_result(controller, trial, result)

    def process_save(controller: Any, trial: Any, saved: Any) -> None:
        set_aside(saved.metrics)
        saved.metrics.setdefault(metric, math.nan)
        own_save(controller, trial, saved)

    with mock.patch.multiple(TuneController, _process_trial_result=process_result, _process_trial_save=process_save):
        yield


class _KeepsAll(_ObjectCache):
    def cache_object(self, key: Any, obj: Any) -> bool:
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True


class Removals:
    """A context in which Ray Tune removes checkpoints beside its loop, for which the next report of a trial may wait.

    Two gigabytes take a quarter of a second. The manifest goes first and at once: nobody takes for complete what is
    about to go.

    Args:
        in_use: the paths of checkpoints from which trials will go on, maybe of others: they stay until they are not.
    """

    def __init__(self, in_use: Callable[[], set[str]]) -> None:
        self._in_use = in_use
        self._deferred: list[tuple[pyarrow.fs.FileSystem, str]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="removals")
        self._begun: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._own, checkpoint_manager._delete_fs_path = checkpoint_manager._delete_fs_path, self._remove
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        checkpoint_manager._delete_fs_path = self._own
        self._thread.shutdown()

    def wait(self) -> None:
        """Returns when all that was to go is gone."""
        wait(self._begun)
        self._begun.clear()

    def _remove(self, fs: pyarrow.fs.FileSystem, fs_path: str) -> None:
        wanted, in_use = [*self._deferred, (fs, fs_path)], self._in_use()
        self._deferred = [each for each in wanted if each[1] in in_use]
        for filesystem, path in wanted:
            if path not in in_use:
                with suppress(OSError):
                    filesystem.delete_file(f"{path}/{manifest.MANIFEST}")
                self._begun.append(self._thread.submit(self._own, fs=filesystem, fs_path=path))
