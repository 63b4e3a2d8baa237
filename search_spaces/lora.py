"""Fine-tuning a language model with LoRA: rank, alpha, dropout, adapted modules, learning rate and its schedule.

`only_where` says which of them count where: give both to the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray import tune

space: dict[str, Any] = {
    # Adapters want about ten times the learning rate of full fine-tuning, whatever the rank (Schulman et al. 2025).
    "learning_rate": tune.loguniform(2e-5, 2e-3),
    # A constant one does for long trainings; a short one gains from going to zero, or nearly.
    "lr_scheduler_type": tune.choice(["linear", "cosine", "cosine_with_min_lr", "constant"]),
    # Share of all steps. A constant schedule has none.
    "warmup_ratio": tune.uniform(0.0, 0.1),
    # Where the cosine ends, as a share of the learning rate.
    "min_lr_rate": tune.uniform(0.0, 0.3),
    # Capacity. 8 is enough for style; 64 and more for knowledge.
    "lora_rank": tune.choice([4, 8, 16, 32, 64]),
    # Adapters are scaled by alpha / rank (Hu et al. 2021).
    "lora_alpha": tune.choice([8, 16, 32, 64]),
    # Adapters of low rank do not overfit enough for dropout to help.
    "lora_dropout": tune.uniform(0.0, 0.2),
    # Attention alone, as first proposed, needs fewer parameters; all linear layers learn more (QLoRA, 2023).
    "target_modules": tune.choice(["attention", "all-linear"]),
}
only_where: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "warmup_ratio": {"lr_scheduler_type": ["linear", "cosine", "cosine_with_min_lr"]},
    "min_lr_rate": {"lr_scheduler_type": ["cosine_with_min_lr"]},
    "lora_dropout": {"lora_rank": [16, 32, 64]},
}
