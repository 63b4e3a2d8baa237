"""The model below PEFT's adapters, saved beside them where nobody could name it. Runs in rank 0.

PEFT saves adapters alone, with the name of the model that they belong to. One that was made from a configuration has no
name, and its adapters would be of no use to anybody.
"""

from __future__ import annotations

import os
from typing import Any

FOLDER = "base_model"  # in a checkpoint
LIMIT = 500_000_000  # bytes: a larger one is not saved with each checkpoint


def save_beside(model: Any, checkpoint: str) -> None:
    """Saves the model below adapters in a folder of the checkpoint, if it has no name and is small enough.

    Args:
        model: the trained one, unwrapped; any other than one of PEFT's is left alone.
        checkpoint: a folder of this machine.
    """
    config = getattr(model, "peft_config", {}).get(getattr(model, "active_adapter", None))
    if config is None or config.base_model_name_or_path:
        return
    base = model.get_base_model()
    if not hasattr(base, "save_pretrained"):  # none of Transformers
        return
    weights = _without_adapters(base)
    if sum(each.nbytes for each in weights.values()) <= LIMIT:
        base.save_pretrained(os.path.join(checkpoint, FOLDER), state_dict=weights)


def _without_adapters(base: Any) -> dict[str, Any]:
    """The weights of a model as they are called before adapters are put into it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    own = {
        f"{name}.": "base_layer." if isinstance(module, BaseTunerLayer) else "original_module."
        for name, module in base.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }
    found = {}
    for name, tensor in base.state_dict().items():
        for outer in sorted((each for each in own if name.startswith(each)), key=len, reverse=True):
            if not name.startswith(outer + own[outer]):
                break
            name = outer + name[len(outer) + len(own[outer]) :]
        else:
            found[name] = tensor
    return found
