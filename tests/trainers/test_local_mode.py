"""No workers (`num_workers=0`): the same training function in the driver's own process, to debug it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import ConfigurationError
from tests import toy
from tests.tiny import train_function_local_dataset
from tests.trainers.training import transformers_trainer


def test_a_training_in_the_drivers_process_ends_with_a_sealed_checkpoint(tmp_path: Path) -> None:
    config = {"epochs": 2, "save_strategy": "epoch"}
    result = transformers_trainer(tmp_path, config, workers=0, function=train_function_local_dataset).fit()
    assert (result.metrics["epoch"], result.metrics["training_iteration"]) == (2, 2)
    assert isinstance(result.checkpoint, TransformersCheckpoint)
    assert manifest.verify(result.checkpoint)["epoch"] == 2


def test_a_training_that_an_evaluation_stops_is_saved(tmp_path: Path) -> None:
    """Early stopping speaks after the evaluation, when the end of the epoch has passed."""

    def function(train_dataset: None, eval_dataset: None, **config: Any) -> Any:
        trainer = train_function_local_dataset(train_dataset, eval_dataset, **config)
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1))
        return trainer

    config = {"epochs": 5, "metric_for_best_model": "eval_loss", "greater_is_better": False, "learning_rate": 1e-2}
    result = transformers_trainer(tmp_path, config, workers=0, function=function).fit()
    assert result.metrics["epoch"] < 5, "random tokens cannot be learned"
    assert result.checkpoint is not None
    assert manifest.verify(result.checkpoint)["epoch"] == result.metrics["epoch"]


def test_a_loop_in_the_drivers_process_reports(own_directory: Path) -> None:
    result = toy.trainer(0, reports=2, checkpoints=False).fit()
    assert (result.metrics["step"], result.metrics["world_size"]) == (20, 1)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("evaluation_strategy", "eval_strategy", "epoch"), ("no_cuda", "use_cpu", True)],
)
def test_a_renamed_argument_of_transformers_is_explained(tmp_path: Path, old: str, new: str, value: Any) -> None:
    trainer = transformers_trainer(tmp_path, {old: value}, workers=0, function=train_function_local_dataset)
    with pytest.raises(ConfigurationError, match=f"renamed `{old}`: write `{new}` in TrainingArguments"):
        trainer.fit()


def test_another_unexpected_argument_is_transformers_own_error(tmp_path: Path) -> None:
    trainer = transformers_trainer(tmp_path, {"nonsense": 1}, workers=0, function=train_function_local_dataset)
    with pytest.raises(TypeError, match="nonsense"):
        trainer.fit()
