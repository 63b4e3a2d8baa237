"""The shipped experiments with a clock in them: how long they train, and how fast."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray.train
import ray.train.torch
import torch
from ray.train import ScalingConfig
from transformers import Trainer, TrainerCallback

from experiments import language_model, sentiment
from hfsuite import Experiment, TransformersTrainer
from tests.benchmarks import workload
from tests.benchmarks.turns import InTurns

BILLION = {"model": "1b", "text": "state_of_the_union", "context": 1024, "evaluations": 1,
           "validation_rows": 8, "largest_per_device": 8}  # fmt: skip
ALL_ROWS = {"train_rows": 6530, "validation_rows": 200, "evaluations": 4, "precision": "bf16"}


def settings_of_share(gpus: int) -> dict[str, int]:
    """Thirty trials take some ten minutes on any number of GPUs: the first start is a part of that.

    All have batches of 32: those of 16 take twice as long, and one that begins last leaves the other GPUs idle.
    """
    return {"num_train_epochs": 5 * gpus, "global_batch_size": 32}


class TrainingClock(TrainerCallback):
    """Rank 0 writes down how long it trained between two evaluations."""

    def __init__(self) -> None:
        self.began: float | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            workload.note("first step begins")
        if self.began is None:
            self.began = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_evaluate or control.should_save or control.should_training_stop:
            self._note()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_evaluate:
            self._note()

    def _note(self) -> None:
        if self.began is not None:
            workers = ray.train.get_context().get_world_size()
            workload.note("trained", seconds=_now() - self.began, workers=workers)
        self.began = None


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


def timed_sentiment(train_dataset: None, eval_dataset: None, *, diary: str, **settings: Any) -> Trainer:
    """The experiment's own trainer, with a clock."""
    os.environ["BENCH_DIARY"] = diary
    trainer = sentiment.trainer_init_per_worker(train_dataset, eval_dataset, **settings)
    trainer.add_callback(TrainingClock())
    return trainer


def language_model_in_turns(train_dataset: None, eval_dataset: None, *, diary: str, **settings: Any) -> Trainer:
    """The experiment's own trainer, which lets `torchrun` train meanwhile."""
    os.environ["BENCH_DIARY"] = diary
    trainer = language_model.trainer_init_per_worker(train_dataset, eval_dataset, **settings)
    trainer.add_callback(InTurns(Path(diary).parent, "ours", "torchrun", first=True))
    return trainer


def timed_language_model(train_dataset: None, eval_dataset: None, *, diary: str, **settings: Any) -> Trainer:
    """The experiment's own trainer, with a clock."""
    os.environ["BENCH_DIARY"] = diary
    trainer = language_model.trainer_init_per_worker(train_dataset, eval_dataset, **settings)
    trainer.add_callback(TrainingClock())
    return trainer


def sentiment_as_ray_documents_it(config: dict[str, Any]) -> None:
    """The training function of Ray's pattern: its report callback, and `prepare_trainer`."""
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer

    trainer = timed_sentiment(None, None, **config)
    trainer.add_callback(RayTrainReportCallback())
    prepare_trainer(trainer).train()


sentiment_experiment: Experiment = dataclasses.replace(
    sentiment.experiment,
    name="bench-gpu-sentiment",
    trainer=TransformersTrainer(timed_sentiment, scaling_config=ScalingConfig(num_workers=1, use_gpu=True)),
    defaults=sentiment.DEFAULTS | ALL_ROWS | {"diary": ""},
    test=None,
)
language_model_experiment: Experiment = dataclasses.replace(
    language_model.experiment,
    name="bench-gpu-language-model",
    trainer=TransformersTrainer(language_model_in_turns, scaling_config=ScalingConfig(num_workers=1, use_gpu=True)),
    space={"learning_rate": language_model.lora.space["learning_rate"]},  # all else as under torchrun
    only_where={},
    defaults=language_model.DEFAULTS | BILLION | {"diary": ""},
    test=None,
)
large_experiment: Experiment = dataclasses.replace(
    language_model_experiment,
    name="bench-gpu-large",
    trainer=TransformersTrainer(timed_language_model, scaling_config=ScalingConfig(num_workers=1, use_gpu=True)),
)


def rank(folder: Path, rows: int, steps: int) -> None:
    """What a rank of `torchrun` runs: the same trainer and nothing of this project; of Ray, only what it asks for."""
    os.chdir(folder)
    context = SimpleNamespace(get_world_size=lambda: int(os.environ["WORLD_SIZE"]))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    settings = language_model.DEFAULTS | BILLION | {"global_batch_size": rows, "steps": steps}
    with (
        mock.patch.object(ray.train, "get_context", return_value=context),
        mock.patch.object(ray.train.torch, "get_device", return_value=device),
    ):
        trainer = language_model.trainer_init_per_worker(None, None, **settings)
        trainer.add_callback(InTurns(folder.parent, "torchrun", "ours", first=False))
        trainer.train()


if __name__ == "__main__":
    rank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
