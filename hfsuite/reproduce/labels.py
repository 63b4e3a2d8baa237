"""Whether a classifier says what it has found, or LABEL_0. Pure functions of a model's folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hfsuite.checkpoints.base_model import FOLDER as BUNDLED

CONFIG = "config.json"
CLASSIFIER = re.compile(r"For(\w*Classification)$")
UNNAMED = re.compile(r"LABEL_\d+")


def without_labels(model: Path) -> str | None:
    """A sentence, with the cure, if the labels of a model have no names; None if they have, or if it has no labels.

    Args:
        model: its folder; it need not be there.
    """
    for config in (model / CONFIG, model / BUNDLED / CONFIG):  # the second is below adapters
        if config.is_file():
            return _of_config(json.loads(config.read_text(encoding="utf-8")))
    return None


def _of_config(config: dict[str, Any]) -> str | None:
    kind = CLASSIFIER.search((config.get("architectures") or [""])[0])
    names = list((config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}).values())  # two is what it has by default
    if kind is None or config.get("problem_type") == "regression" or len(names) < 2:
        return None
    if not all(UNNAMED.fullmatch(str(name)) for name in names):
        return None
    return (
        f"id2label was not given, so the model says {', '.join(map(str, names[:2]))}{', ...' if names[2:] else ''}: "
        f"where the experiment makes it, AutoModelFor{kind[1]}.from_pretrained(..., "
        'id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}) names them.'
    )
