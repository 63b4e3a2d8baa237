"""The shipped experiments with a careless function around each: precision and determinism outlive a trial."""

from __future__ import annotations

import os
from functools import partial
from typing import Any
from unittest import mock

from ray.train import ScalingConfig

from experiments import digits, sentiment
from hfsuite import AccelerateTrainer, TransformersTrainer


def change_process(deterministic: bool, precision: str) -> None:
    """What a user's function may do, and never undo. The rank's output tells how it found and left its process."""
    import torch
    from transformers import enable_full_determinism

    def tell(when: str) -> None:
        precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        print(f"{when}: deterministic={torch.are_deterministic_algorithms_enabled()} precision={precision}", flush=True)

    tell("found")
    if precision != "fp32":
        os.environ["ACCELERATE_MIXED_PRECISION"] = precision
    if deterministic:
        enable_full_determinism(1)
    tell("left")


def fine_tuning(
    train_dataset: None, eval_dataset: None, *, deterministic: bool, precision: str, stop: bool, **settings: Any
) -> Any:
    change_process(deterministic, precision)
    arguments = partial(sentiment.TrainingArguments, use_cpu=True, full_determinism=deterministic)
    with mock.patch.object(sentiment, "TrainingArguments", arguments):
        return sentiment.trainer_init_per_worker(train_dataset, eval_dataset, **settings, precision=precision)


def vision(settings: dict[str, Any]) -> None:
    change_process(settings.pop("deterministic"), settings["precision"])
    settings.pop("stop")
    digits.train_loop_per_worker(settings)


PLAIN = {"deterministic": False, "precision": "fp32", "stop": False}
# Little: bf16 takes nine times as long on CPU.
SENTIMENT = {"train_rows": 64, "validation_rows": 16, "num_train_epochs": 2, "max_length": 16}
two_workers = ScalingConfig(num_workers=2)
TRAINERS = {
    "sentiment": TransformersTrainer(
        fine_tuning, trainer_init_config=sentiment.DEFAULTS | SENTIMENT | PLAIN, scaling_config=two_workers
    ),
    "digits": AccelerateTrainer(
        vision,
        train_loop_config=digits.DEFAULTS | {"epochs": 2} | PLAIN,
        accelerate_config={},
        scaling_config=two_workers,
    ),
}
