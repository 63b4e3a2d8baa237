"""An experiment for tests of trials that go on elsewhere: a model of a few thousand parameters, and slow steps."""

from __future__ import annotations

import time
from typing import Any

import ray.train
from ray import tune
from ray.train import ScalingConfig

from hfsuite import Experiment, TransformersTrainer, split_batch
from tests.tiny import token_frame


def train_function(train_dataset: Any, eval_dataset: Any, **settings: Any) -> Any:
    """A step of `rows` rows on any number of workers, unless each takes as many as one alone."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainerCallback, TrainingArguments

    class Slow(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            time.sleep(settings["step_s"])

    workers = ray.train.get_context().get_world_size() if settings["divides"] else 1
    batch = split_batch(settings["rows"], workers)
    without = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=100, n_positions=32, n_embd=16, n_layer=1, n_head=2, **without)
    arguments = TrainingArguments(
        "growing",
        num_train_epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        per_device_train_batch_size=batch.per_device,
        gradient_accumulation_steps=batch.accumulation,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch",
        save_only_model=settings["saves_only_model"],
        lr_scheduler_type="constant",
        disable_tqdm=True,
        use_cpu=not settings["gpu"],
    )
    datasets = (Dataset.from_pandas(token_frame(32, seed)) for seed in range(2))
    return Trainer(
        AutoModelForCausalLM.from_config(config), arguments, train_dataset=next(datasets), eval_dataset=next(datasets),
        callbacks=[Slow()],
    )  # fmt: skip


experiment = Experiment(
    name="growing",
    trainer=TransformersTrainer(train_function, scaling_config=ScalingConfig(num_workers=1)),
    space={"epochs": tune.grid_search([32, 2])},
    metric="eval_loss",
    mode="min",
    defaults={
        "epochs": 2,
        "rows": 8,
        "step_s": 0.3,
        "learning_rate": 1e-2,
        "divides": True,
        "gpu": False,
        "saves_only_model": False,
    },
)
