"""Hyperparameter sweeps over distributed Hugging Face training: Ray schedules, Optuna proposes, MLflow remembers."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from hfsuite.version import __version__ as __version__

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")  # before anything imports ray.train

if TYPE_CHECKING:
    from hfsuite.batch import split_batch
    from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
    from hfsuite.errors import StopTraining
    from hfsuite.seeds import Seeds
    from hfsuite.sweeps.experiment import Experiment
    from hfsuite.sweeps.result import SweepResult, TrialResult
    from hfsuite.trainers.accelerate import AccelerateTrainer
    from hfsuite.trainers.transformers import TransformersTrainer

__all__ = [
    "AccelerateTrainer",
    "Experiment",
    "Seeds",
    "StopTraining",
    "SweepResult",
    "TransformersCheckpoint",
    "TransformersTrainer",
    "TrialResult",
    "split_batch",
]

_HOMES = {
    "AccelerateTrainer": "hfsuite.trainers.accelerate",
    "Experiment": "hfsuite.sweeps.experiment",
    "Seeds": "hfsuite.seeds",
    "StopTraining": "hfsuite.errors",
    "SweepResult": "hfsuite.sweeps.result",
    "TransformersCheckpoint": "hfsuite.checkpoints.checkpoint",
    "TransformersTrainer": "hfsuite.trainers.transformers",
    "TrialResult": "hfsuite.sweeps.result",
    "split_batch": "hfsuite.batch",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: `import hfsuite` must not cost the ten seconds of Ray, torch and MLflow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hfsuite' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
