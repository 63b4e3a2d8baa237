"""What both trainers share: construction, `fit`, `restore`, and becoming the trials of a sweep."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow.fs
from ray import cloudpickle
from ray.train import Checkpoint, DataConfig, Result, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.base_trainer import BaseTrainer
from ray.train.torch import TorchTrainer

from hfsuite.checkpoints import manifest
from hfsuite.errors import ConfigurationError, UnknownName, did_you_mean
from hfsuite.later import Later, LaterFunction
from hfsuite.ranks.conditions import Conditions
from hfsuite.ranks.rank_start import RankStart
from hfsuite.trainers.arguments import check_types
from hfsuite.trainers.datasets import is_streamed, preprocess
from hfsuite.trainers.merging import merged_dataclass, merged_run_config
from hfsuite.trials.failure import first_cause
from hfsuite.trials.report_observer import LAST_REPORT, ReportObserver

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.preprocessor import Preprocessor
    from ray.train.torch import TorchConfig
    from ray.tune import Trainable

DEFINITION = "trainer.pkl"  # what `restore` builds the trainer from again


class HuggingFaceTrainer(TorchTrainer):
    """A `TorchTrainer` that resumes, restores, reports and seals as the trainers of Ray 2.6 promised.

    Subclasses say what a rank runs (`worker_loop`) and what their arguments are called.
    """

    config_argument: ClassVar[str]
    function_argument: ClassVar[str]
    checkpoint_class: ClassVar[type[Checkpoint]] = Checkpoint
    imports: ClassVar[tuple[str, ...]] = ()  # modules that every rank needs
    is_trial = has_own_gpus = False  # own ones: each rank, though others share them, see `hfsuite.trials.gpu_slots`
    conditions = Conditions()  # of a trial's training
    examination: Later | None = None  # what follows it
    train_loop_per_worker: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        config: Mapping[str, Any] | None,
        torch_config: TorchConfig | None,
        scaling_config: ScalingConfig | None,
        dataset_config: DataConfig | None,
        run_config: RunConfig | None,
        datasets: Mapping[str, Dataset] | None,
        preprocessor: Preprocessor | None,
        resume_from_checkpoint: Checkpoint | None,
    ) -> None:
        check_types(scaling_config=scaling_config, run_config=run_config, config=config, datasets=datasets)
        if resume_from_checkpoint is not None:
            manifest.verify(resume_from_checkpoint)
        self.made_in = os.getcwd()
        self.function, self.config = function, dict(config or {})
        self.preprocessor, self.start_from = preprocessor, resume_from_checkpoint
        self.goes_on = resume_from_checkpoint is None  # with a run of the same name that was begun before
        self.torch_config = torch_config
        self.datasets: dict[str, Dataset] = {}
        self._datasets_are_preprocessed = False
        super().__init__(
            function,
            train_loop_config=self.config,
            torch_config=copy.copy(torch_config),  # TorchTrainer writes the workers' backend into it
            scaling_config=scaling_config,
            dataset_config=dataset_config,
            run_config=run_config or RunConfig(name=_new_run_name(type(self).__name__)),
            datasets=dict(datasets or {}),
        )
        self.check_scaling()
        if self.running_in_local_mode and self.datasets:
            raise ValueError(
                "Ray Datasets need workers, but num_workers=0 asks for local mode: "
                "set ScalingConfig(num_workers=1) or build the datasets in the training function."
            )

    def check_scaling(self) -> None:
        """Refuses scaling configurations that the trainer cannot use. Driver."""
        gpus, workers = self.scaling_config.num_gpus_per_worker, self.scaling_config.num_workers
        backend = self.torch_config.backend if self.torch_config is not None else None
        if 0 < gpus <= 0.5 and workers > 1 and backend in (None, "nccl") and not self.has_own_gpus:
            raise ConfigurationError(
                f"{workers} workers with {gpus:g} GPUs each may share one, which NCCL refuses: give each a whole GPU, "
                'take one worker a trial, or use TorchConfig(backend="gloo").'
            )

    def worker_loop(self) -> Callable[[dict[str, Any]], Any]:
        """What every rank runs, given a copy of the configuration. Driver; the answer is sent to the ranks."""
        raise NotImplementedError

    # ---- one training on its own

    def fit(self) -> Result:
        """Trains, and returns when the training has ended. Driver.

        A run of the same name and storage that was begun before goes on, as in Ray, from its newest complete
        checkpoint, unless `resume_from_checkpoint` names another.

        Returns:
            `metrics` are those of the last report; `checkpoint` is the last one.

        Raises:
            ray.train.TrainingFailedError: its `__cause__` is the exception of the lowest rank that failed.
        """
        self.prepare_datasets()
        if self.running_in_local_mode:
            result = super().fit()
            if result.checkpoint is not None:
                manifest.seal(result.checkpoint, result.metrics or {}, world_size=1)
            return self._with_class(result)
        storage = self.run_config.storage_context
        storage.storage_filesystem.create_dir(storage.experiment_fs_path, recursive=True)
        self._save_definition(storage.storage_filesystem, storage.experiment_fs_path)
        self._go_on_from_complete(storage.storage_filesystem, storage.experiment_fs_path)
        try:
            result = super().fit()
        except TrainingFailedError as error:
            raise error from first_cause(error)
        return self._with_last_report(result, storage.storage_filesystem, storage.experiment_fs_path)

    @classmethod
    def restored(
        cls,
        path: str,
        function: Callable[..., Any] | None,
        config: Mapping[str, Any] | None,
        datasets: Mapping[str, Dataset] | None,
        preprocessor: Preprocessor | None,
        scaling_config: ScalingConfig | None,
    ) -> Self:
        """The trainer of an interrupted or failed run. `fit` goes on from the run's newest complete checkpoint. Driver.

        Args:
            path: the run's directory, as in `Result.path`: a local path or a URI.
            function: the training function, if it shall be another; likewise its `config`, `preprocessor` and
                `scaling_config`.
            config: of the training function.
            datasets: must be given again, since they live in a cluster that may be gone.
            preprocessor: as at construction.
            scaling_config: as at construction.

        Raises:
            ConfigurationError: `path` is no run, or something that must be given again was not.
        """
        filesystem, directory = _locate(str(path))
        try:
            with filesystem.open_input_stream(f"{directory}/{DEFINITION}") as stream:
                definition: dict[str, Any] = cloudpickle.loads(stream.read())
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{path} is not the directory of a {cls.__name__} run: it holds no {DEFINITION}. "
                "Give the path that `Result.path` named."
            ) from error
        again = {
            cls.function_argument: function,
            cls.config_argument: config,
            "datasets": datasets,
            "preprocessor": preprocessor,
            "scaling_config": scaling_config,
        }
        given: dict[str, Any] = {name: value for name, value in again.items() if value is not None}
        if missing := sorted(set(definition.pop("dataset_names")) - set(given.get("datasets", {}))):
            raise ConfigurationError(f"The run was given Ray Datasets: give `datasets` again, with {missing}.")
        first_start = definition.pop("resume_from_checkpoint")  # may be gone, and is only needed if nothing was saved
        definition["run_config"] = dataclasses.replace(  # the run may have been moved
            definition["run_config"],
            name=os.path.basename(directory.rstrip("/")),
            storage_path=os.path.dirname(directory.rstrip("/")),
            storage_filesystem=filesystem,
        )
        trainer = cls(**{**definition, **given})
        trainer.start_from = first_start
        return trainer

    # ---- as the trials of a sweep

    def as_trainable(self, **worker_policy: Any) -> type[Trainable]:
        """A class for `ray.tune.Tuner`, each of whose trials is one run of this trainer. Driver.

        `param_space` may hold the trainer's configuration, `scaling_config`, `run_config` and `accelerate_config`:
        each is merged over what this trainer was built with. Give the Tuner `TuneConfig(reuse_actors=True)` too, so
        that workers live on from one trial to the next.

        Args:
            worker_policy: `isolation`, `decisions`, `stop_grace_s`, `trials_per_group` and `memory_limit_gb`, as in
                `hfsuite.policy.WorkerPolicy`.
        """
        from hfsuite.trials.trainable import trainable_for  # Ray Tune, which ranks need not import

        return trainable_for(self, **worker_policy)

    def with_settings(self, settings: Mapping[str, Any], *, run_config: RunConfig | None = None) -> Self:
        """A copy of this trainer with a trial's settings merged over its own.

        Args:
            settings: a sample of `param_space`.
            run_config: replaces the trainer's after the merge has been checked.

        Raises:
            ConfigurationError: `settings` names something that a trial cannot change.
        """
        known = self.trial_settings()
        if unknown := sorted(set(settings) - set(known)):
            raise UnknownName(
                [
                    f"A trial of {type(self).__name__} has no setting {name!r}. {did_you_mean(name, known)}"
                    for name in unknown
                ]
            )
        definition = self.definition() | {"datasets": self.datasets}
        for name, value in settings.items():
            definition[name] = known[name](definition[name], value)
        if run_config is not None:
            definition["run_config"] = run_config
        trainer = type(self).__new__(type(self))
        trainer.is_trial, trainer.has_own_gpus = True, self.has_own_gpus
        trainer.__init__(**definition)  # type: ignore[misc]
        trainer.start_from, trainer.made_in = self.start_from, self.made_in
        trainer._datasets_are_preprocessed = self._datasets_are_preprocessed
        return trainer

    @classmethod
    def trial_settings(cls) -> dict[str, Callable[[Any, Any], Any]]:
        """What `param_space` may hold, and how each is merged over the trainer's own value."""
        return {
            cls.config_argument: lambda own, new: {**(own or {}), **new},
            "scaling_config": merged_dataclass,
            "run_config": merged_run_config,
        }

    def definition(self) -> dict[str, Any]:
        """The arguments that make this trainer again, without its datasets."""
        return {
            self.function_argument: self.function,
            self.config_argument: self.config,
            "torch_config": self.torch_config,
            "scaling_config": self.scaling_config,
            "dataset_config": self.data_config,
            "run_config": self.run_config,
            "preprocessor": self.preprocessor,
        }

    def prepare_datasets(self) -> None:
        """Fits the preprocessor and applies it, once. Driver, with Ray running."""
        if self.preprocessor is not None and not self._datasets_are_preprocessed:
            self.datasets = preprocess(self.datasets, self.preprocessor)
            self._datasets_are_preprocessed = True

    @property
    def is_streamed(self) -> bool:
        """Whether tasks of Ray Data must run while the workers read. Driver or trial's actor."""
        return is_streamed(self.datasets)

    def modules_of_ranks(self) -> tuple[str, ...]:
        """What a rank imports before it trains: what the trainer needs, and the module of the training function."""
        own = getattr(self.function, "__module__", None)
        first_step = "torch._dynamo"  # an optimizer imports it when it is first used
        return (type(self).__module__, *self.imports, first_step, *([own] if own and own != "__main__" else []))

    def for_ranks(self) -> Self:
        """A copy whose function is unpickled by the ranks alone: it may import much, and a trial's actor needs none."""
        trainer = copy.copy(self)
        trainer.function = LaterFunction(self.function)
        trainer.train_loop_per_worker = trainer.function
        return trainer

    # ---- inside

    def _create_default_callbacks(self) -> list[Any]:
        """Ray Train's own callbacks, and ours after the user's."""
        own = self.run_config.callbacks
        self.run_config.callbacks = [*own, ReportObserver(self.preprocessor, self.scaling_config.num_workers)]
        try:
            callbacks: list[Any] = super()._create_default_callbacks()
            return callbacks
        finally:
            self.run_config.callbacks = own

    def _get_train_func(self) -> Callable[[], Any]:
        """Ray Train asks for what a rank runs; datasets are ready by then, so their rows can be counted."""
        self.train_loop_per_worker = RankStart(
            self.worker_loop(), self.start_from, self.conditions, self.examination, self.made_in
        )
        function: Callable[[], Any] = super()._get_train_func()
        return function

    def _save_definition(self, filesystem: pyarrow.fs.FileSystem, directory: str) -> None:
        definition = self.definition() | {
            "resume_from_checkpoint": self.start_from,
            "dataset_names": sorted(self.datasets),
        }
        with filesystem.open_output_stream(f"{directory}/{DEFINITION}") as stream:
            stream.write(cloudpickle.dumps(definition))

    def _go_on_from_complete(self, filesystem: pyarrow.fs.FileSystem, directory: str) -> None:
        """A run of this name was begun before: as in Ray, it goes on, but never from a checkpoint that is not whole."""
        newest = manifest.newest_complete(filesystem, directory) if self.goes_on else None
        if newest is None and self.start_from is not None:
            manifest.verify(self.start_from)
        self.start_from = newest or self.start_from
        for file in (manifest.SNAPSHOT, LAST_REPORT):
            if filesystem.get_file_info(f"{directory}/{file}").is_file and not (newest and file == LAST_REPORT):
                filesystem.delete_file(f"{directory}/{file}")

    def _with_last_report(self, result: Result, filesystem: pyarrow.fs.FileSystem, directory: str) -> Result:
        changes: dict[str, Any] = {}
        if filesystem.get_file_info(f"{directory}/{LAST_REPORT}").is_file:
            with filesystem.open_input_stream(f"{directory}/{LAST_REPORT}") as stream:
                changes["metrics"] = json.loads(stream.read())
        if result.checkpoint is None and self.goes_on:
            changes["checkpoint"] = self.start_from  # there was nothing left to train
        return self._with_class(dataclasses.replace(result, **changes))

    def _with_class(self, result: Result) -> Result:
        if result.checkpoint is None:
            return result
        checkpoint = self.checkpoint_class(result.checkpoint.path, result.checkpoint.filesystem)
        return dataclasses.replace(result, checkpoint=checkpoint)


BaseTrainer.register(HuggingFaceTrainer)  # so that `tune.Tuner(trainer, ...)` asks it for `as_trainable()`


def _locate(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" in path:
        filesystem, directory = pyarrow.fs.FileSystem.from_uri(path)
        return filesystem, directory
    return pyarrow.fs.LocalFileSystem(), str(Path(path).expanduser().absolute())


def _new_run_name(trainer: str) -> str:
    return f"{trainer}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{uuid.uuid4().hex[:6]}"
