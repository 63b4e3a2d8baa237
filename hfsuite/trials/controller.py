"""Ray Train's controller of a training, for trials. In the trial's actor.

One of the files that touch Ray's internals.

Ray Train V2 runs the workers: its `TrainController` starts them, makes the process group, collects reports and handles
failures. Three things are changed. The controller is no actor of its own: it runs in a thread of the trial's actor. It
takes the placement group that Ray Tune made for the trial, so that Tune knows what a trial really costs. And it takes
its workers from `Workers` and gives them back there, where it would start and end them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from ray.exceptions import RayActorError
from ray.train import Checkpoint, FailureConfig, UserCallback
from ray.train._internal.session import _TrainingResult
from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.util import ObjectRefWrapper

from hfsuite.ranks.process_groups import end_process_groups
from hfsuite.ranks.surroundings import meet_rank_zero, output_file, remove_scratch
from hfsuite.ranks.worker import ANSWER_WITHIN_S, Agreement, InTrial
from hfsuite.report import Report
from hfsuite.trials.even_reports import EvenReports
from hfsuite.trials.failure import in_words
from hfsuite.trials.trainer import Trainer
from hfsuite.trials.worker_actors import RAY_TRAIN_ENVIRONMENT
from hfsuite.trials.workers import Workers

BETWEEN_POLLS_S = 0.02  # while the ranks wait for a decision and there is nothing to hear
START_ATTEMPTS = 3  # Ray Train would try for ever
# These look after a run that has its own placement group and dashboard; a trial has neither.
UNUSED_CALLBACKS = {"PlacementGroupCleanerCallback", "WorkerMetricsCallback", "ControllerMetricsCallback"}


def checkpoint_for_tune(checkpoint: Checkpoint | None, metrics: Mapping[str, Any]) -> Any:
    """A checkpoint as Ray Tune wants it from `Trainable.save`: by reference, nothing is copied."""
    return _TrainingResult(checkpoint, dict(metrics))


class TrialController(TrainController):
    """Ray Train's controller of one training, in the trial's actor.

    Args:
        trainer: what is trained.
        workers: who train it.
        hand_over: called, in the thread that runs the controller, with each report and the actors of its ranks.
    """

    def __init__(
        self,
        trainer: Trainer,
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
            train_fn_ref=ObjectRefWrapper(InTrial(trainer._get_train_func(), workers.policy.decisions == "pipelined")),
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
            agreement = Agreement(self.workers.name, attempt, self.workers.scratch)
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


class _Relay(UserCallback):
    """Hands every report over, after everybody else has seen it."""

    def __init__(self, controller: TrialController, hand_over: Callable[[Report, list[Any]], None]) -> None:
        self._controller, self._hand_over = controller, hand_over

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._hand_over(Report(dict(metrics[0]), checkpoint), self._controller.actors())
