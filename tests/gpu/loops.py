"""A training loop on GPUs that says where it runs and what it holds, and misbehaves if it is asked to."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from ray.train.torch import TorchConfig

from hfsuite import AccelerateTrainer, Experiment

DEFAULTS = {
    "x": 1.0,
    "steps": 4,
    "seconds": 0.0,  # of each step, at least
    "megabytes": 200,  # held on each GPU
    "does": "",  # "runs out of memory" or "hangs", in the middle
    "diary": "",
    "seed": 0,
}
TIMEOUT_S = 20


def loop(settings: dict[str, Any]) -> None:
    """A report with a checkpoint after each step; the loss follows from `x` and from how far others had come."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16")
    rank, device = accelerator.process_index, accelerator.device
    note(settings, "begins", device=str(device), of_ray=str(ray.train.torch.get_device()), gpu=gpu_of(device),
         local_rank=ray.train.get_context().get_local_rank(), backend=torch.distributed.get_backend(),
         used_mb=used_mb(device))  # fmt: skip
    torch.manual_seed(settings["seed"])
    layer = torch.nn.Linear(64, 64)
    inside: list[str] = []  # what type the layer computes in; what the model hands out is float32 again
    layer.register_forward_hook(lambda _, __, output: inside.append(str(output.dtype)))
    model = torch.nn.Sequential(layer)
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    ballast = torch.ones(settings["megabytes"] << 18, device=device)
    first, score = 0, 0.0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as directory:
            state = json.loads(Path(directory, "state.json").read_text())
        first, score = state["step"], state["score"]
        note(settings, "resumes", step=first, score=score, path=checkpoint.path)
    for step in range(first + 1, settings["steps"] + 1):
        if step == 2:
            misbehave(settings["does"], rank, device)
        loss = (model(torch.ones(8, 64, device=device)) * ballast[:64]).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(settings["seconds"])
        score += settings["x"]
        note(settings, "trained", step=step, score=score, computed_in=inside[-1])
        shared = accelerator.reduce(torch.tensor(1 / score, device=device), "mean")
        with tempfile.TemporaryDirectory(dir=".") as directory:
            kept = None
            if rank == 0:
                Path(directory, "state.json").write_text(json.dumps({"step": step, "score": score}))
                kept = Checkpoint.from_directory(directory)
            ray.train.report({"loss": float(shared), "step": step}, checkpoint=kept)
    note(settings, "ends", used_mb=used_mb(device))


def misbehave(how: str, rank: int, device: Any) -> None:
    import torch

    if how == "runs out of memory":
        torch.ones(1 << 40, device=device)
    if how == "hangs":
        if rank == 1:
            time.sleep(3600)  # never comes to the collective: only the timeout of its peer, and then a kill, end it
        torch.distributed.all_reduce(torch.ones(1, device=device))
        torch.cuda.synchronize()


def gpu_of(device: Any) -> str:
    """Which piece of hardware it is, whatever this process calls it."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def used_mb(device: Any) -> float:
    """Of the whole GPU, whoever uses it."""
    import torch

    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e6


def note(settings: dict[str, Any], event: str, **values: Any) -> None:
    """Every rank writes down what happened."""
    context = ray.train.get_context()
    entry = {"event": event, "at": time.time(), "rank": context.get_world_rank(), "pid": os.getpid(),
             "trial": context.get_experiment_name(), "x": settings["x"], **values}  # fmt: skip
    with open(settings["diary"], "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read(diary: Path, event: str) -> list[dict[str, Any]]:
    """What ranks wrote down of an event, in order."""
    return [entry for line in diary.read_text().splitlines() if (entry := json.loads(line))["event"] == event]


experiment = Experiment(
    name="gpu-loop",
    trainer=AccelerateTrainer(
        loop,
        accelerate_config={},
        torch_config=TorchConfig(timeout_s=TIMEOUT_S),
        scaling_config=ScalingConfig(num_workers=2, use_gpu=True),
    ),
    space={"x": tune.uniform(0.5, 2.0)},
    metric="loss",
    mode="min",
    defaults=DEFAULTS,
)
