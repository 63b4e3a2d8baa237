"""TransformersTrainer as the trials of `ray.tune.Tuner`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train import Checkpoint
from ray.tune import ResultGrid
from ray.tune.schedulers import ASHAScheduler, ResourceChangingScheduler
from ray.tune.schedulers.resource_changing_scheduler import DistributeResources
from transformers import AutoModelForCausalLM

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.trainers.transformers import TransformersTrainer
from tests.tiny import train_function, train_function_local_dataset
from tests.trainers.training import ray_datasets, transformers_trainer

EPOCHS = 5
SAMPLES = 3


def tuned(trainer: TransformersTrainer, directory: Path, scheduler: Any) -> ResultGrid:
    return tune.Tuner(
        trainer.as_trainable(),
        param_space={
            "trainer_init_config": {
                "learning_rate": tune.loguniform(2e-6, 2e-5),
                "epochs": EPOCHS,
                "save_strategy": "epoch",
            }
        },
        tune_config=tune.TuneConfig(metric="eval_loss", mode="min", num_samples=SAMPLES, scheduler=scheduler),
        run_config=tune.RunConfig(name="tuned", storage_path=str(directory), verbose=0),
    ).fit()


def check(grid: ResultGrid, directory: Path) -> None:
    """No trial failed, and each ends with a report and a checkpoint that belong together."""
    assert not grid.errors
    assert len(grid) == SAMPLES
    assert grid.get_best_result().metrics["training_iteration"] == EPOCHS
    for result in grid:
        epoch = result.metrics["epoch"]
        assert result.metrics["training_iteration"] == epoch  # one report each
        assert epoch == EPOCHS or epoch in (1, 4)  # where ASHA stops trials
        assert "eval_loss" in result.metrics
        assert Path(result.checkpoint.path).parent == Path(result.path)
        assert directory in Path(result.path).parents
        stored = manifest.verify(Checkpoint(result.checkpoint.path))
        assert stored["epoch"] == epoch
        model = TransformersCheckpoint(result.checkpoint.path).get_model(AutoModelForCausalLM)
        assert model.config.n_embd == 16


@pytest.mark.slow
@pytest.mark.parametrize("data", ["ray", "local"])
def test_asha_over_learning_rates(tmp_path: Path, data: str) -> None:
    datasets, function = (ray_datasets(), train_function) if data == "ray" else (None, train_function_local_dataset)
    trainer = transformers_trainer(tmp_path, {}, workers=1, function=function, datasets=datasets)
    check(tuned(trainer, tmp_path, ASHAScheduler(max_t=EPOCHS)), tmp_path)


@pytest.mark.slow
def test_two_workers_a_trial_fill_the_cluster(tmp_path: Path) -> None:
    """Two trials take all four CPUs: Ray Data gets none, and still nothing hangs."""
    trainer = transformers_trainer(tmp_path, {}, workers=2, datasets=ray_datasets())
    check(tuned(trainer, tmp_path, ASHAScheduler(max_t=EPOCHS)), tmp_path)


@pytest.mark.slow
def test_resource_changing_scheduler(tmp_path: Path) -> None:
    scheduler = ResourceChangingScheduler(
        ASHAScheduler(max_t=EPOCHS),
        resources_allocation_function=DistributeResources(add_bundles=True, reserve_resources={"CPU": 1}),
    )
    trainer = transformers_trainer(tmp_path, {}, workers=1, datasets=ray_datasets())
    grid = tuned(trainer, tmp_path, scheduler)
    assert not grid.errors
    assert len(grid) == SAMPLES
    for result in grid:
        stored = manifest.verify(Checkpoint(result.checkpoint.path))
        assert stored["epoch"] == result.metrics["epoch"]
        assert stored["world_size"] >= 1
