"""Checkpoints of PEFT's: adapters without the model that they belong to. Where MLflow finds that model.

MLflow loads a model, and puts adapters over it. In the writer's thread, or in `hfsuite sync`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfsuite.checkpoints.base_model import FOLDER as BUNDLED

CONFIG, ADAPTER_CONFIG, PEFT = "config.json", "adapter_config.json", "peft"
CLASSES = {  # by the task that PEFT writes down
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


@dataclass(frozen=True)
class Adapters:
    """What MLflow must know of a checkpoint with adapters.

    Args:
        base: what its model is called: a folder or a name on the hub; empty if it lies in the checkpoint.
        revision: of that name.
        model_type: the class in Transformers by which it is loaded.
        config: the model's own, as far as it lies on this machine.
    """

    base: str
    revision: str | None
    model_type: str
    config: Path | None

    def places(self, source: Path, *, by_reference: bool) -> dict[str, Any]:
        """Entries of MLflow's flavor that say where model and adapters are.

        Args:
            source: the checkpoint.
            by_reference: whether it stays where it is.
        """
        adapters = str(source) if by_reference else PEFT
        if not self.base:
            base = f"{adapters}/{BUNDLED}"
            return {"peft_adaptor": adapters, **_whole(base, by_reference=by_reference)}
        if self.revision is not None:
            return {
                "peft_adaptor": adapters,
                "source_model_name": self.base,
                "source_model_revision": self.revision,
            }
        return {"peft_adaptor": adapters, **_whole(self.base, by_reference=True)}


def adapters_in(source: Path) -> Adapters | None:
    """What a checkpoint says of its adapters; None if it has none, or nobody can tell which model they belong to."""
    if not (source / ADAPTER_CONFIG).is_file():
        return None
    found = json.loads((source / ADAPTER_CONFIG).read_text())
    base = found.get("base_model_name_or_path") or ""
    if (source / BUNDLED / CONFIG).is_file():
        base, folder = "", source / BUNDLED
    elif base:
        folder = Path(base)
    else:
        return None
    config = folder / CONFIG if (folder / CONFIG).is_file() else None
    architectures = json.loads(config.read_text()).get("architectures") if config is not None else None
    own = (found.get("auto_mapping") or {}).get("base_model_class")
    model_type = CLASSES.get(found.get("task_type") or "") or own or next(iter(architectures or []), "AutoModel")
    return Adapters(base, found.get("revision"), model_type, config)


def _whole(place: str, *, by_reference: bool) -> dict[str, str]:
    return {"local_base_model_path": place} if by_reference else {"model_binary": place}
