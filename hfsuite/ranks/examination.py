"""Rates a training's best checkpoint on data that no search may see. Runs in rank 0, after the training function."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import ray.train

from hfsuite.checkpoints import manifest
from hfsuite.checkpoints.checkpoint import TransformersCheckpoint
from hfsuite.errors import CheckpointError

TEST_FILE = "test.json"  # in the run's directory: what was found

SHOWN = 200  # characters of values in a message

Test = Callable[[TransformersCheckpoint, dict[str, Any]], Mapping[str, float]]


@dataclass(frozen=True)
class Examination:
    """A test that is made when a training has ended by itself.

    Args:
        test: the experiment's.
        metric: by which the best checkpoint is chosen, and which the test must measure too.
        mode: "min" or "max".
    """

    test: Test
    metric: str
    mode: str

    def hold(self, config: dict[str, Any]) -> None:
        """Rates the best checkpoint so far and leaves the result in the run's directory.

        Raises:
            CheckpointError: there is none.
            ValueError: the test does not measure the metric, or returns what is no number.
        """
        if ray.train.get_context().get_world_rank() > 0:
            return
        rated = [
            (value, each.checkpoint)
            for each in ray.train.get_all_reported_checkpoints()
            if _is_finite(value := value_at(each.metrics, self.metric))
            and each.checkpoint is not None
            and manifest.is_sealed(each.checkpoint)
        ]
        if not rated:
            raise CheckpointError(f"There is no checkpoint with the metric {self.metric!r} that could be tested.")
        sign = 1 if self.mode == "max" else -1
        # Of equals the newest, as Ray Tune has it, which has removed the others.
        best = max(enumerate(rated), key=lambda each: (sign * each[1][0], each[0]))[1][1]
        returned = self.test(TransformersCheckpoint(best.path, best.filesystem), config)
        if not isinstance(returned, Mapping):
            raise ValueError(f"The experiment's test must return a dict of numbers, got {type(returned).__name__}.")
        found = _flat(returned)
        if (objective := value_at(returned, self.metric)) is not None:
            found.setdefault(self.metric, objective)
        if self.metric not in found:
            raise ValueError(f"The experiment's test must return {self.metric!r}, got {', '.join(sorted(found))}.")
        if odd := [f"{name}={value!r}" for name, value in found.items() if not _is_number(value)]:
            raise ValueError(f"What the experiment's test returns must be numbers, got {', '.join(odd)[:SHOWN]}.")
        storage = ray.train.get_context().get_storage()
        with storage.storage_filesystem.open_output_stream(f"{storage.experiment_fs_path}/{TEST_FILE}") as stream:
            stream.write(json.dumps({name: float(value) for name, value in found.items()}).encode())


def value_at(metrics: Mapping[str, Any], name: str) -> Any:
    """What a name stands for in a report: a value, or one in groups, with dots or slashes between; or None.

    Names in groups may be numbers (of classes, for example) and have dots of their own.
    """
    if name in metrics:
        return metrics[name]
    for outer, inside in metrics.items():
        if str(outer) == name:
            return inside
        if isinstance(inside, Mapping) and name.startswith((f"{outer}.", f"{outer}/")):
            found = value_at(inside, name[len(str(outer)) + 1 :])
            if found is not None:
                return found
    return None


def _flat(metrics: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    """Numbers by their names, those in groups with the groups' names and dots before."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return found


def _is_number(value: Any) -> bool:
    """Python's, NumPy's or a tensor of one."""
    return (isinstance(value, Real) and not isinstance(value, bool)) or getattr(value, "ndim", None) == 0


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
