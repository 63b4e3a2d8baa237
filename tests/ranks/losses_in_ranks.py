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
    default_data_collator,
)

from hfsuite.ranks import dealing
from hfsuite.ranks.exact_loss import make_exact
from tests.ranks import own_trainers as own
from tests.trainers.in_ranks import run_cases

ROWS, LENGTH, GLOBAL_BATCH = 9, 8, 4
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 40}  # fmt: skip


def losses(config: dict[str, Any]) -> None:
    """Trains two steps with each loss, usual ones or others, and evaluates."""
    how = {"largest": config["largest"], "evaluated": config["evaluated"]}
    names = [name for name in LOSSES if (name in USUAL) == config["usual"]]
    run_cases({name: partial(trained, *LOSSES[name], **how) for name in names}, config["out"])


def trained(make_model: Any, kind: str, trainer_class: Any = Trainer, arguments: Any = None, *, largest: int,
            evaluated: int) -> dict[str, Any]:  # fmt: skip
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
                **(arguments or {}),
            ),
            train_dataset=rows(kind, 1), eval_dataset=rows(kind, 2), data_collator=COLLATORS.get(kind),
        )  # fmt: skip
        told = make_exact(trainer)
        trainer.train()
        evaluated_to = trainer.evaluate()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {
        "losses": losses, "eval_loss": evaluated_to["eval_loss"], "left": vars(trainer).get("calls", 0), **told(),
        "of all at once": loss_of_all(trainer),
    }  # fmt: skip


def loss_of_all(trainer: Any) -> float:
    """By the trainer's own class alone, of all rows in one batch."""
    batch = (trainer.data_collator or default_data_collator)(list(trainer.eval_dataset))
    batch.pop("place", None) if isinstance(batch, dict) else None
    trainer.model.eval()
    trainer.__class__ = type(trainer).__mro__[2]
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


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
        "texts": {"labels": torch.tensor(label)},
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


def as_texts(rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    texts = [" ".join(map(str, each["input_ids"].tolist())) for each in rows]
    return {"text": texts, "label": [int(each["labels"]) for each in rows]}


COLLATORS = {
    "masked": DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.4), "lists": as_lists, "texts": as_texts,
}  # fmt: skip


# ---- models


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


def with_zero_head() -> Any:
    model = CLASSIFIER()
    torch.nn.init.zeros_(model.classifier.weight)
    return model


CLASSIFIER, TAGGER = bert(BertForSequenceClassification), bert(BertForTokenClassification)
MEANS: dict[str, tuple[Any, ...]] = {  # the same on any number of workers
    "classes": (CLASSIFIER, "class"),
    "classes, some ignored": (CLASSIFIER, "partly"),
    "a number": (bert(BertForSequenceClassification, num_labels=1), "number"),
    "several labels": (bert(BertForSequenceClassification, problem_type="multi_label_classification"), "several"),
    "tokens": (TAGGER, "tokens"),
    "mean of rows": (TAGGER, "tokens", own.MeanOfRows),
    "language": (lambda: LlamaForCausalLM(LlamaConfig(**SMALL)), "language"),
    "answers": (bert(BertForQuestionAnswering, num_labels=2), "answers"),
    "focal": (CLASSIFIER, "class", own.Focal),
    "counting": (CLASSIFIER, "class", own.Counting),
    "dropping": (CLASSIFIER, "with a place", own.Dropping),
    "lists": (CLASSIFIER, "lists", own.OfLists),
    "nested": (CLASSIFIER, "class", own.Nested),
    "masked mean": (TAGGER, "tokens", own.MaskedMean),
    "own step": (CLASSIFIER, "class", own.OwnStep),
    "undivided step": (CLASSIFIER, "class", own.UndividedStep),
    "patched": (CLASSIFIER, "class", own.PatchedInstance),
    "texts": (CLASSIFIER, "texts", own.OfTexts),
    "names of its own": (CLASSIFIER, "class", own.WithNamesOfItsOwn),
    "losses for metrics": (CLASSIFIER, "class", own.LossesForMetrics),
}
AS_TRANSFORMERS_DIVIDES = {"own step of the model": (CLASSIFIER, "class", own.OwnStepOfTheModel)}
OTHERS: dict[str, tuple[Any, ...]] = {  # not so
    "sum": (CLASSIFIER, "class", own.SumOfLosses),
    "weighted": (CLASSIFIER, "class", own.Weighted),
    "weighted tokens": (TAGGER, "tokens", own.WeightedTokens),
    "two losses": (bert(BertForPreTraining), "pairs"),
    "router": (
        lambda: MixtralForCausalLM(
            MixtralConfig(
                **SMALL,
                num_local_experts=4,
                num_key_value_heads=2,
                output_router_logits=True,
                initializer_range=0.5,
                router_aux_loss_coef=0.001,
            )
        ),
        "language",
    ),
    "no answers": (bert(BertForQuestionAnswering, num_labels=2), "no answers"),
    "penalty": (bert(BertForSequenceClassification, initializer_range=0.5), "class", own.Penalty),
    "in batch": (CLASSIFIER, "class", own.InBatch),
    "masks drawn": (bert(BertForMaskedLM), "masked"),
    "batch norm": (Normalized, "class"),
    "batch norm, loaded": (lambda: Normalized().eval(), "class"),
    "weighted in the middle": (CLASSIFIER, "class", own.WeightedMiddle),
    "weighted in training": (CLASSIFIER, "class", own.WeightedInTraining),
    "own prediction": (CLASSIFIER, "class", own.OwnPrediction),
    "weighted, first predicting the same": (with_zero_head, "class", own.Weighted),
    "weighted, in bfloat16": (CLASSIFIER, "class", own.Weighted, {"bf16": True}),
}
LOSSES = MEANS | AS_TRANSFORMERS_DIVIDES | OTHERS
USUAL = {  # what is tested each time
    "classes", "tokens", "language", "counting", "own step", "weighted", "no answers",
}  # fmt: skip
