"""Tasks beside the classification of texts and language modelling, as the examples of Transformers train them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, WeightedRandomSampler
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)

from tests.trainers.kinds.in_ranks import SMALL, UNDROPPED, arguments, options, tokenizer

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TRAINED, EVALUATED = 10, 7  # rows: neither fills the last batch


def bert(kind: Any, **more: Any) -> Any:
    return kind(BertConfig(**SMALL, **UNDROPPED, **more))


def sentences(count: int, seed: int, longest: int = 9) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(4, 50, draw.integers(4, longest)).tolist() for _ in range(count)]


# ---- names in texts


def tagged(count: int, seed: int) -> Dataset:
    ids = sentences(count, seed)
    return Dataset.from_dict(
        {"input_ids": ids, "labels": [[-100, *(each % len(TAGS) for each in row[1:])] for row in ids]}
    )


def scores_of_tags(given: Any) -> dict[str, Any]:
    """As `evaluate.load("seqeval")` gives them: nested, of NumPy's numbers."""
    predicted, labels = np.argmax(given.predictions, -1), given.label_ids
    assert len(labels) == EVALUATED
    counted = labels != -100
    found: dict[str, Any] = {}
    for name, ends in (("PER", (1, 2)), ("LOC", (3, 4))):
        of_name = counted & np.isin(labels, ends)
        found[name] = {
            "f1": np.float64((predicted == labels)[of_name].mean()), "number": np.int64(of_name.sum()),
            "precision": np.float32(0.5),
        }  # fmt: skip
    return found | {
        "overall_f1": np.float64((predicted == labels)[counted].mean()),
    }  # fmt: skip


def tags() -> Trainer:
    return Trainer(
        bert(BertForTokenClassification, num_labels=len(TAGS)), arguments(),
        train_dataset=tagged(TRAINED, 1), eval_dataset=tagged(EVALUATED, 2),
        data_collator=DataCollatorForTokenClassification(tokenizer()), compute_metrics=scores_of_tags,
    )  # fmt: skip


# ---- answers in texts


def answered(count: int, seed: int) -> Dataset:
    ids = sentences(count, seed)
    return Dataset.from_dict(
        {
            "input_ids": ids, "start_positions": [row[0] % len(row) for row in ids],
            "end_positions": [max(row[0] % len(row), row[1] % len(row)) for row in ids],
        }
    )  # fmt: skip


def scores_of_answers(given: Any) -> dict[str, float]:
    (start, end), (first, last) = given.predictions, given.label_ids
    assert len(start) == len(end) == len(first) == len(last) == EVALUATED
    exact = (start.argmax(-1) == first) & (end.argmax(-1) == last)
    return {"exact_match": 100 * exact.mean(), "spread": float(start[:, 0].std())}


def answers(padding: str = "max_length", **more: Any) -> Trainer:
    return Trainer(
        bert(BertForQuestionAnswering), arguments(**more),
        train_dataset=answered(TRAINED, 1), eval_dataset=answered(EVALUATED, 2),
        data_collator=DataCollatorWithPadding(tokenizer(), padding=padding, max_length=9),
        compute_metrics=scores_of_answers,
    )  # fmt: skip


def answers_padded_by_batch() -> Trainer:
    """A position is found among all of a batch, padding among them."""
    return answers(padding="longest")


class QuestionAnsweringTrainer(Trainer):
    """As in the example of Transformers: metrics are computed, and logged, by the first rank alone."""

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        loader, compute_metrics = self.get_eval_dataloader(eval_dataset), self.compute_metrics
        self.compute_metrics = None
        try:
            output = self.evaluation_loop(
                loader, description="Evaluation", prediction_loss_only=None, ignore_keys=ignore_keys,
                metric_key_prefix=metric_key_prefix,
            )  # fmt: skip
        finally:
            self.compute_metrics = compute_metrics
        metrics = dict(output.metrics)
        if self.args.should_save:
            found = scores_of_answers(output)
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        if self.args.should_log:
            self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def answers_of_their_own(**more: Any) -> Trainer:
    trainer = answers(**more)
    trainer.__class__ = QuestionAnsweringTrainer
    return trainer


def answers_from_the_start() -> Trainer:
    return answers_of_their_own(eval_on_start=True)


# ---- losses and loaders of one's own


def classes(count: int, seed: int) -> Dataset:
    ids = sentences(count, seed)
    return Dataset.from_dict({"input_ids": ids, "labels": [row[0] % 3 for row in ids]})


class Weighted(Trainer):
    """Rare classes count more, in batches of its own."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 3.0, 0.2]))
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> Any:
        draws = torch.Generator().manual_seed(1)
        sampler = WeightedRandomSampler([1.0, 2.0] * (TRAINED // 2), TRAINED, generator=draws)
        return self.given(
            DataLoader(
                self.train_dataset, batch_size=self.args.train_batch_size, sampler=sampler,
                collate_fn=self.data_collator,
            )
        )  # fmt: skip

    def given(self, loader: Any) -> Any:
        return self.accelerator.prepare(loader)


class WeightedUnprepared(Weighted):
    def given(self, loader: Any) -> Any:
        return loader


def weighted(kind: Any = Weighted) -> Trainer:
    return kind(
        bert(BertForSequenceClassification, num_labels=3), arguments(),
        train_dataset=classes(TRAINED, 1), eval_dataset=classes(EVALUATED, 2),
        data_collator=DataCollatorWithPadding(tokenizer()),
    )  # fmt: skip


def weighted_unprepared() -> Trainer:
    return weighted(WeightedUnprepared)


# ---- several evaluation sets


def several_sets() -> Trainer:
    trainer = weighted(Trainer)
    trainer.eval_dataset = {"a": classes(EVALUATED, 2), "b": classes(5, 3)}
    trainer.compute_metrics = lambda given: {"rows": len(given.label_ids)}
    return trainer


# ---- texts made of texts


def summaries() -> Trainer:
    words = tokenizer()
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
                 decoder_start_token_id=0, pad_token_id=0, eos_token_id=3)
    )  # fmt: skip

    def made(given: Any) -> dict[str, float]:
        texts = words.batch_decode(np.where(given.predictions < 0, 0, given.predictions), skip_special_tokens=True)
        assert len(texts) == len(given.label_ids) == EVALUATED
        return {"gen_len": float(np.mean([len(each.split()) for each in texts]))}

    def rows(count: int, seed: int) -> Dataset:
        return Dataset.from_dict({"input_ids": sentences(count, seed), "labels": sentences(count, seed + 10, 6)})

    more = {"predict_with_generate": True, "generation_max_length": 6, "generation_num_beams": 2}
    return Seq2SeqTrainer(
        model, Seq2SeqTrainingArguments(**options(**more)),
        train_dataset=rows(TRAINED, 1), eval_dataset=rows(EVALUATED, 2), processing_class=words,
        data_collator=DataCollatorForSeq2Seq(words, model), compute_metrics=made,
    )  # fmt: skip
