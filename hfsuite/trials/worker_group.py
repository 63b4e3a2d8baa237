"""Ray Train's worker group, for trials. Beside `tune_loop.py`, the only file that touches Ray's internals.

Ray Train V2 runs the workers: its `TrainController` starts them, makes the process group, collects reports and handles
failures. Three things are changed. The controller is no actor of its own: it runs in a thread of the trial's actor. It
takes the placement group that Ray Tune made for the trial, so that Tune knows what a trial really costs. And it takes
its workers from `Workers` and gives them back there, where it would start and end them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import ray
from ray.exceptions import RayActorError
from ray.train import Checkpoint, FailureConfig, UserCallback
from ray.train._internal.session import _TrainingResult
from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.train_fn_utils import get_train_fn_utils
from ray.train.v2._internal.execution.worker_group import RayTrainWorker, Worker, worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.util import ObjectRefWrapper, bundle_to_remote_args
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from hfsuite.errors import StopTraining
from hfsuite.trainers import manifest
from hfsuite.trainers.conditions import Added, nothing
from hfsuite.trainers.upload import moved
from hfsuite.trials.decision_box import box
from hfsuite.trials.even_reports import EvenReports
from hfsuite.trials.failure import describe_failure, failure_path, in_words
from hfsuite.trials.policy import Report
from hfsuite.trials.process_groups import end_process_groups
from hfsuite.trials.rank import (
    STARTED_BY,
    NoDatasets,
    end_processes_of,
    import_modules,
    in_scratch,
    meet_rank_zero,
    output_file,
    python_numbers,
    remove_scratch,
    scratch_directory,
)

if TYPE_CHECKING:
    from hfsuite.trainers.training import HuggingFaceTrainer
    from hfsuite.trials.workers import Workers

RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
ANSWER_WITHIN_S = 1.0  # a worker's answer to a poll; at once if it has something to tell
BETWEEN_POLLS_S = 0.02  # while the ranks wait for a decision and there is nothing to hear
START_ATTEMPTS = 3  # Ray Train would try for ever
# These look after a run that has its own placement group and dashboard; a trial has neither.
UNUSED_CALLBACKS = {"PlacementGroupCleanerCallback", "WorkerMetricsCallback", "ControllerMetricsCallback"}


def checkpoint_for_tune(checkpoint: Checkpoint | None, metrics: Mapping[str, Any]) -> Any:
    """A checkpoint as Ray Tune wants it from `Trainable.save`: by reference, nothing is copied."""
    return _TrainingResult(checkpoint, dict(metrics))


# ---- in the trial's actor


def start_processes(
    group: PlacementGroup,
    count: int,
    resources: Mapping[str, float],
    runtime_env: Mapping[str, Any],
    preload: Sequence[str],
    limit_gb: float,
    *,
    ahead: bool = False,
) -> list[Any]:
    """Starts a worker actor in each bundle of a trial's placement group, and does not wait for them.

    In the trial's actor, or on the driver before there is one (`ahead`): then the actor finds them by their names.
    """
    # Not as a runtime environment, which would keep Ray from taking a process that it has started already.
    variables = RAY_TRAIN_ENVIRONMENT | worker_group.WorkerGroup._get_worker_runtime_env({})["env_vars"]
    asked_for = {"runtime_env": dict(runtime_env)} if runtime_env else {}
    worker_class = ray.remote(**asked_for, **bundle_to_remote_args(dict(resources)))(TrialWorker)
    return [
        worker_class.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
            name=_name_ahead(group, index) if ahead else None,
        ).remote(variables, preload, limit_gb)
        for index in range(count)
    ]


def started_ahead(group: PlacementGroup, count: int) -> list[Any]:
    """The workers that the driver has started in a trial's placement group; none if it has not, or if one has died."""
    found = []
    for index in range(count):
        with suppress(ValueError):
            found.append(ray.get_actor(_name_ahead(group, index)))
    if len(found) == count:
        return found
    for actor in found:
        ray.kill(actor)
    return []


def _name_ahead(group: PlacementGroup, index: int) -> str:
    return f"hfsuite-{group.id.hex()}-{index}"


def name_of(actor: Any) -> str:
    """By which what a worker has started can be told; the worker itself puts it there."""
    return str(actor._actor_id.hex())


def ranked(actors: Sequence[Any], resources: Mapping[str, float]) -> list[Worker]:
    """Workers in the order of their ranks, once they have started.

    Raises:
        RayActorError: one of them is dead.
    """
    about = ray.get([actor.get_metadata.remote() for actor in actors])
    workers = [
        Worker(actor, metadata, dict(resources), placement_group_bundle_index=index)
        for index, (actor, metadata) in enumerate(zip(actors, about, strict=True))
    ]
    in_order: list[Worker] = worker_group.WorkerGroup._assign_worker_ranks(workers)
    return in_order


class TrialController(TrainController):
    """Ray Train's controller of one training, in the trial's actor.

    Args:
        trainer: what is trained.
        workers: who train it.
        hand_over: called, in the thread that runs the controller, with each report and the actors of its ranks.
    """

    def __init__(
        self,
        trainer: HuggingFaceTrainer,
        workers: Workers,
        hand_over: Callable[[Report, list[Any]], None],
    ) -> None:
        for name, value in RAY_TRAIN_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Not through the run configuration, which is pickled to every rank: a queue cannot be.
        relay = UserCallbackHandler([_Relay(self, hand_over)], trainer.train_run_context)
        unused = UNUSED_CALLBACKS | (set() if trainer.datasets else {"DatasetsCallback"})  # it starts an actor
        own = [each for each in trainer._create_default_callbacks() if type(each).__name__ not in unused]
        attempts = trainer.run_config.failure_config
        if attempts.controller_failure_limit < 0:
            attempts = dataclasses.replace(attempts, controller_failure_limit=START_ATTEMPTS - 1)
        super().__init__(
            train_fn_ref=ObjectRefWrapper(_InTrial(trainer._get_train_func(), workers.policy.decisions == "pipelined")),
            train_run_context=trainer.train_run_context,
            scaling_policy=_AsReserved(trainer.scaling_config),
            failure_policy=create_failure_policy(attempts),
            callbacks=[*own, relay],
        )
        self.is_stopped = False
        self.worker_group_cls = _FromWorkers(workers, self)

    def train(self) -> BaseException | None:
        """Trains until the end. Returns what went wrong, as Ray Train tells it."""
        asyncio.run(self.run())
        return self.get_result().error  # type: ignore[no-any-return]

    def actors(self) -> list[Any]:
        """The actors of the ranks, in order. The thread that trains may take them down at any moment."""
        group = self.get_worker_group()
        state = group._worker_group_state if group is not None else None
        return [worker.actor for worker in state.workers] if state is not None else []

    def forbid_retries(self) -> None:
        """What fails from now on is not tried again."""
        self._failure_policy = create_failure_policy(FailureConfig(controller_failure_limit=0))

    def stop(self) -> None:
        """No group is started any more; whoever trains must be told by itself."""
        self.is_stopped = True
        self.forbid_retries()

    def output_of(self, rank: int) -> Path:
        """The file on its node to which a rank prints."""
        return output_file(self._train_run_context, rank).path

    async def _poll_workers(self) -> Any:
        """Workers answer when they have something to tell: neither a report nor this process waits for a clock."""
        began = time.monotonic()
        status = self._worker_group.poll_status(timeout=2 * ANSWER_WITHIN_S)
        if status.errors:  # the peers of a dead rank may fail before it shows that it is dead
            return self._worker_group.poll_status(timeout=2 * ANSWER_WITHIN_S)
        if not any(each.training_report for each in status.worker_statuses.values()):
            await asyncio.sleep(BETWEEN_POLLS_S - (time.monotonic() - began))
        return status


@dataclass(frozen=True)
class _FromWorkers:
    """In the place of the class of worker groups: the controller asks it for a group, again after a failure."""

    workers: Workers
    controller: TrialController

    def create(self, train_run_context: Any, worker_group_context: Any, callbacks: Any) -> _TrialWorkerGroup:
        if self.controller.is_stopped:
            raise WorkerGroupStartupFailedError("The trial was stopped while it began anew.")
        storage, timeout_s = train_run_context.run_config.storage_context, train_run_context.backend_config.timeout_s
        remove_scratch(storage.storage_filesystem, storage.experiment_fs_path, self.workers.scratch)
        group = _TrialWorkerGroup(train_run_context, worker_group_context, callbacks)
        group.given_by, group.even_reports = self.workers, EvenReports(timeout_s)
        group._collective_timeout_s = timeout_s  # Ray Train would wait for ever
        try:
            attempt = f"{datetime.now():%Y-%m-%d_%H-%M-%S.%f}"
            agreement = _Agreement(self.workers.name, attempt, self.workers.scratch)
            with mock.patch.object(worker_group, "SynchronizationActor", agreement):
                group._start()
        except RayActorError as error:
            self.workers.discard("a worker died while it started")
            raise WorkerGroupStartupFailedError(f"A worker died while it started: {error}") from error
        except BaseException:
            self.workers.discard("their group did not start")
            raise
        state = vars(group._worker_group_state)
        group._worker_group_state = _GivenBack(**state, workers_of=self.workers)
        return group


class _TrialWorkerGroup(worker_group.WorkerGroup):
    given_by: Workers
    even_reports: EvenReports

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> _TrialPlacementGroup:
        return _TrialPlacementGroup()

    def _create_workers(self, num_workers: int, placement_group: Any, resources_per_worker: Any, **_: Any) -> Any:
        runtime_env = self._train_run_context.run_config.worker_runtime_env
        return self.given_by.take(num_workers, resources_per_worker, runtime_env)

    def execute_single_async(self, rank: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if function.__name__ == "_setup_torch_process_group" and rank > 0:
            return super().execute_single_async(rank, meet_rank_zero, function, *args, **kwargs)
        return super().execute_single_async(rank, function, *args, **kwargs)

    def execute_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if function.__name__ == "_shutdown_torch":  # it waits until the process group has ended
            return super().execute_async(end_process_groups)
        return super().execute_async(function, *args, **kwargs)

    def poll_status(self, timeout: float | None = None) -> Any:
        status = super().poll_status(timeout)
        faults = self.even_reports.faults(status.worker_statuses)
        if not status.errors:
            for rank, fault in faults.items():
                status.worker_statuses[rank].error = fault
        return status

    def shutdown(self) -> None:
        status = self.get_latest_poll_status()
        if status is None or status.errors:  # at once: whoever waits for a dead peer does so until a timeout
            self.given_by.discard(in_words(status.errors) if status is not None else "they were never heard of")
        super().shutdown()


class _AsReserved(FixedScalingPolicy):
    """As many workers as the trial's placement group holds. Ray Tune has asked for them; Ray Train shall not, again."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing: here Ray Train would start an actor that asks for resources."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing, likewise."""


@dataclass(frozen=True)
class _GivenBack(WorkerGroupState):
    """The state of a group whose workers may outlive it."""

    workers_of: Workers

    def shutdown(self) -> None:
        self.workers_of.give_back()


class _TrialPlacementGroup(PlacementGroupHandle):
    """The placement group of the trial: made by Ray Tune, and removed by it."""

    def __init__(self) -> None:
        self._group = ray.util.get_current_placement_group()

    @property
    def placement_group(self) -> Any:
        return self._group

    def ready(self) -> Any:
        return self._group.ready()

    def wait(self, timeout_seconds: float = 30) -> bool:
        return True  # the trial's actor could not run otherwise

    def shutdown(self) -> None:
        """Nothing: the trial's actor may need it again."""


_sync_actors: dict[str, Any] = {}  # in a rank: the handle of who started it keeps an actor alive, from trial to trial


@dataclass
class _Agreement:
    """In the place of Ray Train's synchronization actor, and of its class: how the ranks of one attempt agree.

    On the names of checkpoints they agree without asking. The actor itself is started by the first rank that needs it
    (`ray.train.collective`), to which it belongs, and so ends with the workers.

    Args:
        name: by which the ranks find the actor.
        attempt: when it began; a part of the names of its checkpoints.
        scratch: what the names of its working directories begin with.
    """

    name: str
    attempt: str
    scratch: str
    scheduling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timeouts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def options(self, **scheduling: Any) -> _Agreement:
        return dataclasses.replace(self, scheduling=scheduling)

    def remote(self, **timeouts: Any) -> _Agreement:
        return dataclasses.replace(self, timeouts=timeouts)

    def __bool__(self) -> bool:
        return False  # there is nothing to end where a group has not started

    @property
    def broadcast_from_rank_zero(self) -> Any:
        if self.name not in _sync_actors:
            actor = SynchronizationActor.options(name=self.name, get_if_exists=True, **self.scheduling)
            _sync_actors.clear()  # of workers before these
            _sync_actors[self.name] = actor.remote(**self.timeouts)
        return _sync_actors[self.name].broadcast_from_rank_zero

    def checkpoint_name(self, report: int) -> str:
        """Of the checkpoint of a report of this attempt, which every rank counts alike."""
        return f"checkpoint_{self.attempt}_{report:06d}"


class _Relay(UserCallback):
    """Hands every report over, after everybody else has seen it."""

    def __init__(self, controller: TrialController, hand_over: Callable[[Report, list[Any]], None]) -> None:
        self._controller, self._hand_over = controller, hand_over

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._hand_over(Report(dict(metrics[0]), checkpoint), self._controller.actors())


# ---- in every rank


class TrialWorker(RayTrainWorker):
    """A worker process, which may run one trial after another.

    Args:
        variables: environment variables by which Ray Train is told how to work.
        preload: modules to import before it is asked for anything.
        limit_gb: see `WorkerPolicy.memory_limit_gb`.
    """

    def __init__(self, variables: Mapping[str, str], preload: Sequence[str], limit_gb: float) -> None:
        super().__init__()
        os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
        os.environ[STARTED_BY] = ray.get_runtime_context().get_actor_id()
        import_modules(preload)
        from hfsuite.trials.clean_room import CleanRoom  # here, since it imports torch: the trial's actor need not wait

        gc.collect()
        gc.freeze()  # what is imported stays, so that collecting after a trial does not look through all of it
        self._room = CleanRoom(limit_gb)

    def init_train_context(self, *args: Any, **kwargs: Any) -> None:
        """A trial begins."""
        super().init_train_context(*args, **kwargs)
        context = get_train_context()
        context.dataset_shard_provider = context.dataset_shard_provider or NoDatasets()
        # Ray Train has one of each for the process, and shuts the pool down when a training function returns.
        context.checkpoint_upload_threadpool = ThreadPoolExecutor(max_workers=1)
        context.report_order_condition = threading.Condition()
        reports = box.queue_of_reports()
        context.execution_context = dataclasses.replace(context.execution_context, result_queue=reports)
        agreement: _Agreement = context.get_synchronization_actor()
        ask = context._sync_checkpoint_dir_name_across_ranks
        context._sync_checkpoint_dir_name_across_ranks = lambda name=None: (
            ask(name) if name else agreement.checkpoint_name(context.report_call_index)
        )
        box.clear()

    def poll_status(self) -> Any:
        """Answers when there is a report or the end, when the rank waits for a decision, or after a while."""
        execution = get_train_context().execution_context
        box.wait_for_news(
            lambda: not execution.result_queue.empty() or not execution.training_thread_runner.is_running(),
            ANSWER_WITHIN_S,
        )
        return super().poll_status()

    def end_processes(self, workers: Sequence[str]) -> None:
        """This process will be killed: first those that it and these workers have started. What it printed is kept."""
        self._room.end_processes()
        end_processes_of(workers)
        with suppress(RuntimeError):  # no trial has begun
            context = get_train_context()
            output_file(context.train_run_context, context.get_world_rank()).keep()

    def leave_trial(self) -> list[str]:
        """A trial has ended. Returns why this process cannot run another one."""
        self.shutdown()
        runner = get_train_context().execution_context.training_thread_runner
        if runner.is_running():
            return ["its training function is still running"]
        if runner.get_error() is not None:
            return ["its training function raised"]
        return self._room.tidy()


@dataclass(frozen=True)
class _InTrial:
    """A rank's training function, in a trial: own output file, own working directory, reports that wait."""

    function: Callable[[], Any]
    pipelined: bool

    def __call__(self) -> Any:
        context = get_train_context()
        storage, rank = context.get_storage(), context.get_world_rank()
        failure = failure_path(storage.experiment_fs_path, rank)
        if storage.storage_filesystem.get_file_info(failure).is_file:
            storage.storage_filesystem.delete_file(failure)  # of an attempt before this one
        output = output_file(context.train_run_context, rank)
        agreed: _Agreement = context.get_synchronization_actor()
        scratch = scratch_directory(context.train_run_context, agreed.scratch, agreed.attempt, context.get_node_rank())
        try:
            with in_scratch(scratch, context.get_local_rank(), context.get_local_world_size()), output:
                box.make_reports_wait(get_train_fn_utils(), pipelined=self.pipelined)
                result = self.function()
                context.checkpoint_upload_threadpool.shutdown()  # what is still on its way lies in this directory
        except StopTraining:
            box.note_end("returned")
            return None
        except BaseException as error:
            with output:
                traceback.print_exception(error)
            if not box.is_stopped:  # else it is not the trial's failure: a member may go on elsewhere by now
                with storage.storage_filesystem.open_output_stream(failure) as stream:
                    stream.write(json.dumps(describe_failure(error, rank)).encode())
            box.note_end("raised")
            raise
        box.note_end("returned")
        return result


def extend_train_functions(start_from: Checkpoint | None, added: Added = nothing) -> None:
    """Completes what `ray.train` offers in this rank. Runs in every rank, before the trainer's loop.

    `ray.train.get_checkpoint()` falls back to `start_from`. Each report is numbered (`training_iteration`), and its
    numbers are Python's own: Ray Train fails on NumPy's where there is a checkpoint, and MLflow would not record them.
    A checkpoint whose directory shall be deleted after the report is moved instead of copied. A report also carries
    what `added` says to it.
    """
    functions = get_train_fn_utils()
    own_checkpoint, own_report = functions.get_checkpoint, functions.report
    given = earlier = own_checkpoint()  # of an attempt before this one, in the same run
    if given is not None:
        storage = get_train_context().get_storage()
        earlier = manifest.complete_or_older(given, storage.storage_filesystem, storage.experiment_fs_path)
    reports = (manifest.read(earlier)["training_iteration"] or 0) if earlier is not None else 0

    def get_checkpoint() -> Checkpoint | None:
        newest = own_checkpoint()
        return newest if newest is not given else earlier or start_from

    def report(metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        nonlocal reports
        reports += 1
        if kwargs.get("delete_local_checkpoint_after_upload") and not kwargs.get("checkpoint_upload_fn"):
            kwargs["checkpoint_upload_fn"] = moved
        own_report({**python_numbers(metrics), **added(metrics), "training_iteration": reports}, *args, **kwargs)

    functions.get_checkpoint, functions.report = get_checkpoint, report
