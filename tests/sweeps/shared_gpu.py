"""An experiment for tests of trials that share a GPU, on a machine without one: what a rank would see of it is made up.

A step takes the GPU for a part of its time, alone: so many such trials are faster together until that is used up.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train.torch
import torch
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from ray.train.torch import TorchConfig

from hfsuite import AccelerateTrainer, Experiment
from hfsuite.ranks import pace
from hfsuite.ranks.pace import Gpu

GIGABYTE = 1 << 30
if not torch.cuda.is_available():  # Ray names the GPU that it has given a rank, whether or not there is one
    ray.train.torch.get_device = lambda: torch.device("cpu")


def loop(settings: dict[str, Any]) -> None:
    """Trains one number, with what a GPU would do made up."""
    busy, rows = settings["busy"], settings["batch_size"]
    held, peak = GIGABYTE, int((1 + settings["gigabytes"] * rows / 8) * GIGABYTE)
    gpu_name = f"GPU-{ray.get_runtime_context().get_accelerator_ids()['GPU'][0]}"
    folder = Path(settings["folder"], gpu_name)
    folder.mkdir(exist_ok=True)
    context = ray.train.get_context()
    with Path(settings["folder"], "ranks").open("a") as ranks:
        ranks.write(f"{context.get_experiment_name()} {context.get_world_rank()} {gpu_name}\n")
    mine = folder / f"running-{os.getpid()}"
    mine.write_text(str(peak))

    def taken() -> list[int]:
        return [int(each.read_text() or 0) for each in folder.glob("running-*")]

    total = settings["total"] * GIGABYTE
    pace.read_gpu = lambda device, _: Gpu(gpu_name, held, peak, sum(taken()) + GIGABYTE, total, busy)
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=settings["lr"])
    first = 0
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as directory:
            weight.data, first = torch.load(Path(directory, "state.pt"))
    try:
        for step in range(first + 1, settings["steps"] + 1):
            time.sleep(settings["step_s"] * (1 - busy))
            with (folder / "gpu").open("w") as gpu:
                fcntl.flock(gpu, fcntl.LOCK_EX)
                time.sleep(settings["step_s"] * busy)
            if sum(there := taken()) > total and peak == max(there):
                mine.unlink()
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            optimizer.zero_grad()
            ((weight - 1) ** 2).backward()
            optimizer.step()
            if step % settings["every"] == 0:
                with tempfile.TemporaryDirectory() as directory:
                    saved = None
                    if settings["saves"] and context.get_world_rank() == 0:
                        torch.save((weight.data, step), Path(directory, "state.pt"))
                        saved = Checkpoint.from_directory(directory)
                    ray.train.report({"loss": float((weight.detach() - 1) ** 2), "step": step}, checkpoint=saved)
    finally:
        mine.unlink(missing_ok=True)


experiment = Experiment(
    name="shared",
    trainer=AccelerateTrainer(
        loop,
        accelerate_config={},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=1, use_gpu=True),
    ),
    space={"lr": tune.loguniform(1e-3, 1e-1)},
    metric="loss",
    mode="min",
    defaults={
        "lr": 1e-2, "steps": 60, "every": 30, "step_s": 0.1, "busy": 0.2, "batch_size": 8, "gigabytes": 1.0,
        "total": 40, "folder": "/tmp", "saves": False,
    },
)  # fmt: skip
