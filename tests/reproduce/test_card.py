"""The model card tells what is a setting, what was reported, and what the model does not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfsuite.reproduce.card import card
from hfsuite.reproduce.labels import without_labels
from hfsuite.reproduce.recorded import RecordedRun
from tests.reproduce.test_verdict import run

BERT, VIT = "BertForSequenceClassification", "ViTForImageClassification"


def exported(**recipe: Any) -> RecordedRun:
    values = {
        "config": {"learning_rate": 3e-5, "warmup": 0.1, "token": "..."}, "idle": ["warmup"], "module": "mine",
        "gpu": False, "best": {"step": 20, "metrics": {"learning_rate": 1e-5, "loss": 0.25}},
    }  # fmt: skip
    return run({"loss": {20: 0.25}, "learning_rate": {20: 1e-5}}, **{**values, **recipe})


def test_a_setting_and_a_metric_of_one_name_are_two() -> None:
    text = card(exported(), has_model=True, remarks=["Something to know."])
    metrics, settings = text.split("## Settings")
    assert "| learning_rate | 1e-05 |" in metrics
    assert "## Reported at step 20" in metrics
    assert "| config.learning_rate | 3e-05 |" in settings
    assert "| config.warmup | does not count |" in settings
    assert "| learning_rate |" not in settings
    assert "Set TOKEN before" in text
    assert "Something to know." in text


def test_a_members_settings_are_those_of_its_best_report() -> None:
    best = {"step": 20, "metrics": {"loss": 0.25}, "changed": {"learning_rate": 9e-5}}
    assert "| config.learning_rate | 9e-05 |" in card(exported(best=best), has_model=False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": [BERT]}, "AutoModelForSequenceClassification.from_pretrained(..., id2label="),
        (
            {"architectures": [VIT], "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}},
            "so the model says LABEL_0, LABEL_1, ...: where the experiment makes it, AutoModelForImageClassification",
        ),
        ({"architectures": [VIT], "id2label": {"0": "cat", "1": "dog"}}, None),
        ({"architectures": [BERT], "id2label": {"0": "LABEL_0"}}, None),
        ({"architectures": [BERT], "problem_type": "regression"}, None),
        ({"architectures": ["GPT2LMHeadModel"]}, None),
        ({}, None),
    ],
)
def test_labels_without_names_are_told_with_the_cure(own_directory: Path, config: Any, said: str | None) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(config))
    found = without_labels(Path("model"))
    assert found is None if said is None else said in str(found)
    assert without_labels(Path("nothing")) is None
