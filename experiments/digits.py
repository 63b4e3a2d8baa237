"""Handwritten digits: a small vision transformer from scratch, in a loop written with Accelerate.

    python -m experiments.digits --trials 8        or        hfsuite sweep experiments.digits --trials 8

The 1,797 images of 8 x 8 pixels come with scikit-learn.
"""

from __future__ import annotations

import functools
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from ray.train import Checkpoint, ScalingConfig
from torch.utils.data import DataLoader, TensorDataset
from transformers import ViTConfig, ViTForImageClassification, get_scheduler

from hfsuite import AccelerateTrainer, Experiment, Seeds, TransformersCheckpoint, split_batch
from hfsuite.errors import ConfigurationError
from search_spaces import vision

DEFAULTS = {
    "hidden_size": 64,
    "layers": 3,
    "heads": 4,
    "epochs": 8,
    "precision": "fp32",  # or "bf16"
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.05,
    "label_smoothing": 0.0,
    "global_batch_size": 64,
    "seed": 0,
}
TEST_ROWS, VALIDATION_ROWS = 300, 300
SPLIT_SEED = 20_240_229  # fixed for ever: which rows are test rows must not depend on any setting


@functools.lru_cache(maxsize=1)
def splits() -> dict[str, TensorDataset]:
    """The fixed split of all images. The part "test" is for the end: no search may see it."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images / 8.0 - 1.0, dtype=torch.float32).unsqueeze(1)  # pixels are 0 to 16
    labels = torch.tensor(digits.target, dtype=torch.long)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    ends = {"test": TEST_ROWS, "validation": TEST_ROWS + VALIDATION_ROWS, "train": len(labels)}
    parts, start = {}, 0
    for name, end in ends.items():
        rows = torch.from_numpy(order[start:end])
        parts[name], start = TensorDataset(images[rows], labels[rows]), end
    return parts


def train_loop_per_worker(settings: dict[str, Any]) -> None:
    """Trains one model. Runs in every rank."""
    batch = split_batch(settings["global_batch_size"], ray.train.get_context().get_world_size(), largest_per_device=256)
    if settings["precision"] not in ("fp32", "bf16"):
        raise ConfigurationError(f"precision is fp32 or bf16, got {settings['precision']!r}.")
    accelerator = Accelerator(
        mixed_precision="bf16" if settings["precision"] == "bf16" else "no",
        gradient_accumulation_steps=batch.accumulation,
    )
    seeds = Seeds(settings["seed"])
    torch.manual_seed(seeds.initial_weights)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=settings["hidden_size"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            intermediate_size=2 * settings["hidden_size"],
            image_size=8,
            patch_size=2,
            num_channels=1,
            id2label={digit: str(digit) for digit in range(10)},
            label2id={str(digit): digit for digit in range(10)},
        )
    )
    torch.manual_seed(seeds.torch)
    generator = torch.Generator()
    train = DataLoader(splits()["train"], batch.per_device, shuffle=True, generator=generator)
    validation = DataLoader(splits()["validation"], 150)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    model, optimizer, train, validation = accelerator.prepare(model, optimizer, train, validation)
    steps_per_epoch = math.ceil(len(train) / batch.accumulation)
    steps = settings["epochs"] * steps_per_epoch
    schedule = get_scheduler(
        settings["lr_scheduler_type"], optimizer, int(settings["warmup_ratio"] * steps), steps
    )  # not prepared: it counts optimizer steps, whatever the number of ranks
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=settings["label_smoothing"])

    first_epoch = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as directory:
            first_epoch = restore(Path(directory), accelerator.unwrap_model(model), optimizer, schedule)
    for epoch in range(first_epoch, settings["epochs"]):
        generator.manual_seed(seeds.stream(f"data order {epoch}"))  # a resumed run sees the same order
        model.train()
        losses = []
        for images, labels in train:
            with accelerator.accumulate(model):
                loss = loss_of(model(images).logits, labels)
                accelerator.backward(loss)
                optimizer.step()
                if accelerator.sync_gradients:
                    schedule.step()
                optimizer.zero_grad()
            losses.append(accelerator.gather_for_metrics(loss.detach().repeat(len(labels))))  # a last batch is smaller
        metrics = {
            "loss": float(torch.cat(losses).mean()),
            **evaluate(accelerator, model, validation),
            "step": (epoch + 1) * steps_per_epoch,
            "epoch": epoch + 1,
            "samples": (epoch + 1) * len(splits()["train"]),
            "training_finished": epoch + 1 == settings["epochs"],  # complete: no trial scheduler is asked
        }
        report(accelerator, metrics, model, optimizer, schedule)


def report(accelerator: Accelerator, metrics: dict[str, Any], model: Any, optimizer: Any, schedule: Any) -> None:
    """One report, with a checkpoint from rank 0."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        checkpoint = None
        if accelerator.is_main_process:
            accelerator.unwrap_model(model).save_pretrained(directory)
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": metrics["epoch"]}
            torch.save(state, Path(directory, "training_state.pt"))
            checkpoint = Checkpoint.from_directory(directory)
        ray.train.report(metrics, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)  # so: not copied


def restore(directory: Path, model: Any, optimizer: Any, schedule: Any) -> int:
    """Loads what `report` saved; returns the number of epochs that are done."""
    model.load_state_dict(ViTForImageClassification.from_pretrained(directory).state_dict())
    state = torch.load(directory / "training_state.pt", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: Any, validation: DataLoader[Any]) -> dict[str, float]:
    """Loss and accuracy over the whole validation part, each rank doing its share."""
    model.eval()
    logits, targets = [], []
    for images, labels in validation:
        gathered = accelerator.gather_for_metrics((model(images).logits, labels))
        logits.append(gathered[0])
        targets.append(gathered[1])
    answers, truth = torch.cat(logits), torch.cat(targets)
    return {
        "eval_loss": float(torch.nn.functional.cross_entropy(answers, truth)),
        "eval_accuracy": float((answers.argmax(-1) == truth).float().mean()),
    }


def test(checkpoint: TransformersCheckpoint, settings: dict[str, Any]) -> dict[str, float]:
    """Accuracy on the test part. Runs in rank 0, when a training has ended."""
    model = checkpoint.get_model(ViTForImageClassification).eval()
    images, labels = splits()["test"].tensors
    with torch.no_grad():
        answers = model(images).logits
    return {
        "eval_loss": float(torch.nn.functional.cross_entropy(answers, labels)),
        "eval_accuracy": float((answers.argmax(-1) == labels).float().mean()),
    }


experiment = Experiment(
    name="digits",
    trainer=AccelerateTrainer(train_loop_per_worker, accelerate_config={}, scaling_config=ScalingConfig(num_workers=2)),
    space=vision.space,
    metric="eval_accuracy",
    mode="max",
    defaults=DEFAULTS,
    progress=["eval_loss", "loss"],
    test=test,
)

if __name__ == "__main__":
    from hfsuite.cli import run_module

    run_module(experiment)
