"""What a training was given is known by its content, not by its name or place, and looking at it changes nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import Subset, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

from hfsuite.ranks import fingerprints

ROWS = {"text": ["one", "two", "three"], "label": [0, 1, 0]}
TINY = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)


def digest(dataset: Any) -> str:
    return str(fingerprints.of_dataset(dataset)["digest"])


def test_the_same_rows_have_the_same_digest_wherever_they_come_from(tmp_path: Path) -> None:
    own = Dataset.from_dict(ROWS)
    assert digest(own) == digest(Dataset.from_dict(ROWS).map(lambda row: row).select([0, 1, 2]))
    own.save_to_disk(tmp_path / "saved")
    assert digest(own) == digest(Dataset.load_from_disk(tmp_path / "saved"))
    code = f"from datasets import Dataset; from hfsuite.ranks import fingerprints as f; print(f.of_dataset(Dataset.from_dict({ROWS!r}))['digest'])"  # noqa: E501
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == digest(own)


@pytest.mark.parametrize(
    "other",
    [
        {"text": ["one", "two", "tree"], "label": [0, 1, 0]},
        {"text": ["one", "two"], "label": [0, 1]},
        {"text": ["two", "one", "three"], "label": [1, 0, 0]},
        {"words": ["one", "two", "three"], "label": [0, 1, 0]},
    ],
    ids=["one letter", "fewer rows", "another order", "another name"],
)
def test_any_difference_is_seen(other: dict[str, list[Any]]) -> None:
    assert digest(Dataset.from_dict(other)) != digest(Dataset.from_dict(ROWS))


def test_tensors_and_parts_of_them() -> None:
    images, labels = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 0, 1])
    whole = TensorDataset(images, labels)
    assert digest(whole) == digest(TensorDataset(images.clone(), labels.clone()))
    assert digest(whole) != digest(TensorDataset(images.to(torch.float16), labels))
    assert digest(Subset(whole, [0, 1])) == digest(Subset(whole, [0, 1])) != digest(Subset(whole, [1, 0]))
    assert fingerprints.of_dataset(Subset(whole, [0, 1]))["rows"] == 2


class Drawing(torch.utils.data.Dataset[float]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int) -> float:
        raise AssertionError("a row was asked for, and would have been made")


def test_rows_that_must_be_made_are_not_asked_for() -> None:
    found = fingerprints.of_dataset(Drawing())
    assert (found["digest"], found["rows"], found["source"]) == ("unknown", 5, f"{__name__}.Drawing")
    streamed = IterableDataset.from_generator(lambda: iter([{"x": 1}]))
    assert fingerprints.of_dataset(streamed)["digest"] == "unknown"


def test_nothing_is_drawn() -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    fingerprints.of_dataset(Dataset.from_dict(ROWS))
    fingerprints.of_dataset(TensorDataset(torch.ones(3)))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_model_is_known_by_its_weights_not_by_its_folder(tmp_path: Path) -> None:
    BertForSequenceClassification(TINY).save_pretrained(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (BertForSequenceClassification.from_pretrained(tmp_path / name) for name in ("here", "there"))
    one, two = fingerprints.of_model(here), fingerprints.of_model(there)
    assert one is not None
    assert two is not None
    assert one["digest"] == two["digest"]
    assert one["name"].endswith("/here")
    with torch.no_grad():
        there.classifier.bias += 1
    there.save_pretrained(tmp_path / "there")
    changed = fingerprints.of_model(BertForSequenceClassification.from_pretrained(tmp_path / "there"))
    assert changed is not None
    assert changed["digest"] != one["digest"]


def test_a_model_made_from_nothing_is_known_by_its_configuration() -> None:
    one = fingerprints.of_model(BertForSequenceClassification(TINY))
    again = fingerprints.of_model(BertForSequenceClassification(TINY))
    other = fingerprints.of_model(
        BertForSequenceClassification(BertConfig(**TINY.to_diff_dict() | {"hidden_size": 16}))
    )
    assert one is not None
    assert other is not None
    assert one == again
    assert one["digest"] != other["digest"]
    assert (one["name"], one["source"]) == ("BertForSequenceClassification", "its configuration")
    assert fingerprints.of_model(torch.nn.Linear(2, 2)) is None
