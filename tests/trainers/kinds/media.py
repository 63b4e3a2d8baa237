"""Images and sounds, as the examples of Transformers train on them: raw arrays, prepared when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    Trainer,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
)

from tests.trainers.kinds.in_ranks import UNDROPPED, arguments

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TRAINED, EVALUATED = 10, 7


def accuracy(given: Any) -> dict[str, Any]:
    assert len(given.label_ids) == EVALUATED
    return {"accuracy": (given.predictions.argmax(-1) == given.label_ids).mean()}


# ---- images


def pictures(count: int, seed: int, *, draws: bool) -> Dataset:
    """A column of arrays, of which a transform makes pixel values when they are read."""
    draw = np.random.default_rng(seed)

    def prepared(rows: dict[str, Any]) -> dict[str, Any]:
        values = [torch.tensor(each, dtype=torch.float32).permute(2, 0, 1) / 255 for each in rows["image"]]
        if draws:
            values = [each.flip(-1) if torch.rand(()) < 0.5 else each for each in values]
        return {"pixel_values": values, "labels": rows["label"]}

    images = draw.integers(0, 256, (count, 8, 8, 3))
    return Dataset.from_dict({"image": images.tolist(), "label": draw.integers(0, 3, count)}).with_transform(prepared)


def stacked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def images(*, draws: bool = False) -> Trainer:
    config = ViTConfig(**SIZES, **UNDROPPED, image_size=8, patch_size=4, num_labels=3)
    return Trainer(
        ViTForImageClassification(config), arguments(remove_unused_columns=False), data_collator=stacked,
        train_dataset=pictures(TRAINED, 1, draws=draws), eval_dataset=pictures(EVALUATED, 2, draws=False),
        compute_metrics=accuracy,
    )  # fmt: skip


def images_flipped_by_chance() -> Trainer:
    return images(draws=True)


# ---- sounds


def waves(count: int, seed: int) -> Dataset:
    draw = np.random.default_rng(seed)
    return Dataset.from_dict(
        {"input_values": draw.normal(size=(count, 200)).tolist(), "labels": draw.integers(0, 3, count)}
    )


def speaker(kind: Any, **more: Any) -> Any:
    return kind(
        Wav2Vec2Config(
            **SIZES, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 4), num_feat_extract_layers=2,
            feat_extract_norm="layer", num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, hidden_dropout=0.0,
            attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0,
            mask_time_prob=0.0, classifier_proj_size=8, num_labels=3, vocab_size=10, **more,
        )
    )  # fmt: skip


def sounds() -> Trainer:
    return Trainer(
        speaker(Wav2Vec2ForSequenceClassification), arguments(), train_dataset=waves(TRAINED, 1),
        eval_dataset=waves(EVALUATED, 2), compute_metrics=accuracy,
    )  # fmt: skip


def spectrograms() -> Trainer:
    def rows(count: int, seed: int) -> Dataset:
        draw = np.random.default_rng(seed)
        return Dataset.from_dict(
            {"input_values": draw.normal(size=(count, 16, 8)).tolist(), "labels": draw.integers(0, 3, count)}
        )

    config = ASTConfig(
        **SIZES, **UNDROPPED, patch_size=4, frequency_stride=4, time_stride=4, max_length=16, num_mel_bins=8,
        num_labels=3,
    )  # fmt: skip
    return Trainer(
        ASTForAudioClassification(config), arguments(), train_dataset=rows(TRAINED, 1), eval_dataset=rows(EVALUATED, 2),
        compute_metrics=accuracy,
    )  # fmt: skip


def spoken(reduction: str = "mean") -> Trainer:
    """What is said in sounds: each row's loss is divided by the length of its text, or all are added up."""

    def rows(count: int, seed: int) -> Dataset:
        draw = np.random.default_rng(seed)
        said = [draw.integers(1, 10, draw.integers(1, 5)).tolist() for _ in range(count)]
        return waves(count, seed).remove_columns("labels").add_column("labels", said)

    def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        labels = [row["labels"] + [-100] * (4 - len(row["labels"])) for row in rows]
        return {
            "input_values": torch.tensor([row["input_values"] for row in rows]), "labels": torch.tensor(labels),
        }  # fmt: skip

    return Trainer(
        speaker(Wav2Vec2ForCTC, ctc_loss_reduction=reduction, pad_token_id=0), arguments(learning_rate=0.01),
        train_dataset=rows(TRAINED, 1), eval_dataset=rows(EVALUATED, 2), data_collator=padded,
    )  # fmt: skip


def spoken_added_up() -> Trainer:
    return spoken("sum")
