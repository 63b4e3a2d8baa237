"""The training function of a rank of TransformersTrainer: builds the user's trainer, prepares it, trains."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.torch

from hfsuite.errors import WrongFunction
from hfsuite.ranks import hyperparameters, ray_data

if TYPE_CHECKING:
    import transformers

    from hfsuite.ranks.facts import Facts

RENAMED_ARGUMENTS = {"evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "warmup_ratio": "warmup_steps"}


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

    trainer_init_per_worker: Callable[..., transformers.Trainer]
    rows: Mapping[str, int | None]
    is_trial: bool
    is_local: bool
    metric: str = ""

    def __call__(self, config: dict[str, Any]) -> None:
        """Trains. Runs in every rank, in the thread that Ray Train makes for it."""
        from hfsuite.ranks import dealing

        # Without it Transformers on a machine without GPUs overlooks the process group: N trainings instead of one.
        os.environ["ACCELERATE_USE_CPU"] = str(ray.train.torch.get_device().type == "cpu").lower()
        with dealing.in_force(weighs=False):
            self._train(config)

    def _train(self, config: dict[str, Any]) -> None:
        from transformers.integrations import get_reporting_integration_callbacks

        from hfsuite.ranks import dealing
        from hfsuite.ranks.exact_loss import make_exact
        from hfsuite.ranks.reporting import ReportCallback, check_arguments

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
        from hfsuite.ranks.facts import BASE_MODEL, EVALUATION, TRAINING, Facts

        facts, evaluation = Facts(self.is_local), trainer.eval_dataset
        facts.note(BASE_MODEL, trainer.model)
        facts.note(TRAINING, trainer.train_dataset)
        for dataset in evaluation.values() if isinstance(evaluation, dict) else [evaluation]:
            facts.note(EVALUATION, dataset)
        facts.note_precision(trainer.accelerator)
        facts.saves_only_model = trainer.args.save_only_model
        facts.seeds = {"seed": trainer.args.seed, "data_seed": trainer.args.data_seed}
        facts.write()
        return facts


def _rows_trained(trainer: Any) -> int:
    """By all ranks; in a model-parallel training, what its steps should have held."""
    steps: int = trainer.state.global_step * trainer.get_total_train_batch_size(trainer.args)
    return trainer._hfsuite.rows_trained if hasattr(trainer, "_hfsuite") else steps


def _check_returned(function: Callable[..., transformers.Trainer], returned: Any) -> None:
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


def _renamed(error: Exception) -> WrongFunction | None:
    """A message for names that scripts of Ray 2.6 still use; None for any other error."""
    if "cannot import name 'load_metric'" in str(error):
        return WrongFunction("`datasets.load_metric` is gone: use `evaluate.load`, or a function of your own.")
    for old, new in RENAMED_ARGUMENTS.items():
        if f"unexpected keyword argument '{old}'" in str(error):
            return WrongFunction(f"Transformers has renamed `{old}`: write `{new}` in TrainingArguments.")
    return None
