"""Makes what a training draws and computes the same each time. Runs in every rank."""

from __future__ import annotations

import os
import random

from hfsuite.seeds import Seeds

COST = (  # docs/reproduce.md has the figures
    "Deterministic on GPUs: on an H100, a step took 2.1 times as long with a model of MiniLM's size, and 1.25 times as "
    "long with one of a billion parameters."
)
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
    """Has PyTorch choose algorithms that give the same bits each time.

    On GPUs an operation that has none raises: only so does PyTorch choose the deterministic backward pass of flash
    attention. Of the other attentions, two have no such pass, and are not chosen. On CPUs, where this is the default,
    such an operation warns in the rank's log. Beside this it sets what `transformers.enable_full_determinism` does, but
    for `CUDA_LAUNCH_BLOCKING`, which has no kernel compute otherwise, and with a larger workspace for cuBLAS. Whether
    world size, threads, versions and data are the same, which that leaves out too, is for `hfsuite reproduce` to see.
    """
    import torch

    os.environ.update(VARIABLES)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.use_deterministic_algorithms(True, warn_only=not torch.cuda.is_available())
