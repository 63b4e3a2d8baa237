"""An experiment that costs nothing but its workers: a loop with Accelerate whose loss follows from its settings."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray import tune
from ray.train import Checkpoint, ScalingConfig

from hfsuite import AccelerateTrainer, Experiment

DEFAULTS = {
    "x": 1.0,
    "kind": "plain",
    "reports": 3,
    "checkpoints": True,
    "fails_at": 0,  # the report before which rank 1 raises; 0 is never
    "fails_by": "raise",  # or exit, sigkill, watchdog, unpicklable
    "fails_once": "",  # a file that the failing rank leaves behind, so that it fails only once
    "says_when_finished": False,
    "measures_every": 1,  # reports between two that carry the loss; the first does
    "diary": "",  # a file to which every rank appends a line for each step
    "seed": 0,
}


def loop(settings: dict[str, Any]) -> None:
    """One step a report. The loss falls by a tenth each step up to the second last, then it rises: best is not last."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator()
    rank, world_size = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(settings["seed"])
    first = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as directory:
            first = json.loads(Path(directory, "state.json").read_text())["step"]
    for step in range(first + 1, settings["reports"] + 1):
        note(settings["diary"], {"step": step, "rank": rank, "x": settings["x"], "resumed_from": first})
        fail_if_asked(settings, step, rank, world_size)
        noise = torch.rand(()).item() * 1e-3
        loss = torch.tensor(settings["x"] ** 2 * curve(step, settings["reports"]) + noise)
        shared = accelerator.reduce(loss, "mean")
        metrics = {"loss": np.float32(shared), "step": step * 10, "epoch": np.int64(step), "world_size": world_size}
        if (step - 1) % settings["measures_every"]:
            del metrics["loss"]
        if settings["says_when_finished"]:
            metrics["training_finished"] = step == settings["reports"]
        with tempfile.TemporaryDirectory() as directory:
            kept = None
            if rank == 0 and settings["checkpoints"]:
                Path(directory, "state.json").write_text(json.dumps({"step": step}))
                kept = Checkpoint.from_directory(directory)
            ray.train.report(metrics, checkpoint=kept)
    note(settings["diary"], {"returned": True, "rank": rank})


def curve(step: int, steps: int) -> float:
    return 0.9**step if step < steps or steps < 3 else 0.95


def fail_if_asked(settings: dict[str, Any], step: int, rank: int, world_size: int) -> None:
    marker = settings["fails_once"]
    if step != settings["fails_at"] or rank != world_size - 1 or (marker and os.path.exists(marker)):
        return
    if marker:
        Path(marker).touch()
    match settings["fails_by"]:
        case "exit":
            os._exit(3)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "watchdog":
            os.write(2, TIMED_OUT)
            os.abort()
        case "unpicklable":
            raise Unpicklable("asked to fail")
    raise ArithmeticError(f"asked to fail at step {step}")


# What PyTorch prints, from C++, before it aborts.
TIMED_OUT = (
    b"[rank1]:[E321 02:07:08.408271 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation timeout: "
    b"WorkNCCL(SeqNum=15, OpType=ALLREDUCE, Timeout(ms)=20000) ran for 20004 milliseconds before timing out.\n"
)


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("this exception does not travel")


def note(diary: str, entry: dict[str, Any]) -> None:
    if diary:
        with open(diary, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry | {"at": time.time(), "pid": os.getpid()}) + "\n")


def read(diary: Path, having: str = "step") -> list[dict[str, Any]]:
    """The entries of all ranks about their steps, or about their return."""
    return [entry for line in diary.read_text().splitlines() if having in (entry := json.loads(line))]


def trainer(workers: int = 2, **config: Any) -> AccelerateTrainer:
    return AccelerateTrainer(
        loop,
        train_loop_config=DEFAULTS | config,
        accelerate_config={},
        scaling_config=ScalingConfig(num_workers=workers),
    )


experiment = Experiment(
    name="toy",
    trainer=trainer(),
    space={"x": tune.uniform(0.5, 2.0), "kind": tune.choice(["plain", "fancy"])},
    metric="loss",
    mode="min",
    defaults=DEFAULTS,
    progress=["epoch"],
)
