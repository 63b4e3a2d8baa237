"""A run that failed, and goes on from the newest complete checkpoint in its directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from transformers import TrainerCallback

from hfsuite import AccelerateTrainer
from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import ConfigurationError
from hfsuite.trainers.transformers import TransformersTrainer
from tests import toy
from tests.tiny import train_function, train_function_local_dataset
from tests.trainers.training import checkpoints, ray_datasets, transformers_trainer

STEPS = 2  # per epoch, with one worker


class PowerCut(Exception):
    """What ends a run in the middle of an epoch."""


class FailsOnce(TrainerCallback):  # type: ignore[misc]
    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2 * STEPS + 1 and not self.mark.exists():
            self.mark.touch()
            raise PowerCut("in the third epoch")


def failing_function(train_dataset: Any, eval_dataset: Any = None, *, mark: str, **config: Any) -> Any:
    build = train_function if train_dataset is not None else train_function_local_dataset
    trainer = build(train_dataset, eval_dataset, **config)
    trainer.add_callback(FailsOnce(mark))
    return trainer


def failed_run(directory: Path, datasets: Any = None) -> Path:
    """A run of four epochs that failed in its third, after two reports."""
    config = {"epochs": 4, "save_strategy": "epoch", "mark": str(directory / "failed")}
    trainer = transformers_trainer(directory, config, function=failing_function, datasets=datasets)
    with pytest.raises(TrainingFailedError) as raised:
        trainer.fit()
    assert isinstance(raised.value.__cause__, PowerCut)
    path = directory / "run_0"
    steps = [manifest.verify(TransformersCheckpoint(str(each)))["step"] for each in checkpoints(path)]
    assert steps == [STEPS, 2 * STEPS]
    return path


@pytest.mark.slow
def test_restored_run_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    path = failed_run(tmp_path)
    restored = TransformersTrainer.restore(str(path))
    result = restored.fit()
    assert result.path == str(path)
    assert (result.metrics["epoch"], result.metrics["step"]) == (4, 4 * STEPS)
    assert result.metrics["training_iteration"] == 2  # the third and fourth epochs
    assert isinstance(result.checkpoint, TransformersCheckpoint)
    assert manifest.verify(result.checkpoint)["step"] == 4 * STEPS


@pytest.mark.slow
def test_a_run_goes_on_although_the_checkpoint_it_once_started_from_is_gone(tmp_path: Path) -> None:
    first = toy.trainer(1, reports=1).fit()
    start = tmp_path / "start"
    shutil.copytree(first.checkpoint.path, start)
    trainer = AccelerateTrainer(
        toy.loop,
        train_loop_config=toy.DEFAULTS | {"fails_at": 3, "fails_once": str(tmp_path / "failed")},
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="second", storage_path=str(tmp_path)),
        resume_from_checkpoint=Checkpoint(str(start)),
    )
    with pytest.raises(TrainingFailedError):
        trainer.fit()
    shutil.rmtree(start)
    result = AccelerateTrainer.restore(str(tmp_path / "second"), toy.loop).fit()
    assert result.metrics["step"] == 30

    nothing_left = AccelerateTrainer.restore(str(tmp_path / "second")).fit()
    assert nothing_left.metrics["step"] == 30, "what was reported before is still known"
    assert manifest.verify(nothing_left.checkpoint)["step"] == 30


@pytest.mark.slow
def test_datasets_must_be_given_again_and_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    path = failed_run(tmp_path, ray_datasets())
    with pytest.raises(ConfigurationError, match=r"\['evaluation', 'train'\]"):
        TransformersTrainer.restore(str(path))
    with pytest.raises(ConfigurationError, match=r"\['evaluation'\]"):
        TransformersTrainer.restore(str(path), datasets={"train": ray_datasets()["train"]})

    (checkpoints(path)[-1] / "manifest.json").unlink()
    result = TransformersTrainer.restore(str(path), datasets=ray_datasets()).fit()
    assert (result.metrics["epoch"], result.metrics["step"]) == (4, 4 * STEPS)
    assert result.metrics["training_iteration"] == 3  # the second epoch again, whose checkpoint was damaged


@pytest.mark.slow
def test_retry_within_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    config = {"epochs": 4, "save_strategy": "epoch", "mark": str(tmp_path / "failed")}
    trainer = transformers_trainer(tmp_path, config, function=failing_function)
    trainer.run_config.failure_config = FailureConfig(max_failures=1)
    result = trainer.fit()
    steps = [manifest.verify(TransformersCheckpoint(str(each)))["step"] for each in checkpoints(result.path)]
    assert steps == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]  # no epoch was trained twice
    assert result.metrics["epoch"] == 4


def test_restore_of_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{tmp_path} is not the directory of a TransformersTrainer run"):
        TransformersTrainer.restore(str(tmp_path))


def test_restore_knows_what_can_be_given_again(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="run_config"):
        TransformersTrainer.restore(str(tmp_path), run_config=None)  # type: ignore[call-arg]
