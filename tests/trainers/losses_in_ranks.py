"""Losses that people train with, each on all ranks of a group: what an evaluation says, and what is said of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray.train
import torch
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from hfsuite.trainers import dealing
from hfsuite.trainers.exact_loss import make_exact
from tests.trainers.in_ranks import run_cases

ROWS, LENGTH, GLOBAL_BATCH = 9, 8, 4
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 40}  # fmt: skip


def all_losses(config: dict[str, Any]) -> None:
    """Trains two steps with each loss, and evaluates."""
    how = {"largest": config["largest"], "evaluated": config["evaluated"]}
    run_cases({name: partial(trained, *LOSSES[name], **how) for name in LOSSES}, config["out"])


def trained(make_model: Any, kind: str, trainer_class: Any = Trainer, *, largest: int, evaluated: int,
            **arguments: Any) -> dict[str, Any]:  # fmt: skip
    per_device = min(largest, GLOBAL_BATCH // ray.train.get_context().get_world_size())
    accumulation = GLOBAL_BATCH // per_device // ray.train.get_context().get_world_size()
    torch.manual_seed(0)
    with dealing.in_force(weighs=False):
        trainer = trainer_class(
            make_model(),
            TrainingArguments(
                "out", per_device_train_batch_size=per_device, per_device_eval_batch_size=evaluated, use_cpu=True,
                gradient_accumulation_steps=accumulation, max_steps=2, report_to=[], seed=3, disable_tqdm=True,
                logging_steps=1, save_strategy="no", learning_rate=1e-2, optim="sgd", remove_unused_columns=False,
                **arguments,
            ),
            train_dataset=rows(kind, 1), eval_dataset=rows(kind, 2), data_collator=COLLATORS.get(kind),
        )  # fmt: skip
        told = make_exact(trainer)
        trainer.train()
        evaluated_to = trainer.evaluate()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {"losses": losses, "eval_loss": evaluated_to["eval_loss"], "left": vars(trainer).get("calls", 0), **told()}


# ---- rows


def rows(kind: str, seed: int) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [row(kind, place, torch.randint(5, 50, (LENGTH,), generator=draw), int(torch.randint(3, (), generator=draw)))
            for place in range(ROWS)]  # fmt: skip


def row(kind: str, place: int, ids: torch.Tensor, label: int) -> dict[str, torch.Tensor]:
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    partly = torch.where(torch.arange(LENGTH) < place * 3 % LENGTH, -100, ids)  # the first tokens have no label
    more: dict[str, torch.Tensor] = {
        "class": {"labels": torch.tensor(label)},
        "partly": {"labels": torch.tensor(label if place % 3 else -100)},
        "number": {"labels": torch.tensor(float(label))},
        "several": {"labels": torch.tensor([float(label == 0), float(label == 1), 1.0])},
        "tokens": {"labels": torch.full_like(ids, -100) if place % 2 else torch.where(partly < 0, -100, ids % 3)},
        "language": {"labels": partly},
        "pairs": {"labels": partly, "next_sentence_label": torch.tensor(label % 2)},
        "answers": {"start_positions": torch.tensor(label), "end_positions": torch.tensor(label + 2)},
        "no answers": {
            "start_positions": torch.tensor(label if place % 3 else 100),  # beyond the text: ignored
            "end_positions": torch.tensor(label + 2 if place % 4 else 100),
        },
        "masked": {},
        "with a place": {"labels": torch.tensor(label), "place": torch.tensor(place)},
        "lists": {"labels": torch.tensor(label)},
    }[kind]
    return found | more


def tokenizer() -> Any:
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, **{str(each): each for each in range(3, 50)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")),
        mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]",
    )  # fmt: skip


def as_lists(rows: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack([each[name] for each in rows]) for name in ("input_ids", "labels")]


COLLATORS = {"masked": DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.4), "lists": as_lists}


# ---- losses


class OwnLoss(Trainer):
    """A user's own, of logits and labels."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.loss(outputs.logits, labels)
        return (loss, {"logits": outputs.logits}) if return_outputs else loss


class Focal(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        likely = logits.softmax(-1).gather(1, labels[:, None])
        return (-((1 - likely) ** 2) * likely.log()).mean()


class Weighted(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels, weight=torch.tensor([1.0, 3.0, 0.2]))


class WeightedTokens(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits.transpose(1, 2), labels, weight=torch.tensor([1.0, 5.0, 0.1]))


class SumOfLosses(OwnLoss):
    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels, reduction="sum")


class MeanOfRows(OwnLoss):
    """Of each row's own mean; a row without labels has a loss of 0."""

    def loss(self, logits: Any, labels: Any) -> Any:
        each = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return (each.sum(1) / labels.ne(-100).sum(1).clamp(min=1)).mean()


class Penalty(OwnLoss):
    """A small one, of the whole batch."""

    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits, labels) + 0.1 * (logits.softmax(-1).mean(0) ** 2).sum()


class InBatch(OwnLoss):
    """Each row against the others of its batch."""

    def loss(self, logits: Any, labels: Any) -> Any:
        return cross_entropy(logits @ logits.T, torch.arange(len(logits)))


class Counting(OwnLoss):
    """Counts and collects what it is asked, and logs it."""

    calls = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.collected: dict[str, list[float]] = {"losses": []}

    def loss(self, logits: Any, labels: Any) -> Any:
        loss = cross_entropy(logits, labels)
        self.collected["losses"].append(loss.item())
        self.calls += 1
        assert len(self.collected["losses"]) == self.calls
        self.log({"calls": self.calls})
        return loss


class Dropping(Trainer):
    """Takes a column out on the way, of which the loss knows nothing."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        del inputs["place"]
        return super().training_step(model, inputs, *args, **kwargs)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        del inputs["place"]
        return super().prediction_step(model, inputs, *args, **kwargs)


class OfLists(Trainer):
    """Its batches have no names."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        ids, labels = inputs
        outputs = model(ids, labels=labels)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, self._prepare_inputs(inputs), return_outputs=True)
        return loss, outputs.logits, inputs[1]


class Nested(Trainer):
    """Evaluates something else in the middle of an evaluation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, compute_metrics=self.also, **kwargs)

    def also(self, _: Any) -> dict[str, float]:
        self.compute_metrics, own = None, self.compute_metrics
        found = self.evaluate(self.train_dataset, metric_key_prefix="other")
        self.compute_metrics = own
        return {"also": found["other_loss"]}


def bert(kind: Any, **options: Any) -> Any:
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3, **SMALL, **options}
    return lambda: kind(BertConfig(**config))


class Normalized(torch.nn.Module):
    """Batch normalization before a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = torch.nn.Embedding(50, 16), torch.nn.BatchNorm1d(16)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, input_ids: Any, labels: Any = None, attention_mask: Any = None) -> Any:
        logits = self.head(self.norm(self.embedding(input_ids).mT).mean(2))
        return {"loss": cross_entropy(logits, labels), "logits": logits}


CLASSIFIER, TAGGER = bert(BertForSequenceClassification), bert(BertForTokenClassification)
MEANS: dict[str, tuple[Any, ...]] = {  # the same on any number of workers
    "classes": (CLASSIFIER, "class"),
    "classes, some ignored": (CLASSIFIER, "partly"),
    "a number": (bert(BertForSequenceClassification, num_labels=1), "number"),
    "several labels": (bert(BertForSequenceClassification, problem_type="multi_label_classification"), "several"),
    "tokens": (TAGGER, "tokens"),
    "mean of rows": (TAGGER, "tokens", MeanOfRows),
    "language": (lambda: LlamaForCausalLM(LlamaConfig(**SMALL)), "language"),
    "answers": (bert(BertForQuestionAnswering, num_labels=2), "answers"),
    "focal": (CLASSIFIER, "class", Focal),
    "counting": (CLASSIFIER, "class", Counting),
    "dropping": (CLASSIFIER, "with a place", Dropping),
    "lists": (CLASSIFIER, "lists", OfLists),
    "nested": (CLASSIFIER, "class", Nested),
}
OTHERS: dict[str, tuple[Any, ...]] = {  # not so
    "sum": (CLASSIFIER, "class", SumOfLosses),
    "weighted": (CLASSIFIER, "class", Weighted),
    "weighted tokens": (TAGGER, "tokens", WeightedTokens),
    "two losses": (bert(BertForPreTraining), "pairs"),
    "router": (
        lambda: MixtralForCausalLM(
            MixtralConfig(
                **SMALL,
                num_local_experts=4,
                num_key_value_heads=2,
                output_router_logits=True,
                initializer_range=0.5,
                router_aux_loss_coef=0.1,
            )
        ),
        "language",
    ),
    "no answers": (bert(BertForQuestionAnswering, num_labels=2), "no answers"),
    "penalty": (bert(BertForSequenceClassification, initializer_range=0.5), "class", Penalty),
    "in batch": (CLASSIFIER, "class", InBatch),
    "masks drawn": (bert(BertForMaskedLM), "masked"),
    "batch norm": (Normalized, "class"),
}
LOSSES = MEANS | OTHERS
