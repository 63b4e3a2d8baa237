"""A causal language model of a few thousand parameters, and data for it. Nothing is fetched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ROWS = 16


def token_frame(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows of 16 token ids, as a tokenised text corpus would have them."""
    generator = np.random.default_rng(seed)
    tokens = [generator.integers(0, 100, 16).tolist() for _ in range(rows)]
    return pd.DataFrame({"input_ids": tokens, "attention_mask": [[1] * 16] * rows, "labels": tokens})


def tiny_model() -> Any:
    from transformers import AutoModelForCausalLM, GPT2Config

    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=100, n_positions=32, n_embd=16, n_layer=1, n_head=2))


def train_function(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
    """What a `TransformersTrainer` runs in each rank; defaults as in Ray's own tests of 2.6."""
    from transformers import Trainer, TrainingArguments

    arguments = {
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "num_train_epochs": config.pop("epochs", 3),
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "disable_tqdm": True,
        "use_cpu": True,
        **config,
    }
    if eval_dataset is None:
        arguments["eval_strategy"] = "no"
    return Trainer(
        model=tiny_model(),
        args=TrainingArguments("tiny", **arguments),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
    )


def train_function_local_dataset(train_dataset: Any, eval_dataset: Any = None, **config: Any) -> Any:
    """The same with Hugging Face datasets that are made in the function."""
    from datasets import Dataset

    return train_function(Dataset.from_pandas(token_frame()), Dataset.from_pandas(token_frame(seed=1)), **config)
