"""What a training function asks of Ray Train and hfsuite, without either: under `torchrun` or `accelerate launch`.

`hfsuite export` copies this file, so it imports nothing of the project but what is copied with it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

METRICS, CHECKPOINT = "metrics.jsonl", "checkpoint"  # what a training leaves in the working directory


class ConfigurationError(ValueError):
    """What was asked for cannot be."""


class Checkpoint:
    """A folder with what was saved."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """The folder as it is."""
        return cls(path)

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        """The folder, as long as this is open."""
        yield self.path

    def get_model(self, model: Any, **options: Any) -> Any:
        """The stored model, by a class with `from_pretrained`."""
        return model.from_pretrained(self.path, **options)

    def get_tokenizer(self, tokenizer: Any, **options: Any) -> Any:
        """The stored tokenizer, likewise."""
        return tokenizer.from_pretrained(self.path, **options)


TransformersCheckpoint = Checkpoint


class Context:
    """Which of the processes this is, as the launcher says."""

    def get_world_size(self) -> int:
        """Number of processes."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def get_world_rank(self) -> int:
        """Of this process."""
        return int(os.environ.get("RANK", "0"))

    def get_local_rank(self) -> int:
        """On this machine."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    def get_local_world_size(self) -> int:
        """Number of processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def report(metrics: Mapping[str, Any], checkpoint: Checkpoint | None = None, **_: Any) -> None:
    """Appends a line to `metrics.jsonl`, and keeps the newest checkpoint. Rank 0's counts."""
    if Context().get_world_rank() > 0:
        return
    numbers = {name: _plain(value) for name, value in metrics.items()}
    with open(METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(numbers) + "\n")
    print("  ".join(f"{name} {value:.6g}" for name, value in numbers.items() if isinstance(value, float)), flush=True)
    if checkpoint is not None:
        shutil.rmtree(CHECKPOINT, ignore_errors=True)
        shutil.copytree(checkpoint.path, CHECKPOINT)


def get_device() -> Any:
    """Of this process."""
    import torch

    return torch.device("cuda", Context().get_local_rank()) if torch.cuda.is_available() else torch.device("cpu")


# What code written for Ray Train calls by the names that it has there.
ray = SimpleNamespace(
    train=SimpleNamespace(
        report=report,
        get_context=Context,
        get_checkpoint=lambda: None,
        get_all_reported_checkpoints=list,
        Checkpoint=Checkpoint,
        torch=SimpleNamespace(get_device=get_device),
    )
)


def train_loop(function: Callable[..., Any], settings: dict[str, Any], *, threads: int) -> None:
    """Runs a training loop written with Accelerate."""
    from hfsuite.ranks.dealing import in_force

    _begin(threads)
    with in_force(weighs=True):
        function(dict(settings))


def train_transformers(function: Callable[..., Any], settings: dict[str, Any], *, threads: int) -> None:
    """Runs `transformers.Trainer`, and saves what it has trained."""
    _begin(threads)
    from transformers import TrainerCallback

    from hfsuite.ranks.dealing import in_force, separate_streams
    from hfsuite.ranks.exact_loss import make_exact

    class Reports(TrainerCallback):
        """Writes what Transformers logs."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            separate_streams(Context().get_world_rank())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            report({**(logs or {}), "step": state.global_step, "epoch": state.epoch})

    with in_force(weighs=False):
        trainer = function(None, None, **settings)
        make_exact(trainer)
        trainer.add_callback(Reports())
        trainer.train()
    trainer.save_model(CHECKPOINT)


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if Context().get_world_rank() == 0:
        Path(METRICS).unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
