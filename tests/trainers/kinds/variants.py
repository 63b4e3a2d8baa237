"""One classifier or language model, trained with arguments and callbacks that users give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    BertForSequenceClassification,
    DataCollatorWithFlattening,
    DataCollatorWithPadding,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
)

from tests.trainers.kinds.in_ranks import SMALL, arguments, tokenizer
from tests.trainers.kinds.tasks import EVALUATED, TRAINED, bert, classes, sentences


def classifier(kind: Any = Trainer, *, make_args: Any = arguments, **more: Any) -> Trainer:
    """Of short texts; further arguments are the trainer's own, or those of its training."""
    of_trainer = {name: more.pop(name) for name in ("callbacks", "compute_metrics", "eval_dataset") if name in more}
    return kind(
        bert(BertForSequenceClassification, num_labels=3), make_args(**more),
        train_dataset=classes(TRAINED, 1), data_collator=DataCollatorWithPadding(tokenizer()),
        **{"eval_dataset": classes(EVALUATED, 2), **of_trainer},
    )  # fmt: skip


def texts(count: int, seed: int) -> Dataset:
    ids = sentences(count, seed)
    return Dataset.from_dict({"input_ids": ids})


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def whole(rows: list[dict[str, Any]]) -> dict[str, Any]:
    batch = tokenizer().pad(rows, padding="max_length", max_length=9, return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def language(model: Any = None, collator: Any = whole, **more: Any) -> Trainer:
    return Trainer(
        model or llama(), arguments(**more), train_dataset=texts(TRAINED, 1), eval_dataset=texts(EVALUATED, 2),
        data_collator=collator,
    )  # fmt: skip


# ---- losses


def smoothed() -> Trainer:
    return classifier(label_smoothing_factor=0.1)


def smoothed_language() -> Trainer:
    return language(label_smoothing_factor=0.1)


def flattened() -> Trainer:
    """All rows of a batch, one after another in one row."""
    return language(collator=DataCollatorWithFlattening())


# ---- optimizers and schedules


def adafactor() -> Trainer:
    return classifier(optim="adafactor", learning_rate=0.01)


def plateau() -> Trainer:
    return classifier(
        lr_scheduler_type="reduce_lr_on_plateau", metric_for_best_model="eval_loss", greater_is_better=False,
        lr_scheduler_kwargs={"patience": 0, "factor": 0.5, "threshold": 0.5}, max_steps=4,
    )  # fmt: skip


def noisy() -> Trainer:
    return language(neftune_noise_alpha=5.0)


# ---- evaluations


def of_all_inputs(given: Any) -> dict[str, Any]:
    assert len(given.inputs) == len(given.losses) == len(given.predictions) == EVALUATED
    return {"first_ids": int(given.inputs[:, 0].sum()), "mean": float(given.losses.mean())}


def included() -> Trainer:
    return classifier(
        include_for_metrics=["inputs", "loss"], eval_accumulation_steps=1, torch_empty_cache_steps=1,
        per_device_eval_batch_size=2, compute_metrics=of_all_inputs,
    )  # fmt: skip


def without_a_number() -> Trainer:
    return classifier(compute_metrics=lambda _: {"score": math.nan, "other": np.float32("inf"), "note": "none"})


class AlsoPredicts(Trainer):
    """Looks at another set after each evaluation."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        found = super().evaluate(*args, **kwargs)
        other = self.predict(classes(5, 4), metric_key_prefix="test")
        assert other.predictions.shape == (5, 3)
        self.log({"test_loss": other.metrics["test_loss"]})
        return found


def predicting() -> Trainer:
    trainer = classifier(AlsoPredicts)
    trainer.evaluate()  # before it is trained too
    trainer.predict(classes(5, 4))
    return trainer


def on_boards() -> Trainer:
    return classifier(report_to="tensorboard")


def on_boards_that_are_missing() -> Trainer:
    return classifier(report_to="wandb")


# ---- compiled, checkpointed


def compiled(backend: str = "eager") -> Trainer:
    return classifier(torch_compile=True, torch_compile_backend=backend)


def compiled_again() -> Trainer:
    return compiled()


def compiled_by_inductor() -> Trainer:
    return compiled("inductor")


def adapted(*, use_reentrant: bool = False, **more: Any) -> Trainer:
    from peft import LoraConfig, get_peft_model

    model = llama()
    model.enable_input_require_grads()
    adapter = LoraConfig(r=2, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
                         init_lora_weights=False)  # fmt: skip
    return language(
        get_peft_model(model, adapter), gradient_checkpointing=True, save_strategy="steps", save_steps=1,
        gradient_checkpointing_kwargs={"use_reentrant": use_reentrant}, **more,
    )  # fmt: skip


def adapted_reentrant() -> Trainer:
    return adapted(use_reentrant=True)


def adapted_reentrant_all_used() -> Trainer:
    return adapted(use_reentrant=True, ddp_find_unused_parameters=False)


# ---- callbacks


class Stops(TrainerCallback):  # type: ignore[misc]
    """Ends a training in its second step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or state.global_step == 2


def stopping() -> Trainer:
    return classifier(callbacks=[Stops()], save_strategy="steps", save_steps=1, max_steps=5)


def stopping_without_checkpoints() -> Trainer:
    return classifier(callbacks=[Stops()], max_steps=5)


class SavesWhereItLikes(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint where nothing else happens."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = control.should_save or state.global_step == 3


def saving_between_reports() -> Trainer:
    return classifier(
        callbacks=[SavesWhereItLikes()], save_strategy="steps", save_steps=2, logging_steps=2, eval_steps=2, max_steps=4
    )


class LogsInOneRank(Trainer):
    def log(self, *args: Any, **kwargs: Any) -> None:
        if self.is_world_process_zero():
            super().log(*args, **kwargs)


def logging_in_one_rank() -> Trainer:
    return classifier(LogsInOneRank, eval_strategy="no", eval_dataset=None)


def best_at_end() -> Trainer:
    return classifier(save_strategy="steps", save_steps=1, load_best_model_at_end=True)
