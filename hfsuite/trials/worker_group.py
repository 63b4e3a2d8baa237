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
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from pyarrow.fs import FileSelector
from ray.train import Checkpoint, UserCallback
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
from hfsuite.trainers.training import HuggingFaceTrainer, first_cause
from hfsuite.trials.rank import describe_failure, send_output_to

FAILURE_OF_RANK = "failure_rank_{rank}.json"  # in the trial's directory, written by a rank that raises

Decision = Literal["go on", "stop"]

CONTROLLER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",  # the controller's poll, 2 s by default, is the latency of a report
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
}
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

    def end(self, grace_s: float) -> None:
        """Stops what still runs and gives the workers back; kills those that take longer than `grace_s` seconds."""


class ColdWorkerGroup:
    """New worker processes for each trial. Lives in the trial's actor."""

    def __init__(self) -> None:
        self._arrivals: queue.Queue[Report | BaseException | None] = queue.Queue()
        self._controller: _TrialController | None = None
        self._thread: threading.Thread | None = None
        self._ranks_wait = False

    def start(self, trainer: HuggingFaceTrainer) -> None:
        """Starts training in the placement group of the current actor; returns at once."""
        for name, value in CONTROLLER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        callbacks = [
            each for each in trainer._create_default_callbacks() if type(each).__name__ not in UNUSED_CALLBACKS
        ]
        # Not through the run configuration, which is pickled to every rank: a queue cannot be.
        relay = UserCallbackHandler([_Relay(self._arrivals)], trainer.train_run_context)
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
        self._ranks_wait = arrival is not None
        return arrival

    def decide(self, decision: Decision) -> None:
        """Tells every rank what becomes of the report that it waits in."""
        self._ranks_wait = False
        for worker in self._workers():
            worker.actor.execute.remote(_deliver, decision)

    def end(self, grace_s: float) -> None:
        """Stops what still runs; kills the workers that take longer than `grace_s` seconds."""
        if self._thread is None or not self._thread.is_alive():
            return
        self.decide("stop")
        self._thread.join(grace_s)
        if self._thread.is_alive():
            for worker in self._workers():
                ray.kill(worker.actor)
            self._thread.join(grace_s)

    def _workers(self) -> list[Any]:
        group = self._controller.get_worker_group() if self._controller else None
        return group.get_workers() if group is not None and group.has_started() else []

    def _trial_failed(self, error: BaseException) -> TrialFailed:
        """The first failure of a rank, as that rank described it: its peers often fail too, by its absence."""
        assert self._controller is not None
        storage = self._controller._storage_context
        left = [
            json.loads(storage.storage_filesystem.open_input_stream(entry.path).read())
            for entry in storage.storage_filesystem.get_file_info(FileSelector(storage.experiment_fs_path))
            if entry.is_file and fnmatch(entry.base_name, FAILURE_OF_RANK.format(rank="*"))
        ]
        failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
        dead = sorted(rank for rank in failures if rank not in {each["rank"] for each in left})
        if left and not dead:
            first = min(left, key=lambda each: each["at"])
            return TrialFailed(f"rank {first['rank']}: {first['summary']}", first["rank"], first["traceback"])
        cause = first_cause(error) or error
        if not dead:
            return TrialFailed(f"{type(cause).__name__}: {cause}")
        return TrialFailed(
            f"rank {dead[0]}: the worker process died without a Python exception (killed, out of memory, or a crash in "
            f"native code). Its last output is in rank_{dead[0]}.log.",
            dead[0],
            str(failures[dead[0]]).strip(),
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

    `ray.train.get_checkpoint()` falls back to `start_from`, and each report is numbered (`training_iteration`).
    """
    functions = get_train_fn_utils()
    own_checkpoint, own_report = functions.get_checkpoint, functions.report
    reports = 0

    def get_checkpoint() -> Checkpoint | None:
        return own_checkpoint() or start_from

    def report(metrics: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        nonlocal reports
        reports += 1
        own_report({**metrics, "training_iteration": reports}, *args, **kwargs)

    functions.get_checkpoint, functions.report = get_checkpoint, report


def checkpoint_for_tune(checkpoint: Checkpoint | None, metrics: Mapping[str, Any]) -> Any:
    """A checkpoint as Ray Tune wants it from `Trainable.save`: by reference, nothing is copied."""
    return _TrainingResult(checkpoint, dict(metrics))


# ---- in every rank

_decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()


def _deliver(decision: Decision) -> None:
    _decisions.put(decision)


@dataclass(frozen=True)
class _InTrial:
    """A rank's training function, in a trial: own output file, own working directory, reports that wait."""

    function: Callable[[], Any]

    def __call__(self) -> Any:
        context = get_train_context()
        storage, rank = context.get_storage(), context.get_world_rank()
        if storage.storage_filesystem.type_name == "local":
            send_output_to(Path(storage.experiment_fs_path) / f"rank_{rank}.log")
        failure = f"{storage.experiment_fs_path}/{FAILURE_OF_RANK.format(rank=rank)}"
        if storage.storage_filesystem.get_file_info(failure).is_file:
            storage.storage_filesystem.delete_file(failure)  # of an attempt before this one
        scratch = Path(storage.local_working_directory) / context.train_run_context.run_id
        scratch.mkdir(parents=True, exist_ok=True)
        os.chdir(scratch)
        _make_reports_wait()
        try:
            return self.function()
        except StopTraining:
            return None
        except BaseException as error:
            with storage.storage_filesystem.open_output_stream(failure) as stream:
                stream.write(json.dumps(describe_failure(error, rank)).encode())
            raise
        finally:
            os.chdir(scratch.parent)
            if context.get_local_rank() == 0:
                shutil.rmtree(scratch, ignore_errors=True)  # other ranks of the node may still write there


def _make_reports_wait() -> None:
    while not _decisions.empty():
        _decisions.get_nowait()
    functions = get_train_fn_utils()
    own_report = functions.report

    def report(*args: Any, **kwargs: Any) -> None:
        own_report(*args, **kwargs)
        if _decisions.get() == "stop":
            raise StopTraining

    functions.report = report


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

    def __init__(self, arrivals: queue.Queue[Report | BaseException | None]) -> None:
        self._arrivals = arrivals

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        self._arrivals.put(Report(dict(metrics[0]), checkpoint))
