"""The training that all ways of running trials are measured with: the same function, with another `report`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment

STEPS, REPORTS = 240, 4
Report = Callable[[dict[str, Any]], None]


def train(lr: float, report: Report, *, steps: int = STEPS, reports: int = REPORTS, trace: bool = False) -> None:
    """A small model under DistributedDataParallel, in the process group of the caller: about 0.4 s on one thread."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    note("begins")
    torch.manual_seed(0)
    model = DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    rows = torch.randn(32, 64)
    labels = (rows.sum(1) > 0).long()
    for step in range(1, steps + 1):
        loss = torch.nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 1:
            note("first step")
        if trace:
            note("trained", step=step)
        if step % (steps // reports) == 0:
            began = time.perf_counter()
            report({"loss": float(loss.detach()), "step": step, "training_finished": step == steps})
            note("report", seconds=time.perf_counter() - began, step=step)
    note("ends")


def note(event: str, *, every_rank: bool = False, **values: Any) -> None:
    """Rank 0, or the driver, writes down when something happened."""
    rank = int(os.environ.get("RANK", "0"))
    if (diary := os.environ.get("BENCH_DIARY")) and (every_rank or rank == 0):
        with open(diary, "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"event": event, "at": time.time(), "rank": rank, "process": os.getpid(), **values}) + "\n"
            )


def loop(settings: dict[str, Any]) -> None:
    """What a rank of ours runs."""
    import ray.train

    os.environ["BENCH_DIARY"] = settings["diary"]
    train(
        settings["lr"],
        ray.train.report,
        steps=settings["steps"],
        reports=settings["reports"],
        trace=settings["trace"],
    )


experiment = Experiment(
    name="bench",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2)),
    space={"lr": tune.loguniform(1e-4, 1e-1)},
    metric="loss",
    mode="min",
    defaults={"lr": 1e-3, "steps": STEPS, "reports": REPORTS, "trace": False, "diary": ""},
)


def rank(folder: Path, lr: float, trials: int) -> None:
    """What a rank of `torchrun` runs: one trial, or one after another in the same process group."""
    import torch

    losses: list[float] = []
    torch.distributed.init_process_group("gloo")
    for number in range(trials):
        train(lr * (number + 1), lambda metrics: losses.append(metrics["loss"]))
    if torch.distributed.get_rank() == 0:
        print(losses[-1])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    rank(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
