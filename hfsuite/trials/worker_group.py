"""A trial's workers, in the trial's own placement group. The only file that touches Ray's internals.

Ray Train V2 runs the workers: its `TrainController` starts them, makes the process group, collects reports and handles
failures. Two things are changed. The controller is not an actor of its own: it runs in a thread of the trial's actor.
And it takes the placement group that Ray Tune made for the trial, so that Tune knows what a trial really costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from ray.exceptions import RayActorError
from ray.train import Checkpoint, FailureConfig, ReportedCheckpoint, ReportedCheckpointStatus, UserCallback
from ray.train._internal.session import _TrainingResult
from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import create_failure_policy
from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
from ray.train.v2._internal.execution.train_fn_utils import get_train_fn_utils
from ray.train.v2._internal.execution.worker_group import WorkerGroup as RayWorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.util import ObjectRefWrapper

from hfsuite.errors import StopTraining, TrialFailed
from hfsuite.trainers import manifest
from hfsuite.trainers.rank_start import first_cause
from hfsuite.trainers.training import HuggingFaceTrainer
from hfsuite.trials.rank import OutputFile, describe_failure, failure_path, in_scratch, read_failures

Decision = Literal["go on", "stop"]

CONTROLLER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",  # the controller's poll, 2 s by default, is the latency of a report
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
AFTER_KILL_S = 10.0  # the controller notices at its next poll
# These look after a run that has its own placement group and dashboard; a trial has neither.
UNUSED_CALLBACKS = {"PlacementGroupCleanerCallback", "WorkerMetricsCallback", "ControllerMetricsCallback"}


@dataclass(frozen=True)
class Report:
    """What all ranks of a trial reported together.

    Args:
        metrics: rank 0's metrics.
        checkpoint: in the trial's directory on storage, complete and sealed; None if the report had none.
    """

    metrics: dict[str, Any]
    checkpoint: Checkpoint | None


class WorkerGroup(Protocol):
    """What a trial asks of its workers. Every report waits for a decision."""

    def start(self, trainer: HuggingFaceTrainer) -> None:
        """Starts training; returns at once."""

    def next_report(self) -> Report | None:
        """Waits for the next report; None when the training function has returned.

        Raises:
            TrialFailed: a rank raised or died, and the trainer's failure configuration allows no other attempt.
        """

    def decide(self, decision: Decision) -> None:
        """Lets the ranks go on after a report, or stops them there."""

    def end(self, decision: Decision, grace_s: float) -> None:
        """Gives the workers back. "go on" lets what has reported its end return by itself, "stop" unwinds it.

        Workers that take longer than `grace_s` seconds are killed.
        """


class ColdWorkerGroup:
    """New worker processes for each trial. Lives in the trial's actor."""

    def __init__(self) -> None:
        self._arrivals: queue.Queue[tuple[Report, list[Any]] | BaseException | None] = queue.Queue()
        self._waiting: list[Any] = []  # the workers that wait in the report that was taken last
        self._reported: list[ReportedCheckpoint] = []
        self._controller: _TrialController | None = None
        self._thread: threading.Thread | None = None

    def start(self, trainer: HuggingFaceTrainer) -> None:
        """Starts training in the placement group of the current actor; returns at once."""
        for name, value in CONTROLLER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        callbacks = [
            each for each in trainer._create_default_callbacks() if type(each).__name__ not in UNUSED_CALLBACKS
        ]
        # Not through the run configuration, which is pickled to every rank: a queue cannot be.
        relay = UserCallbackHandler([_Relay(self._hand_over)], trainer.train_run_context)
        self._controller = _TrialController(
            train_fn_ref=ObjectRefWrapper(_InTrial(trainer._get_train_func())),
            train_run_context=trainer.train_run_context,
            scaling_policy=create_scaling_policy(trainer.scaling_config),
            failure_policy=create_failure_policy(trainer.run_config.failure_config),
            callbacks=[*callbacks, relay],
        )
        self._thread = threading.Thread(target=self._control, name="train-controller", daemon=True)
        self._thread.start()

    def next_report(self) -> Report | None:
        """Waits for the next report; None when the training function has returned."""
        arrival = self._arrivals.get()
        if isinstance(arrival, BaseException):
            raise self._trial_failed(arrival) from None
        if arrival is None:
            return None
        report, self._waiting = arrival
        if report.checkpoint is not None:
            saved = ReportedCheckpoint(report.checkpoint, report.metrics, ReportedCheckpointStatus.COMMITTED)
            self._reported.append(saved)
        return report

    def decide(self, decision: Decision) -> None:
        """Tells the ranks that made the last report what becomes of it; of another attempt's ranks they may be dead."""
        for worker in self._waiting:
            worker.actor.execute.remote(_deliver, decision, self._reported)

    def end(self, decision: Decision, grace_s: float) -> None:
        """Lets what still runs return or unwind; kills the workers that take longer than `grace_s` seconds."""
        if self._thread is None or not self._thread.is_alive():
            return
        assert self._controller is not None
        # What fails from now on was stopped: it must not be tried again.
        self._controller._failure_policy = create_failure_policy(FailureConfig(controller_failure_limit=0))
        self._waiting = self._workers()
        self.decide(decision)
        self._thread.join(grace_s)
        if self._thread.is_alive():
            for worker in self._workers():
                ray.kill(worker.actor)
            self._thread.join(AFTER_KILL_S)

    def _workers(self) -> list[Any]:
        """The workers there are now. The controller's thread may take them down at any moment."""
        group = self._controller.get_worker_group() if self._controller else None
        state = group._worker_group_state if group is not None else None
        return list(state.workers) if state is not None else []

    def _hand_over(self, report: Report) -> None:
        """Called by the controller's thread while the ranks that made the report wait in it."""
        self._arrivals.put((report, self._workers()))

    def _trial_failed(self, error: BaseException) -> TrialFailed:
        """The first failure of a rank, as that rank described it: its peers often fail too, by its absence."""
        assert self._controller is not None
        storage = self._controller._storage_context
        left = read_failures(storage.storage_filesystem, storage.experiment_fs_path)
        failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
        dead = sorted(
            rank
            for rank, failure in failures.items()
            if isinstance(getattr(failure, "health_check_failure", None), RayActorError)
        )
        if left and not dead:
            first = min(left, key=lambda each: each["at"])
            return TrialFailed(f"rank {first['rank']}: {first['summary']}", first["rank"], first["traceback"])
        cause = first_cause(error) or error
        if not dead:
            frames = "".join(traceback.format_exception(cause)).strip()
            return TrialFailed(f"{type(cause).__name__}: {cause}".splitlines()[0], None, frames)
        output = _output_file(self._controller._train_run_context, dead[0])
        return TrialFailed(
            f"rank {dead[0]}: the worker process died without a Python exception (killed, out of memory, or a crash in "
            f"native code). Its last output is in {output.path}",
            dead[0],
        )

    def _control(self) -> None:
        assert self._controller is not None
        try:
            asyncio.run(self._controller.run())
            self._arrivals.put(self._controller.get_result().error)
        except BaseException as error:  # noqa: BLE001  whatever ends the thread must reach the trial, or it waits for ever
            self._arrivals.put(error)


def extend_train_functions(start_from: Checkpoint | None) -> None:
    """Completes what `ray.train` offers in this rank. Runs in every rank, before the trainer's loop.

    `ray.train.get_checkpoint()` falls back to `start_from`. Each report is numbered (`training_iteration`), and its
    numbers are Python's own: Ray Train fails on NumPy's where there is a checkpoint, and MLflow would not record them.
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
        own_report({**python_numbers(metrics), "training_iteration": reports}, *args, **kwargs)

    functions.get_checkpoint, functions.report = get_checkpoint, report


def python_numbers(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's own, in nested dicts too; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: python_numbers(each) for name, each in value.items()}
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def checkpoint_for_tune(checkpoint: Checkpoint | None, metrics: Mapping[str, Any]) -> Any:
    """A checkpoint as Ray Tune wants it from `Trainable.save`: by reference, nothing is copied."""
    return _TrainingResult(checkpoint, dict(metrics))


# ---- in every rank

_decisions: queue.SimpleQueue[tuple[Decision, list[ReportedCheckpoint]]] = queue.SimpleQueue()


def _deliver(decision: Decision, reported: list[ReportedCheckpoint]) -> None:
    _decisions.put((decision, reported))


@dataclass(frozen=True)
class _InTrial:
    """A rank's training function, in a trial: own output file, own working directory, reports that wait."""

    function: Callable[[], Any]

    def __call__(self) -> Any:
        context = get_train_context()
        storage, rank = context.get_storage(), context.get_world_rank()
        failure = failure_path(storage.experiment_fs_path, rank)
        if storage.storage_filesystem.get_file_info(failure).is_file:
            storage.storage_filesystem.delete_file(failure)  # of an attempt before this one
        output = _output_file(context.train_run_context, rank)
        try:
            with in_scratch(output.scratch, context.get_local_rank(), context.get_local_world_size()), output:
                _make_reports_wait()
                return self.function()
        except StopTraining:
            return None
        except BaseException as error:
            with storage.storage_filesystem.open_output_stream(failure) as stream:
                stream.write(json.dumps(describe_failure(error, rank)).encode())
            raise


def _output_file(run: Any, rank: int) -> OutputFile:
    """What a rank prints, and the working directory of the ranks of its node."""
    storage = run.run_config.storage_context
    scratch = Path(storage.local_working_directory) / run.run_id
    return OutputFile(storage.storage_filesystem, storage.experiment_fs_path, rank, scratch)


def _make_reports_wait() -> None:
    """Each report waits for the trial's decision, and learns with it what was reported so far.

    Ray Train would ask the controller for that list; in a trial that is the trial's actor, which waits for a report.
    """
    while not _decisions.empty():
        _decisions.get_nowait()
    functions = get_train_fn_utils()
    own_report = functions.report
    reported: list[ReportedCheckpoint] = []

    def report(*args: Any, **kwargs: Any) -> None:
        own_report(*args, **kwargs)
        decision, reported[:] = _decisions.get()
        if decision == "stop":
            raise StopTraining

    def get_all_reported_checkpoints(*_: Any, **__: Any) -> list[ReportedCheckpoint]:
        return [each for each in reported if manifest.is_sealed(each.checkpoint)]  # Tune deletes some

    functions.report, functions.get_all_reported_checkpoints = report, get_all_reported_checkpoints


# ---- in the trial's actor


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
        """Nothing: the trial may need it for another attempt."""


class _TrialWorkerGroup(RayWorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> _TrialPlacementGroup:
        return _TrialPlacementGroup()


class _TrialController(TrainController):
    worker_group_cls = _TrialWorkerGroup


class _Relay(UserCallback):
    """Hands every report to the trial, after everybody else has seen it."""

    def __init__(self, hand_over: Callable[[Report], None]) -> None:
        self._hand_over = hand_over

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._hand_over(Report(dict(metrics[0]), checkpoint))
