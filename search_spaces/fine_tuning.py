"""Fine-tuning a pretrained transformer: learning rate, its schedule and warm-up, weight decay, global batch size.

The number of epochs is left out on purpose: a trial scheduler already decides how long each configuration deserves, and
it compares trials at equal numbers of reports. Fix it with `--set num_train_epochs=...`.
"""

from __future__ import annotations

from typing import Any

from ray import tune

space: dict[str, Any] = {
    # By far the most important one. BERT's authors tried 2e-5 to 5e-5 for 110 M parameters and more; models of 20 M
    # want about ten times that, and diverge or stall a decade further on either side.
    "learning_rate": tune.loguniform(1e-5, 1e-3),
    # Short fine-tunings differ little by schedule; a constant one leaves a noisy end, and is there to be ruled out.
    "lr_scheduler_type": tune.choice(["linear", "cosine", "constant_with_warmup"]),
    # Share of all steps. Adam's second moments are unreliable in the first steps (Liu et al. 2020); beyond a fifth,
    # a short training has no time left.
    "warmup_ratio": tune.uniform(0.0, 0.2),
    # Decoupled weight decay. 0.01 is the common default; more than 0.1 pulls pretrained weights to zero.
    "weight_decay": tune.loguniform(1e-4, 1e-1),
    # Rows an optimizer step sees over all workers. What each worker takes at once follows from it.
    "global_batch_size": tune.choice([16, 32, 64]),
}
