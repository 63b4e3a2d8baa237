"""A trial: one actor that Ray Tune starts, which runs one training in its own group of workers."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from ray.train import Checkpoint, CheckpointConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.tune import PlacementGroupFactory, Trainable
from ray.tune.result import DONE, RESULT_DUPLICATE, SHOULD_CHECKPOINT

from hfsuite.errors import TrialFailed
from hfsuite.trainers import manifest
from hfsuite.trainers.datasets import is_streamed
from hfsuite.trainers.report_observer import TRAINING_FINISHED
from hfsuite.trainers.training import SNAPSHOT, HuggingFaceTrainer
from hfsuite.trials import resources
from hfsuite.trials.worker_group import ColdWorkerGroup, WorkerGroup, checkpoint_for_tune

FINISH_GRACE_S = 3_600.0  # after its last report a rank may still push a model to a hub
FAILURE = "failure.txt"  # in the trial's directory: the traceback of the rank that failed


def trainable_for(trainer: HuggingFaceTrainer, *, stop_grace_s: float = 10.0) -> type[TrainingTrial]:
    """The class whose instances are trials of `trainer`. Driver.

    Args:
        trainer: what a trial merges its sample of the search space over.
        stop_grace_s: seconds that a stopped training function has to unwind before its workers are killed.
    """
    if trainer.run_config.checkpoint_config != CheckpointConfig():
        warnings.warn(
            "The trainer's run_config.checkpoint_config is for fit(). Trials' checkpoints belong to Ray Tune: "
            "give it to the Tuner, in tune.RunConfig.",
            stacklevel=3,
        )
    trainer.prepare_datasets()
    attributes = {"trainer": trainer, "stop_grace_s": stop_grace_s, "__doc__": TrainingTrial.__doc__}
    return type(f"{type(trainer).__name__}Trial", (TrainingTrial,), attributes)


class TrainingTrial(Trainable):
    """One training run as a trial of Ray Tune. Its workers make a report, Tune decides, the workers go on or stop.

    Checkpoints are where Ray Train put them, in the trial's own directory; Tune gets references and owns them.
    """

    trainer: ClassVar[HuggingFaceTrainer]
    stop_grace_s: ClassVar[float]

    # ---- on the driver

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Tune asks, on the driver, before a trial exists: what can never run is refused here."""
        scaling_config = cls.trainer.with_settings(_settings(config)).scaling_config
        resources.check_fits(scaling_config, uses_ray_data=is_streamed(cls.trainer.datasets))
        return resources.trial_request(scaling_config)

    # ---- in the trial's actor, in the order in which Tune calls them

    def setup(self, config: dict[str, Any]) -> None:
        """Keeps the configuration; workers start with the first step, since Tune may restore a checkpoint first."""
        self.settings = _settings(config)
        self.group: WorkerGroup | None = None
        self.start_from: Checkpoint | None = self.trainer.start_from
        self.latest: Checkpoint | None = None  # the newest checkpoint of this trial
        self.measured: set[str] = set()  # the numbers of all reports
        self.handed_over: str | None = None  # Tune deletes a directory once for each time it was given it

    def restore(self, checkpoint_path: Any) -> None:
        """Goes on from a checkpoint of Tune's: after a failure or a pause, or another trial's (exploitation)."""
        given, metrics = checkpoint_path.checkpoint, checkpoint_path.metrics
        self._iteration = metrics.get("training_iteration", 0)
        self._time_total = metrics.get("time_total_s", 0.0)
        self._time_since_restore, self._iterations_since_restore, self._restored = 0.0, 0, True
        self.start_from = manifest.complete_or_older(
            Checkpoint(given.path, given.filesystem), self._storage.storage_filesystem, self._storage.trial_fs_path
        )
        self.latest, self.handed_over = given, given.path

    def step(self) -> dict[str, Any]:
        """From one report to the next. The first call starts the workers, each later one means "go on"."""
        if self.group is None:
            if is_streamed(self.trainer.datasets):
                resources.check_spare_cpu()
            self.group = ColdWorkerGroup()
            self.group.start(self._trial_trainer())
        else:
            self.group.decide("go on")
        try:
            report = self.group.next_report()
            if report is None and self._last_result is None and self._iteration == 0:
                raise TrialFailed("The training function returned without a single call of ray.train.report().")
        except TrialFailed as failure:
            self._write_failure(failure)
            raise
        if report is None:
            return {RESULT_DUPLICATE: True}  # the end, without another iteration
        metrics = {name: value for name, value in report.metrics.items() if name != "training_iteration"}  # Tune counts
        self.measured |= {name for name, value in metrics.items() if isinstance(value, float)}
        if report.checkpoint is not None:
            self.latest = report.checkpoint
            metrics[SHOULD_CHECKPOINT] = True
        if metrics.get(TRAINING_FINISHED):
            metrics[DONE] = True  # complete by its own account: no trial scheduler is asked
        return metrics

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Hands the newest checkpoint to Tune, by reference and once.

        What was not measured with it is NaN: of a checkpoint without the score Tune believes that it is the best.
        """
        is_new = self.latest is not None and self.latest.path != self.handed_over
        if self.latest is not None:
            self.handed_over = self.latest.path
        metrics = dict.fromkeys(self.measured, math.nan) | (self._last_result or {})
        return checkpoint_for_tune(self.latest if is_new else None, metrics)

    def cleanup(self) -> None:
        """Tune is done with this trial, finished or stopped."""
        if self.group is not None:
            finished = (self._last_result or {}).get(TRAINING_FINISHED)
            self.group.end("go on" if finished else "stop", FINISH_GRACE_S if finished else self.stop_grace_s)

    # ---- inside

    def _trial_trainer(self) -> HuggingFaceTrainer:
        """The trainer with this trial's settings, writing to this trial's directory."""
        merged = self.trainer.with_settings(self.settings)
        directory, filesystem = self._storage.trial_fs_path, self._storage.storage_filesystem
        snapshot = f"{directory}/{SNAPSHOT}"
        if filesystem.get_file_info(snapshot).is_file:
            filesystem.delete_file(snapshot)  # Tune owns the checkpoints: Train must not resume from a list of its own
        run_config = RunConfig(
            name=os.path.basename(directory),
            storage_path=os.path.dirname(directory),
            storage_filesystem=filesystem,
            failure_config=merged.run_config.failure_config,
            callbacks=merged.run_config.callbacks,
            worker_runtime_env=merged.run_config.worker_runtime_env,
            logging_config=LoggingConfig("WARNING"),
        )
        scaling_config = self._as_granted(merged.scaling_config)
        trainer = merged.with_settings({"scaling_config": scaling_config}, run_config=run_config)
        trainer.start_from = self.start_from
        return trainer

    def _as_granted(self, wanted: ScalingConfig) -> ScalingConfig:
        """A trial scheduler may have changed the trial's resources: then its bundles say how many workers there are."""
        granted = [bundle for bundle in self.trial_resources.bundles if bundle] if self.trial_resources else []
        if not granted or len(granted) == wanted.num_workers:
            return wanted
        return dataclasses.replace(wanted, num_workers=len(granted))

    def _write_failure(self, failure: TrialFailed) -> None:
        text = f"Trial {self.trial_name}, {failure}\n"
        with self._storage.storage_filesystem.open_output_stream(f"{self._storage.trial_fs_path}/{FAILURE}") as stream:
            stream.write(text.encode())


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's sample of the search space; Tune adds entries of its own, with double underscores."""
    return {name: value for name, value in config.items() if not name.startswith("__")}
