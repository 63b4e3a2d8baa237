"""Trainers on the tiny model, and what their tests count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.data
from ray.data import Dataset
from ray.train import Checkpoint, RunConfig, ScalingConfig

from hfsuite.trainers.transformers import TransformersTrainer
from tests.tiny import ROWS, token_frame, train_function

BATCH_SIZE = 8  # the default of TrainingArguments, per worker


def ray_datasets() -> dict[str, Dataset]:
    return {"train": ray.data.from_pandas(token_frame()), "evaluation": ray.data.from_pandas(token_frame(seed=1))}


def transformers_trainer(
    directory: Path,
    config: dict[str, Any],
    *,
    workers: int = 1,
    function: Any = train_function,
    datasets: dict[str, Dataset] | None = None,
    resume_from: Checkpoint | None = None,
) -> TransformersTrainer:
    """A run in a directory of its own under `directory`."""
    number = len(list(directory.glob("run_*")))
    return TransformersTrainer(
        function,
        trainer_init_config=config,
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(name=f"run_{number}", storage_path=str(directory)),
        datasets=datasets,
        resume_from_checkpoint=resume_from,
    )


def steps_per_epoch(workers: int) -> int:
    return ROWS // (BATCH_SIZE * workers)


def checkpoints(path: str | Path) -> list[Path]:
    """The checkpoints that a run left on storage, oldest first."""
    return sorted(each for each in Path(path).glob("checkpoint_*") if each.is_dir())
