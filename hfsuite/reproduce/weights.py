"""The weights that MLflow keeps of a run: whether they are whole, and how far those of two runs are apart. Driver."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfsuite.checkpoints import manifest
from hfsuite.errors import CheckpointError
from hfsuite.reproduce.recorded import RecordedRun
from hfsuite.tracking import models

if TYPE_CHECKING:
    import mlflow
    import torch


@dataclass(frozen=True)
class WeightDistance:
    """How far two sets of weights are apart.

    Args:
        step: the optimizer step of both.
        equal: whether they are the same to the last bit.
        largest: of the differences between two weights; infinity if one is no number.
        relative: the norm of all differences over the norm of all weights; likewise.
        tensor: which has the largest difference.
    """

    step: int
    equal: bool
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


def distance(client: mlflow.MlflowClient, one: RecordedRun, other: RecordedRun) -> WeightDistance | str:
    """How far the kept weights of two runs are apart, or why that cannot be said.

    Args:
        client: of the tracking store.
        one: a run.
        other: another.
    """
    ours, theirs = (models.kept_by(client, client.get_run(each.run_id)) for each in (one, other))
    if not (both := sorted(set(ours) & set(theirs))):
        return "MLflow keeps none of the same step of both"
    step = both[-1]
    with tempfile.TemporaryDirectory(prefix="hfsuite-") as folder:
        try:
            places = [
                models.fetch(client, each[step], Path(folder, str(each[step].model_id))) for each in (ours, theirs)
            ]
            return _between(places[0], places[1], step)
        except CheckpointError as error:
            return f"of a checkpoint of step {step} {error}"


def _between(one: Path, other: Path, step: int) -> WeightDistance:
    """One tensor after another, so that memory holds two."""
    from safetensors import SafetensorError, safe_open

    largest, tensor, squares, norm, equal = 0.0, "", 0.0, 0.0, True
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    if not names or names != sorted(path.relative_to(other) for path in other.rglob("*.safetensors")):
        raise CheckpointError("the files are not the same, or no safetensors")
    try:
        for name in names:
            with safe_open(one / name, "pt") as ours, safe_open(other / name, "pt") as theirs:
                if set(ours.keys()) != set(theirs.keys()):
                    raise CheckpointError("the tensors have other names")
                for key in ours.keys():  # noqa: SIM118  it is no mapping
                    a, b = ours.get_tensor(key), theirs.get_tensor(key)
                    if a.shape != b.shape:
                        raise CheckpointError(f"the tensor {key} has another shape")
                    equal = equal and a.dtype == b.dtype and _bits(a) == _bits(b)
                    apart = (a.double() - b.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf)
                    squares, norm = squares + float((apart**2).sum()), norm + float((a.double() ** 2).sum())
                    if apart.numel() and float(apart.max()) > largest:
                        largest, tensor = float(apart.max()), key
    except SafetensorError as error:  # a file that was cut off
        raise CheckpointError(f"cannot be read ({error})") from error
    relative = 0.0 if squares == 0 else (squares / norm) ** 0.5 if norm > 0 else math.inf
    return WeightDistance(step, equal, largest, math.inf if math.isnan(relative) else relative, tensor)


def _bits(tensor: torch.Tensor) -> bytes:
    import torch

    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
