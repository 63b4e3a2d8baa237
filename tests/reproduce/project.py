"""A project of somebody's, in a folder of its own: an experiment in a repository, and its rows in a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = '''"""A line, fitted to rows of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from ray import tune
from ray.train import Checkpoint, ScalingConfig
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, TensorDataset

from hfsuite import AccelerateTrainer, Experiment, Seeds, TransformersCheckpoint, split_batch

DEFAULTS = {"lr": 0.05, "epochs": 4, "global_batch_size": 16, "saves": True, "seed": 0}
ROWS = Path("@ROWS@")
LARGEST = 16  # rows at once


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))


def loop(settings: dict[str, Any]) -> None:
    seeds = Seeds(settings["seed"])
    batch = split_batch(
        settings["global_batch_size"], ray.train.get_context().get_world_size(), largest_per_device=LARGEST
    )
    accelerator = Accelerator(gradient_accumulation_steps=batch.accumulation)
    rows = torch.tensor(np.loadtxt(ROWS, delimiter=",", dtype=np.float32))
    torch.manual_seed(seeds.initial_weights)
    order = torch.Generator().manual_seed(seeds.data_order)
    loader = DataLoader(TensorDataset(rows[:, :4], rows[:, 4:]), batch.per_device, shuffle=True, generator=order)
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings["lr"])
    net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    step = 0
    for epoch in range(settings["epochs"]):
        for x, y in loader:
            with accelerator.accumulate(net):
                loss = torch.nn.functional.mse_loss(net(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                step += accelerator.sync_gradients
        kept = None
        with tempfile.TemporaryDirectory() as folder:
            if accelerator.is_main_process and settings["saves"]:
                save_file(accelerator.unwrap_model(net).state_dict(), Path(folder, "model.safetensors"))
                kept = Checkpoint.from_directory(folder)
            metrics = {"loss": rated(accelerator.unwrap_model(net), rows), "step": step, "epoch": epoch + 1}
            ray.train.report(metrics, checkpoint=kept)


@torch.no_grad()
def rated(net: torch.nn.Module, rows: torch.Tensor) -> float:
    net.eval()
    loss = torch.nn.functional.mse_loss(net(rows[:, :4]), rows[:, 4:])
    net.train()
    return float(loss)


def test(checkpoint: TransformersCheckpoint, settings: dict[str, Any]) -> dict[str, float]:
    net = model()
    with checkpoint.as_directory() as folder:
        net.load_state_dict(load_file(Path(folder, "model.safetensors")))
    return {"loss": rated(net, torch.tensor(np.loadtxt(ROWS, delimiter=",", dtype=np.float32)))}


experiment = Experiment(
    name="line",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1)),
    space={"lr": tune.loguniform(1e-3, 1e-1)},
    metric="loss",
    mode="min",
    defaults=DEFAULTS,
    test=test,
)
'''


def make(folder: Path) -> Path:
    """The project, committed; returns the file of its experiment, the module `line`."""
    import numpy as np

    folder.mkdir()
    draw = np.random.default_rng(1)
    x = draw.normal(size=(64, 4))
    rows = np.hstack([x, (x @ [1.0, -2.0, 0.5, 0.0])[:, None] + 0.1 * draw.normal(size=(64, 1))])
    np.savetxt(folder / "rows.csv", rows, delimiter=",")
    source = folder / "line.py"
    source.write_text(SOURCE.replace("@ROWS@", str(folder / "rows.csv")), encoding="utf-8")
    git(folder, "init", "-b", "trunk")
    commit(folder, "first")
    return source


def commit(folder: Path, message: str) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "-m", message)


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
