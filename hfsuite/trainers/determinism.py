"""Makes what a training draws and computes the same each time. Runs in every rank."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import ray.train

from hfsuite.trainers import loss_bits
from hfsuite.trainers.seeds import Seeds

# Read when a library first uses the device: https://pytorch.org/docs/stable/notes/randomness.html, and FlashAttention.
VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


@dataclass(frozen=True)
class Conditions:
    """Under which a training function runs.

    Args:
        seed: from which all generators are seeded before it; None leaves them as they are.
        deterministic: whether PyTorch shall compute the same bits each time.
        notes_losses: whether reports carry the digests of the losses; see `loss_bits`.
        ends_at_first_step: whether the training is only begun, to learn what it is given: see `facts`.
    """

    seed: int | None = None
    deterministic: bool = False
    notes_losses: bool = False
    ends_at_first_step: bool = False

    @contextmanager
    def in_force(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Runs in every rank; yields what is to be added to each of its reports."""
        if self.seed is not None:
            seed_all(self.seed)
        if self.deterministic:
            compute_deterministically()
        if self.ends_at_first_step:
            with ended_at_first_step() as end:
                yield end
            return
        if not self.notes_losses or ray.train.get_context().get_world_rank() > 0:
            yield dict
            return
        with loss_bits.noted() as bits:
            yield lambda: {loss_bits.LOSS_BITS: text} if (text := bits.take()) else {}


class FirstStepReached(Exception):
    """Ends a training that was only begun."""


@contextmanager
def ended_at_first_step() -> Iterator[Callable[[], dict[str, Any]]]:
    """Raises `FirstStepReached` where the first gradient would be computed; yields what does so in a report."""
    import torch

    def end(*_: Any, **__: Any) -> dict[str, Any]:
        raise FirstStepReached

    with mock.patch.object(torch.Tensor, "backward", end):
        yield end


def seed_all(seed: int) -> None:
    """Gives each generator its stream of the training's seed. All ranks draw the same, as DDP's initial weights need.

    The training function may seed them anew, as `transformers.Trainer` does from its arguments.
    """
    import numpy as np
    import torch

    seeds = Seeds(seed)
    random.seed(seeds.python)
    np.random.seed(seeds.numpy)
    torch.manual_seed(seeds.torch)


def compute_deterministically() -> None:
    """Has PyTorch choose algorithms that give the same bits each time; where it has none, it warns in the rank's log.

    What `transformers.enable_full_determinism` sets, but for `CUDA_LAUNCH_BLOCKING`, which has no kernel compute
    otherwise and costs time, and with a workspace in which cuBLAS is as fast as without. That the world size, the
    threads, the versions and the data are the same too, which it leaves out, is what `hfsuite reproduce` looks after.
    """
    import torch

    os.environ.update(VARIABLES)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
