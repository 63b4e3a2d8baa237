"""What `hfsuite.trials` takes for granted of Ray's internals, a test for each name: a new Ray shows here.

How they behave together is tested by every test that runs a trial.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.air.execution import PlacementGroupResourceManager
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.experimental import internal_kv
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
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
from ray.tune import result as tune_result
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

from hfsuite import report
from hfsuite.ranks import train_functions
from hfsuite.ranks import worker as rank_worker
from hfsuite.trials import controller, worker_actors

FILES = (train_functions, rank_worker, controller, worker_actors)
SEAM = [ast.parse(Path(each.__file__).read_text()) for each in FILES]


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
        for tree in SEAM
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("ray.train.v2", "ray.train._internal"))
        for alias in node.names
    }
    here = Path(__file__).read_text()
    assert imported
    assert not [name for name in imported if name not in here]


def test_every_attribute_that_the_seam_reads_is_named_here() -> None:
    """Private ones of Ray's objects, which no type checker sees."""
    nodes = [node for tree in SEAM for node in ast.walk(tree)]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    own = {node.name for node in nodes if isinstance(node, definitions)}
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
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
    policy = controller._AsReserved(scaling)
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
    assert worker_actors.name_of(actor) == actor._actor_id.hex() == ray.get(actor.own_name.remote())


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
    assert {
        name for name in worker_actors.RAY_TRAIN_ENVIRONMENT if name.startswith("RAY_TRAIN")
    } <= ENV_VARS_TO_PROPAGATE


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


def test_default_callbacks_of_a_trainer() -> None:
    names = {type(callback).__name__ for callback in plain_trainer()._create_default_callbacks()}
    assert controller.UNUSED_CALLBACKS | {"DatasetsCallback", "BackendSetupCallback"} <= names


def test_tunes_loop_where_trials_share_gpus() -> None:
    """`tune_slots.py` puts others in the place of three classes, and reads what the loop knows of trials and actors."""
    made = inspect.getsource(TuneController.__init__)
    assert "_ObjectCache(may_keep_one=True)" in made
    assert "resource_manager = PlacementGroupResourceManager()" in made
    assert "self._actor_manager = RayActorManager(resource_manager=resource_manager)" in made
    known = ("_staged_trials", "_pending_trials", "_resources_to_pending_trials", "_trial_to_actor", "_actor_cache")
    for name in known:
        assert f"self.{name}" in made
    assert tune_controller.RayActorManager is RayActorManager
    assert parameters(TuneController._process_trial_failure) == ["trial", "exception"]
    assert parameters(TuneController._maybe_reuse_cached_actor) == ["trial"]
    assert parameters(TuneController._schedule_trial_actor) == ["trial"]
    failed = inspect.getsource(TuneController._process_trial_failure)
    assert failed.index("trial.handle_error(exception)") < failed.index("trial.should_recover()")
    started = inspect.getsource(RayActorManager._try_start_actors)
    assert "annotate_remote_entities(" in started
    assert "self._live_actors_to_ray_actors_resources[tracked_actor] = (" in started
    assert {"_cached_objects", "_num_cached_objects"} <= set(vars(_ObjectCache()))
    public = {name for name in vars(PlacementGroupResourceManager) if not name.startswith("_")}
    assert public == {
        "get_resource_futures", "update_state", "request_resources", "cancel_resource_request", "has_resources_ready",
        "acquire_resources", "free_resources", "clear",
    }  # fmt: skip


def test_tunes_loop_where_the_last_trials_move() -> None:
    """`tune_moves.py` pauses trials as a trial scheduler would, and has them ask for others of Ray's resources."""
    assert parameters(TuneController._process_trial_result) == ["trial", "result"]
    assert parameters(TuneController._set_trial_status) == ["trial", "status"]
    assert parameters(TuneController._maybe_cache_trial_actor) == ["trial"]
    assert parameters(TuneController._cleanup_cached_actors) == ["force_all"]
    pauses = inspect.getsource(TuneController._schedule_trial_pause)
    assert pauses.index("_schedule_trial_stop") < pauses.index("Trial.PAUSED"), "the actor is kept for what it was"
    assert "_resources_to_pending_trials" in inspect.getsource(TuneController._set_trial_status)
    free = ray._private.state.available_resources_per_node()
    assert {node["NodeID"] for node in ray.nodes() if node["Alive"]} <= free.keys()


def test_key_value_store() -> None:
    """`pace.py` tells the driver through it."""
    put, key = internal_kv._internal_kv_put, b"contract"
    assert parameters(put)[:3] == ["key", "value", "overwrite"]
    put(key, b"1", namespace=b"hfsuite")
    put(key, b"2", namespace=b"hfsuite")
    assert internal_kv._internal_kv_get(key, namespace=b"hfsuite") == b"2", "the newer one"
    internal_kv._internal_kv_del(key, namespace=b"hfsuite")
    assert internal_kv._internal_kv_get(key, namespace=b"hfsuite") is None


def test_what_ray_tune_adds_to_a_report() -> None:
    assert {*tune_result.AUTO_RESULT_KEYS, *tune_result.DEBUG_METRICS} == report.FROM_RAY_TUNE
    assert tune_result.SHOULD_CHECKPOINT == report.SHOULD_CHECKPOINT
