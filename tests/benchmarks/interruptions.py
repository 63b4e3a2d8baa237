"""What the other threads of its process take from the thread that trains: a loop in Python alone notices each."""

from __future__ import annotations

import os
import time
from typing import Any

import ray.train
from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from tests.benchmarks.workload import note

A_GAP_S = 50e-6  # without one, a turn of the loop takes a hundredth of it


def spin(seconds: float) -> None:
    """Writes down how many seconds it stood still, of so many."""
    last = time.perf_counter()
    end, lost = last + seconds, 0.0
    while last < end:
        now = time.perf_counter()
        if now - last > A_GAP_S:
            lost += now - last
        last = now
    note("spun", lost=lost, seconds=seconds)


def loop(settings: dict[str, Any]) -> None:
    """What a rank runs."""
    os.environ["BENCH_DIARY"] = settings["diary"]
    spin(settings["seconds"])
    ray.train.report({"loss": 0.0})


experiment = Experiment(
    name="bench-interruptions",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
    space={"lr": tune.loguniform(1e-4, 1e-1)},
    metric="loss",
    mode="min",
    defaults={"lr": 1e-3, "seconds": 1, "diary": ""},
)
