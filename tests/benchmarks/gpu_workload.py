"""What is trained on GPUs, whoever starts it: a model of MiniLM's size under DDP, the same function for all ways."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import Any

from ray import tune
from ray.train import ScalingConfig

from hfsuite import AccelerateTrainer, Experiment
from tests.benchmarks.workload import Report, note

STEPS, REPORTS = 200, 4  # 4 to 6 s on two H100, as fast as its CPUs are


def train(
    lr: float, device: Any, report: Report,
    *, steps: int = STEPS, reports: int = REPORTS, rows: int = 32, pause_s: float = 0.0, in_turns_as: str = "",
) -> None:  # fmt: skip
    """22.7 M parameters, so many rows of 64 tokens a rank and step, in the process group of the caller."""
    import torch
    from torch.nn.parallel import DistributedDataParallel
    from transformers import BertConfig, BertForSequenceClassification

    note("begins", way=in_turns_as)
    if in_turns_as:
        from tests.benchmarks.turns import take_turn

        take_turn(in_turns_as)
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    with torch.device(device):
        model = DistributedDataParallel(BertForSequenceClassification(config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    tokens = torch.randint(0, 30_000, (rows, 64), device=device)
    labels = tokens[:, 0] % 2
    for step in range(1, steps + 1):
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(pause_s)
        if step == 1:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            note("first step", way=in_turns_as)
        if step % (steps // reports) == 0:
            report({"loss": float(loss.detach()), "step": step, "training_finished": step == steps})
    note("ends", way=in_turns_as)


def loop(settings: dict[str, Any]) -> None:
    """What a rank of a trial runs."""
    import ray.train.torch

    os.environ["BENCH_DIARY"] = settings["diary"]
    device, report = ray.train.torch.get_device(), ray.train.report
    own = {name: settings[name] for name in ("steps", "rows", "pause_s", "in_turns_as")}
    train(settings["lr"], device, report, **own)


experiment = Experiment(
    name="bench-gpu",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2, use_gpu=True)),
    space={"lr": tune.loguniform(1e-5, 1e-4)},
    metric="loss",
    mode="min",
    defaults={"lr": 1e-5, "steps": STEPS, "rows": 32, "pause_s": 0.0, "in_turns_as": "", "diary": ""},
)
of_mixed_sizes = dataclasses.replace(  # 1 to 30 GB each
    experiment, name="bench-gpu-mixed", space={**experiment.space, "rows": tune.choice([32, 128, 512, 1024])}
)


def rank(lr: float, trials: int, steps: int, in_turns_as: str = "") -> None:
    """What a rank of `torchrun` runs: one trial, or one after another in the same process group."""
    import torch

    losses: list[float] = []
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl", device_id=device)
    else:
        device = torch.device("cpu")
        torch.distributed.init_process_group("gloo")
    for number in range(trials):
        rate, report = lr * (number + 1), lambda metrics: losses.append(metrics["loss"])
        train(rate, device, report, steps=steps, in_turns_as=in_turns_as)
    if in_turns_as:
        from tests.benchmarks.turns import give_turn

        give_turn(in_turns_as)  # the other one may have its last trial to do
    if torch.distributed.get_rank() == 0:
        print(losses[-1])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    rank(float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
