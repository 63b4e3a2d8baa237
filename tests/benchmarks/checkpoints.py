"""What it costs to save and report a model's checkpoint, against saving it alone: in turn, in one trial."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.train import Checkpoint, CheckpointUploadMode, ScalingConfig
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from experiments import sentiment
from hfsuite import AccelerateTrainer, Experiment
from tests.benchmarks import workload


def loop(settings: dict[str, Any]) -> None:
    """Saves and throws away, then saves and reports, `count` times. Runs in every rank; rank 0 saves."""
    os.environ["BENCH_DIARY"] = settings["diary"]
    rank = ray.train.get_context().get_world_rank()
    model = model_of(settings["model"])
    for number in range(2 * settings["count"]):
        folder = Path(f"saved_{number}")
        began, before = time.perf_counter(), written()
        if number % 4 in (0, 3):  # alone first, then second: what one leaves in memory and caches helps the next
            if rank == 0:
                model.save_pretrained(folder)
                workload.note("saved", seconds=time.perf_counter() - began, bytes=written() - before)
                shutil.rmtree(folder)
            ray.train.report({"loss": 1.0, "step": number + 1})  # ranks in step again
            continue
        checkpoint = None
        if rank == 0:
            model.save_pretrained(folder)
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(
            {"loss": 1.0, "step": number + 1}, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True
        )
        workload.note("reported", every_rank=True, seconds=time.perf_counter() - began, bytes=written() - before)


def train_beside_uploads(settings: dict[str, Any]) -> None:
    """Saves and trains on, with and without an upload beside it that copies every byte. Runs in one rank."""
    os.environ["BENCH_DIARY"] = settings["diary"]
    device, model = ray.train.torch.get_device(), model_of(settings["model"])
    weights = torch.randn(settings["size"], settings["size"], device=device)
    uploaded = threading.Event()

    def copied(checkpoint: Checkpoint, name: str) -> Checkpoint:
        persisted: Checkpoint = storage.persist_current_checkpoint(checkpoint, name)
        uploaded.set()
        return persisted

    storage = ray.train.get_context().get_storage()
    for number in range(2 * settings["count"]):
        folder, is_reported = Path(f"saved_{number}"), number % 4 in (1, 2)
        began = time.perf_counter()
        model.save_pretrained(folder)
        if is_reported:
            uploaded.clear()
            ray.train.report(
                {"loss": 1.0, "step": number + 1}, checkpoint=Checkpoint.from_directory(folder),
                checkpoint_upload_mode=CheckpointUploadMode.ASYNC, checkpoint_upload_fn=copied,
            )  # fmt: skip
        for _ in range(settings["steps"]):
            torch.mm(weights, weights).sum().item()  # as a loss that is logged
        workload.note("round", seconds=time.perf_counter() - began, reported=is_reported, over=uploaded.is_set())
        assert not is_reported or uploaded.wait(120)
        shutil.rmtree(folder, ignore_errors=True)  # Ray Train may have


def model_of(name: str) -> Any:
    """MiniLM, or a decoder whose weights take two gigabytes."""
    if name == "minilm":
        return AutoModelForSequenceClassification.from_pretrained(sentiment.model_path("minilm"), num_labels=2)
    with torch.device(ray.train.torch.get_device()):
        return LlamaForCausalLM(
            LlamaConfig(hidden_size=1536, intermediate_size=6144, num_hidden_layers=12, num_attention_heads=12,
                        vocab_size=18_000)
        )  # fmt: skip


def written() -> int:
    """Bytes that this process has handed to files so far, its own output files and sockets included."""
    return int(psutil.Process().io_counters().write_chars)


experiment = Experiment(
    name="bench-checkpoints",
    trainer=AccelerateTrainer(loop, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2)),
    space={"unused": tune.uniform(0, 1)},
    metric="loss",
    mode="min",
    defaults={"unused": 0.0, "count": 10, "model": "minilm", "diary": ""},
)
beside_uploads = Experiment(
    name="bench-uploads",
    trainer=AccelerateTrainer(
        train_beside_uploads, accelerate_config={}, scaling_config=ScalingConfig(num_workers=1, use_gpu=True)
    ),
    space={"unused": tune.uniform(0, 1)},
    metric="loss",
    mode="min",
    defaults={"unused": 0.0, "count": 5, "model": "2 GB", "size": 4096, "steps": 1_500, "diary": ""},
)
