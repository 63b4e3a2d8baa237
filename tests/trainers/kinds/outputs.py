"""Trainings that write to places of their own: a hub, folders that a user chose."""

from __future__ import annotations

import os
from typing import Any

from transformers import Trainer

from tests.trainers.kinds.variants import classifier

EACH_STEP = {"save_strategy": "steps", "save_steps": 1}


def pushing(**_: Any) -> Trainer:
    return classifier(push_to_hub=True, hub_model_id="someone/something", **EACH_STEP)


def relative(**_: Any) -> Trainer:
    return classifier(output_dir="some/folder", **EACH_STEP)


def absolute_here(**_: Any) -> Trainer:
    return classifier(output_dir=os.path.abspath("some/folder"), **EACH_STEP)


def absolute_elsewhere(folder: str = "") -> Trainer:
    return classifier(output_dir=folder, **EACH_STEP)


def beside(**_: Any) -> Trainer:
    return classifier(output_dir="../out", **EACH_STEP)
