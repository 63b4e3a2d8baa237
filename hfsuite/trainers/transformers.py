"""TransformersTrainer: `transformers.Trainer` on N workers."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import ray.train
import ray.train.torch
from huggingface_hub.constants import HF_HOME
from ray.train import Checkpoint, DataConfig, RunConfig, ScalingConfig

from hfsuite.errors import ConfigurationError, WrongFunction
from hfsuite.trainers import datasets as ray_data
from hfsuite.trainers import hyperparameters
from hfsuite.trainers.checkpoint import TransformersCheckpoint
from hfsuite.trainers.training import HuggingFaceTrainer

if TYPE_CHECKING:
    import transformers
    from ray.data import Dataset
    from ray.data.preprocessor import Preprocessor
    from ray.train.torch import TorchConfig

    from hfsuite.trainers.facts import Facts

    TrainerInit = Callable[..., transformers.Trainer]

# A metric of `evaluate.load` is of a class in a module downloaded to here. The training function may refer to it, and
# workers import this file before they unpickle the function.
DOWNLOADED_MODULES = os.environ.get("HF_MODULES_CACHE", os.path.join(HF_HOME, "modules"))
if DOWNLOADED_MODULES not in sys.path:
    sys.path.append(DOWNLOADED_MODULES)

RENAMED_ARGUMENTS = {"evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "warmup_ratio": "warmup_steps"}
RESERVED_KEY = "_trainer_init_per_worker"


class TransformersTrainer(HuggingFaceTrainer):
    """Runs `transformers.Trainer.train()` in a group of workers, as one data-parallel training.

    Args:
        trainer_init_per_worker: called in every rank with the training set, the evaluation set (both None without Ray
            Datasets) and `trainer_init_config` as keywords; returns the `transformers.Trainer` of this rank.
        trainer_init_config: keywords for it; never changed.
        torch_config: backend and timeout of the process group; by default NCCL on GPUs and Gloo on CPUs.
        scaling_config: how many workers, and what each of them holds.
        dataset_config: how Ray Datasets are dealt out; by default "train" is split and "evaluation" whole everywhere.
        run_config: where results go, what happens on failure, which checkpoints stay.
        datasets: Ray Datasets "train" and "evaluation". A Hugging Face dataset can be built in the function instead;
            Transformers then shards it.
        preprocessor: fitted on "train", applied to all datasets, and stored with every checkpoint.
        resume_from_checkpoint: where to go on from. It must be complete: see `hfsuite.trainers.manifest`. The learning
            rate and its schedule are those of the arguments, not of the checkpoint.

    Raises:
        ValueError: on the driver, for arguments that contradict each other; in the workers, as the cause of
            `ray.train.TrainingFailedError`, for `TrainingArguments` that do (see `hfsuite.trainers.reporting`).
    """

    config_argument = "trainer_init_config"
    function_argument = "trainer_init_per_worker"
    imports = ("transformers.trainer", "accelerate")
    checkpoint_class = TransformersCheckpoint

    def __init__(
        self,
        trainer_init_per_worker: TrainerInit,
        *,
        trainer_init_config: Mapping[str, Any] | None = None,
        torch_config: TorchConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        dataset_config: DataConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
    ) -> None:
        parameters = len(inspect.signature(trainer_init_per_worker).parameters)
        if parameters < 3:
            raise ValueError(
                "trainer_init_per_worker should take at least 3 arguments (train_dataset, eval_dataset, **config), "
                f"but it accepts {parameters}. AccelerateTrainer takes a training loop of (config)."
            )
        if RESERVED_KEY in (trainer_init_config or {}):
            raise ValueError(f"'{RESERVED_KEY}' is a reserved key in `trainer_init_config`.")
        if unknown := set(datasets or {}) - {ray_data.TRAIN, ray_data.EVALUATION}:
            raise ValueError(
                f"`datasets` may hold '{ray_data.TRAIN}' and '{ray_data.EVALUATION}', got also {sorted(unknown)}."
            )
        super().__init__(
            trainer_init_per_worker,
            config=trainer_init_config,
            torch_config=torch_config,
            scaling_config=scaling_config,
            dataset_config=dataset_config or DataConfig(datasets_to_split=[ray_data.TRAIN]),
            run_config=run_config,
            datasets=datasets,
            preprocessor=preprocessor,
            resume_from_checkpoint=resume_from_checkpoint,
        )

    @classmethod
    def restore(
        cls,
        path: str,
        trainer_init_per_worker: TrainerInit | None = None,
        trainer_init_config: Mapping[str, Any] | None = None,
        datasets: Mapping[str, Dataset] | None = None,
        preprocessor: Preprocessor | None = None,
        scaling_config: ScalingConfig | None = None,
    ) -> Self:
        """The trainer of an interrupted or failed run: see `HuggingFaceTrainer.restored`. Driver."""
        return cls.restored(path, trainer_init_per_worker, trainer_init_config, datasets, preprocessor, scaling_config)

    def check_scaling(self) -> None:
        """Refuses what DDP under Transformers cannot use: more than one GPU a worker, or a part of one by accident."""
        gpus = self.scaling_config.num_gpus_per_worker
        if gpus > 1:
            raise ValueError(
                f"You have assigned {gpus:g} GPUs per worker. Transformers expects one GPU per worker in DDP mode: "
                "ask for more workers instead."
            )
        if gpus != int(gpus) and not self.is_trial:
            raise ValueError(
                f"You have assigned {gpus:g} GPUs per worker, but fractional GPUs are not supported by Transformers "
                "outside of trials. Under Ray Tune, ask for them in the param_space: "
                '{"scaling_config": {"resources_per_worker": {"GPU": ' + f"{gpus:g}" + "}}}."
            )
        super().check_scaling()

    def worker_loop(self) -> TransformersLoop:
        """What every rank runs."""
        rows = ray_data.row_counts(self.datasets)
        return TransformersLoop(self.function, rows, self.is_trial, self.running_in_local_mode, self.conditions.metric)


@dataclass(frozen=True)
class TransformersLoop:
    """The training function of a rank: builds the user's trainer, prepares it, trains.

    Args:
        trainer_init_per_worker: the user's function.
        rows: rows of each Ray Dataset, counted on the driver; None for one that is streamed.
        is_trial: whether other trials may run beside this one.
        is_local: whether this is the driver's own process, where nothing is uploaded.
        metric: what a sweep optimises; empty where none does.
    """

    trainer_init_per_worker: TrainerInit
    rows: Mapping[str, int | None]
    is_trial: bool
    is_local: bool
    metric: str = ""

    def __call__(self, config: dict[str, Any]) -> None:
        """Trains. Runs in every rank, in the thread that Ray Train makes for it."""
        from hfsuite.trainers import dealing

        # Without it Transformers on a machine without GPUs overlooks the process group: N trainings instead of one.
        os.environ["ACCELERATE_USE_CPU"] = str(ray.train.torch.get_device().type == "cpu").lower()
        with dealing.in_force(weighs=False):
            self._train(config)

    def _train(self, config: dict[str, Any]) -> None:
        from transformers.integrations import get_reporting_integration_callbacks

        from hfsuite.trainers import dealing
        from hfsuite.trainers.exact_loss import make_exact
        from hfsuite.trainers.reporting import ReportCallback, check_arguments

        train, evaluation = ray_data.worker_datasets(self.rows)
        try:
            trainer = self.trainer_init_per_worker(train, evaluation, **config)
        except (TypeError, ImportError) as error:
            raise _renamed(error) or error from None
        _check_returned(self.trainer_init_per_worker, trainer)
        _check_evaluates(trainer, self.metric)
        check_arguments(trainer.args, ray.train.get_context().get_world_size(), is_trial=self.is_trial)
        if trainer.args.push_to_hub and not trainer.args.hub_token:
            warnings.warn(
                "`push_to_hub` is set without `hub_token`. Credentials of this machine do not travel to the workers, "
                "so pushing will most likely fail: set `hub_token` in TrainingArguments.",
                stacklevel=2,
            )
        _prepare_anew(trainer)
        ray_data.keep_ray_split(trainer)
        about_loss = make_exact(trainer)
        for integration in get_reporting_integration_callbacks(trainer.args.report_to):
            trainer.pop_callback(integration)  # tracking is the driver's job
        sharded = bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
        facts = self._noted_facts(trainer)

        def begins() -> None:  # with a smaller batch than before, where that did not fit
            facts.note_batch(trainer._train_batch_size, trainer.args.gradient_accumulation_steps)
            loaders = trainer.callback_handler.train_dataloader, trainer.callback_handler.eval_dataloader
            facts.note_dealing(dealing.why_not_dealt(trainer.accelerator, *loaders))
            facts.write()

        reports = ReportCallback(
            sharded, keep_local=self.is_local, begins=begins, about=about_loss,
            rows_trained=lambda: _rows_trained(trainer),
        )  # fmt: skip
        trainer.add_callback(reports)
        hyperparameters.keep_own(trainer)
        hyperparameters.keep_states_of_callbacks(trainer)

        if checkpoint := ray.train.get_checkpoint():
            with checkpoint.as_directory() as directory:
                trainer.train(resume_from_checkpoint=directory)
                if not reports.steps:
                    reports.report_finished(trainer, directory)
        else:
            trainer.train()

    def _noted_facts(self, trainer: transformers.Trainer) -> Facts:
        from hfsuite.trainers.facts import BASE_MODEL, EVALUATION, TRAINING, Facts

        facts, evaluation = Facts(self.is_local), trainer.eval_dataset
        facts.note(BASE_MODEL, trainer.model)
        facts.note(TRAINING, trainer.train_dataset)
        for dataset in evaluation.values() if isinstance(evaluation, dict) else [evaluation]:
            facts.note(EVALUATION, dataset)
        facts.note_precision(trainer.accelerator)
        facts.seeds = {"seed": trainer.args.seed, "data_seed": trainer.args.data_seed}
        facts.write()
        return facts


def _rows_trained(trainer: Any) -> int:
    """By all ranks; in a model-parallel training, what its steps should have held."""
    steps: int = trainer.state.global_step * trainer.get_total_train_batch_size(trainer.args)
    return trainer._hfsuite.rows_trained if hasattr(trainer, "_hfsuite") else steps


def _check_returned(function: TrainerInit, returned: Any) -> None:
    """Refuses what cannot be trained.

    Raises:
        WrongFunction: it is no `transformers.Trainer`, or has trained already.
    """
    from transformers import Trainer

    name = getattr(function, "__name__", "trainer_init_per_worker")
    if not isinstance(returned, Trainer):
        got = f"the class {returned.__name__}" if isinstance(returned, type) else f"{type(returned).__name__}"
        got, cure = ("None", "Does it end with `return trainer`?") if returned is None else (got, "")
        if isinstance(returned, tuple | list) and any(isinstance(each, Trainer) for each in returned):
            cure = "Return the Trainer alone."
        elif isinstance(returned, type) and issubclass(returned, Trainer):
            cure = f"Return {returned.__name__}(...)."
        raise WrongFunction(f"{name} must return a transformers.Trainer, got {got}. {cure}".rstrip())
    if returned.state.global_step:
        raise WrongFunction(
            f"{name} returned a Trainer that has trained {returned.state.global_step} steps already: return it before "
            "it trains. TransformersTrainer calls `train()`."
        )


def _check_evaluates(trainer: transformers.Trainer, metric: str) -> None:
    """Refuses a training that can never report what is optimised, before it begins.

    Only of Transformers' own trainers and callbacks is it known that they evaluate nothing of their own accord.

    Raises:
        WrongFunction: the metric comes with an evaluation, and none will be made.
    """
    args = trainer.args
    if not metric.startswith("eval_") or args.eval_strategy != "no" or getattr(args, "eval_on_start", False):
        return
    parts = [trainer, *trainer.callback_handler.callbacks]
    if all(type(each).__module__.partition(".")[0] == "transformers" for each in parts):
        raise WrongFunction(
            f"The metric {metric!r} comes with an evaluation, and none will be made: give TrainingArguments "
            f"eval_strategy={str(args.logging_strategy.value)!r}, the same as `logging_strategy`, and the Trainer an "
            "eval_dataset."
        )


def _prepare_anew(trainer: Any) -> None:
    """Has `train()` prepare a model for training that was evaluated before.

    Accelerate marks what it has prepared for an evaluation, and prepares nothing twice: no rank's model would become a
    part of DDP, and each would train on its own rows alone.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or not trainer.accelerator._models:
        return
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # takes mixed precision off
    for each in (trainer.model, *trainer.accelerator._models):
        vars(each).pop("_is_accelerate_prepared", None)
    trainer.accelerator._models.clear()
    trainer.model_wrapped = trainer.model


def _renamed(error: Exception) -> ConfigurationError | None:
    """A message for names that scripts of Ray 2.6 still use; None for any other error."""
    if "cannot import name 'load_metric'" in str(error):
        return ConfigurationError("`datasets.load_metric` is gone: use `evaluate.load`, or a function of your own.")
    for old, new in RENAMED_ARGUMENTS.items():
        if f"unexpected keyword argument '{old}'" in str(error):
            return ConfigurationError(f"Transformers has renamed `{old}`: write `{new}` in TrainingArguments.")
    return None
