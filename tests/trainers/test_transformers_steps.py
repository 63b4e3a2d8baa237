"""Training by steps: which intervals are refused, and how many reports the others make."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from ray.train import TrainingFailedError

from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from tests.trainers.training import checkpoints, ray_datasets, steps_per_epoch, transformers_trainer

EPOCHS = 4
REPRESENTATIVE = {(3, 2, 1): (), (2, 2, 2): pytest.mark.slow}  # one refused, one that saves and resumes


def grid() -> list[Any]:
    """Every case of save_steps, logging_steps and workers; those that are not representative are marked `grid`."""
    return [
        pytest.param(*case, marks=REPRESENTATIVE.get(case, pytest.mark.grid))
        for case in itertools.product([0, 2, 3, 8, 12], [2, 3, 8, 12], [1, 2])
    ]


def reports_between(first_step: int, last_step: int, logging_steps: int) -> int:
    """Transformers logs at multiples of `logging_steps`; the last step is always logged."""
    return sum(step % logging_steps == 0 or step == last_step for step in range(first_step, last_step + 1))


@pytest.mark.parametrize(("save_steps", "logging_steps", "workers"), grid())
def test_four_epochs_then_a_fifth_by_steps(tmp_path: Path, save_steps: int, logging_steps: int, workers: int) -> None:
    config = {
        "logging_strategy": "steps",
        "eval_strategy": "steps",
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or 500,
        "logging_steps": logging_steps,
    }
    trainer = transformers_trainer(tmp_path, {"epochs": EPOCHS, **config}, workers=workers, datasets=ray_datasets())
    if save_steps and (save_steps < logging_steps or save_steps % logging_steps):
        with pytest.raises(TrainingFailedError) as raised:
            trainer.fit()
        assert isinstance(raised.value.__cause__, ValueError)
        assert f"save_steps={save_steps}, logging_steps={logging_steps}" in str(raised.value.__cause__)
        return
    result = trainer.fit()

    steps = steps_per_epoch(workers)
    assert result.metrics["epoch"] == EPOCHS
    assert result.metrics["step"] == EPOCHS * steps
    assert result.metrics["training_iteration"] == math.ceil(EPOCHS * steps / logging_steps)
    assert "eval_loss" in result.metrics
    assert isinstance(result.checkpoint, TransformersCheckpoint)
    saves = reports_between(1, EPOCHS * steps, save_steps) if save_steps else 1
    assert len(checkpoints(result.path)) == saves

    fifth = transformers_trainer(
        tmp_path,
        {"epochs": EPOCHS + 1, **config},
        workers=workers,
        datasets=ray_datasets(),
        resume_from=result.checkpoint,
    ).fit()

    first, last = EPOCHS * steps + 1, (EPOCHS + 1) * steps
    assert fifth.metrics["epoch"] == EPOCHS + 1
    assert fifth.metrics["step"] == last
    assert fifth.metrics["training_iteration"] == reports_between(first, last, logging_steps)
    assert "eval_loss" in fifth.metrics
    assert isinstance(fifth.checkpoint, TransformersCheckpoint)
