"""The weights that MLflow keeps of a run: whether they are whole, and how far those of two runs are apart. Driver."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hfsuite.errors import CheckpointError
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.tracking import models
from hfsuite.trainers import manifest

if TYPE_CHECKING:
    import mlflow


@dataclass(frozen=True)
class WeightDistance:
    """How far two sets of weights are apart.

    Args:
        step: the optimizer step of both.
        largest: of the differences between two weights.
        relative: the norm of all differences over the norm of all weights.
        tensor: which has the largest difference.
    """

    step: int
    largest: float
    relative: float
    tensor: str


def fault_of(client: mlflow.MlflowClient, run: RecordedRun) -> str | None:
    """What is wrong with the checkpoints that MLflow should have of a run; None if they are as recorded.

    Args:
        client: of the tracking store.
        run: the run.
    """
    for step, model in models.kept_by(client, client.get_run(run.run_id)).items():
        with tempfile.TemporaryDirectory(prefix="hfsuite-") as folder:
            try:
                place = models.fetch(client, model, Path(folder))
            except CheckpointError as error:
                return f"step {step}: {error}"
            recorded, found = run.weights.get(step), manifest.weights_digest_of(str(place))
            if recorded is not None and recorded != found:
                return f"step {step}: " + ("its weights are missing" if found is None else "its weights are others")
    return None


def distance(client: mlflow.MlflowClient, one: RecordedRun, other: RecordedRun) -> WeightDistance | None:
    """How far the kept weights of two runs are apart; None where they have none of the same step, or not whole ones.

    Args:
        client: of the tracking store.
        one: a run.
        other: another.
    """
    ours, theirs = (models.kept_by(client, client.get_run(each.run_id)) for each in (one, other))
    if not (both := sorted(set(ours) & set(theirs))):
        return None
    step = both[-1]
    with tempfile.TemporaryDirectory(prefix="hfsuite-") as folder:
        try:
            places = [
                models.fetch(client, each[step], Path(folder, str(each[step].model_id))) for each in (ours, theirs)
            ]
            return _between(places[0], places[1], step)
        except (CheckpointError, OSError):
            return None


def _between(one: Path, other: Path, step: int) -> WeightDistance | None:
    """One tensor after another, so that memory holds two."""
    from safetensors import SafetensorError, safe_open

    largest, tensor, squares, norm = 0.0, "", 0.0, 0.0
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    if not names or names != sorted(path.relative_to(other) for path in other.rglob("*.safetensors")):
        return None
    try:
        for name in names:
            with safe_open(one / name, "pt") as ours, safe_open(other / name, "pt") as theirs:
                if set(ours.keys()) != set(theirs.keys()):
                    return None
                for key in ours.keys():  # noqa: SIM118  it is no mapping
                    a, b = (each.get_tensor(key).double().numpy() for each in (ours, theirs))
                    if a.shape != b.shape:
                        return None
                    apart = float(np.abs(a - b).max(initial=0.0))
                    squares, norm = squares + float(((a - b) ** 2).sum()), norm + float((a**2).sum())
                    if apart > largest:
                        largest, tensor = apart, key
    except SafetensorError:  # a file that was cut off
        return None
    return WeightDistance(step, largest, (squares / norm) ** 0.5 if norm else 0.0, tensor)
