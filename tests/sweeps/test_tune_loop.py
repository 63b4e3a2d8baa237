"""What `tune_loop.py` takes for granted of Ray Tune, beside what becomes of it: a new Ray shows here."""

from __future__ import annotations

import functools
import inspect
import math
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from unittest.mock import MagicMock

import pytest
from pyarrow.fs import LocalFileSystem
from ray.train import Checkpoint, CheckpointConfig
from ray.train._internal import checkpoint_manager
from ray.train._internal.session import _TrainingResult
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.utils import object_cache

from hfsuite.checkpoints import manifest
from hfsuite.sweeps import tune_loop


def test_ray_tunes_patience_with_the_last_trials() -> None:
    assert "self._actor_force_cleanup_timeout: int = 10" in inspect.getsource(TuneController.__init__)
    assert "< self._actor_force_cleanup_timeout" in inspect.getsource(TuneController)
    with tune_loop.time_to_end(60.0):
        controller = TuneController.__new__(TuneController)
        controller._actor_force_cleanup_timeout = 10
        assert controller._actor_force_cleanup_timeout == 60.0
    assert not hasattr(TuneController, "_actor_force_cleanup_timeout")


def test_ray_tune_removes_checkpoints_beside_its_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go, own = threading.Event(), checkpoint_manager._delete_fs_path

    def slow(**arguments: Any) -> None:
        assert may_go.wait(30)
        own(**arguments)

    monkeypatch.setattr(checkpoint_manager, "_delete_fs_path", slow)
    manager = checkpoint_manager._CheckpointManager(CheckpointConfig(num_to_keep=1))
    folders = [tmp_path / f"checkpoint_{number}" for number in range(2)]
    with tune_loop.Removals(set) as removals:
        for folder in folders:
            folder.mkdir()
            (folder / "model").write_text("weights")
            checkpoint = Checkpoint.from_directory(folder)
            manifest.seal(checkpoint, {}, world_size=1)
            manager.register_checkpoint(_TrainingResult(checkpoint, {}))  # returns, though nothing may go yet
        assert [(folder / "model").exists() for folder in folders] == [True, True]
        assert [manifest.is_sealed(Checkpoint.from_directory(folder)) for folder in folders] == [False, True]
        may_go.set()
        removals.wait()
        assert [folder.exists() for folder in folders] == [False, True]
    assert checkpoint_manager._delete_fs_path is slow, "as before, for Tuners of the user's own"


def test_a_checkpoint_that_another_trial_will_exploit_is_removed_later(tmp_path: Path) -> None:
    exploited, other = tmp_path / "exploited", tmp_path / "other"
    in_use = {str(exploited)}
    with tune_loop.Removals(lambda: in_use) as removals:
        for folder in (exploited, other):
            folder.mkdir()
        for folder, there in ((exploited, [True, True]), (other, [True, False])):
            checkpoint_manager._delete_fs_path(fs=LocalFileSystem(), fs_path=str(folder))
            removals.wait()
            assert [exploited.exists(), other.exists()] == there
        in_use.clear()
        other.mkdir()
        checkpoint_manager._delete_fs_path(fs=LocalFileSystem(), fs_path=str(other))
        removals.wait()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("came_to", "perturbed_at", "next_one"),
    [(5, 5, 5), (25, 25, 25), (4, 2, 4)],
    ids=["a sweep that was taken up again", "reports between perturbations", "the last one has failed"],
)
def test_members_of_a_population_that_only_wait_for_each_other_go_on(
    came_to: int, perturbed_at: int, next_one: int
) -> None:
    population = PopulationBasedTraining(
        "training_iteration", metric="a/loss", mode="min", perturbation_interval=2, synch=True,
        hyperparam_mutations={"x": [1, 2]},
    )  # fmt: skip
    members = [
        MagicMock(status=Trial.PAUSED, last_result={"training_iteration": came_to, "a": {"loss": 1.0 + number}})
        for number in range(2)
    ]
    controller: Any = MagicMock()
    controller.get_trials.return_value = controller.get_live_trials.return_value = members
    for member in members:
        member.is_finished.return_value = False
        population._trial_state[member] = state = MagicMock(
            last_train_time=came_to, last_perturbation_time=perturbed_at
        )
        state.last_score = -member.last_result["a"]["loss"]
    population._next_perturbation_sync = next_one
    assert population.choose_trial_to_run(controller) is None, "by itself Ray Tune waits for ever"
    with mock.patch.object(population, "_exploit"), tune_loop.whole_populations():
        assert population.choose_trial_to_run(controller) in members
        members[0].status = Trial.RUNNING
        population._next_perturbation_sync = came_to
        assert population.choose_trial_to_run(controller) is None, "one will come, and wake the other"


def test_a_member_that_saves_is_not_asked_for_its_checkpoint_again() -> None:
    trial: Any = SimpleNamespace(temporary_state=SimpleNamespace(saving_to="under way"))
    assert "tune_controller._schedule_trial_save(" in inspect.getsource(PopulationBasedTraining._checkpoint_or_exploit)
    with tune_loop.whole_populations():
        assert TuneController._schedule_trial_save(MagicMock(), trial, result={}) == "under way"


def test_a_configuration_passes_through_before_anybody_has_it() -> None:
    def read(config: dict[str, Any]) -> dict[str, Any]:
        return {name: str(value) for name, value in config.items()}

    adds = inspect.getsource(TuneController.add_trial)
    places = [adds.index(each) for each in ("resolve_config_placeholders(", "create_placement_group_factory(", "on_tr")]
    assert places == sorted(places), "whole, and not yet known to the trial scheduler"
    trial: Any = Trial.__new__(Trial)
    trial.config, trial._state_json = {"x": 1}, None
    trial._default_placement_group_factory, trial._setup_default_resource, trial.trainable_name = None, False, "none"
    with mock.patch.object(Trial, "get_trainable_cls", return_value=None), tune_loop.settings_taken_over(read):
        trial.create_placement_group_factory()
        assert trial.config == {"x": "1"}
        trial.set_config({"x": 2})
        assert trial.config == {"x": "2"}
    trial.set_config({"x": 3})
    assert trial.config == {"x": 3}, "as before, for Tuners of the user's own"


def test_ray_tunes_cache_of_actors() -> None:
    assert "self._actor_cache = _ObjectCache(" in inspect.getsource(TuneController.__init__)
    assert "if self._search_alg.is_finished() and" in inspect.getsource(TuneController._maybe_cache_trial_actor)
    assert "self._cleanup_cached_actors(force_all=True)" in inspect.getsource(TuneController._cleanup_trials)
    for kept, may_be_paused in ((1, nullcontext()), (3, tune_loop.actors_outlive_pauses())):
        with may_be_paused:
            cache = tune_controller._ObjectCache(may_keep_one=True)
        assert sum(cache.cache_object("resources", actor) for actor in "abc") == kept
        assert cache.num_cached_objects == kept
        assert len(list(cache.flush_cached_objects(force_all=True))) == kept
    assert tune_controller._ObjectCache is object_cache._ObjectCache, "as before"


@pytest.mark.parametrize("another_is_paused", [True, False])
def test_an_actor_is_kept_for_a_trial_that_pauses_although_nothing_more_is_proposed(another_is_paused: bool) -> None:
    trial: Any = SimpleNamespace(placement_group_factory="resources", set_ray_actor=lambda actor: None)
    trials, removed = SimpleNamespace(is_finished=lambda: True), []
    own_actor = MagicMock()
    controller: Any = SimpleNamespace(
        _reuse_actors=True, _search_alg=trials, _staged_trials=[], _trial_to_actor=MagicMock(),
        _actor_to_trial=MagicMock(), _actor_manager=MagicMock(), _started_actors=MagicMock(),
        _paused_trials={"another"} if another_is_paused else set(), _pending_trials=set(),
        _remove_actor=lambda tracked_actor: removed.append(tracked_actor),
    )  # fmt: skip
    controller._trial_to_actor.__getitem__.return_value = controller._trial_to_actor.pop.return_value = own_actor
    controller._actor_manager.is_actor_failed.return_value = False
    controller._started_actors.__contains__.return_value = True
    assert not TuneController._maybe_cache_trial_actor(controller, trial), "what Ray Tune does by itself"
    with tune_loop.actors_outlive_pauses():
        controller._actor_cache = tune_controller._ObjectCache(may_keep_one=True)
        assert TuneController._maybe_cache_trial_actor(controller, trial)
        TuneController._cleanup_cached_actors(controller)
        assert removed == ([] if another_is_paused else [own_actor])
        TuneController._cleanup_cached_actors(controller, force_all=True)
    assert removed == [own_actor]


def test_a_member_that_is_paused_while_it_saves_is_not_stopped_later() -> None:
    own = inspect.getsource(PopulationBasedTraining._exploit)
    assert "tune_controller.pause_trial(trial, should_checkpoint=False)" in own
    trial: Any = MagicMock(trial_id="a", is_saving=True, status=Trial.RUNNING)
    controller: Any = MagicMock(_cached_trial_decisions={"a": TrialScheduler.PAUSE}, _trial_to_actor={trial: "actor"})
    controller._schedule_trial_stop = functools.partial(TuneController._schedule_trial_stop, controller)
    TuneController._schedule_trial_pause(controller, trial, should_checkpoint=False)
    assert controller._cached_trial_decisions == {"a": TrialScheduler.STOP}, "what Ray Tune does by itself"
    trial.status = Trial.PAUSED
    with tune_loop.whole_populations():
        TuneController._schedule_trial_pause(controller, trial, should_checkpoint=False)
    assert controller._cached_trial_decisions == {}


def test_ray_tunes_searcher_and_scheduler_see_only_what_they_can_compare() -> None:
    source = inspect.getsource(TuneController._process_trial_result)
    assert "self._scheduler_alg.on_trial_result(\n" in source
    assert "self._search_alg.on_trial_result(trial.trial_id, flat_result)" in source
    assert "trial.on_checkpoint(checkpoint_value)" in inspect.getsource(TuneController._process_trial_save)

    def set_aside(result: dict[str, Any]) -> None:
        if result.get("loss") == "low":
            del result["loss"]

    controller, seen = MagicMock(), []
    controller._scheduler_alg.on_trial_result = lambda *_: seen.append("asked") or TrialScheduler.STOP
    controller._search_alg.on_trial_result = lambda *_: seen.append("told")

    def process(of: Any, trial: Any, result: dict[str, Any]) -> Any:
        of._search_alg.on_trial_result(trial, result)
        return of._scheduler_alg.on_trial_result(of, trial, result)

    saved = SimpleNamespace(metrics={"loss": "low"})
    with mock.patch.multiple(TuneController, _process_trial_result=process, _process_trial_save=lambda *_: None):
        with tune_loop.comparable_reports("loss", set_aside):
            decide = functools.partial(TuneController._process_trial_result, controller, "trial")
            assert decide({"loss": "low"}) == TrialScheduler.CONTINUE
            assert seen == []
            assert decide({"loss": 0.5}) == TrialScheduler.STOP
            assert seen == ["told", "asked"]
            TuneController._process_trial_save(controller, "trial", saved)
            assert math.isnan(saved.metrics["loss"]), "Tune takes a checkpoint without the metric for the best"
        assert TuneController._process_trial_result is process
