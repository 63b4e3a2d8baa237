"""Trainers of libraries that stand on Transformers: TRL's, and those of Sentence Transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from tests.trainers.kinds.in_ranks import options, tokenizer
from tests.trainers.kinds.tasks import EVALUATED, TRAINED, bert, sentences
from tests.trainers.kinds.variants import llama


def words(count: int, seed: int) -> list[str]:
    return [" ".join(map(str, each)) for each in sentences(count, seed)]


# ---- TRL


def tuned(**more: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    of_trainer = {name: more.pop(name) for name in ("peft_config",) if name in more}
    return SFTTrainer(
        llama(), SFTConfig(**options(bf16=False, gradient_checkpointing=False, max_length=16, **more)),
        train_dataset=Dataset.from_dict({"text": words(TRAINED, 1)}),
        eval_dataset=Dataset.from_dict({"text": words(EVALUATED, 2)}), processing_class=tokenizer(), **of_trainer,
    )  # fmt: skip


def tuned_with_an_adapter() -> Any:
    from peft import LoraConfig

    adapter = LoraConfig(r=2, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
                         init_lora_weights=False)  # fmt: skip
    return tuned(peft_config=adapter, save_strategy="steps", save_steps=1)


def tuned_on_packed_rows() -> Any:
    return tuned(packing=True, packing_strategy="wrapped", eval_packing=True)


# ---- Sentence Transformers


def embedder() -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertModel

    bert(BertModel).save_pretrained("base")  # Transformers writes in the first rank alone
    tokenizer().save_pretrained("base")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    read = Transformer("base", max_seq_length=16)
    return SentenceTransformer(modules=[read, Pooling(16)], device="cpu")


def embedded(make_loss: Any, columns: Any, **more: Any) -> Any:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    model, evaluator = embedder(), more.pop("make_evaluator", lambda: None)()
    given = options(**more)
    given |= {"per_device_eval_batch_size": 2}
    given.pop("train_sampling_strategy")
    return SentenceTransformerTrainer(
        model, SentenceTransformerTrainingArguments(**given), train_dataset=columns(TRAINED, 1),
        eval_dataset=columns(EVALUATED, 2), loss=make_loss(model), evaluator=evaluator,
    )  # fmt: skip


def pairs(count: int, seed: int) -> Dataset:
    return Dataset.from_dict({"anchor": words(count, seed), "positive": words(count, seed + 10)})


def rated(count: int, seed: int) -> Dataset:
    ratings = np.random.default_rng(seed).random(count)
    return pairs(count, seed).add_column("label", ratings)


def ranked_in_batch() -> Any:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    return embedded(MultipleNegativesRankingLoss, pairs)


def similar() -> Any:
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
    from sentence_transformers.losses import CosineSimilarityLoss

    def evaluator() -> Any:
        return EmbeddingSimilarityEvaluator(words(EVALUATED, 2), words(EVALUATED, 12), rated(EVALUATED, 2)["label"])

    return embedded(CosineSimilarityLoss, rated, make_evaluator=evaluator)
