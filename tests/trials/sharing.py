"""A training function whose ranks agree through Ray's collectives, and each save their part of a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
from ray.train import Checkpoint, CheckpointUploadMode, ScalingConfig

from hfsuite import AccelerateTrainer
from hfsuite.ranks.upload import moved


def loop(settings: dict[str, Any]) -> None:
    """Two reports, each with a checkpoint of which every rank hands over a file."""
    rank = ray.train.get_context().get_world_rank()
    for step in (1, 2):
        agreed = ray.train.collective.broadcast_from_rank_zero({"x": settings["x"] * step} if rank == 0 else None)
        ray.train.collective.barrier()
        folder = Path(f"saved_by_{rank}_at_{step}")  # an earlier one may be on its way
        folder.mkdir(exist_ok=True)
        (folder / f"part_{rank}").write_text(f"{agreed['x']}")
        ray.train.report(
            {"loss": 1.0, "step": step, "agreed": agreed["x"]},
            checkpoint=Checkpoint.from_directory(folder),
            delete_local_checkpoint_after_upload=settings["given_away"],
            checkpoint_upload_mode=CheckpointUploadMode[settings["mode"]],
            checkpoint_upload_fn=slowly if settings["mode"] == "ASYNC" else None,
        )


def slowly(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """An upload that takes longer than what is left of the training."""
    time.sleep(0.5)
    return moved(checkpoint, name)


def trainer() -> AccelerateTrainer:
    return AccelerateTrainer(
        loop,
        train_loop_config={"x": 1, "given_away": False, "mode": "SYNC"},
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=2),
    )
