"""What --gpu, --cpu and --gpu-share ask for together, and what a sweep makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.tune.schedulers import ResourceChangingScheduler

from hfsuite.cli.settings import gpu_of
from hfsuite.sweeps.job import TRAINING, Job, Purpose
from hfsuite.sweeps.request import Request
from tests import toy


@pytest.mark.parametrize(
    ("gpu", "share", "asked"),
    [
        (None, None, None), (True, None, True), (False, None, False), (None, "0.5", 0.5), (True, "1", 1.0),
        (None, "auto", "auto"),
    ],
)  # fmt: skip
def test_options_become_one_value(gpu: bool | None, share: str | None, asked: object) -> None:
    assert gpu_of(gpu, share) == (asked, [])


def test_what_cannot_be_is_one_sentence() -> None:
    assert gpu_of(False, "0.5")[1] == ["--cpu and --gpu-share contradict each other: give one of them."]
    assert gpu_of(None, "half")[1] == ["--gpu-share takes a number up to 1, or auto, got 'half'."]


def share_of(
    gpu: Any, *, kind: str = "sweep", scaling: ScalingConfig | None = None, **asked: Any
) -> float | str | None:
    """Of the jobs of an experiment."""
    trainer = toy.experiment.trainer.with_settings({"scaling_config": scaling} if scaling is not None else {})
    experiment = toy.experiment if scaling is None else type(toy.experiment)(
        name="toy", trainer=trainer, space=toy.experiment.space, metric="loss", mode="min", defaults=toy.DEFAULTS
    )  # fmt: skip
    return Job(experiment, Request(gpu=gpu, **asked), Purpose(kind=kind)).gpu_share


def test_trials_share_where_nobody_says_otherwise() -> None:
    assert share_of(None) is None, "the toy runs on CPUs"
    assert share_of(True) == share_of("auto") == "auto"
    assert share_of(0.5) == 0.5
    assert share_of(1.0) == 1.0
    assert share_of(True, trials=1) == 1.0
    assert share_of(True, kind=TRAINING) == 1.0
    assert share_of(True, trial_scheduler=ResourceChangingScheduler()) == 1.0


def test_the_trainers_own_part_counts() -> None:
    whole = ScalingConfig(num_workers=1, use_gpu=True)
    half = ScalingConfig(num_workers=1, use_gpu=True, resources_per_worker={"GPU": 0.5})
    assert share_of(None, scaling=whole) == "auto"
    assert share_of(None, scaling=half) == 0.5
