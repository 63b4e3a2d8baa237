"""What `hfsuite.trials` takes for granted of Ray's internals, a test for each name: a new Ray shows here.

How they behave together is tested by every test that runs a trial.
"""

from __future__ import annotations

import ast
import functools
import inspect
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from unittest.mock import MagicMock

import pytest
import ray.train
from pyarrow.fs import LocalFileSystem
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train._internal import checkpoint_manager
from ray.train._internal.session import _TrainingResult
from ray.train.torch import TorchTrainer
from ray.train.torch import config as torch_config
from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerHealthCheckFailedError
from ray.train.v2._internal.execution import collective_impl, context, train_fn_utils
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import RayTrainWorker, Worker, worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.execution.worker_group.thread_runner import ThreadRunner
from ray.train.v2._internal.execution.worker_group.worker import ActorMetadata
from ray.train.v2._internal.util import ObjectRefWrapper, bundle_to_remote_args
from ray.train.v2.api.exceptions import ControllerError
from ray.tune import Trainable
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.utils import object_cache

import hfsuite.trials.worker_group as seam
from hfsuite.trainers import manifest
from hfsuite.trials import tune_loop


def parameters(function: Any) -> list[str]:
    own = {"self", "_ray_trace_ctx"}  # Ray adds the second to classes that were made actors in this process
    return [name for name in inspect.signature(function).parameters if name not in own]


def worker(number: int, node: str = "node") -> Worker:
    return Worker(f"actor {number}", ActorMetadata("host", node, node, number, {"GPU": []}), {"CPU": 1.0})


def plain_trainer(**run_config: Any) -> TorchTrainer:
    return TorchTrainer(
        lambda: None, scaling_config=ScalingConfig(num_workers=2), run_config=RunConfig(name="contract", **run_config)
    )


def test_every_name_that_the_seam_imports_is_tested_here() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(Path(seam.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("ray.train.v2", "ray.train._internal"))
        for alias in node.names
    }
    here = Path(__file__).read_text()
    assert imported
    assert not [name for name in imported if name not in here]


def test_every_attribute_that_the_seam_reads_is_named_here() -> None:
    """Private ones of Ray's objects, which no type checker sees."""
    tree = ast.parse(Path(seam.__file__).read_text())
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    own = {node.name for node in ast.walk(tree) if isinstance(node, definitions)}
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    here = Path(__file__).read_text()
    private = {name for name in read - own if name.startswith("_") and not name.startswith("__")}
    assert not [name for name in private - {"_hand_over", "_room"} if name not in here]


def test_training_result() -> None:
    result = _TrainingResult(None, {"loss": 1.0})
    assert (result.checkpoint, result.metrics) == (None, {"loss": 1.0})


def test_user_callback_handler() -> None:
    seen: list[Any] = []

    class Observer(UserCallback):
        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            seen.append((metrics, checkpoint))

    from ray.train.v2._internal.execution.training_report import _TrainingReport

    handler = UserCallbackHandler([Observer()], plain_trainer().train_run_context)
    handler.after_report(_TrainingReport(checkpoint=None, metrics={"loss": 1.0}, validation=False), [{"loss": 1.0}])
    assert seen == [([{"loss": 1.0}], None)]


def test_synchronization_actor() -> None:
    """Made through `options(...).remote(...)`, by the name that its module has for it; ranks call one method of it."""
    assert worker_group.SynchronizationActor is SynchronizationActor
    assert "SynchronizationActor.options(" in inspect.getsource(worker_group.WorkerGroup._start_impl)
    assert inspect.getsource(collective_impl).count("sync_actor.") == inspect.getsource(collective_impl).count(
        "sync_actor.broadcast_from_rank_zero.remote("
    )
    actor = SynchronizationActor.options().remote(timeout_s=10, warn_interval_s=5)
    for _ in range(2):  # it serves one collective after another, from the first again
        answer = actor.broadcast_from_rank_zero.remote(
            world_rank=0, world_size=1, data="name", caller_method_name="contract"
        )
        assert ray.get(answer) == "name"
    ray.kill(actor)


def test_what_reports_ask_for_the_names_of_checkpoints() -> None:
    """Of the context, which counts its reports before it asks."""
    assert parameters(context.TrainContext._sync_checkpoint_dir_name_across_ranks) == ["checkpoint_dir_name"]
    source = inspect.getsource(context.TrainContext.report)
    assert source.index("self.report_call_index += 1") < source.index("self._sync_checkpoint_dir_name_across_ranks(")
    assert "synchronization_actor" in inspect.getsource(context.TrainContext.get_synchronization_actor)


def test_train_context() -> None:
    fields = {field.name for field in context.TrainContext.__dataclass_fields__.values()}
    assert {
        "train_run_context",
        "execution_context",
        "dataset_shard_provider",
        "checkpoint_upload_threadpool",
        "report_order_condition",
    } <= fields
    # Both belong to the class: what one run shuts down, the next would find so.
    assert context.TrainContext.checkpoint_upload_threadpool is not None
    assert context.TrainContext.report_order_condition is not None
    execution = {field.name for field in context.ExecutionContext.__dataclass_fields__.values()}
    assert {"result_queue", "training_thread_runner"} <= execution
    with pytest.raises(RuntimeError):
        context.get_train_context()  # there is none outside of a worker


def test_thread_runner() -> None:
    runner = ThreadRunner()
    assert not runner.is_running()
    runner.run(lambda: 1 / 0)
    runner._thread.join()
    assert not runner.is_running()
    assert "ZeroDivisionError" in str(runner.get_error())


def test_train_controller() -> None:
    assert parameters(TrainController.__init__)[:5] == [
        "train_fn_ref", "train_run_context", "scaling_policy", "failure_policy", "callbacks",
    ]  # fmt: skip
    assert TrainController.worker_group_cls is worker_group.WorkerGroup
    assert "self.worker_group_cls.create(" in inspect.getsource(TrainController._start_worker_group)
    assert "await self._poll_workers()" in inspect.getsource(TrainController._step)
    assert inspect.iscoroutinefunction(TrainController._poll_workers)
    assert inspect.iscoroutinefunction(TrainController.run)
    assert "self._failure_policy.make_decision" in inspect.getsource(TrainController)
    for name in ("get_worker_group", "get_result"):
        assert parameters(getattr(TrainController, name)) == []


@pytest.mark.parametrize(("retries", "decision"), [(0, FailureDecision.RAISE), (1, FailureDecision.RETRY)])
def test_create_failure_policy(retries: int, decision: FailureDecision) -> None:
    policy = create_failure_policy(FailureConfig(controller_failure_limit=retries))
    assert (
        policy.make_decision(training_failed_error=ControllerError(WorkerGroupStartupFailedError("a worker died")))
        == decision
    )


def test_fixed_scaling_policy() -> None:
    """It asks the cluster for resources at these two places."""
    scaling = ScalingConfig(num_workers=2)
    policy = seam._AsReserved(scaling)
    assert policy.scaling_config == scaling
    assert parameters(FixedScalingPolicy.after_controller_start) == ["train_run_context"]
    assert parameters(FixedScalingPolicy._maybe_send_resource_request) == []
    policy.after_controller_start(plain_trainer().train_run_context)
    decision = policy.make_decision_for_non_running_worker_group()
    assert (decision.num_workers, decision.resources_per_worker) == (2, {"CPU": 1})
    policy.before_controller_abort()
    assert policy._coordinator_client is None, "no actor that asks for resources, and outlives the sweep"


def test_setup_of_process_groups() -> None:
    """Ray sends this function to each rank; ranks above 0 get one that waits for rank 0 first."""
    assert {"backend", "world_rank", "world_size", "init_method"} <= set(
        parameters(torch_config._setup_torch_process_group)
    )
    source = inspect.getsource(torch_config._TorchBackend.on_start)
    assert "worker_group.execute_single_async(\n" in source
    assert "_setup_torch_process_group,\n" in source
    assert "init_method=url" in source
    assert parameters(worker_group.WorkerGroup.execute_single_async)[:2] == ["rank", "fn"]


def test_end_of_process_groups() -> None:
    """Ray sends this function to all ranks; they get one that does not wait for the end."""
    source = inspect.getsource(torch_config._TorchBackend.on_shutdown)
    assert "worker_group.execute_async(\n" in source
    assert "_shutdown_torch,\n" in source
    assert parameters(worker_group.WorkerGroup.execute_async)[:1] == ["fn"]
    assert "destroy_process_group()" in inspect.getsource(torch_config._shutdown_torch)


def test_get_train_fn_utils() -> None:
    assert parameters(train_fn_utils.get_train_fn_utils) == []
    utils = train_fn_utils.DistributedTrainFnUtils
    assert {"metrics", "checkpoint"} <= set(parameters(utils.report))
    assert parameters(utils.get_checkpoint) == []
    assert "get_train_fn_utils().report(" in inspect.getsource(ray.train.report)
    assert "get_train_fn_utils().get_checkpoint(" in inspect.getsource(ray.train.get_checkpoint)
    assert "get_all_reported_checkpoints(" in inspect.getsource(ray.train.get_all_reported_checkpoints)


def test_ray_train_worker() -> None:
    assert parameters(RayTrainWorker.__init__) == []
    for name in ("poll_status", "shutdown", "get_metadata"):
        assert parameters(getattr(RayTrainWorker, name)) == []
    assert parameters(RayTrainWorker.run_train_fn) == ["train_fn_ref"]
    assert {"train_run_context", "worker_callbacks", "synchronization_actor"} <= set(
        parameters(RayTrainWorker.init_train_context)
    )
    assert RayTrainWorker().execute(lambda value: value + 1, 1) == 2


def test_the_name_of_an_actor_is_the_one_that_it_knows_itself() -> None:
    @ray.remote(num_cpus=0)
    class Actor:
        def own_name(self) -> str:
            return str(ray.get_runtime_context().get_actor_id())

    actor = Actor.remote()
    assert seam.name_of(actor) == actor._actor_id.hex() == ray.get(actor.own_name.remote())


def test_workers_are_ranked_in_place() -> None:
    """`Worker` and `WorkerGroup._assign_worker_ranks`: workers of a node follow each other, and may be ranked again."""
    workers = [worker(0, "a"), worker(1, "b"), worker(2, "a")]
    for _ in range(2):
        ranked = worker_group.WorkerGroup._assign_worker_ranks(workers)
        assert [each.actor for each in ranked] == ["actor 0", "actor 2", "actor 1"]
        assert [each.distributed_context.world_rank for each in ranked] == [0, 1, 2]
        assert [each.distributed_context.local_rank for each in ranked] == [0, 1, 0]


def test_worker_group() -> None:
    group = worker_group.WorkerGroup
    assert parameters(group.__init__) == ["train_run_context", "worker_group_context", "callbacks"]
    assert parameters(group._create_placement_group) == ["scaling_config", "worker_group_context"]
    assert parameters(group._create_workers)[:3] == ["num_workers", "placement_group", "resources_per_worker"]
    assert "self._worker_group_state.shutdown()" in inspect.getsource(group.shutdown)
    assert "timeout_s=self._collective_timeout_s" in inspect.getsource(group._start_impl)
    assert parameters(group.poll_status) == ["timeout"]
    made = group(plain_trainer().train_run_context, None, [])
    assert made._train_run_context.run_config.name == "contract"
    assert parameters(group.get_latest_poll_status) == []
    assert made._latest_poll_status is None
    assert "return self._latest_poll_status" in inspect.getsource(group.get_latest_poll_status)
    assert made._worker_group_state is None
    variables = group._get_worker_runtime_env({"env_vars": {"A": "1"}})["env_vars"]
    assert variables["A"] == "1"
    assert variables["RAY_TRAIN_V2_ENABLED"] == "1"


def test_what_the_environment_says_reaches_workers() -> None:
    assert {name for name in seam.RAY_TRAIN_ENVIRONMENT if name.startswith("RAY_TRAIN")} <= ENV_VARS_TO_PROPAGATE


def test_poll_status_names_errors_and_reports() -> None:
    failed = WorkerStatus(running=False, error=WorkerHealthCheckFailedError("dead", failure=ValueError("why")))
    status = WorkerGroupPollStatus(
        worker_statuses={0: WorkerStatus(running=True), 1: failed}, worker_rank_to_replica_group_rank={0: 0, 1: 1}
    )
    assert list(status.errors) == [1]
    assert isinstance(status.errors[1].health_check_failure, ValueError)
    assert status.worker_statuses[0].training_report is None


def test_placement_group_handle() -> None:
    assert PlacementGroupHandle.__abstractmethods__ == {"placement_group", "ready", "wait", "shutdown"}


def test_worker_group_state() -> None:
    state = WorkerGroupState(start_time=0.0, placement_group_handle=None, workers=[worker(0)], sync_actor=None)
    assert set(vars(state)) == {"start_time", "placement_group_handle", "workers", "sync_actor"}
    assert parameters(state.shutdown) == []


def test_object_ref_wrapper() -> None:
    assert ObjectRefWrapper({"a": 1}).get() == {"a": 1}


def test_bundle_to_remote_args() -> None:
    arguments = bundle_to_remote_args({"CPU": 2, "GPU": 0.5, "special": 1})
    assert (arguments["num_cpus"], arguments["num_gpus"], arguments["resources"]) == (2, 0.5, {"special": 1})


def test_what_a_run_says_of_itself(tmp_path: Path) -> None:
    trainer = plain_trainer(storage_path=str(tmp_path))
    run = trainer.train_run_context
    assert run.run_config.storage_context.experiment_fs_path == str(tmp_path / "contract")
    assert run.run_config.storage_context.storage_filesystem.type_name == "local"
    assert run.run_config.storage_context.local_working_directory
    assert run.run_id
    assert run.backend_config.timeout_s == 1800
    assert callable(trainer._get_train_func())
    assert "self._train_run_context = train_run_context" in inspect.getsource(TrainController.__init__)
    for name in ("get_storage", "get_world_rank", "get_local_rank", "get_local_world_size", "get_node_rank"):
        assert parameters(getattr(context.TrainContext, name)) == []


def test_what_ray_tune_keeps_of_a_trial(tmp_path: Path) -> None:
    """`TrainingTrial` is a Trainable: what it reads and sets of it, in `trainable.py`."""
    trial = Trainable()
    names = ("_iteration", "_time_total", "_time_since_restore", "_iterations_since_restore", "_restored")
    assert {*names, "_last_result", "_storage", "_trial_info"} <= set(vars(trial))
    assert "self._last_result = result" in inspect.getsource(Trainable.train)
    assert isinstance(inspect.getattr_static(Trainable, "trial_resources"), property)
    source = inspect.getsource(Trainable.reset)
    assert source.index("self._trial_info = trial_info") < source.index("self.reset_config("), "the next trial's"


def test_ray_tune_saves_what_it_knows_when_it_is_told_to() -> None:
    parameters = inspect.signature(TuneController.checkpoint).parameters
    assert {"force", "wait"} <= set(parameters)
    assert callable(TuneController.get_trials)
    assert callable(TuneController.get_live_trials)
    source = inspect.getsource(TuneController.step)
    assert source.index("self.checkpoint()") < source.index("self._callbacks.on_step_end(")
    saved = inspect.getsource(TuneController.save_to_dir)
    assert "self._search_alg.save_to_dir(driver_staging_path, session_str=self._session_str)" in saved
    assert "save_fn=self.save_to_dir," in inspect.getsource(TuneController.checkpoint)
    assert "driver_staging_path = self._storage.experiment_driver_staging_path" in inspect.getsource(
        TuneController.save_to_dir
    )


def test_ray_tune_would_start_anew_where_it_cannot_resume() -> None:
    source = inspect.getsource(TuneController.__init__)
    assert "self.resume(resume_config=resume_config)" in source
    assert "if self._fail_fast:\n                    raise" in source


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


def test_default_callbacks_of_a_trainer() -> None:
    names = {type(callback).__name__ for callback in plain_trainer()._create_default_callbacks()}
    assert seam.UNUSED_CALLBACKS | {"DatasetsCallback", "BackendSetupCallback"} <= names
