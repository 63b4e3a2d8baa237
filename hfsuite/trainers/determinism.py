"""Makes what a training draws and computes the same each time. Runs in every rank."""

from __future__ import annotations

import os
import random

from hfsuite.trainers.seeds import Seeds

# Read when a library first uses the device: https://pytorch.org/docs/stable/notes/randomness.html, and FlashAttention.
VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


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
