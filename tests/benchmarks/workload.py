"""The training that all ways of running trials are measured with: the same function, with another `report`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import psutil
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment

STEPS, REPORTS = 240, 4
Report = Callable[[dict[str, Any]], None]


def train(lr: float, report: Report, *, steps: int = STEPS, reports: int = REPORTS) -> None:
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
        if step % (steps // reports) == 0:
            began = time.perf_counter()
            report({"loss": float(loss.detach()), "step": step, "training_finished": step == steps})
            note("report", seconds=time.perf_counter() - began, step=step)
    note("ends", memory=psutil.Process().memory_info().rss)


def note(event: str, **values: Any) -> None:
    """Rank 0 writes down when something happened."""
    if (diary := os.environ.get("BENCH_DIARY")) and os.environ.get("RANK", "0") == "0":
        with open(diary, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **values}) + "\n")


def loop(settings: dict[str, Any]) -> None:
    """What a rank of ours runs."""
    import ray.train

    os.environ["BENCH_DIARY"] = settings["diary"]
    train(settings["lr"], ray.train.report, steps=settings["steps"], reports=settings["reports"])


experiment = Experiment(
    name="bench",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2)),
    space={"lr": tune.loguniform(1e-4, 1e-1)},
    metric="loss",
    mode="min",
    defaults={"lr": 1e-3, "steps": STEPS, "reports": REPORTS, "diary": ""},
)
