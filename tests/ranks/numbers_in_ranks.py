"""What ranks compute in the tests of numbers: one function a case, each on all ranks of a group."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import ray.train
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, gather_object
from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hfsuite.ranks import dealing
from hfsuite.ranks.exact_loss import make_exact
from tests.trainers.in_ranks import run_cases

GLOBAL_BATCH = 16


def all_cases(config: dict[str, Any]) -> None:
    run_cases(CASES, config["out"])


# ---- models and rows


def classifier(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        )
    )  # fmt: skip


def sentences(rows: int, seed: int = 0) -> Dataset:
    draw = random.Random(seed)
    texts = [[draw.randrange(1, 50) for _ in range(draw.randrange(3, 12))] for _ in range(rows)]
    return Dataset.from_dict(
        {"input_ids": texts, "labels": [draw.randrange(2) for _ in range(rows)], "row": list(range(rows))}
    )


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {
        "input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([row["labels"] for row in rows]),
        "row": torch.tensor([row["row"] for row in rows]),
    }  # fmt: skip


def language_rows(count: int = 10) -> Dataset:
    draw = random.Random(1)
    ids = [[draw.randrange(1, 50) for _ in range(draw.randrange(2, 33))] for _ in range(count)]
    full = [row + [0] * (32 - len(row)) for row in ids]
    labels = [row + [-100] * (32 - len(row)) for row in ids]
    labels[3] = [-100] * 32  # alone, a batch whose labels are all ignored
    return Dataset.from_dict({"input_ids": full, "labels": labels, "attention_mask": [[1] * 32] * count})


def language_model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )


class NotingTrainer(Trainer):
    """A user's own: it overrides what users override, and notes the rows of each step."""

    rows: list[tuple[int, int]]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.noted = getattr(self, "noted", [])
        if self._hfsuite.share > 0:  # a row that only stands in
            self.noted.append((self.state.global_step, inputs["row"].tolist()))
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = {name: each for name, each in inputs.items() if name != "row"}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = {name: each for name, each in inputs.items() if name != "row"}
        return super().prediction_step(model, inputs, *args, **kwargs)


def trained(
    rows: int,
    *,
    dropout: float = 0.0,
    accumulation: int = 1,
    epochs: int = 2,
    lr: float = 1e-3,
    **arguments: Any,
) -> dict[str, Any]:
    """A training of the classifier by Transformers, in global batches of GLOBAL_BATCH rows."""
    world = ray.train.get_context().get_world_size()
    with dealing.in_force(weighs=False):
        trainer = NotingTrainer(
            classifier(dropout),
            TrainingArguments(
                "out", num_train_epochs=epochs,
                learning_rate=lr, use_cpu=True, report_to=[], seed=3,
                per_device_train_batch_size=GLOBAL_BATCH // accumulation // world, lr_scheduler_type="constant",
                gradient_accumulation_steps=accumulation, logging_strategy="steps", logging_steps=1, disable_tqdm=True,
                remove_unused_columns=False, save_strategy="no", **arguments,
            ),
            train_dataset=sentences(rows), eval_dataset=sentences(50, seed=2), data_collator=padded,
        )  # fmt: skip
        make_exact(trainer)
        trainer.train()
        evaluated = trainer.evaluate()
    steps: dict[int, list[int]] = {}
    for step, noted in gather_object(trainer.noted):
        steps.setdefault(step, []).extend(noted)
    return {
        "eval_loss": evaluated["eval_loss"],
        "losses": [each["loss"] for each in trainer.state.log_history if "loss" in each],
        "steps": [sorted(steps[step]) for step in sorted(steps)],
        "rows_trained": trainer._hfsuite.rows_trained,
        "over": trainer._hfsuite.averaging.over,
    }


# ---- evaluation


def evaluated_language_model(batch_size: int) -> dict[str, float]:
    with dealing.in_force(weighs=False):
        trainer = Trainer(
            language_model(),
            TrainingArguments("out", per_device_eval_batch_size=batch_size, use_cpu=True, report_to=[],
                disable_tqdm=True,
            ),
            eval_dataset=language_rows(),
        )  # fmt: skip
        make_exact(trainer)
        return {"eval_loss": trainer.evaluate()["eval_loss"], "over": trainer._hfsuite.averaging.over}


def tagger(batch_size: int) -> dict[str, Any]:
    """A model that divides by the number of its labels itself, on rows some of which have none."""
    world = ray.train.get_context().get_world_size()
    torch.manual_seed(0)
    model = BertForTokenClassification(
        BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                   hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=50)
    )  # fmt: skip
    with dealing.in_force(weighs=False):
        trainer = Trainer(
            model,
            TrainingArguments(
                "out", per_device_eval_batch_size=batch_size, per_device_train_batch_size=batch_size, use_cpu=True,
                gradient_accumulation_steps=8 // batch_size // world, num_train_epochs=2, report_to=[], seed=3,
                disable_tqdm=True, logging_steps=1, save_strategy="no", lr_scheduler_type="constant",
            ),
            train_dataset=language_rows(), eval_dataset=language_rows(),
        )  # fmt: skip
        make_exact(trainer)
        trainer.train()
        evaluated = trainer.evaluate()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {"eval_loss": evaluated["eval_loss"], "losses": losses, "over": trainer._hfsuite.averaging.over}


def evaluated_classifier(batch_size: int, **how: Any) -> dict[str, Any]:
    """A user who knows of `accepts_loss_kwargs`, and what `compute_metrics` gets."""
    model = classifier()
    if how.pop("knows", False):
        model.accepts_loss_kwargs = False
    seen = []
    with dealing.in_force(weighs=False):
        trainer = NotingTrainer(
            model,
            TrainingArguments(
                "out", per_device_eval_batch_size=batch_size, use_cpu=True, report_to=[], disable_tqdm=True,
                remove_unused_columns=False, **how,
            ),
            eval_dataset=sentences(9), data_collator=padded,
            compute_metrics=lambda given: seen.append(given.label_ids.tolist()) or {"rows": len(given.predictions)},
        )  # fmt: skip
        make_exact(trainer)
        found = trainer.evaluate()
    return {"eval_loss": found["eval_loss"], "rows": found["eval_rows"], "labels": seen[0]}


def generated() -> int:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )
    rows = Dataset.from_dict({"input_ids": [[each % 40 + 1, 3] for each in range(21)], "labels": [[4, 5]] * 21})
    with dealing.in_force(weighs=False):
        trainer = Seq2SeqTrainer(
            model,
            Seq2SeqTrainingArguments(
                "out", per_device_eval_batch_size=4, predict_with_generate=True, generation_max_length=4, use_cpu=True,
                report_to=[], disable_tqdm=True,
            ),
            eval_dataset=rows, data_collator=lambda each: {
                name: torch.tensor([row[name] for row in each]) for name in ("input_ids", "labels")
            },
            compute_metrics=lambda given: {"rows": len(given.label_ids), "predicted": len(given.predictions)},
        )  # fmt: skip
        make_exact(trainer)
        found = trainer.evaluate()
    return int(found["eval_rows"])


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for row in sentences(9):
            yield row | {"input_ids": (row["input_ids"] * 4)[:12]}  # who dispatches wants rows of one length


def streamed(dispatches: bool) -> dict[str, Any]:
    with dealing.in_force(weighs=False):
        trainer = NotingTrainer(
            classifier(),
            TrainingArguments(
                "out", per_device_eval_batch_size=2, use_cpu=True, report_to=[], disable_tqdm=True,
                remove_unused_columns=False, accelerator_config={"dispatch_batches": dispatches},
            ),
            eval_dataset=Streamed(), data_collator=padded,
            compute_metrics=lambda given: {"rows": len(given.predictions)},
        )  # fmt: skip
        make_exact(trainer)
        found = trainer.evaluate()
    return {"eval_loss": found["eval_loss"], "rows": found["eval_rows"]}


def trained_on_a_stream(dispatches: bool, accumulation: int = 1) -> dict[str, Any]:
    """Two epochs of nine rows in steps of four: the last step of each has one row."""
    world = ray.train.get_context().get_world_size()
    with dealing.in_force(weighs=False):
        trainer = NotingTrainer(
            classifier(),
            TrainingArguments(
                "out", per_device_train_batch_size=4 // world // accumulation, max_steps=6, use_cpu=True, report_to=[],
                gradient_accumulation_steps=accumulation, seed=3,
                disable_tqdm=True, remove_unused_columns=False, accelerator_config={"dispatch_batches": dispatches},
                logging_steps=1, save_strategy="no", lr_scheduler_type="constant", learning_rate=1e-2,
            ),
            train_dataset=Streamed(), data_collator=padded,
        )  # fmt: skip
        make_exact(trainer)
        trainer.train()
    steps: dict[int, list[int]] = {}
    for step, noted in gather_object(trainer.noted):
        steps.setdefault(step, []).extend(noted)
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {"steps": [sorted(steps[step]) for step in sorted(steps)], "losses": losses}


# ---- a loop with Accelerate


def looped(rows: int, *, dropout: float = 0.0, accumulation: int = 1, epochs: int = 2) -> dict[str, Any]:
    world = ray.train.get_context().get_world_size()
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        set_seed(3)
        model = classifier(dropout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train = DataLoader(sentences(rows), GLOBAL_BATCH // accumulation // world, shuffle=True, collate_fn=padded)
        validation = DataLoader(sentences(50, seed=2), 8, collate_fn=padded)
        model, optimizer, train, validation = accelerator.prepare(model, optimizer, train, validation)
        seen: list[list[int]] = []
        for _ in range(epochs):
            epoch: list[int] = []
            for batch in train:
                with accelerator.accumulate(model):
                    epoch += accelerator.gather_for_metrics(batch.pop("row")).tolist()
                    accelerator.backward(model(**batch).loss)
                    optimizer.step()
                    optimizer.zero_grad()
            seen.append(epoch)
        model.eval()
        logits, labels = [], []
        for batch in validation:
            batch.pop("row")
            with torch.no_grad():
                gathered = accelerator.gather_for_metrics((model(**batch).logits, batch["labels"]))
            logits.append(gathered[0])
            labels.append(gathered[1])
        loss = float(torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(labels)))
        masks = gather_object([torch.nn.functional.dropout(torch.ones(16)).tolist()])
    return {"eval_loss": loss, "rows": seen, "evaluated": len(torch.cat(labels)), "masks": masks}


def looped_over_a_stream(dispatches: bool) -> dict[str, Any]:
    world = ray.train.get_context().get_world_size()
    with dealing.in_force(weighs=True):
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatches))
        set_seed(3)
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model, optimizer, loader = accelerator.prepare(
            model, optimizer, DataLoader(Streamed(), 4 // world, collate_fn=padded)
        )
        steps = []
        for batch in loader:
            steps.append(sorted(accelerator.gather_for_metrics(batch.pop("row")).tolist()))
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    return {"steps": steps, "weight": accelerator.unwrap_model(model).classifier.weight.detach().double().sum().item()}


CASES: dict[str, Callable[[], Any]] = {
    "128": lambda: trained(128),
    "130": lambda: trained(130),
    "140 accumulated": lambda: trained(140, accumulation=4),
    "140": lambda: trained(140),
    "130 dropped": lambda: trained(130, dataloader_drop_last=True, accumulation=2),
    "by length": lambda: trained(200, epochs=1, train_sampling_strategy="group_by_length"),
    "by length, dropout": lambda: trained(128, dropout=0.1, train_sampling_strategy="group_by_length"),
    "in turn": lambda: trained(130, epochs=1, train_sampling_strategy="sequential"),
    "nan": lambda: trained(32, epochs=2, lr=float("inf"), max_grad_norm=0.0),
    **{f"language model {size}": (lambda size=size: evaluated_language_model(size)) for size in (1, 2, 4, 8)},
    **{f"classifier {size}": (lambda size=size: evaluated_classifier(size)) for size in (2, 4, 8)},
    **{f"knowing classifier {size}": (lambda size=size: evaluated_classifier(size, knows=True)) for size in (2, 4, 8)},
    "generated": generated,
    "streamed": lambda: streamed(False),
    "dispatched": lambda: streamed(True),
    "tagger 1": lambda: tagger(1),
    "tagger 4": lambda: tagger(4 // ray.train.get_context().get_world_size()),
    **{
        f"trained, {'dispatched' if how else 'streamed'}": (lambda how=how: trained_on_a_stream(how))
        for how in (False, True)
    },
    **{
        f"loop, {'dispatched' if how else 'streamed'}": (lambda how=how: looped_over_a_stream(how))
        for how in (False, True)
    },
    "trained, streamed, accumulated": lambda: trained_on_a_stream(False, 4 // ray.train.get_context().get_world_size()),
    "loop 128": lambda: looped(128),
    "loop 130": lambda: looped(130),
    "loop 140 accumulated": lambda: looped(140, accumulation=4),
    "loop with dropout": lambda: looped(130, dropout=0.1),
}
