"""A small vision transformer from scratch: learning rate, schedule, warm-up, weight decay, smoothing, batch."""

from __future__ import annotations

from typing import Any

from ray import tune

space: dict[str, Any] = {
    # From scratch, Adam wants 1e-4 to 3e-3; at 1e-2 a small ViT no longer learns.
    "learning_rate": tune.loguniform(1e-4, 1e-2),
    # A cosine is what ViTs are usually trained with; linear does as well in short runs.
    "lr_scheduler_type": tune.choice(["linear", "cosine"]),
    # Share of all steps. Transformers without pretraining diverge early without any.
    "warmup_ratio": tune.uniform(0.0, 0.3),
    # ViT and DeiT use 0.05 to 0.3: with few images, regularisation is what separates good from bad.
    "weight_decay": tune.loguniform(1e-3, 3e-1),
    # 0.1 is the usual value; with ten classes and clean labels none may be better.
    "label_smoothing": tune.choice([0.0, 0.1]),
    # Rows an optimizer step sees over all workers. Small batches train longer, large ones faster.
    "global_batch_size": tune.choice([32, 64, 128]),
}
