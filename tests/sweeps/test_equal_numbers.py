"""One configuration on one, two and four workers, divided in several ways: the same numbers in MLflow."""

from __future__ import annotations

from typing import Any

import pytest
import ray.train
from ray import tune
from ray.train import ScalingConfig
from transformers import Trainer, TrainingArguments

from hfsuite import Experiment, TransformersTrainer
from hfsuite.tracking import store
from tests.ranks import numbers_in_ranks as ranks

GLOBAL_BATCH, ROWS = 16, 70  # an epoch ends with a batch of six


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, **settings: Any) -> Trainer:
    world = ray.train.get_context().get_world_size()
    arguments = TrainingArguments(
        "out", num_train_epochs=2, learning_rate=5e-3, per_device_eval_batch_size=settings["eval_batch"],
        per_device_train_batch_size=GLOBAL_BATCH // world // settings["accumulation"], seed=settings["seed"],
        gradient_accumulation_steps=settings["accumulation"], train_sampling_strategy="group_by_length",
        logging_strategy="steps", eval_strategy="steps", logging_steps=5, eval_steps=5, save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
    )  # fmt: skip
    return ranks.NotingTrainer(
        ranks.classifier(), arguments, train_dataset=ranks.sentences(ROWS), eval_dataset=ranks.sentences(50, seed=2),
        data_collator=ranks.padded,
    )  # fmt: skip


def experiment(workers: int, accumulation: list[int]) -> Experiment:
    return Experiment(
        name="equal",
        trainer=TransformersTrainer(trainer_init_per_worker, scaling_config=ScalingConfig(num_workers=workers)),
        space={"eval_batch": tune.grid_search([4, 8]), "accumulation": tune.grid_search(accumulation)},
        metric="eval_loss",
        mode="min",
        defaults={"eval_batch": 4, "accumulation": 1, "seed": 3},
    )


@pytest.mark.slow
def test_eight_trials_of_one_configuration_have_the_same_numbers_in_mlflow() -> None:
    curves = []
    for workers, accumulation in ((1, [1, 2]), (2, [1]), (4, [1])):
        result = experiment(workers, accumulation).sweep(
            searcher="grid", trial_scheduler="fifo", seed=0, set={"seed": 3}, name=f"equal-{workers}"
        )
        client = store.open_store()
        for trial in result.trials:
            found = {}
            for name in ("loss", "eval_loss", "samples", "learning_rate"):
                points = client.get_metric_history(trial.run_id, name)
                found[name] = [each.value for each in sorted(points, key=lambda each: each.step)]
            curves.append(found)
    first, *others = curves
    assert len(others) == 7
    assert len(first["loss"]) == len(first["eval_loss"]) == 2
    assert first["samples"] == [ROWS, 2 * ROWS]
    for each in others:
        for name, values in first.items():
            assert each[name] == pytest.approx(values, abs=1e-5), name
