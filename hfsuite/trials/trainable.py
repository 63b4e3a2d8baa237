"""A trial: one actor that Ray Tune starts, which runs one training after another in its own group of workers."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import ray
from ray.train import Checkpoint, CheckpointConfig, LoggingConfig, RunConfig
from ray.tune import PlacementGroupFactory, Trainable
from ray.tune.result import DONE, RESULT_DUPLICATE, SHOULD_CHECKPOINT

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.reported import newest_reported
from hfsuite.errors import CheckpointError, ConfigurationError, TrialFailed, UnknownName, did_you_mean
from hfsuite.later import Later
from hfsuite.own_values import own_value
from hfsuite.policy import WorkerPolicy
from hfsuite.ranks.conditions import Added, Conditions
from hfsuite.ranks.examination import Examination
from hfsuite.report import FAILED_AT_END, FAILURE_FILE, LOST, TRAINING_FINISHED, WARM_START
from hfsuite.seeds import SETTING, SeedRule
from hfsuite.trials import resources
from hfsuite.trials.controller import checkpoint_for_tune
from hfsuite.trials.resources import TrialRequest
from hfsuite.trials.run import TrialRun
from hfsuite.trials.trainer import Trainer
from hfsuite.trials.workers import Workers

FINISH_GRACE_S = 3_600.0  # after its last report a rank may still push a model to a hub
WORKERS_LOST = "workers_lost.txt"  # likewise: why its workers could not serve another trial


def trainable_for(
    trainer: Trainer, *, seeds: SeedRule | None = None, deterministic: bool = False,
    examination: Examination | None = None, logged_to: Callable[..., AbstractContextManager[Added]] | None = None,
    metric: str = "",
    **worker_policy: Any,
) -> type[TrainingTrial]:  # fmt: skip
    """The class whose instances are trials of `trainer`. Driver.

    Args:
        trainer: what a trial merges its sample of the search space over.
        seeds: where a trial's seed comes from; without, nothing is seeded but by the training function itself.
        deterministic: whether PyTorch shall compute the same bits each time.
        examination: what follows each training, if anything does.
        logged_to: from a world rank and a `trial_id` to what takes what that rank's training function logs itself.
        metric: what a sweep optimises; a training that can never report it is not begun.
        worker_policy: see `WorkerPolicy`.
    """
    if unknown := sorted(set(worker_policy) - {field.name for field in dataclasses.fields(WorkerPolicy)}):
        known = [field.name for field in dataclasses.fields(WorkerPolicy)]
        raise UnknownName([f"as_trainable() has no argument {name!r}. {did_you_mean(name, known)}" for name in unknown])
    if trainer.run_config.checkpoint_config != CheckpointConfig():
        warnings.warn(
            "The trainer's run_config.checkpoint_config is for fit(). Trials' checkpoints belong to Ray Tune: "
            "give it to the Tuner, in tune.RunConfig.",
            stacklevel=3,
        )
    trainer.prepare_datasets()
    attributes = {
        "given": Later(trainer.for_ranks()),
        "seeds": seeds,
        "deterministic": deterministic,
        "examination": Later(examination) if examination is not None else None,
        "logged_to": Later(logged_to) if logged_to is not None else None,
        "metric": metric,
        "policy": WorkerPolicy(**worker_policy),
        "owner": uuid.uuid4().hex,
        "imports": trainer.modules_of_ranks(),
        "worker_runtime_env": trainer.run_config.worker_runtime_env,
        "__doc__": TrainingTrial.__doc__,
    }
    return type(f"{type(trainer).__name__}Trial", (TrainingTrial,), attributes)


class TrainingTrial(Trainable):
    """One training run as a trial of Ray Tune. Its workers make a report, Tune decides, the workers go on or stop.

    Where Tune reuses its actor (`reuse_actors=True`), a trial's workers run the next one too. Checkpoints are where Ray
    Train put them, in the trial's own directory; Tune gets references and owns them.
    """

    given: ClassVar[Later]
    seeds: ClassVar[SeedRule | None]
    deterministic: ClassVar[bool]
    examination: ClassVar[Later | None]
    logged_to: ClassVar[Later | None]
    metric: ClassVar[str]
    policy: ClassVar[WorkerPolicy]
    owner: ClassVar[str]
    imports: ClassVar[tuple[str, ...]]
    worker_runtime_env: ClassVar[dict[str, Any]]
    fault: Exception | None = None  # of its beginning

    # ---- on the driver

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Tune asks, on the driver, before a trial exists: what can never run is refused here."""
        trainer = cls.given.value
        scaling_config = trainer.with_settings(_settings(config)).scaling_config
        resources.check_fits(scaling_config, uses_ray_data=trainer.is_streamed)
        return TrialRequest.of(scaling_config, owner=cls.owner)

    # ---- in the trial's actor, in the order in which Tune calls them

    def __init__(self, config: dict[str, Any] | None = None, storage: Any = None, *, waits: bool = False) -> None:
        if waits:  # for a trial that may come: see `WaitingActor`
            self.given.value  # noqa: B018  what is imported with it takes seconds
        else:
            super().__init__(config, storage)

    def begin(self, config: dict[str, Any], storage: Any) -> None:
        """The first trial comes to an actor that has waited for it. What goes wrong is raised when it shall train."""
        try:
            super().__init__(config, storage)
        except Exception as error:  # noqa: BLE001  raised where Ray Tune listens
            self.fault = error

    def train(self) -> dict[str, Any]:
        """Ray Tune's own, which calls `step`."""
        if self.fault is not None:
            raise self.fault
        result: dict[str, Any] = super().train()
        return result

    def setup(self, config: dict[str, Any]) -> None:
        """The first trial of this actor: its workers start, and import while this process does so too.

        Raises:
            ConfigurationError: `tune.with_resources` says what a trial needs, of which its workers would get nothing.
        """
        if not isinstance(self.trial_resources, resources.TrialRequest):
            raise ConfigurationError(
                f"The resources of a trial are those of its workers: give the trainer ScalingConfig(num_workers=..., "
                f"resources_per_worker={{...}}) instead of tune.with_resources(..., {self.trial_resources.bundles})."
            )
        self.workers = Workers(self.policy, self.imports, self.owner)
        self.lost = ""  # why the workers of the trial before had to go
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self.settings, self.own_name = _settings(config), self.trial_name  # when Tune resets, it is the next one's
        self.run: TrialRun | None = None
        self.latest: Checkpoint | None = None  # the newest checkpoint of this trial
        self.measured: set[str] = set()  # the numbers of all reports
        self.handed_over: str | None = None  # Tune deletes a directory once for each time it was given it
        self._last_result: dict[str, Any] | None = None
        bundles = self._bundles()
        self.workers.launch(len(bundles), bundles[0], self.worker_runtime_env)
        self.start_from: Checkpoint | None = self.given.value.start_from

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial of this actor: the one before ends, and leaves its workers to this one."""
        self._end_run()
        self._begin(new_config)
        return True

    def restore(self, checkpoint_path: Any) -> None:
        """Goes on from a checkpoint of Tune's: after a failure or a pause, or another trial's (exploitation).

        Raises:
            TrialFailed: another trial's is missing or damaged; an older one of its own would not be what was asked for.
        """
        if self.fault is not None:
            raise self.fault
        given, metrics = checkpoint_path.checkpoint, checkpoint_path.metrics
        own = (self._storage.storage_filesystem, self._storage.trial_fs_path)
        is_own = given.path.startswith(f"{own[1]}/")
        if is_own and (newest := newest_reported(*own)) is not None:
            given, metrics = newest  # Tune may not have written it down before its driver was killed
        self._iteration = metrics.get("training_iteration", 0)
        self._time_total = metrics.get("time_total_s", 0.0)
        self._time_since_restore, self._iterations_since_restore, self._restored = 0.0, 0, True
        self.start_from = Checkpoint(given.path, given.filesystem)
        if is_own:
            self.start_from = manifest.complete_or_older(self.start_from, *own)
        else:
            try:
                manifest.verify(self.start_from)
            except CheckpointError as error:
                failure = TrialFailed(f"which should go on from a checkpoint of another trial: {error}")
                self._write_failure(failure)
                raise failure from error
        self.latest, self.handed_over = given, given.path

    def step(self) -> dict[str, Any]:
        """From one report to the next. The first call starts the training, each later one means "go on"."""
        is_first = self.run is None
        if self.run is None:
            if self.given.value.is_streamed:
                resources.check_spare_cpu()
            self.run = TrialRun(self._trial_trainer(), self.workers)
        else:
            self.run.decide("go on")
        try:
            report = self.run.next_report()
            if report is None and self._last_result is None and self._iteration == 0:
                raise TrialFailed("The training function returned without a single call of ray.train.report().")
        except TrialFailed as failure:
            self._write_failure(failure)
            raise
        if report is None:
            return {RESULT_DUPLICATE: True}  # the end, without another iteration
        metrics = {name: value for name, value in report.metrics.items() if name != "training_iteration"}  # Tune counts
        if is_first:
            metrics |= self._about_workers()
        self.measured |= {name for name, value in metrics.items() if isinstance(value, float)}
        if report.checkpoint is not None:
            self.latest = report.checkpoint
            metrics[SHOULD_CHECKPOINT] = True
        if metrics.get(TRAINING_FINISHED):
            # Waited for here, since Ray Tune ends the actor of a last trial after seconds.
            if (late := self.run.finish(FINISH_GRACE_S)) is None:
                metrics[DONE] = True  # complete by its own account: no trial scheduler is asked, and nothing need wait
            else:  # the report counts, and the next step raises, unless the trial scheduler ends the trial here
                metrics[FAILED_AT_END] = self._write_failure(late)
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

    def stop(self) -> None:
        """Ray Tune's own, which calls `cleanup`."""
        if self.fault is None:
            super().stop()

    def cleanup(self) -> None:
        """Tune is done with this actor."""
        run = self.run
        self._end_run()
        self.workers.close()
        if run is not None:
            run.remove_scratch()  # again: by now all that wrote there has ended

    # ---- inside

    def _end_run(self) -> None:
        if self.run is None:
            return
        self.run.end(FINISH_GRACE_S if self.run.finished else self.policy.stop_grace_s)
        self.run.remove_scratch()
        if self.workers.lost:
            why, self.workers.lost = self.workers.lost, ""
            self.lost = f"after {self.own_name}: {why}"
            self.run.write(WORKERS_LOST, f"After trial {self.own_name} its workers were ended. {why}\n")
        self.run = None

    def _about_workers(self) -> dict[str, Any]:
        """Whether this trial found living workers, and if not, why; told once."""
        lost, self.lost, self.workers.lost = self.lost or self.workers.lost, "", ""
        is_warm = self.workers.trials > 0
        return {WARM_START: is_warm} | ({LOST: lost} if lost and not is_warm else {})

    def _write_failure(self, failure: TrialFailed) -> str:
        text = f"Trial {self.trial_name}, {failure}"
        with self._storage.storage_filesystem.open_output_stream(
            f"{self._storage.trial_fs_path}/{FAILURE_FILE}"
        ) as file:
            file.write(f"{text}\n".encode())
        return text

    def _bundles(self) -> list[dict[str, float]]:
        """Of the trial's placement group, one a worker."""
        return [bundle for bundle in self.trial_resources.bundles if bundle]

    def _trial_trainer(self) -> Trainer:
        """The trainer with this trial's settings, writing to this trial's directory."""
        settings, conditions = self._seeded()
        merged: Trainer = self.given.value.with_settings(settings)
        directory, filesystem = self._storage.trial_fs_path, self._storage.storage_filesystem
        snapshot = f"{directory}/{manifest.SNAPSHOT}"
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
        # A trial scheduler may have changed the trial's resources: then its bundles say how many workers there are.
        scaling_config = dataclasses.replace(merged.scaling_config, num_workers=len(self._bundles()))
        trainer = merged.with_settings({"scaling_config": scaling_config}, run_config=run_config)
        if self.logged_to is not None:
            logged_to = functools.partial(self.logged_to.value, trial_id=self.trial_id)
            conditions = dataclasses.replace(conditions, logged_to=logged_to)
        slot = ray.get_runtime_context().get_actor_name()
        paced = (self.trial_id, slot) if slot else None
        keeps_batch = resources.is_grown(self.trial_resources)
        conditions = dataclasses.replace(conditions, metric=self.metric, keeps_batch=keeps_batch, paced=paced)
        trainer.start_from, trainer.conditions, trainer.examination = self.start_from, conditions, self.examination
        return trainer

    def _seeded(self) -> tuple[dict[str, Any], Conditions]:
        """The settings with the trial's seed in them, if there is one for it, and what surrounds its training."""
        if self.seeds is None:
            return self.settings, Conditions()
        argument = self.given.value.config_argument
        own, seed = self.settings.get(argument, {}), self.seeds.of(int(self.own_name.rpartition("_")[2]))
        if self.seeds.fills_setting:
            own = {**own, SETTING: seed}
        elif isinstance(own.get(SETTING), int):
            seed = own[SETTING]
        return {**self.settings, argument: own}, Conditions(seed, self.deterministic, notes_losses=True)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's sample of the search space; Tune adds entries of its own, with double underscores.

    Searchers may draw NumPy's numbers and texts: in a sweep those are Python's already, under a bare Tuner only here.
    """
    return {name: own_value(value) for name, value in config.items() if not name.startswith("__")}
